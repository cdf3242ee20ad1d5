"""Logs as datasets of other formats."""

import importlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.errors import UserError, of_the_system
from gipo.common.files import PARTIAL, whole_folder
from gipo.common.transition import COLUMNS
from robots.log import Episode, Header, Log, read_logs

NO_TASK = "robot session"
PROVENANCE = "gipo.json"  # in the folder of the metadata
FORMAT = 2  # of that file
FORMATS = {"lerobot": "robots.review.export_lerobot", "minari": "robots.review.export_minari"}


@dataclass(frozen=True)
class Segment:
    """T steps that follow each other without a gap; an episode whose rows were all logged is one segment.

    Args:
        columns: those of `Episode.transitions`, [T, …].
        policy_id: of the policy that acted; empty when nobody said.
        success: of the episode; None when nobody said.
        session: identity of the log.
        episode: number within the session; segments of one episode share it.
        task: what was to be done: the instruction that the policy acted on, else the task of the session.
        last: whether no later segment of its episode follows, so that the episode's outcome is said once.
        whole: whether the log has every step of the episode.
    """

    columns: dict[str, np.ndarray]
    policy_id: str
    success: bool | None
    session: str
    episode: int
    task: str = NO_TASK
    last: bool = True
    whole: bool = True


def export(logs: Iterable[str | Path], kind: str, out: str | Path) -> str:
    """Write logs as one dataset, whole or not at all; a line about it, and one about each thing that it does not have.

    Raises:
        UserError: when a log is damaged or named twice, the logs are of different robots, `out` exists, or a package is
            missing.
    """
    header, found, notes = segments(logs)
    target = Path(out)
    try:
        if target.exists() and any(not each.name.endswith(PARTIAL) for each in target.iterdir()):
            raise UserError(f"{out} exists and is not empty; name another folder")
        writer = importlib.import_module(FORMATS[kind])
        with whole_folder(target) as partial:
            writer.write(partial, header, found)
    except OSError as error:
        raise UserError(f"cannot write {out}: {of_the_system(error, target)}") from error
    episodes, steps = sum(each.last for each in found), sum(len(each.columns["step"]) for each in found)
    pieces = f" in {len(found)} pieces, as steps between them were not logged" if len(found) > episodes else ""
    return "\n".join([f"written {out}: {episodes} episodes{pieces}, {steps:,} steps", *notes])


def segments(logs: Iterable[str | Path]) -> tuple[Header, list[Segment], list[str]]:
    """All that can be exported but what a person discarded; the header of the first log with the manifests of all.

    Returns:
        Header, segments, and in words what the logs have beside them.

    Raises:
        UserError: when a log is damaged or named twice, holds NaN, or nothing, or they are of different robots.
    """
    header: Header | None = None
    found: list[Segment] = []
    notes: list[str] = []
    for path, log in read_logs(logs):
        if header is not None and (other := _difference(header.robot, log.header.robot)):
            raise UserError(f"{path} is of another robot than the logs before it: {other}; export them apart")
        header = header or log.header
        header.manifests |= log.header.manifests
        before = len(found)
        for episode in (each for each in log.episodes if not each.discarded):
            rows = episode.transitions()
            _check_finite(f"{path}, episode {episode.number}", rows)
            ends = np.flatnonzero(rows["done"])[:-1] + 1
            pieces = {name: np.split(values, ends) for name, values in rows.items()}
            for index in range(len(ends) + 1):
                columns = {name: values[index] for name, values in pieces.items()}
                if len(columns["step"]):
                    who = (episode.policy_id or "", episode.success, log.header.session, episode.number)
                    last, task = index == len(ends), _task(log.header, episode)
                    found.append(Segment(columns, *who, task, last, episode.whole))
        notes += [f"{path}: {each}" for each in _left(log, some=len(found) > before)]
    if header is None or not found:
        raise UserError("; ".join(["the logs hold no complete step; there is nothing to export", *notes]))
    return header, found, notes


def _left(log: Log, some: bool) -> Iterator[str]:
    """What of a log, of which `some` steps are exported, is in no dataset, and what of its labels says nothing."""
    if log.unused_labels:
        yield f"labels: {log.unused_labels}"
    if discarded := sum(episode.discarded for episode in log.begun):
        yield f"{discarded} of {len(log.begun)} episodes are discarded"
    if log.integrity.tail:
        yield f"{log.integrity.tail:,} bytes behind byte {log.integrity.valid:,} are left out: {log.integrity.reason}"
    if some and log.images:
        yield "camera images stay in the log"
    if some and any("privileged" in episode.columns for episode in log.episodes):
        yield "what is privileged stays in the log: no column of the format is for it"


def _check_finite(where: str, rows: dict[str, np.ndarray]) -> None:
    """Refuse what other tools would learn from as it stands."""
    for name in (field.row for field in COLUMNS if field.finite and field.row in rows):
        bad = ~np.isfinite(rows[name]).all(axis=tuple(range(1, rows[name].ndim)))
        if bad.any():
            raise UserError(f"{where}, step {rows['step'][np.argmax(bad)]}: its {name} is not finite")


def _difference(robot: dict[str, Any], other: dict[str, Any]) -> str:
    """The first key of two specs that differs, in words; empty when none does."""
    for key in (*robot, *other):
        if robot.get(key) != other.get(key):
            return f"its {key} is {other.get(key)!r:.80} against {robot.get(key)!r:.80}"
    return ""


def _task(header: Header, episode: Episode) -> str:
    return str(episode.start.get("instruction") or header.settings.get("task") or NO_TASK)


def write_provenance(path: Path, header: Header, segments: list[Segment]) -> None:
    """Write what the format itself has no place for, so that a dataset says as much as the logs it was made from.

    One JSON object: `format`, `robot` (its spec), `manifests` (policy_id → manifest), and `episodes`, one for each of
    the dataset's: `session`, `episode`, `policy_id`, `success`, `task`, whether the log has all of it (`whole`, which
    is missing in older ones), and `final_observation`, which follows its last step. Formats before 2 had no `task`, and
    their Minari infos stood one row too early.
    """
    episodes = [
        {
            "session": each.session,
            "episode": each.episode,
            "policy_id": each.policy_id or None,
            "success": each.success,
            "task": each.task,
            "whole": each.whole,
            "final_observation": each.columns["next_observation"][-1].tolist(),
        }
        for each in segments
    ]
    content = {"format": FORMAT, "robot": header.robot, "manifests": header.manifests, "episodes": episodes}
    path.write_text(json.dumps(content), encoding="utf-8")
