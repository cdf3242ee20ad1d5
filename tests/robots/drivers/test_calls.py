"""A driver's call beside the main thread: what it did is said, and signals are heard meanwhile."""

import threading

from robots.drivers.calls import Call
from tests.unwoken import unwoken


def test_what_a_call_did_is_said() -> None:
    def fail() -> None:
        raise OSError("port is gone")

    assert Call(lambda: None).wait(5) == ""
    assert Call(fail).wait(5) == f"OSError: port is gone in fail ({__file__}:11)"
    asleep = threading.Event()
    assert Call(asleep.wait).wait(0.1) == "it takes more than 0.1 s"
    asleep.set()


def test_a_signal_that_wakes_nobody_is_heard_while_it_is_waited_for() -> None:
    with unwoken() as deliver:
        assert Call(deliver).wait(20) == ""
