"""Runs of studies in this process, where importing takes longer than a run."""

from collections.abc import Callable
from pathlib import Path

from gipo.commands.studies.pipeline.forks import Forks


class InThisProcess(Forks):
    """Calls a function here."""

    def run(self, folder: Path, function: Callable[..., None], *args: object) -> None:
        function(*args)
