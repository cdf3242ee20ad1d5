"""A line of servos for tests, and a master that asks it over a serial port."""

import os
import select
import time
import tty

from examples.so101.bus.line import Line
from examples.so101.bus.motors import FirstOrderMotor
from examples.so101.bus.protocol import HEADER, Instruction, packet
from examples.so101.bus.registers import STS3215
from examples.so101.bus.servo import Servo


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(count: int = 6, start: float = 2048.0, clock: Clock | None = None) -> Line:
    motors = [FirstOrderMotor(start, clock=clock or time.monotonic) for _ in range(count)]
    return Line(Servo(identity, motor) for identity, motor in enumerate(motors, 1))


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def ask(servos: Line, identity: int, code: int, parameters: bytes = b"") -> list[bytes]:
    return [answer.data for answer in servos.answers(Instruction(identity, code, parameters))]


def place(name: str) -> bytes:
    """Address and size of a register, as a read wants them."""
    return bytes([STS3215[name].address, STS3215[name].size])


def value(name: str, answer: bytes) -> int:
    return STS3215[name].decode(answer[5:-1])


class Master:
    """Writes instructions to a port and collects what comes back, for as long as is said."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.descriptor)

    def ask(self, identity: int, code: int, parameters: bytes = b"", size: int = 6, seconds: float = 2.0) -> bytes:
        os.write(self.descriptor, packet(identity, code, parameters))
        found, until = b"", time.monotonic() + seconds
        while len(found) < size and (left := until - time.monotonic()) > 0:
            if select.select([self.descriptor], [], [], left)[0]:
                found += os.read(self.descriptor, 4096)
        return found

    def close(self) -> None:
        os.close(self.descriptor)


def whole(answer: bytes) -> bool:
    """Whether it is one packet with a right checksum."""
    return answer[:2] == HEADER and answer == packet(answer[2], answer[4], answer[5:-1])
