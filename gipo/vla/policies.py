"""Policies that see images, language and proprioception and decide on chunks of actions."""

from collections.abc import Callable, Mapping
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor

from gipo.networks import OBSERVATION_FLOOR, ActorCritic
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from gipo.vla.observations import VLASpaces
from gipo.vla.tiny import TinyVLANetworks

Observation = Mapping[str, Tensor] | TensorDictBase
VLANetworkFactory = Callable[[VLASpaces, int], ActorCritic]


class VisionLanguage(Policy):
    """What distributions over chunks have in common.

    Shapes: observation as `VLASpaces` has it; params [..., H, D, P]; noise, latent, log_prob, action [..., H, D];
    value [..., H]: of each chunk step, as seen from where the chunk was decided. The network's encoder takes an
    observation with a standardised state; its actor gives [..., H·D·P] and its critic [..., H].
    """

    spaces_kind = VLASpaces
    rows_at_once = 512
    spaces: Any

    def _body(self, network: Any) -> ActorCritic:
        body: ActorCritic = network(self.spaces, self.parameters_per_dimension)
        return body

    def features(self, observation: Any) -> Tensor:
        """Shared features of the actor and the critic."""
        state = observation["state"] if self.normaliser is None else self.normaliser(observation["state"])
        found: Tensor = self.network.encoder(
            {"image": observation["image"], "state": state, "instruction": observation["instruction"]}
        )
        return found

    def value_of(self, features: Tensor) -> Tensor:
        """State values [..., H] from features; no gradient reaches the encoder."""
        return self.network.critic(features.detach()).float()

    def learn_moments(self, observation: Any, pool: Callable[[Tensor], Tensor] | None = None) -> None:
        """Learn the moments of the states of observations, if they are standardised; as `Policy.learn_moments`."""
        super().learn_moments(observation["state"], pool)


class VLATokenPolicy(VisionLanguage, TokenPolicy):
    """A chunk of actions, each dimension of each a categorical over `bins` uniform bins.

    Args:
        spaces: what the policy is built for.
        bins: V, bins per action dimension.
        network: the body, from spaces and V.
        normalise: standardise the state by running moments that are part of the policy.
        observation_floor: least standard deviation that a state is divided by, in its own unit.
    """

    def __init__(
        self,
        spaces: VLASpaces,
        bins: int = 256,
        network: VLANetworkFactory = TinyVLANetworks,
        normalise: bool = True,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        super().__init__(spaces, bins, network, normalise, observation_floor)  # type: ignore[arg-type]


class VLAGaussianPolicy(VisionLanguage, GaussianPolicy):
    """A chunk of actions, each dimension of each a squashed or clipped Gaussian.

    Args:
        spaces: what the policy is built for.
        squash: True for tanh, False for clipping to [−1, 1] before scaling to the bounds.
        std_min: floor of the standard deviation, latent units.
        std_max: ceiling of the standard deviation, latent units.
        mean_max: soft bound of |mean|, latent units.
        network: the body, from spaces and 2.
        normalise: standardise the state by running moments that are part of the policy.
        observation_floor: least standard deviation that a state is divided by, in its own unit.
    """

    def __init__(
        self,
        spaces: VLASpaces,
        squash: bool = True,
        std_min: float = 0.1,
        std_max: float = 1.0,
        mean_max: float = 2.0,
        network: VLANetworkFactory = TinyVLANetworks,
        normalise: bool = True,
        observation_floor: float = OBSERVATION_FLOOR,
    ):
        # of spaces and networks of another kind than `GaussianPolicy` names
        own: Any = (spaces, squash, std_min, std_max, mean_max, network, normalise, observation_floor)
        super().__init__(*own)
