"""Flags of foreign episodes: what they say of its end and its success, with nothing guessed that they do not say."""

from collections.abc import Mapping

import numpy as np

from gipo.common.errors import UserError


def flags(name: str, values: np.ndarray, length: int) -> np.ndarray:
    """[T] bool of a column of zeros and ones.

    Raises:
        UserError: naming the first value that is neither; NaN, or −1 for "nobody said", must not pass for True.
    """
    if values.size != length:
        raise UserError(f"its {name} has shape {list(values.shape)}; one value a step must be there")
    column = values.reshape(length)
    wrong = np.flatnonzero((column != 0) & (column != 1))
    if len(wrong):
        raise UserError(f"step {wrong[0]}: {name} is {column[wrong[0]]}; it must be 0 or 1")
    return column.astype(bool)


def ends(known: Mapping[str, np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where an episode terminated, and where it was truncated, each [T] bool and never both.

    What ended because the task was over is a termination, and nothing follows it; a truncation is any other end, and
    the value of what follows counts. A flag that tells the two apart overrules one that does not:

    | says | what it makes of a step |
    |---|---|
    | `terminated` | terminated where it is set, and nowhere else |
    | `truncated` | truncated where it is set, unless `terminated` is set too |
    | `done` | an end: truncated where `terminated` is there and not set, or `truncated` set; else terminated |
    | `success` | at the last step: terminated, unless one of the first two says otherwise |
    | none of them | the last step is truncated |

    Args:
        known: those of `terminated`, `truncated`, `done` and `success` that the source has, each [T] bool.
        length: T.
    """
    none = np.zeros(length, bool)
    cut, done = known.get("truncated", none), known.get("done", none)
    last = np.arange(length) == length - 1
    over = done | (known.get("success", none) & last)
    terminated = known.get("terminated", over & ~cut)
    return terminated, (cut | done | last) & ~terminated
