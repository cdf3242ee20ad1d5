"""Work beside the control thread: handed over without waiting, dropped and counted when it cannot keep up."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from gipo.common.signals import join

Item = TypeVar("Item")


class Background(Generic[Item]):
    """Calls `handle` for each item in a thread of its own.

    Args:
        handle: what to do; its first exception ends the work and is kept in `error`.
        capacity: items that may wait.
    """

    def __init__(self, handle: Callable[[Item], None], capacity: int = 256):
        self.dropped, self.error = 0, ""
        self._handle = handle
        self._queue: queue.Queue[Item | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def __call__(self, item: Item) -> None:
        """Hand over one item; dropped and counted when too many wait."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 10.0) -> None:
        """Finish what waits; whatever could not be done in `timeout` seconds is dropped, and `error` says so."""
        end, told = time.monotonic() + timeout, False
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
            told = True
            join(self._thread, end - time.monotonic())
        if self._thread.is_alive():
            self.dropped += 1 + self._queue.qsize() - told  # what it is at, and what waits but for the word to end
            self.error = self.error or f"it takes more than {timeout:g} s"

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.error:
                self.dropped += 1
                continue
            try:
                self._handle(item)
            except BaseException as error:  # whatever it is, it is not the control loop's business
                self.error = f"{type(error).__name__}: {error}"
                self.dropped += 1
