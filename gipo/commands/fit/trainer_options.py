"""Lightning's options, one by one: which mean here what they say, which are checked, and which are refused and why."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from datamodules.collect.random_state import seed_of_process
from gipo.common.errors import UserError

Check = Callable[[Any, Mapping[str, Any]], str | None]
MAX_SEED = 2**32 - 1
STRATEGIES = ("auto", "ddp", "fsdp")


def _unless(*allowed: Any, instead: str) -> Check:
    """Only these values, the defaults of Lightning among them; and what to do instead of any other."""
    return lambda value, options: None if value in allowed else instead


def _at_least(least: int) -> Check:
    return lambda value, options: None if value is None or value >= least else f"must be at least {least}"


def _some_or_endless(value: Any, options: Mapping[str, Any]) -> str | None:
    return None if value is None or value == -1 or value >= 1 else "must be at least 1, or -1 for no such limit"


def _batches(*allowed: int, instead: str) -> Check:
    """Only these numbers of batches, or more: there is one, and a share of it is none."""
    return lambda value, options: (
        None if value is None or value in allowed or (isinstance(value, int) and value > 1) else instead
    )


def _strategy(value: Any, options: Mapping[str, Any]) -> str | None:
    if not isinstance(value, str) or value in STRATEGIES:
        return None
    return f"gipo learns with {', '.join(STRATEGIES)}, or with a class of Lightning's"


def precision_advice(value: Any, options: Mapping[str, Any]) -> str | None:
    """What to do instead of this precision with these options of the trainer; None where it can be had."""
    if value in (None, 32, "32", "32-true", "bf16", "bf16-mixed"):
        return None
    if value in (16, "16", "16-mixed"):
        on_cpu = options["accelerator"] == "cpu" or not torch.cuda.is_available()
        return "half precision needs a GPU (trainer.accelerator=gpu); bf16-mixed works on a CPU too" if on_cpu else None
    return "weights, ratios and data are in single precision; choose 32-true, bf16-mixed or, on a GPU, 16-mixed"


def _accelerator(value: Any, options: Mapping[str, Any]) -> str | None:
    if value in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return "PyTorch finds no GPU here; leave it out to learn on the CPU"
    return None


def _devices(value: Any, options: Mapping[str, Any]) -> str | None:
    if options["accelerator"] != "cpu" or value == "auto":
        return None
    count = int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
    return None if isinstance(count, int) and count >= 1 else "on a CPU it is the number of learners, at least 1"


def _validation_interval(value: Any, options: Mapping[str, Any]) -> str | None:
    if value in (None, 1) or isinstance(value, (str, dict)) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int) and value > 1 and options["check_val_every_n_epoch"] is None:
        return None
    return "an iteration is one batch; trainer.check_val_every_n_epoch=N evaluates after every N of them"


def _plugins(value: Any, options: Mapping[str, Any]) -> str | None:
    if any(isinstance(plugin, CheckpointIO) for plugin in as_list(value)):
        return "gipo writes its checkpoints itself, whole or not at all; leave the plugin for checkpoints out"
    return None


ONE_BATCH = (
    "an iteration is one batch, all of it; data.total_frames, or data.iterations on logs, says how many there are"
)
AS_LIGHTNING_SAYS = {
    "logger", "callbacks", "min_epochs", "min_steps", "max_time", "enable_progress_bar", "enable_model_summary",
    "deterministic", "benchmark", "inference_mode", "use_distributed_sampler", "profiler", "detect_anomaly",
    "sync_batchnorm", "default_root_dir", "enable_autolog_hparams",
}  # fmt: skip
CHECKS: dict[str, Check] = {
    "accelerator": _accelerator,
    "strategy": _strategy,
    "devices": _devices,
    "num_nodes": _at_least(1),
    "precision": precision_advice,
    "fast_dev_run": _unless(False, 0, instead="it would save nothing; for a quick look take a small data.total_frames"),
    "max_epochs": _some_or_endless,
    "max_steps": _some_or_endless,
    "limit_train_batches": _unless(None, 1, instead=ONE_BATCH),
    "limit_val_batches": _batches(
        0, 1, instead="an evaluation is one batch, all of it or none (0); data.evaluation.episodes says how large it is"
    ),
    "limit_test_batches": _batches(
        1, instead="a test is one batch, all of it; data.evaluation.test_episodes says how large it is"
    ),
    "limit_predict_batches": _unless(None, 1, instead="gipo has no command that predicts"),
    "overfit_batches": _unless(0, instead=ONE_BATCH),
    "val_check_interval": _validation_interval,
    "check_val_every_n_epoch": _at_least(1),
    "num_sanity_val_steps": _at_least(-1),
    "log_every_n_steps": _at_least(0),
    "enable_checkpointing": _unless(None, True, instead="gipo always keeps checkpoints; leave it out"),
    "accumulate_grad_batches": _unless(1, instead="an update is of one batch; raise data.batch instead"),
    "gradient_clip_val": _unless(None, instead="model.max_grad_norm is the clip, of the policy and of the critic each"),
    "gradient_clip_algorithm": _unless(None, instead="gradients are clipped by their norm, at model.max_grad_norm"),
    "barebones": _unless(False, instead="it would save and log nothing; trainer.logger=false logs nothing"),
    "plugins": _plugins,
    "reload_dataloaders_every_n_epochs": _at_least(0),
    "model_registry": _unless(None, instead="gipo keeps a run's checkpoints in its own folder"),
}


def refuse_what_is_not_honoured(options: Mapping[str, Any]) -> None:
    """Raise a UserError that names the first option of the trainer which would not do here what it says.

    Args:
        options: of `Trainer`, plugins and callbacks built.
    """
    for name, value in options.items():
        advice = CHECKS[name](value, options) if name in CHECKS else None
        if advice is not None:
            raise UserError(f"trainer.{name}={value}: {advice}")


def seed_from(value: Any, first: bool = True) -> int:
    """The seed of a run: `value`, or where it is True one that the first of its learners draws.

    Raises:
        UserError: when it is none, or when another learner was not told what the first drew.
    """
    if value is True and first:
        return secrets.randbelow(MAX_SEED + 1)
    if value is True:
        if (drawn := seed_of_process()) is None:  # Lightning's own launcher tells it
            raise UserError(
                "seed_everything=true: this launcher starts learners that cannot know what the first drew; "
                "give a number, the same to each"
            )
        return drawn
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise UserError(
            f"seed_everything must be a whole number from 0 to {MAX_SEED}, or true to draw one; got {value}"
        )
    return value


def as_list(value: Any) -> list[Any]:
    """An option that may be one thing, several, or nothing."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
