"""Lightning's strategies for several learners, set up for how this module learns; `ddp` and `fsdp` name them."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, StrategyRegistry
from torch.distributed.constants import default_pg_timeout


class Replicated(DDPStrategy):
    """Every learner holds the whole policy; gradients are averaged.

    Args:
        kwargs: of `lightning.pytorch.strategies.DDPStrategy`.
    """

    def __init__(self, **kwargs: Any):
        # The policy's and the critic's losses each leave the other's parameters alone.
        super().__init__(**{"find_unused_parameters": True} | kwargs)


class Sharded(ModelParallelStrategy):
    """Every learner holds a part of each layer and of its optimizer state (PyTorch's FSDP2); gradients are averaged.

    Args:
        timeout: of a collective; `gipo.distributed.failure` notices sooner when a learner is lost.
    """

    def __init__(self, timeout: timedelta | None = default_pg_timeout):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """Shard over all learners."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; weights that it leaves out, as those of a pretrained model, stay as they were built.

        Whatever else is missing was refused before: the policy was built from this very file.
        """
        module = self.lightning_module
        assert module is not None
        strict, module.strict_loading = module.strict_loading, False
        try:
            return super().load_checkpoint(checkpoint_path, weights_only)
        finally:
            module.strict_loading = strict


StrategyRegistry.register("ddp", Replicated, "Every learner holds the whole policy", override=True)


def chosen(strategy: Any) -> dict[str, Any]:
    """What a Trainer is to be given in place of `fsdp`, whose name Lightning keeps to GPUs and to the older FSDP."""
    return {"strategy": Sharded()} if strategy == "fsdp" else {}
