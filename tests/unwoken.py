"""A signal as it comes while the main thread, whose it is to hear it, falls asleep: nobody is woken."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def unwoken() -> Iterator[Callable[[], None]]:
    """A function for a thread that the main thread waits for: it ends well once the main thread heard a signal."""
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())

    def deliver() -> None:
        time.sleep(0.1)  # the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        assert heard.wait(5)

    try:
        yield deliver
    finally:
        signal.signal(signal.SIGUSR1, before)
