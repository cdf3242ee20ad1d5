"""A run that fails from inside, where nothing of the command line expects it."""

from typing import Any

import pytest

from gipo.cli import main
from gipo.module import GIPOModule


class Crash(Exception):
    """Ends the run."""


def crash(args: list[str], iteration: int) -> None:
    """A run whose training step of `iteration`, counted from 0, fails."""
    step = GIPOModule.training_step

    def failing(self: GIPOModule, *args: Any) -> None:
        if self.current_epoch == iteration:
            raise Crash
        step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GIPOModule, "training_step", failing)
        with pytest.raises((Crash, SystemExit)):
            main(args)
