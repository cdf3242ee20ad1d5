"""TorchRL's shared-memory weight transfer, with a bounded wait."""

import queue
import threading
from collections.abc import Callable

from torchrl.weight_update import SharedMemWeightSyncScheme

TICK = 0.2  # seconds between two looks


def count_down(seconds: float, done: threading.Event, then: Callable[[], object]) -> None:
    """Call `then` after so many seconds, unless `done` comes before.

    They are counted in ticks, so that a while in which this process is stopped (Ctrl-Z), and its workers with it, is
    one tick and no silence of theirs.
    """
    while seconds > 0:
        if done.wait(min(TICK, seconds)):
            return
        seconds -= TICK
    then()


class BoundedWeightSync(SharedMemWeightSyncScheme):
    """Waits for each worker to take up new weights, but not for a dead one, and not for ever.

    TorchRL's own wait has no end when a worker has died or was stopped.

    Args:
        timeout: seconds for all workers together.
    """

    def __init__(self, timeout: float):
        super().__init__()
        self.timeout = timeout

    def _wait_for_ack(self, worker_ids: int | list[int] | None = None, timeout: float | None = None) -> None:
        left = self.timeout  # in ticks, as `count_down` has it
        workers = list(self._ack_queues) if worker_ids is None else worker_ids
        for worker in [workers] if isinstance(workers, int) else workers:
            while True:
                try:
                    self._ack_queues[worker].get(timeout=TICK)
                    break
                except queue.Empty:
                    left -= TICK
                    self._refuse_to_wait(worker, left)

    def _refuse_to_wait(self, worker: int, left: float) -> None:
        if not self.context.procs[worker].is_alive():
            raise RuntimeError(f"worker {worker} died before it took the new weights")
        if left <= 0:
            raise TimeoutError(f"worker {worker} did not take the new weights within {self.timeout:g} s")
