"""Taking over and handing back inside an episode, by every branch, on a robot that keeps what reached its bus."""

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robots.base import Observation
from robots.log import LogWriter, Session, read_log
from robots.loop import ControlLoop
from robots.people.operator import Said
from robots.safety import Limits
from robots.session.options import Options, Result
from tests.robots.builders import assert_no_limit_violated, make_spec
from tests.robots.fakes import FakePolicy, FakeRobot
from tests.robots.people.people import PUSH, ChunkedPolicy, FakeOperator, HelpedPolicy, die, hang

POLICY, PERSON, HOLD = 0, 1, 2
RAMP = 4  # ticks of soft engagement, here
PLACE = r" in fail \(\S+people\.py:\d+\)"  # the own line of a device that raises
Run = Callable[..., tuple[Result, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs one episode, in which time stands still until the operator has answered; the result, and its episode."""
    loops = []

    def episode(robot: FakeRobot, operator: Any, policy: Any = None, **options: Any) -> tuple[Result, Any]:
        settings = {
            "steps": 30,
            "engage_seconds": RAMP / 80,
            "deadline": 80.0,
            "max_age": 80.0,
            "speed": 4.0,
            **options,
        }
        writer = LogWriter(tmp_path / f"{len(loops)}.mcap", Session(robot.spec.to_json()))
        policy = policy or HelpedPolicy(robot.spec.action_size)
        loop = ControlLoop(robot, policy, writer, Options(**settings), operator=operator)
        loops.append(loop)
        result = loop.run(0, seed=5)
        writer.close()
        (found,) = read_log(writer.path).episodes
        return result, found

    yield episode
    for loop in loops:
        loop.close()


def test_every_step_says_who_chose_it_and_what_the_policy_would_have_done(run: Run) -> None:
    robot, operator = FakeRobot(), FakeOperator((range(10, 20),))
    result, episode = run(robot, operator)
    assert (result.reason, result.steps) == ("steps", 30)
    held = [HOLD] * RAMP  # the last of which has all of the way: (step − since + 1) / ticks = 1
    expected = [*held[1:], *[POLICY] * 7, *held[1:], *[PERSON] * 7, *held[1:], *[POLICY] * 7]
    assert episode["source"].tolist() == expected
    assert (episode["valid"] == (episode["source"] == POLICY)).all()
    theirs = slice(10, 20)
    np.testing.assert_array_equal(episode["action"][theirs], np.tile(PUSH.astype(np.float32), (10, 1)))
    np.testing.assert_array_equal(episode["log_prob"][theirs], -np.ones((10, 3), np.float32))
    assert episode["latent"][theirs].tolist() == [[1, 0, 1]] * 10
    proposed = [0.3 * np.sin(tick / 40) ** 2 for tick in range(30)]  # the policy is asked at every tick
    np.testing.assert_allclose(episode["proposed_action"][:, 0], proposed, atol=1e-7)
    others = np.delete(np.arange(30), np.arange(10, 20))
    np.testing.assert_array_equal(episode["proposed_action"][others], episode["action"][others])
    kinds = [(event["kind"], event["step"]) for event in episode.events]
    assert kinds == [("episode_start", 0), ("engage", 0), ("takeover", 10), ("handback", 20), ("episode_end", 30)]
    assert (operator.begun, operator.rested) == (1, 1)


@pytest.mark.parametrize("limited", [True, False])
def test_both_handovers_start_from_the_hold(run: Run, limited: bool) -> None:
    unlimited = {"action_rate": (None,) * 3, "action_acceleration": (None,) * 3}
    robot = FakeRobot(make_spec(**({} if limited else unlimited)))
    _, episode = run(robot, FakeOperator((range(10, 20),)))
    limits = Limits.of(robot.spec)
    assert_no_limit_violated(limits, np.concatenate([np.zeros((1, 3)), robot.commands]))
    for since in (10, 20):
        for tick in range(RAMP):
            share = (tick + 1) / RAMP
            bound = share * np.abs(episode["action"][since + tick]) + 1e-6
            if not limited:  # |command − hold| ≤ α·|wanted − hold|; with limits it is still on its way there
                assert (np.abs(robot.commands[since + tick]) <= bound).all()
        jump = np.abs(robot.commands[since] - robot.commands[since - 1])
        assert (jump <= limits.rate + 1e-9).all()


def test_a_person_who_has_it_from_the_start_keeps_it_to_the_end(run: Run) -> None:
    _, episode = run(FakeRobot(), FakeOperator((range(99),)))
    assert episode["source"].tolist() == [HOLD] * (RAMP - 1) + [PERSON] * 27
    assert not episode["valid"].any()


def test_a_person_who_commands_nothing_holds(run: Run) -> None:
    robot = FakeRobot(make_spec(action_rate=(None,) * 3, action_acceleration=(None,) * 3))
    push = lambda tick: None if tick in (15, 16) else PUSH  # noqa: E731
    _, episode = run(robot, FakeOperator((range(10, 20),), push))
    assert episode["source"][15:17].tolist() == [HOLD] * 2
    np.testing.assert_array_equal(robot.commands[15:17], np.zeros((2, 3)))
    assert (np.abs(robot.commands[17]) <= np.abs(PUSH) / RAMP + 1e-6).all(), "and is engaged anew"


def test_a_persons_command_is_bounded_like_a_policys(run: Run) -> None:
    robot = FakeRobot()
    result, episode = run(robot, FakeOperator((range(10, 30),), lambda tick: np.array([1.4, -1.4, 1.2])))
    assert not result.stopped
    assert_no_limit_violated(Limits.of(robot.spec), np.concatenate([np.zeros((1, 3)), robot.commands]))
    assert "bounds" in episode.gate[20]


BAD = {
    "nan": np.array([math.nan, 0, 0]), "far": np.array([9.0, 0, 0]), "shape": np.zeros(4), "text": "left",
    "integers": np.zeros(3, np.int64), "masked": [None, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_command_of_a_person_stops(run: Run, bad: str) -> None:
    robot = FakeRobot()
    result, episode = run(robot, FakeOperator((range(10, 20),), lambda tick: BAD[bad] if tick == 14 else PUSH))
    assert result.stopped
    assert (result.steps, len(robot.commands)) == (14, 14)
    assert "action" in result.reason
    (stop,) = [event for event in episode.events if event["kind"] == "stop"]
    raw = str(stop["data"]["raw"])
    assert str(PUSH[0]) not in raw, "what was refused, not the command before it"
    assert bad not in ("nan", "text", "far") or {"nan": "nan", "text": "left", "far": "9.0"}[bad] in raw


@pytest.mark.parametrize("engaged", [True, False])
def test_an_operator_that_raises_is_a_hold_and_then_a_stop(run: Run, engaged: bool) -> None:
    robot = FakeRobot(make_spec(action_rate=(None,) * 3, action_acceleration=(None,) * 3))
    operator = FakeOperator((range(5, 30),) if engaged else (), faults={14: die(OSError("unplugged"))})
    result, episode = run(robot, operator)
    assert result.stopped
    assert re.fullmatch(rf"the operator is gone: OSError: unplugged{PLACE}", result.reason)
    assert len(robot.commands) == 15, "one more command, and it holds"
    np.testing.assert_array_equal(robot.commands[14], np.zeros(3))
    assert episode["source"][14] == HOLD
    assert episode.event("operator")["step"] == 14
    assert robot.bus[-1][1] == "stop"


def test_an_operator_that_ends_its_thread_is_gone_too(run: Run) -> None:
    result, _ = run(FakeRobot(), FakeOperator((range(5, 30),), faults={14: die(SystemExit(3))}))
    assert re.fullmatch(rf"the operator is gone: SystemExit: 3{PLACE}", result.reason)


WORDS = {
    "a number as a truth": (lambda: Said(success=1), "success=1; it must be True, False or None"),
    "a text": (lambda: Said(discard="yes"), "discard='yes'; it must be True, False or None"),
    "nan": (lambda: Said(reward=math.nan), "reward=nan; it must be a number up to 1e+30"),
    "far": (lambda: Said(reward=np.float64(1e38)), "1e+38); it must be a number up to 1e+30"),
    "text as a reward": (lambda: Said(reward="two"), "reward='two'; it must be a number up to 1e+30"),
    "no word": (lambda: "success", "'success'; it must be a robots.people.operator.Said, or None"),
    "the same for ever": (lambda: Said(reward=1.0), "over 1,000 words at once; its said() must give None after them"),
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_no_log_can_hold_is_the_operators_fault_and_the_log_stays_whole(run: Run, word: str) -> None:
    make, told = WORDS[word]
    operator = FakeOperator((range(5, 30),))
    operator.said = lambda: make() if operator.tick == 14 else None  # type: ignore[method-assign, return-value]
    result, episode = run(FakeRobot(), operator)
    assert (result.stopped, result.steps) == (True, 15)
    assert result.reason.startswith("the operator is gone: TypeError: a person says ")
    said, _, place = result.reason.partition(" in <lambda> (")
    assert said.endswith(told)
    assert bool(place) == ("it must be a number" in told or "True, False" in told), "where Said was made amiss"
    assert episode.total == pytest.approx(result.total_reward)


async def later() -> bool:
    return False


@pytest.mark.parametrize(("answer", "shown"), [(lambda: None, "None"), (lambda: "no", "'no'"), (later, "<coroutine ")])
@pytest.mark.filterwarnings("ignore:coroutine")
def test_what_is_no_answer_to_who_has_the_robot_is_the_operators_fault(run: Run, answer: Any, shown: str) -> None:
    operator = FakeOperator()
    operator.engaged = answer  # type: ignore[method-assign]
    result, episode = run(FakeRobot(), operator)
    assert result.stopped
    assert result.reason.startswith(f"the operator is gone: TypeError: engaged() gives {shown}")
    assert result.reason.endswith("; it must be True or False")
    assert "takeover" not in {event["kind"] for event in episode.events}


def test_words_of_numpy_are_words(run: Run) -> None:
    words = {3: [Said(success=np.True_, reward=np.float32(2), discard=np.False_), Said(reward=10**20)]}  # type: ignore[arg-type]
    result, episode = run(FakeRobot(), FakeOperator(words=words))
    assert (result.success, episode.success, episode.discarded) == (True, True, False)
    assert episode.total == pytest.approx(result.total_reward)


def test_one_that_is_gone_at_the_start_lets_nothing_move(run: Run) -> None:
    operator = FakeOperator()
    operator.begin = die(OSError("no permission"))  # type: ignore[method-assign]
    robot = FakeRobot()
    result, _ = run(robot, operator)
    assert re.fullmatch(rf"the operator is gone: OSError: no permission{PLACE}", result.reason)
    assert (np.abs(robot.commands) == 0).all()


def test_the_next_episode_asks_again(tmp_path: Path) -> None:
    operator = FakeOperator(faults={3: die(OSError("unplugged"))})
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    loop = ControlLoop(FakeRobot(), HelpedPolicy(), writer, Options(steps=5, speed=4, deadline=80, max_age=80),
                       operator=operator)  # fmt: skip
    assert loop.run(0, 1).stopped
    loop.latch.reset()
    operator.faults = {}
    assert loop.run(1, 1).reason == "steps"
    loop.close()
    writer.close()
    assert operator.closed == 1


def test_a_policy_that_dies_while_a_person_acts_stops(run: Run) -> None:
    policy = HelpedPolicy(say={14: die(RuntimeError("the policy"))})
    result, _ = run(FakeRobot(), FakeOperator((range(10, 20),)), policy)
    assert (result.stopped, result.steps) == (True, 14)
    policy = HelpedPolicy(say={14: lambda: np.array([math.nan, 0, 0], np.float32)})
    result, _ = run(FakeRobot(), FakeOperator((range(10, 20),)), policy)
    assert (result.stopped, result.steps) == (True, 14)


def test_a_policy_over_chunks_decides_anew_after_a_handback(run: Run) -> None:
    image = np.zeros((2, 2, 3), np.uint8)

    class Seeing(FakeRobot):
        def reading(self, **changes: Any) -> Observation:
            return super().reading(**changes, images={"image": image})

    policy = ChunkedPolicy()
    _, episode = run(
        Seeing(), FakeOperator((range(6, 9),)), policy, steps=16, instruction="go", engage_seconds=0.0
    )  # fmt: skip
    # Taken over in the middle of a chunk, whose steps go on beside the person; given back, it decides anew.
    assert episode["chunk_step"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 0, 1, 2, 3, 0, 1, 2]
    number = np.round(episode["proposed_action"][:, 0] / 0.01).astype(int).tolist()
    assert number == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 4]
    assert episode["source"].tolist() == [POLICY] * 6 + [PERSON] * 3 + [POLICY] * 7
    assert episode.event("handback")["data"] == {"decisions": 3}


def test_words_stamp_their_tick_and_do_not_end_it_unless_asked(run: Run) -> None:
    words = {4: [Said(reward=2.0)], 9: [Said(success=False), Said(success=True)], 12: [Said(reward=-1.0)]}
    result, episode = run(FakeRobot(), FakeOperator(words=words))
    assert (result.steps, result.success) == (30, True)
    said = [(event["step"], event["data"]) for event in episode.events if event["kind"] == "said"]
    assert said == [(4, {"reward": 2.0}), (9, {"success": False}), (9, {"success": True}), (12, {"reward": -1.0})]
    reward = np.ones(30)
    reward[[3, 11]] += [2.0, -1.0]
    np.testing.assert_array_equal(episode.transitions()["next_reward"], reward)
    assert episode.total == result.total_reward == episode.event("episode_end")["data"]["return"] == 31
    assert (episode.success, episode.discarded) == (True, False)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (Said(success=True), "success (a person)"),
        (Said(success=False), "failure (a person)"),
        (Said(discard=True), "discard (a person)"),
        (Said(reward=1.0), "steps"),
    ],
)
def test_a_verdict_ends_the_episode_where_that_is_asked(run: Run, word: Said, reason: str) -> None:
    result, episode = run(FakeRobot(), FakeOperator(words={9: [word]}), end_on_label=True)
    assert (result.reason, result.stopped) == (reason, False)
    assert result.success is word.success
    assert episode.discarded == result.discarded == bool(word.discard)
    if reason != "steps":
        assert len(episode.transitions()["step"]) == result.steps == 9
        assert episode.transitions()["next_truncated"][-1]


def test_a_person_knows_better_than_the_sensor(run: Run) -> None:
    robot = FakeRobot()
    robot.reading = lambda **_: FakeRobot.reading(robot, success=False)  # type: ignore[method-assign]
    result, episode = run(robot, FakeOperator(words={9: [Said(success=True)]}))
    assert result.success
    assert episode.success


def strict(tmp_path: Path, operator: Any, **options: Any) -> tuple[FakeRobot, ControlLoop, LogWriter]:
    """A loop by the wall clock, with the deadlines of a real robot."""
    robot = FakeRobot(make_spec(action_rate=(None,) * 3, action_acceleration=(None,) * 3, control_rate_hz=20.0))
    writer = LogWriter(tmp_path / f"{time.monotonic_ns()}.mcap", Session(robot.spec.to_json()))
    settings = {"steps": 40, "engage_seconds": 0.0, **options}
    return robot, ControlLoop(robot, HelpedPolicy(), writer, Options(**settings), operator=operator), writer


@pytest.mark.parametrize("engaged", [True, False])
def test_an_operator_that_freezes_is_stopped_within_two_periods(tmp_path: Path, engaged: bool) -> None:
    found = []
    for _ in range(5):  # a busy machine is not the fault under test
        frozen: list[int] = []
        fault = lambda: (frozen.append(time.monotonic_ns()), time.sleep(0.6))  # noqa: E731, B023
        turns = (range(99),) if engaged else ()
        robot, loop, writer = strict(tmp_path, FakeOperator(turns, faults={6: fault}))
        result = loop.run(0, seed=5)
        loop.close()
        writer.close()
        assert result.stopped
        if not frozen:
            continue  # the machine stood still before
        assert "operator" in result.reason
        found.append((robot.stops[0][0] - frozen[0]) / robot.spec.period_ns)
        late = [entry for moment, kind, entry in robot.bus if kind == "act" and moment > frozen[0] + 0.65 * 50e6]
        if engaged:
            assert all((entry == 0).all() for entry in late), "never the last command again"
        if found[-1] <= 2:
            return
    pytest.fail(f"periods from the last sign of life to the stop: {found}")


def test_an_operator_that_is_late_is_a_hold_until_it_answers(tmp_path: Path) -> None:
    for _ in range(5):  # a busy machine is not the fault under test
        operator = FakeOperator((range(999),), faults={6: hang(0.4)})
        _, loop, writer = strict(tmp_path, operator, deadline=12.0, max_age=12.0)
        result = loop.run(0, seed=5)
        loop.close()
        writer.close()
        (episode,) = read_log(writer.path).episodes
        late = [event for event in episode.events if event["kind"] == "operator"]
        held = np.flatnonzero(episode["source"] == HOLD)
        if not result.stopped and len(late) == 1 and len(held) < 8:
            break
    assert (result.reason, result.steps) == ("steps", 40), "it answered within 12 periods of 50 ms"
    assert ["late" in event["reason"] for event in late] == [True]
    assert held[0] == late[0]["step"]
    assert 1 <= len(held) < 8
    assert (episode["source"][held[-1] + 1 :] == PERSON).all(), "it is the person's again"


def test_the_loop_never_waits_for_the_operator(tmp_path: Path) -> None:
    operator = FakeOperator()
    operator.action = lambda observation: time.sleep(0.012)  # type: ignore[method-assign,assignment]
    robot, loop, writer = strict(tmp_path, operator, steps=20, deadline=40.0, max_age=40.0)
    result = loop.run(0, seed=5)
    loop.close()
    writer.close()
    (episode,) = read_log(writer.path).episodes
    assert result.reason == "steps"
    asked = np.diff([moment for moment, kind, _ in robot.bus if kind == "act"]) / 1e6
    assert np.median(asked) < 60, "20 Hz"
    assert np.median(episode["timing_us"][:, 1]) < 8000, "work of a tick, while the operator takes 12 ms"


def test_without_an_operator_nothing_is_different(run: Run) -> None:
    robot, plain = FakeRobot(), FakeRobot()
    _, helped = run(robot, FakeOperator())
    _, alone = run(plain, None, FakePolicy(3))
    np.testing.assert_array_equal(robot.commands, plain.commands)
    for name in ("source", "valid", "action", "proposed_action", "log_prob"):
        np.testing.assert_array_equal(helped[name], alone[name])


def test_what_a_frozen_operator_says_at_last_is_not_of_the_next_episode(tmp_path: Path) -> None:
    operator = FakeOperator((range(99),), faults={3: hang(2.0)})
    robot, loop, writer = strict(tmp_path, operator, steps=10)
    assert loop.run(0, seed=5).stopped
    loop.latch.reset()
    robot.bus.clear()
    operator.faults, operator.turns = {}, ()
    assert operator.begun == 1
    result = loop.run(1, seed=5)
    loop.close()
    writer.close()
    assert result.stopped or operator.begun == 2, "nobody is engaged by what was said to an episode that is over"
    assert not [event for event in read_log(writer.path).episodes[-1].events if event["kind"] == "takeover"]


class Centring(FakeOperator):
    """Takes a mean off what it is shown, in place, as a careless operator of one's own may."""

    def action(self, observation: Observation) -> Any:
        observation.values[:] -= 1000.0
        return super().action(observation)


def test_an_operator_cannot_change_what_the_policy_sees(run: Run) -> None:
    result, episode = run(FakeRobot(), Centring())
    assert "the operator is gone: ValueError: " in result.reason
    assert "read-only" in result.reason
    assert np.abs(episode["observation"]).max() <= 1


class Sagging(FakeRobot):
    """An arm whose servos stand 1 below what they are told, as under a load."""

    def prepare(self, seed: int) -> None:
        super().prepare(seed)
        self.position = np.full(3, 50.0)

    def reading(self, **changes: Any) -> Observation:
        return super().reading(hold=self.position.copy(), **changes)

    def act(self, action: np.ndarray) -> np.ndarray:
        super().act(action)
        self.position = action - 1.0
        return action


def sagging() -> Sagging:
    free = {"action_rate": (None,) * 3, "action_acceleration": (None,) * 3, "action_hold": ("measured",) * 3}
    wide = {"action_low": (-100.0,) * 3, "action_high": (100.0,) * 3}
    return Sagging(make_spec(**free, **wide, observation_low=(-200.0,) * 5, observation_high=(200.0,) * 5))


def standing(ticks: int) -> HelpedPolicy:
    """Commands what has the arm stand where it does."""
    return HelpedPolicy(say={tick: lambda: np.full(3, 51.0, np.float32) for tick in range(ticks)})


def test_a_position_that_is_held_does_not_sink(run: Run) -> None:
    robot, operator = sagging(), FakeOperator((range(10, 60),), push=lambda tick: None)
    result, episode = run(robot, operator, standing(60), steps=60)
    assert result.reason == "steps"
    assert (episode["source"][10:] == HOLD).all()
    assert episode["observation"][:, 0].min() == 49  # it was at 0 in the end, one lower at each tick
    assert {tuple(each) for each in robot.commands[10:].tolist()} == {(50.0, 50.0, 50.0)}


@pytest.mark.parametrize("seconds", [0.25, 2.0])
def test_an_arm_does_not_sink_while_it_is_engaged(run: Run, seconds: float) -> None:
    result, episode = run(sagging(), FakeOperator(), standing(200), steps=200, engage_seconds=seconds)
    assert result.reason == "steps"
    assert episode["observation"][:, 0].min() >= 49  # it sank by 3, and by 9: the further the softer


def test_after_a_handback_the_policy_is_engaged_from_where_the_person_left_the_arm(run: Run) -> None:
    robot = sagging()
    run(robot, FakeOperator((range(10, 20),), lambda tick: np.full(3, 20.0)), standing(30))
    assert robot.commands[19, 0] == 20  # it stands at 19 then, and the policy wants it at 51
    np.testing.assert_allclose(robot.commands[20:24, 0], [19 + 32 * (tick + 1) / RAMP for tick in range(RAMP)])
