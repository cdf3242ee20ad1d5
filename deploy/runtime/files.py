"""Files on disk: read once and bounded, written whole or not at all, named by what they contain."""

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from deploy.errors import ArtifactError
from gipo.common.replacing import replace
from gipo.common.syncing import sync

MAX_BYTES = 256 << 20  # of an artifact; the largest policy of this package's networks is a tenth of it
_MAX_LIST = 1 << 20
_PIECE = 1 << 20

PathLike = str | os.PathLike[str]


def read_file(path: PathLike, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, read once, so that what is checked is what runs.

    Raises:
        ArtifactError: when there is no such file, it is a link, folder, pipe or device, or larger than `limit`.
    """
    named = repr(os.fspath(path))
    try:
        # A link could be pointed elsewhere between the check and the run; a pipe would block for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        if os.path.islink(path):
            raise ArtifactError(f"{named} is a symbolic link; name the file itself") from error
        raise ArtifactError(f"cannot read {named}: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{named} is not a regular file")
        if status.st_size > limit:
            raise ArtifactError(f"{named} has {status.st_size} bytes, more than the {limit} allowed")
        with open(descriptor, "rb", closefd=False) as file:
            # Piece by piece: one read would set aside the whole limit first.
            data = b"".join(iter(lambda: file.read(min(_PIECE, max(0, limit + 1 - file.tell()))), b""))
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ArtifactError(f"{named} grew beyond {limit} bytes while it was read")
    return data


def write_atomically(path: PathLike, data: bytes) -> None:
    """Write beside the target, sync, rename: a kill at any moment leaves the old file or the new one.

    Raises:
        ArtifactError: when the folder cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".exporting-", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
                replace(file.name, target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        sync(target.parent)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error


def policy_id(data: bytes) -> str:
    """SHA-256 of a whole artifact, hex: what a robot is told to require, and what its log names."""
    return hashlib.sha256(data).hexdigest()


def required_ids(require: str) -> set[str]:
    """The policy ids that `require` allows: one id, or a file as `sha256sum policy.onnx > FILE` writes it.

    Raises:
        ArtifactError: when it is neither.
    """
    if _is_id(require):
        return {require.lower()}
    if not Path(require).is_file():
        raise ArtifactError(
            f"--require-id {require!r} is neither a policy id (64 hex digits) nor a file that lists some"
        )
    lines = read_file(require, _MAX_LIST).decode(errors="replace").splitlines()
    words = [line.split()[0].lower() for line in lines if line.strip() and not line.startswith("#")]
    if not words or not all(map(_is_id, words)):
        raise ArtifactError(f"{require} must list one policy id (64 hex digits) at the start of each line")
    return set(words)


def _is_id(word: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", word) is not None
