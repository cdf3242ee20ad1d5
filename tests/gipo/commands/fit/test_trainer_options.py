"""Every option of Lightning's Trainer: it does what it says, or is refused in one line that names it."""

import csv
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gipo.cli import main
from gipo.commands.fit.trainer_options import AS_LIGHTNING_SAYS, CHECKS, refuse_what_is_not_honoured, seed_from
from gipo.common.errors import UserError
from tests.test_bad_input import refused

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]
TINY = {"data__task": "Tiny-v0", "data__total_frames": 64}
PLUGINS = "lightning.pytorch.plugins"

pytestmark = pytest.mark.usefixtures("no_plot")


def test_no_option_of_lightnings_was_left_unconsidered() -> None:
    assert set(CHECKS) | AS_LIGHTNING_SAYS == set(inspect.signature(Trainer.__init__).parameters) - {"self"}


REFUSED = {
    "accelerator=gpu": "no GPU here",
    "strategy=deepspeed": "auto, ddp, fsdp",
    "strategy=unheard": "auto, ddp, fsdp",
    "devices=0": "at least 1",
    "devices=-1": "at least 1",
    "devices=2,3": "number of learners",
    "num_nodes=0": "at least 1",
    "precision=64-true": "single precision",
    "precision=16-true": "single precision",
    "precision=bf16-true": "single precision",
    "precision=16-mixed": "bf16-mixed works on a CPU",
    "fast_dev_run=true": "data.total_frames",
    "fast_dev_run=3": "data.total_frames",
    "max_epochs=-2": "at least 1, or -1",
    "max_epochs=0": "at least 1, or -1",
    "max_steps=-2": "at least 1, or -1",
    "max_steps=0": "at least 1, or -1",
    "limit_train_batches=0": "data.total_frames",
    "limit_train_batches=0.5": "data.total_frames",
    "limit_val_batches=0.5": "data.evaluation.episodes",
    "limit_test_batches=0.5": "data.evaluation.test_episodes",
    "limit_test_batches=0": "a test is one batch, all of it",
    "limit_predict_batches=1.5": "predicts",
    "overfit_batches=1": "data.total_frames",
    "val_check_interval=0.5": "trainer.check_val_every_n_epoch",
    "val_check_interval=5": "trainer.check_val_every_n_epoch",
    "check_val_every_n_epoch=0": "at least 1",
    "num_sanity_val_steps=-2": "at least -1",
    "log_every_n_steps=-1": "at least 0",
    "enable_checkpointing=false": "always keeps checkpoints",
    "accumulate_grad_batches=2": "data.batch",
    "gradient_clip_val=1": "model.max_grad_norm",
    "gradient_clip_algorithm=value": "model.max_grad_norm",
    "barebones=true": "trainer.logger=false",
    "reload_dataloaders_every_n_epochs=-1": "at least 0",
    "model_registry=mine": "own folder",
}


DEFAULTS = {name: one.default for name, one in inspect.signature(Trainer.__init__).parameters.items() if name != "self"}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_not_honoured_is_refused_by_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in (torch.cuda, torch.backends.mps):  # "no GPU here", also where there is one
        monkeypatch.setattr(device, "is_available", lambda: False)
    name, _, value = given.partition("=")
    asked = value if name in ("devices", "precision") else yaml.safe_load(value)
    with pytest.raises(UserError) as refusal:
        refuse_what_is_not_honoured(DEFAULTS | {"accelerator": "cpu", name: asked})
    assert f"trainer.{name}=" in str(refusal.value)
    assert REFUSED[given] in str(refusal.value)


def test_the_defaults_are_honoured() -> None:
    assert refuse_what_is_not_honoured(DEFAULTS) is None  # and raises nothing


def test_checkpoint_plugins_are_refused_also_in_a_list() -> None:
    for plugins in (TorchCheckpointIO(), [LightningEnvironment(), TorchCheckpointIO()]):
        with pytest.raises(UserError, match=r"trainer\.plugins.*writes its checkpoints itself"):
            refuse_what_is_not_honoured(DEFAULTS | {"plugins": plugins})


@pytest.mark.parametrize("given", ["accumulate_grad_batches=2", "accelerator=warp", "profiler=unheard"])
def test_a_refusal_is_one_line_and_leaves_nothing(given: str, tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    assert given.partition("=")[0] in refused([*tiny(**TINY), f"--trainer.{given}"], capsys)
    assert not (tmp_path / "run").exists()


HONOURED = {
    "what is measured": {
        "profiler": "simple", "detect_anomaly": "true", "log_every_n_steps": 0, "enable_model_summary": "true",
        "num_sanity_val_steps": 1, "check_val_every_n_epoch": 1, "callbacks": "[]", "enable_autolog_hparams": "false",
    },
    "how it is computed": {
        "deterministic": "true", "benchmark": "true", "inference_mode": "false", "use_distributed_sampler": "false",
        "sync_batchnorm": "true", "reload_dataloaders_every_n_epochs": 1, "precision": "bf16-mixed", "min_epochs": 1,
        "min_steps": 1, "max_steps": -1, "limit_val_batches": 0, "logger": "false", "enable_progress_bar": "false",
        "num_nodes": 1, "devices": 1, "strategy": "auto",
    },
    "in words and lists": {
        "logger": "true", "precision": 32, "limit_train_batches": 1.0, "plugins": "null", "callbacks": "null",
        "val_check_interval": 2, "check_val_every_n_epoch": "null", "fast_dev_run": "false",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured_trains(name: str, tiny: Args, tmp_path: Path) -> None:
    options = {f"trainer__{option}": value for option, value in HONOURED[name].items()}
    main(tiny(**TINY | options))
    run = tmp_path / "run"
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["OnlineDataModule"]["iteration"] == 2
    assert (run / "tensorboard").exists() == (run / "csv").exists() == (HONOURED[name].get("logger") != "false")
    evaluated = "limit_val_batches" not in HONOURED[name]
    assert (run / "checkpoints" / "best.ckpt").exists() == evaluated


def test_a_plugin_for_a_cluster_is_added(tiny: Args, tmp_path: Path) -> None:
    main([*tiny(**TINY), f"--trainer.plugins+={PLUGINS}.environments.LightningEnvironment"])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_plugins_are_read_from_a_configuration(tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS": 1, "JOB_ID": 7, "JOB_NAME": "bash"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    config = {"trainer": {"plugins": [{"class_path": f"{PLUGINS}.environments.SLURMEnvironment",
                                       "init_args": {"auto_requeue": False}}]}}  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    main([*tiny(**TINY), f"--config={tmp_path}/mine.yaml"])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


class Overflowing(MixedPrecision):
    """Half precision whose scale is beyond what a gradient can be multiplied by."""

    scales: list[float] = []  # noqa: RUF012 - of every backward pass

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**126))

    def pre_backward(self, tensor: torch.Tensor, module: Any) -> torch.Tensor:
        assert self.scaler is not None
        self.scales.append(self.scaler.get_scale())
        return super().pre_backward(tensor, module)


def grad_norms(run: Path) -> list[float]:
    with open(run / "csv" / "version_0" / "metrics.csv") as file:
        return [float(row["grad_norm/policy"]) for row in csv.DictReader(file) if row.get("grad_norm/policy")]


def test_scaled_gradients_are_clipped_at_their_own_norm(tiny: Args, tmp_path: Path) -> None:
    for fused in ({}, {"model__optimizer": "torch.optim.SGD"}):  # one that unscales by itself, and one that does not
        options = TINY | fused | {"model__max_grad_norm": 0.01, "data__total_frames": 32}
        single, half = f"single-{len(fused)}", f"half-{len(fused)}"
        main(tiny(single, **options))
        plugin = {"precision": "16-mixed", "device": "cpu"}
        chosen = [f"--trainer.plugins.init_args.{name}={value}" for name, value in plugin.items()]
        main(
            [
                *tiny(half, **options | {"trainer__precision": None}),
                f"--trainer.plugins={PLUGINS}.MixedPrecision",
                *chosen,
            ]
        )
        assert grad_norms(tmp_path / half) == pytest.approx(grad_norms(tmp_path / single), rel=0.05)
        weights = [
            torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for name in (single, half)
        ]
        for name, value in weights[0].items():
            if value.is_floating_point():
                assert torch.allclose(value, weights[1][name], atol=2e-3), name


def test_a_scale_that_overflows_falls_and_ends_no_run(tiny: Args, tmp_path: Path) -> None:
    Overflowing.scales.clear()
    main([*tiny(**TINY | {"data__rounds": 8, "trainer__precision": None}), f"--trainer.plugins={__name__}.Overflowing"])
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    skipped = int(saved["state_dict"]["skipped"])
    assert skipped > 10  # more than what ends a run whose gradients are not finite by themselves
    assert Overflowing.scales[0] == 2.0**126
    assert min(Overflowing.scales) <= 2.0 ** (126 - skipped + 1)


@pytest.mark.parametrize("value", [False, None, -1, 2**32, 1.5])
def test_what_is_no_seed(value: Any) -> None:
    with pytest.raises(UserError, match="seed_everything"):
        seed_from(value)


def test_another_learner_takes_what_the_first_drew_and_draws_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert seed_from(True, first=False) == 17
    assert len({seed_from(True) for _ in range(4)}) == 4  # the first draws, whatever stood there
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert seed_from(3, first=False) == 3
    with pytest.raises(UserError, match=r"seed_everything=true: .* give a number, the same to each"):
        seed_from(True, first=False)


def test_a_drawn_seed_is_kept(tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    assert "from 0 to 4294967295" in refused(tiny(**TINY | {"seed_everything": 2**32}), capsys)
    assert seed_from(2**32 - 1) == 2**32 - 1
    main(tiny(**TINY | {"seed_everything": "true", "data__total_frames": 32}))
    assert type(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["seed_everything"]) is int
