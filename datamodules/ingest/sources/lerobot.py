"""LeRobot v3 datasets as a source, read with pyarrow alone: our exports, and anybody's states and actions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.pictures import PictureWriter
from datamodules.ingest.sources.base import Raw, Trajectory, without_half
from datamodules.ingest.sources.dataset import Dataset, unreadable
from datamodules.ingest.sources.export_sidecar import Origin, Provenance, concatenated, joined
from datamodules.ingest.sources.flags import ends, flags
from datamodules.ingest.sources.lerobot_info import ACTION, STATE, interface_of, read_info
from datamodules.ingest.sources.lerobot_videos import Videos
from gipo.common.arrays.camera_images import joint
from gipo.common.errors import UserError
from gipo.common.transition import COLUMNS

ROWS = 16_384  # read at once
VECTORS = {field.name for field in COLUMNS if field.shape}  # of one number, LeRobot stores the number

# Our columns by those of our exports, of which older ones lack some, and by those that other writers may have added.
NATIVE = {field.name: field.lerobot for field in COLUMNS if field.lerobot and not field.later}
LATER = {field.name: field.lerobot for field in COLUMNS if field.lerobot and field.later}
FOREIGN = {"observation": STATE, "action": ACTION}
FLAGS = {name: f"next.{name}" for name in ("terminated", "truncated", "done", "success")}
OPTIONAL = {field.name: field.name for field in COLUMNS if field.foreign} | {"reward": "next.reward", **FLAGS}
# What an export of ours still says when its sidecar is gone, as after LeRobot's own edits, and what our plugin records.
OURS = {field.name: field.lerobot for field in COLUMNS if field.lerobot.startswith("policy.") and field.name != "step"}
SAID = "episode.success"  # of every frame: 1, 0, or −1 where nobody said
FRAME = {"episode_index": "episode_index", "frame_index": "frame_index"}
Columns = dict[str, np.ndarray]


class LeRobotSource(Dataset):
    """A dataset of format v3, and the videos of the camera that is asked for; those of our exports are in the logs."""

    kind = "lerobot"
    mark = metadata = "meta/info.json"
    sidecar = "meta/gipo.json"

    def data(self) -> list[Path]:
        """The files of frames, in the order of their numbers."""
        return sorted((self.path / "data").glob("chunk-*/file-*.parquet"), key=_place)

    def interface(self) -> Interface:
        """What the features of the dataset say, and of the camera that is asked for."""
        found, videos = interface_of(self.path, read_info(self.path)), self._videos
        if not videos:
            return found
        names = _short(each.camera for each in videos) if len(videos) > 1 else None
        return replace(found, image=joint([each.image for each in videos]), cameras=names)

    def files(self) -> dict[str, Path]:
        """Data and metadata, and the videos of the camera that is asked for, by their paths within the folder."""
        more = [path for videos in self._videos for path in videos.files() if path.is_file()]
        return super().files() | {path.relative_to(self.path).as_posix(): path for path in more}

    @cached_property
    def _videos(self) -> list[Videos]:
        if not self.cameras or (self.path / self.sidecar).is_file():
            return []
        return [Videos(self.path, read_info(self.path), camera) for camera in self.cameras]

    def episodes(self, pictures: PictureWriter) -> Iterator[Raw]:
        """Every episode; the segments that one was exported as are one again."""
        rate, provenance = float(read_info(self.path)["fps"]), self.provenance()
        yield from self._foreign(rate, pictures) if provenance is None else self._native(rate, provenance)

    def _native(self, rate: float, provenance: Provenance) -> Iterator[Raw]:
        def entry(item: tuple[int, Columns]) -> tuple[str, int]:
            index, _ = item
            if index >= len(provenance.origins):
                provenance.check_count(index + 1)
            return provenance.origins[index].key

        for _, segments in groupby(enumerate(self._recorded(NATIVE, LATER)), entry):
            known = [(provenance.origins[index], columns) for index, columns in segments]
            index = int(known[0][1]["episode_index"][0])
            yield Raw(f"{self.path}, episode {index}", partial(_native, known, rate))
        provenance.check_count(int(read_info(self.path)["total_episodes"]))

    def _foreign(self, rate: float, pictures: PictureWriter) -> Iterator[Raw]:
        there: set[str] = set()
        for columns in self._recorded(*_named(read_info(self.path)["features"])):
            where = f"{self.path}, episode {int(columns['episode_index'][0])}"
            there = set(columns)
            yield Raw(where, partial(_seen, columns, rate, self._videos, pictures))
        if there:
            self.notes += [f"{self.path}: {note}" for note in _taken(there, read_info(self.path), self.cameras)]

    def _recorded(self, wanted: dict[str, str], optional: dict[str, str]) -> Iterator[Columns]:
        """The columns of each of the dataset's episodes, by the store's names."""
        frames = 0
        waiting: list[Columns] = []
        numbers: set[int] = set()
        for rows in self._batches({**FRAME, **wanted}, {"timestamp": "timestamp", **optional}):
            frames += len(rows["episode_index"])
            ends = np.flatnonzero(np.diff(rows["episode_index"])) + 1
            bounds = [0, *ends.tolist(), len(rows["episode_index"])]
            for start, stop in pairwise(bounds):
                piece = {name: values[start:stop] for name, values in rows.items()}
                if waiting and waiting[0]["episode_index"][0] != piece["episode_index"][0]:
                    yield concatenated(waiting)
                    waiting = []
                if not waiting:
                    number = int(piece["episode_index"][0])
                    if number in numbers:
                        raise UserError(f"{self.path}, episode {number}: goes on after a later one began")
                    numbers.add(number)
                waiting.append(piece)
        if waiting:
            yield concatenated(waiting)
        info = read_info(self.path)
        if (frames, len(numbers)) != (info["total_frames"], info["total_episodes"]):
            raise UserError(
                f"{self.path} holds {frames} frames of {len(numbers)} episodes, its meta/info.json says "
                f"{info['total_frames']} of {info['total_episodes']}; a file is missing, copy the dataset again"
            )

    def _batches(self, wanted: dict[str, str], optional: dict[str, str]) -> Iterator[Columns]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        first: set[str] | None = None
        for path in self.data():
            try:
                with pq.ParquetFile(path) as file:
                    there = set(file.schema_arrow.names)
                    if missing := sorted(set(wanted.values()) - there):
                        raise UserError(f"{path} has no column {missing[0]}, only {', '.join(sorted(there))}")
                    names = wanted | {ours: theirs for ours, theirs in optional.items() if theirs in there}
                    first = first or set(names.values())
                    if differs := sorted(first ^ set(names.values())):
                        has = "no" if differs[0] in first else "a"
                        raise UserError(
                            f"{path} has {has} column {differs[0]}, unlike the files before it; all files of a dataset "
                            "must have the same columns"
                        )
                    for batch in file.iter_batches(ROWS, columns=sorted(set(names.values()))):
                        if len(batch):
                            read = {ours: _values(path, names[ours], batch.column(names[ours])) for ours in names}
                            yield {ours: _shaped(path, ours, names[ours], values) for ours, values in read.items()}
            except (pa.ArrowException, OSError) as error:
                raise unreadable(path, "Parquet", error) from error


def _short(cameras: Iterable[str]) -> tuple[str, ...]:
    """Names of cameras by their last part; by all that they do not have in common where that is the same."""
    parts = [each.split(".") for each in cameras]
    last = tuple(each[-1] for each in parts)
    if len(set(last)) == len(last):
        return last
    common = sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False)))
    return tuple(".".join(each[common:]) for each in parts)


def _named(features: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What must be read of somebody's dataset, and what may be there, by the store's names."""
    ours = {name: theirs for name, theirs in OURS.items() if theirs in features}
    wanted = {**FOREIGN, "sent_action": ACTION, "action": ours.pop("action")} if "action" in ours else FOREIGN
    return wanted, {**OPTIONAL, **ours, "said": SAID}


def _values(path: Path, name: str, column: Any) -> np.ndarray:
    """[T] or [T, n] of an Arrow column."""
    import pyarrow as pa

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        lengths = column.value_lengths()
        width = lengths[0].as_py()
        if column.null_count or not width or lengths.to_numpy(zero_copy_only=False).tolist() != [width] * len(column):
            raise UserError(f"{path}: the column {name} has rows of unequal length")
        return _values(path, name, column.flatten()).reshape(len(column), -1)
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf" or values.ndim != 1:
        raise UserError(f"{path}: the column {name} holds {column.type} or nulls; it must hold numbers")
    if column.null_count and not pa.types.is_floating(column.type):
        raise UserError(f"{path}: the column {name} holds nulls")
    return values


def _shaped(path: Path, ours: str, theirs: str, values: np.ndarray) -> np.ndarray:
    """[T, n] of a vector, where n may be 1; [T] of anything else."""
    if ours in VECTORS:
        return values.reshape(len(values), -1)
    if values.size != len(values):
        raise UserError(f"{path}: the column {theirs} holds {values.shape[1]} numbers a row; it must hold one")
    if ours in FRAME and values.dtype.kind not in "iu":
        raise UserError(f"{path}: the column {theirs} holds {values.dtype}; it must hold whole numbers")
    return values.reshape(len(values))


def _check_frames(columns: Columns, rate: float) -> None:
    """Frames follow each other without a gap, at the rate of the dataset."""
    frame = columns["frame_index"]
    wrong = np.flatnonzero(frame != np.arange(len(frame)))
    if len(wrong):
        raise UserError(f"frame_index {frame[wrong[0]]} where {wrong[0]} must be: a frame is missing or repeated")
    if "timestamp" in columns:
        period = np.diff(columns["timestamp"].astype(np.float64))
        late = np.flatnonzero(~(np.abs(period * rate - 1) < 0.2))
        if len(late):
            raise UserError(
                f"step {late[0] + 1} comes {period[late[0]]:.4g} s after the one before; at {rate:g} Hz it must be "
                f"{1 / rate:.4g} s: rates are mixed, or frames are missing"
            )


def _native(segments: list[tuple[Origin, Columns]], rate: float) -> Trajectory:
    pieces = []
    for origin, columns in segments:
        _check_frames(columns, rate)
        if origin.final_observation.shape != columns["observation"].shape[1:]:
            raise UserError("its final observation is of another form")
        following = np.concatenate([columns["observation"][1:], origin.final_observation[None]])
        known = {name: values for name, values in columns.items() if name in NATIVE or name in LATER}
        pieces.append({**known, "next_observation": following})
    return joined(segments[0][0], pieces)


def _foreign(columns: Columns, rate: float) -> Trajectory:
    """Somebody's frames: valid, of an unknown policy; what ended an episode is what its flags say."""
    _check_frames(columns, rate)
    length = len(columns["observation"])
    known = {name: flags(theirs, columns[name], length) for name, theirs in FLAGS.items() if name in columns}
    terminated, truncated = ends(known, length)
    if (terminated | truncated)[:-1].any():
        raise UserError(f"step {int(np.argmax(terminated | truncated))}: the episode is done and yet goes on")
    kept = length if terminated[-1] else length - 1
    observation = columns["observation"]
    more = {name: columns[name] for name in {**OPTIONAL, **OURS} if name in columns and name not in FLAGS}
    rows = without_half(more) | {
        "observation": observation,
        "next_observation": np.concatenate([observation[1:], observation[-1:]]),
        "action": columns["action"],
        "sent_action": columns.get("sent_action", columns["action"]),
        "step": columns["frame_index"],
        "terminated": terminated,
        "truncated": (np.arange(length) == kept - 1) & ~terminated,
    }
    if "valid" in rows:
        rows["valid"] = flags(OPTIONAL["valid"], rows["valid"], length)
    success = bool(known["success"].any()) if "success" in known else None
    if "said" in columns and columns["said"][0] in (0, 1):
        success = bool(columns["said"][0])
    return Trajectory({name: values[:kept] for name, values in rows.items()}, None, success, native=False)


def _seen(columns: Columns, rate: float, videos: list[Videos], pictures: PictureWriter) -> Trajectory:
    """Somebody's frames, with what cameras saw at them."""
    found = _foreign(columns, rate)
    if not videos:
        return found
    episode, count = int(columns["episode_index"][0]), len(columns["observation"])
    seconds = columns["timestamp"].astype(np.float64) if "timestamp" in columns else np.arange(count) / rate
    numbers = np.stack([each.keep(episode, seconds - seconds[0], rate, pictures) for each in videos], -1)
    kept = len(found)
    seen = {"picture": numbers[:kept], "next_picture": numbers[np.minimum(np.arange(kept) + 1, count - 1)]}
    return replace(found, columns=found.columns | seen, instruction=videos[0].task(episode))


def _taken(there: set[str], info: Mapping[str, Any], cameras: tuple[str, ...]) -> Iterator[str]:
    """What a reader should know of how a foreign dataset was taken.

    Args:
        there: columns that were read, by the store's names.
        info: of the dataset.
        cameras: whose videos were read.
    """
    yield (
        "the last step of an episode has no next observation; it is left out, or, where the episode terminated, "
        "stands as its own"
    )
    if "done" in there and not {"terminated", "truncated"} & there:
        yield (
            "next.done alone does not tell the end of a task from a time-out; it is taken as the end of the task. Add "
            "next.truncated where that is wrong"
        )
    if "reward" not in there:
        near = " (reward is no name that LeRobot gives)" if "reward" in info["features"] else ""
        yield f"it has no next.reward{near}; every reward is 0 unless data.ingest.reward gives another"
    if int(info.get("total_tasks") or 1) > 1 and not cameras:
        yield f"it holds {info['total_tasks']} tasks; a policy of states alone is not told which"
    known = {*FOREIGN.values(), *OPTIONAL.values(), *OURS.values(), *FRAME.values(), SAID, *cameras}
    known |= {"timestamp", "index", "task_index", "policy.step", "policy.proposed_action"}
    if unread := sorted(set(info["features"]) - known):
        yield f"not read: {', '.join(unread)}"


def _place(path: Path) -> tuple[int, ...]:
    """Numbers of a chunk and a file, in whose order frames stand; names alone put 1000 before 999."""
    return tuple(int(number) for number in re.findall(r"\d+", f"{path.parent.name} {path.stem}"))
