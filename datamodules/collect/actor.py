"""The acting side of a policy: what a collector calls at every step."""

import copy
import os
import zlib

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from gipo.policies import Policy


def acting(policy: Policy) -> Policy:
    """What acts: the policy itself where it is on the CPU, as simulators are, or acts on its device; else a copy."""
    on_cpu = policy.version.device.type == "cpu"
    return policy if on_cpu or acts_on_device(policy) else copy.deepcopy(policy).cpu()


def acts_on_device(policy: Policy) -> bool:
    """Whether the policy acts on another device than the CPU, the one that it learns on.

    That is so of large networks alone: others would wait longer for a GPU at every step than the CPU takes for them.
    """
    return policy.network.large and policy.version.device.type != "cpu"


class Actor(TensorDictModuleBase):
    """Samples an action and writes what the data contract asks of the behaviour policy.

    Reads `observation` [..., O]; writes `latent`, `action` and `log_prob` [..., D], `policy_version` [...] and, when
    asked, `behaviour_params` [..., D, P] in half precision; with action chunks [..., H, D] in place of [..., D].

    Args:
        policy: shared with the learner, or a copy that receives its weights.
        generator: source of the sampling noise; None draws from torch's global generator, which TorchRL seeds
            differently in each worker process.
        store_params: keep the distribution parameters, for an exact KL.
        deterministic: act by the mode instead of sampling.
    """

    def __init__(
        self,
        policy: Policy,
        generator: torch.Generator | None = None,
        store_params: bool = False,
        deterministic: bool = False,
    ):
        super().__init__()
        self.policy = policy
        self.generator = generator
        self.store_params = store_params
        self.deterministic = deterministic
        self.in_keys = ["observation"]
        self.out_keys = ["latent", "action", "log_prob", "policy_version"]
        self.out_keys += ["behaviour_params"] if store_params else []

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Act on observations [..., O]: the same TensorDict, with `out_keys` written into it."""
        observation, device = tensordict.get("observation"), self.policy.version.device
        params = self.policy.params(observation if device.type == "cpu" else observation.to(device))
        batch = params.shape[: -1 - len(self.policy.spaces.decision)]
        latent = self.policy.mode(params) if self.deterministic else self.policy.sample(params, self._noise(batch))
        # Simulators are on the CPU.
        tensordict.set("latent", latent.cpu())
        tensordict.set("action", self.policy.to_env(latent).cpu())
        tensordict.set("log_prob", self.policy.log_prob(params, latent).cpu())
        tensordict.set("policy_version", self.policy.version.cpu().expand(batch).clone())
        if self.store_params:
            tensordict.set("behaviour_params", params.half().cpu())
        return tensordict

    def _noise(self, batch: tuple[int, ...]) -> Tensor:
        return self.policy.noise(batch, self.generator)


class ReceivingActor(Actor):
    """The actor of a worker, whose weights arrive at any moment: it acts by a copy, renewed only when they are whole.

    TorchRL writes new weights tensor by tensor into a policy that is acting. So every update carries a checksum, and
    is taken over between two steps once it matches: the version on a frame is that of the weights that acted.
    Also writes `process` [...], the id of the process that acted.
    """

    checksum: Tensor

    def __init__(self, policy: Policy, store_params: bool = False):
        super().__init__(policy, store_params=store_params)
        self.out_keys += ["process"]
        self.register_buffer("checksum", _checksum(policy.state_dict()))
        self._taken = torch.tensor(-1)  # no checksum
        self._acting: list[Actor] = []  # hidden in a list, so that TorchRL does not write into it too

    def load(self, policy: Policy) -> None:
        """Hold these weights, for TorchRL to send."""
        self.policy.load_state_dict(policy.state_dict())
        self.checksum.copy_(_checksum(self.policy.state_dict()))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Act on observations [..., O] by the newest weights that have arrived whole."""
        while not self._renew():
            pass
        acted = self._acting[0](tensordict)
        return acted.set("process", torch.full_like(acted.get("policy_version"), os.getpid()))

    def _renew(self) -> bool:
        """Take over whole new weights; False when there have never been any."""
        wanted = self.checksum.clone()
        if wanted != self._taken:
            weights = {name: value.clone() for name, value in self.policy.state_dict().items()}
            if _checksum(weights) == wanted:
                self._acting = self._acting or [Actor(copy.deepcopy(self.policy), None, self.store_params)]
                self._acting[0].policy.load_state_dict(weights)
                self._taken = wanted
        return bool(self._acting)


def _checksum(weights: dict[str, Tensor]) -> Tensor:
    """CRC-32 of the bits: in a sum, weights would drown among the moments of observations in large units."""
    found = 0
    for value in weights.values():
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found = zlib.crc32(bits.numpy().data, found)
    return torch.tensor(found)
