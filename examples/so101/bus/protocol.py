"""Packets of the Feetech SCS/STS protocol, version 0.

    instruction  FF FF | id | length | instruction | parameters … | checksum
    answer       FF FF | id | length | error bits  | data …       | checksum

length counts what follows it; checksum = ~(id + length + … ) & FF.
"""

from collections.abc import Iterator
from dataclasses import dataclass

PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83
BROADCAST = 0xFE
HEADER = b"\xff\xff"
LONGEST = 250  # bytes that a master sends at once
# Bits of the error byte
VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 1, 2, 4, 8, 32


@dataclass(frozen=True)
class Instruction:
    """What a master asks of one servo, or of all by the broadcast id."""

    id: int
    code: int
    parameters: bytes = b""


def packet(identity: int, code: int, payload: bytes = b"") -> bytes:
    """A packet with its header and checksum; `code` is an instruction, or the error bits of an answer."""
    body = bytes([identity, len(payload) + 2, code]) + payload
    return HEADER + body + bytes([~sum(body) & 0xFF])


class Parser:
    """Finds instructions in a stream of bytes; what is no packet, or has a wrong checksum, is passed over."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Instruction]:
        """The instructions that are complete, now that these bytes have come."""
        self._bytes += data
        while (found := self._next()) is not None:
            yield found

    def _next(self) -> Instruction | None:
        while (start := self._bytes.find(HEADER)) >= 0:
            del self._bytes[:start]
            if len(self._bytes) < 4:
                return None
            identity, length = self._bytes[2:4]
            if not 2 <= length <= LONGEST or identity == 0xFF:
                del self._bytes[0]
                continue
            if len(self._bytes) < length + 4:
                return None
            whole = bytes(self._bytes[: length + 4])
            if whole == packet(identity, whole[4], whole[5:-1]):
                del self._bytes[: length + 4]
                return Instruction(identity, whole[4], whole[5:-1])
            del self._bytes[0]
        del self._bytes[:-1]  # the last byte may be the first half of a header
        return None
