"""GIPO whose width follows the data: σ is chosen on each batch so that a statistic of its trust weights meets a target.

Beyond arXiv 2603.03955, which names the tuning of σ as its limitation. A statistic says how far a width is from the
target; the width taken is the largest one on the right side of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import Elements, Figures, Terms, require_bound, require_positive
from gipo.objectives import ContextObjective, gaussian, log_contribution, weighted

POINTS = 24  # widths tried at once, twice: the second time between the two that enclose the answer
BLOCK = 1 << 22  # elements × widths in memory at once


def mean_weight(log_weight: Tensor, log_u: Tensor, used: Tensor, target: float) -> Tensor:
    """target − mean w [K]: not negative where the samples are trusted at most as much as the target says.

    The mean trust weight grows with σ, so that it equals the target at the largest such width.

    Args:
        log_weight: log w [K, N], of K widths.
        log_u: log-contributions log(w·ρ) [K, N], as the loss takes them.
        used: [N] bool.
        target: in (0, 1).
    """
    return target - (log_weight.exp() * used).sum(-1) / used.sum().clamp(min=1)


def effective_share(log_weight: Tensor, log_u: Tensor, used: Tensor, target: float) -> Tensor:
    """(Σu)²/(n·Σu²) − target [K] of u = w·ρ: not negative where at least that share of the samples is effective.

    Not monotone in σ: at least 1/n however narrow the kernel, and that of plain importance sampling for a wide one.

    Args:
        log_weight: log w [K, N], of K widths.
        log_u: log-contributions log(w·ρ) [K, N], as the loss takes them.
        used: [N] bool.
        target: in (0, 1).
    """
    if not used.numel():
        return log_weight.new_full((len(log_weight),), -target)
    log_u = torch.where(used, log_u, -torch.inf)
    # relative to the largest u, which cancels: nothing over- or underflows
    u = (log_u - log_u.amax(-1, keepdim=True).clamp(min=torch.finfo(log_u.dtype).min)).exp()
    return u.sum(-1) ** 2 / (used.sum() * (u**2).sum(-1)).clamp(min=1) - target


def largest_width(slack: Callable[[Tensor], Tensor], low: float, high: float, like: Tensor) -> Tensor:
    """The largest σ in [low, high] with slack(σ) ≥ 0; where there is none, the largest of those with the most slack.

    A grid in log σ, a finer one around what it found, then linear in log σ: within 1e-5 of σ for a smooth slack. One
    that rises above 0 and falls again between two widths of the first grid, a fifth apart, is not seen to. All on the
    device of `like`, without waiting for it.

    Args:
        slack: from widths [K] to slacks [K].
        low: smallest width, nats.
        high: largest width, nats.
        like: a tensor of the device and type to work in.
    """
    steps = torch.linspace(0, 1, POINTS, device=like.device, dtype=like.dtype)
    first, last = steps.new_full((1,), math.log(low)), steps.new_full((1,), math.log(high))
    index = torch.arange(POINTS, device=like.device)
    for _ in range(2):
        grid = torch.lerp(first, last, steps)
        found = slack(grid.exp())
        met = (found >= 0).any()
        best = torch.where(met, found >= 0, found == found.max())
        at = torch.where(best, index, 0).amax(0, keepdim=True)
        before, after = torch.where(met, at, (at - 1).clamp(min=0)), (at + 1).clamp(max=POINTS - 1)
        inside, outside = found.gather(0, at), found.gather(0, after)
        # the root of the line between the last width that meets the target and the next, which does not
        share = torch.where(met & (outside < 0), inside / (inside - outside), 0.0)
        root = torch.lerp(grid.gather(0, at), grid.gather(0, after), share)
        first, last = grid.gather(0, before), grid.gather(0, after)
    return root.squeeze(0).exp().clamp(low, high)


@dataclass(frozen=True)
class AdaptiveGIPO(ContextObjective):
    """GIPO with σ chosen on each batch: the largest width at which `statistic` meets `target`.

    A batch whose every element is on policy, or that has none, says nothing of σ and gets `sigma_max`.

    Args:
        target: what the statistic is to reach, in (0, 1).
        statistic: `gipo.adaptive.mean_weight`, the mean trust weight, or `gipo.adaptive.effective_share`, the effective
            sample size as a share of the samples.
        sigma_min: smallest σ, nats.
        sigma_max: largest σ, nats.
        sigma_neg_ratio: σ₋/σ₊; σ₋ is the width where A ≤ 0.
        kernel: log-weight as a function of x/σ: `gaussian`, `laplacian` or `cauchy` of `gipo.objectives`.
        log_ratio_bound: upper bound on log(w·ρ), nats.
    """

    target: float = 0.5
    statistic: Callable = mean_weight  # bare, as the kernel of GIPO
    sigma_min: float = 0.05
    sigma_max: float = 5.0
    sigma_neg_ratio: float = 1.0
    kernel: Callable = gaussian
    log_ratio_bound: float = 5.0
    needs_whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(self, "sigma_min", "sigma_max", "sigma_neg_ratio")
        require_bound(self.log_ratio_bound)
        if not 0 < self.target < 1:
            raise UserError(f"AdaptiveGIPO.target must lie in (0, 1), got {self.target}")
        if not self.sigma_min < self.sigma_max:
            raise UserError(f"AdaptiveGIPO.sigma_min, {self.sigma_min}, must be below sigma_max, {self.sigma_max}")

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element, and the σ₊ they were made with."""
        log_ratio, advantage, used, *_ = seen
        x = log_ratio.detach()
        # z = x/σ₊ where A > 0 and x/σ₋ elsewhere: σ₊ is what is left to find
        scaled = x / torch.where(advantage > 0, 1.0, self.sigma_neg_ratio)
        sigma = self._sigma(scaled.flatten(), x.expand_as(scaled).flatten(), used.expand_as(scaled).flatten())
        terms = weighted(self.kernel(scaled / sigma), log_ratio, advantage, self.log_ratio_bound)
        return terms, {"weight/sigma": sigma}

    def _sigma(self, scaled: Tensor, x: Tensor, used: Tensor) -> Tensor:
        at_once = max(1, BLOCK // max(1, x.numel()))

        def slack(sigmas: Tensor) -> Tensor:
            found = []
            for some in sigmas.split(at_once):
                log_weight = self.kernel(scaled / some.unsqueeze(-1))
                log_u = log_contribution(log_weight, x, self.log_ratio_bound)
                found.append(self.statistic(log_weight, log_u, used, self.target))
            return torch.cat(found)

        return largest_width(slack, self.sigma_min, self.sigma_max, x)
