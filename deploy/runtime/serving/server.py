"""The server's side: one policy, asked by whoever has the token."""

import contextlib
from collections.abc import Callable
from typing import Any

from deploy.runtime.acting import OUTPUTS, ActingPolicy
from deploy.runtime.serving.address import is_address
from deploy.runtime.serving.keys import Keys, zeromq
from deploy.runtime.serving.messages import ANSWER, ASK, MAX_TEXT, POLICY, REFUSED, WHO, Codec, Packet
from gipo.common.errors import UserError, first_line

POLL_MS = 100


class PolicyServer:
    """Answers questions about one policy, one after another; a context manager.

    A message that is none, or that the policy cannot answer, is refused with its reason, and changes nothing. Nobody
    is waited for: the answer to a robot that does not read is dropped.

    Args:
        policy: that answers.
        address: `host:port` to listen at; port 0 is any that is free.
        token: the secret that robots must have.

    Raises:
        UserError: when the address cannot be taken.
    """

    def __init__(self, policy: ActingPolicy, address: str, token: bytes):
        self._policy, self._codec = policy, Codec(policy.manifest, policy.policy_id)
        self.answered = self.refused = 0
        if not is_address(address):
            raise UserError(f"{address} is no address to listen at, which is HOST:PORT, with a port below 65536")
        zmq = self._zmq = zeromq()
        from zmq.auth.thread import ThreadAuthenticator

        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.ROUTER)
        self._doorman = ThreadAuthenticator(self._context)
        try:
            self._listen(address, token)
        except zmq.ZMQError as error:
            self.close()
            fix = "give --bind HOST:PORT with an address of this machine"
            raise UserError(f"cannot listen at {address}: {error.strerror}; {fix}") from error
        except BaseException:
            self.close()
            raise

    def _listen(self, address: str, token: bytes) -> None:
        zmq = self._zmq
        self._doorman.start()
        self._doorman.configure_curve_callback(credentials_provider=_OneKey(Keys.of(token, "robot").public))
        own = Keys.of(token, "server")
        for option, value in (
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_PUBLICKEY, own.public),
            (zmq.CURVE_SECRETKEY, own.secret),
            (zmq.LINGER, 0),
            (zmq.IPV6, int(address.startswith("["))),
            (zmq.MAXMSGSIZE, self._codec.longest),
            (zmq.HANDSHAKE_IVL, 3000),  # half a handshake is hung up on
            # A machine that vanished is noticed by the kernel. Heartbeats of the server would end its process where a
            # robot hangs up with so many questions unanswered that nothing is read from it (libzmq 4.3.5).
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 3),
            (zmq.TCP_KEEPALIVE_INTVL, 1),
            (zmq.TCP_KEEPALIVE_CNT, 3),
            (zmq.SNDHWM, 8),
            (zmq.RCVHWM, 8),
        ):
            self._socket.setsockopt(option, value)
        self._socket.bind(f"tcp://{address}")
        self.address = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0").removeprefix("tcp://")

    def __enter__(self) -> "PolicyServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and stop listening."""
        self._socket.close()  # first: a second signal may end what follows, and the port is to be free all the same
        self._doorman.stop()
        self._context.destroy(linger=0)

    def serve(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Answer until `ended`, which is asked ten times a second."""
        while not ended():
            if self._socket.poll(POLL_MS):
                who, *parts = self._socket.recv_multipart()
                reply = self._reply(parts[0] if len(parts) == 1 else b"")
                with contextlib.suppress(self._zmq.ZMQError):  # of a robot that has gone, or does not read
                    self._socket.send_multipart([who, reply.pack()], self._zmq.NOBLOCK)

    def _reply(self, data: bytes) -> Packet:
        number = 0
        try:
            question = Packet.unpack(data)
            number = question.number
            reply = self._answer(question)
        except Exception as error:  # one question must not end the answers to others, whatever a runtime raises
            self.refused += 1
            return Packet(REFUSED, number, first_line(error).encode()[:MAX_TEXT])
        self.answered += 1
        return reply

    def _answer(self, question: Packet) -> Packet:
        if question.kind == WHO:
            manifest = self._policy.manifest.to_json().encode()
            return Packet(POLICY, question.number, self._policy.policy_id.encode() + manifest)
        if question.kind != ASK:
            raise UserError(f"a message of kind {question.kind}, which a server is not sent")
        rows, noise = self._codec.read_question(question.body)
        found = self._policy.evaluate(rows, noise)
        return Packet(ANSWER, question.number, self._codec.answer({name: found[name] for name in OUTPUTS}))


class _OneKey:
    """Lets in who has one key."""

    def __init__(self, public: bytes):
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public
