"""What an environment is sent: a policy's numbers as the values that a space of another type can hold."""

import numpy as np


def nearest_in(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The values between two bounds that are nearest to `action`, of the bounds' type; all [D].

    Whole numbers are rounded, half to even; a bound that float32 rounded outwards is not passed.
    """
    inside = np.clip(np.asarray(action, np.float64), low.astype(np.float64), high.astype(np.float64))
    return (np.rint(inside) if low.dtype.kind in "iu" else inside).astype(low.dtype)
