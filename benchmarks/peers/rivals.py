"""One run of a rival, in a process of its own: `python -m benchmarks.peers.rivals NAME TASK SEED STEPS UNTIL FILE`.

Environments are MetaWorld's, made by its own function as its users make them (`metaworld.make_mt_envs`); algorithms
have the defaults of their packages where nothing is said.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.marks import note


@dataclass(frozen=True)
class Rival:
    """What another package offers.

    Args:
        what: it is, in a line.
        make: from environments and seed to a model with `learn` and `predict`.
        package: module that must be there.
        distribution: name of the package where it is installed from.
        num_envs: environments.
        processes: each environment in a process of its own (`SubprocVecEnv`), else all in one (`DummyVecEnv`).
        normalise: observations and rewards, by `VecNormalize`.
        every: steps between two marks, where an iteration is shorter.
    """

    what: str
    make: Callable[[Any, int], Any]
    package: str = "stable_baselines3"
    distribution: str = "stable-baselines3"
    num_envs: int = 1
    processes: bool = False
    normalise: bool = False
    every: int = 1


def ppo(env: Any, seed: int) -> Any:
    """PPO of Stable-Baselines3: 64 steps an environment, batches of 256, 10 epochs, two layers of 256."""
    from stable_baselines3 import PPO

    return PPO(
        "MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=10, policy_kwargs={"net_arch": [256, 256]}, seed=seed
    )


def sac(env: Any, seed: int) -> Any:
    """SAC of Stable-Baselines3, in torch."""
    from stable_baselines3 import SAC

    return SAC("MlpPolicy", env, seed=seed)


def sbx_sac(env: Any, seed: int) -> Any:
    """SAC of SBX, in jax."""
    from sbx import SAC

    return SAC("MlpPolicy", env, seed=seed)


_PPO = partial(Rival, make=ppo, num_envs=16, normalise=True)
RIVALS = {
    "ppo": _PPO("PPO of Stable-Baselines3, 16 environments in one process"),
    "ppo_processes": _PPO("the same, each environment in a process of its own", processes=True),
    "sac": Rival("SAC of Stable-Baselines3", sac, every=100),
    "sbx_sac": Rival("SAC of SBX, compiled by jax", sbx_sac, "sbx", "sbx-rl", every=100),
}


def train(name: str, task: str, seed: int, steps: int, until: float, file: Path, between: int = 10_000) -> None:
    """Train for `steps` steps, or until an evaluation succeeds in a share `until` of its episodes; notes marks."""
    import metaworld
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.utils import set_random_seed
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

    from benchmarks.peers.evaluation import Evaluation

    rival = RIVALS[name]
    makers = [partial(metaworld.make_mt_envs, task, seed=1000 * seed + index) for index in range(rival.num_envs)]
    env = SubprocVecEnv(makers) if rival.processes else DummyVecEnv(makers)
    if rival.normalise:
        env = VecNormalize(env)
    model = rival.make(env, seed)

    def act(observations: np.ndarray) -> np.ndarray:
        if rival.normalise:
            observations = env.normalize_obs(observations)
        actions: np.ndarray = model.predict(observations, deterministic=False)[0]
        return actions

    class Evaluations(BaseCallback):
        """Marks iterations, and evaluates between them."""

        def __init__(self) -> None:
            super().__init__()
            self.evaluation, self.marked, self.evaluated, self.reached = Evaluation(task), 0, 0, False

        def _on_rollout_start(self) -> None:
            if self.num_timesteps >= self.marked + rival.every:
                self.end_iteration()

        def _on_training_end(self) -> None:
            if self.num_timesteps > self.marked and not self.reached:
                self.end_iteration()

        def end_iteration(self) -> None:
            self.marked = self.num_timesteps
            note(file, "iteration", self.marked)
            if self.marked // between > self.evaluated:
                self.evaluated = self.marked // between
                note(file, "pause", self.marked)
                success = self.evaluation(act)
                note(file, "resume", self.marked, success)
                self.reached = success >= until

        def _on_step(self) -> bool:
            return not self.reached

    set_random_seed(seed)
    model.learn(steps, callback=Evaluations())
    env.close()


if __name__ == "__main__":
    _name, _task, _seed, _steps, _until, _file = sys.argv[1:]
    train(_name, _task, int(_seed), int(_steps), float(_until), Path(_file))
