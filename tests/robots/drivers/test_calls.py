"""A driver's call beside the main thread: what it did is said, and signals are heard meanwhile."""

import signal
import threading
import time

from robots.drivers.calls import Call


def test_what_a_call_did_is_said() -> None:
    def fail() -> None:
        raise OSError("port is gone")

    assert Call(lambda: None).wait(5) == ""
    assert Call(fail).wait(5) == "OSError: port is gone"
    asleep = threading.Event()
    assert Call(asleep.wait).wait(0.1) == "it takes more than 0.1 s"
    asleep.set()


def test_a_signal_that_wakes_nobody_is_heard_while_it_is_waited_for() -> None:
    """Such as one that comes while the main thread, whose it is to hear, goes to sleep."""
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())

    def call() -> None:
        time.sleep(0.1)  # the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        assert heard.wait(5)

    try:
        assert Call(call).wait(20) == ""
    finally:
        signal.signal(signal.SIGUSR1, before)
