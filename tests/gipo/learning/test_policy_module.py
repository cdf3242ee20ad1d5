import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from gipo.common.errors import UserError
from gipo.module import GIPOModule
from gipo.policies import Spaces


def test_convolutions_are_in_float32_whoever_has_the_policy_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, and a Trainer of one's own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    GIPOModule().build_policy(Spaces(2, (-1.0,), (1.0,)))
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"  # torch's default


def test_a_module_alone_says_how_the_policy_of_a_checkpoint_is_had() -> None:
    """As Lightning's `load_from_checkpoint` builds it."""
    with pytest.raises(UserError, match=r"policy_from\(gipo\.checkpoints\.load_checkpoint\(PATH\)\)"):
        GIPOModule().configure_model()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit_train_batches": 0}, "(limit_train_batches=0): an iteration is one batch, and nothing would be"),
        ({"precision": "bf16-true"}, "(precision='bf16-true'): weights, ratios and data are in single precision"),
        ({"precision": 64}, "(precision='64-true'): weights, ratios and data are in single precision"),
        ({"limit_train_batches": 1}, None),
        ({"precision": "bf16-mixed"}, None),
    ],
)
def test_a_trainer_of_ones_own_is_asked_for_what_can_be_had(options: dict[str, Any], words: str | None) -> None:
    """The command refuses these before; a Trainer has nobody else to say it."""
    module = GIPOModule()
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    if words is None:
        module.setup("fit")
        return
    with pytest.raises(UserError, match=f"^{re.escape('Trainer' + words)}"):
        module.setup("fit")
