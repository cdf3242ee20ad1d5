"""Groups of action dimensions by how sure the policy was that acted."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import Elements, Figures, Terms, require_bound, require_positive
from gipo.objectives import ContextObjective, attach_gradient


@dataclass(frozen=True)
class ESPO(ContextObjective):
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
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __post_init__(self) -> None:
        require_positive(self, "alpha")
        require_bound(self.log_ratio_bound)
        if self.groups < 1:
            raise UserError(f"ESPO.groups must be at least 1, got {self.groups}")

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element, from H/log V of the behaviour policy."""
        log_ratio, advantage, used, _, entropy, *_ = seen
        assert entropy is not None  # which `masked_terms` has refused
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
        terms = Terms(-clipped * advantage, torch.where(cut, 0.0, weight), torch.where(cut, 0.0, ratio.detach()))
        return terms, {}


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
