"""Golden vectors: what the exported policy answered, and how far a machine may be from it."""

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError


def tolerances(manifest: Manifest) -> dict[str, np.ndarray]:
    """Largest difference allowed of each golden output: [K] in the output's units.

    Machines differ in the last bits of float32, which this policy turns into `manifest.rounding`. In int8 such a bit
    can move a rounded activation by a whole step, so those policies get three hundredths; a wrong normaliser or
    weight matrix is far outside of both.
    """
    exact = manifest.precision == "float32"
    bits = max(1e-5, 10 * manifest.rounding)
    steps = manifest.layout.decision_size // manifest.action_size
    half_range = np.tile((np.array(manifest.action_high) - np.array(manifest.action_low)) / 2, steps)
    if manifest.family == "token":
        latent = 0.0 if exact else 1.0
        action = half_range * (1e-6 + latent * 2 / (manifest.parameters_per_dimension - 1))
    else:
        latent = bits if exact else 3e-2
        action = half_range * latent
    return {
        "action": action,
        "deterministic_action": action,
        "latent": np.full_like(half_range, latent),
        "log_prob": np.full_like(half_range, 10 * bits if exact else 1e-1),
    }


def compare(manifest: Manifest, outputs: dict[str, np.ndarray]) -> str:
    """Compare what the runtime gives for the golden inputs with what the manifest says it must.

    Raises:
        UserError: naming the vector and the output that differ.
    """
    worst = 0.0
    for name, allowed in tolerances(manifest).items():
        expected, found = np.array(getattr(manifest.golden, name)), outputs[name].astype(np.float64)
        if found.shape != expected.shape:
            raise UserError(f"the golden vectors give {name} of shape {found.shape}, it must be {expected.shape}")
        difference = np.abs(found - expected)
        bad = ~(difference <= allowed + 1e-6 * np.abs(expected))  # written so that NaN is bad
        if bad.any():
            row, column = map(int, np.argwhere(bad)[0])
            raise UserError(
                f"golden vector {row}: {name} of {manifest.action_names[column % manifest.action_size]!r} is "
                f"{found[row, column]:.9g} here, "
                f"{expected[row, column]:.9g} in the manifest; the file was edited, or this machine computes otherwise"
            )
        worst = max(worst, float(difference.max()))
    return f"{len(manifest.golden.observation)} vectors replayed, largest difference {worst:.1e}"
