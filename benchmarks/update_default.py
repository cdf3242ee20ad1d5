"""What an update of `gipo fit` takes by default, to one of 256 bins an action dimension in float32.

Both are whole training steps under Lightning with batches of 512, diagnostics and logged figures included, in turns.
Judged by processor time, so that what else runs on the machine hardly counts.
"""

import statistics
from functools import partial
from typing import Any

from benchmarks.update_gpu import BATCH, ROUNDS, timed
from gipo.commands.fit.precision import default_precision
from gipo.policies import TokenPolicy

MANY_BINS = 256
BOUND = 19 / 9  # 9 ms where those of so many bins take 19


def run(turns: int = 5, iterations: int = 3, rounds: int = ROUNDS, batch: int = BATCH) -> dict[str, Any]:
    """Milliseconds of an update of both sides, and their ratio."""
    precision = default_precision("cpu")
    sizes: dict[str, Any] = {"iterations": iterations, "rounds": rounds, "batch": batch}
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(timed("cpu", "cpu", family=TokenPolicy, precision=precision, **sizes).processor_rate)
        theirs.append(timed("cpu", "cpu", family=partial(TokenPolicy, bins=MANY_BINS), **sizes).processor_rate)
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return {
        "precision": precision,
        "ms_per_update": 1e3 / statistics.median(ours),
        "ms_per_update_of_256_bins": 1e3 / statistics.median(theirs),
        "processor_ratio": ratio,
        "bound": BOUND,
        "ok": ratio >= BOUND,
    }
