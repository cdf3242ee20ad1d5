"""The log of one session, written by a thread of its own: the control loop hands over rows and never waits."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gipo.common.errors import UserError, of_the_system
from gipo.common.files import sync
from gipo.common.signals import join
from robots.log.container import MAX_RECORD, add_message, open_channel, start_writer
from robots.log.encoding import Encoders
from robots.log.header import SESSION, Session
from robots.log.images import Image, camera_row, compressed_image
from robots.log.schema import Event, Shadow, Step, encode, json_schemas, legible
from robots.log.video import fits

POLL_SECONDS = 0.05
MAX_IMAGES = 16  # that may wait, however large they are
MAX_IMAGE_BYTES = 16 << 20  # that may wait, however many images they are
RESERVE = 1024  # places in the queue that only events may take, so that a full queue cannot hide why it is full


class Statistics(NamedTuple):
    """What became of the rows: handed to the file, dropped because the queue was full, lost with a failed disk."""

    written: int
    dropped: int
    lost: int


Row = Step | Event | Shadow | Image


class LogWriter:
    """Writes rows to a new file. Every method but `close` returns at once, whatever the disk does.

    Args:
        path: file to create; an existing one is refused.
        session: what its rows share.
        capacity: steps that may wait; when as many wait, further ones are dropped and counted.
        flush_seconds: what a kill may cost; the file is synced as often.
        sync: of a file descriptor to disk.
        video: codec by which cameras are written as video, `h264` or `av1`; empty for image files. What is no frame of
            a video (`robots.log.video.fits`), such as depth, stays an image file, without loss.

    Raises:
        UserError: when the file cannot be created.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        session: Session,
        capacity: int = 4096,
        flush_seconds: float = 0.5,
        sync: Callable[[int], None] = os.fsync,
        video: str = "",
    ):
        if capacity < 1 or not 0 < flush_seconds <= 1:
            raise UserError("a log needs room for at least one step, and must be flushed at least once a second")
        self.path = Path(path)
        self.session = session
        self.error: str | None = None
        self._capacity, self._flush_seconds, self._sync = capacity, flush_seconds, sync
        self._queue: deque[Row] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._written = self._flushed = self._dropped = self._lost = 0
        self._gap: list[tuple[int, int]] = []  # (episode, step) of the first and last of the steps dropped in a row
        self._gap_size = 0
        self._images = self._image_bytes = 0  # that wait
        self._video = Encoders(video, partial(self.event, "video")) if video else None
        self._epoch = time.time_ns() - time.monotonic_ns()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "xb")  # noqa: SIM115 (closed by the thread)
            self._begin()
        except OSError as error:
            self._end_video()
            raise UserError(f"cannot create the log {self.path}: {of_the_system(error, self.path.parent)}") from error
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        known = hasattr(time, "pthread_getcpuclockid")
        self._cpu_clock = time.pthread_getcpuclockid(self._thread.ident or 0) if known else None

    def _begin(self) -> None:
        """Write what comes before the first row; what cannot be begun leaves no file behind."""
        try:
            self._mcap = start_writer(self._file, "gipo-robot")
            self._mcap.add_metadata(SESSION, self.session.metadata())
            self._channels = {topic: open_channel(self._mcap, topic, text) for topic, text in json_schemas().items()}
            self._flush()
            sync(self.path.parent)
        except OSError:
            with suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)
            raise

    def step(self, row: Step) -> bool:
        """Hand over one step; False when the queue was full and it was dropped."""
        with self._lock:
            if len(self._queue) >= self._capacity:
                self._dropped += 1
                self._gap = [*self._gap[:1], (row.episode, row.step)]
                self._gap_size += 1
                return False
            self._close_gap()
            self._queue.append(row)
            return True

    def event(
        self, kind: str, reason: str = "", episode: int = -1, step: int = -1, data: Mapping[str, Any] | None = None
    ) -> None:
        """Hand over one event; it gets the present time."""
        now = time.time_ns(), time.monotonic_ns()
        row = Event(kind, legible(reason), episode, step, *now, legible(dict(data or {})))
        self._offer(row, self._capacity + RESERVE)

    def shadow(self, row: Shadow) -> None:
        """Hand over what a shadow policy thought of a step."""
        self._offer(row, self._capacity)

    def image(self, row: Image) -> None:
        """Hand over a camera image; dropped long before any step is."""
        size = _size(row)
        with self._lock:
            many = self._images >= MAX_IMAGES and self._image_bytes + size > MAX_IMAGE_BYTES
            if many or len(self._queue) >= self._capacity:
                self._dropped += 1
                return
            self._images, self._image_bytes = self._images + 1, self._image_bytes + size
            self._queue.append(row)

    def close(self, timeout: float = 60.0) -> Statistics:
        """Write what waits, seal the file, and say what became of every row.

        Raises:
            UserError: when the disk failed, or did not answer within `timeout` seconds; what was synced before stays.
        """
        if not self._closing.is_set():
            with self._lock:
                self._close_gap()
            self.event("session_end", data={"dropped": self._dropped})
            self._closing.set()
        join(self._thread, timeout)
        if self._thread.is_alive():
            starting = self._video is not None and self._video.starting
            what = "another process that encodes its images does not start" if starting else "its disk does not answer"
            raise UserError(f"{len(self._queue)} rows of {self.path} are not written: {what}")
        if self.error is not None:
            raise UserError(f"the log {self.path} is incomplete, {self.statistics.lost} rows are lost: {self.error}")
        return self.statistics

    @property
    def waiting(self) -> int:
        """How many rows wait to be written."""
        return len(self._queue)

    @property
    def cpu_ns(self) -> int:
        """Processor time the writing thread has taken; 0 where the system does not tell."""
        if self._cpu_clock is None or not self._thread.is_alive():
            return 0
        return time.clock_gettime_ns(self._cpu_clock)

    @property
    def statistics(self) -> Statistics:
        """How many rows were written, dropped and lost so far."""
        if self.error is None:
            return Statistics(self._written, self._dropped, 0)
        return Statistics(self._flushed, self._dropped, self._lost + self._written - self._flushed + len(self._queue))

    def _offer(self, row: Row, limit: int) -> None:
        with self._lock:
            if len(self._queue) >= limit:
                self._dropped += 1
            else:
                self._queue.append(row)

    def _close_gap(self) -> None:
        """Say in the log which steps are missing from it, before the next one that is not."""
        if self._gap_size:
            first, last = self._gap[0], self._gap[-1]
            data = {"count": self._gap_size, "first": first, "last": last}
            now = time.time_ns(), time.monotonic_ns()
            self._queue.append(Event("dropped", "the log's queue was full", *last, *now, data))
            self._gap, self._gap_size = [], 0

    def _run(self) -> None:
        flushed = time.monotonic()
        try:
            while not (self._closing.wait(POLL_SECONDS) and not self._queue):
                flushed = self._drain(flushed)
            self._mcap.finish()
            self._flush()
            self._file.close()
        except BaseException as error:  # a full disk, a lost mount: the loop must hear of it, whatever it is
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._end_video()

    def _drain(self, flushed: float) -> float:
        """Write what waits, flushing when it is time; the moment of the last flush."""
        waiting = len(self._queue)
        for _ in range(waiting):
            row = self._queue.popleft()
            self._lost += 1  # until it is written
            self._write(row)
            self._written, self._lost = self._written + 1, self._lost - 1
            if time.monotonic() - flushed >= self._flush_seconds:
                break
        if time.monotonic() - flushed >= self._flush_seconds - POLL_SECONDS:
            self._flush()
            flushed = time.monotonic()
        return flushed

    def _write(self, row: Row) -> None:
        topic, monotonic_ns = type(row).__name__.lower(), time.monotonic_ns()
        content: Any = row
        if isinstance(row, Image):
            with self._lock:
                self._images, self._image_bytes = self._images - 1, self._image_bytes - _size(row)
            topic, content = self._encoded(row)
            monotonic_ns = row.monotonic_ns
        elif isinstance(row, Step | Event):
            monotonic_ns = row.monotonic_ns
        data = encode(content)
        if len(data) > MAX_RECORD // 2:
            raise UserError(f"a {topic} of {len(data)} bytes is too large for the log")
        # Times of the file follow the monotonic clock: a jump of the wall clock cannot reorder them.
        add_message(self._mcap, self._channels[topic], self._written, self._epoch + monotonic_ns, data)

    def _encoded(self, image: Image) -> tuple[str, dict[str, Any]]:
        """The channel of an image, and its row there."""
        if self._video is None or not fits(image):
            return "camera", compressed_image(image)
        frame, key = self._video.frame(image)
        return "video", {**camera_row(image, frame, self._video.codec), "key": key}

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.close()

    def _flush(self) -> None:
        self._mcap.flush()
        self._sync(self._file.fileno())
        self._flushed = self._written


def _size(row: Image) -> int:
    """Bytes that an image takes while it waits."""
    return row.pixels.nbytes if isinstance(row.pixels, np.ndarray) else len(row.pixels)
