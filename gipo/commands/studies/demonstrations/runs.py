"""The runs of the study: demonstrations, their clone, its post-training, each made once in a folder of its own."""

import argparse
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gipo.commands.studies.options import objective_flags
from gipo.commands.studies.pipeline.forks import FIT, Forks
from gipo.commands.studies.pipeline.once import is_done, once
from gipo.commands.studies.pipeline.processes import Commands
from gipo.commands.studies.run_tables import read_curves
from gipo.common.errors import UserError

Row = dict[str, Any]
# One run a core, evaluated at its end alone.
PLAIN = ("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--data.evaluation.num_envs=10")
# What an option of the study sets, of cloning and of post-training.
_SHARED = ("seed_everything", "data.task", "data.evaluation.episodes", "trainer.check_val_every_n_epoch")
CLONED = (*_SHARED, "data.logs", "data.iterations")
POST_TRAINED = (
    *_SHARED, "model.init_from", "model.objective", "data.total_frames", "data.frames_per_iteration", "data.capacity"
)  # fmt: skip
SCORES = {"success": "val/success", "last": "val/success_last", "return": "val/return"}


@dataclass(frozen=True)
class Cell:
    """One run of post-training.

    Args:
        task: MetaWorld's, or another that something is scripted for.
        seed: of demonstrations, clone and post-training.
        buffer: iterations of data that the buffer holds.
        objective: bare name or class path, with options after a colon: `PPOClip:clip=0.5`.
    """

    task: str
    seed: int
    buffer: int
    objective: str

    @property
    def clone(self) -> Path:
        """The folder of the clone that it starts from, within the study's."""
        return Path(self.task) / f"seed-{self.seed}" / "clone"

    @property
    def folder(self) -> Path:
        """The folder of the run, within the study's."""
        return Path(self.task) / f"seed-{self.seed}" / f"buffer-{self.buffer}-{self.objective}"


@dataclass(frozen=True)
class Makers:
    """What makes runs: commands, and forks that train. They end together.

    Args:
        options: of the study.
    """

    options: argparse.Namespace
    commands: Commands = field(default_factory=Commands)
    forks: Forks = field(default_factory=Forks)

    def end(self, patience: float = 0.0) -> None:
        """End whatever runs, and let nothing begin."""
        self.commands.end(patience)
        self.forks.end(patience)

    def clone(self, cell: Cell) -> None:
        """Demonstrate the task of a cell, and clone what was shown."""
        shown, args = self._shown(cell), self._demonstrating(cell)
        once(
            shown, "gipo-demos", args,
            lambda lock: self.commands.run("gipo-demos", args, shown / "gipo-demos.txt", lock), fresh=True,
            waiting=self.commands.refuse_when_ended,
        )  # fmt: skip
        self.forks.fit(self.options.out / cell.clone, self._cloning(cell), args)

    def post_train(self, cell: Cell) -> None:
        """Post-train the clone of a cell by its objective; only the figures are kept."""
        options, folder, every = self.options, self.options.out / cell.folder, self.options.frames_per_iteration
        self.forks.fit(
            folder,
            [
                "--config=from_demonstrations.yaml",
                f"--model.init_from={options.out / cell.clone / 'checkpoints' / 'last.ckpt'}",
                f"--data.total_frames={options.frames}", f"--data.frames_per_iteration={every}",
                f"--data.capacity={cell.buffer * every}", "--data.collector.workers=0", "--checkpoint.every=10",
                *self._shared(cell, -(-options.frames // every)), *objective_flags(cell.objective),
                *(f"--{each}" for each in options.post),
            ],
            (*self._cloning(cell), *self._demonstrating(cell)),
        )  # fmt: skip
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # 10 MB each, of hundreds of runs

    def is_made(self, cell: Cell) -> bool:
        """Whether the run of a cell has come to its end."""
        return is_done(self.options.out / cell.folder, FIT)

    def row(self, cell: Cell) -> Row:
        """What the finished run of a cell comes to, beside its clone."""
        before, after = (scores(self.options.out / folder) for folder in (cell.clone, cell.folder))
        found: Row = {"task": cell.task, "seed": cell.seed, "buffer": cell.buffer, "objective": cell.objective}
        for name in SCORES:
            found |= {f"{name}_before": before[name], f"{name}_after": after[name]}
        return found

    def _shown(self, cell: Cell) -> Path:
        """The folder of the demonstrations that a cell's clone learns from."""
        return (self.options.out / cell.clone).with_name("demonstrations")

    def _demonstrating(self, cell: Cell) -> list[str]:
        """Options of `gipo-demos`."""
        options = self.options
        return [
            f"--task={cell.task}", f"--out={self._shown(cell) / 'data'}", f"--episodes={options.demonstrations}",
            f"--noise={options.noise:g}", f"--seed={cell.seed}",
        ]  # fmt: skip

    def _cloning(self, cell: Cell) -> list[str]:
        """Options of `gipo fit` for the clone."""
        shown, options = self._shown(cell), self.options
        return [
            "--config=bc.yaml", f"--data.logs={shown / 'data'}", f"--data.ingest.cache={shown / 'stores'}",
            "--data.ingest.workers=1", f"--data.iterations={options.iterations}",
            *self._shared(cell, options.iterations), *(f"--{each}" for each in options.clone),
        ]  # fmt: skip

    def _shared(self, cell: Cell, iterations: int) -> list[str]:
        """Options of every training: seed, task, and one evaluation, after the last iteration."""
        return [
            *PLAIN, f"--seed_everything={cell.seed}", f"--data.task={cell.task}",
            f"--data.evaluation.episodes={self.options.episodes}", f"--trainer.check_val_every_n_epoch={iterations}",
        ]  # fmt: skip


def scores(folder: Path) -> dict[str, float]:
    """What the evaluation at the end of a run found.

    Raises:
        UserError: when there is none.
    """
    last = read_curves(folder)[-1]
    if not all(column in last for column in SCORES.values()):
        raise UserError(f"{folder / 'curves.csv'} does not end with an evaluation that tells success; delete {folder}")
    return {name: last[column] for name, column in SCORES.items()}
