"""What an alternative adds to the score, from runs that change several factors at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gipo.commands.studies.recipe.dealing import Levels, Trial

Array = NDArray[np.float64]
PRIOR = 0.1  # deviation that effects are expected to have before any run: a tenth of what success can be
STEPS, TINY = 50, 1e-9  # of the fixed point of the noise's variance, which is never quite 0


class Alternative(NamedTuple):
    """A level of a factor that is not its default."""

    factor: str
    level: str


@dataclass(frozen=True)
class Effect:
    """What an alternative adds to the score of a run.

    Args:
        runs: that had it.
        mean: of what it adds, given all runs.
        error: standard deviation of that.
    """

    runs: int
    mean: float
    error: float


def alternatives(levels: Levels) -> list[Alternative]:
    """The alternatives of all factors, in order."""
    return [Alternative(factor, level) for factor, found in levels.items() for level in found[1:]]


def effects(trials: Sequence[Trial], scores: Sequence[float], levels: Levels) -> dict[Alternative, Effect]:
    """What every alternative that some run had adds, by Bayesian linear regression.

    y = Σ_task a_task + Σ b_alternative + noise; a flat, b ~ N(0, PRIOR²), the noise's variance from the residuals.
    """
    tasks = list(dict.fromkeys(trial.task for trial in trials))
    tried = [each for each in alternatives(levels) if any(trial.levels[each.factor] == each.level for trial in trials)]
    x = np.array(
        [[*(trial.task == task for task in tasks), *(trial.levels[factor] == level for factor, level in tried)]
         for trial in trials], dtype=float,
    )  # fmt: skip
    precision = np.array([0.0] * len(tasks) + [PRIOR**-2] * len(tried))
    mean, error = posterior(x, np.asarray(scores, dtype=float), precision)
    return {
        each: Effect(int(x[:, column].sum()), float(mean[column]), float(error[column]))
        for column, each in enumerate(tried, len(tasks))
    }


def posterior(x: Array, y: Array, precision: Array) -> tuple[Array, Array]:
    """Mean and deviation [P] of the coefficients of y [N] = x [N, P]·b + noise, b ~ N(0, 1/`precision` [P]).

    The noise's variance s² is the fixed point of ‖y − x·b‖²/(N − tr H), H what maps y to its fit, x·b.
    """
    variance, gram = float(y.var()) + TINY, x.T @ x
    for _ in range(STEPS):
        # Σ = (xᵀx/s² + P)⁻¹,  b = Σ·xᵀy/s²,  tr H = tr(Σ·xᵀx)/s²
        covariance = np.linalg.pinv(gram / variance + np.diag(precision), hermitian=True)
        mean = covariance @ (x.T @ y) / variance
        free = len(y) - float(np.trace(covariance @ gram)) / variance
        variance = float(((y - x @ mean) ** 2).sum()) / max(free, 1.0) + TINY
    return mean, np.sqrt(np.diag(covariance))


def better_half(found: Mapping[Alternative, Effect], levels: Levels) -> dict[str, list[str]]:
    """Levels that stay in the race: the defaults, and of all alternatives the half that adds most, rounded up."""
    kept = sorted(found, key=lambda each: -found[each].mean)[: -(-len(found) // 2)]
    return {
        factor: [every[0], *(level for level in every[1:] if (factor, level) in kept)]
        for factor, every in levels.items()
    }


def winner(found: Mapping[Alternative, Effect], levels: Levels) -> dict[str, str]:
    """The level of every factor: its best alternative where that adds more than its error, else its default."""
    chosen = {factor: every[0] for factor, every in levels.items()}
    for (factor, level), effect in sorted(found.items(), key=lambda item: item[1].mean):
        if effect.mean > effect.error:
            chosen[factor] = level
    return chosen
