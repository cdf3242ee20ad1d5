"""Curves of several runs in one table and one figure: `python -m benchmarks.curves NAME=RUN … --csv A --figure B`.

RUN is a folder of `gipo fit`, finished or not; without any, the figure is drawn from the table. A row of the table is
an evaluation, with means of the training metrics since the one before.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gipo.callbacks.plots import pyplot, save_figure
from gipo.common.errors import UserError
from gipo.common.tables import write_table

Row = dict[str, Any]  # `run`, its name, `step`, environment steps, and metrics
EVALUATED = ("val/success", "val/success_low", "val/success_high", "val/success_last", "val/return")
TRAINED = (
    "train/success",
    "train/return",
    "staleness/age_mean",
    "ratio/log_abs_p95",
    "weight/ppo_dead",
    "ess/all",
    "kl",
)
PANELS = {
    "val/success": "success at any step, 95 % interval",
    "val/return": "return",
    "ess/all": "effective sample size, share",
    "weight/ppo_dead": "dead to PPO's clip, share",
}


def rows(name: str, run: Path) -> list[Row]:
    """The evaluations of a run, in order; of a run that was resumed, what it repeated counts once.

    Raises:
        UserError: when the folder holds no metrics.
    """
    logged: list[dict[str, float]] = []
    files = sorted(run.glob("csv/version_*/metrics.csv"), key=lambda file: int(file.parent.name.split("_")[1]))
    if not files:
        raise UserError(f"{run} is no run of `gipo fit`: it has no csv/version_0/metrics.csv")
    for file in files:
        with open(file, newline="") as lines:
            new = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]
        begun = min((row["step"] for row in new), default=float("inf"))
        logged = [row for row in logged if row["step"] < begun] + new
    return list(_evaluations(name, logged))


def _evaluations(name: str, logged: Sequence[dict[str, float]]) -> Iterator[Row]:
    since: list[dict[str, float]] = []
    for row in logged:
        if "val/success" not in row:
            since.append(row)
            continue
        means = {key: [one[key] for one in since if key in one] for key in TRAINED}
        yield {
            "run": name,
            "step": int(row["step"]),
            **{key: row[key] for key in EVALUATED if key in row},
            **{key: sum(values) / len(values) for key, values in means.items() if values},
        }
        since = []


def read(path: Path) -> list[Row]:
    """The rows of a table that was written before.

    Raises:
        UserError: when it is another one.
    """
    try:
        with open(path, newline="") as lines:
            table = [
                {key: value if key == "run" else float(value) for key, value in row.items() if value}
                for row in csv.DictReader(lines)
            ]
    except (TypeError, ValueError) as error:
        raise UserError(f"--csv={path} is no table of curves: {error}") from error
    if not all({"run", "step"} <= row.keys() for row in table):
        raise UserError(f"--csv={path} is no table of curves: it needs run, step")
    return table


def draw(table: Sequence[Row], path: Path) -> None:
    """Success, return, and how much of the data still moves the policy; a line for each run."""
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7), layout="constrained")
    for panel, (column, label) in zip(axes.flat, PANELS.items(), strict=True):
        for name in dict.fromkeys(row["run"] for row in table):
            points = [row for row in table if row["run"] == name and column in row]
            x = [row["step"] / 1000 for row in points]
            (line,) = panel.plot(x, [row[column] for row in points], marker=".", label=name)
            if column == "val/success":
                low, high = ([row[f"{column}_{end}"] for row in points] for end in ("low", "high"))
                panel.fill_between(x, low, high, alpha=0.15, color=line.get_color())
        panel.set_xlabel("thousand environment steps")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0, top=None if column == "val/return" else 1.02)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    save_figure(figure, path)


def build_parser() -> argparse.ArgumentParser:
    """Runs, and the files to write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN", help="what to call a run, and its folder")
    parser.add_argument("--csv", type=Path, required=True, help="table to write; to read where no run is named")
    parser.add_argument("--figure", type=Path, required=True, help="PNG to write")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Write the files; exits with 2 where a run is none."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    try:
        named = [run.rpartition("=") for run in given.runs]
        if named:
            write_table([row for name, _, run in named for row in rows(name, Path(run))], given.csv)
        draw(read(given.csv), given.figure)
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
