"""LeRobot dataset format v3.0, written with pyarrow alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gipo.common.files import write_text
from gipo.common.transition import EXPORTED
from robots.log import Header
from robots.review.export import PROVENANCE, Segment, write_provenance

CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILE = "chunk-000/file-000.parquet"

FIELDS = {field.lerobot: field for field in EXPORTED if field.lerobot}  # by LeRobot's names


def write(out: Path, header: Header, segments: list[Segment]) -> None:
    """Write a dataset; each segment is an episode of its own task, its frames at whole periods."""
    rate = float(header.of_robot("control_rate_hz"))
    tasks = list(dict.fromkeys(segment.task for segment in segments))
    columns = _columns(segments, rate, tasks)
    features = {name: _feature(header, name, values) for name, values in columns.items()}
    total = len(columns["index"])
    info = {
        "codebase_version": "v3.0",
        "robot_type": str(header.robot.get("name", "robot")),
        "total_episodes": len(segments),
        "total_frames": total,
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{len(segments)}"},
        "data_path": f"data/{CHUNK}",
        "video_path": None,
        "features": features,
    }
    write_text(json.dumps(info, indent=2), out / "meta" / "info.json")
    write_provenance(out / "meta" / PROVENANCE, header, segments)
    statistics = {name: _statistics(values) for name, values in columns.items()}
    write_text(json.dumps(statistics, indent=2), out / "meta" / "stats.json")
    _parquet(out / "meta" / "tasks.parquet", _tasks(tasks))
    _parquet(out / "meta" / "episodes" / FILE, _episodes(segments, columns))
    _parquet(out / "data" / FILE, pa.table({name: _array(values) for name, values in columns.items()}))


def _columns(segments: list[Segment], rate: float, tasks: list[str]) -> dict[str, np.ndarray]:
    columns = {
        name: field.typed(np.concatenate([segment.columns[field.row] for segment in segments]))
        for name, field in FIELDS.items()
    }
    lengths = [len(segment.columns["step"]) for segment in segments]
    # 1 success, 0 failure, −1 nobody said, or a later piece of the episode says it.
    success = [-1 if each.success is None or not each.last else int(each.success) for each in segments]
    frame = np.concatenate([np.arange(length) for length in lengths])
    return {
        **columns,
        "episode.success": np.repeat(np.array(success, np.int64), lengths),
        "timestamp": (frame / rate).astype(np.float32),
        "frame_index": frame.astype(np.int64),
        "episode_index": np.repeat(np.arange(len(segments), dtype=np.int64), lengths),
        "index": np.arange(len(frame), dtype=np.int64),
        "task_index": np.repeat(np.array([tasks.index(segment.task) for segment in segments], np.int64), lengths),
    }


def _feature(header: Header, name: str, values: np.ndarray) -> dict[str, Any]:
    key = {"O": "observation_names", "D": "action_names"}.get(FIELDS[name].shape if name in FIELDS else "")
    labels = None if key is None else header.of_robot(key)
    return {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": labels}


def _episodes(segments: list[Segment], columns: dict[str, np.ndarray]) -> pa.Table:
    ends = np.cumsum([len(segment.columns["step"]) for segment in segments])
    starts = np.concatenate([[0], ends[:-1]])
    rows: dict[str, Any] = {
        "episode_index": np.arange(len(segments), dtype=np.int64),
        "tasks": [[segment.task] for segment in segments],
        "length": ends - starts,
        "dataset_from_index": starts,
        "dataset_to_index": ends,
        "policy_id": [segment.policy_id for segment in segments],
    }
    for key in ("data/chunk_index", "data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index"):
        rows[key] = np.zeros(len(segments), np.int64)
    for name, values in columns.items():
        found = [_statistics(values[start:stop]) for start, stop in zip(starts, ends, strict=True)]
        for statistic in found[0]:
            rows[f"stats/{name}/{statistic}"] = [each[statistic] for each in found]
    return pa.table(rows)


def _statistics(values: np.ndarray) -> dict[str, list[float]]:
    rows = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(rows)]}


def _tasks(tasks: list[str]) -> pa.Table:
    """The tasks' texts as a pandas index, which is how LeRobot looks them up; written without pandas."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)})

    def described(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}

    index = [described("task_index", "int64", "int64"), described("task", "unicode", "object")]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": index, "pandas_version": "2.2.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _array(values: np.ndarray) -> pa.Array:
    if values.ndim == 1 or values.shape[1] == 1:  # LeRobot stores a vector of one number as that number
        return pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _parquet(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # pyarrow takes no name that is not UTF-8
        pq.write_table(table, file)
