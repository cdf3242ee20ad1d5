"""The acting side of a policy: what a collector calls at every step."""

import os

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from gipo.policies import Policy


class Actor(TensorDictModuleBase):
    """Samples an action and writes what the data contract asks of the behaviour policy.

    Reads `observation` [..., O]; writes `latent`, `action` and `log_prob` [..., D], `policy_version` [...] and, when
    asked, `behaviour_params` [..., D, P] in half precision.

    Args:
        policy: shared with the learner, or a copy that receives its weights.
        generator: source of the sampling noise; None draws from torch's global generator, which TorchRL seeds
            differently in each worker process.
        store_params: keep the distribution parameters, for an exact KL.
        deterministic: act by the mode instead of sampling.
        stamp_process: also write `process` [...], the id of the process that acted.
    """

    def __init__(
        self,
        policy: Policy,
        generator: torch.Generator | None = None,
        store_params: bool = False,
        deterministic: bool = False,
        stamp_process: bool = False,
    ):
        super().__init__()
        self.policy = policy
        self.generator = generator
        self.store_params = store_params
        self.deterministic = deterministic
        self.stamp_process = stamp_process
        self.in_keys = ["observation"]
        self.out_keys = ["latent", "action", "log_prob", "policy_version"]
        self.out_keys += ["behaviour_params"] if store_params else []
        self.out_keys += ["process"] if stamp_process else []

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Act on a batch of observations."""
        observation = tensordict.get("observation")
        batch = observation.shape[:-1]
        params = self.policy.params(observation)
        if self.deterministic:
            latent = self.policy.mode(params)
        else:
            latent = self.policy.sample(params, self.policy.noise(batch, self.generator))
        tensordict.set("latent", latent)
        tensordict.set("action", self.policy.to_env(latent))
        tensordict.set("log_prob", self.policy.log_prob(params, latent))
        tensordict.set("policy_version", self.policy.version.expand(batch).clone())
        if self.store_params:
            tensordict.set("behaviour_params", params.half())
        if self.stamp_process:
            tensordict.set("process", torch.full(batch, os.getpid(), dtype=torch.int64))
        return tensordict
