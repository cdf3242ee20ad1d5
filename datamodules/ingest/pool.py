"""The caller's side of the worker processes."""

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress

from datamodules.ingest.convert import Converted, Job, convert
from gipo.common.errors import UserError

POLL_SECONDS = 0.2


def run_jobs(jobs: list[Job], workers: int, tick: Callable[[], None]) -> list[Converted]:
    """Do all jobs, in this process when one of the `workers` is enough; none outlives the call. `tick` now and then.

    Raises:
        UserError: of the first source, in order, of those that had failed when the first did.
    """
    found: list[Converted] = []
    if min(workers, len(jobs)) == 1:
        for job in jobs:
            found.append(convert(job))
            tick()
        return found
    with _Workers(min(workers, len(jobs))) as ask, ThreadPoolExecutor(min(workers, len(jobs))) as threads:
        try:
            # The largest first, so that none is left over for one worker alone at the end.
            order = sorted(range(len(jobs)), key=lambda index: -jobs[index].size)
            submitted = {index: threads.submit(ask, jobs[index]) for index in order}
            answers = [submitted[index] for index in range(len(jobs))]
            waiting = set(answers)
            while waiting:
                done, waiting = wait(answers, POLL_SECONDS, FIRST_EXCEPTION)
                found = [answer.result() for answer in answers if answer in done]  # raises what a failed one did
                tick()
            return found
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            ask.stop()
            raise


class _Workers:
    """Worker processes, gone at the end of the context; each serves one caller's thread at a time."""

    def __init__(self, count: int):
        self._count = count
        self._all: list[subprocess.Popen[bytes]] = []
        self._free: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()  # None: one has ended
        self._ended: UserError | None = None  # what is to be said of the first that has

    def __enter__(self) -> "_Workers":
        try:
            for _ in range(self._count):
                self._all.append(_start())
                self._free.put(self._all[-1])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        for process in self._all:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):  # what was to be flushed to it is of no use to anybody
                    pipe.close()

    def __call__(self, job: Job) -> Converted:
        process = self._free.get()
        if process is None:
            self._free.put(None)
            assert self._ended is not None
            raise self._ended  # and not that this job's source is at fault
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pickle.dumps(job))
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:  # an answer is cut short by the end of the process
            self._ended = self._ended or UserError(
                f"the process that read {job.path} ended (exit code {process.wait()}); if memory ran out, use fewer "
                "workers"
            )
            process = None
            raise self._ended from error
        finally:
            self._free.put(process)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def stop(self) -> None:
        """End every process now."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()


def _start() -> "subprocess.Popen[bytes]":
    # Found as this process finds it, whatever its working directory; one thread each, because there are several.
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", "datamodules.ingest.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is this process's to hear; its end is theirs
    )
