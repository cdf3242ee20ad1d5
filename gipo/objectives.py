"""Policy objectives: pure functions from log-ratio and advantage to a loss and a trust weight per element.

Notation, with shapes that broadcast against each other (usually x: [B, D], A: [B, 1]):

    x = log ρ = log π_θ(a|s) − log μ(a|s)    log-ratio to the behaviour policy μ, nats, per action dimension
    A                                        advantage, shared by the dimensions of a transition
    w                                        trust weight; the gradient of every loss here is −w·ρ·A·∇x

Each objective is a frozen dataclass whose fields are its parameters, so that YAML names it by class path. Ratios
are taken at x clamped to ±`log_ratio_bound` with the gradient kept, in float32 when training: nothing overflows, and
no sample's gradient is cut by the clamp. The rest of the family, for comparison, is in `gipo.baselines`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gipo.errors import GipoError

MAX_LOG_RATIO_BOUND = 40.0  # exp(2·40) is still finite in float32
SMALLEST, LARGEST = 1e-6, 1e6  # widths and temperatures that stay neither 0 nor inf in float32


class Terms(NamedTuple):
    """Per element: loss to minimise, trust weight w, and contribution u = w·ρ, the size of the gradient −u·A·∇x."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor


Figures = dict[str, Tensor]  # scalars on their device, by the name under which they are logged


class Objective(ABC):
    """A policy objective: a pure function of log-ratio and advantage, its parameters as fields."""

    needs_entropy: ClassVar[bool] = False  # whether `on_batch` must be given the behaviour entropy

    needs_behaviour: ClassVar[bool] = True  # whether x must be a ratio to the policy that acted

    needs_whole_batch: ClassVar[bool] = False  # whether a transition is weighed by others, which ranks do not share

    @abstractmethod
    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Terms per element, from finite x and A of shapes that broadcast."""

    def on_batch(
        self, log_ratio: Tensor, advantage: Tensor, used: Tensor, entropy: Tensor | None = None
    ) -> tuple[Terms, Figures]:
        """Terms per element of a batch, and figures of it to log.

        To override where elements are not weighed one by one.

        Args:
            log_ratio: x, finite.
            advantage: A, finite.
            used: bool, of the shape of x; False where x = 0 and A = 0 stand for an element that is left out.
            entropy: of the behaviour policy as a fraction of its maximum log V, of the shape of x; None where unknown.
        """
        return self(log_ratio, advantage), {}


def attach_gradient(value: Tensor, log_ratio: Tensor) -> Tensor:
    """`value`, with d/dx = `value`: what exp(x) has, for an x that was clamped or fused into other factors."""
    value = value.detach()
    return value + value * (log_ratio - log_ratio.detach())


def importance_ratio(log_ratio: Tensor, bound: float) -> Tensor:
    """ρ = exp(x) at x clamped to ±`bound`, its gradient kept."""
    return attach_gradient(log_ratio.clamp(-bound, bound).exp(), log_ratio)


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

    max_x w·ρ = exp(σ²/2) for the Gaussian kernel: σ bounds each sample's update; σ → ∞ is No-Clip.

    Args:
        sigma: width σ₊ of the kernel where A > 0, nats.
        sigma_neg_ratio: σ₋/σ₊; σ₋ is the width where A ≤ 0.
        kernel: log-weight as a function of x/σ: `gaussian`, `laplacian` or `cauchy`.
        log_ratio_bound: clamp on |x|, nats.
    """

    sigma: float = 1.0
    sigma_neg_ratio: float = 1.0
    kernel: Callable = gaussian  # bare, because jsonargparse reads Callable[..., Tensor] as a class to build
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma", "sigma_neg_ratio")
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        sigma = by_sign(advantage, self.sigma, self.sigma * self.sigma_neg_ratio)
        x = log_ratio.detach().clamp(-self.log_ratio_bound, self.log_ratio_bound)
        return weighted(self.kernel(x / sigma), x, log_ratio, advantage)


def weighted(log_weight: Tensor, x: Tensor, log_ratio: Tensor, advantage: Tensor) -> Terms:
    """−sg(w)·ρ·A from log w and the clamped log-ratio x, with the gradient of the log-ratio itself."""
    # w·ρ = exp(x + log w): one exponential, which cannot overflow, instead of inf·0
    contribution = attach_gradient((x + log_weight).exp(), log_ratio)
    return Terms(-contribution * advantage, log_weight.exp(), contribution.detach())


@dataclass(frozen=True)
class NoClip(Objective):
    """Plain importance sampling: −ρ·A.

    Args:
        log_ratio_bound: clamp on |x|, nats.
    """

    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        rho = importance_ratio(log_ratio, self.log_ratio_bound)
        return Terms(-rho * advantage, torch.ones_like(rho), rho.detach())


@dataclass(frozen=True)
class PPOClip(Objective):
    """PPO: −min(ρA, clip(ρ, 1−ε, 1+ε)·A) (arXiv 1707.06347), optionally dual-clipped (arXiv 1912.09729).

    Args:
        clip: ε.
        dual_clip: c > 1 + ε bounds the loss where A < 0 at −cA; None leaves it unbounded.
        log_ratio_bound: clamp on |x|, nats.
    """

    clip: float = 0.2
    dual_clip: float | None = None
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "clip")
        require_bound(self.log_ratio_bound)
        if self.dual_clip is not None and not 1 + self.clip < self.dual_clip <= LARGEST:
            raise GipoError(
                f"PPOClip.dual_clip must lie in (1 + clip, {LARGEST:g}] = ({1 + self.clip:g}, {LARGEST:g}], "
                f"got {self.dual_clip}; None leaves it out"
            )

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        rho = importance_ratio(log_ratio, self.log_ratio_bound)
        # min(ρA, clip(ρ)·A)
        surrogate = torch.min(rho * advantage, rho.clamp(1 - self.clip, 1 + self.clip) * advantage)
        cut = ppo_dead(log_ratio.clamp(-self.log_ratio_bound, self.log_ratio_bound), advantage, self.clip)
        if self.dual_clip is not None:
            # A < 0: max(min(ρA, clip(ρ)·A), cA)
            surrogate = torch.where(advantage < 0, torch.max(surrogate, self.dual_clip * advantage), surrogate)
            cut = cut | ((advantage < 0) & (rho.detach() > self.dual_clip))
        weight = (~cut).to(rho.dtype)
        return Terms(-surrogate, weight, weight * rho.detach())


@dataclass(frozen=True)
class SAPO(Objective):
    """Soft Adaptive Policy Optimization: −(4/τ)·sigmoid(τ(ρ−1))·A (arXiv 2511.20347).

    Its gradient is −4p(1−p)·ρ·A·∇x with p = sigmoid(τ(ρ−1)), so w = 4p(1−p).

    Args:
        tau_pos: temperature τ where A > 0.
        tau_neg: temperature τ where A ≤ 0; the GIPO authors' baseline uses 2.
        log_ratio_bound: clamp on |x|, nats.
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "tau_pos", "tau_neg")
        require_bound(self.log_ratio_bound)

    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Loss and trust weight per element."""
        tau = by_sign(advantage, self.tau_pos, self.tau_neg)
        rho = importance_ratio(log_ratio, self.log_ratio_bound)
        p = torch.sigmoid(tau * (rho - 1))
        weight = (4 * p * (1 - p)).detach()
        return Terms(-(4 / tau) * p * advantage, weight, weight * rho.detach())


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


class PolicyLoss(NamedTuple):
    """Mean loss over the usable elements; trust weight, contribution and usability of each; figures of the batch."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor
    used: Tensor
    figures: Figures


def policy_loss(
    objective: Objective,
    log_ratio: Tensor,
    advantage: Tensor,
    valid: Tensor | None = None,
    entropy: Tensor | None = None,
) -> PolicyLoss:
    """Mean of `objective` over the elements that are valid and finite, in float32 under any autocast.

    Args:
        objective: per-element loss.
        log_ratio: x [B, D], nats; −inf, inf and NaN are masked, never averaged in.
        advantage: A [B].
        valid: [B] bool; False where the policy did not choose the action.
        entropy: behaviour entropy H(μ)/log V [B, D]; only for an objective that needs it.

    Raises:
        GipoError: the objective needs an entropy and there is none.
    """
    log_ratio, advantage = log_ratio.float(), advantage.float().unsqueeze(-1)
    used = torch.isfinite(log_ratio) & torch.isfinite(advantage)
    if valid is not None:
        used = used & valid.unsqueeze(-1)
    terms, figures = masked_terms(objective, log_ratio, advantage, used, entropy)
    return PolicyLoss(masked_mean(terms.loss, used), terms.weight, terms.contribution, used, figures)


def masked_terms(
    objective: Objective, log_ratio: Tensor, advantage: Tensor, used: Tensor, entropy: Tensor | None = None
) -> tuple[Terms, Figures]:
    """What `objective` says of a batch; no gradient, but finite figures, where not `used`. As `policy_loss`."""
    found = objective.on_batch(torch.where(used, log_ratio, 0.0), torch.where(used, advantage, 0.0), used, entropy)
    terms = found[0]
    if not (isinstance(terms, Terms) and all(part.shape == log_ratio.shape for part in terms)):
        path = f"{type(objective).__module__}.{type(objective).__qualname__}"
        raise GipoError(
            f"{path} must return Terms whose three tensors have the shape {[*log_ratio.shape]} of log_ratio"
        )
    return found


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 when nothing is left."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def k1(log_ratio: Tensor) -> Tensor:
    """KL(μ‖π) = E_μ[−x]: unbiased, can be negative sample by sample."""
    return -log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """½x²: biased, low variance."""
    return 0.5 * log_ratio**2


def k3(log_ratio: Tensor, bound: float = 5.0) -> Tensor:
    """eˣ − 1 − x, at x clamped to at most `bound` with the gradient kept: unbiased below it, never negative."""
    x = log_ratio.clamp(max=bound).detach() + (log_ratio - log_ratio.detach())
    # expm1: near x = 0 the difference eˣ − 1 − x would be lost to rounding
    return torch.expm1(x) - x


def ppo_dead(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Where PPO-Clip has no gradient: (ρ > 1+ε and A > 0) or (ρ < 1−ε and A < 0)."""
    high, low = math.log1p(clip), math.log1p(-clip) if clip < 1 else -math.inf
    return ((log_ratio > high) & (advantage > 0)) | ((log_ratio < low) & (advantage < 0))


def require_positive(objective: object, *names: str) -> None:
    """Refuse widths and temperatures that are not positive, or that float32 turns into 0 or infinity.

    Raises:
        GipoError: naming the field.
    """
    for name in names:
        value = getattr(objective, name)
        if not SMALLEST <= value <= LARGEST:
            raise GipoError(f"{type(objective).__name__}.{name} must lie in [{SMALLEST:g}, {LARGEST:g}], got {value}")


def require_bound(bound: float) -> None:
    """Refuse a clamp on |x| whose squared ratio could overflow.

    Raises:
        GipoError: naming the range.
    """
    if not 0 < bound <= MAX_LOG_RATIO_BOUND:
        raise GipoError(f"log_ratio_bound must lie in (0, {MAX_LOG_RATIO_BOUND}], got {bound}")
