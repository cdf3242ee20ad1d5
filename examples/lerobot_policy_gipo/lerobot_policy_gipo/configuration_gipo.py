"""The options of the policy `gipo`: `--policy.path=FOLDER --policy.seed=1`."""

from dataclasses import dataclass
from typing import Any

from lerobot.configs.policies import PreTrainedConfig


@PreTrainedConfig.register_subclass("gipo")
@dataclass
class GIPOConfig(PreTrainedConfig):
    """How an artifact acts.

    Args:
        artifact: file in the folder of the policy.
        seed: of the noise: that of episode e comes from `numpy.random.default_rng([seed, e])`.
        deterministic: take the most likely action; nothing can be learned from such steps by their ratio.
        decisions: file that is written with what was sampled; one named by the time unless given.
    """

    artifact: str = "policy.onnx"
    seed: int = 0
    deterministic: bool = False
    decisions: str = ""

    @property
    def observation_delta_indices(self) -> None:
        """None: it sees the present alone."""
        return

    @property
    def action_delta_indices(self) -> None:
        """None: it decides at every step."""
        return

    @property
    def reward_delta_indices(self) -> None:
        """None: it sees no rewards."""
        return

    def validate_features(self) -> None:
        """Nothing: the artifact's own manifest says what it takes, and is compared when the folder is made."""

    def get_optimizer_preset(self) -> Any:
        """Refuse: `gipo fit` trains it."""
        raise NotImplementedError("an artifact is not trained; gipo fit trains the policy that it is exported from")

    def get_scheduler_preset(self) -> Any:
        """None: it is not trained here."""
        return
