"""`gipo-study NAME --out FOLDER`: studies of the objectives, each a module with `add_arguments` and `run`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from gipo.common import boundary
from gipo.errors import GipoError
from gipo.studies import gridworld, loop, posttrain, staleness, theory

# A study's docstring is its help: the first line says what it is, the rest what it writes.
STUDIES: dict[str, ModuleType] = {
    "gridworld": gridworld,
    "theory": theory,
    "loop": loop,
    "posttrain": posttrain,
    "staleness": staleness,
}

DESCRIPTION = """Studies of the objectives and of the whole loop.

  gipo-study gridworld --out studies/gridworld    exact bias and variance of every objective's gradient
  gipo-study theory --out studies/theory          trust weights, their bound, coverage of concentration intervals
  gipo-study loop --out studies/loop              train, deploy on a robot unlike the simulator, post-train, compare
  gipo-study posttrain --out studies/posttrain    what each objective gains from the same stale logs
  gipo-study staleness --out studies/staleness    every objective on data from near on-policy to highly stale
  gipo-study NAME --help                          what a study writes, and its options
"""


def build_parser() -> argparse.ArgumentParser:
    """One subcommand for each study."""
    parser = argparse.ArgumentParser(
        "gipo-study", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name, module in STUDIES.items():
        words = module.__doc__ or ""
        child = subparsers.add_parser(
            name,
            help=words.partition("\n")[0],
            description=words,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        child.add_argument(
            "--out", type=Path, default=Path("studies") / name, help="folder for its files (default: %(default)s)"
        )
        module.add_arguments(child)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of `gipo-study`. Exit codes: 0 done, 2 bad input, 130 interrupted; see `gipo.common.boundary`."""
    code = boundary.run("gipo-study", _run, args)
    if code:
        sys.exit(code)


def _run(args: Sequence[str]) -> None:
    options = build_parser().parse_args(args)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GipoError(f"--out {options.out} is no folder that can be written to: {error}") from error
    study = STUDIES[options.study]
    study.run(options)
    print(study.files(options) if hasattr(study, "files") else names(options.out))


def names(folder: Path) -> str:
    """What a study that says no more of its files wrote."""
    return f"{folder} holds " + ", ".join(sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    main()
