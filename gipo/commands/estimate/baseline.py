"""What an episode returns from a decision on, as far as what was seen there tells: a ridge regression.

Estimates are right whatever it says, as long as it does not look at the decision itself, nor at the episode that it is
used for; the better it is, the narrower they are. So that there is nothing to be tuned or to be trained, its features
are fixed and random (Rahimi & Recht 2007).
"""

import numpy as np
from numpy.typing import NDArray

from gipo.commands.estimate.estimators import Array

FEATURES, FOLDS, RIDGE = 256, 5, 1e-2
ROWS = 16_384  # whose features are in memory at once


def fitted(seen: Array, value: Array, group: NDArray[np.int64], seed: int = 0) -> tuple[Array, Array]:
    """Predictions of K kinds of `value` [M, K] from what was `seen` [M, O], each by a regression on other groups.

    Args:
        seen: anything known when it is predicted.
        value: to be predicted.
        group: [M] of which group each is, 0 to n − 1; one is either fitted to or predicted.
        seed: of the random features.

    Returns:
        Predictions [M, K], and the shares [K] of the variances of `value` that they explain: below 0 where they are
        worse than the mean, and 0 of what does not vary.
    """
    features = _Features(seen, seed)
    folds = min(FOLDS, int(group.max()) + 1)
    fold, found = group % folds, np.zeros(value.shape)
    blocks = [slice(start, start + ROWS) for start in range(0, len(value), ROWS)]
    sums = [_Sums(features.size, value.shape[1]) for _ in range(folds)]
    for block in blocks:
        rows = features.of(seen[block])
        for number, each in enumerate(sums):
            inside = fold[block] == number
            each.add(rows[inside], value[block][inside])
    whole = sum(sums[1:], sums[0])
    weights = [(whole - each).ridge() for each in sums]
    for block in blocks:
        rows = features.of(seen[block])
        for number, weight in enumerate(weights):
            inside = fold[block] == number
            found[block][inside] = rows[inside] @ weight
    variance = value.var(0)
    left = ((value - found) ** 2).mean(0) / np.where(variance > 0, variance, 1)
    return found, np.where(variance > 0, 1 - left, 0.0)


class _Features:
    """1, the standardised numbers z, and cos(w·z + b) with normal w and uniform b: [B, 1 + O + F]."""

    def __init__(self, seen: Array, seed: int):
        spread = seen.std(0)
        self._moves = spread > 0
        self._mean, self._spread = seen.mean(0)[self._moves], spread[self._moves]
        draw, count = np.random.default_rng(seed), len(self._mean)
        self._w = draw.normal(size=(count, FEATURES)) / np.sqrt(max(1, count))
        self._b = draw.uniform(0, 2 * np.pi, FEATURES)
        self.size = 1 + count + FEATURES

    def of(self, seen: Array) -> Array:
        z = (seen[:, self._moves] - self._mean) / self._spread
        return np.column_stack((np.ones(len(z)), z, np.cos(z @ self._w + self._b)))


class _Sums:
    """ΦᵀΦ, Φᵀy and n of a part of the rows: all that a regression on some of the parts needs."""

    def __init__(self, size: int, kinds: int):
        self.gram, self.with_value, self.count = np.zeros((size, size)), np.zeros((size, kinds)), 0

    def add(self, features: Array, value: Array) -> None:
        self.gram += features.T @ features
        self.with_value += features.T @ value
        self.count += len(value)

    def __add__(self, other: "_Sums") -> "_Sums":
        return self._combined(other, 1)

    def __sub__(self, other: "_Sums") -> "_Sums":
        return self._combined(other, -1)

    def _combined(self, other: "_Sums", sign: int) -> "_Sums":
        found = _Sums(*self.with_value.shape)
        found.gram = self.gram + sign * other.gram
        found.with_value = self.with_value + sign * other.with_value
        found.count = self.count + sign * other.count
        return found

    def ridge(self) -> Array:
        """Weights of the least squares with λ = RIDGE·n on all but the mean of the values; zeros of no rows."""
        # (ΦᵀΦ + λ·I)⁻¹·Φᵀ·(y − ȳ), and ȳ for the constant, of which Φᵀy has n·ȳ in its first row
        if not self.count:
            return np.zeros_like(self.with_value)
        mean = self.with_value[0] / self.count
        centred = self.with_value - self.gram[:, :1] * mean
        found: Array = np.linalg.solve(self.gram + RIDGE * self.count * np.eye(len(self.gram)), centred)
        found[0] += mean
        return found
