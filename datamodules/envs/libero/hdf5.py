"""LIBERO's own demonstration files (HDF5): states played back in our simulator, to be observed as it observes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from datamodules.demos.demonstration import Demonstration
from datamodules.envs.libero.simulator import ACTION_SIZE, LiberoSimulator
from datamodules.envs.libero.tasks import LiberoTask
from gipo.common.errors import UserError


def recorded(task: LiberoTask, path: Path) -> Iterator[Demonstration]:
    """Every demonstration in a file of `data/demo_i/{actions, states}`.

    The state that the last action led to is not in such a file, so that action is left out.

    Raises:
        UserError: when the file is not of this format, or not of this task.
    """
    import h5py

    size, simulator = task.init_states().shape[1], None
    try:
        with h5py.File(path, "r") as file:
            _check_task(path, task, file["data"].attrs)
            for name in sorted(file["data"], key=lambda name: int(name.removeprefix("demo_"))):
                group = file["data"][name]
                states, actions = group["states"][()], group["actions"][()].astype(np.float32)
                if states.ndim != 2 or states.shape[1] != size or actions.shape != (len(states), ACTION_SIZE):
                    raise UserError(
                        f"{path}, {name}: states {states.shape} and actions {actions.shape} are not of "
                        f"{task.suite}/{task.index}, which has states of {size} and actions of {ACTION_SIZE} numbers"
                    )
                if not (np.isfinite(states).all() and np.isfinite(actions).all()) or len(states) < 2:
                    raise UserError(f"{path}, {name}: NaN, infinite or too few values")
                simulator = simulator or LiberoSimulator(task)
                _place(simulator, _text(group.attrs["model_file"]))
                observations = np.stack([simulator.observe(state) for state in states])
                yield _succeeding(observations, actions[:-1].clip(-1, 1))
    except UserError:
        raise
    except (OSError, KeyError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path} is no file of LIBERO demonstrations, or cut short: {error}") from error


def _succeeding(observations: np.ndarray, actions: np.ndarray) -> Demonstration:
    """A demonstration whose last action did it: only such ones are in these files."""
    last = np.arange(len(actions)) == len(actions) - 1
    one = np.ones(ACTION_SIZE, np.float32)
    return Demonstration(observations, actions, last.astype(np.float32), -one, one, True, last)


def _check_task(path: Path, task: LiberoTask, attributes: Mapping[str, Any]) -> None:
    """Refuse a file of another task, by its description file: states of one size tell no tasks of a suite apart."""
    stated = _text(attributes.get("bddl_file_name", ""))
    if stated and Path(stated).stem != Path(task.bddl_file).stem:
        raise UserError(f"{path} is of the task {Path(stated).stem}, not of {task.suite}/{task.index}, {task.name}")


def _text(value: Any) -> str:
    """The text of an HDF5 attribute, which comes as bytes where its length was fixed."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _place(simulator: LiberoSimulator, xml: str) -> None:
    """Put the fixtures where they were: their place is in the model, not in the states."""
    bodies = {body.get("name"): body for body in ElementTree.fromstring(xml).iter("body")}
    for fixture in simulator.fixtures:
        root = simulator.domain.fixtures_dict[fixture].root_body
        body = simulator.model.body(root)
        body.pos = [float(value) for value in bodies[root].get("pos", "0 0 0").split()]
        body.quat = [float(value) for value in bodies[root].get("quat", "1 0 0 0").split()]
