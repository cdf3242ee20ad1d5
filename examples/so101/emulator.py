"""The arm as a driver finds it: six calibrated servos on a port, whose motors are the joints of the simulated arm."""

import json
import sys
import threading
from pathlib import Path
from types import TracebackType

import mujoco
import numpy as np

from examples.so101.bus.faults import Faults
from examples.so101.bus.line import Line
from examples.so101.bus.port import Port
from examples.so101.bus.registers import TURN
from examples.so101.bus.servo import Servo
from examples.so101.model import JOINTS
from examples.so101.server import DeskServer
from examples.so101.world import MIDDLE, STEPS_PER_RAD, Gap, JointMotor, World

SWITCH = 0.0005  # seconds after which a busy thread lets that of the bus go on, in place of 5 ms: servos do not wait
NAME = "desk"  # of the arm, and of its calibration


class Emulator:
    """A folder with `port`, `scene` (a `DeskServer`) and `calibration/desk.json`, as LeRobot writes it; a context.

    Args:
        folder: for them.
        gap: of the arm.
        faults: of the bus.
        meshes: with the arm's looks, for pictures.
    """

    def __init__(self, folder: Path, gap: Gap | None = None, faults: Faults | None = None, meshes: bool = False):
        self.folder = folder
        sys.setswitchinterval(SWITCH)
        folder.mkdir(parents=True, exist_ok=True)
        self.world = World(gap, meshes=meshes)
        line = Line(Servo(identity, JointMotor(self.world, identity - 1)) for identity in range(1, len(JOINTS) + 1))
        calibrate(line, self.world.model, folder / "calibration" / f"{NAME}.json")
        self.port = Port(line, str(folder / "port"), faults)
        self.server = DeskServer(folder / "scene", self.world, self.port)
        self._thread = threading.Thread(target=self.world.run, name="world", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.port.unplug()
        self.world.end()
        self._thread.join()


def calibrate(line: Line, arm: mujoco.MjModel, file: Path) -> None:
    """Leave behind what `lerobot-calibrate` does: the ends of every joint's range, in its servo and in a file."""
    found = {}
    for servo, joint in zip(line.servos, JOINTS, strict=True):
        low, high = np.round(MIDDLE + arm.joint(joint).range * STEPS_PER_RAD).astype(int).tolist()
        if joint == "wrist_roll":  # turns all the way round
            low, high = 0, TURN - 1
        servo.calibrate(low, high)
        found[joint] = {"id": servo.identity, "drive_mode": 0, "homing_offset": 0, "range_min": low, "range_max": high}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=4))
