"""What every kind of source is: files to hash, a description, and episodes to convert."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.pictures import PictureWriter

POLICY = {"latent", "log_prob"}  # one is of no use alone


@dataclass(frozen=True)
class Description:
    """What a source says of itself before its episodes are read.

    Args:
        interface: names, units, bounds, rate; None where the source ends before it says.
        sessions: identities of the robot sessions in it; no session may be in two sources.
        manifests: policy_id → manifest as JSON, of the policies that may have acted.
        task: that they were for; empty where the source does not say.
    """

    interface: Interface | None
    sessions: tuple[str, ...] = ()
    manifests: Mapping[str, str] = field(default_factory=dict)
    task: str = ""


@dataclass(frozen=True)
class Trajectory:
    """T transitions of one episode in the order of `step`; where `step` jumps, the one before is truncated.

    Args:
        columns: [T, …], by the names of `gipo.common.transition.COLUMNS`; those that have a default, and all of
            POLICY, may be missing.
        policy_id: of the policy that acted, where the source says.
        success: None when nobody said.
        native: the source is, or was made from, a robot log of ours, which names the policy of every sampled action.
        instruction: what the policy was told; empty where it reads none.
        whole: the source has the episode from its first step to its end, without a gap.
        noise: where what was sampled was drawn from, in words; empty where the source does not say.
    """

    columns: dict[str, np.ndarray]
    policy_id: str | None
    success: bool | None
    native: bool
    instruction: str = ""
    whole: bool = True
    noise: str = ""

    def __len__(self) -> int:
        return len(self.columns["step"])


def without_half(there: dict[str, Any]) -> dict[str, Any]:
    """What is there, by names of columns, but no part of POLICY where another part is missing."""
    return there if set(there) >= POLICY else {name: each for name, each in there.items() if name not in POLICY}


def told(places: Sequence[str], what: str) -> list[str]:
    """One note of what holds for each of several episodes of a source, which is named by the first."""
    more = f"; so it is with {len(places) - 1:,} more of its episodes" if len(places) > 1 else ""
    return [f"{places[0]} {what}{more}"] if places else []


class Raw(NamedTuple):
    """An episode not yet looked at: `trajectory()` raises a ValueError of this project where it is bad."""

    where: str
    trajectory: Callable[[], Trajectory]


class Source(ABC):
    """One log or dataset. Nothing is ever written to it.

    Args:
        path: of the file or folder.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path):
        self.path = path
        self.cameras: tuple[str, ...] = ()  # whose images are kept, of a source that does not say what its policies saw
        self.notes: list[str] = []  # complete once `episodes` is exhausted

    @classmethod
    @abstractmethod
    def is_at(cls, path: Path) -> bool:
        """Whether there is a source of this kind, by what is there and not by its name."""

    @abstractmethod
    def files(self) -> dict[str, Path]:
        """Everything that is read, by what it is within the source."""

    @abstractmethod
    def describe(self) -> Description:
        """Read what the source says of itself.

        Raises:
            UserError: when that cannot be read.
        """

    @abstractmethod
    def episodes(self, pictures: PictureWriter) -> Iterator[Raw]:
        """Every episode, in order, in memory that one episode bounds; what their policies saw is added to `pictures`.

        Raises:
            UserError: when the source itself is damaged, naming the place.
        """
