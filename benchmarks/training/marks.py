"""What a run notes while it trains.

It appends marks to a file: `iteration` where an iteration has ended, `pause` and `resume` around an evaluation. They
are by the machine's monotonic clock, which all processes share. Standard library alone, so that a rival that writes
marks is not made slower or larger by it.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal["iteration", "pause", "resume"]


@dataclass(frozen=True)
class Mark:
    """A moment of a run.

    Args:
        what: `iteration` has ended, or an evaluation begins (`pause`) or ends (`resume`).
        at: seconds of `time.monotonic`.
        steps: environment steps so far.
        success: share of the episodes of the evaluation that succeeded.
    """

    what: What
    at: float
    steps: int
    success: float | None = None


def note(file: str | Path, what: What, steps: int, success: float | None = None) -> None:
    """Append a mark of this moment."""
    with open(file, "a") as lines:
        lines.write(json.dumps(asdict(Mark(what, time.monotonic(), steps, success))) + "\n")


def read(file: str | Path) -> list[Mark]:
    """All marks of a file, in order."""
    return [Mark(**json.loads(line)) for line in Path(file).read_text().splitlines()]
