"""Minari datasets (HDF5): `MINARI_DATASETS_PATH=OUT` and `minari.load_dataset("gipo/NAME-v0")` read them."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.transition import EXPORTED
from robots.log import Header
from robots.review.export import PROVENANCE, Segment, write_provenance

INFOS = "infos/"
HDF5, HDF5_EPISODE = 1.1, 64 << 10  # what it needs beyond the numbers: a share of them, and bytes an episode
FIELDS = {field.minari: field for field in EXPORTED if field.minari}  # by Minari's names


def write(out: Path, header: Header, segments: list[Segment]) -> None:
    """Write the dataset `gipo/NAME-v0` under `out`; actions are those the robot really got."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    robot, first = header.of_robot("name"), segments[0].columns
    low, high = (np.array(header.of_robot(f"action_{end}"), np.float32) for end in ("low", "high"))
    buffers = []
    for index, segment in enumerate(segments):
        columns = {name: field.typed(segment.columns[field.row]) for name, field in FIELDS.items()}
        infos = {name.removeprefix(INFOS): _infos(columns.pop(name)) for name in FIELDS if name.startswith(INFOS)}
        columns["observations"] = np.concatenate([columns["observations"], segment.columns["next_observation"][-1:]])
        buffers.append(EpisodeBuffer(id=index, infos=infos, **columns))
    out.mkdir(parents=True, exist_ok=True)
    refuse_full(out, buffers)
    tasks = list(dict.fromkeys(segment.task for segment in segments))
    with datasets_path(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of environments the data were not collected in
        dataset = minari.create_dataset_from_buffers(
            f"gipo/{robot}-v0",
            buffers,
            observation_space=Box(-np.inf, np.inf, first["observation"].shape[1:], np.float32),
            action_space=Box(low, high, low.shape, np.float32),
            algorithm_name=", ".join(sorted({segment.policy_id[:12] for segment in segments})),
            author="gipo-robot",
            author_email="",
            code_permalink="",
            description=f"Robot sessions of {robot} at {header.of_robot('control_rate_hz')} Hz: {'; '.join(tasks)}",
        )
        dataset.storage.update_episode_metadata([{"task": segment.task} for segment in segments])
    write_provenance(out / "gipo" / f"{robot}-v0" / "data" / PROVENANCE, header, segments)


def refuse_full(folder: Path, buffers: Sequence[Any]) -> None:
    """Refuse episodes for which `folder` has no room: HDF5 that cannot write tells so by a crash of the process.

    Raises:
        OSError: when there is no room.
    """
    columns = (
        column for each in buffers for column in (each.observations, each.actions, each.rewards, *each.infos.values())
    )
    size = sum(np.asarray(column).nbytes for column in columns)
    room = folder / ".room"
    try:
        with open(room, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, int(HDF5 * size) + HDF5_EPISODE * (len(buffers) + 1))
    finally:
        room.unlink(missing_ok=True)


def _infos(values: np.ndarray) -> np.ndarray:
    """[T + 1, n], as Minari has them: the info of step t is row t + 1; row 0, the reset's, repeats row 1."""
    rows = values.reshape(len(values), -1)
    return np.concatenate([rows[:1], rows])


@contextmanager
def datasets_path(path: Path) -> Iterator[None]:
    """Have Minari write to `path`, which it finds by an environment variable alone."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(path.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
