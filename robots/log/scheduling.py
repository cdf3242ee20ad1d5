"""The scheduling of this process's threads, kept as it was while a library starts threads of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Give back to threads the scheduling that they had, and to new ones that of who started them.

    SVT-AV1, run by root, puts the thread that opens it and all of its own at the highest real-time priority there is
    (SCHED_FIFO, 99): the control loop would wait for the encoder.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    own, before = _scheduling(0), {thread: _scheduling(thread) for thread in threads()}
    try:
        yield
    finally:
        for thread in threads():
            policy, priority = before.get(thread) or own or (os.SCHED_OTHER, 0)
            if _scheduling(thread) not in (None, (policy, priority)):
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(thread, policy, os.sched_param(priority))


def threads() -> list[int]:
    """The threads of this process, as the system numbers them."""
    return [int(name) for name in os.listdir("/proc/self/task")]


def _scheduling(thread: int) -> tuple[int, int] | None:
    """Policy and priority of a thread; None where it has ended meanwhile."""
    try:
        return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
    except ProcessLookupError:
        return None
