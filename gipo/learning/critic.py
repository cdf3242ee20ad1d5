"""The critic of a policy: what it sees, what its outputs mean, and the one that sees what its policy does not."""

from abc import ABC, abstractmethod
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gipo.distributed import ranks
from gipo.learning.value_scale import ValueScale
from gipo.networks import ActorCritic, ObservationNormaliser, mlp

CriticSees = Literal["observation", "privileged"]


class PrivilegedCritic(nn.Module):
    """The critic of an asymmetric actor-critic (arXiv 1710.06542): it sees what its policy has only a picture of.

    Args:
        state: S, numbers of the robot's state, which the policy sees too.
        privileged: G, numbers that the policy does not get; they are standardised here.
        values: of one observation, H of a policy over chunks.
        width: of both hidden layers.
    """

    def __init__(self, state: int, privileged: int, values: int, width: int = 256):
        super().__init__()
        self.sizes = (state, privileged)
        self.normaliser = ObservationNormaliser(privileged)
        self.layers = mlp(state + privileged, [width, width], values, 1.0, "tanh", "first")

    def forward(self, seen: Tensor) -> Tensor:
        """Outputs [..., values] for a standardised state and privileged numbers as they are, [..., S + G]."""
        state, privileged = seen.split(self.sizes, -1)
        outputs: Tensor = self.layers(torch.cat([state, self.normaliser(privileged)], -1))
        return outputs


class WithCritic(nn.Module, ABC):
    """The half of a policy that says what states are worth. What is privileged never reaches the other half.

    Shapes: observations as `gipo.policy.Policy` has them; privileged [..., G]; values [...], of chunks [..., H].
    """

    network: ActorCritic
    value_scale: ValueScale
    spaces: Any
    privileged_size = 0  # G, which the critic sees in place of the policy's features; 0: it sees those

    @property
    def critic_sees(self) -> CriticSees:
        """What values are computed from: what the policy makes of its observation, or what is privileged."""
        return "privileged" if self.privileged_size else "observation"

    def see_privileged(self, size: int) -> None:
        """Give the policy a new critic, which sees its state and `size` privileged numbers beside it."""
        state, values = self.spaces.observation_size, prod(self.spaces.decision[:-1])
        self.network.critic = PrivilegedCritic(state, size, values)
        self.privileged_size = size

    def critic_view(self, standardised: Any, privileged: Tensor | None, features: Tensor | None = None) -> Tensor:
        """What the critic computes values from: the policy's features, or its state and what is `privileged`.

        Args:
            standardised: observations, as the policy standardises them; of a critic that sees what is privileged the
                state is enough.
            privileged: [..., G]; None where the critic sees none.
            features: of these observations, where they are there already.
        """
        if self.privileged_size:
            assert privileged is not None
            return torch.cat([self.state_of(standardised), privileged], -1)
        return self.encode(standardised) if features is None else features

    def learn_privileged(self, privileged: Tensor | None) -> None:
        """Add what is privileged [..., G] to the moments that a critic that sees it standardises by."""
        if isinstance(critic := self.network.critic, PrivilegedCritic):
            assert privileged is not None
            critic.normaliser.update(ranks.joined(privileged.to(critic.normaliser.mean.device)))

    @property
    def wants_privileged(self) -> bool:
        """Whether the critic sees what is privileged, and knows no moments of it yet."""
        critic = self.network.critic
        return isinstance(critic, PrivilegedCritic) and not bool(critic.normaliser.count > 0)

    def value_outputs(self, seen: Tensor) -> Tensor:
        """What the critic says of states, [..., outputs of a value]; no gradient reaches the encoder."""
        return self.network.critic(seen.detach()).float()

    def value_of(self, seen: Tensor) -> Tensor:
        """State value [...] from what the critic sees, in the unit of rewards; no gradient reaches the encoder."""
        return self.value_scale.decode(self.value_outputs(seen))

    def value(self, observation: Any, privileged: Tensor | None = None) -> Tensor:
        """State value [...]."""
        return self.value_of(self.critic_view(self.standardised(observation), privileged))

    def scale_values(self, scale: ValueScale, learned: bool) -> None:
        """Have the critic give values by `scale`; those that it has `learned` as they are stay, if the scale can."""
        scale.attach(self.network.critic, learned)
        self.value_scale = scale

    def learn_values(self, target: Tensor, used: Tensor) -> None:
        """Learn the scale of value targets [...], of those that are `used`."""
        self.value_scale.learn(self.network.critic, target, used)

    def critic_parameters(self) -> list[nn.Parameter]:
        """The parameters that the value loss moves: the critic."""
        return list(self.network.critic.parameters())

    def state_of(self, standardised: Any) -> Tensor:
        """The state [..., S] of observations that are standardised: all of them, where they are vectors."""
        return standardised

    @abstractmethod
    def standardised(self, observation: Any) -> Any:
        """Observations as the encoder sees them."""

    @abstractmethod
    def encode(self, standardised: Any) -> Tensor:
        """Features of observations that are `standardised`."""
