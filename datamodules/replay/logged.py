"""Replay over logs: transitions that were collected before the run and stay as they are."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import TensorDictReplayBuffer, TensorStorage
from torchrl.data.replay_buffers import Sampler

from datamodules.advantages import Estimator
from datamodules.replay.people_share import PeopleShare
from datamodules.replay.ring import LEARNER_KEYS, OPTIONAL_KEYS, completed, draw
from datamodules.replay.sampling import uniform_unless, with_own_options
from datamodules.replay.values import Seen, as_kept, value_frames
from gipo.common.errors import UserError
from gipo.policies import Policy


class LogReplay:
    """Samples logged transitions, whose advantages it refreshes with the current critic.

    Args:
        frames: [M] transitions, keys as in the data contract; may be memory-mapped, is never written to.
        estimator: GAE or V-trace.
        sampler: TorchRL sampler; uniform unless given.
        reward_scale: factor on rewards where advantages are computed.
        seed: of the sampling generator.
        human_share: of every batch that are persons' steps; as many as come where it is None. Instead of a sampler.
        seen: makes of observations what the policy takes.
    """

    def __init__(
        self,
        frames: TensorDictBase,
        estimator: Estimator,
        sampler: Sampler | None = None,
        reward_scale: float = 1.0,
        seed: int = 0,
        human_share: float | None = None,
        seen: Seen = as_kept,
    ):
        self._seen = seen
        self.frames = frames = completed(frames)
        self.estimator = estimator
        self.reward_scale = reward_scale
        stored = [key for key in (*LEARNER_KEYS, *OPTIONAL_KEYS) if key in frames.keys()]
        self._learner_frames = TensorDict({key: frames[key] for key in stored}, batch_size=frames.batch_size)
        for key in ("advantage", "value_target"):
            self._learner_frames[key] = torch.full(frames["next", "reward"].shape, torch.nan)
        self._generator = torch.Generator().manual_seed(seed)
        self._people = None if human_share is None else PeopleShare(frames["source"], human_share)
        self.buffer = TensorDictReplayBuffer(
            storage=TensorStorage(self._learner_frames),
            sampler=uniform_unless(sampler),
            generator=self._generator,
        )

    def __len__(self) -> int:
        return len(self.frames)

    def refresh(self, policy: Policy) -> None:
        """Advantages and value targets of all transitions with the current critic."""
        order, estimate = value_frames(self.frames, policy, self.estimator, self.reward_scale, seen=self._seen)
        self._learner_frames["advantage"][order] = estimate.advantage
        self._learner_frames["value_target"][order] = estimate.target

    def sample(self, rounds: int, batch: int, version: int) -> TensorDict:
        """[rounds, batch] transitions, only what a learner reads; `version` is the learner's, for staleness."""
        if self._people is None:
            found = draw(self.buffer, rounds, batch, version)
        else:
            rows = self._people.rows(rounds, batch, self._generator)
            found = self._learner_frames[rows].reshape(rounds, batch)
        return found.set("observation", self._seen(found["observation"]))

    def state_dict(self) -> dict[str, Any]:
        """Estimates, sampler and generator as plain data; the transitions stay in their store."""
        return {
            "advantage": self._learner_frames["advantage"],
            "value_target": self._learner_frames["value_target"],
            "sampler": dict(self.buffer.sampler.state_dict()),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            UserError: when it is of other logs.
        """
        if len(state["advantage"]) != len(self):
            raise UserError(
                f"the checkpoint was trained on {len(state['advantage'])} logged transitions, there are {len(self)}"
            )
        for key in ("advantage", "value_target"):
            self._learner_frames[key].copy_(state[key])
        self.buffer.sampler.load_state_dict(with_own_options(state["sampler"], self.buffer.sampler))
        self._generator.set_state(state["generator"])
