"""The observation normaliser as an artifact holds it: inside the graph, and listed in the manifest."""

import hashlib
from dataclasses import dataclass

import numpy as np

from deploy.runtime.validation import check_numbers, check_sha256, is_number, require

MEAN, SCALE = "normaliser.mean", "normaliser.scale"  # names of its weights in the graph


@dataclass(frozen=True)
class Normaliser:
    """Observation normaliser folded to float32: clip((x − mean) / scale, ±bound).

    Args:
        mean: [O] observation units.
        scale: [O] observation units, positive.
        bound: clamp of the standardised value.
        sha256: of the little-endian float32 bytes of `mean` then `scale`, hex; the graph's must match.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    bound: float
    sha256: str

    def check(self, size: int) -> None:
        """Refuse values that a manifest may not have, for observations of `size` O.

        Raises:
            UserError: naming the value and what it must be.
        """
        check_numbers(MEAN, self.mean, size)
        check_numbers(SCALE, self.scale, size)
        require(min(self.scale) > 0, SCALE, min(self.scale), "above 0 in every dimension")
        require(is_number(self.bound) and self.bound > 0, "normaliser.bound", self.bound, "above 0")
        check_sha256("normaliser.sha256", self.sha256)


def normaliser_hash(mean: np.ndarray, scale: np.ndarray) -> str:
    """SHA-256 of the little-endian float32 bytes of both, hex."""
    return hashlib.sha256(mean.astype("<f4").tobytes() + scale.astype("<f4").tobytes()).hexdigest()
