"""The secret that a robot and its policy server share, and the keys of the socket that follow from it.

The socket is ZeroMQ's with CURVE (elliptic-curve handshake, every message encrypted and authenticated; curvezmq.org).
CURVE wants a pair of keys on either side, each of which the other knows. Both pairs are derived from one random token,
so that there is one file to copy:

    secret(side) = HMAC-SHA256(token, side)
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.files import PathLike
from gipo.common.reading import read_text

SIZE = 32  # bytes of the token, and of a key


@dataclass(frozen=True)
class Keys:
    """A pair of CURVE keys, in ZeroMQ's text encoding (Z85)."""

    public: bytes
    secret: bytes

    @classmethod
    def of(cls, token: bytes, side: str) -> "Keys":
        """The pair of one side, `server` or `robot`."""
        zmq = zeromq()
        secret = zmq.utils.z85.encode(hmac.new(token, side.encode(), hashlib.sha256).digest())
        return cls(zmq.curve_public(secret), secret)


def zeromq() -> Any:
    """The package `zmq`.

    Raises:
        UserError: when it is not installed, or was built without CURVE.
    """
    try:
        import zmq
        import zmq.utils.z85
    except ImportError as error:
        raise UserError(f"a served policy needs pyzmq ({error}): {install('serve')}") from error
    if not zmq.has("curve"):
        raise UserError("this pyzmq was built without CURVE, and would send in clear; install a wheel of pyzmq")
    return zmq


def write_token(path: PathLike) -> None:
    """Write a new random token that only its owner may read.

    Raises:
        UserError: when the file is already there or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        if Path(path).is_dir():
            raise UserError(f"{path} is a folder; name a file in it") from error
        raise UserError(f"{path} is already there, and a new token would lock out whoever has it; remove it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SIZE) + "\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        os.unlink(path)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def read_token(path: PathLike) -> bytes:
    """The token [SIZE] of a file that `write_token` wrote.

    Raises:
        UserError: when there is none, others may read it, or it is no token.
    """
    text = read_text(path, 4 * SIZE).strip()
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise UserError(f"others may read the token {path}; chmod 600 {path}")
    if not re.fullmatch(f"[0-9a-f]{{{2 * SIZE}}}", text):
        raise UserError(f"{path} is no token, which is {2 * SIZE} hexadecimal digits; gipo-deploy token writes one")
    return bytes.fromhex(text)
