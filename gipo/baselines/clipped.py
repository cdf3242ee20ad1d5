"""Clips of another kind than PPO's: of the inverse ratio, of the ratio to a nearer policy, of the change itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import (
    LARGEST,
    Elements,
    Figures,
    Objective,
    Terms,
    require_bound,
    require_positive,
)
from gipo.objectives import ContextObjective, PPOClip, by_sign, importance_ratio, ppo_dead, with_slope


@dataclass(frozen=True)
class ASPO(Objective):
    """Asymmetric importance sampling: where A > 0 the ratio is inverted, elsewhere PPO-Clip (arXiv 2510.06062).

    A plain −A/ρ would push a good action's probability down, because d(1/ρ)/dx = −1/ρ. So the inverse stands outside
    of the gradient: −A·(r/sg r)/sg r with r = min(ρ, 1+ε), and −A·sg(c)·log π where 1/ρ > c. Its authors' released
    code keeps −A·sg(c)·log π where A < 0 and ρ > c as well, where PPO's dual clip, as here, has no gradient.

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
class DecoupledPPO(ContextObjective):
    """PPO-Clip around a proximal policy one version back, −sg(π_prox/μ)·min(uA, clip(u, 1±ε)·A) (arXiv 2110.00641).

    u = π/π_prox. That paper, and arXiv 2505.24298, compute π_prox; here it is interpolated, as the latter's public
    trainer AReaL can (`loglinear`; arXiv 2512.06547): log π_prox = log μ + α·x with α = (k − 1)/k from the age k in
    versions, and α = 0 for fresh data. Then u = exp(x/k), and the gradient is that of ρ·A wherever |x| is within k
    times PPO's clip: a trust region that is as wide as its data are old, in nats. The trainer advises caution beyond
    ten versions: of a policy that drifts at random, by √k, this clip cuts ever less, and one around π_prox as much.

    Args:
        clip: ε.
        behaviour_cap: elements with π_prox/μ above it have no gradient; 5 in the configurations of the public trainer,
            None for no cap. (The authors of arXiv 2110.00641 clamp π/μ at 100 and keep its gradient.)
        log_ratio_bound: upper bound on x where ρ = exp(x) is taken, nats: of bad actions that became likelier.
    """

    clip: float = 0.2
    behaviour_cap: float | None = 5.0
    log_ratio_bound: float = 5.0
    needs: ClassVar[frozenset[str]] = frozenset({"age"})

    def __post_init__(self) -> None:
        require_positive(self, "clip", *(["behaviour_cap"] if self.behaviour_cap is not None else []))
        require_bound(self.log_ratio_bound)

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss, trust weight w and contribution w·ρ per element."""
        assert seen.age is not None  # which `masked_terms` has refused
        x, advantage, bound = seen.log_ratio, seen.advantage, self.log_ratio_bound
        log_u = x.detach() / seen.age.clamp(min=1)
        log_behaviour = x.detach() - log_u
        cut = ppo_dead(log_u, advantage, self.clip)
        # (π_prox/μ)·u is ρ where u is not clipped
        rho = importance_ratio(x, bound)
        clipped = log_behaviour.clamp(max=bound).exp() * by_sign(advantage, 1 + self.clip, 1 - self.clip)
        ratio = torch.where(cut, clipped, rho)
        if self.behaviour_cap is not None:
            capped = log_behaviour > math.log(self.behaviour_cap)
            ratio, cut = torch.where(capped, 0.0, ratio), cut | capped
        weight = (~cut).to(rho.dtype)
        return Terms(-ratio * advantage, weight, weight * rho.detach()), {}


def probability_change(log_pi: Tensor, log_mu: Tensor) -> Tensor:
    """|π − μ| of the token that was drawn: the total variation between the two as seen by it alone."""
    return (log_pi.exp() - log_mu.exp()).abs()


def binary_kl(log_pi: Tensor, log_mu: Tensor) -> Tensor:
    """μ·log(μ/π) + (1−μ)·log((1−μ)/(1−π)) of the token that was drawn: KL(μ‖π) of it against all others, nats."""
    pi, mu = log_pi.exp(), log_mu.exp()
    smallest = torch.finfo(log_pi.dtype).eps  # probabilities that float rounds to 1
    others = torch.log((1 - mu).clamp(min=smallest)) - torch.log((1 - pi).clamp(min=smallest))
    return (mu * (log_mu - log_pi) + (1 - mu) * others).clamp(min=0)


@dataclass(frozen=True)
class DPPO(ContextObjective):
    """Divergence PPO: masked where a probability has changed by more than δ and would change further.

    −sg(min(ρ, C))·A·log π where not masked (arXiv 2602.04879). Ratios say little of rare tokens: from .001 to .01 is
    ρ = 10 and a change of .009. A policy over many bins has mostly rare tokens, of which this masks few. δ and C are
    those of public implementations (δ = .2 in rllm, .15 in verl; .05 for binary KL; C = 20 in verl); the paper's own
    could not be verified.

    Args:
        delta: δ, of what `change` measures.
        change: of log π and log μ: `gipo.baselines.probability_change` or `gipo.baselines.binary_kl`.
        ratio_max: C ≥ 1.
    """

    delta: float = 0.2
    change: Callable = probability_change  # bare, because jsonargparse reads Callable[..., Tensor] as a class to build
    ratio_max: float = 20.0
    needs: ClassVar[frozenset[str]] = frozenset({"log_prob"})

    def __post_init__(self) -> None:
        require_positive(self, "delta")
        if not 1 <= self.ratio_max <= LARGEST:
            raise UserError(f"DPPO.ratio_max must lie in [1, {LARGEST:g}], got {self.ratio_max}")

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element."""
        assert seen.log_prob is not None  # which `masked_terms` has refused
        x = seen.log_ratio.detach()
        outward = seen.advantage * x > 0
        cut = outward & (self.change(seen.log_prob, seen.log_prob - x) > self.delta)
        log_u = x.clamp(max=math.log(self.ratio_max))
        contribution = torch.where(cut, 0.0, log_u.exp())
        loss = -with_slope(log_u.exp(), contribution, seen.log_ratio) * seen.advantage
        weight = torch.where(cut, 0.0, (log_u - x).exp())
        return Terms(loss, weight, contribution), {}
