"""When it is worth asking a servo bus again: without LeRobot, by a device that fails as one of its buses does."""

import errno
from typing import Any

import pytest

from robots.drivers.lerobot_bus import ATTEMPTS, connect


class Device:
    """A device whose first connections fail."""

    def __init__(self, *errors: Exception):
        self.errors, self.asked = list(errors), 0

    def connect(self, calibrate: bool) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)


LOST: Any = [
    ConnectionError("There is no status packet!"),
    RuntimeError("Some motors have no answer"),
    IndexError("list index out of range"),  # of the servos' library, where an answer is shorter than it takes it to be
]
FINAL: Any = [ConnectionError(errno.EACCES, "Permission denied"), ValueError("no such motor")]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_what_a_lost_packet_may_be_is_asked_for_again(error: Exception) -> None:
    device = Device(error)
    connect(device)
    assert device.asked == 2
    stubborn = Device(*[error] * ATTEMPTS)
    with pytest.raises(type(error)):
        connect(stubborn)
    assert stubborn.asked == ATTEMPTS


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_what_the_system_refuses_is_not(error: Exception) -> None:
    device = Device(error)
    with pytest.raises(type(error)):
        connect(device)
    assert device.asked == 1
