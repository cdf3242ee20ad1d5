"""How fast old data drift away: the slope of x² on age, from moments that decay."""

import torch
from torch import Tensor

MOMENTS = 5  # means of 1, k, k², x² and k·x² over the elements, 0 where one is not used
DECAY = 0.99  # of a batch: what a hundred batches ago said counts a third
RIDGE = 1e-2  # versions²; where ages differ by less than its root, the prior decides


def no_moments() -> Tensor:
    """Moments of no data at all [MOMENTS]; float64, in which squares of large ages are told apart."""
    return torch.zeros(MOMENTS, dtype=torch.float64)


def moments_after(moments: Tensor, square: Tensor, age: Tensor, used: Tensor) -> Tensor:
    """Moments [MOMENTS] after one more batch.

    Args:
        moments: before it.
        square: x² [N, D], nats².
        age: k [N, D], versions.
        used: [N, D] bool.
    """
    y, k = square.to(moments.dtype), age.to(moments.dtype)
    each = torch.stack((torch.ones_like(y), k, k**2, y, k * y))
    batch = torch.where(used, each, 0.0).flatten(1).mean(1) if y.numel() else moments
    return torch.lerp(batch, moments, DECAY)


def slope(moments: Tensor, prior: float) -> Tensor:
    """σ₁² [], the slope of x² on k, nats² a version: least squares with a free intercept, not negative.

    Args:
        moments: as `moments_after` leaves them.
        prior: taken where the ages seen do not differ, or nothing was seen.
    """
    count, k, k2, y, ky = moments.unbind()
    count = count.clamp(min=torch.finfo(moments.dtype).tiny)
    # σ₁² = Cov(k, x²)/Var(k), with a prior that weighs as much as a variance of RIDGE
    covariance, variance = ky / count - k / count * (y / count), k2 / count - (k / count) ** 2
    return ((covariance + RIDGE * prior) / (variance.clamp(min=0) + RIDGE)).clamp(min=0)
