"""What can go wrong on a bus, as switches that may be turned at any time."""

import random
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Faults of the line between a master and its servos.

    Args:
        mute: nothing is answered.
        dropped: share of the answers that never arrive, in [0, 1].
        corrupted: share of the answers in which one byte arrives as another.
        latency: seconds by which every answer is late, as with a USB adapter's timer.
        seed: of the dice.
    """

    mute: bool = False
    dropped: float = 0.0
    corrupted: float = 0.0
    latency: float = 0.0
    seed: int = 0
    lost: int = field(default=0, init=False)
    spoilt: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def on_the_way(self, answer: bytes) -> bytes:
        """An answer as it arrives; empty when it does not."""
        if self.mute:
            return b""
        if self._random.random() < self.dropped:
            self.lost += 1
            return b""
        if self._random.random() < self.corrupted:
            self.spoilt += 1
            where = self._random.randrange(len(answer))
            other = answer[where] ^ self._random.randrange(1, 256)
            return answer[:where] + bytes([other]) + answer[where + 1 :]
        return answer
