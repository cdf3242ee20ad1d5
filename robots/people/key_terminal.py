"""A terminal that gives every key at once, and is itself again however the process ends."""

import os
import select
import subprocess
import sys
from contextlib import suppress

from gipo.common.errors import UserError
from robots.session import prompt

ESCAPES = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}  # what follows ESC [ or ESC O
# Waits for the end of its standard input, which is our end, and gives the terminal back. Signals of the keyboard do not
# reach it, for it has a session of its own.
GUARD = 'cat >&2; exec stty "$0" <&1'


class KeyTerminal:
    """The keys that are pressed at standard input, without echo; Ctrl-C and Ctrl-Z are signals as ever.

    A process that is killed cannot clean up, so another small one does that for it.

    Raises:
        UserError: when standard input is no terminal.
    """

    def __init__(self) -> None:
        if not prompt.attended():
            raise UserError(
                "a keyboard needs a terminal, and standard input is none whose keys reach this program; run it where "
                "somebody types, and not in the background"
            )
        import termios

        self._descriptor, self._rest = sys.stdin.fileno(), b""
        self._before = termios.tcgetattr(self._descriptor)
        saved = subprocess.run(["stty", "-g"], stdin=self._descriptor, capture_output=True, text=True, check=True)
        guard = subprocess.Popen(
            ["sh", "-c", GUARD, saved.stdout.strip()],
            stdin=subprocess.PIPE, stdout=self._descriptor, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert guard.stdin is not None
        # A process that a driver forks would keep it open, and the guard would wait for the end of that one, too.
        os.register_at_fork(after_in_child=guard.stdin.close)
        self._guard: subprocess.Popen[bytes] | None = guard

    def begin(self) -> None:
        """Take the keys from here on; what was typed before is none of them."""
        import termios
        import tty

        tty.setcbreak(self._descriptor, termios.TCSAFLUSH)
        mode = termios.tcgetattr(self._descriptor)
        mode[0] &= ~termios.IXON  # else Ctrl-S stops the output, and to give the terminal back waits for that
        termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
        self._rest = b""

    def keys(self) -> list[str]:
        """What was pressed since the last call: letters as they are, arrows by their names.

        Raises:
            OSError: when the terminal has gone.
        """
        while select.select([self._descriptor], [], [], 0)[0]:
            typed = os.read(self._descriptor, 1024)
            if not typed:
                raise OSError("the terminal has gone")
            self._rest += typed
        found, self._rest = split(self._rest)
        return found

    def rest(self) -> None:
        """Give the terminal back as it was."""
        import termios

        with suppress(termios.error):  # it has gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def close(self) -> None:
        """Give the terminal back for good."""
        guard, self._guard = self._guard, None
        if guard is not None:
            self.rest()
            guard.communicate()


def split(typed: bytes) -> tuple[list[str], bytes]:
    """Keys of what was typed, and the beginning of an escape sequence whose end is not there yet."""
    found: list[str] = []
    while typed:
        if typed[:1] != b"\x1b":
            found.append(typed[:1].decode("latin-1"))
            typed = typed[1:]
        elif len(typed) < 2 or (typed[1:2] in (b"[", b"O") and len(typed) < 3):
            return found, typed
        elif typed[1:2] in (b"[", b"O"):
            end = next((at for at in range(2, len(typed)) if 0x40 <= typed[at] <= 0x7E), None)
            if end is None:
                return found, typed
            found += [ESCAPES[typed[end : end + 1]]] if end == 2 and typed[end : end + 1] in ESCAPES else []
            typed = typed[end + 1 :]
        else:
            typed = typed[1:]  # the key of Escape itself says nothing
    return found, b""
