"""GIPO whose width follows the age of each sample."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gipo.adaptive.drift import moments_after, no_moments, slope
from gipo.common.errors import UserError
from gipo.objective import Elements, Figures, Terms, masked_mean, require_bound, require_positive
from gipo.objectives import ContextObjective, by_sign, gaussian, weighted

PRIOR = 0.1  # σ₁ before ages that differ were seen, nats for each root of a version


@dataclass(frozen=True)
class AgeAwareGIPO(ContextObjective):
    """GIPO with a width for each age: −sg(w)·ρ·A, w = exp(−½x²/σ_k²), σ_k² = σ₀² + k·σ₁².

    Beyond arXiv 2603.03955. A policy that takes k steps of independent direction away from μ has log-ratios whose mean
    square grows as k: fresh data get a trust region as tight as PPO's, old data the width that they need.

    However the options are set, w·ρ ≤ exp(σ_k²/2) ≤ exp(`sigma_max`²/2): where a weight alone would not keep it, it is
    cut there. With this bound Hoeffding's inequality holds for a mean of gradients of mixed ages (`gipo-study theory`).

    Args:
        sigma_fresh: σ₀, the width of fresh data where A > 0, nats.
        sigma_age: σ₁, what each version adds to the squared width, nats; None measures it: the slope of x² on k, over
            all batches, those long ago counting less. `weight/sigma_age` logs it.
        sigma_max: largest width, nats.
        sigma_neg_ratio: width where A ≤ 0, as a share of that where A > 0.
        outward_only: w = 1 where the step leads back towards μ: A > 0 and x < 0, or A < 0 and x > 0.
        joint: one weight for all dimensions of a step, from their mean of x², in place of one for each.
        advantage_gain: g; σ_k² is multiplied by 1 + g·A², so that large advantages are damped less. Standardised ones
            are in units of their standard error already: it is the root of the critic's mean squared residual, and
            GAE's A is the residual of its target.
        probability_floor: p; x is measured as log((π + p)/(μ + p)), so that rare tokens, of probabilities well below p,
            are damped by (π − μ)/p, what their probability really changed by; 0 takes x itself. Needs tokens.
        log_ratio_bound: upper bound on log(w·ρ), nats; `sigma_max` keeps it at 2 by default.
    """

    sigma_fresh: float = 0.3
    sigma_age: float | None = None
    sigma_max: float = 2.0
    sigma_neg_ratio: float = 1.0
    outward_only: bool = False
    joint: bool = False
    advantage_gain: float = 0.0
    probability_floor: float = 0.0
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma_fresh", "sigma_max", "sigma_neg_ratio")
        require_bound(self.log_ratio_bound)
        if not self.sigma_fresh <= self.sigma_max:
            raise UserError(
                f"AgeAwareGIPO.sigma_fresh, {self.sigma_fresh}, must not be above sigma_max, {self.sigma_max}"
            )
        for name, most in (("sigma_age", math.inf), ("advantage_gain", math.inf), ("probability_floor", 1.0)):
            value = getattr(self, name)
            if value is not None and not (0 <= value <= most and math.isfinite(value)):
                limit = "finite and not negative" if most == math.inf else f"from 0 to {most:g}"
                raise UserError(f"AgeAwareGIPO.{name} must be {limit}, got {value}")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The age; with `probability_floor`, the probability too."""
        return frozenset({"age", "log_prob"} if self.probability_floor else {"age"})

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element; mean width, and σ₁."""
        variance, sigma_age = self._variance(seen)
        x, distance = seen.log_ratio.detach(), self._distance(seen)
        log_weight = gaussian(distance / variance.sqrt())
        if self.joint:
            count = seen.used.sum(-1, keepdim=True).clamp(min=1)
            log_weight = (log_weight * seen.used).sum(-1, keepdim=True) / count
        if self.outward_only:
            log_weight = torch.where(seen.advantage * x < 0, 0.0, log_weight)
        # log u = x + log w ≤ σ_k²/2, which the Gaussian of x itself never exceeds
        log_weight = torch.minimum(log_weight.expand_as(x), 0.5 * variance - x)
        figures = {"weight/sigma": masked_mean(variance.sqrt().expand_as(x), seen.used), "weight/sigma_age": sigma_age}
        return weighted(log_weight, seen.log_ratio, seen.advantage, self.log_ratio_bound), figures

    def _variance(self, seen: Elements) -> tuple[Tensor, Tensor]:
        """σ_k² of each element, and σ₁."""
        assert seen.age is not None  # which `masked_terms` has refused
        a = seen.advantage
        drift = a.new_tensor(self.sigma_age**2) if self.sigma_age is not None else self._measured(seen).to(a)
        # σ_k² = (σ₀² + k·σ₁²)·(1 + g·A²), at most σ_max²
        gain = 1 + self.advantage_gain * a**2 if self.advantage_gain else 1.0
        variance = (self.sigma_fresh**2 + seen.age * drift) * gain
        scale = by_sign(a, 1.0, self.sigma_neg_ratio) ** 2
        most = self.sigma_max**2
        return (variance.clamp(max=most) * scale).clamp(max=most), drift.sqrt()

    def _measured(self, seen: Elements) -> Tensor:
        return slope(no_moments() if seen.memory is None else seen.memory, PRIOR**2)

    def _distance(self, seen: Elements) -> Tensor:
        """How far the policy has moved at each element, nats: x, or less of it where the token is rare."""
        x, floor = seen.log_ratio.detach(), self.probability_floor
        if not floor:
            return x
        assert seen.log_prob is not None  # which `masked_terms` has refused
        log_mu, log_floor = seen.log_prob - x, x.new_tensor(math.log(floor))
        return torch.logaddexp(seen.log_prob, log_floor) - torch.logaddexp(log_mu, log_floor)

    def memory(self) -> Tensor | None:
        """Moments of x² and k over no data; None where σ₁ is given."""
        return no_moments() if self.sigma_age is None else None

    def remember(self, seen: Elements) -> Tensor | None:
        """Moments with those of this batch, x as far as `log_ratio_bound`: a few outliers would decide the slope."""
        if seen.memory is None or seen.age is None:
            return seen.memory
        x = seen.log_ratio.detach().clamp(-self.log_ratio_bound, self.log_ratio_bound)
        return moments_after(seen.memory, x**2, seen.age.expand_as(x), seen.used)
