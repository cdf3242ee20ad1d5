"""What a run comes to, written when it has ended: its evaluations, its seconds of training, its test."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from gipo.commands.studies.fifty.judge import Act, Judge
from gipo.common.errors import UserError
from gipo.common.files import write_text

RESULT = "result.json"


class Finished(TypedDict):
    """A run that has ended.

    Args:
        evaluations: environment steps, processor seconds of training and share of successful episodes of each.
        seconds: of the processor, of training in all, evaluations and start-up left out.
        processor: its name.
        episodes: of the test.
        success: of them, that succeeded at any step.
        success_last: of them, that succeeded at their last step.
        returned: mean return of them.
    """

    evaluations: list[tuple[int, float, float]]
    seconds: float
    processor: str
    episodes: int
    success: int
    success_last: int
    returned: float


class Record:
    """Evaluates a run between its iterations, and tests what came of it.

    Args:
        task: a `-v3` name.
        every: environment steps from one evaluation to the next.
        clock: seconds; those of the processor, unless given: what else the machine does takes none of them.
    """

    def __init__(self, task: str, every: int, clock: Callable[[], float] = time.process_time):
        self.every, self._clock, self._judge = every, clock, Judge(task)
        self._since, self._seconds = clock(), 0.0
        self._evaluations: list[tuple[int, float, float]] = []

    def begin(self) -> None:
        """Training begins now: what was before is start-up."""
        self._since = self._clock()

    def iteration(self, steps: int, act: Act) -> bool:
        """An iteration has ended; evaluate where it is time. It never ends the run."""
        if steps // self.every > len(self._evaluations):
            self._seconds = self._trained()
            self._evaluations.append((steps, self._seconds, self._judge(act)))
            self._since = self._clock()
        return False

    def state(self) -> dict[str, Any]:
        """What `resume` goes on from."""
        return {"evaluations": [list(each) for each in self._evaluations], "seconds": self._trained()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of a run that was interrupted."""
        self._evaluations = [tuple(each) for each in state["evaluations"]]
        self._seconds, self._since = state["seconds"], self._clock()

    def end(self, act: Act, folder: Path) -> None:
        """Test the policy that came of it, and write the result into the folder of the run."""
        seconds = self._trained()
        episodes = self._judge.test(act)
        found: Finished = {
            "evaluations": self._evaluations,
            "seconds": seconds,
            "processor": processor(),
            "episodes": len(episodes.success),
            "success": int(episodes.success.sum()),
            "success_last": int(episodes.success_last.sum()),
            "returned": float(episodes.returned.mean()),
        }
        write_text(json.dumps(found) + "\n", folder / RESULT)

    def _trained(self) -> float:
        """Seconds of training until now."""
        return self._seconds + self._clock() - self._since


def processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def read_result(folder: Path) -> Finished:
    """The result of a run in this folder.

    Raises:
        UserError: when there is none, or it is damaged.
    """
    try:
        found: Any = json.loads((folder / RESULT).read_text())
        missing = Finished.__required_keys__ - found.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / RESULT} cannot be read: {error}; delete {folder}") from error
    if missing:
        raise UserError(f"{folder / RESULT} lacks {', '.join(sorted(missing))}; delete {folder}")
    result: Finished = found
    if not _is_whole(result):
        raise UserError(f"{folder / RESULT} holds what is no figure of a run; delete {folder}")
    return result


def _is_whole(result: Finished) -> bool:
    """Whether all figures are finite numbers, shares and counts are within bounds, and there is an evaluation."""
    try:
        rows = [(*map(float, row),) for row in result["evaluations"]]
        of_all = result["seconds"], result["episodes"], result["success"], result["success_last"], result["returned"]
        _, episodes, success, last, _ = test = [*map(float, of_all)]
    except (TypeError, ValueError):
        return False
    every = [*test, *(value for row in rows for value in row)]
    if not rows or {len(row) for row in rows} != {3} or not all(map(math.isfinite, every)):
        return False
    return episodes > 0 and 0 <= last <= success <= episodes and all(0 <= share <= 1 for *_, share in rows)
