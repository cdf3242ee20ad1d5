"""Real-time scheduling, as a robot's computer has it: servos do not wait for a machine that is busy with much else."""

import os
from contextlib import suppress

HARDWARE = 10  # the priority of what stands for servos


def ask_for_real_time(priority: int, heirs: bool = True) -> bool:
    """Have every thread of this process go first, by SCHED_FIFO; False where that is forbidden.

    Args:
        priority: from 1; the highest goes first.
        heirs: so do threads and processes that are started later.
    """
    policy = os.SCHED_FIFO if heirs else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread), policy, os.sched_param(priority))
    except PermissionError:
        return False
    return True
