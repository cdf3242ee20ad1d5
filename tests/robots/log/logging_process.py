"""A process that logs rows until it is killed: `logging_process.py FILE RATE`."""

import sys
import time

from robots.log import LogWriter, Session
from tests.robots.builders import step_row

if __name__ == "__main__":
    writer = LogWriter(sys.argv[1], Session('{"name": "fake"}'))
    print("ready", flush=True)
    start, period = time.monotonic(), 1 / float(sys.argv[2])
    index = 0
    while True:
        writer.step(step_row(index))
        index += 1
        time.sleep(max(0.0, start + index * period - time.monotonic()))
