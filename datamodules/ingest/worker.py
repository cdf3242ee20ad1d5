"""`python -m datamodules.ingest.worker`: converts one source a line, until its standard input ends.

A process of its own and no fork of the caller: it needs no torch, runs none of the caller's main module, and is gone
when the caller is, however that ended.
"""

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from typing import TextIO

from datamodules.ingest.convert import Job, convert
from gipo.common.errors import UserError


def main() -> None:
    """Answer jobs, one JSON object a line each way: the `Converted`, or `error` with the text of a UserError."""
    # Whatever prints belongs on the terminal, not between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, jobs), daemon=True).start()
    while True:
        job = Job(**json.loads(jobs.get()))
        try:
            answer = asdict(convert(job))
        except UserError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _listen(stdin: TextIO, jobs: "queue.SimpleQueue[str]") -> None:
    for line in stdin:
        jobs.put(line)
    os._exit(0)  # the caller is done, or gone; in the midst of a job nobody is left to answer to


if __name__ == "__main__":
    main()
