"""Faults of the arm and its bus while LeRobot's own driver runs: what the arm does, and what the log says.

The table of docs/so101.md has a row for each of these tests.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from robots.log import Episode
from tests.lerobot.so101 import RATE, Arm

TICKS = 30  # before the fault
PERIOD = 1.0 / RATE
Fault = Callable[[Arm], None]


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Callable[..., tuple[Arm, Episode]]]:
    """`broken(fault)`: the arm, and the episode that was driven when the fault came, after a second."""
    arms: list[Arm] = []

    def drive(fault: Fault, steps: int = 90) -> tuple[Arm, Episode]:
        for _ in range(5):  # a machine that is busy may not let the driver connect, or tick
            folder = tmp_path / str(len(arms))
            folder.mkdir()
            arms.append(Arm(folder, TICKS, fault))
            arms[-1].run("--episodes", "1", "--steps", str(steps))
            if arms[-1].line.done_at:
                (episode,) = arms[-1].log().episodes
                return arms[-1], episode
            arms[-1].close()
        pytest.skip("this machine is too busy for a second at 30 Hz")

    yield drive
    for arm in arms:
        arm.close()


def stopped_within(arm: Arm, episode: Episode, periods: float) -> bool:
    """Whether no goal but one that holds came later than so many periods after the fault; the log is sealed."""
    assert arm.log().integrity.status == "sealed"
    return len(episode) <= TICKS + periods


def test_a_bus_that_falls_silent_stops_it_and_the_arm_holds(broken: Callable[..., tuple[Arm, Episode]]) -> None:
    arm, episode = broken(lambda arm: setattr(arm.port.faults, "mute", True))
    assert stopped_within(arm, episode, 2)
    assert "There is no status packet" in episode.event("episode_end")["reason"]  # type: ignore[index]
    goals = [servo.get("Goal_Position") for servo in arm.line.servos]
    here = [servo.motor.position() for servo in arm.line.servos]
    assert here == pytest.approx(goals, abs=15)


def test_a_pulled_plug_stops_it_and_the_servos_keep_their_last_goal(
    broken: Callable[..., tuple[Arm, Episode]],
) -> None:
    arm, episode = broken(lambda arm: threading.Thread(target=arm.port.unplug).start())
    assert stopped_within(arm, episode, 2)
    assert "port is gone: is its plug in?" in episode.event("episode_end")["reason"]  # type: ignore[index]
    assert arm.line.torque == [1] * 6


def test_a_brown_out_stops_it_and_the_arm_is_limp(broken: Callable[..., tuple[Arm, Episode]]) -> None:
    def lose_power(arm: Arm) -> None:
        for servo in arm.line.servos:
            servo.lose_power()

    arm, episode = broken(lose_power)
    assert stopped_within(arm, episode, 2)
    assert arm.line.torque == [0] * 6
    for servo in arm.line.servos:
        servo.get_power()
    assert arm.line.torque == [0] * 6, "power that is back moves nothing"


def test_an_overheated_motor_goes_limp_and_the_driver_does_not_look(
    broken: Callable[..., tuple[Arm, Episode]],
) -> None:
    """LeRobot reads positions without their error bits: only the readings tell, and its end that cannot be written."""
    arm, episode = broken(lambda arm: setattr(arm.line.servos[1], "hot", True))
    assert len(episode) == 90
    assert episode.event("stop") is None
    assert arm.line.torque[1] == 0
    after = episode["observation"][TICKS + 10 :, 1]
    assert (after == after[0]).all(), "it stands, whatever it is told"
    assert abs(episode["action"][TICKS + 10 :, 1] - after).max() > 1.0


@pytest.mark.parametrize("fault", ["dropped", "corrupted"])
def test_one_answer_in_a_hundred_lost_or_spoilt_is_asked_for_again_within_the_tick(
    broken: Callable[..., tuple[Arm, Episode]], fault: str
) -> None:
    for _ in range(3):  # three losses in a row are a stop, and happen once in 5,000 ticks
        arm, episode = broken(lambda arm: setattr(arm.port.faults, fault, 0.01))
        if len(episode) == 90:
            break
    assert len(episode) == 90
    assert episode.event("stop") is None
    assert arm.port.faults.lost + arm.port.faults.spoilt > 0
