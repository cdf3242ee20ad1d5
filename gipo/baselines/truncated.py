"""Importance sampling whose ratios are cut or left out, and no other change."""

import math
from dataclasses import dataclass

from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import LARGEST, Objective, Terms, require_bound, require_positive
from gipo.objectives import attach_gradient, importance_ratio


@dataclass(frozen=True)
class CISPO(Objective):
    """Truncated importance sampling, the ratio outside of the gradient: −sg(clip(ρ, l, c))·A·log π (arXiv 2506.13585).

    No sample loses its gradient. With l = 0 and c = 1 it is the policy gradient of IMPALA (arXiv 1802.01561), which
    goes with `datamodules.advantages.VTrace`.

    Args:
        ratio_max: c ≥ 1; the paper prints no value.
        ratio_min: l in [0, 1]; 0, as in the paper, is no lower bound.
        log_ratio_bound: the weight clip(ρ, l, c)/ρ is reported as at x = −`log_ratio_bound` where x is less, nats.
    """

    ratio_max: float = 5.0
    ratio_min: float = 0.0
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_bound(self.log_ratio_bound)
        if not 1 <= self.ratio_max <= LARGEST:
            raise UserError(f"{name}.ratio_max must lie in [1, {LARGEST:g}], got {self.ratio_max}")
        if not 0 <= self.ratio_min <= 1:
            raise UserError(f"{name}.ratio_min must lie in [0, 1], got {self.ratio_min}")

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        low = math.log(self.ratio_min) if self.ratio_min else -math.inf
        high = math.log(self.ratio_max)
        contribution = log_ratio.detach().clamp(low, high).exp()
        x = log_ratio.detach().clamp(min=-self.log_ratio_bound)
        weight = (x.clamp(low, high) - x).exp()
        return Terms(-attach_gradient(contribution, log_ratio) * advantage, weight, contribution)


@dataclass(frozen=True)
class TIS(CISPO):
    """Truncated importance sampling, −sg(min(ρ, C))·A·log π: CISPO with the bound that is usual for it (Ionides 2008).

    In language models it corrects for another sampler, beside a clip of the learner's own ratio; here π/μ is the one
    ratio there is. C = 2 is the default of public trainers, not of a paper on stale data.
    """

    ratio_max: float = 2.0


@dataclass(frozen=True)
class MIS(Objective):
    """Masked importance sampling: −ρ·A where l ≤ ρ ≤ c, and no gradient elsewhere, whatever the sign of A.

    From public trainers: slime and verl mask by [.5, 2], ms-swift above 2 alone; no paper was found with other bounds.

    Args:
        ratio_max: c ≥ 1.
        ratio_min: l in (0, 1].
    """

    ratio_max: float = 2.0
    ratio_min: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "ratio_min", "ratio_max")
        if not self.ratio_min <= 1 <= self.ratio_max:
            raise UserError(f"MIS needs ratio_min ≤ 1 ≤ ratio_max, got {self.ratio_min} and {self.ratio_max}")

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss, trust weight w and contribution w·ρ per element."""
        rho = importance_ratio(log_ratio, math.log(self.ratio_max))
        kept = (log_ratio >= math.log(self.ratio_min)) & (log_ratio <= math.log(self.ratio_max))
        weight = kept.to(rho.dtype)
        return Terms(-weight * rho * advantage, weight, weight * rho.detach())
