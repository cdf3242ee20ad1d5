"""A serial port that is a pseudo-terminal, with a line of servos at its other end."""

import os
import select
import threading
import time
import tty
from pathlib import Path
from types import TracebackType

from examples.so101.bus.faults import Faults
from examples.so101.bus.line import Line
from examples.so101.bus.protocol import Parser

BYTE = 10 / 1_000_000  # seconds: ten bits at one megabaud


class Port:
    """The servos' port: `path` is what a driver opens, at whatever baud rate.

    Args:
        line: the servos.
        link: a path that points to the pseudo-terminal, so that a port keeps its name; empty for none.
        faults: of the line; they may be switched while it runs.
    """

    def __init__(self, line: Line, link: str = "", faults: Faults | None = None):
        self.line, self.faults = line, faults or Faults()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = self._terminal = os.ttyname(self._slave)
        self._link = Path(link) if link else None
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.path)
            self.path = link
        self._at_work = self._late = False
        self._closing, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="servo bus", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether servos would have answered by now: this machine is what is late, and no fault of the line."""
        if self._late or not self._thread.is_alive():
            return False
        return self._at_work or bool(select.select([self._master], [], [], 0)[0])

    def unplug(self) -> None:
        """The plug is pulled: whoever has the port open finds it gone, and the servos keep what they were told."""
        if self._thread.is_alive():
            os.write(self._wake, b".")
            self._thread.join()
            for descriptor in (self._master, self._slave, self._closing, self._wake):
                os.close(descriptor)
            if self._link is not None and self._link.is_symlink() and str(self._link.readlink()) == self._terminal:
                self._link.unlink()  # no other port has taken its name

    def __enter__(self) -> "Port":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unplug()

    def _serve(self) -> None:
        parser = Parser()
        while True:
            ready, _, _ = select.select([self._master, self._closing], [], [])
            if self._closing in ready:
                return
            self._at_work = True
            for asked in parser.feed(os.read(self._master, 4096)):
                answers = list(self.line.answers(asked))
                if arriving := b"".join(self.faults.on_the_way(answer.data) for answer in answers):
                    self._be_late()
                    # They come one after another on a real line; whoever reads them waits for the last in any case.
                    time.sleep(sum(each.delay + len(each.data) * BYTE for each in answers))
                    os.write(self._master, arriving)
            self._at_work = False

    def _be_late(self) -> None:
        self._late = self.faults.latency > 0
        time.sleep(self.faults.latency)
        self._late = False
