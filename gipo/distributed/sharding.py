"""A policy whose layers are split over several learners, and a whole copy of it to act with."""

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from gipo.learning.critic import PrivilegedCritic
from gipo.policies import Policy, build


def shard(policy: Policy, mesh: DeviceMesh) -> None:
    """Split encoder, actor, critic and what else learns over the learners of `mesh`; each is whole while in use."""
    network = policy.network
    beside = (part for part in policy.children() if part is not network)
    for part in (network.encoder, network.actor, network.critic, *beside):
        if any(True for _ in part.parameters()) and not isinstance(part, FSDPModule):
            fully_shard(part, mesh=mesh)


def whole(x: Tensor) -> Tensor:
    """x itself, put together where it is split; every learner has to call it then."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def is_sharded(policy: Policy) -> bool:
    """Whether the policy's parameters are split."""
    return any(isinstance(part, FSDPModule) for part in policy.modules())


class WholePolicy:
    """Gives a policy that can act on its own: itself, or a copy put together from its parts.

    The copy shares what standardises its observations and what its critic sees beside them, which is never split.
    """

    def __init__(self) -> None:
        self._copy: Policy | None = None

    @torch.no_grad()
    def __call__(self, policy: Policy) -> Policy:
        """The policy as it is now; every learner has to call it where it is sharded."""
        if not is_sharded(policy):
            return policy
        if self._copy is None:
            self._copy = build(policy.description()).to(policy.version.device)
            self._copy.normaliser = policy.normaliser
            if isinstance(critic := policy.network.critic, PrivilegedCritic):
                self._copy.network.critic.normaliser = critic.normaliser
        self._copy.load_state_dict({name: whole(value) for name, value in policy.state_dict().items()})
        return self._copy
