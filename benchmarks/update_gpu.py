"""Optimizer updates per second of the default recipe on a GPU: plain, compiled, as CUDA graphs, and from where.

Each variant is a whole training step under Lightning, timed with its diagnostics; `cpu_replay` copies its batches to
the GPU first, as a replay buffer in main memory makes it. Without a GPU it says so and measures nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDict
from torch.utils.data import DataLoader

from benchmarks.turns import Side, synchronise
from benchmarks.update import METAWORLD, behaviour_batches
from gipo.module import GIPOModule
from gipo.policies import Policy, Spaces, TokenPolicy

VARIANTS: dict[str, dict[str, bool]] = {
    "plain": {},
    "compiled": {"compile": True},
    "cuda_graphs": {"compile": True, "cuda_graphs": True},
}
ROUNDS, BATCH = 32, 512  # of the default recipe


def run(iterations: int = 20) -> dict[str, Any]:
    """Updates per second of each variant, and its ratio to `plain`."""
    if not torch.cuda.is_available():
        return {
            "skipped": "no CUDA device here; run it where there is one: python -m benchmarks update_gpu",
            "ok": True,
        }
    rates = {name: updates_per_s("gpu", "cuda", iterations, **options) for name, options in VARIANTS.items()}
    rates["cpu_replay"] = updates_per_s("gpu", "cpu", iterations)
    rates["cpu"] = updates_per_s("cpu", "cpu", iterations)
    return {
        "device": torch.cuda.get_device_name(),
        **{f"{name}_updates_per_s": rate for name, rate in rates.items()},
        **{f"{name}_ratio": rate / rates["plain"] for name, rate in rates.items() if name != "plain"},
        "ok": True,
    }


def updates_per_s(
    accelerator: str, replay: str, iterations: int, rounds: int = ROUNDS, batch: int = BATCH, **options: bool
) -> float:
    """Median over iterations of the default policy's; as `timed`."""
    return timed(accelerator, replay, iterations, TokenPolicy, rounds=rounds, batch=batch, **options).rate


def timed(
    accelerator: str,
    replay: str,
    iterations: int,
    family: Callable[[Spaces], Policy],
    precision: Any = None,
    rounds: int = ROUNDS,
    batch: int = BATCH,
    **options: bool,
) -> Side:
    """Updates of a policy that learns alone; the first iteration, in which it is compiled, does not count.

    Args:
        accelerator: of the learner, as Lightning names it.
        replay: device that the batches come from.
        iterations: that count.
        family: makes the policy.
        precision: as Lightning names it.
        rounds: updates of an iteration.
        batch: transitions of an update.
        options: of the module.
    """
    torch.manual_seed(0)
    behaviour = family(METAWORLD)
    batches = behaviour_batches(behaviour, rounds, batch).to(replay)
    module = GIPOModule(**options)  # type: ignore[arg-type]
    module.policy = behaviour
    timer = _Timer(rounds)
    Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=1,
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader([batches] * (iterations + 1), batch_size=None, collate_fn=_same))  # type: ignore[arg-type]
    return timer.side


class _Timer(Callback):
    """Times whole iterations, from the end of one to the end of the next, so that copies count."""

    def __init__(self, rounds: int):
        self.side = Side()
        self._rounds = rounds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first begins."""
        self.side.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """One ends, the next begins."""
        synchronise()
        self.side.stop(self._rounds)
        self.side.start()


def _same(batches: TensorDict) -> TensorDict:
    return batches
