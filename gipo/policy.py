"""The contract of policies, and the spaces that they are built for.

Every policy maps observations to one tensor of distribution parameters; sampling takes its noise as an
argument, so that each sample can be replayed; log-probs are per action dimension, float32, in nats, and of the
*latent* (a token, or the Gaussian before squashing), which is what the replay and the robot log keep.
"""

import importlib
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from gipo.common.errors import UserError
from gipo.common.faults import class_path
from gipo.learning.critic import WithCritic
from gipo.learning.value_scale import ValueScale
from gipo.networks import OBSERVATION_FLOOR, ActorCritic, ObservationNormaliser

NetworkFactory = Callable[[int, int], ActorCritic]

MAX_BOUND = 1e38  # the distance between two such bounds is still finite in float32


@dataclass(frozen=True)
class Spaces:
    """Sizes and bounds a policy is built for; bounds are rounded to float32, as the policy has them.

    Args:
        observation_size: O.
        action_low: lower bound of each of the D action dimensions, environment units.
        action_high: upper bound of each.
    """

    taken_by: ClassVar[str] = "TokenPolicy or GaussianPolicy, which act on numbers alone"
    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("action_low", "action_high"):
            bound = torch.tensor(getattr(self, name), dtype=torch.float32, device="cpu")  # `meta` would know no numbers
            object.__setattr__(self, name, tuple(bound.tolist()))
        low, high, most = self.action_low, self.action_high, MAX_BOUND
        ordered = len(low) == len(high) and all(-most <= a < b <= most for a, b in zip(low, high, strict=True))
        if self.observation_size < 1 or not self.action_low or not ordered:
            raise UserError(f"a policy needs a flat observation and finite action bounds low < high, got {self}")

    @property
    def decision(self) -> tuple[int, ...]:
        """Shape of what a policy decides at once: (D,)."""
        return (len(self.action_low),)


class Policy(WithCritic):
    """Base of all policies.

    Shapes: observation [..., O]; params [..., D, P]; noise, latent, log_prob, action [..., D]; value [...]. A policy
    over chunks of H actions has [..., H, D] in place of [..., D], and values [..., H]: one for each chunk step.

    Args:
        spaces: what the policy is built for.
        parameters_per_dimension: P, the distribution parameters of one action dimension.
        network: builds the network body from O and the actor's outputs, D·P or D·`outputs_per_dimension`.
        normalise: standardise observations by running moments that are part of the policy.
        observation_floor: least standard deviation that an observation is divided by, in its own unit; it belongs to
            the moments, so that weights that are read bring their own.
    """

    noise_kind: ClassVar[str]
    latent_dtype: ClassVar[torch.dtype]
    spaces_kind: ClassVar[type] = Spaces
    version: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(
        self,
        spaces: Spaces,
        parameters_per_dimension: int,
        network: NetworkFactory,
        normalise: bool,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        super().__init__()
        if not isinstance(spaces, self.spaces_kind):
            raise UserError(f"model.policy={type(self).__name__} is not for this task; take {spaces.taken_by}")
        self.spaces, self.normalise = spaces, normalise
        self.action_size, self.parameters_per_dimension = len(spaces.action_low), parameters_per_dimension
        self.normaliser = ObservationNormaliser(spaces.observation_size, floor=observation_floor) if normalise else None
        self.network = self._body(network)
        self.value_scale = ValueScale()
        self.register_buffer("action_low", torch.tensor(spaces.action_low))
        self.register_buffer("action_high", torch.tensor(spaces.action_high))
        # The version travels with the weights, so that a frame can never be stamped with another version
        # than that of the weights that acted.
        self.register_buffer("version", torch.zeros((), dtype=torch.int64))

    def _body(self, network: NetworkFactory) -> ActorCritic:
        """The network body for the spaces of the policy."""
        return network(self.spaces.observation_size, self.action_size * self.outputs_per_dimension)

    @property
    def outputs_per_dimension(self) -> int:
        """Outputs of the network's actor of which the P parameters of an action dimension are made; P as a rule."""
        return self.parameters_per_dimension

    def features(self, observation: Tensor) -> Tensor:
        """Features of observations [..., O], shared by the actor and the critic."""
        return self.encode(self.standardised(observation))

    def standardised(self, observation: Tensor) -> Tensor:
        """Observations [..., O] as the encoder sees them; the same until there are new moments."""
        return observation if self.normaliser is None else self.normaliser(observation)

    def encode(self, standardised: Tensor) -> Tensor:
        """Features of observations that are `standardised`."""
        return self.network.encoder(standardised)

    def learn_moments(self, observation: Tensor, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        """Learn the moments of observations [..., O], if it standardises; `pool` adds those of other learners.

        They take effect with `take_moments`: a policy that acted and is then learned from must be the same function,
        or its own fresh data would have log-ratios.
        """
        if self.normaliser is not None:
            self.normaliser.update_later(observation if pool is None else pool(observation))

    def take_moments(self) -> None:
        """Standardise by all moments that were learned so far."""
        if self.normaliser is not None:
            self.normaliser.take()

    @property
    def wants_moments(self) -> bool:
        """Whether the policy standardises observations, and knows nothing of them yet."""
        return self.normaliser is not None and not bool(self.normaliser.count > 0)

    def next_version(self) -> None:
        """Be another policy from here on: the weights that were learned, and with them the moments."""
        self.take_moments()
        self.version += 1

    def params_of(self, features: Tensor) -> Tensor:
        """Distribution parameters [..., D, P] from features, float32 even under autocast."""
        flat = self.network.actor(features).float()
        return self._constrain(flat.unflatten(-1, (*self.spaces.decision, self.outputs_per_dimension)))

    def params(self, observation: Tensor) -> Tensor:
        """Distribution parameters [..., D, P]."""
        return self.params_of(self.features(observation))

    def actor_parameters(self) -> list[nn.Parameter]:
        """The parameters that the policy loss moves: encoder and actor."""
        parameters = [*self.network.encoder.parameters(), *self.network.actor.parameters()]
        return [parameter for parameter in parameters if parameter.requires_grad]

    def noise(self, shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
        """Noise [*shape, D] or [*shape, H, D] for `sample`: uniform in [0, 1) or standard normal, by `noise_kind`."""
        draw, here = {"uniform": torch.rand, "normal": torch.randn}[self.noise_kind], self.action_low.device
        where = here if generator is None else generator.device  # the noise of a seed is the same on every device
        return draw(*shape, *self.spaces.decision, generator=generator, device=where).to(here)

    def description(self) -> dict[str, Any]:
        """Plain data from which `build` makes the same policy; kept in checkpoints and artifacts."""
        described = {**_named(self), "network": _named(self.network), "spaces": asdict(self.spaces)}
        if self.privileged_size:
            described["critic"] = {"privileged": self.privileged_size}
        if type(self.value_scale) is not ValueScale:
            described["value_scale"] = _named(self.value_scale)
        return described

    def _constrain(self, outputs: Tensor) -> Tensor:
        """Distribution parameters [..., D, P] from the actor's outputs [..., D, `outputs_per_dimension`]."""
        return outputs

    def _fraction(self, action: Tensor) -> Tensor:
        """How far `action` is on the way from the lower to the upper bound, in [0, 1]."""
        return ((action - self.action_low) / (self.action_high - self.action_low)).clamp(0, 1)

    def _within_bounds(self, fraction: Tensor) -> Tensor:
        """Action at `fraction` of the way from the lower to the upper bound, never past them by rounding."""
        action = self.action_low + (self.action_high - self.action_low) * fraction
        return torch.minimum(torch.maximum(action, self.action_low), self.action_high)

    @property
    def gives_probabilities(self) -> bool:
        """Whether log-probs are of tokens, so that their exponentials are probabilities and not densities."""
        return not self.latent_dtype.is_floating_point

    @property
    def max_entropy(self) -> float:
        """Largest entropy an action dimension can have, nats.

        Raises:
            UserError: there is none, as for a density.
        """
        raise UserError(
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


PolicyFactory = Callable[[Spaces], Policy]


def _named(made: Any) -> dict[str, Any]:
    """The class of a policy or of a part of it, and the arguments that it is made anew with."""
    return {"class_path": class_path(made), "init_args": made.config()}


def class_of(path: str, base: type) -> Any:
    """The class that `class_path` names, which must be derived from `base`.

    Raises:
        UserError: there is none, or it is another kind of class.
    """
    module, _, name = path.rpartition(".")
    # Importing runs code, so a file may only name what is ours or what the program has already imported.
    if module.startswith("gipo."):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # it is there, and a library that it needs is not
                raise
    found = getattr(sys.modules.get(module), name, None)
    if found is None:
        raise UserError(
            f"unknown class {path!r} in the checkpoint, which may import nothing by itself; if it is yours, name it "
            f"with --model.policy or its network, or import its module first: python -c 'import sys, {module}; from "
            "deploy.cli import main; sys.exit(main())' export …"
        )
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{path!r} is not a {base.__name__}")
    return found


def build(description: dict[str, Any]) -> Policy:
    """The policy that `Policy.description` describes, freshly initialised.

    Raises:
        UserError: when the description is damaged, or names a class that is no policy or network.
    """
    try:
        body = description["network"]
        network = class_of(body["class_path"], ActorCritic)
        kind = class_of(description["class_path"], Policy)
        policy: Policy = kind(
            kind.spaces_kind(**description["spaces"]),
            network=lambda *sizes: network(*sizes, **body["init_args"]), **description["init_args"],
        )  # fmt: skip
        if critic := description.get("critic"):
            policy.see_privileged(int(critic["privileged"]))
        if scale := description.get("value_scale"):
            policy.scale_values(class_of(scale["class_path"], ValueScale)(**scale["init_args"]), learned=False)
        return policy
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"damaged policy description: {error!r}") from error
