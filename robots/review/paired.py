"""Pairs of episodes, one of each of two policies: how much more often the candidate succeeds, and whether it tells."""

from dataclasses import dataclass

import numpy as np

from gipo.common.intervals import difference_with_interval
from robots.review.confidence_sequence import Array, confidence_sequence

NOT_YET = "not yet known: drive more pairs, and look again, as often as you like"


@dataclass(frozen=True)
class Paired:
    """Pairs in the order in which they were driven.

    Args:
        difference: [n] success of the candidate less that of the deployed policy: −1, 0 or 1.
        looks: [n, 2] the interval of the mean difference after each pair; NaN where no mean agrees with them.
    """

    difference: Array
    looks: Array

    @classmethod
    def of(cls, difference: Array) -> "Paired":
        """Pairs with these differences [n]."""
        return cls(difference, confidence_sequence(difference, -1, 1))

    @property
    def rows(self) -> list[tuple[str, str]]:
        """How many pairs, and the mean difference with its interval, in words."""
        if not len(self.difference):
            return [("pairs", "none of which both outcomes are known")]
        better, worse = int((self.difference > 0).sum()), int((self.difference < 0).sum())
        mean, (low, high) = float(self.difference.mean()), self.looks[-1].tolist()
        said = f"{mean:+.2f}" if self.contradictory else difference_with_interval(mean, low, high)
        count = f"{len(self.difference):,}: only the candidate succeeded in {better}, only the deployed in {worse}"
        return [("pairs", count), ("difference", said)]

    @property
    def told(self) -> bool:
        """Whether one is known to succeed more often."""
        return bool(len(self.looks) and (self.looks[-1, 0] > 0 or self.looks[-1, 1] < 0))

    @property
    def better(self) -> bool:
        """Whether the candidate is known to succeed more often."""
        return self.told and bool(self.looks[-1, 0] > 0)

    @property
    def changing(self) -> bool:
        """Whether what the first pairs have ruled out is what all of them have in the mean."""
        if not len(self.looks) or self.contradictory:
            return False
        low, high = self.looks[-1]
        return not low <= self.difference.mean() <= high

    @property
    def contradictory(self) -> bool:
        """Whether no difference agrees with all pairs."""
        return bool(len(self.looks) and np.isnan(self.looks[-1]).any())

    @property
    def conclusion(self) -> str:
        """What may be concluded, in a sentence."""
        if not len(self.looks):
            return NOT_YET
        for told, word in ((self.looks[:, 0] > 0, "more"), (self.looks[:, 1] < 0, "less")):
            if told[-1]:
                return f"the candidate succeeds {word} often: known since the first {int(np.argmax(told)) + 1} pairs"
        if self.contradictory:
            return (
                "no difference agrees with all pairs, which one time in twenty is chance: is the robot changing, or "
                "the starts?"
            )
        return NOT_YET
