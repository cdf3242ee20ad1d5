"""A process that films until it is killed, `filming_process.py FILE RATE`; frames have the monotonic clock's time."""

import sys
import time

import numpy as np

from robots.log import Image, LogWriter, Session

if __name__ == "__main__":
    writer = LogWriter(sys.argv[1], Session('{"name": "fake"}'), video="h264")
    print("ready", flush=True)
    start, period = time.monotonic(), 1 / float(sys.argv[2])
    index = 0
    while True:
        now = time.monotonic_ns()
        writer.image(Image("front", now, now, np.full((32, 32, 3), index % 256, np.uint8), episode=0, step=index))
        index += 1
        time.sleep(max(0.0, start + index * period - time.monotonic()))
