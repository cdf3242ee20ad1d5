"""The decisions of a policy over chunks, put together again from a log: what it saw, and the steps it gave."""

import os
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import Episode
from robots.log.video import CODECS, read_pixels

AT_ONCE = 64  # decisions; images take memory


class Decisions(NamedTuple):
    """N decisions of one episode, as many as fit into memory.

    Args:
        episode: its number.
        seen: [N, R] what the policy saw, as `OnnxPolicy.row` gives it.
        steps: [N, H] index of each of the chunk's steps among those logged; −1 where it was not executed, or dropped.
        video: whether the images are a video's, and so not quite what the policy saw.
    """

    episode: int
    seen: np.ndarray
    steps: np.ndarray
    video: bool


def decisions(path: str | os.PathLike[str], acted: Mapping[int, tuple[Episode, OnnxPolicy]]) -> Iterator[Decisions]:
    """Every decision of some episodes whose image and first step are in the log.

    Args:
        path: of the log.
        acted: number → an episode, and the policy with vision that acted in it.

    Raises:
        UserError: when an image or what an episode says of itself is of another form.
    """
    if not acted:
        return  # images are most of a log: it is not gone through again for nothing
    cameras = {camera for episode, _ in acted.values() for camera in started(episode)["camera"]}
    chunks = {number: _chunks(episode, policy) for number, (episode, policy) in acted.items()}
    moments = _moments(read_pixels(path, cameras), acted, chunks)
    for number, found in groupby(moments, lambda moment: moment.episode):
        episode, policy = acted[number]
        instruction = started(episode)["instruction"]
        while some := list(islice(found, AT_ONCE)):
            steps = np.stack([chunks[number][moment.step] for moment in some])
            try:
                seen = [
                    policy.row(episode["observation"][first], moment.pixels(policy), instruction)
                    for first, moment in zip(steps[:, 0], some, strict=True)
                ]
            except ValueError as error:
                raise UserError(f"{path}, episode {number}: {error}") from error
            yield Decisions(number, np.stack(seen), steps, all(moment.video for moment in some))


class _Moment(NamedTuple):
    """What all cameras of a policy saw when it decided; a frame of a `video` is not quite what it saw."""

    episode: int
    step: int
    images: dict[str, np.ndarray]
    video: bool

    def pixels(self, policy: OnnxPolicy) -> Any:
        """The images as the policy takes them: the one, or each by its name."""
        vision = policy.manifest.vision
        return self.images if vision is not None and vision.cameras else next(iter(self.images.values()))


def _moments(
    rows: Iterator[tuple[dict[str, Any], np.ndarray]],
    acted: Mapping[int, tuple[Episode, OnnxPolicy]],
    chunks: Mapping[int, dict[int, np.ndarray]],
) -> Iterator[_Moment]:
    """The moments of decisions of which the image of every camera is in the log."""
    waiting: dict[tuple[int, int], dict[str, tuple[np.ndarray, bool]]] = {}
    for row, pixels in rows:
        number, step, camera = row["episode"], row["step"], row["frame_id"]
        if number not in acted or step not in chunks[number]:
            continue
        cameras = started(acted[number][0])["camera"]
        if camera in cameras:
            images = waiting.setdefault((number, step), {})
            images[camera] = pixels, row["format"] in CODECS
            if len(images) == len(cameras):
                del waiting[number, step]
                shown = {name: seen for name, (seen, _) in images.items()}
                yield _Moment(number, step, shown, any(video for _, video in images.values()))


def started(episode: Episode) -> dict[str, Any]:
    """What the log says of how an episode was begun: `instruction`, `camera` (names) and `replan` among it.

    Raises:
        UserError: when it does not.
    """
    start, cameras = episode.start, episode.cameras
    if not cameras or type(start.get("instruction")) is not str or type(start.get("replan")) is not int:
        raise UserError(f"episode {episode.number} does not say by which camera and instruction its policy acted")
    return {**start, "camera": cameras}


def _chunks(episode: Episode, policy: OnnxPolicy) -> dict[int, np.ndarray]:
    """Step of a decision → the indices [H] of its chunk's steps; without those whose own step was dropped."""
    length = policy.manifest.layout.decision[0]
    found: dict[int, np.ndarray] = {}
    for index, (step, place) in enumerate(zip(episode["step"].tolist(), episode["chunk_step"].tolist(), strict=True)):
        if not 0 <= place < length:
            raise UserError(f"episode {episode.number}, step {step}: its policy decides on {length} steps, not {place}")
        found.setdefault(step - place, np.full(length, -1))[place] = index
    return {step: indices for step, indices in found.items() if indices[0] >= 0}
