"""What other packages offer for the same tasks, and one run of it.

Environments are MetaWorld's, made by its own function as its users make them (`metaworld.make_mt_envs`); algorithms
have the defaults of their packages where nothing is said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from gipo.commands.studies.fifty.judge import Act


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
        every: steps between two iterations that are told of, where an iteration is shorter.
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


class Witness(Protocol):
    """Who is told of a run."""

    def begin(self) -> None:
        """Training begins: environments and model are made."""

    def iteration(self, steps: int, act: Act) -> bool:
        """An iteration has ended after so many environment steps; whether the run ends here."""


def train(rival: Rival, task: str, seed: int, steps: int, witness: Witness) -> Act:
    """Train for so many environment steps, or until the witness ends it; the policy that came of it."""
    import metaworld
    from stable_baselines3.common.utils import set_random_seed
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

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

    set_random_seed(seed)
    model.learn(steps, callback=_telling(witness, act, rival.every))
    env.close()
    return act


def _telling(witness: Witness, act: Act, every: int) -> Any:
    """A callback of Stable-Baselines3 that tells of iterations."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Iterations(BaseCallback):
        """Iterations of at least `every` steps."""

        told, ended = 0, False

        def _on_training_start(self) -> None:
            witness.begin()

        def _on_rollout_start(self) -> None:
            if self.num_timesteps >= self.told + every:
                self.tell()

        def _on_training_end(self) -> None:
            if self.num_timesteps > self.told and not self.ended:
                self.tell()

        def tell(self) -> None:
            self.told = self.num_timesteps
            self.ended = witness.iteration(self.told, act)

        def _on_step(self) -> bool:
            return not self.ended

    return Iterations()
