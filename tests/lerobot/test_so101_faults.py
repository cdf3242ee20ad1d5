"""Faults of the arm and its bus while LeRobot's own driver runs: what the arm does, and what the log says.

The table of docs/so101.md has a row for each of these tests.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from examples.so101.bus.registers import TURN
from robots.log import Episode
from tests.lerobot.patience import PATIENT
from tests.lerobot.so101 import RANGE, Arm

TICKS = 30  # before the fault
Fault = Callable[[Arm], None]


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Callable[..., tuple[Arm, Episode]]]:
    """`broken(fault)`: the arm, and the episode that was driven when the fault came, after a second."""
    arms: list[Arm] = []

    def drive(fault: Fault, steps: int = 90) -> tuple[Arm, Episode]:
        folder = tmp_path / str(len(arms))
        folder.mkdir()
        arms.append(Arm(folder, TICKS, fault))
        arms[-1].run("--episodes", "1", "--steps", str(steps), *PATIENT)
        (episode,) = arms[-1].log().episodes
        return arms[-1], episode

    yield drive
    for arm in arms:
        arm.close()


def stopped_within(arm: Arm, episode: Episode, periods: int) -> str:
    """Why it was stopped; no goal but one that holds came later than so many periods after the fault."""
    assert arm.line.done_at, "the fault came"
    assert arm.log().integrity.status == "sealed"
    assert TICKS <= len(episode) <= TICKS + periods
    assert episode.event("stop") is not None
    return str(episode.event("episode_end")["reason"])  # type: ignore[index]


def test_a_bus_that_falls_silent_stops_it_and_the_arm_holds(broken: Callable[..., tuple[Arm, Episode]]) -> None:
    arm, episode = broken(lambda arm: setattr(arm.port.faults, "mute", True))
    assert "There is no status packet" in stopped_within(arm, episode, 2)
    goals = np.array([servo.get("Goal_Position") for servo in arm.line.servos])
    # The last thing that it was told is where it was measured last: degrees from the middle, and percent of the range.
    low, high = RANGE
    measured = episode["observation"][-1]
    where = np.append((low + high) / 2 + measured[:5] * TURN / 360, low + measured[5] * (high - low) / 100)
    assert goals == pytest.approx(where, abs=2)


def test_a_pulled_plug_stops_it_and_the_servos_keep_their_last_goal(
    broken: Callable[..., tuple[Arm, Episode]],
) -> None:
    arm, episode = broken(lambda arm: threading.Thread(target=arm.port.unplug).start())
    heard = len(arm.line.written)  # a thread pulls it, when this machine lets it
    assert "port is gone: is its plug in?" in stopped_within(arm, episode, heard + 2 - TICKS)
    assert arm.line.torque == [1] * 6


def test_a_brown_out_stops_it_and_the_arm_is_limp(broken: Callable[..., tuple[Arm, Episode]]) -> None:
    def lose_power(arm: Arm) -> None:
        for servo in arm.line.servos:
            servo.lose_power()

    arm, episode = broken(lose_power)
    assert "There is no status packet" in stopped_within(arm, episode, 2)
    assert arm.line.torque == [0] * 6
    for servo in arm.line.servos:
        servo.get_power()
    assert arm.line.torque == [0] * 6, "power that is back moves nothing"


def test_an_overheated_motor_goes_limp_and_the_others_are_stopped(
    broken: Callable[..., tuple[Arm, Episode]], capsys: pytest.CaptureFixture[str]
) -> None:
    arm, episode = broken(lambda arm: setattr(arm.line.servos[1], "hot", True))
    assert stopped_within(arm, episode, 2) == (
        f"motor shoulder_lift (2) on {arm.port.path} reports overheat, and its torque may be off; see to it, then "
        "switch its power off and on"
    )
    assert arm.line.torque == [0] * 6
    said = capsys.readouterr().err.splitlines()
    assert sum("reports overheat" in line for line in said) == 1
    assert any("torque may still be on at shoulder_lift" in line for line in said)


@pytest.mark.parametrize("fault", ["dropped", "corrupted"])
def test_one_answer_in_a_hundred_lost_or_spoilt_is_asked_for_again_within_the_tick(
    broken: Callable[..., tuple[Arm, Episode]], fault: str
) -> None:
    arm, episode = broken(lambda arm: setattr(arm.port.faults, fault, 0.01))
    assert len(episode) == 90
    assert episode.event("stop") is None
    assert arm.port.faults.lost + arm.port.faults.spoilt > 0
