"""`gipo-study NAME --out FOLDER`: studies of the objectives, each a module with `add_arguments` and `run`."""

import argparse
import ast
import importlib
import importlib.util
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gipo.common import boundary, signals
from gipo.common.errors import UserError
from gipo.common.parsing import Parser, path
from gipo.common.terminal import tell

# A study's docstring is its help: the first line says what it is, the rest what it writes.
STUDIES: dict[str, str] = {
    name.partition(".")[0]: f"gipo.commands.studies.{name}"
    for name in (
        "gridworld",
        "theory",
        "loop",
        "posttrain",
        "people",
        "staleness",
        "recipe",
        "fifty.study",
        "demonstrations",
    )
}

DESCRIPTION = "Studies of the objectives and of the whole loop. `gipo-study NAME --help` says what one writes."


def build_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """One subcommand for each study; only the one that is wanted is imported, to have its options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser("gipo-study", description=DESCRIPTION, epilog=boundary.DEBUG_HELP, formatter_class=layout)
    subparsers = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name, module in STUDIES.items():
        words = _docstring(module)
        child = subparsers.add_parser(
            name,
            help=words.partition("\n")[0],
            description=words,
            epilog=boundary.DEBUG_HELP,
            formatter_class=layout,
        )
        child.add_argument(
            "--out", type=path, default=Path("studies") / name, help="folder for its files (default: %(default)s)"
        )
        if name == wanted:
            importlib.import_module(module).add_arguments(child)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of `gipo-study`. Exit codes: 0 done, 2 bad input, 128 + n ended by signal n; see `boundary`."""
    # Ctrl-C at a terminal is heard by all that a study started too; of these it has to tell them.
    with signals.Listener((signal.SIGTERM, signal.SIGHUP)):
        code = boundary.run("gipo-study", _run, args)
    if code:
        sys.exit(code)


def _run(args: Sequence[str]) -> None:
    wanted = next((argument for argument in args if argument in STUDIES), None)
    options = build_parser(wanted).parse_args(args)
    options.given = {each[2:].partition("=")[0].replace("-", "_") for each in args if each.startswith("--")}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {options.out} is no folder that can be written to: {error}") from error
    study = importlib.import_module(STUDIES[options.study])
    goes_on = f"the same command with --out {options.out} goes on from here"
    try:
        study.run(options)
    except signals.Ended as ended:
        tell(f"gipo-study: ended by {signals.name(ended.number)}; {goes_on}")
        raise
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(goes_on) from error
    print(study.files(options) if hasattr(study, "files") else names(options.out))


def names(folder: Path) -> str:
    """What a study that says no more of its files wrote."""
    return f"{folder} holds " + ", ".join(sorted(path.name for path in folder.iterdir()))


def _docstring(module: str) -> str:
    """The docstring of a module, without importing what the module imports."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return ast.get_docstring(ast.parse(Path(spec.origin).read_bytes())) or ""


if __name__ == "__main__":
    main()
