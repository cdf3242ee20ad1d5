"""Share of a training iteration of the default recipe that is neither collection, sampling nor optimisation.

A real `gipo fit` on `reach-v3`, with its loggers, callbacks, progress bar and checkpoints. An iteration lasts from one
request for data to the next. Of it, three kinds of work are timed from outside: making the data (collect, refresh,
sample), learning from the batches, and evaluation episodes, which are left out altogether. All the rest is overhead:
diagnostics, logging, checkpoints, callbacks, Lightning's own loop.
"""

import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from datamodules.online import OnlineDataModule
from gipo.cli import main
from gipo.module import GIPOModule

BOUND = 0.05


def run(iterations: int = 30, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Share of overhead over all iterations but the first, in which simulators start, and the last."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(watch.timing(OnlineDataModule, "_iterate", "data"))
        stack.enter_context(watch.timing(GIPOModule, "_learn", "optimisation"))
        stack.enter_context(watch.timing(OnlineDataModule, "_evaluate", "evaluation"))
        arguments = ["--config=metaworld.yaml", f"--trainer.max_epochs={iterations}"]
        main(["fit", *arguments, f"--trainer.default_root_dir={folder}/run", *options])
    return figures(watch.spans)


@dataclass(frozen=True)
class Span:
    """A stretch of work, perf_counter seconds."""

    kind: str
    start: float
    end: float


class Stopwatch:
    """Times methods from outside."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @contextlib.contextmanager
    def timing(self, owner: type, method: str, kind: str) -> Iterator[None]:
        """While this lasts, each call of `owner.method` leaves a span."""
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.spans.append(Span(kind, start, time.perf_counter()))

        with mock.patch.object(owner, method, timed):
            yield


def figures(spans: list[Span]) -> dict[str, Any]:
    """Seconds per iteration of each kind of work, and the share of what is none of them."""
    starts = [span.start for span in spans if span.kind == "data"][1:]
    iterations = list(itertools.pairwise(starts))
    rows = [_seconds(spans, start, end) for start, end in iterations]
    total = {kind: sum(row[kind] for row in rows) for kind in rows[0]}
    share = total["overhead"] / (total["data"] + total["optimisation"] + total["overhead"])
    shares = [row["overhead"] / (row["data"] + row["optimisation"] + row["overhead"]) for row in rows]
    return {
        "iterations": len(rows),
        "overhead_share": share,
        "median_overhead_share": statistics.median(shares),
        **{f"{kind}_s_per_iteration": seconds / len(rows) for kind, seconds in total.items()},
        "bound": BOUND,
        "ok": share <= BOUND,
    }


def _seconds(spans: list[Span], start: float, end: float) -> dict[str, float]:
    inside = [span for span in spans if start <= span.start < end]
    kinds = ("data", "optimisation", "evaluation")
    seconds = {kind: sum(span.end - span.start for span in inside if span.kind == kind) for kind in kinds}
    return seconds | {"overhead": end - start - sum(seconds.values())}
