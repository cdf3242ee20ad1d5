"""Timing several sides in turns, so that a slow moment of the machine hits all of them."""

import statistics
import time
from collections.abc import Callable

import torch


class Side:
    """One side of a comparison: items per second of its slices, by the clock and by this process's processor time."""

    def __init__(self) -> None:
        self._start = (0.0, 0.0)
        self._rates: list[tuple[float, float]] = []

    def start(self) -> None:
        """A slice begins."""
        self._start = (time.perf_counter(), time.process_time())

    def stop(self, items: int) -> float:
        """A slice ends that made `items` items; returns its seconds."""
        elapsed, processor = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        self._rates.append((items / elapsed, items / processor))
        return elapsed

    @property
    def rate(self) -> float:
        """Median items per second; the first slice does not count."""
        return statistics.median(rate for rate, _ in self._rates[1:])

    @property
    def processor_rate(self) -> float:
        """The same by processor time."""
        return statistics.median(rate for _, rate in self._rates[1:])

    def ratio(self, base: "Side") -> float:
        """Median over the turns of this side's rate to that of `base` in the same turn."""
        return self._ratio(base, 0)

    def processor_ratio(self, base: "Side") -> float:
        """The same by processor time: what other processes take from the machine does not count."""
        return self._ratio(base, 1)

    def _ratio(self, base: "Side", clock: int) -> float:
        turns = zip(self._rates[1:], base._rates[1:], strict=True)
        return statistics.median(mine[clock] / other[clock] for mine, other in turns)


def take_turns(slices: dict[str, Callable[[Side], None]], turns: int) -> dict[str, Side]:
    """Let every side have `turns` slices in turns, after one that does not count."""
    sides = {name: Side() for name in slices}
    for _ in range(turns + 1):
        for name, side in sides.items():
            slices[name](side)
    return sides


def synchronise() -> None:
    """Wait for what the GPU still has to do, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
