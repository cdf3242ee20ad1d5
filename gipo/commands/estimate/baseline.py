"""What an episode returns from a decision on, as far as what was seen there tells: a ridge regression.

Estimates are right whatever it says, as long as it does not look at the decision itself, nor at the episode that it is
used for; the better it is, the narrower they are. So that there is nothing to be tuned or to be trained, its features
are fixed and random (Rahimi & Recht 2007).
"""

import numpy as np
from numpy.typing import NDArray

from gipo.commands.estimate.estimators import Array

FEATURES, FOLDS, RIDGE = 256, 5, 1e-2


def fitted(seen: Array, value: Array, group: NDArray[np.int64], seed: int = 0) -> tuple[Array, float]:
    """Predictions of `value` [M] from what was `seen` [M, O], each by a regression on other groups.

    Args:
        seen: anything known when it is predicted.
        value: to be predicted.
        group: [M] of which group each is, 0 to n − 1; one is either fitted to or predicted.
        seed: of the random features.

    Returns:
        Predictions [M], and the share of the variance of `value` that they explain: below 0 where they are worse than
        the mean.
    """
    features = _features(seen, seed)
    found = np.empty(len(value))
    folds = min(FOLDS, int(group.max()) + 1)
    for fold in range(folds):
        held = group % folds == fold
        others = ~held if folds > 1 else held & False
        found[held] = features[held] @ _ridge(features[others], value[others])
    variance = value.var()
    return found, float(1 - ((value - found) ** 2).mean() / variance) if variance > 0 else 0.0


def _features(seen: Array, seed: int) -> Array:
    """1, the standardised numbers z, and cos(w·z + b) with normal w and uniform b: [M, 1 + O + F]."""
    spread = seen.std(0)
    z = (seen - seen.mean(0))[:, spread > 0] / spread[spread > 0]
    draw = np.random.default_rng(seed)
    w = draw.normal(size=(z.shape[1], FEATURES)) / np.sqrt(max(1, z.shape[1]))
    b = draw.uniform(0, 2 * np.pi, FEATURES)
    return np.column_stack((np.ones(len(z)), z, np.cos(z @ w + b)))


def _ridge(features: Array, value: Array) -> Array:
    """Weights of the least squares with λ = RIDGE·M on all of them; the mean is not shrunk."""
    # (ΦᵀΦ + λ·I)⁻¹·Φᵀ·(y − ȳ), and ȳ for the constant
    if not len(value):
        return np.zeros(features.shape[1])
    mean = value.mean()
    gram = features.T @ features + RIDGE * len(value) * np.eye(features.shape[1])
    found: Array = np.linalg.solve(gram, features.T @ (value - mean))
    found[0] += mean
    return found
