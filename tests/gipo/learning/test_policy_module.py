import pytest
import torch

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
