"""Any Gymnasium environment with flat `Box` spaces as a robot: `--robot gym --set env=Pendulum-v1`."""

import time
from typing import Any

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.arrays.precision import nearest_in
from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.faults import described
from gipo.common.simulators.gymnasium_info import is_number, is_truth, said_of_success, warn_of_late_success
from robots.base import Observation
from robots.spec import RobotSpec

UNBOUNDED = 1e6  # a sensor bound where the environment names none


def robot(manifest: Manifest, env: str | None = None, rate: float | None = None) -> "GymRobot":
    """A registered Gymnasium environment as a robot.

    Args:
        manifest: of the policy that will drive it.
        env: Gymnasium id, or `module:Id` of one that a module registers; the manifest's task unless given.
        rate: Hz; the environment's `render_fps` unless given.
    """
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise UserError(f"the gym robot needs gymnasium: {install('sim')}") from error
    name = manifest.task if env is None else env
    try:
        made = gymnasium.make(name, max_episode_steps=-1)  # the loop says when time is up
    except gymnasium.error.Error as error:  # Gymnasium's own words; where in its source they stand is nobody's business
        raise UserError(f"there is no Gymnasium environment {name!r}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the module and the author of the environment raise
        raise UserError(f"there is no Gymnasium environment {name!r}: {described(error)}") from error
    return GymRobot(made, spec_of(made, name, rate).named_as(manifest))


def spec_of(env: Any, name: str, rate: float | None = None) -> RobotSpec:
    """What an environment's spaces say, under the names training records.

    Args:
        env: with flat Box spaces.
        name: of the environment.
        rate: Hz; the environment's `render_fps` unless given.

    Raises:
        UserError: when the spaces are not flat and bounded, or no rate is known.
    """
    observation, action, hertz = _flat(env.observation_space, name), _flat(env.action_space, name), rate
    if not np.isfinite([action.low, action.high]).all():
        raise UserError(f"the actions of {name} are not bounded; wrap it in gymnasium.wrappers.RescaleAction")
    if hertz is None and (hertz := env.metadata.get("render_fps")) is None:
        raise UserError(f"{name} does not say its control rate; name it with --set rate=HZ")
    count, size = len(observation.low), len(action.low)
    return RobotSpec(
        name="".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name),
        observation_names=tuple(f"observation_{i}" for i in range(count)),
        observation_units=("1",) * count,
        observation_low=_row(observation.low, -UNBOUNDED),
        observation_high=_row(observation.high, high=UNBOUNDED),
        action_names=tuple(f"action_{i}" for i in range(size)),
        action_units=("1",) * size,
        action_low=_row(action.low),
        action_high=_row(action.high),
        action_rate=(None,) * size,
        action_acceleration=(None,) * size,
        # Only a start for soft engagement: an environment's time stands still between steps, so nothing moves alone.
        action_hold=_row(np.clip(0, action.low, action.high)),
        control_rate_hz=float(hertz),
    )


def _flat(space: Any, name: str) -> Any:
    if not hasattr(space, "low") or len(space.shape) != 1:
        raise UserError(f"{name} needs flat Box spaces; wrap it in gymnasium.wrappers.FlattenObservation")
    return space


def _row(values: np.ndarray, low: float = -np.inf, high: float = np.inf) -> tuple[float, ...]:
    return tuple(np.clip(values.astype(float), low, high).tolist())


class GymRobot:
    """A Gymnasium environment behind the robot's interface.

    Args:
        env: with flat Box spaces; its own truncation is not asked for.
        spec: of the robot, as `spec_of` makes it.
    """

    simulated = True

    def __init__(self, env: Any, spec: RobotSpec):
        self.env, self.spec = env, spec
        self._stopped = True
        self._latest: dict[str, Any] = {}
        self._tells_success: bool | None = None  # as its first step does

    def connect(self) -> None:
        """Do nothing: an environment is open once it is made."""

    def prepare(self, seed: int) -> None:
        """Reset the environment."""
        values, _ = self.env.reset(seed=seed)
        self._latest = {"values": np.asarray(values, float)}
        self._stopped = False

    def observe(self) -> Observation:
        """What the environment's last step gave, as if it were measured now."""
        return Observation(time_ns=time.monotonic_ns(), **self._latest)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Step the environment; one of whole numbers gets those nearest to the action [D]."""
        if self._stopped:
            raise UserError("the robot is stopped")
        sent = nearest_in(action, self.env.action_space.low, self.env.action_space.high)
        values, reward, terminated, _, info = self.env.step(sent.copy())  # which it may write into
        said = said_of_success(info)
        if self._tells_success is None:
            self._tells_success = is_number(said)
        elif not self._tells_success:
            warn_of_late_success(info, self.spec.name)
        self._latest = {
            "values": np.asarray(values, float),
            "reward": float(reward),
            "terminated": bool(terminated),
            "success": bool(said) if self._tells_success and is_truth(said) else None,
        }
        return sent.astype(float)

    def stop(self, reason: str) -> None:
        """Take no further step until `prepare`."""
        self._stopped = True

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
