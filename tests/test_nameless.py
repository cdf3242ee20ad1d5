"""A simulation that has no names, units or rate: trained, resumed, and exported once its rate is said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torchrl.envs import EnvBase

from datamodules.envs.simulation import Simulation
from datamodules.envs.tasks import simulation
from deploy.export.artifact import export
from deploy.runtime.policy import OnnxPolicy
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.policies import Spaces
from tests.fingerprint import fingerprints

pytestmark = pytest.mark.usefixtures("no_plot")


@dataclass(frozen=True)
class Nameless(Simulation):
    """The point of `Tiny-v0`, under a name that nothing is registered under."""

    name: str = "a point of ours"
    horizon = 12
    interface = None

    def make(self, num_envs: int, seed: int) -> EnvBase:
        return simulation("Tiny-v0").make(num_envs, seed)

    def spaces(self, env: EnvBase) -> Spaces:
        return simulation("Tiny-v0").spaces(env)


def test_it_trains_resumes_and_is_exported_with_the_rate_that_is_said(
    tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    options = {"data__task__class_path": "tests.test_nameless.Nameless"}
    main(tiny("whole", **options))
    main(tiny("cut", **options | {"data__total_frames": 64}))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    main(tiny("cut", **options, ckpt_path=last))
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")

    recorded = torch.load(last, weights_only=True)["gipo"]
    assert recorded["task"] == "a point of ours"
    assert recorded["interface"] is None
    with pytest.raises(UserError, match=r"names no interface.*--rate HZ"):
        export(last, tmp_path / "policy.onnx")
    export(last, tmp_path / "policy.onnx", rate=20)
    manifest = OnnxPolicy.load(tmp_path / "policy.onnx").manifest
    assert manifest.control_rate_hz == 20
    assert manifest.observation_names == ("observation.0", "observation.1", "observation.2")
    assert manifest.observation_units == ("unspecified",) * 3
