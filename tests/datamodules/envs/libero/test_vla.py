"""LIBERO's cameras under a policy over chunks: real simulators in processes of their own, so it takes minutes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from datamodules.envs.libero.vla import CAMERAS, LiberoVLA
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.vla.observations import decode_instructions


def test_it_says_what_it_is_without_starting_anything() -> None:
    task = LiberoVLA("libero_goal/3", chunk=8, max_steps=300)
    assert (task.name, task.horizon) == ("libero_goal/3", 38)
    assert (task.horizon, replace(task, max_steps=20).horizon) == (38, 3)  # 300 by the suite too, by chunks of 8
    assert LiberoVLA("libero_spatial/0", max_steps=600).horizon == 28  # 220
    assert (task.cameras, LiberoVLA(wrist=True).cameras) == ((), CAMERAS)
    assert [len(task.interface[f"{kind}_names"]) for kind in ("observation", "action")] == [9, 7]
    with pytest.raises(UserError, match=r"data\.task\.size must be positive"):
        LiberoVLA(size=0)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("wrist", [False, True])
def test_tiny_vla_trains_on_cameras_for_two_iterations(
    wrist: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # TorchRL leaves a note of LIBERO's paths there
    options: dict[str, object] = {
        "config": "toy_vla.yaml", "trainer.default_root_dir": tmp_path / "run",
        "data.task": "datamodules.envs.libero.vla.LiberoVLA", "data.task.chunk": 4, "data.task.size": 64,
        "data.task.max_steps": 8, "data.task.wrist": wrist,
        "data.total_frames": 8, "data.frames_per_iteration": 4, "data.capacity": 8,
        "data.rounds": 1, "data.batch": 8, "data.collector.num_envs": 1, "data.evaluation.num_envs": 1,
        "data.evaluation.episodes": 1, "checkpoint.every": 2, "trainer.check_val_every_n_epoch": 2,
        "model.policy.bins": 16,
    }  # fmt: skip
    main(["fit", *(f"--{name}={value}" for name, value in options.items())])
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    frames = TensorDict().load_state_dict(state["OnlineDataModule"]["replay"]["frames"], strict=False)
    image, instruction = frames["observation", "image"], frames["observation", "instruction"]
    assert image.shape == (8, 6 if wrist else 3, 64, 64)
    views = image.unflatten(1, (-1, 3)).unbind(1)
    for view in views:
        assert view.float().std() > 10  # a scene, not a blank
        moved = (view[1:].int() - view[:-1].int()).abs().flatten(1).float().mean(-1)
        assert (moved > 0).all()  # frames change
    assert len(views) == 1 or not torch.equal(views[0], views[1])
    assert policy_from(load_checkpoint(last)).spaces.cameras == (CAMERAS if wrist else ())
    assert set(decode_instructions(instruction)) == {
        "pick up the black bowl between the plate and the ramekin and place it on the plate"
    }
    assert frames["executed"].all()
    assert int(state["state_dict"]["policy.version"]) == 2
    assert int(state["state_dict"]["skipped"]) == 0
