"""Which policy a file is: its id, and those that a robot is told to require."""

import hashlib
import re
from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.files import PathLike
from gipo.common.reading import read_bytes

_MAX_LIST = 1 << 20  # bytes
_PIECE = 1 << 20


def policy_id(data: bytes) -> str:
    """SHA-256 of a whole artifact, hex: what a robot is told to require, and what its log names."""
    return hashlib.sha256(data).hexdigest()


def file_id(path: PathLike) -> str:
    """SHA-256 of a file of any size, hex: of an artifact its policy id, as `policy_id` gives it of the bytes."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def refuse_other(identity: str, require_id: str | None, what: str) -> None:
    """Refuse a policy that is not the one required; `what` stands before its id in the message.

    Raises:
        UserError: when it is another, or `require_id` is neither an id nor a file that lists some.
    """
    if require_id is not None and identity not in required_ids(require_id):
        raise UserError(f"{what} policy {identity}, which is not the one required: {require_id}")


def required_ids(require: str) -> set[str]:
    r"""The policy ids that `require` allows: one id, or a file as `sha256sum policy.onnx > FILE` writes it.

    Before the id of a file whose name it quotes, `sha256sum` writes a `\\`.

    Raises:
        UserError: when it is neither.
    """
    if _is_id(require):
        return {require.lower()}
    if not Path(require).is_file():
        raise UserError(f"--require-id {require!r} is neither a policy id (64 hex digits) nor a file that lists some")
    lines = read_bytes(require, _MAX_LIST, links=False).decode("utf-8-sig", errors="replace").splitlines()
    words = [line.split()[0].lower().removeprefix("\\") for line in lines if line.strip() and not line.startswith("#")]
    if not words or not all(map(_is_id, words)):
        raise UserError(f"{require} must list one policy id (64 hex digits) at the start of each line")
    return set(words)


def _is_id(word: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", word) is not None
