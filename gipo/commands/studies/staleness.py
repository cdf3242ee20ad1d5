"""Every objective trained on data from near on-policy to highly stale: the paper's experiment, at a size that fits.

The axis is the age of the replay buffer, and nothing else: every run makes the same number of environment steps and of
updates; only how many of the latest iterations its buffer holds differs. (The paper's stale regime also makes fifty
times as many updates for each environment step.) Episodes are staggered, so that the newest iteration holds all phases
of an episode. Everything else is our recipe, with its advantages recomputed by the current critic; give
--train data.advantages=stored for those of the paper, stored when data arrive. Runs go side by
side, each a `gipo fit` in a folder of its own, all of one seed before the next:

  gipo-study staleness --tasks reach-v3 --seeds 22 64 99 --objectives GIPO GIPO:sigma=0.5 PPOClip --ages 1 16 128

Writes runs.csv (every run: final return and success, measured age, what became of old samples), staleness.csv
(interquartile means over tasks and seeds with 95 % intervals), improvement.csv (by how much, and how probably, the
first objective is better than another), tasks.csv (means of every task), settings.csv (of every objective the mean and
the worst over the ages, and which setting of its class is best), profiles.csv, staleness.png, profiles.png and
staleness.md. A finished run is not run again, an interrupted one goes on: the same command ends with the tables of a
study that nobody stopped.
--runs FILE … makes the tables and figures of such runs.csv again, and runs nothing; LABEL=FILE adds the label to its
objectives, so that studies of the same tasks can be compared on one scale.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from tqdm.auto import tqdm

from gipo.commands.studies.options import (
    add_more,
    add_numbers,
    add_objectives,
    add_runs,
    objective_flags,
    refuse_no_task,
    refuse_settled,
    refuse_twice,
    refuse_unknown,
)
from gipo.commands.studies.pipeline.forks import FIT, Forks
from gipo.commands.studies.pipeline.once import is_done
from gipo.commands.studies.pipeline.processes import all_made, side_by_side
from gipo.commands.studies.run_tables import Columns, distinct, rate, read_curves, read_runs, refuse_uneven, selected
from gipo.commands.studies.staleness_figures import (
    MECHANISM,
    SCORES,
    Row,
    by_task,
    improvements,
    plot_profiles,
    plot_staleness,
    profiles,
    report,
    settings,
    summarise,
)
from gipo.common.errors import UserError
from gipo.common.files import write_text
from gipo.common.parsing import whole
from gipo.common.tables import write_table

# Out of phase, or the age of data would be the phase of its episode; and rarely begun anew, so that episodes are whole.
# In one process, so that a buffer of one iteration holds data of age 0.
RECIPE = (
    "data.rounds=8", "data.collector.num_envs=10", "data.collector.stagger=true", "data.collector.workers=0",
    "checkpoint.every=64",
)  # fmt: skip
AXIS = ("data.task", "data.capacity", "data.frames_per_iteration", "data.total_frames", "data.evaluation.episodes",
        "trainer.check_val_every_n_epoch", "trainer.limit_val_batches", "model.objective", "seed_everything",
        "trainer.default_root_dir")  # fmt: skip
PERHAPS = ("success", "success_last")  # Gymnasium's tasks tell of none
COLUMNS: Columns = {
    "task": str, "age": int, "objective": str, "seed": int, **dict.fromkeys((*SCORES, *MECHANISM), float),
    **dict.fromkeys(PERHAPS, rate),
}  # fmt: skip
AGES = [1, 16, 128]


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        task: MetaWorld task or Gymnasium id.
        age: iterations of data that the buffer holds.
        objective: class path or bare name, with options after a colon: `GIPO:sigma=0.5,sigma_neg_ratio=0.5`.
        seed: of everything.
    """

    task: str
    age: int
    objective: str
    seed: int

    @property
    def folder(self) -> Path:
        """The folder of this run within that of the study."""
        return Path(self.task) / f"age-{self.age}" / self.objective / f"seed-{self.seed}"

    def options(self, frames: int, frames_per_iteration: int, episodes: int) -> list[str]:
        """Options of `gipo fit`, beside the recipe."""
        return [
            f"--seed_everything={self.seed}",
            f"--data.task={self.task}",
            f"--data.total_frames={frames}",
            f"--data.frames_per_iteration={frames_per_iteration}",
            f"--data.capacity={self.age * frames_per_iteration}",
            f"--data.evaluation.episodes={episodes}",
            f"--trainer.check_val_every_n_epoch={iterations(frames, frames_per_iteration)}",  # the last one
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
            *objective_flags(self.objective),
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which runs are compared, and how long each is."""
    parser.add_argument("--tasks", nargs="+", default=["reach-v3"], help="tasks (default: %(default)s)")
    add_runs(parser, [22, 64, 99], "run")
    add_objectives(parser, ["GIPO", "PPOClip", "SAPO", "NoClip"], "; options after a colon, GIPO:sigma=0.5")
    parser.add_argument(
        "--ages", type=whole(1, 10**6), nargs="+",
        help="iterations of data, which is policy versions, that the buffer holds "
        f"(default: {' '.join(map(str, AGES))}; with --runs all that are there)",
    )  # fmt: skip
    add_numbers(parser, "--frames", 32_000, 10**10, "environment steps of a run")
    add_numbers(parser, "--frames-per-iteration", 250, 10**7, "environment steps of an iteration")
    add_numbers(parser, "--episodes", 20, 10**5, "episodes of the final evaluation")
    add_more(parser, "--train", "`gipo fit`")
    parser.add_argument(
        "--runs", nargs="+", default=[], metavar="[LABEL=]FILE", help="runs.csv: write what they come to, run nothing"
    )


def run(options: argparse.Namespace) -> None:
    """Run what is not finished, and write what came out."""
    if options.runs:
        rows = selected(compared_runs(options.runs), options)
        refuse_uneven(rows, "task", "age", "objective")
    else:
        rows = run_all(options)
        write_table(rows, options.out / "runs.csv")
    table, compared, curves = summarise(rows), improvements(rows), profiles(rows)
    write_table(table, options.out / "staleness.csv")
    write_table(compared, options.out / "improvement.csv")
    write_table(curves, options.out / "profiles.csv")
    write_table(by_task(rows), options.out / "tasks.csv")
    write_table(settings(table), options.out / "settings.csv")
    plot_staleness(table, options.out / "staleness.png")
    plot_profiles(curves, options.out / "profiles.png")
    tasks, cells = distinct(rows, "task"), distinct(rows, "task", "age", "objective")
    text = report(table, compared, len(tasks), len(rows) // len(cells))
    write_text(text + "\n", options.out / "staleness.md")
    print(f"\n{text}")


def compared_runs(files: Sequence[str]) -> list[Row]:
    """Rows of `[LABEL=]FILE`s; a label is added to the names of its objectives.

    Raises:
        UserError: as `read_runs` does, and where some runs of a task tell of success and others do not.
    """
    rows: list[Row] = []
    for each in files:
        label, equals, path = each.partition("=")
        if not equals or Path(each).exists():  # a name may have an equals sign of its own
            label, path = "", each
        found = read_runs(Path(path), COLUMNS, PERHAPS)
        rows += [row | {"objective": f"{row['objective']} {label}".strip()} for row in found]
    for task, name in product(distinct(rows, "task"), PERHAPS):
        if len({name in row for row in rows if row["task"] == task}) > 1:
            raise UserError(f"--runs {' '.join(files)}: some runs of {task} have no {name}, and others do")
    return rows


def run_all(options: argparse.Namespace) -> list[Row]:
    """Run what is not finished; a row for every run."""
    options.ages = options.ages or AGES
    _refuse(options)
    forks = Forks()
    extra = [f"--{option}" for option in (*RECIPE, *options.train)]
    cells = list(product(options.tasks, options.ages, options.objectives))
    plan = [Run(*cell, seed) for seed in options.seeds for cell in cells]
    finished = {one for one in plan if is_done(options.out / one.folder, FIT)}

    def train(one: Run) -> Row:
        folder = options.out / one.folder
        forks.fit(folder, one.options(options.frames, options.frames_per_iteration, options.episodes) + extra)
        if one not in finished:
            bar.update()
        return read_run(one, folder)

    with (
        tqdm(total=len(plan), initial=len(finished), desc="staleness", unit="run", smoothing=0) as bar,
        side_by_side(forks, options.processes) as pool,
    ):
        return all_made([pool.submit(train, one) for one in plan], options.out / "runs.csv")


def iterations(frames: int, frames_per_iteration: int) -> int:
    """Training iterations of a run."""
    return -(-frames // frames_per_iteration)


def read_run(one: Run, folder: Path) -> Row:
    """What a finished run comes to.

    Final scores are those of the evaluation after the last iteration; the rest are means over the second half of the
    run's iterations, when the buffer is as old as it gets.

    Raises:
        UserError: when its curves cannot be read, or hold no evaluation, or no staleness.
    """
    rows = read_curves(folder)
    second_half = rows[len(rows) // 2 :]
    if "val/return" not in rows[-1] or not all(column in rows[-1] for column in MECHANISM.values()):
        raise UserError(
            f"{folder / 'curves.csv'} does not end with an evaluation and its staleness figures; delete its folder"
        )
    return {
        "task": one.task,
        "age": one.age,
        "objective": one.objective,
        "seed": one.seed,
        **{name: rows[-1][column] for name, column in SCORES.items() if column in rows[-1]},
        **{name: fmean(row[column] for row in second_half if column in row) for name, column in MECHANISM.items()},
    }


def _refuse(options: argparse.Namespace) -> None:
    """Raise a UserError for what cannot be a study."""
    refuse_twice(options, "tasks", "seeds", "objectives", "ages")
    longest = iterations(options.frames, options.frames_per_iteration)
    if max(options.ages) > longest:
        raise UserError(f"--ages {max(options.ages)}: a run of {options.frames} frames has only {longest} iterations")
    refuse_unknown(options.objectives)
    refuse_no_task(options.tasks)
    refuse_settled(options, "train", AXIS)
