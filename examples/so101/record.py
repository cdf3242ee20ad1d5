"""A data set by the real `lerobot-record`: an emulated leader arm in scripted hands teaches the emulated follower.

`python -m examples.so101.record FOLDER --episodes 20`, in LeRobot's environment, writes the data set FOLDER/taught. The
hands bring the arm from where it rests, folded, to one pose, `POSE`, in about two seconds.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from examples.so101.bus.line import Line
from examples.so101.bus.port import Port
from examples.so101.bus.servo import Servo
from examples.so101.emulator import NAME, Emulator, calibrate
from examples.so101.model import JOINTS
from examples.so101.priority import HARDWARE, ask_for_real_time
from examples.so101.world import MIDDLE, STEPS_PER_RAD
from gipo.common import boundary
from gipo.common.errors import UserError
from gipo.common.parsing import SEEDS, Parser, whole

POSE = np.array([25.0, -20.0, 20.0, 45.0, 0.0, 10.0])  # degrees, that is what is taught
START = np.array([0.0, -85.0, 75.0, 75.0, 0.0, 10.0])  # folded, as an arm without torque rests
SPREAD = np.array([40.0, 15.0, 15.0, 15.0, 0.0, 0.0])  # of where an episode begins
MOVING = 0.6  # seconds in which all but 1/e of the way is gone
EPISODE, RESET = 4, 3


@dataclass
class Hands:
    """Hands on a leader arm, that move it from pose to pose, ever more slowly.

    Args:
        seed: of where an episode begins.
    """

    seed: int = 0
    _way: tuple[np.ndarray, np.ndarray, float] = field(default=(START, START, 0.0), init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def pose(self) -> np.ndarray:
        """[6] degrees, where the leader is now."""
        begin, end, since = self._way
        # Of where it is alone follows where it goes next: a clone that sees nothing else does not stall at the start.
        return end + (begin - end) * np.exp((since - time.monotonic()) / MOVING)

    def teach(self) -> None:
        """Go to the pose that is taught."""
        self._go(POSE)

    def begin(self) -> None:
        """Go to where another episode begins."""
        self._go(START + SPREAD * self._random.uniform(-1.0, 1.0, len(JOINTS)))

    def _go(self, end: np.ndarray) -> None:
        self._way = (self.pose(), end, time.monotonic())


@dataclass(frozen=True)
class HeldMotor:
    """A leader's joint: it is where the hands have it, whatever its servo is told."""

    hands: Hands
    joint: int

    def position(self) -> float:
        """Where it is, in steps of the encoder."""
        return MIDDLE + np.radians(self.hands.pose()[self.joint]) * STEPS_PER_RAD

    def drive(self, goal: float | None, strength: float) -> None:
        """Do nothing: hands are stronger."""


def record(folder: Path, episodes: int, seed: int) -> None:
    """Run `lerobot-record` with the follower and the leader; the hands do what it asks for.

    Raises:
        UserError: when it fails; what it said of that was printed. When LeRobot is not there, before anything begins.
    """
    if find_spec("lerobot") is None:
        raise UserError("there is no lerobot-record without LeRobot: pip install lerobot")
    hands = Hands(seed)
    hands.begin()
    line = Line(Servo(number, HeldMotor(hands, number - 1)) for number in range(1, len(JOINTS) + 1))
    with Emulator(folder) as arm, Port(line, str(folder / "leader")) as leader:
        calibrate(line, arm.world.model, folder / "calibration" / "leader.json")
        ask_for_real_time(HARDWARE, heirs=False)  # where that is allowed
        options = {
            "robot.type": "so101_follower", "robot.port": arm.port.path, "robot.id": NAME,
            "robot.calibration_dir": folder / "calibration", "teleop.type": "so101_leader",
            "teleop.port": leader.path, "teleop.id": "leader", "teleop.calibration_dir": folder / "calibration",
            "dataset.repo_id": "gipo/taught", "dataset.root": folder / "taught", "dataset.num_episodes": episodes,
            "dataset.single_task": "go to the pose", "dataset.episode_time_s": EPISODE, "dataset.reset_time_s": RESET,
            "dataset.push_to_hub": "false", "dataset.video": "false", "play_sounds": "false",
        }  # fmt: skip
        words = [sys.executable, "-m", "lerobot.scripts.lerobot_record", *(f"--{k}={v}" for k, v in options.items())]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:  # fmt: skip
            assert process.stdout is not None
            for said in process.stdout:
                if "Recording episode" in said:
                    print(said.strip(), flush=True)
                    hands.teach()
                elif "Reset the environment" in said:
                    hands.begin()
                elif "Error" in said or "error" in said:
                    print(said.strip(), flush=True)
        if process.returncode:
            raise UserError(
                f"lerobot-record ended with exit code {process.returncode}; is {folder / 'taught'} there already?"
            )


def run(given: list[str]) -> None:
    """Record as many episodes as are asked for."""
    parser = Parser(prog="python -m examples.so101.record", description=__doc__)
    parser.add_argument("folder", type=Path, help="for both ports, calibrations and the data set")
    parser.add_argument("--episodes", type=whole(1, 10**4), default=20, help="(%(default)s)")
    parser.add_argument("--seed", type=whole(0, SEEDS), default=0, help="of where they begin (%(default)s)")
    options = parser.parse_args(given)
    record(options.folder, options.episodes, options.seed)
    print(options.folder / "taught")


if __name__ == "__main__":
    sys.exit(boundary.run("so101 record", run, None))
