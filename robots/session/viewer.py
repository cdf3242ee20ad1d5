"""The session live in rerun (extra `viewer`), fed by a thread of its own that drops what it cannot show in time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gipo.common import terminal
from gipo.common.errors import UserError
from gipo.common.extras import install
from robots.log import Step
from robots.session.background import Background
from robots.spec import RobotSpec


@contextmanager
def viewer(spec: RobotSpec, spawn: bool = True) -> Iterator[tuple[Callable[[Step], None], ...]]:
    """Open the viewer; yields what the control loop hands its steps to.

    Args:
        spec: of the robot, for names.
        spawn: open a window; else whoever called chooses where the data go.

    Raises:
        UserError: when rerun is not installed.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise UserError(f"--view needs rerun: {install('viewer')}") from error
    rerun.init("gipo-robot", spawn=spawn)

    def show(row: Step) -> None:
        rerun.set_time("time", duration=row.monotonic_ns / 1e9)
        for name, value in zip(spec.observation_names, row.observation.tolist(), strict=True):
            rerun.log(f"observation/{name}", rerun.Scalars(value))
        for index, name in enumerate(spec.action_names):
            rerun.log(f"action/{name}/asked", rerun.Scalars(float(row.action[index])))
            rerun.log(f"action/{name}/sent", rerun.Scalars(float(row.sent_action[index])))
        rerun.log("reward", rerun.Scalars(row.reward))
        rerun.log("log_prob", rerun.Scalars(float(row.log_prob.sum())))

    worker: Background[Step] = Background(show)
    try:
        yield (worker,)
    finally:
        worker.close()
        if worker.error:  # a window that is gone is no matter of the robot's
            terminal.tell(f"the viewer failed, {worker.dropped} steps were not shown: {worker.error}")
