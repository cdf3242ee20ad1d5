"""A shadow is told what it would have done of the same latents, or is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Spaces
from robots.session.shadow import ShadowPolicy, check_comparable
from tests.deploy.builders import save


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxPolicy, OnnxPolicy]:
    """Of equal weights, whose latents become actions by tanh and by a clip."""
    from deploy.export.artifact import export

    def made(folder: Path, squash: bool) -> OnnxPolicy:
        torch.manual_seed(0)
        policy = GaussianPolicy(Spaces(3, (-1.0, -1.0), (1.0, 1.0)), squash=squash)
        export(save(policy, folder / "p.ckpt", interface=None), folder / "p.onnx", rate=50.0, observations=16)
        return OnnxPolicy.load(folder / "p.onnx")

    squashed, clipped = (made(tmp_path_factory.mktemp("shadow"), squash) for squash in (True, False))
    return squashed, clipped


def test_equal_latents_that_are_other_actions_are_refused(artifacts: tuple[OnnxPolicy, OnnxPolicy]) -> None:
    squashed, clipped = artifacts
    check_comparable(squashed, squashed)
    with pytest.raises(UserError, match="makes actions of latents by clip, the acting one by tanh"):
        check_comparable(clipped, squashed)


def test_the_divergence_is_its_estimate_wherever_the_shadow_gives_no_support(
    artifacts: tuple[OnnxPolicy, OnnxPolicy],
) -> None:
    log: Any = None  # to which nothing is written here
    shadow = ShadowPolicy(artifacts[0], log)
    try:
        assert np.isnan(shadow.summary().kl)  # of nothing there is no estimate
        shadow._log_ratios = [-200.0, 0.0]  # eˣ − 1 − x = 199 and 0
        assert shadow.summary().kl == pytest.approx(99.5)
    finally:
        shadow.worker.close()
