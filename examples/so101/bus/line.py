"""The servos of a bus, and what each of them answers to an instruction."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from examples.so101.bus.protocol import (
    ACTION,
    BROADCAST,
    PING,
    READ,
    REG_WRITE,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    packet,
)
from examples.so101.bus.servo import Servo

RETURN_DELAY = 2e-6  # seconds a unit of the register
REFUSED = 0x10  # bit of an answer to what cannot be done: the manual leaves it free, and servos set it


@dataclass(frozen=True)
class Answer:
    """A status packet, and how long its servo waits before it sends it, in seconds."""

    data: bytes
    delay: float


class Line:
    """Servos on one line: each hears everything, and answers what is asked of it.

    Args:
        servos: with different ids.
    """

    def __init__(self, servos: Iterable[Servo]):
        self.servos = tuple(servos)

    def answers(self, asked: Instruction) -> Iterator[Answer]:
        """What comes back, in the order in which it comes."""
        if asked.code == SYNC_READ:
            yield from self._sync_read(asked.parameters)
        elif asked.code == SYNC_WRITE:
            self._sync_write(asked.parameters)
        else:
            for servo in self._listening():
                if asked.id in (servo.identity, BROADCAST):
                    yield from self._answer(servo, asked)

    def _listening(self) -> list[Servo]:
        found = [servo for servo in self.servos if servo.powered]
        for servo in found:
            servo.check()
        return found

    def _answer(self, servo: Servo, asked: Instruction) -> Iterator[Answer]:
        identity, found = servo.identity, b""
        refused = False
        if asked.code == READ:
            data = servo.read(*asked.parameters) if len(asked.parameters) == 2 else None
            refused, found = data is None, data or b""
        elif asked.code in (WRITE, REG_WRITE):
            address, *values = asked.parameters or (255,)
            write = servo.write if asked.code == WRITE else servo.keep_for_later
            refused = write(address, bytes(values)) is False
        elif asked.code == ACTION:
            servo.act()
        elif asked.code != PING:
            refused = True
        always = asked.code in (PING, READ)
        if asked.id == BROADCAST and asked.code != PING:
            return
        if always or servo.get("Response_Status_Level"):
            yield self._packet(servo, found, refused, identity)

    def _sync_read(self, parameters: bytes) -> Iterator[Answer]:
        if len(parameters) < 3:
            return
        address, size, *order = parameters
        servos = {servo.identity: servo for servo in self._listening()}
        for servo in (servos[identity] for identity in order if identity in servos):
            data = servo.read(address, size)
            yield self._packet(servo, data or b"", data is None, servo.identity)

    def _sync_write(self, parameters: bytes) -> None:
        if len(parameters) < 2:
            return
        address, size, *rest = parameters
        servos = {servo.identity: servo for servo in self._listening()}
        for start in range(0, len(rest) - size, size + 1):
            if rest[start] in servos:
                servos[rest[start]].write(address, bytes(rest[start + 1 : start + 1 + size]))

    def _packet(self, servo: Servo, data: bytes, refused: bool, identity: int) -> Answer:
        errors = servo.errors | (REFUSED if refused else 0)
        return Answer(packet(identity, errors, data), servo.get("Return_Delay_Time") * RETURN_DELAY)
