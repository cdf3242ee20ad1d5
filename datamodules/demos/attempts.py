"""One attempt of a script at a task: it begins, and is disturbed, by its number alone, whichever process makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from datamodules.demos.demonstration import Demonstration
from datamodules.demos.scripts import Script, ScriptMaker, script_of
from datamodules.envs.seeding import begin_episodes, episode_seed
from datamodules.envs.simulation import Simulation
from datamodules.vla import VLATask
from gipo.common.arrays.camera_images import each_shape
from gipo.common.errors import UserError
from gipo.vla.observations import apart

Images = Mapping[int, Sequence[np.ndarray]]  # step → what each camera saw then, [H, W, 3] uint8
STARTS = 1 << 20  # sets the starts of demonstrations apart from those of an evaluation with the same seed


@dataclass(frozen=True)
class Attempts:
    """Attempts of a script at a task; small, and picklable, as every process makes its own simulator.

    Args:
        task: what to do.
        script: path of a user's class or function; None for the script that comes with the task.
        noise: standard deviation of what is added to the script's actions, in units of an action; what was really done
            is what is recorded, so that demonstrations also show the way back.
        seed: of starts and noise.
        after: steps that an episode goes on after its first success; None lets it go on to its end.
        max_steps: steps after which an attempt is cut; None leaves it to the task.
    """

    task: Simulation
    script: str | None = None
    noise: float = 0.0
    seed: int = 0
    after: int | None = None
    max_steps: int | None = None

    def make(self) -> tuple[EnvBase, ScriptMaker]:
        """One simulator, and what makes a script for an episode in it.

        Raises:
            UserError: when nothing is scripted for the task, or the user's class cannot be imported.
        """
        return self._simulator(), script_of(self.task, self.script)

    def _simulator(self) -> EnvBase:
        if not isinstance(self.task, VLATask):
            return self.task.make_evaluation(1, self.seed)
        task: Any = self.task  # a dataclass, as all tasks with options are
        simulator: EnvBase = replace(task, chunk=self._image_every).simulators(1, evaluating=True)
        return simulator

    @property
    def _image_every(self) -> int:
        """Steps from one image to the next, from each of which a policy can learn what was done then.

        Two a decision of a task that sees, where they can be evenly spaced.
        """
        chunk = self.task.chunk if isinstance(self.task, VLATask) else 1
        return chunk // 2 if chunk % 2 == 0 else chunk

    def run(self, env: EnvBase, maker: ScriptMaker, number: int) -> Demonstration:
        """Attempt `number`, in a simulator and with a script that `make` gave."""
        begin_episodes(env, [number], episode_seed(self.seed, STARTS))
        state, generator = env.reset(), np.random.default_rng([self.seed, number])
        script = maker(env)
        low, high = (bound[0].numpy() for bound in (env.action_spec.space.low, env.action_spec.space.high))
        noisy = np.arange(len(low)) < (len(low) if script.noisy is None else script.noisy)
        steps: list[TensorDictBase] = []
        observations, actions, images = [_row(state)], [], self._seen({}, state, 0)
        while not self._is_over(steps):
            noise = self.noise * noisy * generator.standard_normal(len(low))
            actions.append((_chosen(script, observations[-1], len(low)) + noise).clip(low, high).astype(np.float32))
            state = env.step(state.set("action", torch.from_numpy(actions[-1][None])))["next"]
            steps.append(state)
            observations.append(_row(state))
            images = self._seen(images, state, len(steps))
        success = np.array([bool(step["success"]) for step in steps]) if "success" in steps[0].keys() else None
        rewards = np.array([float(step["reward"]) for step in steps], np.float32)
        ended = bool(steps[-1]["terminated"])
        return Demonstration(
            np.stack(observations), np.stack(actions), rewards, low, high, ended, success, images, _words(state)
        )

    def _seen(self, images: Images, state: TensorDictBase, step: int) -> Images:
        """The images so far, and those of this step where the task has a camera and it is time for one."""
        if not isinstance(self.task, VLATask) or step % self._image_every:
            return images
        image: Any = state["observation", "image"][0]
        shapes = each_shape(self.task.images or tuple(image.shape), max(1, len(self.task.cameras)))
        return {**images, step: [seen.permute(1, 2, 0).contiguous().numpy() for seen in apart(image.flatten(), shapes)]}

    def _is_over(self, steps: list[TensorDictBase]) -> bool:
        if not steps:
            return False
        limits = [self.max_steps, self.task.max_steps if isinstance(self.task, VLATask) else self.task.horizon]
        if bool(steps[-1]["done"]) or any(limit is not None and len(steps) >= limit for limit in limits):
            return True
        if self.after is None or "success" not in steps[0].keys():
            return False
        return len(steps) > self.after and bool(steps[-1 - self.after]["success"])


def _row(state: TensorDictBase) -> np.ndarray:
    """[O] f32, of a task that sees what the robot knows of itself."""
    found = state["observation"]
    found = found if isinstance(found, torch.Tensor) else found["state"]
    row: np.ndarray = found[0].numpy().astype(np.float32)
    return row


def _words(state: TensorDictBase) -> str:
    """The instruction of a task that sees; empty for any other."""
    if "language_instruction" not in state.keys():
        return ""
    found = state["language_instruction"]
    return found if isinstance(found, str) else str(next(iter(found)))


def _chosen(script: Script, observation: np.ndarray, size: int) -> np.ndarray:
    action = np.asarray(script(observation), float)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise UserError(f"the script gave {action!r}; the task takes {size} finite numbers")
    return action
