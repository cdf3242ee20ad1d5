"""Policies: distributions over actions, written once for the collector, the loss, the export and the audit."""

import importlib.util
import math
import sys
from typing import Any

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.networks import OBSERVATION_FLOOR, ActorCritic, SeparateNetworks
from gipo.policy import NetworkFactory, Policy, PolicyFactory, Spaces

__all__ = ["GaussianPolicy", "NetworkFactory", "Policy", "PolicyFactory", "Spaces", "TokenPolicy", "build"]

ALMOST_ONE = 0.999  # atanh of it is 3.8, two standard deviations beyond the softly bounded mean


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
        network: builds the network body.
        normalise: standardise observations by running moments that are part of the policy.
        observation_floor: least standard deviation that an observation is divided by, in its own unit. Lower it for
            observations whose unit is large (kilometres), raise it for a small one; weights that are read from a
            checkpoint keep the floor that they were learned with.
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
        network: NetworkFactory = SeparateNetworks,
        normalise: bool = True,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        if not 0 < std_min < std_max < math.inf:
            raise UserError(f"policy needs 0 < std_min < std_max < inf, got std_min={std_min}, std_max={std_max}")
        if not 0 < mean_max < math.inf:
            raise UserError(f"policy.mean_max must be positive and finite, got {mean_max}")
        super().__init__(spaces, 2, network, normalise, observation_floor)
        self.squash, self.std_min, self.std_max, self.mean_max = squash, std_min, std_max, mean_max

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        names = ("squash", "std_min", "std_max", "mean_max", "normalise")
        return {name: getattr(self, name) for name in names}

    def _constrain(self, params: Tensor) -> Tensor:
        mean, raw = params.unbind(-1)
        # log std slides smoothly between its bounds and starts near their top, where exploration is.
        low, high = math.log(self.std_min), math.log(self.std_max)
        log_std = low + (high - low) * torch.sigmoid(raw + 1.0)
        return torch.stack((self.mean_max * torch.tanh(mean / self.mean_max), log_std), -1)

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


def build(description: dict[str, Any]) -> Policy:
    """The policy that `Policy.description` describes, freshly initialised.

    Raises:
        UserError: when the description is damaged, or names a class that is no policy or network.
    """
    try:
        body = description["network"]
        network = _resolve(body["class_path"], ActorCritic)
        policy = _resolve(description["class_path"], Policy)
        return policy(
            policy.spaces_kind(**description["spaces"]),
            network=lambda *sizes: network(*sizes, **body["init_args"]),
            **description["init_args"],
        )
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"damaged policy description: {error!r}") from error


def _resolve(class_path: str, base: type) -> Any:
    module, _, name = class_path.rpartition(".")
    # Importing runs code, so a file may only name what is ours or what the program has already imported.
    if module.startswith("gipo.") and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise UserError(f"unknown class {class_path!r} in the checkpoint; import its module first if it is yours")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{class_path!r} is not a {base.__name__}")
    return found
