"""Demonstrations of a task that is seen, as the log of a robot that a person drove: with what the camera saw."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.demos.demonstration import Demonstration
from datamodules.vla import VLATask
from gipo.common.arrays.camera_images import joint
from gipo.common.errors import UserError
from gipo.common.files import whole_file
from robots.log import Image, LogWriter, Session, Step
from robots.log.episode import name_or_names
from robots.log.writer import MAX_IMAGE_BYTES
from robots.spec import RobotSpec

CAMERA = "camera"  # what the log calls it where there is one
WAIT_SECONDS = 0.01
ROWS = 4096  # that the writer takes before it drops any
UNBOUNDED = 1e6  # of what is observed


def write_log(path: Path, task: VLATask, made: Sequence[Demonstration], description: str) -> None:
    """Write demonstrations as episodes of one session, each step a person's; the log appears whole or not at all.

    Args:
        path: of the log.
        task: what was done.
        made: the demonstrations, with images.
        description: how they were made.

    Raises:
        UserError: when the task says no names and units, or the log cannot be written.
    """
    shapes = [
        (channels, height, width)
        for height, width, channels in (each.shape for each in next(iter(made[0].images.values())))
    ]
    settings: dict[str, Any] = {"task": task.name, "description": description, "image": joint(shapes)}
    if task.cameras:
        settings["cameras"] = list(task.cameras)
    session = Session(_spec(task, made[0]).to_json(), {}, settings)
    try:
        with whole_file(path) as partial:
            writer = LogWriter(partial, session, ROWS)
            writer.path = path  # what messages call it; the partial file is gone by then
            try:
                for number, each in enumerate(made):
                    _episode(writer, number, each, task.cameras or (CAMERA,))
            finally:
                dropped = writer.close().dropped
            if dropped:
                raise UserError(f"{path} is not written: {dropped} of its rows were not in time")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _wait(writer: LogWriter, rows: int) -> None:
    """Wait until no more than `rows` wait: it drops what it cannot write in time, and nobody is in a hurry."""
    while writer.error is None and writer.waiting > rows:
        time.sleep(WAIT_SECONDS)


def refuse_nameless(task: VLATask) -> dict[str, Any]:
    """Names, units and rate of a task, as a robot's log has them.

    Raises:
        UserError: when it says none.
    """
    if task.interface is None or "control_rate_hz" not in task.interface:
        raise UserError(f"{task.name} says no names, units and rate, which a robot's log has")
    return task.interface


def _spec(task: VLATask, first: Demonstration) -> RobotSpec:
    named = refuse_nameless(task)
    observations, actions = first.observations.shape[1], first.actions.shape[1]
    return RobotSpec(
        name="demonstrations",
        observation_low=(-UNBOUNDED,) * observations,
        observation_high=(UNBOUNDED,) * observations,
        action_low=tuple(first.low.tolist()),
        action_high=tuple(first.high.tolist()),
        action_rate=(None,) * actions,
        action_acceleration=(None,) * actions,
        action_hold=tuple(np.clip(0, first.low, first.high).tolist()),
        **named,
    )


def _episode(writer: LogWriter, number: int, made: Demonstration, cameras: tuple[str, ...]) -> None:
    start = {"instruction": made.instruction, "camera": name_or_names(cameras)}
    writer.event("episode_start", "", number, 0, start)
    nothing, unwritten = np.zeros(made.actions.shape[1]), 0  # bytes of images that may wait
    for step in range(len(made.actions) + 1):
        _wait(writer, ROWS // 2)
        if step in made.images:
            size = sum(pixels.nbytes for pixels in made.images[step])
            unwritten += size
            if unwritten > MAX_IMAGE_BYTES:
                _wait(writer, 0)
                unwritten = size
            now = time.time_ns(), time.monotonic_ns()
            for camera, pixels in zip(cameras, made.images[step], strict=True):
                writer.image(Image(camera, *now, pixels, "png", number, step))
        if step == len(made.actions):
            break
        last = step == len(made.actions) - 1
        writer.step(
            Step(
                number, step, time.time_ns(), time.monotonic_ns(), made.observations[step], nothing,
                made.actions[step], made.actions[step], nothing, 0, False, float(made.rewards[step]),
                last and made.terminated, last and not made.terminated, source="person",
            )
        )  # fmt: skip
    if made.success is not None:
        writer.event("outcome", "", number, len(made.actions), {"success": made.succeeded})
    end = {"final_observation": made.observations[-1].tolist(), "success": made.succeeded, "steps": len(made.actions)}
    writer.event("episode_end", "", number, len(made.actions), end)
    _wait(writer, 0)
