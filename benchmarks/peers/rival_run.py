"""One run of a rival, by itself: `python -m benchmarks.peers.rival_run NAME TASK SEED STEPS UNTIL FILE`."""

import sys
from pathlib import Path

from benchmarks.training.marks import note
from gipo.commands.studies.fifty.judge import Act, Judge
from gipo.commands.studies.fifty.rivals import RIVALS, train


class Marks:
    """Marks iterations in a file, and evaluates between them.

    Args:
        file: to append to.
        task: a `-v3` name.
        until: share of successful episodes that is enough.
        between: environment steps from one evaluation to the next.
    """

    def __init__(self, file: Path, task: str, until: float, between: int = 10_000):
        self.file, self.until, self.between = file, until, between
        self._evaluation, self._evaluated = Judge(task), 0

    def begin(self) -> None:
        """Nothing to mark: the first iteration counts as long as the others are in the mean."""

    def iteration(self, steps: int, act: Act) -> bool:
        """Mark the end of an iteration, and evaluate where it is time; whether the success is enough."""
        note(self.file, "iteration", steps)
        if steps // self.between == self._evaluated:
            return False
        self._evaluated = steps // self.between
        note(self.file, "pause", steps)
        success = self._evaluation(act)
        note(self.file, "resume", steps, success)
        return success >= self.until


def main(name: str, task: str, seed: str, steps: str, until: str, file: str) -> None:
    """Make the run."""
    train(RIVALS[name], task, int(seed), int(steps), Marks(Path(file), task, float(until)))


if __name__ == "__main__":
    main(*sys.argv[1:])
