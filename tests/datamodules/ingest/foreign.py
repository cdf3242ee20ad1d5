"""Datasets as other people's tools write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE = 80


def write_frames(
    folder: Path, lengths: Sequence[int], columns: Mapping[str, Any], **info: Any
) -> dict[str, np.ndarray]:
    """A LeRobot v3 dataset of episodes of these lengths in one file; what its columns are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total, rng = sum(lengths), np.random.default_rng(0)
    frame = np.concatenate([np.arange(length) for length in lengths])
    whole: dict[str, np.ndarray] = {
        "observation.state": rng.standard_normal((total, 5)).astype(np.float32),
        "action": rng.uniform(0, 1, (total, 3)).astype(np.float32),
        "frame_index": frame,
        "timestamp": (frame / RATE).astype(np.float32),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        **{name: np.asarray(values) for name, values in columns.items()},
    }
    (folder / "data" / "chunk-000").mkdir(parents=True)
    table = pa.table({name: pa.array(list(values)) for name, values in whole.items()})
    pq.write_table(table, folder / "data" / "chunk-000" / "file-000.parquet")
    vectors = {"observation.state": 5, "action": 3}
    features = {name: {"dtype": "float32", "shape": [vectors.get(name, 1)], "names": None} for name in whole}
    said = {"codebase_version": "v3.0", "fps": RATE, "total_frames": total, "total_episodes": len(lengths)}
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps({**said, "features": features, **info}))
    return whole


def write_collected(folder: Path, buffers: Sequence[Any], **spaces: Any) -> Path:
    """A Minari dataset of episode buffers; the folder of it."""
    import warnings

    import minari
    from gymnasium.spaces import Box

    from robots.review.export_minari import datasets_path

    given = {
        "observation_space": Box(-np.inf, np.inf, (5,), np.float64),
        "action_space": Box(-1.0, 1.0, (3,), np.float64),
        **spaces,
    }
    with datasets_path(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "theirs/set-v0", list(buffers), **given, algorithm_name="a", author="a", author_email="a",
            code_permalink="a", description="a",
        )  # fmt: skip
    return folder / "theirs" / "set-v0"


def buffer(length: int, index: int = 0, **columns: Any) -> Any:
    """An episode of `length` steps; keys of `columns` are those of Minari's buffer."""
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(index)
    known: dict[str, Any] = {
        "observations": rng.standard_normal((length + 1, 5)),
        "actions": rng.uniform(-1, 1, (length, 3)),
        "rewards": np.arange(length, dtype=float),
        "terminations": np.zeros(length, bool),
        "truncations": np.arange(length) == length - 1,
        "infos": {},
    }
    return EpisodeBuffer(id=index, **{**known, **columns})
