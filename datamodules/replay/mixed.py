"""Logged transitions beside collected ones: the part of every batch that comes from logs."""

from typing import Any

from tensordict import TensorDict

from datamodules.advantages import Estimator
from datamodules.collect.random_state import seed_of
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from gipo.common.errors import UserError
from gipo.policies import Policy


class LoggedShare:
    """Draws from logs, which are read when the first batch is drawn.

    Args:
        logs: to draw from.
        share: of a batch, rounded to whole transitions.
        estimator: of advantages, which are always recomputed.
        reward_scale: factor on rewards where advantages are computed.
    """

    def __init__(self, logs: Logs, share: float, estimator: Estimator, reward_scale: float):
        self.logs, self.share = logs, share
        self._estimator, self._reward_scale = estimator, reward_scale
        self._replay: LogReplay | None = None
        self._restored: dict[str, Any] | None = None

    def part(self, batch: int) -> int:
        """How many of the `batch` transitions of a batch are logged ones."""
        return round(self.share * batch)

    def refuse_bad_mix(self, batch: int, store_params: bool) -> None:
        """Refuse a batch of one kind alone, or of collected transitions with distributions, which logs do not hold.

        Raises:
            UserError: naming the option.
        """
        if store_params:
            raise UserError(
                "data.store_params=true cannot be mixed with data.logs, which hold no parameters of the distributions "
                "that acted; leave one of the two out"
            )
        if not 0 < self.part(batch) < batch:
            raise UserError(
                f"data.logs_share={self.share} makes {self.part(batch)} of {batch} transitions of a batch logged "
                "ones; it must leave some of both (logs alone are --data_module=OfflineDataModule)"
            )

    def sample(
        self, policy: Policy, rounds: int, batch: int, refresh: bool, needs_behaviour: bool, seed: int
    ) -> TensorDict:
        """[rounds, share of `batch`] logged transitions for `policy` to learn from; with `refresh` advantages are due.

        Objectives that need behaviour log-probs say so by `needs_behaviour`.
        """
        if self._replay is None:
            frames = self.logs.frames(policy, needs_behaviour)
            own = seed_of(seed, 1)  # the collected half is drawn by `seed` itself
            self._replay = LogReplay(frames, self._estimator, None, self._reward_scale, own, seen=self.logs.seen)
            kept = (self._restored or {}).get("replay")
            if kept is not None:
                self._replay.load_state_dict(kept)
            refresh = refresh or kept is None
        if refresh:
            self._replay.refresh(policy)
        return self._replay.sample(rounds, self.part(batch), int(policy.version))

    @property
    def key(self) -> str:
        """Hash of which logs are drawn from, and of how they were ingested."""
        return self.logs.store.facts.key

    def state_dict(self) -> dict[str, Any]:
        """The `key` of the logs, and the state of drawing from them, as plain data."""
        if self._replay is None:
            return self._restored or {"key": self.key}
        return {"key": self.key, "replay": self._replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Continue from a `state_dict` of the same `key`."""
        self._restored = state
