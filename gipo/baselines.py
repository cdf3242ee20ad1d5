"""The rest of the family, to compare with: objectives of the same form as those of `gipo.objectives`.

Only their gradients are comparable: where a source writes A·log π, the loss here has the same gradient and the value
of the factor before log π, because the log-ratio is all an objective sees.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import LARGEST, Figures, Objective, Terms, require_bound, require_positive
from gipo.objectives import PPOClip, attach_gradient, with_slope


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
        require_bound(self.log_ratio_bound)
        if not 1 <= self.ratio_max <= LARGEST:
            raise UserError(f"CISPO.ratio_max must lie in [1, {LARGEST:g}], got {self.ratio_max}")
        if not 0 <= self.ratio_min <= 1:
            raise UserError(f"CISPO.ratio_min must lie in [0, 1], got {self.ratio_min}")

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        low = math.log(self.ratio_min) if self.ratio_min else -math.inf
        log_u = log_ratio.detach().clamp(low, math.log(self.ratio_max))
        contribution = log_u.exp()
        weight = (log_u - log_ratio.detach().clamp(min=-self.log_ratio_bound)).exp()
        return Terms(-attach_gradient(contribution, log_ratio) * advantage, weight, contribution)


@dataclass(frozen=True)
class ASPO(Objective):
    """Asymmetric importance sampling: where A > 0 the ratio is inverted, elsewhere PPO-Clip (arXiv 2510.06062).

    A plain −A/ρ would push a good action's probability down, because d(1/ρ)/dx = −1/ρ. So the inverse stands outside
    of the gradient: −A·(r/sg r)/sg r with r = min(ρ, 1+ε), and −A·sg(c)·log π where 1/ρ > c.

    Args:
        clip: ε; the paper has .2 at low and .4 at high entropy.
        dual_clip: c > 1 + ε bounds 1/ρ where A > 0, and the loss at −cA where A < 0.
        log_ratio_bound: the weight of a good action is reported as at x = −`log_ratio_bound` where x is less, nats.
    """

    clip: float = 0.2
    dual_clip: float = 3.0
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "clip")
        require_bound(self.log_ratio_bound)
        if not 1 + self.clip < self.dual_clip <= LARGEST:
            raise UserError(
                f"ASPO.dual_clip must lie in (1 + clip, {LARGEST:g}] = ({1 + self.clip:g}, {LARGEST:g}], "
                f"got {self.dual_clip}"
            )

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element; the weight of a good action is 1/ρ², above 1 where ρ < 1."""
        ppo = PPOClip(self.clip, self.dual_clip, self.log_ratio_bound)(log_ratio, advantage)
        x = log_ratio.detach()
        # A > 0: u = min(1/ρ, c) where ρ ≤ 1+ε, and 0 above
        inverse = (-x).clamp(max=math.log(self.dual_clip)).exp()
        contribution = torch.where(x > math.log1p(self.clip), 0.0, inverse)
        # its loss has the value −A·min(1/r, c) and the gradient −u·A·∇x
        loss = -with_slope(inverse.clamp(min=1 / (1 + self.clip)), contribution, log_ratio) * advantage
        good = advantage > 0
        return Terms(
            torch.where(good, loss, ppo.loss),
            torch.where(good, contribution * (-x.clamp(min=-self.log_ratio_bound)).exp(), ppo.weight),
            torch.where(good, contribution, ppo.contribution),
        )


@dataclass(frozen=True)
class ESPO(Objective):
    """Entropy importance sampling: dimensions grouped by behaviour entropy share ratio and clip (arXiv 2512.00499).

    With τ a group of one transition's action dimensions, of similar behaviour entropy H:

        s_τ = exp(mean of x over τ)        r = sg(s_τ)·π_θ/sg(μ)        ε_τ = α·(mean of H over τ)/log V

    and the loss is PPO-Clip of r within 1 ± ε_τ (eq. 8–9). At the sample r = s_τ·ρ, so that a dimension alone in its
    group weighs ρ². The number of groups is not printed there. Needs `data.store_params=true`, which tells the
    behaviour entropy, and a policy over tokens.

    Args:
        alpha: α.
        groups: groups a transition's dimensions are split into, of equal size up to rounding, by rank of entropy.
        log_ratio_bound: upper bound on log s_τ and on log r, nats: of bad actions that became likelier.
    """

    alpha: float = 0.02
    groups: int = 2
    log_ratio_bound: float = 5.0
    needs_entropy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(self, "alpha")
        require_bound(self.log_ratio_bound)
        if self.groups < 1:
            raise UserError(f"ESPO.groups must be at least 1, got {self.groups}")

    def __call__(
        self, log_ratio: Tensor, advantage: Tensor, entropy: Tensor | None = None, used: Tensor | None = None
    ) -> Terms:
        """Loss and trust weight per element, from H/log V [B, D] of the behaviour policy; `used` [B, D] bool."""
        if entropy is None:
            raise UserError("ESPO needs the behaviour entropy of each action dimension: set data.store_params=true")
        used = torch.ones_like(log_ratio, dtype=torch.bool) if used is None else used
        group = entropy_groups(entropy, self.groups, used)
        log_s = group_mean(log_ratio.detach(), group, self.groups, used)
        # log r = log s_τ + x
        log_r = log_s + log_ratio.detach()
        clip = self.alpha * group_mean(entropy, group, self.groups, used)
        # min(rA, clip(r, 1−ε_τ, 1+ε_τ)·A) is clip(r)·A where it is dead, and rA elsewhere
        high, low = log_r > torch.log1p(clip), log_r < torch.log1p(-clip)
        cut = (high & (advantage > 0)) | (low & (advantage < 0))
        ratio = attach_gradient(log_r.clamp(max=self.log_ratio_bound).exp(), log_ratio)
        clipped = torch.where(cut, torch.where(advantage > 0, 1 + clip, 1 - clip), ratio)
        weight = log_s.clamp(max=self.log_ratio_bound).exp()
        return Terms(-clipped * advantage, torch.where(cut, 0.0, weight), torch.where(cut, 0.0, ratio.detach()))

    def on_batch(
        self, log_ratio: Tensor, advantage: Tensor, used: Tensor, entropy: Tensor | None = None
    ) -> tuple[Terms, Figures]:
        """Loss and trust weight per element, of the elements that count."""
        return self(log_ratio, advantage, entropy, used), {}


def entropy_groups(entropy: Tensor, groups: int, used: Tensor) -> Tensor:
    """Group index [B, D] of each dimension: its rank by entropy among the `used` ones of its row, in equal parts."""
    rank = torch.where(used, entropy, torch.inf).argsort(dim=-1, stable=True).argsort(-1)
    count = used.sum(-1, keepdim=True).clamp(min=1)
    return (rank * groups // count).clamp(max=groups - 1)  # only unused dimensions rank beyond the count


def group_mean(values: Tensor, group: Tensor, groups: int, used: Tensor) -> Tensor:
    """Mean of `values` [B, D] over the `used` dimensions of each one's group, [B, D]; 0 where there are none."""
    empty = values.new_zeros(*values.shape[:-1], groups)
    sums = empty.scatter_add(-1, group, torch.where(used, values, 0.0))
    counts = empty.scatter_add(-1, group, used.to(values.dtype)).clamp(min=1)
    return (sums / counts).gather(-1, group)
