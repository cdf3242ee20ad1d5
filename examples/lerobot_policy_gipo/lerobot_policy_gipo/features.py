"""What was sampled, as further features of the data set that LeRobot recorded meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.dataset_tools import add_features
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STATE

from gipo.common.errors import UserError
from gipo.common.transition import PERSON, SOURCES
from lerobot_policy_gipo.decisions import Decisions, read_decisions

INTERVENTION = "intervention"  # LeRobot's own, in DAgger: a person acted


def add_decisions(repo_id: str, new: str, decisions: Path) -> str:
    """Write a data set anew with `policy.latent`, `.log_prob`, `.version`, `.valid` and `.source`; one line about it.

    A frame is of a decision if it has its observation and its action, bit for bit, after that of the frame before. One
    that is of none was not sampled: a person's, or interpolated between two.

    Args:
        repo_id: of the data set as it was recorded.
        new: of the one that is written.
        decisions: what the policy wrote meanwhile.

    Raises:
        UserError: when they are not of this data set.
    """
    made = read_decisions(decisions)
    dataset = LeRobotDataset(repo_id)
    _check(dataset, made)
    read = [name for name in (OBS_STATE, ACTION, INTERVENTION) if name in dataset.features]  # and no images
    rows = dataset.hf_dataset.select_columns(read).with_format("numpy")[:]
    found = match(np.asarray(rows[OBS_STATE], np.float32), np.asarray(rows[ACTION], np.float32), made)
    if not (found >= 0).any():
        raise UserError(f"none of the {len(found)} frames of {repo_id} is of a decision in {decisions}")
    person = np.asarray(rows[INTERVENTION]).reshape(-1) if INTERVENTION in rows else np.zeros(len(found), bool)
    add_features(dataset, _features(made, found, person), repo_id=new)
    return f"written {new}: {len(found)} frames, {int((found >= 0).sum())} of them sampled by the policy"


def match(observation: np.ndarray, action: np.ndarray, made: Decisions) -> np.ndarray:
    """[T] the number of each frame's decision, in order; −1 where there is none."""
    known: dict[bytes, list[int]] = {}
    for number, key in enumerate(_keys(made.observation, made.action)):
        known.setdefault(key, []).append(number)
    found, last = np.full(len(observation), -1), -1
    for frame, key in enumerate(_keys(observation, action)):
        later = [number for number in known.get(key, ()) if number > last]
        if later:
            found[frame] = last = later[0]
    return found


def _keys(observation: np.ndarray, action: np.ndarray) -> list[bytes]:
    return [seen.tobytes() + done.tobytes() for seen, done in zip(observation, action, strict=True)]


def _check(dataset: LeRobotDataset, made: Decisions) -> None:
    for name, key in ((OBS_STATE, "observation_names"), (ACTION, "action_names")):
        if (theirs := dataset.features[name]["names"]) != made.header[key]:
            raise UserError(f"the data set's {name} is of {theirs}, the policy's of {made.header[key]}")
    if dataset.fps != made.header["control_rate_hz"]:
        raise UserError(
            f"it was recorded at {dataset.fps} Hz, and the policy acts at {made.header['control_rate_hz']} Hz"
        )


def _features(made: Decisions, found: np.ndarray, person: np.ndarray) -> dict[str, Any]:
    sampled = found >= 0
    size = made.action.shape[1]
    source = np.where(sampled, SOURCES.index("policy"), np.where(person, PERSON, SOURCES.index("hold")))
    columns = {
        "policy.latent": np.where(sampled[:, None], made.latent[found], made.latent.dtype.type(0)),
        "policy.log_prob": np.where(sampled[:, None], made.log_prob[found], np.float32(0)),
        "policy.version": np.full(len(found), made.header["policy_version"], np.int64),
        "policy.valid": sampled & made.sampled[found],
        "policy.source": source.astype(np.int64),
    }
    return {
        name: (
            _by_frame(values),
            {"dtype": str(values.dtype), "shape": (size if values.ndim == 2 else 1,), "names": None},
        )
        for name, values in columns.items()
    }


def _by_frame(values: np.ndarray) -> Callable[..., Any]:
    """The value of a frame, asked for by its row: 0.4.4 takes vectors in no other way."""
    return lambda row, *_: values[int(row["index"])].tolist() if values.ndim == 1 else values[int(row["index"])]
