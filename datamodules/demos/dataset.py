"""Demonstrations as a Minari dataset, as robots are exported; of a task that is seen, as the log of a robot."""

import os
import re
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from datamodules.demos.demonstration import Demonstration
from datamodules.demos.log import refuse_nameless, write_log
from datamodules.envs.simulation import Simulation
from datamodules.vla import VLATask
from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.files import whole_folder, write_bytes
from robots.review.export_minari import datasets_path, refuse_full

NAMESPACE = "namespace_metadata.json"  # as Minari has it beside the datasets of a namespace


def dataset_name(task: str) -> str:
    """The name that a task's dataset has: `gipo/reach-v3`, `gipo/libero_90-69-v0`."""
    name = re.sub(r"[^\w.-]+", "-", task)
    return f"gipo/{name if re.search(r'-v[0-9]+$', name) else f'{name}-v0'}"


def refuse_taken(out: Path, task: Simulation) -> None:
    """Refuse a folder that already holds demonstrations of the task, or cannot hold any, before some are made.

    Raises:
        UserError: naming it; or Minari, which writes the dataset, is not installed, or a task that is seen has no names
            for a log.
    """
    if isinstance(task, VLATask):
        refuse_nameless(task)
    else:
        try:
            import minari  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError(f"demonstrations are written by minari: {install('export')}") from error
    if (place := _place(out, task)).exists():
        raise UserError(f"{place} exists; name another --out")
    missing = [each for each in (out, *out.parents) if not each.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from error
    with suppress(OSError):  # not empty any more: another command shares it
        for each in missing:  # a command that is refused later leaves nothing behind
            each.rmdir()
    if not writable:
        raise UserError(f"--out {out} cannot be written by this user")


def _place(out: Path, task: Simulation) -> Path:
    folder = out / dataset_name(task.name)
    return Path(f"{folder}.mcap") if isinstance(task, VLATask) else folder


def write(out: Path, task: Simulation, made: Sequence[Demonstration], description: str) -> Path:
    """Write the dataset, or the log, of a task below `out`, and say where it is.

    Args:
        out: a folder; datasets of several tasks may share it.
        task: what was done.
        made: the demonstrations.
        description: how they were made.
    """
    refuse_taken(out, task)
    if not made:
        raise UserError("there are no demonstrations to write")
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(task, VLATask):
        write_log(_place(out, task), task, made, description)
    else:
        _write_minari(out, task.name, made, description)
    return _place(out, task)


def _write_minari(out: Path, task: str, made: Sequence[Demonstration], description: str) -> None:
    """Whole or not at all: Minari writes a root of its own, whose dataset goes to its place when it is complete."""
    place = out / dataset_name(task)
    try:
        with whole_folder(place) as partial:
            _create(partial, task, made, description)
            written = partial / dataset_name(task)
            if not (place.parent / NAMESPACE).exists():
                write_bytes((written.parent / NAMESPACE).read_bytes(), place.parent / NAMESPACE)
            for each in list(written.iterdir()):
                each.rename(partial / each.name)
            shutil.rmtree(written.parent)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}") from error


def _create(root: Path, task: str, made: Sequence[Demonstration], description: str) -> None:
    import minari
    from gymnasium.spaces import Box

    buffers = [_buffer(index, each) for index, each in enumerate(made)]
    first = made[0]
    refuse_full(root, buffers)
    with datasets_path(root), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of environments the data were not collected in
        minari.create_dataset_from_buffers(
            dataset_name(task),
            buffers,
            observation_space=Box(-np.inf, np.inf, first.observations.shape[1:], np.float32),
            action_space=Box(first.low, first.high, first.low.shape, np.float32),
            algorithm_name="demonstrations",
            author="gipo",
            author_email="",
            code_permalink="",
            description=description,
        )


def _buffer(index: int, made: Demonstration) -> "object":
    from minari.data_collector import EpisodeBuffer

    last = np.arange(len(made.actions)) == len(made.actions) - 1
    # Row 0 of the infos is the reset's.
    infos = {} if made.success is None else {"success": np.append(False, made.success)[:, None]}
    return EpisodeBuffer(
        id=index,
        observations=made.observations,
        actions=made.actions,
        rewards=made.rewards,
        terminations=last & made.terminated,
        truncations=last & (not made.terminated),
        infos=infos,
    )
