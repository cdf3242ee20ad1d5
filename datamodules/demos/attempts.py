"""One attempt of a script at a task: it begins, and is disturbed, by its number alone, whichever process makes it."""

from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from datamodules.demos.demonstration import Demonstration
from datamodules.demos.scripts import Script, ScriptMaker, script_of
from datamodules.envs.seeding import begin_episodes, episode_seed
from datamodules.envs.simulation import Simulation
from gipo.common.errors import UserError

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
        return self.task.make_evaluation(1, self.seed), script_of(self.task, self.script)

    def run(self, env: EnvBase, maker: ScriptMaker, number: int) -> Demonstration:
        """Attempt `number`, in a simulator and with a script that `make` gave."""
        begin_episodes(env, [number], episode_seed(self.seed, STARTS))
        state, generator = env.reset(), np.random.default_rng([self.seed, number])
        script = maker(env)
        low, high = (bound[0].numpy() for bound in (env.action_spec.space.low, env.action_spec.space.high))
        noisy = np.arange(len(low)) < (len(low) if script.noisy is None else script.noisy)
        steps: list[TensorDictBase] = []
        observations, actions = [_row(state["observation"])], []
        while not self._is_over(steps):
            noise = self.noise * noisy * generator.standard_normal(len(low))
            actions.append((_chosen(script, observations[-1], len(low)) + noise).clip(low, high).astype(np.float32))
            state = env.step(state.set("action", torch.from_numpy(actions[-1][None])))["next"]
            steps.append(state)
            observations.append(_row(state["observation"]))
        success = np.array([bool(step["success"]) for step in steps]) if "success" in steps[0].keys() else None
        rewards = np.array([float(step["reward"]) for step in steps], np.float32)
        ended = bool(steps[-1]["terminated"])
        return Demonstration(np.stack(observations), np.stack(actions), rewards, low, high, ended, success)

    def _is_over(self, steps: list[TensorDictBase]) -> bool:
        if not steps:
            return False
        if bool(steps[-1]["done"]) or (self.max_steps is not None and len(steps) >= self.max_steps):
            return True
        if self.after is None or "success" not in steps[0].keys():
            return False
        return len(steps) > self.after and bool(steps[-1 - self.after]["success"])


def _row(observation: torch.Tensor) -> np.ndarray:
    return observation[0].numpy().astype(np.float32)


def _chosen(script: Script, observation: np.ndarray, size: int) -> np.ndarray:
    action = np.asarray(script(observation), float)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise UserError(f"the script gave {action!r}; the task takes {size} finite numbers")
    return action
