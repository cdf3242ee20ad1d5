"""LeRobot's own leader arm over emulated servos: answers that are lost, a plug that is pulled."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from gipo.common.errors import UserError
from robots.base import Observation
from robots.people.leader import Teleoperator
from robots.people.load import load_operator
from tests.lerobot.arm import SPEC, Desk

LEADER = "lerobot.teleoperators.so_leader:SO101Leader"
SEEN = Observation(np.zeros(6), 1)
Lead = Callable[[], Teleoperator]


@pytest.fixture
def lead(desk: Desk, terminal: int) -> Iterator[Lead]:
    """`lead()`: the arm at the desk as a leader, with a person at a terminal."""
    made: list[Teleoperator] = []

    def lead() -> Teleoperator:
        folder = desk.folder / "calibration"
        settings = [f"port={desk.port.path}", "id=desk", f"calibration_dir={folder}", "use_degrees=true"]
        made.append(load_operator(LEADER, SPEC, None, settings))  # type: ignore[arg-type]
        return made[-1]

    yield lead
    for operator in made:
        with suppress(UserError):  # of a plug that is out
            operator.close()


def test_it_commands_what_its_joints_are_at(lead: Lead, desk: Desk) -> None:
    operator = lead()
    at = operator.device.get_action()
    assert operator.action(SEEN) == pytest.approx([at[name] for name in SPEC.action_names], abs=0.2)
    assert desk.torque == [0] * 6


def test_lost_answers_are_asked_for_again(lead: Lead, desk: Desk) -> None:
    desk.port.faults.dropped = 0.01  # in the handshake not every packet is asked for again, but all of it is
    operator = lead()
    desk.port.faults.dropped = 0.02  # six answers a command: one command in nine has to be asked for again
    told = [operator.action(SEEN) for _ in range(60)]
    assert desk.port.faults.lost > 2
    assert np.ptp(told, axis=0).max() < 1.0


def test_a_pulled_plug_is_told(lead: Lead, desk: Desk) -> None:
    operator = lead()
    desk.port.unplug()
    with pytest.raises(UserError, match=r"/arm is gone: is its plug in\?"):
        operator.action(SEEN)
