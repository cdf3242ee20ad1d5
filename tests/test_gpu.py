"""On a CUDA device: a run is where it was told to be, learns there, and resumes bit for bit; skipped elsewhere."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.export.checkpoint_policy import CheckpointPolicy
from gipo.checkpoints import load_checkpoint
from gipo.cli import main
from tests.crash import crash
from tests.fingerprint import fingerprints
from tests.gipo.vla.builders import save_model

Args = Callable[..., list[str]]

pytestmark = [
    pytest.mark.usefixtures("no_plot"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = {"trainer__accelerator": "gpu", "trainer__devices": 1}
PLACES = {
    "replay in main memory": {},
    "replay beside the learner": {"data__replay_device": "learner"},
    "bfloat16": {"trainer__precision": "bf16-mixed"},
}


def trained(args: list[str], folder: Path) -> dict[str, torch.Tensor]:
    """The policy that a run ends with."""
    main(args)
    state = load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("policy.")}


@pytest.mark.parametrize("name", PLACES)
def test_a_crashed_run_resumes_bit_for_bit(name: str, tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": 6 * 32, "checkpoint__every": 5} | GPU | PLACES[name]
    # A library that is imported by the first run of a process may draw from NumPy's generator, as JAX does.
    main(tiny("first", **options | {"data__total_frames": 32}))
    main(tiny("whole", **options))
    crash(tiny("again", **options | {"checkpoint__every": 100}), 5)  # saved where it fails, which ends all episodes
    last = tmp_path / "again" / "checkpoints" / "last.ckpt"
    main(tiny("again", ckpt_path=last, **options))
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")


def test_the_first_iteration_is_that_of_the_processor(tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": 32}
    here = trained(tiny("cpu", **options), tmp_path / "cpu")
    there = trained(tiny("gpu", **options, **GPU), tmp_path / "gpu")
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_cuda_graphs_make_the_updates_of_plain_kernels(tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": 2 * 32} | GPU | {"data__replay_device": "learner"}
    plain = trained(tiny("plain", **options), tmp_path / "plain")
    graphs = {"model__compile": "true", "model__cuda_graphs": "true"}
    replayed = trained(tiny("graphs", **options, **graphs), tmp_path / "graphs")
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-3, atol=1e-3, msg=name)


def test_a_large_network_acts_where_it_learns_as_on_the_processor(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `vla`")
    save_model(tmp_path / "model", 16)
    for place in ("cpu", "gpu"):
        main([
            "fit", "--config", "toy_vla.yaml", "--model.policy=gipo.vla.openvla.VocabTailPolicy",
            "--model.policy.network=gipo.vla.huggingface.HuggingFaceNetworks", "--model.policy.bins=16",
            f"--model.policy.network.pretrained={tmp_path / 'model'}", "--model.policy.network.dtype=float32",
            "--model.recompute=true", "--data.collector.num_envs=8", "--data.collector.workers=0",
            "--data.total_frames=64", "--data.frames_per_iteration=64", "--data.batch=64", "--data.rounds=1",
            "--data.evaluation.episodes=8", "--data.evaluation.num_envs=8", "--trainer.check_val_every_n_epoch=1",
            f"--trainer.accelerator={place}", f"--trainer.default_root_dir={tmp_path / place}",
        ])  # fmt: skip
    (here,), (there,) = (
        list(csv.DictReader((tmp_path / place / "curves.csv").read_text().splitlines())) for place in ("cpu", "gpu")
    )
    assert float(there["ratio/log_abs_p95"]) < 0.01  # at the first update, of what acted a moment before
    for figure in ("train/return", "val/return"):  # the same actions, and after an update such as are alike
        assert float(there[figure]) == pytest.approx(float(here[figure]), rel=0.02)


def test_a_checkpoint_is_served_from_the_device(tiny: Args, tmp_path: Path) -> None:
    main(tiny("run", data__total_frames=32))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    here, there = (CheckpointPolicy(last, device=device, timeless=True) for device in ("cpu", "cuda"))
    observation = np.random.default_rng(0).standard_normal((8, here.manifest.observation_size)).astype(np.float32)
    noise = here.noise((8,), np.random.default_rng(1))
    mine, theirs = here.evaluate(observation, noise), there.evaluate(observation, noise)
    for name, values in mine.items():
        np.testing.assert_allclose(theirs[name], values, atol=1e-4)


def test_half_precision_learns_what_single_precision_does(tiny: Args, tmp_path: Path) -> None:
    options = {"data__total_frames": 4 * 32} | GPU
    single = trained(tiny("single", **options), tmp_path / "single")
    half = trained(tiny("half", **options, trainer__precision="16-mixed"), tmp_path / "half")
    moved = [
        (half[name] - value).float().norm() / value.float().norm().clamp(min=1e-3) for name, value in single.items()
    ]
    assert max(moved) < 0.05
    state = load_checkpoint(tmp_path / "half" / "checkpoints" / "last.ckpt")
    assert int(state["state_dict"]["skipped"]) < 4  # the scale starts too high, and falls
