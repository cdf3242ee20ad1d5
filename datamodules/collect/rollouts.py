"""Collection in this process, and what every source of transitions has in common."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Collector

from datamodules.collect.actor import Actor, acting
from datamodules.collect.episode_numbers import EpisodeNumbers
from datamodules.envs.seeding import seed_env
from datamodules.envs.simulation import Simulation, close_or_say
from gipo.policies import Policy

logging.getLogger("torchrl").setLevel(logging.WARNING)

# Options of TorchRL's collectors, which go on until they are closed.
ENDLESS: dict[str, Any] = {"total_frames": -1, "trust_policy": True, "auto_register_policy_transforms": False}


@dataclass(frozen=True)
class Collection:
    """What is to be collected, wherever that happens.

    Args:
        task: what to simulate; workers and actors make their own simulators from it.
        num_envs: simulators, of every process.
        frames: transitions of a segment.
        policy: acts; where it is not in this process, or learns on another device than it acts on, as a copy.
        store_params: keep the behaviour policy's distribution parameters.
        seed: of goals and sampling noise.
        first_episode: number of the first episode.
    """

    task: Simulation
    num_envs: int
    frames: int
    policy: Policy
    store_params: bool = False
    seed: int = 0
    first_episode: int = 0


class Rollouts(ABC):
    """A source of transitions that acts with the newest policy it was given."""

    @abstractmethod
    def collect(self) -> TensorDict:
        """The next segment of transitions [M], in time order within each episode.

        Copy it before the next call: its memory may be that of the segment after that.
        """

    def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Start on the next segment, by the weights of the last `update`, where that is done beside the learner."""

    def ahead(self) -> TensorDict | None:
        """The segment that `begin` started on, once it is whole; None where there is none, or its collection failed."""
        return None

    @abstractmethod
    def update(self, policy: Policy) -> None:
        """Act with these weights (and this version) from now on."""

    @abstractmethod
    def restart(self, seed: int) -> bool:
        """Begin new episodes with generators seeded anew, so that what follows depends on `seed` alone.

        Returns:
            Whether the running episodes were cut.
        """

    @property
    @abstractmethod
    def next_episode(self) -> int:
        """The number that the next new episode gets."""

    @abstractmethod
    def close(self) -> None:
        """Release simulators and processes; safe to call twice."""


class InProcessRollouts(Rollouts):
    """N simulators in this process; on a CPU learner the policy is shared, not copied.

    Args:
        what: to collect; `num_envs` is N, `frames` N·T.
    """

    def __init__(self, what: Collection):
        self._acting, self._task = acting(what.policy), what.task.name
        self._actor = Actor(self._acting, torch.Generator().manual_seed(what.seed), what.store_params)
        env = what.task.make(what.num_envs, what.seed)
        self._collector = Collector(env, self._actor, frames_per_batch=what.frames, **ENDLESS)
        self._iterator: Iterator[TensorDictBase] = iter(self._collector)
        self._episodes = EpisodeNumbers(what.first_episode, contiguous=True)

    def collect(self) -> TensorDict:
        """The next segment [N·T], simulator by simulator."""
        return transitions(next(self._iterator), self._episodes)

    def update(self, policy: Policy) -> None:
        """Act with these weights: they are copied, unless the policy is shared with the learner."""
        if self._acting is not policy:
            self._acting.load_state_dict(policy.state_dict())

    def restart(self, seed: int) -> bool:
        """Reset all simulators, with goals and noise that depend on `seed` alone; running episodes are cut."""
        seed_env(self._collector.env, seed)
        assert self._actor.generator is not None
        self._actor.generator.manual_seed(seed)
        self._collector.reset()
        self._episodes.begin_again()
        return True

    @property
    def next_episode(self) -> int:
        """The number that the next new episode gets."""
        return self._episodes.next

    def close(self) -> None:
        """Close the simulators."""
        close_or_say(self._collector.shutdown, self._task)


def transitions(segment: TensorDictBase, episodes: EpisodeNumbers) -> TensorDict:
    """A collector's segment [N, T] as transitions [N·T] with the keys of the data contract."""
    following = segment["next"]
    steps = segment["log_prob"].shape[:-1]  # [N, T], or [N, T, H] with action chunks
    chosen = following["executed"] if "executed" in following.keys() else torch.ones(steps, dtype=torch.bool)
    frames = {
        "observation": segment["observation"],
        "latent": segment["latent"],
        "action": segment["action"],
        "log_prob": segment["log_prob"],
        "policy_version": segment["policy_version"],
        "valid": chosen,
        "episode": episodes(segment["collector", "traj_ids"]),
        "step": segment["step"].squeeze(-1),
        "next": {
            "observation": following["observation"],
            "reward": following["reward"].reshape(steps),
            **{key: following[key].squeeze(-1) for key in ("terminated", "truncated", "done")},
        },
    }
    if "executed" in following.keys():
        frames["executed"] = chosen.clone()
    if "behaviour_params" in segment.keys():
        frames["behaviour_params"] = segment["behaviour_params"]
    if "privileged" in following.keys():
        frames["privileged"], frames["next"]["privileged"] = segment["privileged"], following["privileged"]
    for key in ("success", "staggered"):
        if key in following.keys():
            frames["next"][key] = following[key].squeeze(-1)
    return TensorDict(frames, batch_size=segment.shape).flatten()
