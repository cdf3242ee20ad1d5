"""Timing several sides in turns, so that a slow moment of the machine hits all of them."""

import statistics
import time


class Side:
    """One side of a comparison: the rates of its slices, of which the first does not count."""

    def __init__(self) -> None:
        self._start = 0.0
        self._rates: list[float] = []

    def start(self) -> None:
        """A slice begins."""
        self._start = time.perf_counter()

    def stop(self, items: int) -> None:
        """A slice ends that made `items` items."""
        self._rates.append(items / (time.perf_counter() - self._start))

    @property
    def rate(self) -> float:
        """Median items per second."""
        return statistics.median(self._rates[1:])

    def ratio(self, base: "Side") -> float:
        """Median over the turns of this side's rate to that of `base` in the same turn."""
        turns = zip(self._rates[1:], base._rates[1:], strict=True)
        return statistics.median(mine / other for mine, other in turns)
