"""Seeds of runs and workers, and the process-wide random generators as plain data, for exact resume."""

import os
import random
from typing import Any

import numpy as np
import torch

from gipo.common.errors import UserError
from gipo.distributed import ranks

WORKERS = 1 << 20  # no rank has this number


def worker_seed(seed: int, index: int, generation: int = 0) -> int:
    """The run's own seed for the first worker, another for every other worker and every one in its place."""
    if index == generation == 0:
        return seed
    # A key of its own: numbers with zeros after them are the same entropy as without, and so the same as in `seed_of`.
    return int(np.random.SeedSequence([seed, index, generation], spawn_key=(WORKERS,)).generate_state(1)[0])


def seed_of(*entropy: int) -> int:
    """A 32-bit seed made from other numbers; each rank gets its own."""
    key = (ranks.rank(),) if ranks.rank() else ()
    return int(np.random.SeedSequence(entropy, spawn_key=key).generate_state(1)[0])


def seed_of_process() -> int | None:
    """What Lightning's `seed_everything` was called with, which it says in this variable; None where nobody called it.

    Raises:
        UserError: when the variable is no number from 0 on, which nobody but the user's own shell can have written.
    """
    said = os.environ.get("PL_GLOBAL_SEED")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit()):
        raise UserError(f"the variable PL_GLOBAL_SEED must be a whole number from 0 on, got {said!r}; unset it")
    return int(said)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy global one, which libraries use
    torch.manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """States of Python's, NumPy's and torch's global generators."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy global one, which libraries use
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Restore what `generator_states` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, *rest = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():  # where there are fewer than there were, of these
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"][: torch.cuda.device_count()]])
