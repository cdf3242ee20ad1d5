"""Which runs a round makes: every run changes a few factors at once, and every run tells of all of them.

One change at a time would spend a run on one alternative. Dealt out evenly, in an order of its own for every factor, an
alternative is tried beside many mixtures of the others, and a run counts for each factor (a fractional factorial
design, in random order).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Levels = Mapping[str, Sequence[str]]  # of each factor, the default first


@dataclass(frozen=True)
class Trial:
    """One run of a round.

    Args:
        task: that is learned.
        seed: of everything.
        levels: of every factor.
    """

    task: str
    seed: int
    levels: Mapping[str, str]


def deal(levels: Levels, tasks: Sequence[str], seeds: Sequence[int], runs: int, share: float, seed: int) -> list[Trial]:
    """So many runs, tasks and seeds in turn.

    Args:
        levels: of each factor.
        tasks: as many runs of each, but for a remainder.
        seeds: of the runs; the next one once every task has had its turn.
        runs: of the round.
        share: of the runs in which a factor is not at its default; its alternatives have equal parts of it.
        seed: of the order in which levels are dealt.
    """
    rng = np.random.default_rng(seed)
    columns = {factor: rng.permutation(_column(found, runs, share)) for factor, found in levels.items()}
    return [
        Trial(
            tasks[index % len(tasks)],
            seeds[index // len(tasks) % len(seeds)],
            {factor: str(column[index]) for factor, column in columns.items()},
        )
        for index in range(runs)
    ]


def _column(levels: Sequence[str], runs: int, share: float) -> list[str]:
    """Levels of one factor in all runs, in no order: each alternative as often as the others, at least once."""
    default, *alternatives = levels
    each = max(1, round(share * runs / len(alternatives))) if alternatives else 0
    found = [level for level in alternatives for _ in range(each)][:runs]
    return found + [default] * (runs - len(found))
