"""Pacing at a fixed rate, and what it cost: rate, overruns, worst tick, time of every section."""

import gc
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gipo.common.interpreter import no_garbage_collection
from robots.log.schema import SECTIONS, TIMES


class Clock:
    """The monotonic clock of this machine; a test may bring another one."""

    def now_ns(self) -> int:
        """The clock's time, in nanoseconds since an arbitrary moment; it never goes back."""
        return time.monotonic_ns()

    def sleep_until(self, moment_ns: int) -> None:
        """Return at `moment_ns`, or at once when it has passed."""
        while (left := moment_ns - self.now_ns()) > 0:
            time.sleep(left / 1e9)


class Pacer:
    """Ticks at whole periods from an anchor, so that lateness never adds up; missed ticks are skipped, not caught up.

    Args:
        clock: to sleep by.
        period_ns: between ticks.
        realtime: keep to the anchor; else a late tick moves it, because nothing happens meanwhile.
    """

    def __init__(self, clock: Clock, period_ns: int, realtime: bool = True):
        self._clock, self._period, self._realtime = clock, period_ns, realtime
        self._next = clock.now_ns()

    def wait(self) -> int:
        """Sleep until the next tick; how late it begins, nanoseconds."""
        self._clock.sleep_until(self._next)
        late = self._clock.now_ns() - self._next
        if self._realtime:
            self._next += self._period * (1 + late // self._period)
        else:
            self._next += self._period + late
        return late


@dataclass
class Timing:
    """What the ticks of an episode took.

    Args:
        period_ns: what a tick may take.
        started_ns: when the first began.
        ended_ns: when the last had ended.
    """

    period_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    _wall: "array[int]" = field(default_factory=partial(array, "q"))
    _cpu: "array[int]" = field(default_factory=partial(array, "q"))

    def add(self, wall_ns: Iterable[int], cpu_ns: Iterable[int]) -> None:
        """Keep the next tick: each of TIMES; and the processor's time, all of it and our own."""
        self._wall.extend(wall_ns)
        self._cpu.extend(cpu_ns)

    def last(self) -> Sequence[int]:
        """The last tick: nanoseconds of each of TIMES."""
        return self._wall[-len(TIMES) :]

    def summary(self) -> "TimingSummary":
        """What the pace was, over the ticks so far."""
        rows = np.array(self._wall or [0] * len(TIMES)).reshape(-1, len(TIMES))
        late, work, sections = rows[:, 0], rows[:, 1], rows[:, 2:]
        needed, own = np.array(self._cpu or [0, 0]).reshape(-1, 2).T
        ticks = len(self._wall) // len(TIMES)
        seconds = max(self.ended_ns - self.started_ns, 1) / 1e9
        return TimingSummary(
            ticks=ticks,
            rate_hz=ticks / seconds,
            over_budget=int((work > self.period_ns).sum()),
            over_budget_by_log_or_gate=int(((needed > self.period_ns) & (needed - own <= self.period_ns)).sum()),
            skipped=int((late // self.period_ns).sum()),
            worst_ms=float(work.max() / 1e6),
            late_p99_ms=float(np.quantile(late, 0.99) / 1e6),
            work_p50_ms=float(np.quantile(work, 0.5) / 1e6),
            work_p99_ms=float(np.quantile(work, 0.99) / 1e6),
            work_p99_share=float(np.quantile(work, 0.99) / self.period_ns),
            section_p50_ms=dict(zip(SECTIONS, (np.quantile(sections, 0.5, axis=0) / 1e6).tolist(), strict=True)),
            section_p99_ms=dict(zip(SECTIONS, (np.quantile(sections, 0.99, axis=0) / 1e6).tolist(), strict=True)),
        )


@dataclass(frozen=True)
class TimingSummary:
    """What the pace of an episode was; the log holds it with the end of the episode.

    Args:
        ticks: commands decided.
        rate_hz: of the wall clock.
        over_budget: ticks whose work took longer than the period.
        over_budget_by_log_or_gate: ticks whose processor time fits the period only without the gate and the log.
        skipped: ticks that never began, because an earlier one or the system took their time.
        worst_ms: the longest work of a tick.
        late_p99_ms: how late ticks begin.
        work_p50_ms: work of a tick.
        work_p99_ms: work of a tick.
        work_p99_share: the same as a share of the period.
        section_p50_ms: section → time.
        section_p99_ms: section → time.
    """

    ticks: int
    rate_hz: float
    over_budget: int
    over_budget_by_log_or_gate: int
    skipped: int
    worst_ms: float
    late_p99_ms: float
    work_p50_ms: float
    work_p99_ms: float
    work_p99_share: float
    section_p50_ms: dict[str, float]
    section_p99_ms: dict[str, float]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Threads that want Python's lock wait half a millisecond for it, not five; garbage waits for the episode's end."""
    gc.freeze()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        with no_garbage_collection():
            yield
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()
