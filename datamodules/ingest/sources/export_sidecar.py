"""What our exports say beside the dataset's own format, so that nothing of the logs is lost on the way."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.sources.base import Description, Trajectory
from gipo.common.errors import UserError
from gipo.common.reading import read_text

FORMATS = (1, 2)  # of what our exports write beside a dataset; in the first, infos of Minari stood a row too early
MAX_SIDECAR = 1 << 28  # bytes; of each episode it holds the last observation


@dataclass(frozen=True)
class Origin:
    """Where one of a dataset's episodes comes from.

    Args:
        session: identity of the log.
        episode: number within the session.
        policy_id: of the policy that acted, if known.
        success: None when nobody said.
        final_observation: [O] f32, after the last step.
        whole: the log had every step of the episode, as far as is known.
    """

    session: str
    episode: int
    policy_id: str | None
    success: bool | None
    final_observation: np.ndarray
    whole: bool = True

    @property
    def key(self) -> tuple[str, int]:
        """Equal for the segments of one episode."""
        return self.session, self.episode


@dataclass(frozen=True)
class Provenance:
    """What a dataset says of the robot logs that it was made from.

    Args:
        path: of the file that says it.
        format: of that file, one of FORMATS.
        description: of the robot and the sessions.
        origins: of the dataset's episodes.
    """

    path: Path
    format: int
    description: Description
    origins: tuple[Origin, ...]

    def check_count(self, found: int) -> None:
        """Refuse a dataset of another number of episodes.

        Raises:
            UserError: naming both.
        """
        if found != len(self.origins):
            raise UserError(
                f"{self.path} tells of {len(self.origins)} episodes, the dataset has {found}; export it again"
            )


def read_provenance(path: Path) -> Provenance | None:
    """What stands at `path`; None where nothing does, because the dataset is somebody else's.

    Raises:
        UserError: when it is not what our exports write.
    """
    if not path.is_file():
        return None
    try:
        raw = json.loads(read_text(path, MAX_SIDECAR))
        if raw["format"] not in FORMATS:
            known = ", ".join(map(str, FORMATS))
            raise UserError(f"{path} has format {raw['format']!r}, this gipo reads {known}; export it again")
        origins = tuple(map(_origin, raw["episodes"]))
        interface = Interface.of_spec(raw["robot"])
        manifests = {str(name): str(text) for name, text in raw["manifests"].items()}
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__} {error}); export it again") from error
    sessions = tuple(dict.fromkeys(origin.session for origin in origins))
    return Provenance(path, raw["format"], Description(interface, sessions, manifests), origins)


def _origin(raw: dict[str, Any]) -> Origin:
    policy_id, success, whole = raw["policy_id"], raw["success"], raw.get("whole", True)
    known = isinstance(raw["session"], str) and type(raw["episode"]) is int and type(whole) is bool
    if not known or not isinstance(policy_id, str | None) or not isinstance(success, bool | None):
        raise TypeError("an episode of unknown form")
    last = np.array(raw["final_observation"], np.float32)
    return Origin(raw["session"], raw["episode"], policy_id, success, last, whole)


def concatenated(pieces: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of an episode of which these are pieces, in their order."""
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def joined(origin: Origin, pieces: Sequence[dict[str, np.ndarray]]) -> Trajectory:
    """The episode that was exported as these segments."""
    columns = concatenated(pieces)
    whole = origin.whole and np.array_equal(columns["step"], np.arange(len(columns["step"])))
    return Trajectory(columns, origin.policy_id, origin.success, native=True, whole=bool(whole))
