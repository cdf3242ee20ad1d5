"""Encoders of a session's cameras, in a process of their own: one that waits for ever costs seconds, not the log.

`main` is that process; its standard input is a socket. It says that it is ready, or why not, and answers every frame
with its packet. A message is its length and then itself; an answer begins with what it is.
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import BufferedRWPair

import numpy as np

from gipo.common.errors import UserError
from gipo.common.faults import described, of_a_user
from robots.log.images import Image
from robots.log.video import VideoWriter

PATIENCE = 5.0  # seconds in which a frame is encoded, or never
STARTING = 60.0  # seconds that a process may take to begin, on a busy machine
LENGTH = struct.Struct("!Q")
FRAME, KEY, REFUSED = b"f", b"k", b"r"  # an answer: a frame, one that is decoded alone, or why there is none
# What the other process runs, with the codec and where modules are. With `-m`, Python would look into the working
# folder before anything else, where a user has modules of their own.
BEGIN = "import sys; sys.path[:] = sys.argv[2:]; from robots.log.encoding import main; main(sys.argv[1])"


class Encoders:
    """Encodes what cameras see in another process, which is replaced when it does not answer.

    Args:
        codec: of `robots.log.video.CODECS`.
        tell: hears it when the process was replaced.
        patience: seconds that a frame may take.

    Raises:
        UserError: when there is no such codec, what encodes it is not installed, or no process can be started.
    """

    def __init__(self, codec: str, tell: Callable[[str], None], patience: float = PATIENCE):
        self.codec, self.patience = codec, patience
        self.starting = False  # whether who asks for a frame waits for a process to begin
        self._tell = tell
        self._start()

    def frame(self, image: Image) -> tuple[bytes, bool]:
        """The next frame of the image's camera, and whether it can be decoded alone.

        Raises:
            UserError: when an encoder gives none, or two processes in a row do not answer.
        """
        try:
            return self._encoded(image)
        except (OSError, EOFError) as error:
            silent = isinstance(error, TimeoutError)
            what = f"did not answer for {self.patience:g} s" if silent else "ended"
            self.close()
            self.starting = True
            try:
                self._start()
            finally:
                self.starting = False
        self._tell(f"the process that encodes {self.codec} {what}; another one goes on with the frame")
        try:
            return self._encoded(image)  # a key frame, the first of its video
        except (OSError, EOFError) as error:
            raise UserError(f"two processes in a row that encode {self.codec} {what}") from error

    def close(self) -> None:
        """End the process: there is nothing left in it that is to be kept."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):  # what was to be sent is of no use to anybody
            self._stream.close()
        self._socket.close()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", BEGIN, self.codec, *sys.path],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is this process's to hear; its end is theirs
                )
        except OSError as error:
            self._socket.close()
            raise UserError(f"no process can be started that encodes {self.codec}: {error}") from error
        self._stream = self._socket.makefile("rwb")
        self._socket.settimeout(STARTING)
        try:
            self._answer()
        except (OSError, EOFError) as error:
            self.close()
            raise UserError(f"the process that encodes {self.codec} does not start") from error
        except UserError:
            self.close()
            raise
        self._socket.settimeout(self.patience)

    def _encoded(self, image: Image) -> tuple[bytes, bool]:
        pixels = np.ascontiguousarray(image.pixels)
        head = {"camera": image.camera, "episode": image.episode, "shape": pixels.shape}
        _send(self._stream, json.dumps(head).encode())
        _send(self._stream, pixels.data.cast("B"))
        kind, frame = self._answer()
        return frame, kind == KEY

    def _answer(self) -> tuple[bytes, bytes]:
        answer = _receive(self._stream)
        kind, content = answer[:1], answer[1:]
        if kind == REFUSED:
            raise UserError(content.decode())
        return kind, content


def _send(stream: BufferedRWPair, *parts: bytes | memoryview) -> None:
    stream.write(LENGTH.pack(sum(len(part) for part in parts)))
    for part in parts:
        stream.write(part)
    stream.flush()


def _receive(stream: BufferedRWPair) -> bytes:
    """The next message that the other side sent.

    Raises:
        EOFError: when the other side has ended.
    """
    (length,) = LENGTH.unpack(_read(stream, LENGTH.size))
    return _read(stream, length)


def _read(stream: BufferedRWPair, count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise EOFError
    return found


def serve(codec: str, stream: BufferedRWPair) -> None:
    """Encode frames until the other side ends."""
    try:
        video = VideoWriter(codec)
    except UserError as error:
        _send(stream, REFUSED, str(error).encode())
        return
    _send(stream, FRAME)
    while True:
        head = json.loads(_receive(stream))
        pixels = np.frombuffer(_receive(stream), np.uint8).reshape(head["shape"])
        try:
            frame, key = video.frame(Image(head["camera"], 0, 0, pixels, episode=head["episode"]))
        except Exception as error:  # whatever the library raises: it would fail again, and who asked is to know why
            _send(stream, REFUSED, (of_a_user(error) or described(error)).encode())
        else:
            _send(stream, KEY if key else FRAME, frame)


def main(codec: str) -> None:
    """Serve the process that started this one and end with it, even amid a frame: encoders are left open."""
    if hasattr(os, "sched_setscheduler"):  # a control loop of real-time priority keeps it to itself
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    with suppress(OSError, EOFError):
        serve(codec, socket.socket(fileno=0).makefile("rwb"))
    os._exit(0)


def _end_with_the_other() -> None:
    other = select.poll()
    other.register(0, 0)  # nothing but the end of whoever started this process
    other.poll()
    os._exit(0)
