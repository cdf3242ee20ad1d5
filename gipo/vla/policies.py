"""Policies that see images, language and proprioception and decide on chunks of actions."""

from collections.abc import Callable, Mapping
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.errors import UserError
from gipo.networks import ActorCritic
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from gipo.vla.observations import VLASpaces
from gipo.vla.tiny import TinyVLANetworks

Observation = Mapping[str, Tensor] | TensorDictBase
VLANetworkFactory = Callable[[VLASpaces, int], ActorCritic]


class VisionLanguage(Policy):
    """What distributions over chunks have in common.

    Shapes: observation as `VLASpaces` has it; params [..., H, D, P]; noise, latent, log_prob, action [..., H, D];
    value [..., H]: of each chunk step, as seen from where the chunk was decided. The network's encoder takes an
    observation with a standardised state; its actor gives [..., H·D·P] and its critic [..., H·outputs of a value].
    """

    spaces_kind = VLASpaces
    spaces: Any

    def _body(self, network: Any) -> ActorCritic:
        body: ActorCritic = network(self.spaces, self.outputs_per_dimension)
        return body

    def standardised(self, observation: Any) -> Any:
        """Observations as the encoder sees them: their states standardised."""
        state = observation["state"] if self.normaliser is None else self.normaliser(observation["state"])
        # Of logs, images are decoded only for who looks at them.
        there = (key for key in ("image", "instruction") if key in observation.keys())
        return {**{key: observation[key] for key in there}, "state": state}

    def state_of(self, standardised: Any) -> Tensor:
        """The robot's state [..., S] of observations that are standardised."""
        state: Tensor = standardised["state"]
        return state

    def encode(self, standardised: Any) -> Tensor:
        """Shared features of the actor and the critic."""
        found: Tensor = self.network.encoder({key: standardised[key] for key in ("image", "state", "instruction")})
        return found

    def value_outputs(self, seen: Tensor) -> Tensor:
        """What the critic says of chunk steps, [..., H, outputs of a value]; no gradient reaches the encoder."""
        return super().value_outputs(seen).unflatten(-1, (-1, self.value_scale.outputs))

    def learn_moments(self, observation: Any, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        """Learn the moments of the states of observations, if they are standardised; as `Policy.learn_moments`."""
        super().learn_moments(observation["state"], pool)


class VLATokenPolicy(VisionLanguage, TokenPolicy):
    """A chunk of actions, each dimension of each a categorical over uniform bins.

    Args:
        spaces: what the policy is built for.
        network: the body, from spaces and V.
        options: of `TokenPolicy`; of an observation, the state alone is standardised.
    """

    def __init__(self, spaces: VLASpaces, *, network: VLANetworkFactory = TinyVLANetworks, **options: Any):
        super().__init__(spaces, network=network, **options)  # type: ignore[arg-type]


class VLAGaussianPolicy(VisionLanguage, GaussianPolicy):
    """A chunk of actions, each dimension of each a squashed or clipped Gaussian.

    Args:
        spaces: what the policy is built for.
        network: the body, from spaces and 2.
        options: of `GaussianPolicy`; of an observation, the state alone is standardised.

    Raises:
        UserError: the network gives the mean itself, which this policy would bound.
    """

    squashes_mean = True

    def __init__(self, spaces: VLASpaces, *, network: VLANetworkFactory = TinyVLANetworks, **options: Any):
        super().__init__(spaces, network=network, **options)  # type: ignore[arg-type]
        if self.squashes_mean and getattr(self.network, "regresses", False):
            body, ours = type(self.network).__name__, type(self).__name__
            raise UserError(
                f"{body} regresses actions, which {ours} bounds: its policy is gipo.vla.lerobot.LeRobotPolicy"
            )
