"""Logs as datasets of other formats."""

import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robots.errors import LogError
from robots.log import Header, read_log

PROVENANCE = "gipo.json"  # in the folder of the metadata
FORMATS = {"lerobot": "robots.export_lerobot", "minari": "robots.export_minari"}


@dataclass(frozen=True)
class Segment:
    """T steps that follow each other without a gap; an episode whose rows were all logged is one segment.

    Args:
        columns: those of `Episode.transitions`, [T, …].
        policy_id: of the policy that acted; empty when nobody said.
        success: of the episode; None when nobody said.
        session: identity of the log.
        episode: number within the session; segments of one episode share it.
    """

    columns: dict[str, np.ndarray]
    policy_id: str
    success: bool | None
    session: str
    episode: int


def export(logs: Iterable[str | Path], kind: str, out: str | Path) -> str:
    """Write logs as one dataset; one line about it.

    Raises:
        LogError: when a log is damaged, the logs are of different robots, `out` exists, or a package is missing.
    """
    header, found = segments(logs)
    target = Path(out)
    if target.exists() and any(target.iterdir()):
        raise LogError(f"{out} exists and is not empty; name another folder")
    try:
        writer = importlib.import_module(FORMATS[kind])
        writer.write(target, header, found)
    except ModuleNotFoundError as error:
        raise LogError(f"--format {kind} needs {error.name}: pip install 'gipo[export]'") from error
    except OSError as error:
        raise LogError(f"cannot write {out}: {error.strerror or error}") from error
    left = "; camera images stay in the logs" if any(map(_sees, header.manifests.values())) else ""
    return f"written {out}: {len(found)} episodes, {sum(len(each.columns['step']) for each in found):,} steps{left}"


def _sees(manifest: object) -> bool:
    """Whether a policy's manifest, as the log has it, says that it sees."""
    try:
        return bool(json.loads(str(manifest)).get("vision"))
    except (ValueError, AttributeError):
        return False


def segments(logs: Iterable[str | Path]) -> tuple[Header, list[Segment]]:
    """All that can be exported, and the header of the first log with the manifests of all.

    Raises:
        LogError: when a log is damaged, there is nothing in them, or they are of different robots.
    """
    header: Header | None = None
    found: list[Segment] = []
    for path in logs:
        log = read_log(path)
        if header is not None and header.robot != log.header.robot:
            raise LogError(f"{path} is of another robot than the logs before it; export them apart")
        header = header or log.header
        header.manifests |= log.header.manifests
        for episode in log.episodes:
            rows = episode.transitions()
            ends = np.flatnonzero(rows["done"])[:-1] + 1
            pieces = {name: np.split(values, ends) for name, values in rows.items()}
            for index in range(len(ends) + 1):
                columns = {name: values[index] for name, values in pieces.items()}
                if len(columns["step"]):
                    who = (episode.policy_id or "", episode.success, log.header.session, episode.number)
                    found.append(Segment(columns, *who))
    if header is None or not found:
        raise LogError("the logs hold no complete step; there is nothing to export")
    return header, found


def write_provenance(path: Path, header: Header, segments: list[Segment]) -> None:
    """Write what the format itself has no place for, so that a dataset says as much as the logs it was made from.

    One JSON object: `format`, `robot` (its spec), `manifests` (policy_id → manifest), and `episodes`, one for each of
    the dataset's: `session`, `episode`, `policy_id`, `success`, and `final_observation`, which follows its last step.
    """
    episodes = [
        {
            "session": each.session,
            "episode": each.episode,
            "policy_id": each.policy_id or None,
            "success": each.success,
            "final_observation": each.columns["next_observation"][-1].tolist(),
        }
        for each in segments
    ]
    content = {"format": 1, "robot": header.robot, "manifests": header.manifests, "episodes": episodes}
    path.write_text(json.dumps(content), encoding="utf-8")


def names(header: Header, key: str) -> list[str]:
    """Names of the robot's spec."""
    values: Any = header.robot.get(key)
    if not isinstance(values, list):
        raise LogError(f"the log's robot spec has no {key}")
    return [str(value) for value in values]
