"""What an episode leaves in the log, by hand."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.runtime.acting import Decision
from robots.base import Observation
from robots.decider import Choice
from robots.people.operator import Said
from robots.recorder import Recorder
from robots.session.options import Options, Result
from tests.robots.builders import make_spec


class FakeLog:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.events: list[tuple[str, Any]] = []
        self.images: list[Any] = []
        self.cpu_ns = 0

    def step(self, row: Any) -> None:
        self.rows.append(row)

    def image(self, image: Any) -> None:
        self.images.append(image)

    def event(self, kind: str, reason: str, episode: int, step: int, data: Any = None) -> None:
        self.events.append((kind, data))


def begun(**options: Any) -> tuple[Recorder, FakeLog]:
    """At the robot of `make_spec`, whose period is 12.5 ms."""
    log: Any = FakeLog()
    return Recorder(log, make_spec(), Options(**options), episode=4), log


def send(record: Recorder, source: str = "policy", changed: tuple[str, ...] = ()) -> None:
    numbers = np.zeros(3, np.float32)
    decision: Any = Decision(numbers, numbers, numbers, numbers)
    choice = Choice(decision, source=source)
    record.sent((5, 6), np.zeros(5, np.float32), choice, np.zeros(3), changed, 7)


def reading(success: bool | None = None, privileged: np.ndarray | None = None) -> Observation:
    return Observation(np.zeros(5), 0, 1.0, success=success, privileged=privileged)


def end(record: Recorder) -> Result:
    return record.finish("steps", stopped=False)


def acting(cameras: tuple[str, ...] | None = None) -> Any:
    vision = None if cameras is None else SimpleNamespace(cameras=cameras)
    return SimpleNamespace(policy_id="ab" * 32, manifest=SimpleNamespace(policy_version=7, vision=vision))


def test_a_start_says_who_acts_on_what_and_where_its_noise_comes_from() -> None:
    record, log = begun(deterministic=True, instruction="lift it", replan=2)
    record.start(acting(("top", "side")), seed=9)
    assert (record.policy_id, record.seed) == ("ab" * 32, 9)
    assert log.events == [
        (
            "episode_start",
            {
                "policy_id": "ab" * 32, "policy_version": 7, "deterministic": True, "seed": 9, "instruction": "lift it",
                "camera": ("top", "side"), "replan": 2, "noise": "numpy.random.default_rng([9, 4])",
            },
        )
    ]  # fmt: skip
    record, log = begun(camera="wrist")
    record.start(acting(), seed=0)
    assert (log.events[0][1]["camera"], log.events[0][1]["deterministic"]) == ("wrist", False)
    assert end(record).seed == 0


def test_an_image_is_of_the_step_that_comes_next() -> None:
    record, log = begun()
    record.tick(0, 0)
    pixels = np.zeros((2, 3, 3), np.uint8)
    record.images(Observation(np.zeros(5), time_ns=8, images={"top": pixels, "side": pixels[..., 0]}))
    assert [(each.camera, each.episode, each.step, each.monotonic_ns) for each in log.images] == [
        ("top", 4, 1, 8), ("side", 4, 1, 8),
    ]  # fmt: skip
    assert log.images[0].pixels is pixels


@pytest.mark.parametrize(("kind", "helped"), [("takeover", True), ("handback", False), ("said", False)])
def test_a_person_who_took_over_has_helped_also_before_a_first_step(kind: str, helped: bool) -> None:
    record, _ = begun()
    record.event(kind)
    assert end(record).helped is helped


def test_a_step_says_what_its_tick_took_in_microseconds() -> None:
    """All that a section took in a tick, and nothing of the tick before it."""
    record, log = begun()
    send(record)
    for section, wall in (("observe", 2000), ("observe", 3000), ("log", 7000)):
        record.spent(section, wall, 0)
    record.tick(late_ns=1000, work_ns=20_000)
    record.complete(0.0, False, False)
    send(record)
    record.spent("gate", 9000, 0)
    record.tick(late_ns=0, work_ns=11_000)
    record.complete(0.0, False, False)
    # late, work, observe, policy, gate, act, log
    assert [row.timing_us for row in log.rows] == [(1, 20, 5, 0, 0, 0, 7), (0, 11, 0, 0, 9, 0, 0)]
    assert [row.step for row in log.rows] == [0, 1]


@pytest.mark.parametrize(("speed", "period"), [(1.0, 12_500_000), (2.0, 6_250_000), (0.5, 25_000_000)])
def test_a_tick_is_over_budget_whose_work_takes_longer_than_its_period(speed: float, period: int) -> None:
    record, _ = begun(speed=speed)
    record.tick(late_ns=10 * period, work_ns=period)
    assert record.overruns == 0
    record.tick(late_ns=0, work_ns=period + 1)
    assert record.overruns == 1


def test_our_share_of_a_tick_is_that_of_the_gate_and_of_the_log_and_of_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr("time.thread_time_ns", lambda: clock.now)
    record, log = begun()
    for needed, written in ((13_000_000, 1_000_000), (14_000_000, 3_000_000)):
        for section in ("observe", "gate", "policy", "log"):
            record.spent(section, 0, 500_000)
        clock.now += needed
        log.cpu_ns += written
        record.tick(0, 0)
    # 13 + 1 ms, of which 2 x 0.5 + 1 are ours, leave 12 of 12.5 ms to others; 14 + 3, of which 4 are ours, leave 13.
    found = record.timing.summary()
    assert list(record.timing._cpu) == [14_000_000, 2_000_000, 17_000_000, 4_000_000]
    assert found.over_budget_by_log_or_gate == 1


@pytest.mark.parametrize(
    ("seen", "interrupted", "said", "found", "logged"),
    [
        ((None, None), False, (), None, None),
        ((False, False), False, (), False, False),
        ((False, True, False), False, (), True, True),  # a task once done is done
        ((None, True, None), False, (), True, True),
        ((True, True), False, (), True, True),  # said once
        ((False, False), True, (), None, None),  # nobody knows what it would have come to
        ((False, True), True, (), True, True),
        ((False, True), False, (False,), False, True),  # a person knows better
        ((False, False), False, (True, False, True), True, False),
        ((False, True), False, (True, False), False, True),
        ((False, False), True, (True,), True, None),
    ],
)
def test_the_outcome_is_the_last_word_of_a_person_else_what_was_seen_at_any_step(
    seen: Sequence[bool | None], interrupted: bool, said: Sequence[bool], found: bool | None, logged: bool | None
) -> None:
    record, log = begun()
    for success in seen:
        record.seen(reading(success))
        record.complete(0.0, False, False)
        send(record)
        record.tick(0, 0)
    for word in said:
        record.said(Said(success=word))
    record.interrupted = interrupted
    assert end(record).success is found
    outcomes = [data["success"] for kind, data in log.events if kind == "outcome"]
    assert outcomes == ([] if logged is None else [logged])
    assert log.events[-1][1]["success"] is found


def test_an_episode_without_a_step_has_failed_at_nothing() -> None:
    record, _ = begun()
    record.seen(reading(False))
    assert end(record).success is None


@pytest.mark.parametrize(
    ("deterministic", "source", "changed", "logged", "valid", "helped"),
    [
        (False, "policy", (), "policy", True, False),
        (False, "policy", ("rate", "bounds"), "policy", True, False),
        (False, "policy", ("engage",), "hold", False, False),  # while it is given control, it shares it with the hold
        (False, "person", ("engage",), "hold", False, False),
        (False, "person", (), "person", False, True),
        (False, "hold", (), "hold", False, False),
        (True, "policy", (), "policy", False, False),
    ],
)
def test_a_step_counts_as_sampled_where_the_policy_alone_chose_it(
    deterministic: bool, source: str, changed: tuple[str, ...], logged: str, valid: bool, helped: bool
) -> None:
    record, log = begun(deterministic=deterministic)
    send(record, source, changed)
    record.complete(0.0, False, False)
    (row,) = log.rows
    assert (row.source, row.valid, row.gate) == (logged, valid, changed)
    assert (row.monotonic_ns, row.wall_ns, row.policy_version) == (5, 6, 7)
    send(record)
    assert record.helped is helped  # once is enough


def test_a_return_is_of_every_reward_that_was_given_by_whomever() -> None:
    record, log = begun()
    for reward in (1.0, 2.0):
        send(record)
        record.complete(reward, False, False)
        record.complete(reward, False, False)  # of nothing that was sent nothing comes
    record.said(Said(reward=-0.5))
    record.said(Said(success=True))
    assert [row.reward for row in log.rows] == [1, 2]
    assert end(record).total_reward == 2.5
    assert log.events[-1][1]["return"] == 2.5


@pytest.mark.parametrize("pending", [False, True])
def test_an_end_says_what_was_seen_last_unless_that_came_before_a_command(pending: bool) -> None:
    record, log = begun()
    record.seen(reading(privileged=np.array([0.1, 2.0])))
    if pending:
        send(record)
    end(record)
    data = log.events[-1][1]
    assert data["final_observation"] == (None if pending else [0.0] * 5)
    assert data.get("final_privileged") == (None if pending else [float(np.float32(0.1)), 2.0])
    assert [(row.reward, row.terminated, row.truncated) for row in log.rows] == [(0, False, True)] * pending


def test_the_end_of_the_task_is_no_cut() -> None:
    record, log = begun()
    for terminated, truncated in ((True, False), (False, True)):
        send(record)
        record.complete(0.0, terminated, truncated)
    assert [(row.terminated, row.truncated) for row in log.rows] == [(True, False), (False, True)]


@pytest.mark.parametrize(("words", "discarded"), [((True,), True), ((True, False), False), ((True, None), True)])
def test_a_person_may_take_back_that_an_episode_is_discarded(words: Sequence[bool | None], discarded: bool) -> None:
    record, log = begun()
    for word in words:
        record.said(Said(discard=word, reward=1.0))
    assert end(record).discarded is discarded
    said = [data for kind, data in log.events if kind == "said"]
    assert said == [{"reward": 1.0} | ({} if word is None else {"discard": word}) for word in words]


def test_a_step_has_what_the_robot_knew_when_it_was_chosen() -> None:
    record, log = begun()
    for known in (np.array([0.1, 2.0]), None):
        record.seen(reading(privileged=known))
        record.complete(0.0, False, False)
        send(record)
    end(record)
    first, second = (row.privileged for row in log.rows)
    assert (first.dtype, first.tolist()) == (np.float32, [float(np.float32(0.1)), 2.0])
    assert second is None
