"""An SO-101 whose six servos are emulated on a pseudo-terminal: what LeRobot's own driver needs to run, and ours."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from deploy.export.artifact import export
from examples.so101.bus.faults import Faults
from examples.so101.bus.line import Line
from examples.so101.bus.port import Port
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from robots.spec import RobotSpec
from tests.examples.so101.line import line

RATE = 30.0
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
UNITS = ("deg",) * 5 + ("percent",)
LOW, HIGH = (-60.0,) * 5 + (0.0,), (60.0,) * 5 + (100.0,)
SPEC = RobotSpec(
    name="so101", observation_names=NAMES, observation_units=UNITS, observation_low=(-181.0,) * 5 + (-1.0,),
    observation_high=(181.0,) * 5 + (101.0,), action_names=NAMES, action_units=UNITS, action_low=LOW, action_high=HIGH,
    action_rate=(90.0,) * 6, action_acceleration=(None,) * 6, action_hold=("measured",) * 6, control_rate_hz=RATE,
)  # fmt: skip


class Desk:
    """A folder with an arm's files, and the arm's port.

    Args:
        folder: where they are written.
        faults: of the bus.
    """

    def __init__(self, folder: Path, faults: Faults | None = None):
        self.folder = folder
        sys.setswitchinterval(0.0005)  # a busy thread lets that of the bus go on: servos do not wait
        self.servos: Line = line()
        self.port = Port(self.servos, str(folder / "arm"), faults)
        calibration = {
            joint: {"id": identity, "drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
            for identity, joint in enumerate(JOINTS, 1)
        }
        (folder / "calibration").mkdir()
        (folder / "calibration" / "desk.json").write_text(json.dumps(calibration))
        (folder / "arm.json").write_text(SPEC.to_json())
        self.configure()

    def configure(self, **changes: Any) -> Path:
        """Write the arm's configuration, as LeRobot's own commands take it."""
        found = {"port": self.port.path, "id": "desk", "calibration_dir": str(self.folder / "calibration"), **changes}
        path = self.folder / "arm.yaml"
        path.write_text(yaml.safe_dump(found))
        return path

    @property
    def torque(self) -> list[int]:
        """Of each servo, as it is set."""
        return [servo.get("Torque_Enable") for servo in self.servos.servos]


def make_artifact(path: Path, family: str = "gaussian", names: tuple[str, ...] = NAMES) -> Path:
    """A policy for the arm, with random weights."""
    torch.manual_seed(0)
    kind: type[Policy] = {"token": TokenPolicy, "gaussian": GaussianPolicy}[family]
    policy = kind(Spaces(6, LOW, HIGH), network=lambda i, o: SeparateNetworks(i, o, hidden=(32, 32)))
    policy.version.fill_(3)
    interface = {"observation_names": names, "observation_units": UNITS, "action_names": names, "action_units": UNITS}
    recorded = {
        "format": 1,
        "policy": policy.description(),
        "task": "reach",
        "interface": {**interface, "control_rate_hz": RATE},
    }
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"gipo": recorded, "state_dict": weights}, path.with_suffix(".ckpt"))
    export(path.with_suffix(".ckpt"), path)
    return path
