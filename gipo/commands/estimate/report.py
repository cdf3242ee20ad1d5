"""What the estimates of one figure, the return or the success, come to: a table, and what may be concluded."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from gipo.commands.estimate.estimators import (
    LoggedEpisodes,
    Mean,
    OffPolicyEstimate,
    advantages,
    estimate,
    importance_sampling,
    less_observed,
    observed,
    per_decision,
)
from gipo.common.intervals import with_interval
from gipo.common.tables import table

WINDOWS = (64, 16, 4, 1)  # decisions
ROUNDING = 1e-6  # of a number of episodes
RATIO_ROUNDING = 1e-5  # of what returns spread: differences by the rounding of log-probs
FOUR_OF_FIVE = ((1.96 + 0.84) / 1.96) ** 2  # times the episodes at which an interval just reaches 0, in half of cases
MANY = 1_000_000  # episodes, that nobody drives
ALL: dict[str, Callable[[LoggedEpisodes], list[Mean]]] = {
    "observed": observed,
    "importance sampling": importance_sampling,
    "importance sampling, weighted": partial(importance_sampling, weighted=True),
    "per decision": per_decision,
    "per decision, weighted": partial(per_decision, weighted=True),
    "doubly robust": partial(advantages, weighted=False),
}
BEST = "doubly robust, weighted"  # of those that know all decisions, the narrowest


@dataclass(frozen=True)
class Row:
    """An estimate of what a policy would get, and what may be made of it.

    Args:
        estimator: its name.
        whole: of what the policy would get.
        difference: of that less what was observed.
        told: whether it rests on enough episodes.
        answers: whether a conclusion may rest on it.
    """

    estimator: str
    whole: OffPolicyEstimate
    difference: OffPolicyEstimate
    told: bool
    answers: bool

    def record(self, measure: str) -> dict[str, object]:
        """The row of a file."""
        difference = {f"difference_{name}": value for name, value in self.difference._asdict().items()}
        del difference["difference_episodes"]
        kept = {name: value for name, value in asdict(self).items() if name not in ("whole", "difference")}
        return {"measure": measure, **kept, **self.whole._asdict(), **difference}


class Measure:
    """Every estimate of one figure: those that know all decisions, and those of the last ones, from most to fewest.

    Args:
        name: what is estimated, e.g. `success`.
        episodes: of the logs.
        explained: share of the variance of what follows a decision that the baseline explains.
        least: effective episodes that an estimate must rest on.
        most: the largest figure that there is, where the least is 0; None where there are no bounds.
    """

    def __init__(self, name: str, episodes: LoggedEpisodes, explained: float, least: float, most: float | None = None):
        self.name, self._explained, self._least = name, explained, least
        self._limits = (-math.inf, math.inf) if most is None else (0.0, most)
        self._count, decisions = episodes.log_ratio.shape
        spread = float(np.ptp(returned := episodes.to_go[:, 0]))
        self.varies = spread > 0
        self._scale = spread if self.varies else float(abs(returned[0]))
        windows = {BEST: None} | {_named(last): last for last in WINDOWS if last < decisions}
        self.rows = [self._row(name, estimator(episodes), episodes) for name, estimator in ALL.items()]
        self.rows += [self._row(name, advantages(episodes, last), episodes, True) for name, last in windows.items()]

    def _row(self, name: str, means: list[Mean], episodes: LoggedEpisodes, answers: bool = False) -> Row:
        whole = estimate(means)
        told = self.varies and whole.episodes >= self._least - ROUNDING and math.isfinite(whole.high)
        return Row(name, whole, estimate(less_observed(means, episodes)), told, answers)

    @property
    def answer(self) -> Row | None:
        """The estimate to go by: of those that rest on enough episodes, the one that knows most decisions."""
        return next((row for row in self.rows if row.answers and row.told), None)

    def text(self) -> str:
        """The table for a terminal, without figures that rest on too little, and what may be concluded."""
        head = (self.name, "of this policy", "less what was observed", "effective episodes")
        rows = [
            (
                row.estimator,
                *((self._shown(row.whole), self._change(row)) if row.told else ("–", "–")),
                f"{row.whole.episodes:.1f}",
            )
            for row in self.rows
        ]
        known = f"(the baseline explains {max(0.0, self._explained):.0%} of what followed a decision)"
        return f"{table(head, rows)}\n{known}\n\n{self.conclusion()}"

    def _change(self, row: Row) -> str:
        low, high = self._limits
        return _within(row.difference, low - high, high - low, f"+{_form(self._scale)}")

    def _shown(self, found: OffPolicyEstimate) -> str:
        return _within(found, *self._limits, _form(self._scale))

    def conclusion(self) -> str:
        """What may be concluded, in a sentence or two."""
        if not self.varies:
            return f"{self.name}: these logs cannot tell: it was the same in every episode, whatever the policies did"
        row = self.answer
        if row is None:
            most = max(each.whole.episodes for each in self.rows if each.answers)
            return (
                f"{self.name}: these logs cannot tell: of {self._count:,} episodes {most:.1f} effective ones are left "
                f"at most, of {self._least:g} that an estimate needs. Log more, by a policy nearer to this one"
            )
        by = "all decisions" if row.estimator == BEST else f"the {row.estimator}"
        return f"{self.name}: {self._change(row)} against the policies that acted, by {by}: {self._verdict(row)}"

    def _verdict(self, row: Row) -> str:
        _, low, high, _ = row.difference
        if max(abs(low), abs(high)) <= RATIO_ROUNDING * self._scale:
            return "no difference"
        partial_knowledge = row.estimator != BEST
        if low > 0 or high < 0:
            better = "more" if low > 0 else "less"
            caution = ". That earlier decisions lead elsewhere is not in it: trust the sign before the size"
            return f"{better} than they had{caution * partial_knowledge}"
        return f"it may be either more or less{'' if partial_knowledge else self._needed(row)}"

    def _needed(self, row: Row) -> str:
        """How many episodes would tell, were the difference what it seems to be: intervals narrow with √n."""
        half, middle = row.difference.high - row.difference.middle, abs(row.difference.middle)
        more = self._count * (half / middle) ** 2 * FOUR_OF_FIVE if middle else math.inf
        if more > MANY:
            return f"; were it so little, more than {MANY:,} such episodes would be needed to tell"
        return f"; were it so much, some {math.ceil(more / 10) * 10:,} such episodes would tell in four of five cases"


def _within(found: OffPolicyEstimate, low: float, high: float, form: str) -> str:
    """A figure with its interval, within what is possible; one that shows as nothing has no sign of its own."""
    parts = (min(max(part, low), high) for part in found[:3])
    middle, left, right = (part if float(f"{part:{form}}") else 0.0 for part in parts)
    return with_interval(middle, left, right, form)


def _named(last: int) -> str:
    return "last decision" if last == 1 else f"last {last} decisions"


def _form(scale: float) -> str:
    """The form of figures of this scale, in which three digits count."""
    if not 1e-4 < scale < 1e9:
        return ".2e"
    return f".{max(0, 2 - math.floor(math.log10(scale)))}f"
