"""Returns and successes of training episodes, put together from segments."""

from collections import deque
from collections.abc import Collection
from typing import Any

import torch
from tensordict import TensorDictBase


class EpisodeTracker:
    """Follows unfinished episodes across segments and keeps the last `window` finished ones.

    Args:
        window: finished episodes that the running means cover.
    """

    def __init__(self, window: int = 50):
        self.window = window
        self.finished: deque[tuple[float, float]] = deque(maxlen=window)
        self.knows_success = False
        self._open: dict[int, tuple[float, bool]] = {}

    def add(self, frames: TensorDictBase) -> None:
        """Take in a segment of transitions [M], keys as in the data contract."""
        following = frames["next"]
        episodes, index = frames["episode"].unique(return_inverse=True)
        reward = following["reward"].reshape(len(frames), -1).sum(-1)  # of an action chunk, that of all its steps
        gained = torch.zeros(len(episodes)).index_add_(0, index, reward)
        self.knows_success = "success" in following.keys()
        cut = following.get("staggered", torch.zeros_like(following["done"]))
        solved = self._any(following["success" if self.knows_success else "done"], index, len(episodes))
        ended, short = (self._any(flags, index, len(episodes)) for flags in (following["done"], cut))
        columns = (episodes, gained, solved, ended, short)
        for episode, reward, success, done, is_short in zip(*(column.tolist() for column in columns), strict=True):
            total, before = self._open.pop(episode, (0.0, False))
            if is_short:  # cut to begin out of phase: neither its return nor its success is that of an episode
                continue
            if done:
                self.finished.append((total + reward, float(before or success)))
            else:
                self._open[episode] = (total + reward, before or success)

    def drop_unfinished(self) -> None:
        """Forget episodes that will never end, because the simulators were reset."""
        self._open.clear()

    def means(self, others: Collection[tuple[float, float]] = ()) -> dict[str, float]:
        """Mean return and any-step success of the finished episodes in the window and of `others`, where known."""
        finished = [*self.finished, *others]
        if not finished:
            return {}
        returns, successes = zip(*finished, strict=True)
        means = {"train/return": sum(returns) / len(returns)}
        return means | ({"train/success": sum(successes) / len(successes)} if self.knows_success else {})

    def state_dict(self) -> dict[str, Any]:
        """Finished episodes, and what there is of unfinished ones, as plain data."""
        unfinished = [[episode, *so_far] for episode, so_far in self._open.items()]
        return {"finished": [list(episode) for episode in self.finished], "unfinished": unfinished}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.finished = deque(((total, success) for total, success in state["finished"]), maxlen=self.window)
        self._open = {episode: (total, success) for episode, total, success in state.get("unfinished", [])}

    @staticmethod
    def _any(flags: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.int64).index_add_(0, index, flags.long()) > 0
