"""Our robot logs as a source."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.pictures import PictureWriter
from datamodules.ingest.sources.base import POLICY, Description, Raw, Source, Trajectory, told
from gipo.common.arrays.camera_images import Image, Shape
from gipo.common.errors import UserError
from gipo.common.transition import COLUMNS
from robots.log import DAMAGED, TORN, Episode, LogStream, labels_path, read_header

MAGIC = b"\x89MCAP0\r\n"


class McapSource(Source):
    """A log of `gipo-robot`, sealed or torn, with the labels beside it."""

    kind = "mcap"

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """A file that is named or begins as MCAP files are; whether it is ours, and whole, its reader says."""
        if not path.is_file() or path.suffix == ".mcap":
            return path.is_file()
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def files(self) -> dict[str, Path]:
        """The log and its labels."""
        labels = labels_path(self.path)
        return {"log": self.path} | ({"labels": labels} if labels.is_file() else {})

    def describe(self) -> Description:
        """What the session's metadata at the start of the file say."""
        header = read_header(self.path)
        if header is None:
            return Description(None)
        # Where no policy decided, whose manifest would say it, the settings say what was seen.
        said = {} if header.manifests else header.settings
        image, cameras = _image(said.get("image")), _cameras(said.get("cameras"))
        interface = replace(Interface.of_spec(header.robot), image=image, cameras=cameras)
        task = header.settings.get("task")
        return Description(interface, (header.session,), header.manifests, task if isinstance(task, str) else "")

    def episodes(self, pictures: PictureWriter) -> Iterator[Raw]:
        """The episodes of the valid prefix; a damaged file is refused with its byte."""
        stream = LogStream(self.path, pictures.add)
        discarded: list[str] = []
        try:
            for episode in stream:
                where = f"{self.path}, episode {episode.number}"
                if episode.discarded:
                    discarded.append(where)
                    continue
                yield Raw(where, partial(_trajectory, episode))
        except UserError as error:
            if stream.integrity is not None and stream.integrity.status == DAMAGED:
                raise UserError(
                    f"{error}; `gipo-robot verify --quarantine FOLDER {self.path}` sets it aside"
                ) from error
            raise
        self.notes += told(discarded, "was discarded by a person")
        found = stream.integrity
        if found is not None and found.status == TORN:
            self.notes.append(f"{self.path} is torn, {found.tail:,} bytes behind byte {found.valid:,}: {found.reason}")
        if stream.unused_labels:
            self.notes.append(f"{labels_path(self.path)}: {stream.unused_labels}")


def _trajectory(episode: Episode) -> Trajectory:
    _check_steps(episode)
    rows = episode.transitions()
    columns = {field.name: rows[field.row] for field in COLUMNS if field.row in rows}
    if episode.policy_id is None and not columns["valid"].any():  # without a policy there is nothing that it chose
        columns = {name: values for name, values in columns.items() if name not in POLICY}
    told, whole, noise = episode.instruction, episode.whole, str(episode.start.get("noise") or "")
    return Trajectory(columns, episode.policy_id, episode.success, True, told, whole, noise)


def _image(said: Any) -> Image | None:
    """Channels, height and width, or those of each of several cameras, where they are said."""
    if isinstance(said, list) and said and all(isinstance(each, list) for each in said):
        shapes = [shape for each in said if (shape := _shape(each))]
        return tuple(shapes) if len(shapes) == len(said) else None
    return _shape(said)


def _shape(said: Any) -> Shape | None:
    if not (isinstance(said, list) and len(said) == 3 and all(type(size) is int and size > 0 for size in said)):
        return None
    channels, height, width = said
    return channels, height, width


def _cameras(said: Any) -> tuple[str, ...] | None:
    """Names of several cameras, where they are said."""
    if not (isinstance(said, list) and said and all(isinstance(name, str) for name in said)):
        return None
    return tuple(said)


def _check_steps(episode: Episode) -> None:
    step = episode["step"]
    change = np.diff(step)
    if (change < 1).any() or step[0] < 0:
        row = int(np.argmax(change < 1)) + 1 if (change < 1).any() else 0
        raise UserError(f"step {step[row]} is out of order")
    dropped = [_dropped(event["data"]) for event in episode.events if event["kind"] == "dropped"]
    for row in np.flatnonzero(change > 1).tolist():
        first, last = int(step[row]) + 1, int(step[row + 1]) - 1
        if not any(a <= (episode.number, first) and b >= (episode.number, last) for a, b in dropped):
            raise UserError(f"steps {first} to {last} are missing, and the log does not say that it dropped them")


def _dropped(data: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(episode, step) of the first and the last of the steps dropped in a row."""
    try:
        (a, b), (c, d) = data["first"], data["last"]
        return (int(a), int(b)), (int(c), int(d))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("an event of dropped steps does not say which") from error
