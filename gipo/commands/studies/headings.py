"""What a person sees of a loop while it runs: a heading a stage, and what came out of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
        advance: called after each stage.
    """

    stages: int
    label: str = ""
    say: Callable[[str], None] = print
    advance: Callable[[], object] = lambda: None
    _begun: int = 0

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """A heading, and after the stage its result with the time it took."""
        self._begun += 1
        if not self.label:
            self.say(f"\n[{self._begun}/{self.stages}] {title}")
        stage, started = Stage(), time.monotonic()
        yield stage
        if not self.label:
            parts = (stage.result, stage.detail, duration(time.monotonic() - started))
            self.say(f"      {', '.join(filter(None, parts))}")
        elif stage.result:
            self.say(f"{self.label}: {title}: {stage.result}")
        self.advance()


def duration(seconds: float) -> str:
    """`3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
