"""The latent behind an action, to ask a policy about one that is not its own.

The graph alone holds the way from latents to actions; the golden vectors tell which of WAYS it is.
"""

from dataclasses import dataclass

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError

ROUNDING = 1e-4  # of a bound's distance: what float32 may differ by between a golden action and the one computed here
ALMOST_ONE = 0.999  # a squashed action at its bound has no finite latent, and counts as just inside, as in training
WAYS = {"token": ("bins",), "gaussian": ("tanh", "clip")}


@dataclass(frozen=True)
class LatentMap:
    """How the latents of a policy and its actions belong together.

    Args:
        low: [D] bounds of an action.
        high: [D] bounds of an action.
        way: `bins` lie evenly from bound to bound; `tanh` and `clip` bring a number into [−1, 1], which is scaled
            to the bounds.
        bins: how many there are; 0 for the other ways.
    """

    low: np.ndarray
    high: np.ndarray
    way: str
    bins: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> "LatentMap":
        """The map by which an artifact's golden latents give its golden actions.

        Raises:
            UserError: when it is none of those known, as with a policy class of one's own.
        """
        low, high = np.array(manifest.action_low, float), np.array(manifest.action_high, float)
        shape = (-1, *manifest.layout.decision)
        latent, action = (np.array(rows).reshape(shape) for rows in (manifest.golden.latent, manifest.golden.action))
        for way in WAYS[manifest.family]:
            found = cls(low, high, way, manifest.parameters_per_dimension if way == "bins" else 0)
            if (np.abs(found.action(latent) - action) <= ROUNDING * (high - low)).all():
                return found
        raise UserError(
            "the policy makes its actions in a way of its own, so that nothing says what it would think of a person's; "
            "nobody can take over from it"
        )

    def action(self, latent: np.ndarray) -> np.ndarray:
        """Actions [..., D], float64, of latents [..., D]."""
        if self.way == "bins":
            fraction = latent / (self.bins - 1)
        else:
            fraction = ((np.tanh(latent) if self.way == "tanh" else np.clip(latent, -1, 1)) + 1) / 2
        return self.low + (self.high - self.low) * fraction

    def latent(self, action: np.ndarray) -> np.ndarray:
        """Latents [..., D] of the nearest actions to `action` [..., D] that there are: int64 tokens, or float32."""
        fraction = np.clip((action - self.low) / (self.high - self.low), 0, 1)
        if self.way == "bins":
            return np.round(fraction * (self.bins - 1)).astype(np.int64)
        unit = 2 * fraction - 1
        unit = np.arctanh(np.clip(unit, -ALMOST_ONE, ALMOST_ONE)) if self.way == "tanh" else unit
        return unit.astype(np.float32)
