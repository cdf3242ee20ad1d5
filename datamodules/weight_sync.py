"""TorchRL's shared-memory weight transfer, with a bounded wait."""

import queue
import time

from torchrl.weight_update import SharedMemWeightSyncScheme


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
        deadline = time.monotonic() + self.timeout
        workers = list(self._ack_queues) if worker_ids is None else worker_ids
        for worker in [workers] if isinstance(workers, int) else workers:
            while True:
                try:
                    self._ack_queues[worker].get(timeout=0.2)
                    break
                except queue.Empty:
                    self._refuse_to_wait(worker, deadline)

    def _refuse_to_wait(self, worker: int, deadline: float) -> None:
        if not self.context.procs[worker].is_alive():
            raise RuntimeError(f"worker {worker} died before it took the new weights")
        if time.monotonic() > deadline:
            raise TimeoutError(f"worker {worker} did not take the new weights within {self.timeout:g} s")
