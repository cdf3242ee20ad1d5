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
    cameras = {started(episode)["camera"] for episode, _ in acted.values()}
    for number, images in groupby(read_pixels(path, cameras), lambda found: found[0]["episode"]):
        if number not in acted:
            continue
        episode, policy = acted[number]
        start = started(episode)
        chunks = _chunks(episode, policy)
        of_policy = (each for each in images if each[0]["frame_id"] == start["camera"] and each[0]["step"] in chunks)
        while some := list(islice(of_policy, AT_ONCE)):
            steps = np.stack([chunks[row["step"]] for row, _ in some])
            try:
                seen = [
                    policy.row(episode["observation"][first], pixels, start["instruction"])
                    for first, (_, pixels) in zip(steps[:, 0], some, strict=True)
                ]
            except ValueError as error:
                raise UserError(f"{path}, episode {number}: {error}") from error
            yield Decisions(number, np.stack(seen), steps, some[0][0]["format"] in CODECS)


def started(episode: Episode) -> dict[str, Any]:
    """What the log says of how an episode was begun: `instruction`, `camera` and `replan` among it.

    Raises:
        UserError: when it does not.
    """
    kinds = {"instruction": str, "camera": str, "replan": int}
    if not all(type(episode.start.get(name)) is kind for name, kind in kinds.items()):
        raise UserError(f"episode {episode.number} does not say by which camera and instruction its policy acted")
    return episode.start


def _chunks(episode: Episode, policy: OnnxPolicy) -> dict[int, np.ndarray]:
    """Step of a decision → the indices [H] of its chunk's steps; without those whose own step was dropped."""
    length = policy.manifest.layout.decision[0]
    found: dict[int, np.ndarray] = {}
    for index, (step, place) in enumerate(zip(episode["step"].tolist(), episode["chunk_step"].tolist(), strict=True)):
        if not 0 <= place < length:
            raise UserError(f"episode {episode.number}, step {step}: its policy decides on {length} steps, not {place}")
        found.setdefault(step - place, np.full(length, -1))[place] = index
    return {step: indices for step, indices in found.items() if indices[0] >= 0}
