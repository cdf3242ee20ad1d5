"""Arguments of a command: a parser whose complaint is one line, and types that refuse what makes no sense.

Each type names what it was given and what it takes.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gipo.common.errors import UserError, nearest

SEEDS = 2**31 - 1  # numbers of episodes and workers are added, and the sum is a seed of numpy and of Gymnasium still


class Parser(argparse.ArgumentParser):
    """An `argparse` parser of which a refusal is a `UserError` for the boundary, and no page of usage.

    Options are known by their whole names: what is short for one today would be short for two tomorrow.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs | {"allow_abbrev": False})
        self.set_defaults(parser=self)  # of a command, in the place of the one that chooses among commands

    def parse_args(  # type: ignore[override] # a namespace of one's own is nowhere given
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """The options; what a command does not know is refused by that command."""
        found, unknown = self.parse_known_args(args)
        if unknown:
            found.parser.error(f"unrecognized arguments: {' '.join(unknown)}{found.parser._hint(unknown[0])}")
        return found

    def _hint(self, unknown: str) -> str:
        name, known = unknown.partition("=")[0], [one for one in self._option_string_actions if one.startswith("--")]
        return f"; the nearest: {nearest(name, known)}" if name.startswith("--") else ""

    def error(self, message: str) -> NoReturn:
        """Name the mistake, and where all options are listed."""
        raise UserError(f"{message}; see {self.prog} --help")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return value

    return read


def number(least: float, most: float, positive: bool = False) -> Callable[[str], float]:
    """A finite number from `least` to `most`; one above zero when `positive`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (positive and value <= 0):  # what is not a number fails every comparison
            low = "above 0 and at most" if positive and least <= 0 else f"from {least:g} to"
            raise argparse.ArgumentTypeError(f"{text!r} is no number {low} {most:g}")
        return value

    return read


def words(text: str) -> str:
    """`text` as it is, if it says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def path(text: str) -> Path:
    """`text` as the path of a file or folder; an empty one is refused, and not taken for the folder at hand."""
    return Path(words(text))
