"""Our side: `gipo fit` as a user types it, with a callback that evaluates it like every other peer."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from benchmarks.training.clock import Clock, position
from benchmarks.training.marks import note
from gipo.commands.studies.fifty.judge import Judge
from gipo.commands.studies.fifty.judged import sampled


class TimedEvaluations(Clock):
    """Notes iterations, evaluates between them, and ends the run once an evaluation reaches `until`.

    Args:
        file: to append marks to.
        task: a `-v3` name.
        until: share of successful episodes that is enough.
        between: environment steps from one evaluation to the next.
    """

    def __init__(self, file: str, task: str, until: float, between: int = 10_000):
        super().__init__(file)
        self.until, self.between = until, between
        self._evaluation, self._evaluated = Judge(task), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note that an iteration has ended, and evaluate where it is time."""
        super().on_train_batch_end(trainer, pl_module)
        steps = position(trainer)
        if steps // self.between > self._evaluated:
            self._evaluated = steps // self.between
            note(self.file, "pause", steps)
            policy: Any = pl_module.policy
            success = self._evaluation(sampled(policy))
            note(self.file, "resume", steps, success)
            trainer.should_stop |= success >= self.until
