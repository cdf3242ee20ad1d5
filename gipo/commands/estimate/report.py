"""What the estimates of one figure, the return or the success, come to: a table, and what may be concluded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

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
ALL: dict[str, Callable[[LoggedEpisodes], list[Mean]]] = {
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

    def cells(self, form: str) -> tuple[str, str, str, str]:
        """The row of a table, with figures in a form such as `.2f`: no interval where it rests on too little."""
        if not self.told:
            return self.estimator, f"{self.whole.middle:{form}}", "–", f"{self.whole.episodes:.1f}"
        interval, difference = with_interval(*self.whole[:3], form), with_interval(*self.difference[:3], f"+{form}")
        return self.estimator, interval, difference, f"{self.whole.episodes:.1f}"

    def record(self, measure: str) -> dict[str, object]:
        """The row of a file."""
        difference = {f"difference_{name}": value for name, value in self.difference._asdict().items()}
        del difference["difference_episodes"]
        kept = {name: value for name, value in asdict(self).items() if name not in ("whole", "difference")}
        return {"measure": measure, **kept, **self.whole._asdict(), **difference}


def rows(episodes: LoggedEpisodes, least: float) -> list[Row]:
    """Every estimate: those that know all decisions, and those of the last ones, from most to fewest.

    Args:
        episodes: of the logs.
        least: effective episodes that an estimate must rest on.
    """
    decisions = episodes.log_ratio.shape[1]
    windows = {BEST: None} | {_named(last): last for last in WINDOWS if last < decisions}
    found = [_row("observed", observed(episodes), episodes, least, False)]
    found += [_row(name, estimator(episodes), episodes, least, False) for name, estimator in ALL.items()]
    return found + [_row(name, advantages(episodes, last), episodes, least, True) for name, last in windows.items()]


def _named(last: int) -> str:
    return "last decision" if last == 1 else f"last {last} decisions"


def _row(name: str, means: list[Mean], episodes: LoggedEpisodes, least: float, answers: bool) -> Row:
    whole = estimate(means)
    told = whole.episodes >= least - ROUNDING and math.isfinite(whole.high)
    return Row(name, whole, estimate(less_observed(means, episodes)), told, answers)


def answer(found: Sequence[Row]) -> Row | None:
    """The estimate to go by: of those that rest on enough episodes, the one that knows most decisions."""
    return next((row for row in found if row.answers and row.told), None)


def text(found: Sequence[Row], measure: str, unit: str) -> str:
    """The table of `rows`, for a terminal.

    Args:
        found: of `rows`.
        measure: what is estimated, e.g. `success`.
        unit: form of its figures, e.g. `.2f`.
    """
    head = (measure, "of this policy", "less what was observed", "effective episodes")
    return table(head, [row.cells(unit) for row in found])


def conclusion(found: Sequence[Row], measure: str, form: str, least: float) -> str:
    """What may be concluded, in a sentence or two."""
    row = answer(found)
    if row is None:
        most = max(each.whole.episodes for each in found if each.answers)
        return (
            f"{measure}: these logs cannot tell. The policy is so far from those that acted that {most:.1f} effective "
            f"episodes are left at most, of {least:g} that an estimate needs: log more, by a policy nearer to it"
        )
    said = with_interval(*row.difference[:3], f"+{form}")
    by = "all decisions" if row.estimator == BEST else f"the {row.estimator}"
    known = f"{measure}: {said} against the policies that acted, by {by}"
    if float(f"{row.difference.middle:{form}}") == 0:
        return f"{known}: no difference that such figures show{_caution(row)}"
    if row.difference.low > 0 or row.difference.high < 0:
        better = "more" if row.difference.low > 0 else "less"
        return f"{known}: {better} than they had{_caution(row)}"
    return f"{known}: it may be either more or less{_needed(row, found)}{_caution(row)}"


def _needed(row: Row, found: Sequence[Row]) -> str:
    """How many episodes would tell, were the difference what it seems to be: the interval narrows with √n."""
    half, middle = row.difference.high - row.difference.middle, abs(row.difference.middle)
    count = found[0].whole.episodes  # of what was observed: all of them
    if (more := count * (half / middle) ** 2) > 1e6:
        return ""
    return f"; were it so much, some {math.ceil(more / 10) * 10:,} such episodes would tell"


def _caution(row: Row) -> str:
    if row.estimator == BEST:
        return ""
    return ". That earlier decisions lead elsewhere is not in it: trust the sign before the size"
