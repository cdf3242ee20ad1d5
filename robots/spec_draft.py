"""A spec begun from what an artifact and a device say. What neither says is marked, and a person decides it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from robots.drivers.lerobot import differences
from robots.drivers.lerobot_devices import RANGES, check_units, make_device, normalised
from robots.load import load_robot
from robots.settings.assignments import parse_settings
from robots.spec import MEASURED, mark

FORCES = ("N", "Nm", "N·m", "N*m", "A", "V")


def draft(manifest: Manifest, device: Any = None) -> dict[str, Any]:
    """The fields of a `RobotSpec`, some of them marked.

    Args:
        manifest: of the policy: names, units, bounds of actions and rate.
        device: a LeRobot device, not connected: its name, and the ranges it normalises readings to.

    Raises:
        UserError: when the device has other readings or motors than the policy, or has them in other units.
    """
    if device is not None and (found := differences(manifest, "policy", device)):
        kinds = {"observation": "readings", "action": "motors"}
        differing = "; ".join(f"{kinds[what]}: {difference}" for what, difference in found.items())
        raise UserError(f"the policy was made for another robot than this device; {differing}")
    sensors = list(zip(manifest.observation_names, manifest.observation_units, strict=True))
    motors = list(zip(manifest.action_names, manifest.action_units, strict=True))
    check_units(manifest, "policy", device)
    low, high = zip(*(_range(name, unit, device) for name, unit in sensors), strict=True)
    return {
        "name": getattr(device, "name", None) or mark("what to call this robot: letters, digits, - and _"),
        "observation_names": list(manifest.observation_names),
        "observation_units": list(manifest.observation_units),
        "observation_low": list(low),
        "observation_high": list(high),
        "action_names": list(manifest.action_names),
        "action_units": list(manifest.action_units),
        "action_low": list(map(float, manifest.action_low)),
        "action_high": list(map(float, manifest.action_high)),
        "action_rate": [mark(f"largest change of {n} a second, in {u}; null for no limit") for n, u in motors],
        "action_acceleration": [mark(f"largest change of that rate a second, of {n}; null for no limit")
                                for n, _ in motors],
        "action_hold": [_hold(name, unit, dict(sensors)) for name, unit in motors],
        "control_rate_hz": float(manifest.control_rate_hz),
    }  # fmt: skip


def draft_for(manifest: Manifest, robot: str | None, device: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """The draft for a robot or a LeRobot device by its name on the command line, or from the policy alone.

    Raises:
        UserError: when there is no such thing, or the policy is not for it.
    """
    if robot is not None and device is not None:
        raise UserError("--robot says its whole spec itself, --device is LeRobot's; name one of them")
    if robot is not None:
        spec = load_robot(robot, manifest, settings).spec
        spec.check(manifest)
        return asdict(spec)
    if device is None:
        if settings:
            raise UserError(f"--set {settings[0]} is for --device or --robot, and neither is named")
        return draft(manifest)
    return draft(manifest, make_device(device, **parse_settings(settings)))


def _range(name: str, unit: str, device: Any) -> tuple[float | str, float | str]:
    """What a reading can be: as LeRobot normalises that of a motor, else for a person to say."""
    known = RANGES.get(normalised(device, name))
    if known is not None:
        return known
    why = f"reading of {name}, in {unit}, that can be; one beyond it is a fault of the sensor and stops the robot"
    return mark(f"lowest {why}"), mark(f"highest {why}")


def _hold(name: str, unit: str, readings: dict[str, str]) -> float | str:
    """What keeps an action's part of the robot where it is: by the kind of the action, not by its name alone."""
    if unit.endswith("/s") or unit in FORCES or name.endswith((".vel", ".eff")):
        return 0.0  # a velocity or a force
    if readings.get(name) == unit and (name.endswith(".pos") or unit in ("rad", "deg", "m", "mm", "cm")):
        return MEASURED  # a position
    return mark(f'what keeps {name} ({unit}) where it is: the command that does, or "{MEASURED}" for a position')
