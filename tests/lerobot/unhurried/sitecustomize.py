"""On the path of a LeRobot in a process of its own: it waits longer for servos that are emulated in another one."""

from typing import Any

from scservo_sdk import PortHandler

LONGER = 3000.0  # milliseconds


def is_over(handler: Any) -> bool:
    """Whether an answer is waited for no longer."""
    return bool(handler.getTimeSinceStart() > handler.packet_timeout + LONGER)


PortHandler.isPacketTimeout = is_over
