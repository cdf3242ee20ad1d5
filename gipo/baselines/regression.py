"""Regression onto good actions: what a robot team would try first on logs, where nobody needs to know who acted."""

import math
from dataclasses import dataclass

from torch import Tensor

from gipo.objective import Objective, Terms, require_positive


@dataclass(frozen=True)
class AWR(Objective):
    """Advantage-weighted regression: maximum likelihood weighted by exp(A/β), no ratio (arXiv 1910.00177).

    −min(exp(A/β), ω)·log π. Whoever acted, the optimum is μ·exp(A/β) up to a factor, so it holds to the data by itself:
    leave the KL anchor out (`kl_coef=0`). With `gipo.learning.value_scale.Expectile` and one-step advantages
    (`data.estimator.lam=0`) it is the policy's part of IQL (arXiv 2110.06169).

    Args:
        beta: temperature β, in the unit of the advantages: of their standard deviation, which a batch is divided by.
        weight_max: ω, the largest weight; 20 in the paper.
    """

    needs_behaviour = False
    beta: float = 1.0
    weight_max: float = 20.0

    def __post_init__(self) -> None:
        require_positive(self, "beta", "weight_max")

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss per element, and what its gradient −u·∇x is multiplied by, as weight and contribution."""
        # u = min(exp(A/β), ω)
        weight = (advantage / self.beta).clamp(max=math.log(self.weight_max)).exp()
        weight = weight.expand_as(log_ratio)
        return Terms(-weight * log_ratio, weight, weight)
