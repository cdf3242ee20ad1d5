"""LIBERO's cameras for policies over chunks of actions. Needs the extra `libero`."""

from dataclasses import dataclass
from typing import Any

from torchrl.envs import EnvBase

from datamodules.envs.interface import named
from datamodules.envs.libero.cameras import make
from datamodules.envs.libero.simulator import ACTIONS
from datamodules.envs.libero.tasks import CONTROL_RATE_HZ, find_one
from datamodules.options import refuse_not_positive
from datamodules.vla import VLATask

CAMERAS = ("agentview", "eye_in_hand")


@dataclass(frozen=True)
class LiberoVLA(VLATask):
    """A LIBERO task seen by its cameras, its state and its instruction; every simulator is a process of its own.

    Args:
        name: of the task: its suite and index, such as `libero_spatial/0`, or its own name.
        chunk: H, actions of a decision.
        size: height and width of the image.
        max_steps: steps after which an episode is truncated, where the suite's own limit is not lower.
        wrist: whether the camera at the wrist is seen, too.
    """

    name: str = "libero_spatial/0"
    chunk: int = 8
    size: int = 128
    max_steps: int = 220
    wrist: bool = False

    def __post_init__(self) -> None:
        sizes = ("chunk", "size", "max_steps")
        refuse_not_positive("data.task.", {name: getattr(self, name) for name in sizes})

    @property
    def cameras(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of two cameras, where there are two."""
        return CAMERAS if self.wrist else ()

    @property
    def horizon(self) -> int:
        """Decisions after which an episode is truncated: by `max_steps`, or before by the suite."""
        return -(-min(self.max_steps, find_one(self.name).horizon) // self.chunk)

    def simulators(self, num_envs: int, evaluating: bool) -> EnvBase:
        """Processes of one simulator each: closing one of two cameras in a process freezes the other's images."""
        return make(self.name, num_envs, self.size, evaluating, wrist=self.wrist, joined=self.wrist)

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate: the state is the hand's pose and the fingers."""
        state = {f"hand_{axis}": "m" for axis in "xyz"} | {f"hand_q{index}": "1" for index in range(4)}
        state |= {"finger_1": "m", "finger_2": "m"}
        return named(state, ACTIONS) | {"control_rate_hz": CONTROL_RATE_HZ}
