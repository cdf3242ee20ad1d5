"""What a robot is, as far as a policy is concerned; equality with the artifact's manifest is what arms it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from deploy.runtime.manifest import Manifest
from deploy.runtime.validation import check_bounds, check_names, is_file_name, is_finite, parse_object, require
from gipo.common.arrays.precision import alike
from gipo.common.errors import UserError

Row = tuple[float, ...]
Largest = tuple[float | None, ...]  # None: no limit
Hold = tuple[float | str, ...]
MEASURED = "measured"  # of a hold: repeat what was measured
UNSPECIFIED = "unspecified"  # unit of an artifact whose checkpoint recorded none
NAMELESS = (
    "its data did not say all of these; if they were this robot's, `gipo-deploy export --spec FILE`, with FILE the "
    "robot's spec as JSON, writes them into the policy"
)
MARK = "DECIDE"  # of what a person must still decide; a spec that has such a mark drives nothing


@dataclass(frozen=True)
class RobotSpec:
    """Names, units and limits of O observations and D actions.

    Args:
        name: of the robot; part of its logs' file names.
        observation_names: O names, in the order of the observation vector.
        observation_units: O units.
        observation_low: O values below which a reading is a fault of the sensor.
        observation_high: O values above which it is.
        action_names: D names.
        action_units: D units.
        action_low: D lower bounds.
        action_high: D upper bounds.
        action_rate: D largest changes a second, action units/s; None for no limit.
        action_acceleration: D largest changes of that rate, action units/s²; None for no limit.
        action_hold: D times what keeps the robot where it is, by the kind of the action: a number is the command that
            does (0 for a velocity, a speed or a torque), "measured" repeats what was measured last (a position).
        control_rate_hz: rate of the control loop.

    Raises:
        UserError: naming key, value and what is allowed.
    """

    name: str
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    observation_low: Row
    observation_high: Row
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_low: Row
    action_high: Row
    action_rate: Largest
    action_acceleration: Largest
    action_hold: Hold
    control_rate_hz: float

    def __post_init__(self) -> None:
        for key in self.__dataclass_fields__:
            value = _plain(getattr(self, key))
            if isinstance(value, list | tuple):
                value = tuple(map(_plain, value))
            object.__setattr__(self, key, value)
        require(is_file_name(self.name), "name", self.name, "letters, digits, - and _", "spec")
        for kind in ("observation", "action"):
            names, units, low, high = (getattr(self, f"{kind}_{key}") for key in ("names", "units", "low", "high"))
            check_names(kind, names, units, "spec")
            check_bounds(kind, names, low, high, "spec")
        _positive("action_rate", self.action_rate, self.action_size)
        _positive("action_acceleration", self.action_acceleration, self.action_size)
        _hold(self.action_hold, self.action_low, self.action_high)
        good = is_finite(self.control_rate_hz) and 0 < self.control_rate_hz <= 10_000
        require(good, "control_rate_hz", self.control_rate_hz, "above 0 and at most 10000", "spec")

    @property
    def observation_size(self) -> int:
        """O, how many numbers the robot measures."""
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        """D, how many numbers a command has."""
        return len(self.action_names)

    @property
    def period_ns(self) -> int:
        """Period of the control loop, nanoseconds."""
        return round(1e9 / self.control_rate_hz)

    @property
    def measured_hold(self) -> tuple[str, ...]:
        """Names of the actions that are held by repeating what was measured."""
        return tuple(name for name, hold in zip(self.action_names, self.action_hold, strict=True) if hold == MEASURED)

    def hold(self, measured: Mapping[str, float]) -> np.ndarray:
        """[D] the command that keeps the robot where it is; NaN where `measured` lacks what it repeats.

        Args:
            measured: name of an action → what was measured last, action units; only `measured_hold` counts.
        """
        pairs = zip(self.action_names, self.action_hold, strict=True)
        return np.array([measured.get(name, np.nan) if hold == MEASURED else hold for name, hold in pairs], float)

    def nameless(self) -> "RobotSpec":
        """This robot as an artifact names it whose checkpoint recorded neither names nor units."""
        observations, actions = range(self.observation_size), range(self.action_size)
        return replace(
            self,
            observation_names=tuple(f"observation.{i}" for i in observations),
            observation_units=(UNSPECIFIED,) * len(observations),
            action_names=tuple(f"action.{i}" for i in actions),
            action_units=(UNSPECIFIED,) * len(actions),
        )

    def named_as(self, manifest: Manifest) -> "RobotSpec":
        """This robot, nameless where the policy is: numbers in the place of names say nothing that could be wrong."""
        return self.nameless() if manifest.observation_names[:1] == ("observation.0",) else self

    def to_json(self) -> str:
        """The spec as JSON; every float survives the round trip exactly."""
        return json.dumps(asdict(self), allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "RobotSpec":
        """Parse a spec, and check its values.

        Raises:
            UserError: when the text is no spec, a value is not allowed, or with all that is missing, unknown or still
                to be decided.
        """
        raw = parse_object(text, "the robot spec", "")
        known = {field.name for field in fields(cls)}
        found = [f"spec.{key} is missing" for key in sorted(known - set(raw))]
        found += [f"spec.{key} is not a known key" for key in sorted(set(raw) - known)]
        found += undecided(raw)
        if found:
            raise UserError("; ".join(found))
        return cls(**raw)

    def check(self, manifest: Manifest) -> None:
        """Refuse a policy that was made for another robot.

        Raises:
            UserError: listing every difference.
        """
        if differences := self.differences(manifest):
            way = f"; {NAMELESS}" if UNSPECIFIED in (*manifest.observation_units, *manifest.action_units) else ""
            raise UserError(f"the policy was made for another robot than {self.name!r}: {'; '.join(differences)}{way}")

    def differences(self, manifest: Manifest) -> list[str]:
        """Where spec and manifest are not equal, in words; numbers to float32, as the manifest has them."""
        found = []
        for key in ("observation_names", "observation_units", "action_names", "action_units"):
            mine, theirs = getattr(self, key), getattr(manifest, key)
            if len(mine) != len(theirs):
                found.append(f"{key}: the robot has {len(mine)}, the policy {len(theirs)}")
                continue
            found += [
                f"{key}[{i}]: the robot has {a!r}, the policy {b!r}"
                for i, (a, b) in enumerate(zip(mine, theirs, strict=True))
                if a != b
            ][:1]
        for key in ("action_low", "action_high"):
            if not alike(getattr(self, key), getattr(manifest, key)):
                found.append(f"{key}: the robot has {getattr(self, key)}, the policy {getattr(manifest, key)}")
        if not alike(self.control_rate_hz, manifest.control_rate_hz):
            found.append(
                f"control rate: the robot has {self.control_rate_hz} Hz, the policy {manifest.control_rate_hz} Hz"
            )
        return found


def _plain(value: Any) -> Any:
    """Numbers of NumPy, as those of an environment's space, as Python's."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _hold(values: Any, low: Row, high: Row) -> None:
    good = isinstance(values, tuple) and len(values) == len(low)
    require(good, "action_hold", values, f'a list of {len(low)} numbers, or "{MEASURED}"', "spec")
    for value, least, most in zip(values, low, high, strict=True):
        good = value == MEASURED or (is_finite(value) and least <= value <= most)
        allowed = f'"{MEASURED}" (a position), or a number within its bounds, {least} to {most}'
        require(good, "action_hold", value, allowed, "spec")


def _positive(key: str, values: Any, size: int) -> None:
    good = isinstance(values, tuple) and len(values) == size
    require(good, key, values, f"a list of {size} numbers above 0, or null for no limit", "spec")
    for value in values:
        good = value is None or (is_finite(value) and value > 0)
        require(good, key, value, "a finite number above 0, or null for no limit", "spec")


def mark(question: str) -> str:
    """What stands in the place of a value until somebody decides it."""
    return f"{MARK}: {question}"


def is_marked(value: Any) -> bool:
    """Whether a value is still to be decided."""
    return isinstance(value, str) and value.startswith(MARK)


def undecided(raw: Mapping[str, Any]) -> list[str]:
    """Every key of a spec that has marks, with the names of the values that are marked."""
    found = []
    for key, value in raw.items():
        if is_marked(value):
            found.append(f"spec.{key} is to be decided")
        elif isinstance(value, list) and any(map(is_marked, value)):
            names = raw.get(f"{key.partition('_')[0]}_names")
            known = names if isinstance(names, list) and len(names) == len(value) else range(len(value))
            marked = ", ".join(str(name) for name, each in zip(known, value, strict=True) if is_marked(each))
            found.append(f"spec.{key} is to be decided for {marked}")
    return found
