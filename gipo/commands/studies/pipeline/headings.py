"""What a person sees of a loop while it runs: a heading a stage, and what came out of it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from gipo.commands.studies.pipeline.processes import in_order

Result = TypeVar("Result")


@dataclass
class Stage:
    """A stage under way.

    Args:
        result: what came out, in a line; set before the stage ends.
        detail: the same of a stage that gives no figure: not worth a line where loops go side by side.
    """

    result: str = ""
    detail: str = ""


@dataclass
class Narrator:
    """Tells how one loop goes.

    Args:
        stages: of the loop.
        label: before each result, where loops go side by side and stages have no heading; empty for one alone.
        say: prints a line.
        advance: called after each stage, with the seconds that it took.
    """

    stages: int
    label: str = ""
    say: Callable[[str], None] = print
    advance: Callable[[float], object] = lambda seconds: None
    _begun: int = 0

    def stage(self, title: str, work: Callable[[Stage], Result]) -> Result:
        """Do the work under a heading, and tell its result with the time it took."""
        self._head(title)
        stage, value, seconds = _timed(work)
        self._tell(title, stage, seconds)
        return value

    def together(self, pool: Executor, parts: Sequence[tuple[str, Callable[[Stage], Any]]]) -> list[Any]:
        """Do the work of several stages side by side: first their headings, then their results in the same order."""
        numbers = [self._head(title) for title, _ in parts]
        values = []
        works = in_order([pool.submit(_timed, work) for _, work in parts])
        for number, (title, _), (stage, value, seconds) in zip(numbers, parts, works, strict=True):
            self._tell(title, stage, seconds, f"[{number}/{self.stages}] ")
            values.append(value)
        return values

    def _head(self, title: str) -> int:
        self._begun += 1
        if not self.label:
            self.say(f"\n[{self._begun}/{self.stages}] {title}")
        return self._begun

    def _tell(self, title: str, stage: Stage, seconds: float, mark: str = "") -> None:
        if not self.label:
            self.say(f"      {mark}{', '.join(filter(None, (stage.result, stage.detail, duration(seconds))))}")
        elif stage.result:
            self.say(f"{self.label}: {title}: {stage.result}")
        self.advance(seconds)


def _timed(work: Callable[[Stage], Result]) -> tuple[Stage, Result, float]:
    stage, started = Stage(), time.monotonic()
    value = work(stage)
    return stage, value, time.monotonic() - started


def duration(seconds: float) -> str:
    """`3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
