"""Lightning's strategies for several learners, set up for how this module learns; `ddp` and `fsdp` name them."""

import signal
from datetime import timedelta
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, StrategyRegistry

from gipo import ranks

HUNG = timedelta(seconds=300)  # a rank that dies is noticed at once; this is for one that hangs


class Replicated(DDPStrategy):
    """Every learner holds the whole policy; gradients are averaged.

    Args:
        timeout: how long the others wait for a learner that hangs.
        kwargs: of `lightning.pytorch.strategies.DDPStrategy`.
    """

    def __init__(self, timeout: timedelta = HUNG, **kwargs: Any):
        # The policy's and the critic's losses each leave the other's parameters alone.
        super().__init__(timeout=timeout, **{"find_unused_parameters": True} | kwargs)


class Sharded(ModelParallelStrategy):
    """Every learner holds a part of each layer and of its optimizer state (PyTorch's FSDP2); gradients are averaged.

    Args:
        timeout: how long the others wait for a learner that hangs.
    """

    def __init__(self, timeout: timedelta = HUNG):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """Shard over all learners."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


StrategyRegistry.register("ddp", Replicated, "Every learner holds the whole policy", override=True)


def chosen(strategy: Any) -> dict[str, Any]:
    """What a Trainer is to be given in place of `fsdp`, whose name Lightning keeps to GPUs and to the older FSDP."""
    return {"strategy": Sharded()} if strategy == "fsdp" else {}


class EndTogether(Callback):
    """SIGTERM to one rank ends all of them after the same iteration, saved.

    Lightning's own handler starts a collective from within the signal, wherever the other ranks are.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only take note of the signal."""
        if ranks.count() > 1:
            signal.signal(signal.SIGTERM, lambda number, frame: self._note(trainer, number, frame))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell every rank, before checkpoints look for it."""
        if ranks.count() > 1 and ranks.any_of(trainer.received_sigterm):
            self._note(trainer, signal.SIGTERM, None)

    @staticmethod
    def _note(trainer: Trainer, number: int, frame: FrameType | None) -> None:
        trainer._signal_connector.received_sigterm = True  # as Lightning's handler does
