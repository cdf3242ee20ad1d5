"""Policies: distributions over actions, written once for the collector, the loss, the export and the audit.

Every policy maps observations to one tensor of distribution parameters; sampling takes its noise as an
argument, so that each sample can be replayed; log-probs are per action dimension, float32, in nats, and of the
*latent* (a token, or the Gaussian before squashing), which is what the replay and the robot log keep.
"""

import importlib.util
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from gipo.errors import GipoError
from gipo.networks import ActorCritic, ObservationNormaliser, SeparateNetworks

NetworkFactory = Callable[[int, int], ActorCritic]

ALMOST_ONE = 0.999  # atanh of it is 3.8, two standard deviations beyond the softly bounded mean
MAX_BOUND = 1e38  # the distance between two such bounds is still finite in float32


@dataclass(frozen=True)
class Spaces:
    """Sizes and bounds a policy is built for.

    Args:
        observation_size: O.
        action_low: lower bound of each of the D action dimensions, environment units.
        action_high: upper bound of each.
    """

    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "action_low", tuple(map(float, self.action_low)))
        object.__setattr__(self, "action_high", tuple(map(float, self.action_high)))
        ordered = len(self.action_low) == len(self.action_high) and all(
            -MAX_BOUND <= low < high <= MAX_BOUND for low, high in zip(self.action_low, self.action_high, strict=True)
        )
        if self.observation_size < 1 or not self.action_low or not ordered:
            raise GipoError(f"a policy needs a flat observation and finite action bounds low < high, got {self}")

    @property
    def decision(self) -> tuple[int, ...]:
        """Shape of what a policy decides at once: (D,)."""
        return (len(self.action_low),)


class Policy(nn.Module, ABC):
    """Base of all policies.

    Shapes: observation [..., O]; params [..., D, P]; noise, latent, log_prob, action [..., D]; value [...]. A policy
    over chunks of H actions has [..., H, D] in place of [..., D], and values [..., H]: one for each chunk step.

    Args:
        spaces: what the policy is built for.
        parameters_per_dimension: P, the actor outputs of one action dimension.
        network: builds the network body from (O, D·P).
        normalise: standardise observations by running moments that are part of the policy.
    """

    noise_kind: ClassVar[str]
    latent_dtype: ClassVar[torch.dtype]
    spaces_kind: ClassVar[type] = Spaces
    rows_at_once: ClassVar[int] = 65_536  # observations that go through the networks together where there are many
    version: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, spaces: Spaces, parameters_per_dimension: int, network: NetworkFactory, normalise: bool):
        super().__init__()
        self.spaces = spaces
        self.normalise = normalise
        self.action_size = len(spaces.action_low)
        self.parameters_per_dimension = parameters_per_dimension
        self.normaliser = ObservationNormaliser(spaces.observation_size) if normalise else None
        self.network = self._body(network)
        self.register_buffer("action_low", torch.tensor(spaces.action_low))
        self.register_buffer("action_high", torch.tensor(spaces.action_high))
        # The version travels with the weights, so that a frame can never be stamped with another version
        # than that of the weights that acted.
        self.register_buffer("version", torch.zeros((), dtype=torch.int64))

    def _body(self, network: NetworkFactory) -> ActorCritic:
        """The network for these spaces."""
        return network(self.spaces.observation_size, self.action_size * self.parameters_per_dimension)

    def features(self, observation: Tensor) -> Tensor:
        """Shared features of the actor and the critic."""
        normalised = observation if self.normaliser is None else self.normaliser(observation)
        return self.network.encoder(normalised)

    def learn_moments(self, observation: Tensor, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        """Add observations [..., O] to the moments that it standardises by, if it does; `pool` adds those of others."""
        if self.normaliser is not None:
            self.normaliser.update(observation if pool is None else pool(observation))

    def params_of(self, features: Tensor) -> Tensor:
        """Distribution parameters [..., D, P] from features, float32 even under autocast."""
        flat = self.network.actor(features).float()
        return self._constrain(flat.unflatten(-1, (*self.spaces.decision, self.parameters_per_dimension)))

    def value_of(self, features: Tensor) -> Tensor:
        """State value [...] from features; no gradient reaches the encoder."""
        return self.network.critic(features.detach()).squeeze(-1).float()

    def params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [..., D, P]."""
        return self.params_of(self.features(observation))

    def value(self, observation: Tensor) -> Tensor:
        """State value [...]."""
        return self.value_of(self.features(observation))

    def actor_parameters(self) -> list[nn.Parameter]:
        """What the policy loss moves."""
        parameters = [*self.network.encoder.parameters(), *self.network.actor.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """What the value loss moves."""
        return list(self.network.critic.parameters())

    def noise(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Noise [*shape, D] or [*shape, H, D] for `sample`: uniform in [0, 1) or standard normal, by `noise_kind`."""
        draw = {"uniform": torch.rand, "normal": torch.randn}[self.noise_kind]
        return draw(*shape, *self.spaces.decision, generator=generator, device=self.action_low.device)

    def description(self) -> dict[str, Any]:
        """Plain data from which `build` makes the same policy; kept in checkpoints and artifacts."""
        return {
            "class_path": _class_path(self),
            "init_args": self.config(),
            "network": {"class_path": _class_path(self.network), "init_args": self.network.config()},
            "spaces": asdict(self.spaces),
        }

    def _constrain(self, params: Tensor) -> Tensor:
        return params

    def _fraction(self, action: Tensor) -> Tensor:
        """How far `action` is on the way from the lower to the upper bound, in [0, 1]."""
        return ((action - self.action_low) / (self.action_high - self.action_low)).clamp(0, 1)

    def _within_bounds(self, fraction: Tensor) -> Tensor:
        """Action at `fraction` of the way from the lower to the upper bound, never past them by rounding."""
        action = self.action_low + (self.action_high - self.action_low) * fraction
        return torch.minimum(torch.maximum(action, self.action_low), self.action_high)

    @property
    def max_entropy(self) -> float:
        """Largest entropy an action dimension can have, nats.

        Raises:
            GipoError: there is none, as for a density.
        """
        raise GipoError(
            f"an objective that compares entropies with their maximum needs a policy over tokens; "
            f"{type(self).__name__} has no maximum: set model.policy=TokenPolicy"
        )

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Latent [..., D] drawn with `noise` [..., D]."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """Most likely latent [..., D]: the deterministic policy."""

    @abstractmethod
    def log_prob(self, params: Tensor, latent: Tensor) -> Tensor:
        """Log-probability (tokens) or log-density (Gaussian) of each latent dimension [..., D], float32 nats."""

    @abstractmethod
    def to_env(self, latent: Tensor) -> Tensor:
        """Action [..., D] in environment units, always inside the bounds."""

    @abstractmethod
    def from_env(self, action: Tensor) -> Tensor:
        """Latent [..., D] whose action is nearest to `action` [..., D], environment units."""

    @abstractmethod
    def entropy(self, params: Tensor) -> Tensor:
        """Entropy of each latent dimension [..., D], nats."""

    @abstractmethod
    def kl(self, behaviour: Tensor, params: Tensor) -> Tensor:
        """Exact KL(μ‖π) of each action dimension [..., D] from the parameters of both, nats."""


class TokenPolicy(Policy):
    """A categorical over `bins` uniform bins per action dimension; token k ↦ low + k·(high − low)/(bins − 1).

    Args:
        spaces: what the policy is built for.
        bins: V, bins per action dimension.
        network: builds the network body.
        normalise: standardise observations by running moments that are part of the policy.
    """

    noise_kind = "uniform"
    latent_dtype = torch.int64

    def __init__(
        self, spaces: Spaces, bins: int = 256, network: NetworkFactory = SeparateNetworks, normalise: bool = True
    ):
        if bins < 2:
            raise GipoError(f"policy.bins must be at least 2, got {bins}")
        super().__init__(spaces, bins, network, normalise)
        self.bins = bins

    @property
    def max_entropy(self) -> float:
        """Log V, of the uniform distribution."""
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
        """The most likely token."""
        return params.argmax(-1)

    def log_prob(self, params: Tensor, latent: Tensor) -> Tensor:
        """log softmax(logits)[token]."""
        return params.log_softmax(-1).gather(-1, latent.unsqueeze(-1)).squeeze(-1)

    def to_env(self, latent: Tensor) -> Tensor:
        """Centre of the bin."""
        return self._within_bounds(latent.to(self.action_low.dtype) / (self.bins - 1))

    def from_env(self, action: Tensor) -> Tensor:
        """Nearest bin."""
        return (self._fraction(action) * (self.bins - 1)).round().to(self.latent_dtype)

    def entropy(self, params: Tensor) -> Tensor:
        """−Σ π(k)·log π(k)."""
        log_pi = params.log_softmax(-1)
        return -(log_pi.exp() * log_pi).sum(-1)

    def kl(self, behaviour: Tensor, params: Tensor) -> Tensor:
        """Σ μ(k)·(log μ(k) − log π(k))."""
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
    ):
        if not 0 < std_min < std_max < math.inf:
            raise GipoError(f"policy needs 0 < std_min < std_max < inf, got std_min={std_min}, std_max={std_max}")
        if not 0 < mean_max < math.inf:
            raise GipoError(f"policy.mean_max must be positive and finite, got {mean_max}")
        super().__init__(spaces, 2, network, normalise)
        self.squash, self.std_min, self.std_max, self.mean_max = squash, std_min, std_max, mean_max

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        return {
            "squash": self.squash,
            "std_min": self.std_min,
            "std_max": self.std_max,
            "mean_max": self.mean_max,
            "normalise": self.normalise,
        }

    def _constrain(self, params: Tensor) -> Tensor:
        mean, raw = params.unbind(-1)
        # log std slides smoothly between its bounds and starts near their top, where exploration is.
        low, high = math.log(self.std_min), math.log(self.std_max)
        log_std = low + (high - low) * torch.sigmoid(raw + 1.0)
        return torch.stack((self.mean_max * torch.tanh(mean / self.mean_max), log_std), -1)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Mean + std·noise."""
        mean, log_std = params.unbind(-1)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        """The mean."""
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


PolicyFactory = Callable[[Spaces], Policy]


def build(description: dict[str, Any]) -> Policy:
    """The policy that `Policy.description` describes, freshly initialised.

    Raises:
        GipoError: when the description is damaged, or names a class that is no policy or network.
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
    except GipoError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise GipoError(f"damaged policy description: {error!r}") from error


def _class_path(instance: object) -> str:
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _resolve(class_path: str, base: type) -> Any:
    module, _, name = class_path.rpartition(".")
    # Importing runs code, so a file may only name what is ours or what the program has already imported.
    if module.startswith("gipo.") and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise GipoError(f"unknown class {class_path!r} in the checkpoint; import its module first if it is yours")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise GipoError(f"{class_path!r} is not a {base.__name__}")
    return found
