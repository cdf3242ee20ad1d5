"""`python -m datamodules.ingest.worker`: converts one source after another, until its standard input ends.

A process of its own and no fork of the caller: it needs no torch, runs none of the caller's main module, and is gone
when the caller is, however that ended.
"""

import os
import pickle
import queue
import sys
import threading

from datamodules.ingest.cache import ELSEWHERE, FULL
from datamodules.ingest.convert import Job, convert
from gipo.common.errors import UserError
from gipo.common.faults import described


def main() -> None:
    """Answer every `Job` with its `Converted`, or a UserError; both pickled, as they are between these two alone."""
    # Whatever prints belongs on the terminal, not between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        try:
            answer: object = convert(job)
        except UserError as error:
            answer = error
        except (OSError, MemoryError) as error:  # which is no end of this process
            if isinstance(error, OSError) and error.errno in FULL:
                answer = UserError(f"cannot ingest {job.path} to {job.folder}: {error.strerror}{ELSEWHERE}")
            else:
                advice = "; use fewer workers" if isinstance(error, MemoryError) else ""
                answer = UserError(f"{job.path}: {described(error)}{advice}")
        pickle.dump(answer, answers)
        answers.flush()


def _listen(jobs: "queue.SimpleQueue[Job]") -> None:
    try:
        while True:
            jobs.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)  # the caller is done, or gone; in the midst of a job nobody is left to answer to


if __name__ == "__main__":
    main()
