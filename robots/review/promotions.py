"""What was done to a place: which policy a robot is to run, which ran before it, and why that was changed.

`promotions.jsonl` in a folder is the history of its `policy.onnx`, one JSON object a line.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.runtime.place import POLICY
from gipo.common.errors import UserError
from gipo.common.intervals import difference_with_interval
from gipo.common.reading import read_text

LATEST_NS = 1 << 62  # a moment that a calendar still knows


@dataclass(frozen=True)
class PairsSaid:
    """What pairs of episodes said of a policy and the one that it replaced.

    Args:
        sessions: of the logs.
        count: of pairs.
        difference: how much more often it succeeded.
        low: lower end of the interval of the difference.
        high: its upper end.
        doubts: why it may be a difference of something else than the two policies.
    """

    sessions: tuple[str, ...]
    count: int
    difference: float
    low: float
    high: float
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = all(type(each) is float and math.isfinite(each) for each in (self.difference, self.low, self.high))
        texts = all(isinstance(each, str) for each in (*self.sessions, *self.doubts))
        if not (type(self.count) is int and numbers and texts):
            raise ValueError("pairs of other types than those of a promotion")

    def __str__(self) -> str:
        said = f"{self.count:,} pairs: {difference_with_interval(self.difference, self.low, self.high)}"
        return "; ".join([said, *self.doubts])


@dataclass(frozen=True)
class Change:
    """One change of a place.

    Args:
        policy_id: of the policy that is in it since.
        back: whether it was in it before, and what had replaced it was rolled back.
        wall_ns: when, since the epoch.
        because: why, in a person's words; may be empty.
        pairs: what was measured of it and of the policy that it replaced, if anything was.
    """

    policy_id: str
    back: bool
    wall_ns: int
    because: str = ""
    pairs: PairsSaid | None = None

    def __post_init__(self) -> None:
        named = isinstance(self.policy_id, str) and re.fullmatch("[0-9a-f]{64}", self.policy_id)
        timed = type(self.wall_ns) is int and 0 <= self.wall_ns < LATEST_NS
        if not (named and timed and type(self.back) is bool and isinstance(self.because, str)):
            raise ValueError("entries of other types than those of a promotion")

    @property
    def when(self) -> str:
        """The moment, UTC, to the minute."""
        return datetime.fromtimestamp(self.wall_ns // 10**9, timezone.utc).strftime("%Y-%m-%d %H:%M")


def read_history(path: Path) -> list[Change]:
    """The changes in their order.

    Raises:
        UserError: naming the line that is none, or does not follow from those before it.
    """
    found: list[Change] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            found.append(_parse(line))
            standing(found)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{path}: line {number} is no change of a policy in place: {error}; repair it, or move the file and "
                f"{POLICY} away: promote begins a new history then, and policies/ keeps what was in place"
            ) from error
    return found


def write_line(change: Change) -> str:
    """A line of a history."""
    return json.dumps(asdict(change), allow_nan=False) + "\n"


def standing(history: Iterable[Change]) -> list[str]:
    """The ids of the policies that a roll-back would go through, the one in place last.

    Raises:
        ValueError: when a change goes back to what was not there.
    """
    held: list[str] = []
    for change in history:
        if not change.back:
            held.append(change.policy_id)
        elif held[-2:-1] == [change.policy_id]:
            held.pop()
        else:
            raise ValueError(f"it goes back to {change.policy_id[:12]}…, which was not before the one in place")
    return held


def placements(history: Sequence[Change]) -> dict[str, str]:
    """What became of each policy that was ever in place, in words."""
    found: dict[str, str] = {}
    why: dict[str, str] = {}
    before: str | None = None
    for change in history:
        if before is not None:
            back = f"rolled back {change.when}{_in_brackets(change.because)}"
            found[before] = back if change.back else f"replaced {change.when}"
        if not change.back:
            why[change.policy_id] = "; ".join(str(each) for each in (change.pairs, change.because) if each)
        again = " again" * change.back
        found[change.policy_id] = f"in place{again} since {change.when}{_in_brackets(why[change.policy_id])}"
        before = change.policy_id
    return found


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""


def _parse(line: str) -> Change:
    raw: Any = json.loads(line)
    pairs = raw["pairs"]
    if pairs is not None:
        pairs = PairsSaid(**{**pairs, "sessions": tuple(pairs["sessions"]), "doubts": tuple(pairs["doubts"])})
    return Change(**{**raw, "pairs": pairs})
