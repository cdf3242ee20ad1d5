"""Tables of runs: read again as a study has written them, and by the values of their columns."""

import argparse
import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

from gipo.common.errors import UserError
from gipo.common.tables import write_table

Columns = Mapping[str, Callable[[str], Any]]  # their names, and what makes of a text what they hold
# Options that choose among runs, and the columns that they choose by.
SELECT = {
    "tasks": "task",
    "seeds": "seed",
    "ages": "age",
    "back": "back",
    "buffers": "buffer",
    "objectives": "objective",
}


def read_runs(path: Path, columns: Columns, perhaps: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of a runs.csv, each of these columns by its type.

    Args:
        path: of the file.
        columns: with their types.
        perhaps: those of them that a row has only where its task tells of it, as of success.

    Raises:
        UserError: when there is no such file, it has no rows, or a column is missing, of another type or not finite.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # of a spreadsheet, perhaps
            rows = [
                {name: _as(kind, row[name]) for name, kind in columns.items() if name not in perhaps or row.get(name)}
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"--runs {path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"--runs {path} is not a runs.csv of this study: it needs "
            f"{', '.join(name for name in columns if name not in perhaps)}; {error!r}"
        ) from error
    if not rows:
        raise UserError(f"--runs {path} has no rows")
    return rows


def rate(text: str) -> float:
    """A column's type: the share of episodes that succeed, from 0 to 1.

    Raises:
        ValueError: when it is another number, or none.
    """
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text} is no rate from 0 to 1")
    return value


def _as(kind: Callable[[str], Any], text: str) -> Any:
    found = kind(text)
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"{text} is no finite number")  # every pair with it would count as lost
    return found


def read_curves(folder: Path) -> list[dict[str, float]]:
    """Rows of the curves.csv in the folder of a run, one for each iteration: what was logged of it.

    Raises:
        UserError: when there is no such file, it has no rows or ends within one, or one of them holds what is no
            number, or an evaluation that is not finite.
    """
    path = folder / "curves.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            text = file.read()
        found = csv.DictReader(io.StringIO(text, newline=""))
        rows = [{name: float(value) for name, value in row.items() if value} for row in found]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}; delete {folder}") from error
    if text and not text.endswith("\n"):  # a number that was cut short is another number
        raise UserError(f"{path} ends within a row; delete {folder}")
    if not rows:
        raise UserError(f"{path} has no rows; delete {folder}")
    evaluated = (value for row in rows for name, value in row.items() if name.startswith("val/"))
    if not all(map(math.isfinite, evaluated)):
        raise UserError(f"{path} holds an evaluation that is no finite number; delete {folder}")
    return rows


def made_or_read(
    options: argparse.Namespace, make: Callable[[argparse.Namespace], list[dict[str, Any]]],
    columns: Columns, *axes: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of a study: those that it makes, written to runs.csv, or those of the file that `--runs` names.

    Args:
        options: with `runs` and `out`.
        make: the runs.
        columns: of a runs.csv that is read, with their types.
        axes: columns whose values are compared, beside the seed.
    """
    if options.runs is not None:
        rows = selected(read_runs(options.runs, columns), options)
        refuse_uneven(rows, *axes)
        return rows
    rows = make(options)
    write_table(rows, options.out / "runs.csv")
    return rows


def selected(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Those rows of a file that the options of a study ask for, in the order in which these name their values.

    Args:
        rows: a run each.
        options: with `given`, the names of those that the user gave.

    Raises:
        UserError: when an option has no column, or a value no run.
    """
    for name in sorted(options.given - {"runs", "out"}):
        column = SELECT.get(name)
        if column not in rows[0]:
            raise UserError(
                f"--{name} beside --runs: nothing is run, and no column of the file tells of it; leave it out"
            )
        there, wanted = distinct(rows, column), getattr(options, name)
        if missing := [each for each in wanted if each not in there]:
            raise UserError(f"--{name} {missing[0]}: --runs has none; it has {', '.join(map(str, there))}")
        rows = [row for value in wanted for row in rows if row[column] == value]
    return rows


def refuse_uneven(rows: Sequence[Mapping[str, Any]], *axes: str) -> None:
    """Refuse a run that is there twice, which intervals would count as two, and cells of which runs are missing.

    Args:
        rows: a run each.
        axes: columns whose values are compared, beside the seed.

    Raises:
        UserError: naming the run, or the cell and how many runs it lacks.
    """
    runs = Counter(tuple(row[axis] for axis in (*axes, "seed")) for row in rows)
    (most, times), *_ = runs.most_common(1)
    if times > 1:
        raise UserError(f"--runs: {_named((*axes, 'seed'), most)} is there {times} times; each run counts once")
    cells = Counter(run[:-1] for run in runs)
    for cell in product(*(distinct(rows, axis) for axis in axes)):
        if cells[cell] < max(cells.values()):
            raise UserError(
                f"--runs: {cells[cell]} runs of {_named(axes, cell)}, where others have {max(cells.values())}; make "
                "them, or leave its like out of the file"
            )


def refuse_unpaired(rows: Sequence[Mapping[str, Any]], **cells: Iterable[Any]) -> None:
    """Refuse rows of which a cell lacks a seed of the others, where they are compared in pairs of one seed.

    Args:
        rows: a run each.
        cells: columns with the values that every seed must have.

    Raises:
        UserError: naming the run that is not there.
    """
    columns = (*cells, "seed")
    there = {tuple(row[column] for column in columns) for row in rows}
    for run in product(*cells.values(), distinct(rows, "seed")):
        if run not in there:
            raise UserError(f"--runs: no run of {_named(columns, run)}; runs are compared in pairs of one seed")


def _named(axes: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in zip(axes, values, strict=True))


def distinct(rows: Sequence[Mapping[str, Any]], *columns: str) -> list[Any]:
    """The values of a column, or tuples of those of several, in the order in which they come."""
    return list(dict.fromkeys(map(itemgetter(*columns), rows)))
