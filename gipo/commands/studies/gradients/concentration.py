"""Confidence intervals for the mean of n gradient estimates, and how often they hold.

The Gaussian weight bounds every sample, |g| ≤ b = exp(σ²/2)·max|A|·max|∂log π|, which is all these need; samples of
different ages have different bounds, and Hoeffding's inequality takes each with its own. They are intervals around the
estimator's own mean E g; its bias against the true gradient is another matter.
"""

import math
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from gipo.adaptive import AgeAwareGIPO
from gipo.commands.studies.gradients.estimators import AGES, SIGMAS, estimates
from gipo.commands.studies.gradients.mdp import Array, cells
from gipo.objectives import GIPO

SIGMA_FRESH = SIGMA_AGE = 0.3  # σ₀ and σ₁ of what is counted by age


class HalfWidths(NamedTuple):
    """Half-widths of two-sided intervals of confidence 1 − δ."""

    hoeffding: Array
    bernstein: Array
    empirical: Array


def half_widths(bound: Array, variance: Array, sample_variance: Array, n: int, delta: float) -> HalfWidths:
    """Half-widths around the mean of n independent samples in [−b, b].

    Args:
        bound: b.
        variance: of one sample, known (Bernstein).
        sample_variance: of one sample, estimated from the n (empirical Bernstein, arXiv 0907.3740, theorem 4).
        n: samples, at least 2.
        delta: 1 − confidence.
    """
    log = math.log(2 / delta)
    log_empirical = math.log(4 / delta)  # its theorem is one-sided at δ, so two-sided at δ/2
    return HalfWidths(
        # 2b·√(log(2/δ)/2n)
        2 * bound * math.sqrt(log / (2 * n)),
        # √(2V·log(2/δ)/n) + 2b·log(2/δ)/3n
        np.sqrt(2 * variance * log / n) + 2 * bound * log / (3 * n),
        # √(2V̂·log(4/δ)/n) + 7·2b·log(4/δ)/3(n−1)
        np.sqrt(2 * sample_variance * log_empirical / n) + 14 * bound * log_empirical / (3 * (n - 1)),
    )


def coverage(samples: tuple[int, ...], draws: int, delta: float, seed: int) -> list[dict[str, object]]:
    """How often the intervals hold E g, in every cell of the GridWorld, for every σ and n: one row each.

    Args:
        samples: values of n.
        draws: experiments of n samples each.
        delta: 1 − nominal coverage.
        seed: of the experiments.
    """
    grid, generator = cells(), np.random.default_rng(seed)
    per_action = {sigma: estimates(GIPO(sigma=sigma), grid) for sigma in SIGMAS}
    largest = np.abs(grid.advantage).max(1) * np.abs(grid.score).max(1)
    rows: list[dict[str, object]] = []
    # each experiment is its counts of the four actions, the same ones for every σ
    for cell, (target, behaviour) in enumerate(tqdm(grid.names, desc="coverage", unit="cell", delay=2)):
        for n in samples:
            share = generator.multinomial(n, grid.probability[cell], size=draws) / n  # [draws, A]
            for sigma in SIGMAS:
                g = per_action[sigma][cell]
                true_mean = grid.probability[cell] @ g
                variance = grid.probability[cell] @ (g - true_mean) ** 2
                mean = share @ g
                sample_variance = np.maximum(share @ g**2 - mean**2, 0.0) * n / (n - 1)
                bound = np.asarray(math.exp(sigma**2 / 2) * largest[cell])
                widths = half_widths(bound, variance, sample_variance, n, delta)
                off = np.abs(mean - true_mean)
                row: dict[str, object] = {"target": target, "behaviour": behaviour, "sigma": sigma, "samples": n}
                row |= {"draws": draws, "nominal": 1 - delta}
                for name, width in widths._asdict().items():
                    row |= {name: float(np.mean(off <= width)), f"{name}_half_width": float(np.mean(width))}
                rows.append(row)
    return rows


def aged_coverage(samples: tuple[int, ...], draws: int, delta: float, seed: int) -> list[dict[str, object]]:
    """How often Hoeffding's interval holds for a mean of samples of mixed ages: a row for each cell, form and n.

    An experiment has n samples, rounded down to as many of each of `AGES`; AgeAwareGIPO has σ₀ = σ₁ = .3.

    Args:
        samples: values of n.
        draws: experiments of n samples each.
        delta: 1 − nominal coverage.
        seed: of the experiments.
    """
    grid, generator = cells(), np.random.default_rng(seed)
    largest = np.abs(grid.advantage).max(1) * np.abs(grid.score).max(1)
    # exp(σ_k²/2), σ_k² = σ₀² + k·σ₁²
    bound = np.exp([(SIGMA_FRESH**2 + age * SIGMA_AGE**2) / 2 for age in AGES])
    rows: list[dict[str, object]] = []
    for outward in (False, True):
        objective = AgeAwareGIPO(sigma_fresh=SIGMA_FRESH, sigma_age=SIGMA_AGE, outward_only=outward)
        g = np.stack([estimates(objective, grid, age) for age in AGES], 1)  # [C, K, A]
        cells_of_form = tqdm(grid.names, desc="coverage by age", unit="cell", delay=2)
        for cell, (target, behaviour) in enumerate(cells_of_form):
            for n in samples:
                each = max(1, n // len(AGES))
                share = generator.multinomial(each, grid.probability[cell], size=(draws, len(AGES))) / each
                off = np.abs((share * g[cell]).sum(-1).mean(-1) - (g[cell] @ grid.probability[cell]).mean())
                # √(2·log(2/δ)·Σb²)/n over n = K·each samples
                scale = largest[cell] * math.sqrt(2 * math.log(2 / delta) / (each * len(AGES)))
                width, uniform = scale * math.sqrt(np.mean(bound**2)), scale * bound.max()
                row: dict[str, object] = {"target": target, "behaviour": behaviour, "outward_only": outward}
                row |= {"samples": each * len(AGES), "draws": draws, "nominal": 1 - delta}
                row |= {"hoeffding": float(np.mean(off <= width)), "half_width": width, "uniform_half_width": uniform}
                rows.append(row)
    return rows
