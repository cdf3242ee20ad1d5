"""Policy objectives: pure functions from log-ratio and advantage to a loss and a trust weight per element.

Each is a frozen dataclass whose fields are its parameters, so that YAML names it by class path; the notation is that of
`gipo.objective`. Weights are functions of x itself; only the exponent of what the gradient is multiplied by,
log u = x + log w, is cut at `log_ratio_bound`, and from above alone: nothing overflows, no sample's gradient is lost to
the cut, and a contribution that falls off goes on falling. Float32 when training. The rest of the family, for
comparison, is in `gipo.baselines`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gipo.common.errors import UserError
from gipo.objective import (
    LARGEST,
    MAX_LOG_RATIO_BOUND,
    Elements,
    Figures,
    Objective,
    PolicyLoss,
    Terms,
    blanked,
    first_memory,
    masked_mean,
    masked_terms,
    policy_loss,
    require_bound,
    require_positive,
)

__all__ = [  # the contract too, from which a user's own objective starts
    "GIPO", "LARGEST", "MAX_LOG_RATIO_BOUND", "SAPO", "BehaviourCloning", "ContextObjective", "Elements", "Figures",
    "NoClip", "Objective", "PPOClip", "PolicyLoss", "Terms", "attach_gradient", "blanked", "by_sign", "cauchy",
    "gaussian", "importance_ratio", "k1", "k2", "k3", "laplacian", "log_contribution", "masked_mean", "masked_terms",
    "policy_loss", "ppo_dead", "require_bound", "require_positive", "weighted", "with_slope",
]  # fmt: skip


def with_slope(value: Tensor, slope: Tensor, log_ratio: Tensor) -> Tensor:
    """`value`, with d/dx = `slope`, both taken as constants."""
    return value.detach() + slope.detach() * (log_ratio - log_ratio.detach())


def attach_gradient(value: Tensor, log_ratio: Tensor) -> Tensor:
    """`value`, with d/dx = `value`: what exp(x) has, for an x that was cut or fused into other factors."""
    return with_slope(value, value, log_ratio)


def importance_ratio(log_ratio: Tensor, bound: float) -> Tensor:
    """ρ = exp(x), at most exp(`bound`), its gradient kept."""
    return attach_gradient(log_ratio.clamp(max=bound).exp(), log_ratio)


def by_sign(advantage: Tensor, positive: float, other: float) -> Tensor:
    """`positive` where A > 0 and `other` elsewhere, in A's precision."""
    return torch.where(advantage > 0, advantage.new_full((), positive), other)


def gaussian(z: Tensor) -> Tensor:
    """log w = −½z², z = x/σ (arXiv 2603.03955)."""
    return -0.5 * z**2


def laplacian(z: Tensor) -> Tensor:
    """log w = −|z| (the GIPO authors' script)."""
    return -z.abs()


def cauchy(z: Tensor) -> Tensor:
    """log w = −log(1 + z²) (the GIPO authors' script)."""
    return -torch.log1p(z**2)


@dataclass(frozen=True)
class GIPO(Objective):
    """Gaussian Importance-sampling Policy Optimization: −sg(w)·ρ·A, w = kernel(x/σ) (arXiv 2603.03955).

    max_x w·ρ = exp(σ²/2) for the Gaussian kernel, at x = σ²: σ bounds each sample's update; σ → ∞ is No-Clip. With the
    other kernels w·ρ grows without end (the Laplacian for σ > 1, the Cauchy always), and `log_ratio_bound` ends it.

    Args:
        sigma: width σ₊ of the kernel where A > 0, nats.
        sigma_neg_ratio: σ₋/σ₊; σ₋ is the width where A ≤ 0.
        kernel: log-weight as a function of x/σ: `gipo.objectives.gaussian`, `.laplacian` or `.cauchy`.
        log_ratio_bound: upper bound on log(w·ρ), nats; the Gaussian reaches it where σ²/2 is more.
    """

    sigma: float = 1.0
    sigma_neg_ratio: float = 1.0
    kernel: Callable = gaussian  # bare, because jsonargparse reads Callable[..., Tensor] as a class to build
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma", "sigma_neg_ratio")
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss, trust weight w and contribution w·ρ per element."""
        sigma = by_sign(advantage, self.sigma, self.sigma * self.sigma_neg_ratio)
        log_weight = self.kernel(log_ratio.detach() / sigma)
        return weighted(log_weight, log_ratio, advantage, self.log_ratio_bound)


def weighted(log_weight: Tensor, log_ratio: Tensor, advantage: Tensor, bound: float) -> Terms:
    """−sg(w)·ρ·A from log w and x, with w·ρ at most exp(`bound`)."""
    contribution = attach_gradient(log_contribution(log_weight, log_ratio, bound).exp(), log_ratio)
    return Terms(-contribution * advantage, log_weight.exp(), contribution.detach())


def log_contribution(log_weight: Tensor, log_ratio: Tensor, bound: float) -> Tensor:
    """log(w·ρ), at most `bound`: one exponent, which cannot overflow, in place of w·ρ = 0·inf."""
    # log u = min(x + log w, bound)
    return (log_ratio.detach() + log_weight).clamp(max=bound)


@dataclass(frozen=True)
class NoClip(Objective):
    """Plain importance sampling: −ρ·A, of ratios that are truncated at exp(`log_ratio_bound`).

    Args:
        log_ratio_bound: upper bound on x where ρ = exp(x) is taken, nats; the weight stays 1, the gradient is cut.
    """

    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss, trust weight w and contribution w·ρ per element."""
        rho = importance_ratio(log_ratio, self.log_ratio_bound)
        return Terms(-rho * advantage, torch.ones_like(rho), rho.detach())


@dataclass(frozen=True)
class PPOClip(Objective):
    """PPO: −min(ρA, clip(ρ, 1−ε, 1+ε)·A) (arXiv 1707.06347), optionally dual-clipped (arXiv 1912.09729).

    Args:
        clip: ε.
        dual_clip: c > 1 + ε bounds the loss where A < 0 at −cA; None leaves it unbounded.
        log_ratio_bound: upper bound on x where ρ = exp(x) is taken, nats: of bad actions that became likelier.
    """

    clip: float = 0.2
    dual_clip: float | None = None
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "clip")
        require_bound(self.log_ratio_bound)
        if self.dual_clip is not None and not 1 + self.clip < self.dual_clip <= LARGEST:
            raise UserError(
                f"PPOClip.dual_clip must lie in (1 + clip, {LARGEST:g}] = ({1 + self.clip:g}, {LARGEST:g}], "
                f"got {self.dual_clip}; None leaves it out"
            )

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss, trust weight w and contribution w·ρ per element."""
        rho = importance_ratio(log_ratio, self.log_ratio_bound)
        # min(ρA, clip(ρ)·A) is clip(ρ)·A where PPO is dead, and ρA elsewhere
        cut = ppo_dead(log_ratio, advantage, self.clip)
        ratio = torch.where(cut, by_sign(advantage, 1 + self.clip, 1 - self.clip), rho)
        if self.dual_clip is not None:
            # A < 0: max(min(ρA, clip(ρ)·A), cA)
            beyond = (advantage < 0) & (log_ratio > math.log(self.dual_clip))
            ratio, cut = torch.where(beyond, self.dual_clip, ratio), cut | beyond
        weight = (~cut).to(rho.dtype)
        return Terms(-ratio * advantage, weight, weight * rho.detach())


@dataclass(frozen=True)
class SAPO(Objective):
    """Soft Adaptive Policy Optimization: −(4/τ)·sigmoid(τ(ρ−1))·A (arXiv 2511.20347).

    Its gradient is −4p(1−p)·ρ·A·∇x with p = sigmoid(τ(ρ−1)), so w = 4p(1−p).

    Args:
        tau_pos: temperature τ where A > 0.
        tau_neg: temperature τ where A ≤ 0; 1.05 is that of the paper, the GIPO authors' baseline uses 2.
        log_ratio_bound: upper bound on log(w·ρ), nats; only temperatures below .01 come near it.
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "tau_pos", "tau_neg")
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss, trust weight w and contribution w·ρ per element."""
        tau = by_sign(advantage, self.tau_pos, self.tau_neg)
        z = tau * torch.expm1(log_ratio.detach().clamp(max=MAX_LOG_RATIO_BOUND))
        # log 4p(1−p), with 1 − p = sigmoid(−z), which float32 rounds to 0 where p is near 1
        log_weight = math.log(4) + functional.logsigmoid(z) + functional.logsigmoid(-z)
        contribution = log_contribution(log_weight, log_ratio, self.log_ratio_bound).exp()
        value = with_slope((4 / tau) * torch.sigmoid(z), contribution, log_ratio)
        return Terms(-value * advantage, log_weight.exp(), contribution)


@dataclass(frozen=True)
class BehaviourCloning(Objective):
    """Maximum likelihood of the data's actions: −x, which differs from −log π by what no gradient sees.

    It reads neither advantages nor behaviour log-probs, so it learns from demonstrations; leave the KL anchor out
    (`kl_coef=0`), which would hold the policy to a ratio that has no meaning here.
    """

    needs_behaviour = False

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss per element; every one counts the same."""
        one = torch.ones_like(log_ratio * advantage)
        return Terms(-log_ratio * one, one, one)


class ContextObjective(Objective):
    """An objective that sees more of an element than its log-ratio and advantage."""

    def __call__(self, log_ratio: Tensor, advantage: Tensor, **known: Any) -> Terms:
        """Terms per element of a batch of which every element counts; `known` are further fields of `Elements`.

        Without `memory` it is that before the first batch.
        """
        known = {"used": torch.ones_like(log_ratio, dtype=torch.bool)} | known
        if known.get("memory") is None:
            known["memory"] = first_memory(self, log_ratio.device)
        return masked_terms(self, Elements(log_ratio, advantage, **known))[0]

    @abstractmethod
    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Terms per element of a batch, of the shape of x, and figures of it to log."""


def k1(log_ratio: Tensor) -> Tensor:
    """−x, whose mean over samples of μ is KL(μ‖π) of a dimension: unbiased, negative for single samples."""
    return -log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """½x²: of low variance, biased: it is KL(μ‖π) up to terms of third order in x, which old data make large."""
    return 0.5 * log_ratio**2


def k3(log_ratio: Tensor, bound: float = 5.0) -> Tensor:
    """eˣ − 1 − x, never negative; x is cut at `bound`, with its gradient kept.

    Its mean over samples of μ is KL(μ‖π) of a dimension where π has no mass that μ lacks and no x is beyond the bound;
    where some are, it is too small.
    """
    x = log_ratio.clamp(max=bound).detach() + (log_ratio - log_ratio.detach())
    # expm1: near x = 0 the difference eˣ − 1 − x would be lost to rounding
    return torch.expm1(x) - x


def ppo_dead(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Where PPO-Clip has no gradient: (ρ > 1+ε and A > 0) or (ρ < 1−ε and A < 0)."""
    high, low = math.log1p(clip), math.log1p(-clip) if clip < 1 else -math.inf
    return ((log_ratio > high) & (advantage > 0)) | ((log_ratio < low) & (advantage < 0))
