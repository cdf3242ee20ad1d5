"""What simulates a MetaWorld task: its own Python, or EnvPool's C++ where both are the same."""

from typing import Literal

from datamodules.envs.envpool import PREFIX, NativeMetaWorldTask, NativeTask
from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.simulation import Simulation
from datamodules.envs.tasks import simulation
from gipo.common.errors import UserError
from gipo.common.simulators.equality import why_not_native
from gipo.common.simulators.native import envpool

Simulator = Literal["auto", "python", "envpool"]


def chosen(task: str | Simulation | None, simulator: Simulator) -> Simulation | None:
    """What `data.task` and `data.simulator` ask for: a task by name, or as a class with its options; None for none.

    Raises:
        UserError: when there is no such task, or its simulator is not installed or does not have it.
    """
    if isinstance(task, str):
        return simulated_by(simulation(task), simulator)
    if task is not None and simulator != "auto":
        raise UserError(f"data.simulator={simulator} chooses for a task by its name; {task.name} is a class of its own")
    return task


def simulated_by(task: Simulation, simulator: Simulator) -> Simulation:
    """A task by name as `data.simulator` has it simulated.

    Raises:
        UserError: when the simulator is not installed, or does not have the task.
    """
    if isinstance(task, MetaWorldTask):
        if simulator == "auto":
            simulator = "python" if why_not_native(task.name) else "envpool"
        if simulator == "python":
            return MetaWorldTask(task.name)
        envpool()
        return NativeMetaWorldTask(task.name)
    if simulator == "python" and isinstance(task, NativeTask):
        raise UserError(f"data.simulator=python: {task.name} is simulated by envpool alone")
    if simulator == "envpool" and not isinstance(task, NativeTask):
        raise UserError(
            f"data.simulator=envpool is for MetaWorld's tasks; any other that envpool has is data.task={PREFIX}ID, "
            f"not {task.name}"
        )
    return task


def who_simulates(task: Simulation) -> str | None:
    """One sentence that says what simulates a task, where there was a choice."""
    if not isinstance(task, MetaWorldTask):
        return None
    reason = why_not_native(task.name)
    if task.simulator == "envpool":
        return f"envpool simulates {task.name}" + (f", although {reason}" if reason else "")
    return f"MetaWorld's Python simulates {task.name}" + (f": {reason}" if reason else ", as data.simulator says")
