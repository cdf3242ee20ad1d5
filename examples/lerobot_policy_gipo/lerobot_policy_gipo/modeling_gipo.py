"""The policy itself: ONNX Runtime runs the artifact, and every decision is written down as it was sampled."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_STATE

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from lerobot_policy_gipo.configuration_gipo import GIPOConfig
from lerobot_policy_gipo.decisions import DecisionWriter


class GIPOPolicy(PreTrainedPolicy):
    """An artifact of GIPO, verified when it is loaded.

    Args:
        config: whose `pretrained_path` is the folder with the artifact.

    Raises:
        UserError: when the artifact does not pass its checks, or sees.
    """

    config_class = GIPOConfig
    name = "gipo"

    def __init__(self, config: GIPOConfig, **_: Any):
        super().__init__(config)
        self.policy = OnnxPolicy.load(Path(config.pretrained_path) / config.artifact)
        if self.policy.manifest.vision is not None:
            raise UserError("a policy that sees acts under gipo-robot; LeRobot's loop has no place for its chunks here")
        path = config.decisions or f"decisions-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        self._written = DecisionWriter(Path(path), self.policy, config.seed)
        self._episode, self._asked = 0, False
        self._rng = self._noise()

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: Any, *, config: Any = None, **_: Any) -> "GIPOPolicy":
        """Load the artifact of a folder; there are no other weights."""
        found = config or PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        found.pretrained_path = pretrained_name_or_path
        return cls(found).eval()

    def reset(self) -> None:
        """An episode begins, if anything was decided in the one before."""
        if self._asked:
            self._episode, self._asked = self._episode + 1, False
        self._rng = self._noise()

    def select_action(self, batch: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        """[1, D] the action for observations [1, O]; what was sampled is written down."""
        seen = batch[OBS_STATE].cpu().numpy().astype(np.float32)[0]
        decision = self.policy.act(seen, self._rng, self.config.deterministic)
        self._asked = True
        self._written.write(seen, decision, sampled=not self.config.deterministic)
        return torch.from_numpy(decision.action.copy())[None]

    def predict_action_chunk(self, batch: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        """[1, 1, D]: a chunk of one action."""
        return self.select_action(batch)[:, None]

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any] | None]:
        """Refuse: `gipo fit` trains it."""
        raise NotImplementedError("an artifact is not trained; gipo fit trains the policy that it is exported from")

    def get_optim_params(self) -> dict[str, Any]:
        """Nothing: an artifact has no parameters that torch knows."""
        return {}

    def _noise(self) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, self._episode])
