"""Numbers of episodes, which go on across restarts and resumed runs, whoever collected them."""

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor


class EpisodeNumbers:
    """Turns TorchRL's trajectory ids into episode numbers that go on across restarts and resumed runs.

    In one process the first segment after a restart holds a frame of every simulator, so its smallest id is where the
    collector began counting; with workers ids only ever grow from 0.
    """

    def __init__(self, first: int, contiguous: bool):
        self.next = first
        self._offset: int | None = None if contiguous else first

    def begin_again(self) -> None:
        """The collector was restarted: the next segment says where it counts from."""
        self._offset = None

    def __call__(self, trajectory: Tensor) -> Tensor:
        """Episode numbers of TorchRL's trajectory ids, the same shape."""
        if self._offset is None:
            self._offset = self.next - int(trajectory.min())
        episode = trajectory + self._offset
        self.next = max(self.next, int(episode.max()) + 1)
        return episode


@dataclass
class RunNumbers:
    """The numbers of a run's episodes, of which the next new one gets `next`, whichever worker or actor began it."""

    next: int


class PartNumbers:
    """Gives numbers of the run to the episodes of one worker or actor, which counts its own.

    Args:
        run: numbers that it shares with the others.
    """

    def __init__(self, run: RunNumbers) -> None:
        self._run = run
        self._known: dict[int, int] = {}  # numbers of the run by the worker's own, of episodes that may go on

    def begin_again(self) -> None:
        """Forget all episodes: none of them goes on."""
        self._known.clear()

    def __call__(self, part: TensorDict) -> TensorDict:
        """The part of a segment [M] with numbers of the run."""
        counted, inverse = part["episode"].unique(return_inverse=True)
        # Every simulator is in every part: an episode that is not in this one is over.
        known, self._known = self._known, {}
        for episode in counted.tolist():
            if episode not in known:
                known[episode] = self._run.next
                self._run.next += 1
            self._known[episode] = known[episode]
        return part.clone(recurse=False).set("episode", torch.tensor(list(self._known.values()))[inverse])
