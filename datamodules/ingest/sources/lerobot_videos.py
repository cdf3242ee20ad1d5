"""What a camera of a LeRobot dataset saw: its videos, cut into blocks that are decoded alone, and not decoded for it.

The frames of many episodes stand in one file; `meta/episodes` says where each begins. A block is a key frame with the
frames up to the next one, copied as they are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.ingest.pictures import PictureWriter
from gipo.common.errors import UserError, first_line
from robots.log.video import blocks_between

COLUMNS = ("chunk_index", "file_index", "from_timestamp")


class _Place(NamedTuple):
    """Where an episode is: a file, the time in it at which the episode begins, and what its task is called."""

    file: Path
    begin: float
    task: str


class Videos:
    """The videos of a camera.

    Args:
        dataset: the folder.
        info: what its `meta/info.json` says.
        camera: name of the feature.

    Raises:
        UserError: when the dataset has no such videos, or does not say where its episodes are in them.
    """

    def __init__(self, dataset: Path, info: dict[str, Any], camera: str):
        self._dataset, self.camera = dataset, camera
        feature = info["features"].get(camera)
        if not isinstance(feature, dict) or feature.get("dtype") != "video":
            known = sorted(name for name, each in info["features"].items() if each.get("dtype") == "video")
            raise UserError(
                f"{dataset} has no videos of a camera {camera!r}; data.ingest.camera may name: "
                f"{', '.join(known) or 'none, it has no videos'}"
            )
        shape = feature.get("shape")
        if not isinstance(shape, list) or len(shape) != 3 or shape[2] != 3:
            raise UserError(f"{dataset}: the videos of {camera} have the shape {shape}; it must be [height, width, 3]")
        self.image = (3, int(shape[0]), int(shape[1]))
        path = str(info.get("video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"))
        try:
            self._places = {number: self._place(path, row) for number, row in self._rows()}
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise UserError(f"{dataset} does not say where its episodes are in the videos: {error!r}") from error

    def files(self) -> list[Path]:
        """Videos and the metadata of episodes, in the order of their names."""
        return sorted({*self._metadata(), *(place.file for place in self._places.values())})

    def task(self, episode: int) -> str:
        """The words for the task of an episode; empty where the dataset has none."""
        return self._places[episode].task if episode in self._places else ""

    def keep(self, episode: int, seconds: np.ndarray, rate: float, pictures: PictureWriter) -> np.ndarray:
        """Add the frames of an episode to `pictures`; their numbers [T].

        Args:
            episode: its number.
            seconds: of its frames [T], from its beginning.
            rate: frames a second.
            pictures: of the source.

        Raises:
            UserError: when a frame is missing from the video.
        """
        if episode not in self._places:
            raise UserError(f"{self._dataset} does not say where episode {episode} is in the videos of {self.camera}")
        place = self._places[episode]
        wanted, room = place.begin + seconds, 0.5 / rate
        times: list[float] = []
        numbers: list[int] = []
        for data, shown in blocks_between(place.file, float(wanted[0]) - room, float(wanted[-1]) + room):
            first = pictures.add_block(data, "matroska", len(shown))
            times += shown
            numbers += range(first, first + len(shown))
        known = np.array(times)
        nearest = _nearest(known, wanted) if times else np.zeros(len(wanted), int)
        missing = np.flatnonzero(np.abs(known[nearest] - wanted) > room) if times else np.arange(len(wanted))
        if len(missing):
            raise UserError(f"step {missing[0]}: {place.file} has no frame at {wanted[missing[0]]:.3f} s")
        return np.array(numbers, np.int64)[nearest]

    def _metadata(self) -> list[Path]:
        return sorted((self._dataset / "meta" / "episodes").glob("chunk-*/file-*.parquet"))

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = ["episode_index", "tasks", *(f"videos/{self.camera}/{name}" for name in COLUMNS)]
        for path in self._metadata():
            try:
                for row in pq.read_table(path, columns=names).to_pylist():
                    yield int(row["episode_index"]), row
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{path} cannot be read: {first_line(error)}") from error

    def _place(self, path: str, row: dict[str, Any]) -> _Place:
        chunk, file, begin = (row[f"videos/{self.camera}/{name}"] for name in COLUMNS)
        found = self._dataset / path.format(video_key=self.camera, chunk_index=int(chunk), file_index=int(file))
        if self._dataset.resolve() not in found.resolve().parents:
            raise ValueError(f"a video outside of the dataset: {path}")
        return _Place(found, float(begin), str((row.get("tasks") or [""])[0]))


def _nearest(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[T] for each of the times `wanted` [T] the index of the closest of `known` [N ≥ 1], the earlier of two as close.

    Both neighbours in the order of time are compared, and no others: an hour of video has 10⁵ frames.
    """
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    after = np.searchsorted(ordered, wanted).clip(1, max(1, len(known) - 1))
    before, after = after - 1, after.clip(max=len(known) - 1)
    found: np.ndarray = order[np.where(wanted - ordered[before] <= ordered[after] - wanted, before, after)]
    return found
