"""`python -m benchmarks.bins`: how few bins an action dimension takes to learn as well, over tasks and seeds.

Every run is `gipo fit` with the default recipe and the plain loop, one after another in this process; its row is
appended to the table when it ends, and a run that has a row is not repeated. Bins take turns within a seed, so
that a table which is not complete is fair too. `--summary` prints means, and differences in pairs.
"""

import argparse
import csv
import itertools
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from gipo.cli import main as gipo
from gipo.commands.studies.run_tables import read_curves

TASKS = ("reach-v3", "window-close-v3", "door-close-v3", "coffee-button-v3")
SEEDS, BINS = (0, 1, 2), (33, 256, 65, 101)
STEPS = 50_000
TABLE = Path("runs/bins.csv")  # of today's recipe; docs/data/bins.csv holds the runs of an older one
COLUMNS = ("task", "seed", "bins", "steps", "area", "final")

Run = tuple[str, int, int]  # task, seed, bins


def build_parser() -> argparse.ArgumentParser:
    """The options of the race."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bins", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--bins", nargs="+", type=int, default=BINS, metavar="N")
    parser.add_argument("--steps", type=int, default=STEPS, help="environment steps of a run (%(default)s)")
    parser.add_argument("--table", type=Path, default=TABLE, help="CSV file to append to (%(default)s)")
    parser.add_argument("--summary", action="store_true", help="print the means of the table, and run nothing")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Make the runs that the table lacks; or print what it says."""
    options = build_parser().parse_args(given)
    if not options.summary:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        for seed, task, bins in itertools.product(options.seeds, options.tasks, options.bins):
            if (task, seed, bins) not in read(options.table, options.steps):
                append(options.table, (task, seed, bins), options.steps)
    for line in summary(read(options.table, options.steps)):
        print(line)


def read(table: Path, steps: int) -> dict[Run, tuple[float, float]]:
    """Area under the curve of training success, and final success, of the runs of so many steps in the table."""
    if not table.exists():
        return {}
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["steps"]) == steps]
    return {
        (row["task"], int(row["seed"]), int(row["bins"])): (float(row["area"]), float(row["final"])) for row in rows
    }


def append(table: Path, run: Run, steps: int) -> None:
    """Make a run, and append its row."""
    task, seed, bins = run
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "data.task": task, "data.total_frames": steps, "data.collector.workers": 0, "seed_everything": seed,
            "model.policy": "TokenPolicy", "model.policy.bins": bins, "trainer.limit_val_batches": 0,
            "trainer.logger": "false", "trainer.enable_progress_bar": "false", "trainer.default_root_dir": folder,
        }  # fmt: skip
        gipo(["fit", *(f"--{name}={value}" for name, value in options.items())])
        # Before the first episode has ended nothing has succeeded.
        success = [row.get("train/success", 0.0) for row in read_curves(Path(folder))]
    begins = not table.exists()
    with open(table, "a", newline="") as file:
        writer = csv.writer(file)
        if begins:
            writer.writerow(COLUMNS)
        writer.writerow([*run, steps, round(statistics.mean(success), 4), success[-1]])


def summary(runs: dict[Run, tuple[float, float]]) -> Iterable[str]:
    """A line for each number of bins, against the most bins on the tasks and seeds that both have."""
    by_bins: dict[int, dict[tuple[str, int], tuple[float, float]]] = defaultdict(dict)
    for (task, seed, bins), figures in runs.items():
        by_bins[bins][task, seed] = figures
    if not by_bins:
        return
    most = by_bins[max(by_bins)]
    yield f"bins   runs   area   final   area less that of {max(by_bins)} bins, ± standard error"
    for bins, of_one in sorted(by_bins.items()):
        pairs = [pair for pair in of_one if pair in most]
        if not pairs:
            yield f"{bins:4} {0:6}   none of its {len(of_one)} runs is of a task and seed that {max(by_bins)} bins have"
            continue
        area, final = (statistics.fmean(of_one[pair][index] for pair in pairs) for index in (0, 1))
        differences = [of_one[pair][0] - most[pair][0] for pair in pairs]
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        yield f"{bins:4} {len(pairs):6} {area:6.3f} {final:7.3f}   {statistics.fmean(differences):+.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
