"""What a robot and a policy server say to each other: fixed little-endian layouts, nothing that is executed.

    message   "GIPO"  version u8  kind u8  number u64  body
    WHO       (empty)                              robot  → server
    POLICY    policy id [64 ASCII]  manifest JSON  server → robot
    ASK       policy id [32], B u32, then the packed rows [B, R] and the noise [B, K] f32
    ANSWER    each output of the graph, in order, [B, K] or [B, K, P]
    REFUSED   text

An answer carries the number of its question. A question names the policy that is meant, so that a server that was
started anew with another one refuses it. Sizes follow from the manifest, so that a length is all there is to check. A
packed row is its state as f32 and its pixels and letters as u8, a quarter of what they take in a row.
"""

import struct
from dataclasses import dataclass
from math import prod

import numpy as np

from deploy.runtime.acting import OUTPUTS
from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError

VERSION = 1
WHO, POLICY, ASK, ANSWER, REFUSED = range(1, 6)
KINDS = range(WHO, REFUSED + 1)
MAX_ROWS = 64  # of one question: the most golden vectors there are, and an image each
MAX_MESSAGE = 16 << 20  # bytes that a robot takes, of a manifest or an answer
MAX_TEXT = 1000
_HEAD = struct.Struct("<4sBBQ")
_ASK = struct.Struct("<32sI")
_MAGIC = b"GIPO"
_SEAL = 64  # bytes, and more, by which CURVE's encryption lengthens a message


@dataclass(frozen=True)
class Packet:
    """One message: its kind, the number of the question it belongs to, and its body."""

    kind: int
    number: int
    body: bytes = b""

    def pack(self) -> bytes:
        """The bytes that go over the wire."""
        return _HEAD.pack(_MAGIC, VERSION, self.kind, self.number) + self.body

    @classmethod
    def unpack(cls, data: bytes) -> "Packet":
        """The message in `data`.

        Raises:
            UserError: when it is none, or of another version.
        """
        if len(data) < _HEAD.size or not data.startswith(_MAGIC):
            raise UserError(f"{len(data)} bytes that are no message of gipo")
        _, version, kind, number = _HEAD.unpack_from(data)
        if version != VERSION:
            raise UserError(f"a message of version {version}, this gipo speaks {VERSION}; use one on both sides")
        if kind not in KINDS:
            raise UserError(f"a message of kind {kind}, which version {VERSION} does not have")
        return cls(kind, number, data[_HEAD.size :])

    @property
    def text(self) -> str:
        """A refusal's text, fit for one line of a terminal."""
        words = self.body[:MAX_TEXT].decode(errors="replace")
        return "".join(letter if letter.isprintable() else " " for letter in words)


class Codec:
    """Questions and answers of one policy as bytes.

    Args:
        manifest: of that policy.
        policy_id: of that policy.
    """

    def __init__(self, manifest: Manifest, policy_id: str):
        self._id = bytes.fromhex(policy_id)
        self._layout = manifest.layout
        self._state = manifest.observation_size
        self._bytes = self._layout.row_size - self._state  # pixels and letters of a row
        size, parameters = self._layout.decision_size, manifest.parameters_per_dimension
        latent = np.dtype("<i8" if manifest.family == "token" else "<f4")
        kinds = dict.fromkeys(OUTPUTS, np.dtype("<f4")) | {"latent": latent}
        self._outputs = [(kinds[name], (size, parameters) if name == "params" else (size,)) for name in OUTPUTS]

    @property
    def question_bytes(self) -> int:
        """Length of a question of one row."""
        return 4 * self._state + self._bytes + 4 * self._layout.decision_size

    @property
    def rows_together(self) -> int:
        """Rows of one question: as many as an answer may have, of which 0 is too few to ask anything."""
        row = sum(prod(shape) * kind.itemsize for kind, shape in self._outputs)
        return min(MAX_ROWS, (MAX_MESSAGE - _SEAL - _HEAD.size) // row)

    @property
    def longest(self) -> int:
        """Length of the longest message that a robot may send, encrypted."""
        return _SEAL + _HEAD.size + _ASK.size + MAX_ROWS * self.question_bytes

    def question(self, rows: np.ndarray, noise: np.ndarray) -> bytes:
        """The body of ASK for rows [B, R] and noise [B, K], float32."""
        state, seen = rows[:, : self._state], rows[:, self._state :]
        parts = (state.astype("<f4"), seen.astype(np.uint8), noise.astype("<f4"))
        return _ASK.pack(self._id, len(rows)) + b"".join(part.tobytes() for part in parts)

    def read_question(self, body: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Rows [B, R] and noise [B, K] of an ASK, float32.

        Raises:
            UserError: when it is for another policy, asks for too many rows, or has another length than those have.
        """
        if len(body) < _ASK.size:
            raise UserError(f"a question of {len(body)} bytes; it must have {_ASK.size} and more")
        asked, count = _ASK.unpack_from(body)
        if asked != self._id:
            raise UserError(f"the question is for policy {asked.hex()[:12]}…, here acts {self._id.hex()[:12]}… now")
        length = _ASK.size + count * self.question_bytes
        if not 1 <= count <= MAX_ROWS:
            raise UserError(f"a question of {count} rows; it must have 1 to {MAX_ROWS}")
        if len(body) != length:
            raise UserError(f"a question of {count} row(s) has {len(body)} bytes; here it must have {length}")
        cuts = np.cumsum([4 * self._state * count, self._bytes * count])
        state, seen, noise = np.split(np.frombuffer(body, np.uint8, offset=_ASK.size), cuts)
        rows = np.concatenate(
            [state.view("<f4").reshape(count, -1), seen.reshape(count, self._bytes).astype(np.float32)], axis=1
        )
        return rows, noise.view("<f4").reshape(count, -1).copy()

    def answer(self, outputs: dict[str, np.ndarray]) -> bytes:
        """The body of ANSWER."""
        kinds = (kind for kind, _ in self._outputs)
        return b"".join(outputs[name].astype(kind).tobytes() for name, kind in zip(OUTPUTS, kinds, strict=True))

    def read_answer(self, body: bytes, count: int) -> dict[str, np.ndarray]:
        """Every output of the graph for `count` rows.

        Raises:
            UserError: when the length is another than those have.
        """
        sizes = [count * prod(shape) * kind.itemsize for kind, shape in self._outputs]
        if len(body) != sum(sizes):
            raise UserError(f"an answer of {len(body)} bytes; for {count} row(s) it must have {sum(sizes)}")
        found, start = {}, 0
        for name, (kind, shape), size in zip(OUTPUTS, self._outputs, sizes, strict=True):
            found[name] = np.frombuffer(body[start : start + size], kind).reshape(count, *shape)
            start += size
        return found
