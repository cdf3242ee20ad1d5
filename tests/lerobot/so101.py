"""LeRobot's own SO-101 follower on an emulated bus, driven by `gipo-robot run` in this process."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from deploy.export.artifact import export
from examples.so101.bus.faults import Faults
from examples.so101.bus.line import Answer, Line
from examples.so101.bus.motors import FirstOrderMotor
from examples.so101.bus.port import Port
from examples.so101.bus.protocol import SYNC_WRITE, Instruction
from examples.so101.bus.servo import Servo
from gipo.networks import SeparateNetworks
from gipo.policies import Spaces, TokenPolicy
from robots.cli import main
from robots.log import Log, files_below, read_log
from robots.spec import MEASURED, RobotSpec

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
UNITS = ("deg",) * 5 + ("%",)
LOW, HIGH = (-20.0,) * 5 + (30.0,), (20.0,) * 5 + (70.0,)
RATE = 30.0
RANGE = (1024, 3072)  # of every joint, in steps


class Watched(Line):
    """A line that notes when goals were written, and does something once after so many of them."""

    def __init__(self, after: int = 0, do: Callable[[], None] = lambda: None):
        super().__init__(Servo(identity, FirstOrderMotor()) for identity in range(1, 7))
        self.written: list[float] = []
        self.done_at = 0.0
        self._after, self._do = after, do
        for servo in self.servos:
            servo.calibrate(*RANGE)

    def answers(self, asked: Instruction) -> Iterator[Answer]:
        """Answers of the servos, as ever."""
        if asked.code == SYNC_WRITE:
            self.written.append(time.monotonic())
            if len(self.written) == self._after:
                self.done_at = time.monotonic()
                self._do()
        return super().answers(asked)

    @property
    def torque(self) -> list[int]:
        """Of every servo, whether it is on."""
        return [servo.get("Torque_Enable") for servo in self.servos]


class Arm:
    """Six servos on a port, their calibration, a spec and a policy, in a folder.

    Args:
        folder: for all of them.
        after: goals that are written before `fault`.
        fault: what goes wrong then; given this arm.
        faults: of the line from the beginning.
    """

    def __init__(self, folder: Path, after: int = 0, fault: "Callable[[Arm], None] | None" = None,
                 faults: Faults | None = None):  # fmt: skip
        sys.setswitchinterval(0.0005)  # the driver spins while it waits for a servo, in the same process
        self.folder = folder
        self.line = Watched(after, lambda: fault(self) if fault else None)
        self.port = Port(self.line, str(folder / "port"), faults)
        calibration = {
            joint: {"id": number, "drive_mode": 0, "homing_offset": 0, "range_min": RANGE[0], "range_max": RANGE[1]}
            for number, joint in enumerate(JOINTS, 1)
        }
        (folder / "arm.json").write_text(json.dumps(calibration))
        (folder / "spec.json").write_text(spec().to_json())
        make_policy(folder / "policy.onnx")

    def run(self, *options: str) -> int:
        """`gipo-robot run` with LeRobot's follower; its exit code."""
        given = {"device": "lerobot.robots.so_follower:SO101Follower", "spec": self.folder / "spec.json",
                 "wait": "false", "port": self.port.path, "id": "arm", "calibration_dir": self.folder}  # fmt: skip
        settings = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        policy, logs = str(self.folder / "policy.onnx"), str(self.folder / "logs")
        return main(["run", "--robot", "lerobot", *settings, "--policy", policy, "--log", logs, *options])

    def log(self) -> Log:
        """The log of the last run."""
        return read_log(max(files_below(self.folder / "logs"), key=lambda path: path.stat().st_mtime))

    def close(self) -> None:
        """Pull the plug."""
        self.port.unplug()


def spec() -> RobotSpec:
    """The follower as our policies know it: degrees, held where it is measured."""
    free = (None,) * len(NAMES)
    return RobotSpec("so101", NAMES, UNITS, (-180.0,) * 6, (180.0,) * 6, NAMES, UNITS, LOW, HIGH, (60.0,) * 6, free,
                     (MEASURED,) * len(NAMES), RATE)  # fmt: skip


def make_policy(
    path: Path, observations: tuple[str, ...] = NAMES, actions: tuple[str, ...] = NAMES,
    units: tuple[tuple[str, ...], tuple[str, ...]] = (UNITS, UNITS), low: tuple[float, ...] = LOW,
    high: tuple[float, ...] = HIGH,
) -> None:  # fmt: skip
    """A random policy, for the follower unless other names are given."""
    torch.manual_seed(0)
    size = len(observations)
    policy = TokenPolicy(Spaces(size, low, high), network=lambda i, o: SeparateNetworks(i, o, hidden=(32, 32)))
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(100, size) * 20)
    interface = {"observation_names": list(observations), "observation_units": list(units[0]),
                 "action_names": list(actions), "action_units": list(units[1]), "control_rate_hz": RATE}  # fmt: skip
    recorded = {"format": 1, "policy": policy.description(), "task": "so101", "interface": interface}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"gipo": recorded, "state_dict": weights}, path.with_suffix(".ckpt"))
    export(path.with_suffix(".ckpt"), path)
