"""What a driver began and its `close` has not ended: Python waits for it, and a program that is over seems to hang."""

import multiprocessing
import threading
import time

from gipo.common import terminal

PATIENCE_SECONDS = 2.0  # that the program may take to end


class Leftovers:
    """Says what a program that is over waits for: threads and processes, begun from here on, that are no daemons."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def tell(self) -> None:
        """Name what still runs on the terminal, should the program not have ended a while after this."""
        if self._left():
            threading.Thread(target=self._watch, name="leftovers", daemon=True).start()

    def _left(self) -> list[str]:
        threads = [each.name for each in threading.enumerate() if not each.daemon and each not in self._before]
        return [*threads, *(each.name for each in multiprocessing.active_children() if not each.daemon)]

    def _watch(self) -> None:
        time.sleep(PATIENCE_SECONDS)
        if threading.main_thread().is_alive():  # whoever called goes on; the pools of Python's own end by themselves
            return
        if left := self._left():
            terminal.tell(
                f"gipo-robot: the session is over, and Python waits for {', '.join(left)}, which the driver or "
                "operator began: end it in close(), or make it a daemon"
            )
