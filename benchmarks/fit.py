"""What `gipo fit` does on this machine, and how it compares with another checkout: steps/s, start-up, memory.

    python -m benchmarks fit                                    this checkout alone; peak memory has a bound
    python -m benchmarks.fit --against PATH [--turns N] [-- OPTION …]

The default recipe, shortened, as a user types it, in a process of its own; a callback notes when iterations and
evaluations end, and every process of the run is watched. PATH is a clone with a virtual environment in `.venv`; the two
take turns, and ratios are medians over the turns, by the clock and by processor time.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training.marks import read
from benchmarks.training.process_tree import watched
from benchmarks.training.timing import Training, figures, simulator
from gipo.common.errors import UserError
from gipo.common.parsing import whole

ROOT, TRAINING = Path(__file__).parents[1], Path(__file__).parent / "training"
STEPS, BOUND_MIB = 30_000, 1.2 * 1024


def run(steps: int = STEPS) -> dict[str, Any]:
    """Figures of this checkout."""
    found = one_run(Path(sys.executable), steps)
    return {**found, "bound_mib": BOUND_MIB, "ok": found["peak_mib"] <= BOUND_MIB}


def one_run(python: Path, steps: int, options: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of a run of `steps` environment steps of the default recipe.

    Args:
        python: interpreter of the virtual environment whose gipo trains.
        steps: environment steps.
        options: of `gipo fit`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A copy, found in the working folder: another checkout has no clock, or another one.
        shutil.copytree(TRAINING, folder / "timed", ignore=shutil.ignore_patterns("__pycache__"))
        marks = folder / "marks.jsonl"
        arguments = [
            "-m", "gipo.cli", "fit", f"--data.total_frames={steps}", f"--trainer.default_root_dir={folder / 'run'}",
            "--trainer.callbacks+=timed.clock.Clock", f"--trainer.callbacks.file={marks}", *options,
        ]  # fmt: skip
        usage = watched([str(python), *arguments], folder, folder / "log")
        found = figures(Training(read(marks), usage.started), usage)
        return {**found, "simulator": simulator(folder / "run")}


def compare(against: Path, turns: int, steps: int, options: Sequence[str] = ()) -> dict[str, Any]:
    """Figures of this checkout and of another, and the medians of their ratios, over `turns` turns.

    Raises:
        UserError: when there is no virtual environment in the other checkout.
    """
    other = against / ".venv" / "bin" / "python"
    if not other.exists():
        raise UserError(
            f"--against={against}: it has no {other.relative_to(against)}; make one with its own `make lint`"
        )
    sides: dict[str, list[dict[str, Any]]] = {"this": [], "against": []}
    for _ in range(turns):
        for side, python in (("this", Path(sys.executable)), ("against", other.absolute())):
            sides[side].append(one_run(python, steps, options if side == "this" else ()))
    names = [name for name in sides["this"][0] if name != "simulator"]
    return {
        "turns": turns,
        **{f"{side}_{name}": median(one[name] for one in runs) for side, runs in sides.items() for name in names},
        **{f"{side}_simulator": runs[0]["simulator"] for side, runs in sides.items()},
        "steps_per_s_ratio": _ratio(sides, "steps_per_s"),
        "processor_time_ratio": 1 / _ratio(sides, "processor_s_per_1000_steps"),
    }


def _ratio(sides: dict[str, list[dict[str, Any]]], name: str) -> float:
    return median(this[name] / other[name] for this, other in zip(sides["this"], sides["against"], strict=True))


def build_parser() -> argparse.ArgumentParser:
    """The options of the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--against", type=Path, required=True, metavar="PATH", help="a clone of another version")
    add("--turns", type=whole(1, 1000), default=3, help="runs of each (%(default)s)")
    add("--steps", type=whole(1, 10**10), default=STEPS, help="environment steps of a run (%(default)s)")
    add("options", nargs="*", metavar="-- OPTION", help="options of this checkout's `gipo fit`, after --")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison as one JSON line; exits with 2 where it cannot be made."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(compare(given.against, given.turns, given.steps, given.options)))
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
