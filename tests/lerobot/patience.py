"""A bus that waits for this machine: an answer is missing only where the emulated line has none to give.

The thread that stands for servos shares two cores, and Python's lock, with whatever else runs; servos do not. So the
drivers' own deadlines hold here from when the line has heard what was asked and has said all that it has to say.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from examples.so101.bus.port import Port

SETTLED = 0.05  # seconds that a line must have been quiet: what is written to a terminal takes a moment to be there
PATIENT = ("--deadline", "150", "--max-age", "150")  # periods, of a loop that is not to be stopped for being late


@contextmanager
def waits_for_this_machine() -> Iterator[None]:
    """Have the servos' own library give up on an answer when its time is up, and the line is not what it waits for."""
    from scservo_sdk import PortHandler

    ports: list[Port] = []
    make, is_over = Port.__init__, PortHandler.isPacketTimeout
    quiet: dict[int, tuple[float, float]] = {}  # handler → when it asked, and since when nothing has been under way

    def noted(port: Port, *arguments: Any, **options: Any) -> None:
        make(port, *arguments, **options)
        ports.append(port)

    def gives_up(handler: Any) -> bool:
        if not is_over(handler):
            return False
        now, asked = time.monotonic(), handler.packet_start_time
        if handler.ser.in_waiting or any(port.behind for port in ports):
            quiet.pop(id(handler), None)
            return False
        if quiet.get(id(handler), (None,))[0] != asked:
            quiet[id(handler)] = (asked, now)
        return now - quiet[id(handler)][1] > SETTLED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Port, "__init__", noted)
        patch.setattr(PortHandler, "isPacketTimeout", gives_up)
        yield
