"""Waits for workers are bounded in time that this process runs, not in time that it is stopped."""

import threading
import time

from datamodules.collect.weight_transfer import TICK, count_down


class Stopped(threading.Event):
    """As waited for in a process that is stopped during the first wait, for longer than its patience."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        time.sleep(4 * TICK if self.waits == 1 else 0)
        return self.waits == 3


def test_a_process_that_was_stopped_gives_its_workers_time() -> None:
    gave_up: list[bool] = []
    count_down(2.5 * TICK, Stopped(), lambda: gave_up.append(True))
    assert not gave_up


def test_patience_ends() -> None:
    gave_up: list[bool] = []
    begin = time.monotonic()
    count_down(0.3, threading.Event(), lambda: gave_up.append(True))
    assert gave_up == [True]
    assert 0.3 <= time.monotonic() - begin < 2
