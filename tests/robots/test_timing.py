"""Pacing at a fixed rate, and what it cost, by hand."""

import pytest

from robots.timing import Clock, Pacer, Timing


class Wound(Clock):
    """Stands still but for sleeping, which wakes `late` nanoseconds after its moment."""

    def __init__(self) -> None:
        self.now, self.late = 0, 0

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, moment_ns: int) -> None:
        self.now = max(self.now, moment_ns + self.late)


def begins(realtime: bool, work: list[int]) -> list[tuple[int, int]]:
    """When ticks of a period of 100 began and how late, each with this much work after it."""
    clock, found = Wound(), []
    pacer = Pacer(clock, 100, realtime)
    for each in work:
        late = pacer.wait()
        found.append((clock.now, late))
        clock.now += each
    return found


def test_lateness_never_adds_up_and_missed_ticks_are_skipped() -> None:
    assert begins(True, [30, 130, 0, 100, 350, 0, 0]) == [
        (0, 0), (100, 0), (230, 30), (300, 0), (400, 0), (750, 250), (800, 0),
    ]  # fmt: skip


def test_a_simulated_robot_misses_no_tick() -> None:
    assert begins(False, [30, 130, 0, 100, 350, 0, 0]) == [
        (0, 0), (100, 0), (230, 30), (330, 0), (430, 0), (780, 250), (880, 0),
    ]  # fmt: skip


def test_what_an_episode_cost() -> None:
    """Four ticks of a period of 10 ms: late, work, and each section; what the processor did, and of that we."""
    timing = Timing(10_000_000, started_ns=1_000_000_000, ended_ns=1_050_000_000)
    for wall, processor in (
        ((0.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0), (8.0, 1.0)),
        ((10.0, 10.0, 1.0, 2.0, 3.0, 4.0, 5.0), (10.0, 5.0)),  # a whole period is within the budget
        ((9.0, 12.0, 1.0, 2.0, 3.0, 4.0, 5.0), (12.0, 2.0)),  # without us it was
        ((25.0, 10.5, 2.0, 2.0, 3.0, 4.0, 5.0), (10.5, 0.4)),  # and here not either
    ):
        timing.add((round(1e6 * each) for each in wall), (round(1e6 * each) for each in processor))
    assert list(timing.last()) == [25_000_000, 10_500_000, 2_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]
    found = timing.summary()
    assert (found.ticks, found.rate_hz) == (4, pytest.approx(80))
    assert (found.over_budget, found.over_budget_by_log_or_gate, found.skipped) == (2, 1, 3)
    assert found.worst_ms == 12
    assert found.late_p99_ms == pytest.approx(10 + 0.97 * 15)
    assert found.work_p50_ms == pytest.approx(10.25)
    assert found.work_p99_ms == pytest.approx(10.5 + 0.97 * 1.5)
    assert found.work_p99_share == pytest.approx(1.1955)
    assert found.section_p50_ms == {"observe": 1, "policy": 2, "gate": 3, "act": 4, "log": 5}
    assert found.section_p99_ms == pytest.approx({"observe": 1.97, "policy": 2, "gate": 3, "act": 4, "log": 5})


def test_a_tick_that_waited_for_a_driver_is_over_budget_by_neither_log_nor_gate() -> None:
    timing = Timing(10_000_000)
    timing.add((0, 12_000_000, 9_000_000, 0, 0, 0, 0), (3_000_000, 2_500_000))
    found = timing.summary()
    assert (found.over_budget, found.over_budget_by_log_or_gate) == (1, 0)


def test_an_episode_without_a_tick_cost_nothing() -> None:
    found = Timing(10_000_000, started_ns=5, ended_ns=5).summary()
    assert (found.ticks, found.rate_hz, found.over_budget, found.skipped, found.worst_ms) == (0, 0, 0, 0, 0)
