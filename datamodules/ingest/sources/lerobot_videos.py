"""What a camera of a LeRobot dataset saw: its videos, cut into blocks that are decoded alone, and not decoded for it.

The frames of many episodes stand in one file; `meta/episodes` says where each begins. A block is a key frame with the
frames up to the next one, copied as they are.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.ingest.pictures import PictureWriter
from gipo.common.errors import UserError, first_line
from robots.log.video import blocks_between

COLUMNS = ("chunk_index", "file_index", "from_timestamp")
MOST_SECONDS = 1e7  # of a video file: a third of a year


class _Place(NamedTuple):
    """Where an episode is: a file, the time in it at which the episode begins, and what its tasks are called."""

    file: Path
    begin: float
    tasks: tuple[str, ...]


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
        self.image = _image_of(feature, f"{dataset}: the videos of {camera}")
        path = str(info.get("video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"))
        try:
            self._places = {number: self._place(path, row) for number, row in self._rows()}
        except UserError:
            raise
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{dataset} does not say where its episodes are in the videos: {error!r}") from error
        self._looked_at: set[Path] = set()  # of which a block was decoded

    def files(self) -> list[Path]:
        """Videos and the metadata of episodes, in the order of their names."""
        return sorted({*self._metadata(), *(place.file for place in self._places.values())})

    def task(self, episode: int) -> str:
        """The words for the task of an episode; empty where the dataset has none.

        Raises:
            UserError: when it has several.
        """
        tasks = self._places[episode].tasks if episode in self._places else ()
        if len(tasks) > 1:
            raise UserError(
                f"it has {len(tasks)} tasks, {', '.join(map(repr, tasks))}, and a policy is told one for an episode; "
                "cut it where the task changes"
            )
        return "".join(tasks)

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
            self._look_at(place.file, first, len(shown), pictures)
            times += shown
            numbers += range(first, first + len(shown))
        known = np.array(times)
        nearest = _nearest(known, wanted) if times else np.zeros(len(wanted), int)
        missing = np.flatnonzero(np.abs(known[nearest] - wanted) > room) if times else np.arange(len(wanted))
        if len(missing):
            raise UserError(f"step {missing[0]}: {place.file} has no frame at {wanted[missing[0]]:.3f} s")
        return np.array(numbers, np.int64)[nearest]

    def _look_at(self, file: Path, first: int, count: int, pictures: PictureWriter) -> None:
        """Decode the first block of each file: what cannot be read is to be found here, and not by a batch."""
        if file not in self._looked_at:
            self._looked_at.add(file)
            try:
                pictures.check_block(first, count)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error

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
        named = path.format(video_key=self.camera, chunk_index=int(chunk), file_index=int(file))
        within = os.path.normpath(named)
        # By its name alone: a file may be a link to elsewhere, as in the cache of a hub.
        if os.path.isabs(within) or within.split(os.sep)[0] == os.pardir or "\0" in within:
            raise ValueError(f"a video outside of the dataset: {path}")
        if not 0 <= float(begin) < MOST_SECONDS:
            raise ValueError(f"an episode that begins at {begin} s")
        tasks = row.get("tasks") or []
        return _Place(
            self._dataset / within, float(begin), tuple([tasks] if isinstance(tasks, str) else map(str, tasks))
        )


def _image_of(feature: dict[str, Any], what: str) -> tuple[int, int, int]:
    """Channels, height and width of a camera's pictures, by what the dataset says of it."""
    shape, names = feature.get("shape"), feature.get("names")
    if isinstance(shape, list) and len(shape) == 3 and all(isinstance(each, int) and each > 0 for each in shape):
        if isinstance(names, list) and names[:1] in (["channel"], ["channels"]):
            shape = [*shape[1:], shape[0]]
        if shape[2] == 3:
            return 3, shape[0], shape[1]
    raise UserError(f"{what} have the shape {feature.get('shape')}; it must be [height, width, 3]")


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
