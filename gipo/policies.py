"""Policies: distributions over actions, written once for the collector, the loss, the export and the audit."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gipo.common.errors import UserError
from gipo.networks import OBSERVATION_FLOOR, SameEverywhere, SeparateNetworks
from gipo.policy import NetworkFactory, Policy, PolicyFactory, Spaces, build

__all__ = [
    "GaussianPolicy", "MixturePolicy", "NetworkFactory", "OrdinalPolicy", "Policy", "PolicyFactory", "Spaces",
    "TokenPolicy", "build",
]  # fmt: skip

ALMOST_ONE = 0.999  # atanh of it is 3.8, two standard deviations beyond the softly bounded mean
LOCATION_MAX = 1.25  # of a mixture's components, in half ranges: beyond the bounds, where an outermost bin is certain


class TokenPolicy(Policy):
    """A categorical over `bins` uniform bins per action dimension; token k ↦ low + k·(high − low)/(bins − 1).

    Args:
        spaces: what the policy is built for.
        bins: V, bins per action dimension; an odd number has one in the middle of the bounds.
        network: builds the network body.
        normalise: standardise observations by running moments that are part of the policy.
        observation_floor: least standard deviation that an observation is divided by, in its own unit. Lower it for
            observations whose unit is large (kilometres), raise it for a small one; weights that are read from a
            checkpoint keep the floor that they were learned with.
    """

    noise_kind = "uniform"
    latent_dtype = torch.int64

    def __init__(
        self,
        spaces: Spaces,
        bins: int = 33,
        network: NetworkFactory = SeparateNetworks,
        normalise: bool = True,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        if bins < 2:
            raise UserError(f"policy.bins must be at least 2, got {bins}")
        super().__init__(spaces, bins, network, normalise, observation_floor)
        self.bins = bins

    @property
    def max_entropy(self) -> float:
        """Log V, the entropy of the uniform distribution over tokens, nats."""
        return math.log(self.bins)

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        return {"bins": self.bins, "normalise": self.normalise}

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Inverse CDF: the first token whose cumulative probability exceeds the uniform noise."""
        cdf = params.softmax(-1).cumsum(-1)
        # Scaled by the rounded total, and kept below it: so the chosen token always has mass of its own.
        threshold = noise.clamp(max=1 - 2**-22).unsqueeze(-1) * cdf[..., -1:]
        return (cdf <= threshold).sum(-1)

    def mode(self, params: Tensor) -> Tensor:
        """The most likely token of each dimension, [..., D]."""
        return params.argmax(-1)

    def log_prob(self, params: Tensor, latent: Tensor) -> Tensor:
        """log softmax(logits)[token] of each dimension, nats."""
        return params.log_softmax(-1).gather(-1, latent.unsqueeze(-1)).squeeze(-1)

    def to_env(self, latent: Tensor) -> Tensor:
        """The action of each token, [..., D] in environment units: bins lie evenly from bound to bound."""
        return self._within_bounds(latent.to(self.action_low.dtype) / (self.bins - 1))

    def from_env(self, action: Tensor) -> Tensor:
        """The token [..., D] whose action is nearest to `action` [..., D]."""
        return (self._fraction(action) * (self.bins - 1)).round().to(self.latent_dtype)

    def entropy(self, params: Tensor) -> Tensor:
        """−Σ π(k)·log π(k) of each dimension, nats."""
        log_pi = params.log_softmax(-1)
        return -(log_pi.exp() * log_pi).sum(-1)

    def kl(self, behaviour: Tensor, params: Tensor) -> Tensor:
        """Σ μ(k)·(log μ(k) − log π(k)) of each dimension, nats."""
        log_mu = behaviour.float().log_softmax(-1)
        return (log_mu.exp() * (log_mu - params.log_softmax(-1))).sum(-1)


class OrdinalPolicy(TokenPolicy):
    """A `TokenPolicy` whose bins know their order: what speaks for one speaks for its neighbours (arXiv 1901.10500)."""

    def _constrain(self, outputs: Tensor) -> Tensor:
        # logit_k = Σ_{j≤k} log σ(s_j) + Σ_{j>k} log(1 − σ(s_j)); as log σ(s) − log(1 − σ(s)) = s, that is
        # logit_k = Σ_{j≤k} s_j and a constant: the one that makes it log π(k), near 0 where half precision counts
        return outputs.cumsum(-1).log_softmax(-1)


class MixturePolicy(TokenPolicy):
    """A `TokenPolicy` whose bins have the masses of a mixture of logistic distributions (arXiv 1701.05517, 2.1).

    The outermost bins have all that is beyond them. Locations and scales are in half ranges of the action: its bounds
    are −1 and 1.

    Args:
        spaces: what the policy is built for.
        components: K, logistic distributions in the mixture.
        scale_min: floor of their scales; a scale s is a standard deviation of 1.8·s.
        scale_max: ceiling of their scales.
        options: of `TokenPolicy`.
    """

    start: Tensor
    edges: Tensor

    def __init__(
        self, spaces: Spaces, *, components: int = 3, scale_min: float = 0.02, scale_max: float = 0.5, **options: Any
    ):
        if components < 1 or not 0 < scale_min < scale_max < math.inf:
            given = f"components={components}, scale_min={scale_min}, scale_max={scale_max}"
            raise UserError(f"policy needs components >= 1 and 0 < scale_min < scale_max < inf, got {given}")
        self.components = components  # before the network is built, which needs it
        super().__init__(spaces, **options)
        self.scale_min, self.scale_max = scale_min, scale_max
        # Components that start at one place would learn the same for long.
        self.register_buffer("start", torch.linspace(-0.7, 0.7, components), persistent=False)
        inner = torch.arange(1, self.bins, dtype=torch.float64)
        self.register_buffer("edges", ((2 * inner - 1) / (self.bins - 1) - 1).float(), persistent=False)

    @property
    def outputs_per_dimension(self) -> int:
        """Weight, location and scale of each component: 3K."""
        return 3 * self.components

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        return super().config() | {name: getattr(self, name) for name in ("components", "scale_min", "scale_max")}

    def _constrain(self, outputs: Tensor) -> Tensor:
        weight, location, raw = outputs.unflatten(-1, (3, self.components)).unsqueeze(-1).unbind(-3)
        location = LOCATION_MAX * torch.tanh(location + self.start.unsqueeze(-1))
        log_scale = _between(math.log(self.scale_min), math.log(self.scale_max), raw, 1.0)
        rate = torch.exp(-log_scale)
        z = (self.edges - location) * rate  # [..., D, K, V − 1]
        below = -functional.softplus(-z)  # log σ(z), of what lies below an edge
        above = below - z  # log σ(−z)
        # σ(b) − σ(a) = σ(b)·σ(−a)·(1 − eᵃ⁻ᵇ), which loses no digits
        width = torch.log(-torch.expm1(-2 / (self.bins - 1) * rate))
        inner = below[..., 1:] + above[..., :-1] + width
        masses = torch.cat((below[..., :1], inner, above[..., -1:]), -1) + weight.log_softmax(-2)
        # log Σ_k w_k·mass_k
        peak = masses.amax(-2, keepdim=True).detach()
        return ((masses - peak).exp().sum(-2, keepdim=True).log() + peak).squeeze(-2)


class GaussianPolicy(Policy):
    """A diagonal Gaussian whose latent is squashed (tanh) or clipped into the action bounds.

    Means are bounded softly and the scale has a floor and a ceiling, so that log-ratios stay of order one:
    a free log-std diverges under reuse of stale data.

    Args:
        spaces: what the policy is built for.
        squash: True for tanh, False for clipping to [−1, 1] before scaling to the bounds.
        std_min: floor of the standard deviation, latent units.
        std_max: ceiling of the standard deviation, latent units.
        mean_max: soft bound of |mean|, latent units.
        std_start: standard deviation to start with; null for one near the ceiling, where exploration is.
        state_free_std: learn one standard deviation for each action dimension, whatever is observed.
        network: builds the network body.
        normalise: standardise observations by running moments that are part of the policy.
        observation_floor: least standard deviation that an observation is divided by, as of `TokenPolicy`.
    """

    noise_kind = "normal"
    latent_dtype = torch.float32

    def __init__(
        self,
        spaces: Spaces,
        squash: bool = True,
        std_min: float = 0.1,
        std_max: float = 1.0,
        mean_max: float = 2.0,
        std_start: float | None = None,
        state_free_std: bool = False,
        network: NetworkFactory = SeparateNetworks,
        normalise: bool = True,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        if not 0 < std_min < std_max < math.inf:
            raise UserError(f"policy needs 0 < std_min < std_max < inf, got std_min={std_min}, std_max={std_max}")
        if not 0 < mean_max < math.inf:
            raise UserError(f"policy.mean_max must be positive and finite, got {mean_max}")
        if std_start is not None and not std_min < std_start < std_max:
            raise UserError(
                f"policy.std_start must lie between std_min={std_min} and std_max={std_max}, got {std_start}"
            )
        self.state_free_std = state_free_std  # before the network is built, which needs it
        super().__init__(spaces, 2, network, normalise, observation_floor)
        self.squash, self.std_min, self.std_max, self.mean_max = squash, std_min, std_max, mean_max
        self.std_start = std_start
        self.same_everywhere = SameEverywhere(spaces.decision) if state_free_std else None

    @property
    def outputs_per_dimension(self) -> int:
        """The mean, and the raw log-std where it depends on what is observed."""
        return 1 if self.state_free_std else 2

    def actor_parameters(self) -> list[nn.Parameter]:
        """The parameters that the policy loss moves: encoder, actor, and a log-std that is free of the state."""
        own = () if self.same_everywhere is None else self.same_everywhere.parameters()
        return [*super().actor_parameters(), *own]

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        names = ("squash", "std_min", "std_max", "mean_max", "std_start", "state_free_std", "normalise")
        return {name: getattr(self, name) for name in names}

    def _constrain(self, outputs: Tensor) -> Tensor:
        mean = self.mean_max * torch.tanh(outputs[..., 0] / self.mean_max)
        raw = outputs[..., 1] if self.same_everywhere is None else self.same_everywhere(mean)
        log_std = _between(math.log(self.std_min), math.log(self.std_max), raw, self._raw_start)
        return torch.stack((mean, log_std), -1)

    @property
    def _raw_start(self) -> float:
        if self.std_start is None:
            return 1.0
        share = math.log(self.std_start / self.std_min) / math.log(self.std_max / self.std_min)
        return math.log(share / (1 - share))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """The latent mean + std·noise, [..., D] before squashing."""
        mean, log_std = params.unbind(-1)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        """The mean of the Gaussian, [..., D] before squashing."""
        return params[..., 0]

    def log_prob(self, params: Tensor, latent: Tensor) -> Tensor:
        """−½((u − mean)/std)² − log std − ½ log 2π, of the latent before squashing."""
        mean, log_std = params.unbind(-1)
        z = (latent - mean) * torch.exp(-log_std)
        return -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)

    def to_env(self, latent: Tensor) -> Tensor:
        """tanh or clip to [−1, 1], then scaled to the bounds."""
        unit = torch.tanh(latent) if self.squash else latent.clamp(-1, 1)
        return self._within_bounds((unit + 1) / 2)

    def from_env(self, action: Tensor) -> Tensor:
        """The inverse of `to_env`; a squashed action at its bound has no finite latent and counts as just inside."""
        unit = 2 * self._fraction(action) - 1
        return torch.atanh(unit.clamp(-ALMOST_ONE, ALMOST_ONE)) if self.squash else unit

    def entropy(self, params: Tensor) -> Tensor:
        """Log std + ½ log 2πe, of the latent before squashing."""
        return params[..., 1] + 0.5 * math.log(2 * math.pi * math.e)

    def kl(self, behaviour: Tensor, params: Tensor) -> Tensor:
        """log(σ_π/σ_μ) + (σ_μ² + (m_μ − m_π)²)/(2σ_π²) − ½."""
        (mean_mu, log_mu), (mean_pi, log_pi) = behaviour.float().unbind(-1), params.unbind(-1)
        spread = (torch.exp(2 * log_mu) + (mean_mu - mean_pi) ** 2) * torch.exp(-2 * log_pi)
        return log_pi - log_mu + 0.5 * spread - 0.5


def _between(low: float, high: float, raw: Tensor, start: float) -> Tensor:
    """A number that slides smoothly from `low` to `high`, and is where `start` is at raw = 0."""
    return low + (high - low) * torch.sigmoid(raw + start)
