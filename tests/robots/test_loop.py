"""Faults of policy, driver and clock: nothing bad reaches the bus, a stop latches within two periods and says why."""

import gc
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.runtime.acting import Decision
from gipo.common.errors import UserError
from robots.base import Observation
from robots.latch import ENGAGED, IDLE, STOPPED, Latch
from robots.log import LogWriter, Session, read_log
from robots.loop import ControlLoop
from robots.safety import Limits
from robots.session.options import Options, Result
from robots.timing import Clock
from tests.robots.builders import assert_no_limit_violated, make_spec
from tests.robots.fakes import FakePolicy, FakeRobot, die, hang

FAULT_TICK = 12
PATIENT: dict[str, Any] = {"deadline": 80.0, "max_age": 80.0}  # a busy machine is not the fault under test
STRICT: dict[str, Any] = {"deadline": 1.25, "max_age": 1.5}  # the defaults
Run = Callable[..., tuple[Result, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs one episode and returns its result and its log."""
    loops = []

    def episode(robot: FakeRobot, policy: Any = None, clock: Clock | None = None, **options: Any) -> tuple[Result, Any]:
        options = {"steps": 30, "engage_seconds": 0.05, **PATIENT, **options}
        writer = LogWriter(tmp_path / f"{len(loops)}.mcap", Session(robot.spec.to_json()))
        loop = ControlLoop(robot, policy or FakePolicy(robot.spec.action_size), writer, Options(**options), clock)
        loops.append(loop)
        result = loop.run(0, seed=5)
        writer.close()
        return result, read_log(writer.path)

    yield episode
    for loop in loops:
        loop.close()


def assert_stopped(robot: FakeRobot, result: Result, log: Any, reason: str) -> None:
    """Latched, with the reason in result, bus and log, and with nothing on the bus afterwards."""
    assert result.stopped
    assert reason in result.reason
    told = [entry for _, entry in robot.stops]
    assert told in ([result.reason], [result.reason] * 2)  # once more where a command was on its way
    assert robot.bus[-1][1] == "stop"
    (stop,) = [event for event in log.events if event["kind"] == "stop"]
    assert stop["reason"] == result.reason
    end = log.episodes[0].event("episode_end")
    assert end["reason"] == result.reason
    assert_no_limit_violated(Limits.of(robot.spec), np.concatenate([np.zeros((1, 3)), robot.commands]))
    assert not log.episodes[0]["terminated"].any()
    assert log.episodes[0].transitions()["next_truncated"][-1]


def within_two_periods(attempt: Callable[[], tuple[FakeRobot, Result, int]]) -> None:
    """The stop comes within two periods of the fault; another attempt where the machine stood still meanwhile."""
    seconds = []
    for _ in range(6):
        robot, result, since_ns = attempt()
        if result.steps >= FAULT_TICK:  # else the watchdog caught the machine before our fault
            seconds.append((robot.stops[0][0] - since_ns) / 1e9)
            if seconds[-1] <= 2 * robot.spec.period_ns / 1e9:
                return
    pytest.fail(f"seconds from the fault to the stop: {seconds}")


def test_a_clean_episode(run: Run) -> None:
    robot = FakeRobot()
    result, log = run(robot)
    assert (result.reason, result.stopped, result.steps) == ("steps", False, 30)
    (episode,) = log.episodes
    assert episode["step"].tolist() == list(range(30))
    np.testing.assert_array_equal(episode["sent_action"], robot.commands)
    np.testing.assert_array_equal(episode["reward"], np.ones(30, np.float32))
    assert result.total_reward == 30
    assert episode["truncated"].tolist() == [False] * 29 + [True]
    assert episode["valid"].tolist() == [False] * 3 + [True] * 27
    assert all("engage" in episode.gate[index] for index in range(3))
    assert episode["source"].tolist() == [2] * 3 + [0] * 27
    assert episode.complete
    assert len(episode.transitions()["step"]) == 30
    assert [event["kind"] for event in episode.events] == ["episode_start", "engage", "episode_end"]
    assert episode.event("episode_start")["data"]["noise"] == "numpy.random.default_rng([5, 0])"
    assert robot.stops[-1][1] == "steps"
    assert (episode["timing_us"][:, 1] > 0).all()


def test_of_what_was_most_likely_no_step_counts_as_sampled(run: Run) -> None:
    _, log = run(FakeRobot(), deterministic=True)
    (episode,) = log.episodes
    assert episode["source"].tolist() == [2] * 3 + [0] * 27
    assert not episode["valid"].any()


class Failing(FakeRobot):
    """It says at every observation that the task is not done."""

    def reading(self, **changes: Any) -> Observation:
        return super().reading(success=False, **changes)


def test_of_an_episode_that_was_stopped_before_its_first_step_nobody_knows_the_outcome(run: Run) -> None:
    tried, log = run(Failing(), steps=3)
    assert (tried.steps, tried.success, log.episodes[0].success) == (3, False, False)
    never, log = run(Failing(act_faults={0: lambda _: die(OSError("no bus"))()}))
    assert (never.steps, never.stopped, never.success) == (0, True, None)
    assert not any(event["kind"] == "outcome" for event in log.events)


@pytest.mark.parametrize("fault", [False, True])
def test_no_garbage_is_collected_before_the_robot_is_stopped(run: Run, fault: bool) -> None:
    """That of a long episode takes tenths of a second, and nothing else runs meanwhile."""
    collecting = []

    class Collected(FakeRobot):
        def stop(self, reason: str) -> None:
            collecting.append(gc.isenabled())
            super().stop(reason)

    result, _ = run(Collected(), FakePolicy(say={9: die} if fault else {}))
    assert (result.stopped, collecting, gc.isenabled()) == (fault, [False], True)


def test_both_clocks_say_when_a_tick_began(run: Run) -> None:
    _, log = run(FakeRobot(), FakePolicy(say={tick: hang(0.03) for tick in range(5)}), steps=5)
    (episode,) = log.episodes
    apart = (episode["wall_ns"] - episode["monotonic_ns"]) - (time.time_ns() - time.monotonic_ns())
    assert np.median(np.abs(apart)) < 5e6  # it was what the policy took: 30 ms


BAD_ACTIONS: dict[str, Any] = {
    "nan": np.array([math.nan, 0, 0], np.float32),
    "inf": np.array([0, math.inf, 0], np.float32),
    "-inf": np.array([0, 0, -math.inf], np.float32),
    "1e38": np.array([1e38, 0, 0], np.float32),
    "shape": np.zeros(4, np.float32),
    "rank": np.zeros((1, 3), np.float32),
    "integers": np.zeros(3, np.int64),
    "objects": np.array([None, 0, 0], object),
    "text": "forward",
    "list": [0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("bad", BAD_ACTIONS)
def test_bad_actions_of_the_policy(run: Run, bad: str) -> None:
    robot = FakeRobot()
    result, log = run(robot, FakePolicy(say={FAULT_TICK: lambda: BAD_ACTIONS[bad]}))
    assert_stopped(robot, result, log, "action")
    assert result.steps == FAULT_TICK
    stop = log.episodes[0].event("stop")
    assert "raw" in stop["data"]
    if bad == "nan":
        assert stop["data"]["raw"] == ["nan", 0.0, 0.0]
    assert len(log.episodes[0].transitions()["step"]) == FAULT_TICK


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"log_prob": np.array([0, math.nan, 0], np.float32)}, "log-prob 'y' is nan"),
        ({"log_prob": np.float32(-3)}, "log-prob is a float32, not an array"),  # of all actions together
        ({"latent": np.array([0, math.inf, 0], np.float32)}, "latent is not finite: [0.0, inf, 0.0]"),
        ({"latent": np.zeros(3)}, "not 3 int64 tokens or float32 numbers"),
    ],
)
def test_an_action_of_which_the_log_could_not_say_how_likely_it_was_is_not_sent(
    run: Run, part: dict[str, Any], said: str
) -> None:
    class Unsure(FakePolicy):
        def act(self, observation: np.ndarray, rng: Any, deterministic: bool = False) -> Decision:
            decision = super().act(observation, rng, deterministic)
            return replace(decision, **part) if self.tick == FAULT_TICK else decision

    robot = FakeRobot()
    result, log = run(robot, Unsure())
    assert_stopped(robot, result, log, said)
    assert (result.steps, len(robot.commands)) == (FAULT_TICK, FAULT_TICK)
    assert np.isfinite(log.episodes[0]["log_prob"]).all()


def observations(values: Any, **changes: Any) -> Callable[[FakeRobot], Any]:
    return lambda robot: robot.reading(values=values, **changes)


BAD_OBSERVATIONS: dict[str, tuple[Callable[[FakeRobot], Any], str]] = {
    "nan": (observations(np.array([0, math.nan, 0, 0, 0])), "'s1' is nan"),
    "inf": (observations(np.array([0, math.inf, 0, 0, 0])), "'s1' is inf"),
    "1e38": (observations(np.full(5, 1e38)), "no reading between"),
    "shape": (observations(np.zeros(6)), "shape"),
    "dtype": (observations(np.zeros(5, np.int32)), "dtype"),
    "list": (observations([0.0] * 5), "not an array"),
    "reward": (observations(np.zeros(5), reward=math.nan), "reward is nan"),
    "no reward": (observations(np.zeros(5), reward=None), "reward is None"),
    "too much": (observations(np.zeros(5), reward=1e300), r"reward is 1e+300, no finite float32"),
    "said no": (observations(np.zeros(5), success="no"), "success is 'no', it must be True, False or None"),
    "unknown": (observations(np.zeros(5), success=math.nan), "success is nan"),
    "some": (observations(np.zeros(5), success=np.array([True, False])), "success is array([ True, False])"),
    "not over": (observations(np.zeros(5), terminated="False"), "terminated is 'False', it must be True or False"),
    "masked": (observations(np.ma.masked_array(np.zeros(5), [0, 1, 0, 0, 0])), "observation is a MaskedArray"),
    "future": (lambda robot: robot.reading(time_ns=time.monotonic_ns() + 10**12), "future"),
    "past": (lambda robot: robot.reading(time_ns=1), "older than the one before"),
    "no time": (lambda robot: robot.reading(time_ns=None), "no whole number"),
    "not one": (lambda robot: "zero", "observe failed: TypeError: it gives a str, no robots.base.Observation"),
    "dies": (die(ConnectionError("cable out")), "ConnectionError: cable out"),
    "timeout": (die(TimeoutError("no answer")), "TimeoutError: no answer"),
}


def test_a_driver_that_fills_the_same_memory_again_changes_nothing(run: Run) -> None:
    """Neither what the policy saw, nor what the log says was seen last."""
    memory = np.zeros(5).view(type("Shared", (np.ndarray,), {}))

    def reading(robot: FakeRobot) -> Any:
        memory[:] = robot.tick / 10
        return robot.reading(values=memory)

    robot = FakeRobot(faults=dict.fromkeys(range(6), reading))
    robot.stop = lambda reason: memory.fill(-7)  # type: ignore[method-assign,assignment]
    _, log = run(robot, steps=5)
    (episode,) = log.episodes
    expected = np.repeat(np.arange(6, dtype=np.float32)[:, None] / np.float32(10), 5, axis=1)
    np.testing.assert_array_equal(episode["observation"], expected[:5])
    np.testing.assert_array_equal(episode.final_observation, expected[5])


class InPlace(FakeRobot):
    """Converts what it is told to its motors' unit where it stands."""

    def act(self, action: np.ndarray) -> np.ndarray:
        told = super().act(action).copy()
        action /= -100
        return told


def test_a_driver_that_converts_in_place_is_limited_by_what_was_sent(run: Run) -> None:
    robots = FakeRobot(), InPlace()
    fast = dict.fromkeys(range(9), lambda: np.full(3, 0.9, np.float32))
    for robot in robots:
        assert not run(robot, FakePolicy(say=fast))[0].stopped
    np.testing.assert_array_equal(robots[0].commands, robots[1].commands)


@pytest.mark.parametrize("sent", [[1e6, 0.0, 0.0], [0.0, -2.5, 0.0]])
def test_numbers_of_another_unit_are_no_command_that_was_sent(run: Run, sent: list[float]) -> None:
    robot = FakeRobot()
    robot.act = lambda action: np.array(sent)  # type: ignore[method-assign]
    result, _ = run(robot)
    assert result.stopped
    assert "the driver reports nonsense: sent action" in result.reason
    assert "far outside of -1 to 1" in result.reason


@pytest.mark.parametrize("returned", [None, {"x": 0.1}, ["x", "y"]])
def test_what_is_no_command_at_all_is_told_as_what_act_returned(run: Run, returned: Any) -> None:
    robot = FakeRobot()
    robot.act = lambda action: returned  # type: ignore[method-assign]
    result, _ = run(robot)
    expected = f"act failed: TypeError: it returned {returned!r}; it must return [D] what was really sent"
    assert (result.stopped, result.reason) == (True, expected)


def test_a_time_of_numpy_is_told_to_be_no_int_of_python(run: Run) -> None:
    late = lambda robot: robot.reading(time_ns=np.int64(time.monotonic_ns()))  # noqa: E731
    result, _ = run(FakeRobot(faults={3: late}))
    assert result.stopped
    assert re.search(r"time is np\.int64\(\d+\), no whole number of nanoseconds: an int of Python$", result.reason)


def test_a_pace_slower_than_the_nominal_one_is_no_hanging_loop(run: Run) -> None:
    robot = FakeRobot()
    assert not run(robot, steps=3, speed=0.05, deadline=15)[0].stopped  # a busy machine may be late by 15 periods
    sent = [moment for moment, what, _ in robot.bus if what == "act"]
    assert sent[2] - sent[0] > 0.9 * 2 * 20 * robot.spec.period_ns


def test_a_reason_that_is_no_utf_8_reaches_the_log(run: Run) -> None:
    result, log = run(FakeRobot(faults={3: die(OSError("no port at /dev/\udcff"))}))
    assert result.stopped
    said, _, place = log.episodes[0].event("stop")["reason"].partition(" in ")
    assert said == "observe failed: OSError: no port at /dev/\\udcff"
    assert re.fullmatch(r"fail \(\S+fakes\.py:\d+\)", place)  # the driver's own line
    assert log.integrity.status == "sealed"


@pytest.mark.parametrize("bad", BAD_OBSERVATIONS)
def test_bad_observations(run: Run, bad: str) -> None:
    fault, reason = BAD_OBSERVATIONS[bad]
    robot = FakeRobot(faults={FAULT_TICK: fault})
    result, log = run(robot)
    assert_stopped(robot, result, log, reason)
    assert len(robot.commands) == FAULT_TICK
    assert len(log.episodes[0].transitions()["step"]) == FAULT_TICK - 1


def test_frozen_timestamps(run: Run) -> None:
    def attempt() -> tuple[FakeRobot, Result, int]:
        frozen: list[int] = []

        def freeze(robot: FakeRobot) -> Any:
            frozen.append(time.monotonic_ns())
            return robot.reading(time_ns=frozen[0])

        robot = FakeRobot(faults=dict.fromkeys(range(FAULT_TICK - 1, 40), freeze))
        result, log = run(robot, **STRICT)
        if result.steps >= FAULT_TICK:
            assert_stopped(robot, result, log, "ms old")
        return robot, result, frozen[1] if len(frozen) > 1 else 0

    within_two_periods(attempt)


@pytest.mark.parametrize("what", ["policy", "observe", "act"])
@pytest.mark.parametrize("seconds", [0.3, 0.022])
def test_hangs(run: Run, what: str, seconds: float) -> None:
    def attempt() -> tuple[FakeRobot, Result, int]:
        began: list[int] = [0]

        def hanging(*_: Any) -> None:
            began[0] = time.monotonic_ns()
            time.sleep(seconds)

        faults: dict[str, Any] = {"policy": {}, "observe": {}, "act": {}, what: {FAULT_TICK: hanging}}
        robot = FakeRobot(faults=faults["observe"], act_faults=faults["act"])
        result, log = run(robot, FakePolicy(say=faults["policy"]), **STRICT)
        if result.steps >= FAULT_TICK:
            assert_stopped(robot, result, log, f"{what} takes")
            # A command that was already on its way may arrive before the stop, and is logged then.
            assert len(robot.commands) == result.steps <= FAULT_TICK + (what == "act")
            assert sum(map(len, log.episodes)) == result.steps
        return robot, result, began[0]

    within_two_periods(attempt)


@pytest.mark.parametrize("error", [ConnectionError("gone"), ValueError("bad packet"), MemoryError()])
def test_a_driver_that_dies_while_sending(run: Run, error: Exception) -> None:
    robot = FakeRobot(act_faults={FAULT_TICK: die(error)})
    result, log = run(robot)
    assert_stopped(robot, result, log, type(error).__name__)


def test_a_policy_that_dies(run: Run) -> None:
    robot = FakeRobot()
    result, log = run(robot, FakePolicy(say={FAULT_TICK: die(RuntimeError("session lost"))}))
    assert_stopped(robot, result, log, "policy failed: RuntimeError: session lost")


def test_a_driver_that_reports_nonsense(run: Run) -> None:
    class Liar(FakeRobot):
        def act(self, action: np.ndarray) -> np.ndarray:
            super().act(action)
            return action * math.nan if self.tick == FAULT_TICK else action

    robot = Liar()
    result, log = run(robot)
    assert_stopped(robot, result, log, "driver reports nonsense")


@pytest.mark.parametrize("tick", [0, 1, 3])
@pytest.mark.parametrize(("hold", "said"), [([0.0, math.nan, 0.0], "'y' is nan"), ([0.0, 0.0], "hold has shape (2,)")])
def test_a_driver_that_does_not_know_where_it_stands(run: Run, tick: int, hold: list[float], said: str) -> None:
    lost = lambda robot: robot.reading(hold=np.array(hold))  # noqa: E731
    robot = FakeRobot(faults={tick: lost})
    result, _log = run(robot, engage_seconds=0.1)
    assert result.stopped
    assert said in result.reason
    assert len(robot.commands) == tick


class JumpingClock(Clock):
    """Jumps by `jump_ns` at the n-th look."""

    def __init__(self, looks: int, jump_ns: int):
        self.looks, self.jump, self.offset = looks, jump_ns, 0

    def now_ns(self) -> int:
        self.looks -= 1
        if self.looks == 0:
            self.offset = self.jump
        return super().now_ns() + self.offset

    def sleep_until(self, moment_ns: int) -> None:
        super().sleep_until(min(moment_ns, self.now_ns() + 30_000_000))


@pytest.mark.parametrize("looks", [200, 203, 207])
@pytest.mark.parametrize("jump", [10**10, -(10**10), 10**18])
def test_clock_jumps(run: Run, looks: int, jump: int) -> None:
    robot = FakeRobot()
    result, _log = run(robot, clock=JumpingClock(looks, jump))
    assert result.stopped
    assert any(reason in result.reason for reason in ("future", "ms old", "takes"))
    assert robot.bus[-1][1] == "stop"


def test_a_loop_that_does_not_wake_up_stops_the_robot(run: Run) -> None:
    class Asleep(Clock):
        stopped: bool | None = None

        def sleep_until(self, moment_ns: int) -> None:
            super().sleep_until(moment_ns)
            end = time.monotonic() + 20
            while robot.tick == FAULT_TICK - 1 and not robot.stops and time.monotonic() < end:
                time.sleep(0.01)
                self.stopped = bool(robot.stops)

    robot, clock = FakeRobot(), Asleep()
    result, log = run(robot, clock=clock, deadline=40.0)
    assert clock.stopped, "while it sleeps, and not after it woke up"
    assert_stopped(robot, result, log, "wait takes")
    assert (result.steps, len(robot.commands)) == (FAULT_TICK, FAULT_TICK)


def test_the_deadman(run: Run) -> None:
    robot = FakeRobot()
    result, log = run(robot, deadman=lambda: robot.tick < FAULT_TICK)
    assert_stopped(robot, result, log, "deadman")


def test_a_deadman_that_does_not_answer_stops_the_robot_as_one_that_is_released(run: Run) -> None:
    """As where it is read over a network that is down."""
    stopped: list[bool] = []

    def asked() -> bool:
        if robot.tick == FAULT_TICK and threading.current_thread() is threading.main_thread():
            end = time.monotonic() + 20
            while not robot.stops and time.monotonic() < end:
                time.sleep(0.01)
            stopped.append(bool(robot.stops))
        return True

    robot = FakeRobot()
    result, log = run(robot, deadman=asked, deadline=40.0)
    assert stopped == [True], "while it does not answer, and not after it has"
    assert_stopped(robot, result, log, "deadman takes")
    assert (result.steps, result.success) == (FAULT_TICK, None)


def test_takeover_ends_the_episode_truncated(run: Run) -> None:
    robot = FakeRobot()
    result, log = run(robot, takeover=lambda: robot.tick >= FAULT_TICK)
    assert (result.reason, result.stopped, result.steps) == ("takeover", False, FAULT_TICK)
    assert log.episodes[0].event("takeover") is not None
    assert log.episodes[0].transitions()["next_truncated"][-1]


def test_termination_is_no_truncation(run: Run) -> None:
    robot = FakeRobot(faults={FAULT_TICK: lambda robot: robot.reading(terminated=True, success=True)})
    result, log = run(robot)
    assert (result.reason, result.success) == ("terminated", True)
    assert log.episodes[0]["terminated"][-1]
    assert not log.episodes[0]["truncated"].any()
    assert not log.episodes[0].transitions()["next_truncated"].any()
    assert log.episodes[0].event("outcome")["data"] == {"success": True}
    assert log.episodes[0].success is True


def test_a_failing_log_stops_the_robot(tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        if threading.current_thread().name == "log":
            raise OSError(28, "No space left on device")

    robot = FakeRobot()
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), flush_seconds=0.1, sync=full)
    loop = ControlLoop(robot, FakePolicy(), writer, Options(steps=1000, **PATIENT))
    result = loop.run(0, 0)
    loop.close()
    assert result.stopped
    assert "the log failed" in result.reason


def test_a_stopped_robot_needs_a_person(tmp_path: Path) -> None:
    robot = FakeRobot(faults={3: die(OSError("cable"))})
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    loop = ControlLoop(robot, FakePolicy(), writer, Options(steps=5, **PATIENT))
    assert loop.run(0, 0).stopped
    sent, robot.faults = len(robot.commands), {}
    homed: list[int] = []
    robot.prepare = homed.append  # type: ignore[method-assign]
    second = loop.run(1, 0)
    assert second.stopped
    assert "cable" in second.reason
    assert len(robot.commands) == sent
    assert homed == []
    del robot.prepare
    loop.latch.reset()
    assert loop.run(2, 0).reason == "steps"
    assert len(robot.commands) == sent + 5
    loop.close()
    writer.close()


def random_actions(seed: int, count: int) -> None:
    """Random sequences of stop, reset, engage and send: a command passes exactly when nobody stopped it since."""
    generator = random.Random(seed)
    robot = FakeRobot()
    robot.act_faults = {}
    latch = Latch(robot, 0.01)
    state = IDLE
    for _ in range(count):
        action = generator.choice(("stop", "reset", "engage", "disengage", "send", "send", "send"))
        before = len(robot.commands)
        try:
            if action == "send":
                with latch.permission():
                    robot.stopped = False  # the latch alone must hold
                    robot.act(np.zeros(3))
            elif action == "stop":
                latch.stop("why not")
            else:
                getattr(latch, action)()
        except UserError:
            assert (action, state) in {("send", IDLE), ("send", STOPPED), ("engage", STOPPED)}
        moved = len(robot.commands) - before
        assert moved == (action == "send" and state == ENGAGED)
        if action == "stop":
            state = STOPPED
        elif action == "reset":
            state = IDLE
        elif state != STOPPED and action != "send":
            state = {"engage": ENGAGED, "disengage": IDLE}[action]
        assert latch.state == state


@pytest.mark.parametrize("seed", range(5))
def test_no_movement_without_a_reset(seed: int) -> None:
    random_actions(seed, 200)


@pytest.mark.campaign
def test_no_movement_without_a_reset_long() -> None:
    for seed in range(200):
        random_actions(seed, 500)


def test_stops_from_many_threads_while_commands_are_sent() -> None:
    def send_until_stopped(robot: FakeRobot, latch: Latch) -> None:
        while True:
            with latch.permission():
                robot.act(np.zeros(3))

    for _ in range(20):
        robot = FakeRobot()
        latch = Latch(robot, 0.05)
        latch.engage()
        threads = [threading.Thread(target=latch.stop, args=(f"{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        with pytest.raises(UserError) as raised:
            send_until_stopped(robot, latch)
        assert str(raised.value) == latch.reason
        for thread in threads:
            thread.join()
        assert len(robot.stops) == 1
        assert robot.bus[-1][1] == "stop"


def test_a_stop_waits_for_the_command_that_is_just_being_sent() -> None:
    robot = FakeRobot(act_faults={-1: hang(0.03)})
    latch = Latch(robot, 1.0)
    latch.engage()

    def send() -> None:
        with latch.permission():
            robot.act(np.zeros(3))

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.01)
    latch.stop("now")
    thread.join()
    assert [kind for _, kind, _ in robot.bus] == ["act", "stop"]


@pytest.mark.parametrize("success", [False, True])
@pytest.mark.parametrize("option", ["quit", "takeover", "deadman", None])
def test_an_episode_that_a_person_interrupts_is_no_failure(run: Run, option: str | None, success: bool) -> None:
    """The robot says at every tick whether it has succeeded; what it would have come to, nobody knows."""
    robot, ticks = FakeRobot(), iter(range(1000))
    robot.observe = lambda: robot.reading(success=success)  # type: ignore[method-assign]
    before, after = {"quit": ("", "Ctrl-C"), "takeover": (False, True), "deadman": (True, False)}.get(option, (0, 0))
    result, log = run(robot, **({option: lambda: after if next(ticks) > 12 else before} if option else {}))
    assert 0 < result.steps < 30 if option else result.steps == 30
    assert result.success == (True if success else None if option else False)
    said = [event["data"]["success"] for event in log.events if event["kind"] == "outcome"]
    assert said == ([] if result.success is None else [result.success])


def late() -> None:
    time.sleep(0.15)


BESIDE_THE_POLICY: dict[str, Any] = {
    "unplugged": {"faults": {FAULT_TICK: die(OSError(5, "device disconnected"))}},
    "no reading": {"faults": {FAULT_TICK: observations(np.full(5, math.nan))}},
    "a frozen camera": {"faults": {FAULT_TICK: lambda robot: replace(robot.reading(), time_ns=1)}},
    "no bus": {"act_faults": {FAULT_TICK: die(OSError("no bus"))}},
    "a slow bus": {"act_faults": {FAULT_TICK: hang(0.15)}},
}
OF_THE_POLICY: dict[str, Callable[[], Any]] = {
    "no number": lambda: np.full(3, math.nan, np.float32),
    "far outside": lambda: np.full(3, 99, np.float32),
    "an exception": die,
    "late": lambda: late() or np.zeros(3, np.float32),
}


@pytest.mark.parametrize("case", BESIDE_THE_POLICY)
def test_what_goes_wrong_beside_the_policy_is_no_failure_of_it(run: Run, case: str) -> None:
    result, log = run(Failing(**BESIDE_THE_POLICY[case]), deadline=8.0)
    assert result.stopped
    assert 0 < result.steps <= FAULT_TICK + 1
    assert (result.success, log.episodes[0].success) == (None, None), result.reason
    assert not any(event["kind"] == "outcome" for event in log.events)


@pytest.mark.parametrize("case", OF_THE_POLICY)
def test_what_the_policy_is_stopped_for_is_its_failure(run: Run, case: str) -> None:
    result, log = run(Failing(), FakePolicy(say={FAULT_TICK: OF_THE_POLICY[case]}), deadline=8.0)
    assert (result.stopped, result.steps) == (True, FAULT_TICK)
    assert (result.success, log.episodes[0].success) == (False, False), result.reason


def test_a_disk_that_fails_is_no_failure_of_the_policy(tmp_path: Path) -> None:
    robot, looks = Failing(), iter(range(1000))
    writer = LogWriter(tmp_path / "a.mcap", Session(robot.spec.to_json()))

    def deadman() -> bool:
        writer.error = "OSError: no space" if next(looks) > FAULT_TICK else None
        return True

    loop = ControlLoop(robot, FakePolicy(3), writer, Options(steps=30, engage_seconds=0.05, deadman=deadman, **PATIENT))
    result = loop.run(0, seed=5)
    loop.close()
    with pytest.raises(UserError, match="is incomplete"):
        writer.close()
    assert (result.stopped, result.success, result.reason) == (True, None, "the log failed: OSError: no space")


def test_a_stop_that_comes_before_the_signal_was_read_is_a_persons_too(run: Run) -> None:
    """The second of two signals stops the robot at once, perhaps within the tick of the first."""
    robot, signals = FakeRobot(), []
    robot.observe = lambda: robot.reading(success=False)  # type: ignore[method-assign]

    def act(command: np.ndarray) -> np.ndarray:
        signals.append("Ctrl-C")
        raise RuntimeError("stopped within this tick")

    robot.act = act  # type: ignore[method-assign]
    result, log = run(robot, quit=lambda: next(iter(signals), ""))
    assert result.stopped
    assert result.success is None
    assert not [event for event in log.events if event["kind"] == "outcome"]


def test_a_command_that_arrives_after_its_stop_is_stopped_too() -> None:
    robot = FakeRobot()
    latch = Latch(robot, 0.01)
    latch.engage()

    def send() -> None:
        with latch.permission():
            time.sleep(0.1)  # a serial write that waits for room
            robot.bus.append((time.monotonic_ns(), "act", np.zeros(3)))

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.01)
    latch.stop("now")
    assert [kind for _, kind, _ in robot.bus] == ["stop"]
    thread.join()
    assert [(kind, entry) for _, kind, entry in robot.bus[2:]] == [("stop", "now")]
    assert not latch.failure


class GivenUpLate:
    """A lock whose wait ends just as it becomes free: who waited goes on as without it, after who had it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.given_up, self.free = threading.Event(), threading.Event()

    def acquire(self, timeout: float) -> bool:
        held = self._lock.acquire(timeout=timeout)
        if not held:
            self.given_up.set()
            assert self.free.wait(5)
        return held

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_reset_leaves_nothing_of_a_stop_that_gave_up_waiting_as_the_command_was_sent() -> None:
    robot = FakeRobot()
    latch = Latch(robot, 0.01)
    latch.engage()
    latch._sending = lock = GivenUpLate()  # type: ignore[assignment]
    stopping = threading.Thread(target=latch.stop, args=("now",))
    with latch.permission():
        stopping.start()
        assert lock.given_up.wait(5)
        robot.act(np.zeros(3))
    lock.free.set()
    stopping.join()
    assert [kind for _, kind, _ in robot.bus] == ["act", "stop"]
    latch.reset()
    latch.begin()
    robot.prepare(1)
    latch.engage()
    for _ in range(3):
        with latch.permission():
            robot.act(np.zeros(3))
    assert len(robot.stops) == 1


def test_a_stop_still_on_its_way_is_told_again_after_the_command_that_overtook_it() -> None:
    robot = FakeRobot()
    stops: list[str] = []

    def stop(reason: str) -> None:
        stops.append("begun")
        time.sleep(0.5)
        stops.append("done")

    robot.stop = stop  # type: ignore[method-assign]
    latch = Latch(robot, 0.01)
    latch.engage()
    telling = threading.Thread(target=latch.stop, args=("now",))
    with latch.permission():
        telling.start()
        while not stops:
            time.sleep(0.001)
        stops.append("command")
    telling.join()
    assert stops == ["begun", "command", "done", "begun", "done"]


def test_a_policy_in_time_for_its_deadline_must_not_act_on_an_old_observation(run: Run) -> None:
    robot = FakeRobot()
    result, log = run(robot, FakePolicy(say={FAULT_TICK: hang(0.2)}), deadline=80.0, max_age=12.0)
    assert_stopped(robot, result, log, "ms old")
    assert len(robot.commands) == FAULT_TICK


def test_a_driver_that_fails_to_stop_is_reported(run: Run) -> None:
    robot = FakeRobot(faults={FAULT_TICK: die(OSError("cable"))})
    robot.stop = die(OSError("no answer"))  # type: ignore[method-assign]
    result, log = run(robot)
    assert result.stopped
    reasons = [event["reason"] for event in log.events if event["kind"] == "stop"]
    assert reasons[1].startswith("the driver failed to stop: OSError")


def test_a_driver_that_hangs_in_stop_does_not_hold_the_loop(run: Run) -> None:
    robot = FakeRobot(faults={FAULT_TICK: die(OSError("cable"))})
    robot.stop = hang(5.0)  # type: ignore[method-assign]
    start = time.monotonic()
    result, _ = run(robot)
    assert result.stopped
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("option", [{"steps": 0}, {"speed": math.nan}, {"speed": -1.0}, {"deadline": math.inf}])
def test_options_that_make_no_sense(option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(option))):
        Options(**option)


def drive_with_stalls(path: Path, robot: FakeRobot, steps: int, stall: float, capacity: int) -> tuple[Result, Any]:
    """An episode whose disk stands still for `stall` seconds at its third sync."""
    syncs = [0]

    def sync(descriptor: int) -> None:
        if threading.current_thread().name == "log":
            syncs[0] += 1
            time.sleep(stall if syncs[0] == 3 else 0.0)

    writer = LogWriter(path, Session(robot.spec.to_json()), capacity, flush_seconds=0.1, sync=sync)
    loop = ControlLoop(robot, FakePolicy(), writer, Options(steps=steps, engage_seconds=0.05, **PATIENT))
    result = loop.run(0, 0)
    loop.close()
    writer.close()
    return result, read_log(path)


def test_a_disk_that_stands_still_holds_up_nothing_and_every_lost_step_is_counted(tmp_path: Path) -> None:
    robot = FakeRobot()
    result, log = drive_with_stalls(tmp_path / "a.mcap", robot, steps=160, stall=1.5, capacity=40)
    assert (result.reason, result.steps, len(robot.commands)) == ("steps", 160, 160)
    assert result.timing.worst_ms < 500
    kept = len(log.episodes[0])
    assert log.dropped == 160 - kept > 30
    missing = sorted(set(range(160)) - set(log.episodes[0]["step"].tolist()))
    (gap,) = [event["data"] for event in log.events if event["kind"] == "dropped"]
    assert (gap["first"], gap["last"], gap["count"]) == ([0, missing[0]], [0, missing[-1]], len(missing))


@pytest.mark.campaign
def test_soak(tmp_path: Path) -> None:
    """Two minutes at 1 kHz: nothing lost, nothing late for good, no memory that only grows."""
    robot = FakeRobot(make_spec(control_rate_hz=1000.0, action_rate=(None,) * 3, action_acceleration=(None,) * 3))
    writer = LogWriter(tmp_path / "a.mcap", Session(robot.spec.to_json()))
    loop = ControlLoop(robot, FakePolicy(), writer, Options(steps=10_000, deadline=2000.0, max_age=2000.0))
    sizes = []
    for episode in range(12):
        assert loop.run(episode, 0).reason == "steps"
        robot.bus.clear()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    loop.close()
    assert writer.close().dropped == 0
    assert sizes[-1] - sizes[2] < 20 << 20
    assert sum(map(len, read_log(writer.path).episodes)) == 120_000
