"""Runs of studies in this process, where importing takes longer than a run; and commands that are only written down."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gipo.commands.studies.pipeline.forks import Forks
from gipo.commands.studies.pipeline.processes import Commands

Calls = list[tuple[str, list[str]]]  # commands and their arguments


class InThisProcess(Forks):
    """Calls a function here."""

    def run(self, folder: Path, function: Callable[..., None], *args: object) -> None:
        function(*args)


def written_down(calls: Calls) -> Callable[..., None]:
    """In place of `Commands.run`: notes a command, and leaves the configuration that a run of `gipo fit` leaves."""

    def run(_: Commands, command: str, args: Sequence[str], output: Path, *rest: object) -> None:
        calls.append((command, list(args)))
        (output.parent / "config.yaml").write_text("{}")

    return run
