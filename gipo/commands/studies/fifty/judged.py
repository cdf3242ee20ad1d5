"""Our side: `gipo fit` as a user types it, with a callback that judges it as every other entrant is."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from gipo.callbacks.data import data_of
from gipo.commands.studies.fifty.judge import SEED, Act
from gipo.commands.studies.fifty.record import Record
from gipo.policies import Policy


class Judged(Callback):
    """Evaluates the run between iterations, and tests its last policy; a resumed run goes on from its evaluations.

    Args:
        task: a `-v3` name.
        every: environment steps from one evaluation to the next.
    """

    def __init__(self, task: str, every: int):
        self._record = Record(task, every)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count seconds."""
        self._record.begin()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Evaluate where it is time."""
        data = data_of(trainer)
        self._record.iteration(data.position, sampled(pl_module.policy))  # type: ignore[arg-type]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test, and write what the run came to; also where nothing was left to train when it was resumed."""
        self._record.end(sampled(pl_module.policy), Path(trainer.default_root_dir))  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """What was recorded so far, for the run may be interrupted."""
        return self._record.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was recorded."""
        self._record.resume(state_dict)


def sampled(policy: Policy) -> Act:
    """Actions that `policy` samples, by a generator of their own: training goes on as if it had not been evaluated."""
    generator = torch.Generator().manual_seed(SEED)

    @torch.no_grad()
    def act(observations: np.ndarray) -> np.ndarray:
        params = policy.params(torch.from_numpy(observations))
        latent = policy.sample(params, policy.noise((len(observations),), generator))
        return policy.to_env(latent).numpy()

    return act
