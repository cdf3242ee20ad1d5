"""The robot's side: a policy that is asked over the network, in time or not at all."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.identity import refuse_other
from deploy.runtime.manifest import Manifest
from deploy.runtime.serving.address import answering, is_address
from deploy.runtime.serving.keys import Keys, zeromq
from deploy.runtime.serving.messages import (
    ANSWER,
    ASK,
    MAX_MESSAGE,
    POLICY,
    REFUSED,
    WHO,
    Codec,
    Packet,
)
from gipo.common.errors import UserError

CONNECT_SECONDS = 5.0


class ServedPolicy(ActingPolicy):
    """A policy that acts on another machine.

    The noise is drawn here and sent along, so that an audit draws it again as for any other policy.

    Args:
        address: `host:port` of the server.
        token: the secret shared with it.
        require_id: the policy id it must have, or a file that lists the ids allowed.

    Raises:
        UserError: when no server answers there, it has another token, or its policy is not the one required or does not
            give its golden vectors.
    """

    def __init__(self, address: str, token: bytes, require_id: str | None = None):
        if not is_address(address):
            raise UserError(f"{address} is no address of a policy server, which is host:port")
        self.address = address
        self._seconds = CONNECT_SECONDS
        self._number = 0
        self._lock = threading.Lock()
        self._line = _Line(address, token)
        try:
            manifest, policy_id = self._introduced()
            refuse_other(policy_id, require_id, f"{address} serves")
            super().__init__(manifest, policy_id)
            self._codec = Codec(manifest, policy_id)
            if not self._codec.rows_together:
                raise UserError(f"an answer of the policy that {address} serves is longer than {MAX_MESSAGE:,} bytes")
            self.replay_golden()
        except BaseException:
            self.close()
            raise

    def answer_within(self, seconds: float) -> None:
        """Set how long an answer may take, from now on; a later one is an error."""
        self._seconds = seconds

    def close(self) -> None:
        """Close the connection; the policy can be asked no more."""
        self._line.close()

    def _introduced(self) -> tuple[Manifest, str]:
        body = self._asked(WHO, b"", POLICY)
        policy_id, text = body[:64].decode(errors="replace"), body[64:].decode(errors="replace")
        if not re.fullmatch("[0-9a-f]{64}", policy_id):
            raise UserError(f"{self.address} names no policy; is it a gipo of this version?")
        return Manifest.from_json(text), policy_id

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        together = self._codec.rows_together
        parts = [slice(start, start + together) for start in range(0, len(rows), together)]
        answers = [self._answers(rows[part], noise[part]) for part in parts]
        return [np.concatenate([answer[name] for answer in answers]) for name in names]

    def _answers(self, rows: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        body = self._asked(ASK, self._codec.question(rows, noise), ANSWER)
        found = self._codec.read_answer(body, len(rows))
        if bad := [name for name, value in found.items() if not np.isfinite(value).all()]:
            raise UserError(f"the policy server {self.address} answers with {bad[0]} that is not finite")
        return found

    def _asked(self, kind: int, body: bytes, expected: int) -> bytes:
        """The body of the answer to a question; whatever answers an older one is thrown away."""
        until = time.monotonic() + self._seconds
        with self._turn():
            if self._line.closed:
                raise UserError(f"the connection to the policy server {self.address} is closed")
            self._number += 1
            self._line.send(Packet(kind, self._number, body).pack(), until)
            while (data := self._line.receive(until)) is not None:
                try:
                    said = Packet.unpack(data)
                except UserError as error:
                    raise UserError(f"the policy server {self.address} says {error}") from error
                if said.number != self._number:
                    continue
                if said.kind == REFUSED:
                    raise UserError(f"the policy server {self.address} refuses: {said.text}")
                if said.kind != expected:
                    raise UserError(f"the policy server {self.address} answers a question with another one")
                return said.body
            raise UserError(self._line.silence(self._seconds))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One question at a time, whichever thread asks; who waits does so no longer than for an answer."""
        if not self._lock.acquire(timeout=self._seconds):
            raise UserError(f"the policy server {self.address} did not answer another question in {self._seconds:g} s")
        try:
            yield
        finally:
            self._lock.release()


class _Line:
    """The socket, and why nothing comes through it."""

    def __init__(self, address: str, token: bytes):
        zmq, number = zeromq(), answering(address)
        self._zmq, self._address = zmq, address
        server, robot = Keys.of(token, "server"), Keys.of(token, "robot")
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.CURVE_SERVERKEY, server.public),
            (zmq.CURVE_PUBLICKEY, robot.public),
            (zmq.CURVE_SECRETKEY, robot.secret),
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # nothing is kept for a server that is not there: it would answer the past
            (zmq.MAXMSGSIZE, MAX_MESSAGE),
            (zmq.HEARTBEAT_IVL, 1000),
            (zmq.HEARTBEAT_TIMEOUT, 3000),
            (zmq.IPV6, 1),
        ):
            self._socket.setsockopt(option, value)
        self._events = self._socket.get_monitor_socket(
            zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        try:
            self._socket.connect(f"tcp://{number}")
        except zmq.ZMQError as error:
            self.close()
            raise UserError(f"{address} cannot be connected to: {error.strerror}") from error

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._context.destroy(linger=0)

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed)

    def send(self, data: bytes, until: float) -> None:
        self._socket.setsockopt(self._zmq.SNDTIMEO, self._left(until))
        try:
            self._socket.send(data)
        except self._zmq.Again:
            return  # what follows waits no longer, and says why

    def receive(self, until: float) -> bytes | None:
        """The next message, or None where none comes in time."""
        if not self._socket.poll(self._left(until)):
            return None
        parts = self._socket.recv_multipart()
        return bytes(parts[0]) if len(parts) == 1 else b""

    def silence(self, seconds: float) -> str:
        """Why nothing was heard."""
        name, zmq = f"the policy server {self._address}", self._zmq
        seen: set[int] = set()
        while self._events.poll(0):
            event = int.from_bytes(self._events.recv_multipart()[0][:2], "little")
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:  # what was before it is over
                seen.clear()
            seen.add(event)
        if zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL in seen:
            return f"{name} does not take our token, or is no policy server; give both sides the same file"
        if seen == {zmq.EVENT_CONNECTED}:
            return f"{name} took the connection and said nothing in {seconds:g} s: is it paused, or another program?"
        if not seen and seconds >= CONNECT_SECONDS:
            return f"{name} cannot be reached; gipo-deploy serve starts one"
        return f"{name} did not answer within {1000 * seconds:.0f} ms"

    @staticmethod
    def _left(until: float) -> int:
        return max(0, round(1000 * (until - time.monotonic())))
