"""Runs of the race: each a `gipo fit` in a folder of its own, and what it comes to."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm

from gipo.commands.studies.pipeline.forks import ALONE, FIT, Forks
from gipo.commands.studies.pipeline.once import is_done
from gipo.commands.studies.pipeline.processes import all_made, side_by_side
from gipo.commands.studies.recipe.candidates import Factors
from gipo.commands.studies.recipe.dealing import Trial
from gipo.commands.studies.run_tables import read_curves
from gipo.common.errors import UserError
from gipo.common.tables import write_table

Row = dict[str, Any]
EVERY = 20_000  # environment steps from one evaluation to the next
EVALUATED = f"trainer.check_val_every_n_epoch={EVERY // 1000}"  # by iterations of 1 000 steps


@dataclass(frozen=True)
class Race:
    """Makes runs side by side.

    Args:
        factors: options behind each level.
        frames: environment steps of a run.
        more: options of `gipo fit` that all runs have.
        processes: runs at a time.
        forks: that make them, and hold those of all rounds to one version.
    """

    factors: Factors
    frames: int
    more: Sequence[str]
    processes: int
    forks: Forks

    def table(
        self, trials: Mapping[Path, tuple[Row, Trial]], path: Path, bar: tqdm, before: Sequence[Row]
    ) -> list[Row]:
        """A table at `path` with a row for every run; those that have come to their end are not made again.

        Args:
            trials: by folder, what a row begins with, and its trial.
            path: of the table.
            bar: of all runs; those that were made by an earlier call count, and their time, which is none, does not.
            before: rows that the table begins with.

        Raises:
            UserError: when runs fail; the rows of all others stand in the table.
        """

        def one(folder: Path) -> Row:
            said, trial = trials[folder]
            there = is_done(folder, FIT)
            row = {**said, **self._row(folder, trial)}
            bar.initial += there  # what is left is reckoned by the others
            bar.update()
            return row

        with side_by_side(self.forks, self.processes) as pool:
            rows = [*before, *all_made([pool.submit(one, folder) for folder in trials], path, before)]
        write_table(rows, path)
        return rows

    def _row(self, folder: Path, trial: Trial) -> Row:
        chosen = [option for factor, level in trial.levels.items() for option in self.factors[factor][level]]
        options = [f"data.task={trial.task}", f"seed_everything={trial.seed}", f"data.total_frames={self.frames}"]
        self.forks.fit(folder, [f"--{option}" for option in (*ALONE, EVALUATED, *options, *chosen, *self.more)])
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # 10 MB each, of hundreds of runs
        return {"task": trial.task, "seed": trial.seed, "frames": self.frames, **scores(folder), **trial.levels}


def scores(folder: Path) -> dict[str, float]:
    """Of a run: mean success over its evaluations, which is the area under its curve, and that of the last one.

    Raises:
        UserError: when it has not been evaluated.
    """
    rows = [row for row in read_curves(folder) if "val/success" in row]
    if not rows and any("val/return" in row for row in read_curves(folder)):
        raise UserError(f"the task of {folder} tells no success, by which recipes are compared; name others in --tasks")
    if not rows:
        raise UserError(f"{folder / 'curves.csv'} holds no evaluation; delete {folder}, or let runs be longer")
    success = [row["val/success"] for row in rows]
    return {
        "area": round(fmean(success), 4),
        "final": round(success[-1], 4),
        "return": round(rows[-1]["val/return"], 1),
    }
