"""A person at the keyboard of the terminal."""

import sys
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from gipo.common.errors import UserError
from gipo.common.tables import pairs
from robots.base import Observation
from robots.people.key_terminal import KeyTerminal
from robots.people.operator import Operator, Said
from robots.people.pushes import Pushes
from robots.spec import RobotSpec

# For each action dimension in turn the key that lowers it, and the one that raises it.
KEYS = (
    ("left", "right"), ("down", "up"), ("j", "u"), ("k", "i"), ("l", "o"), ("h", "y"), ("g", "t"), ("v", "r"),
    ("c", "e"),
)  # fmt: skip
TAKE, HAND_BACK = " ", ("\n", "\r")  # two keys, so that no strike of the one can be taken for another of it
WORDS = {"s": Said(success=True), "f": Said(success=False), "d": Said(discard=True)}
WORDS |= {str(digit): Said(reward=float(digit)) for digit in range(10)}
WORD_LINES = (
    ("space", "take over"),
    ("Enter", "hand back"),
    ("s / f / d", "success / failure / discard the episode"),
    ("0 … 9", "a reward of so much"),
)
REPEAT_SECONDS = 1.0  # a key again within this time is one that is held; terminals wait less before they repeat it …
REPEATING_SECONDS = 0.25  # … and much less from then on: who strikes it again and again is soon heard
PRESSED_SECONDS = 0.15  # a key counts as held; terminals tell presses and repetitions, never that it was let go


class WordKeys(Operator):
    """Space takes over, Enter hands back, and other keys say how it goes; none moves the robot.

    Whoever grabs space in alarm has the robot, however often they strike it or the terminal repeats it. A key that says
    something says it once while it is held, so a second press of it counts from a second after the first.

    Args:
        keys: what each of them does, as lines for the person.

    Raises:
        UserError: when standard input is no terminal.
    """

    def __init__(self, keys: str = pairs(WORD_LINES)):
        self._words: deque[Said] = deque()
        self._engaged = False
        self._arrived: dict[str, tuple[float, bool]] = {}  # when a key of these last came, and whether as a repetition
        self._clock: Callable[[], float] = time.monotonic
        self._terminal = KeyTerminal()
        print(keys, file=sys.stderr)

    def begin(self) -> None:
        """Take the keys of the terminal, with the policy in charge."""
        self._words.clear()
        self._arrived.clear()
        self._engaged = False
        self._terminal.begin()

    def action(self, observation: Observation) -> np.ndarray | None:
        """Nothing: only who has the robot, and how it goes, is said by keys."""
        for key in self._terminal.keys():
            self._press(key)
        return None

    def engaged(self) -> bool:
        """Whether space was pressed, and Enter not since."""
        return self._engaged

    def said(self) -> Said | None:
        """What s, f, d and the digits say."""
        return self._words.popleft() if self._words else None

    def rest(self) -> None:
        """Give the terminal back, for questions and for the shell."""
        self._terminal.rest()

    def close(self) -> None:
        """Give the terminal back for good."""
        self._terminal.close()

    def _press(self, key: str) -> None:
        if key == TAKE or key in HAND_BACK:
            self._engaged = key == TAKE
        elif key in WORDS and not self._is_held(key):
            self._words.append(WORDS[key])

    def _is_held(self, key: str) -> bool:
        now = self._clock()
        before, repeated = self._arrived.get(key, (-np.inf, False))
        held = now - before < (REPEATING_SECONDS if repeated else REPEAT_SECONDS)
        self._arrived[key] = now, held
        return held


class Keyboard(WordKeys):
    """Space takes over, Enter hands back, keys move, and others say how it goes.

    A press moves for a moment, a key that is held moves on as the terminal repeats it: whoever lets go holds the robot.

    Args:
        spec: of the robot.
        strength: of a key: the share of the way to the bound of a speed, or of the range of a position in a second.

    Raises:
        UserError: when standard input is no terminal, or there are more dimensions than keys.
    """

    def __init__(self, spec: RobotSpec, strength: float = 0.5):
        if spec.action_size > len(KEYS):
            raise UserError(
                f"a keyboard has keys for {len(KEYS)} action dimensions, {spec.name!r} has {spec.action_size}; "
                "name an operator of your own, package.module:Class"
            )
        self._pushes = Pushes(spec, strength)
        self._moves = {key: (index, sign) for index, ends in enumerate(KEYS[: spec.action_size])
                       for key, sign in zip(ends, (-1.0, 1.0), strict=True)}  # fmt: skip
        self._pressed = np.full((spec.action_size, 2), -np.inf)  # when the key to lower and to raise was last pressed
        super().__init__(keys_of(spec))

    def begin(self) -> None:
        """Take the keys of the terminal, with nothing pressed and the policy in charge."""
        self._pressed[:] = -np.inf
        super().begin()

    def action(self, observation: Observation) -> np.ndarray:
        """[D] what the keys that were pressed a moment ago command."""
        super().action(observation)
        held = (self._clock() - self._pressed) < PRESSED_SECONDS
        if not self._engaged:
            self._pushes.begin()
        return self._pushes.command(held[:, 1].astype(float) - held[:, 0], observation)

    def _press(self, key: str) -> None:
        before = self._engaged
        super()._press(key)
        if self._engaged != before:
            self._pressed[:] = -np.inf
        elif key in self._moves:
            index, sign = self._moves[key]
            self._pressed[index, int(sign > 0)] = self._clock()
            self._pressed[index, int(sign < 0)] = -np.inf


def keys_of(spec: RobotSpec) -> str:
    """What each key does with a robot, as lines for its person."""
    moves = [(f"{low} / {high}", f"{name} down / up")
             for name, (low, high) in zip(spec.action_names, KEYS, strict=False)]  # fmt: skip
    return pairs([*moves, *WORD_LINES])
