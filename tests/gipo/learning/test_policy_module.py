import pytest
import torch

from gipo.module import GIPOModule
from gipo.policies import Spaces


def test_convolutions_are_in_float32_whoever_has_the_policy_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, and a Trainer of one's own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    GIPOModule().build_policy(Spaces(2, (-1.0,), (1.0,)))
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"  # torch's default
