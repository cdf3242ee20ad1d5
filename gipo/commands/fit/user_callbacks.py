"""Callbacks and loggers that a user names: what goes wrong in them is told by their name, and costs no checkpoint."""

import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    SpikeDetection,
    StochasticWeightAveraging,
    WeightAveraging,
)

from gipo.callbacks.last_checkpoint import save_or_stay, say
from gipo.commands.fit.trainer_options import as_list
from gipo.common.errors import UserError, nearest
from gipo.common.faults import OURS, described, is_ours, of_a_users_class
from gipo.distributed import ranks

# Callbacks of Lightning's for a model of one optimizer, and what is there instead.
INSTEAD: dict[type[Callback], str] = {
    LearningRateFinder: "policy and critic learn apart; model.policy_lr and model.value_lr are their rates",
    BatchSizeFinder: "data.batch is the size of a batch, of transitions; it changes what is learned",
    StochasticWeightAveraging: "policy and critic learn apart; EMAWeightAveraging averages both",
    SpikeDetection: "policy and critic have a loss each; a loss that is no number ends the run by itself",
}
SAVING = ("_save_topk_checkpoint", "_save_last_checkpoint")  # methods, the trainer first


def spare_the_run(callback: Callback) -> None:
    """Tell what fails in a callback at the end of a run, and let the run end as it should all the same.

    A `ModelCheckpoint` that cannot save stays as it was, with its files, and tries again when the next save is due.

    Raises:
        UserError: when it would have the policy say that it is of another version than it is.
    """
    if isinstance(callback, WeightAveraging) and callback._use_buffers:
        raise UserError(
            f"trainer.callbacks={type(callback).__name__} would average the policy's version and moments with its "
            "weights; add --trainer.callbacks.use_buffers=false, which averages weights alone"
        )
    for kind, instead in INSTEAD.items():
        if isinstance(callback, kind):
            raise UserError(f"trainer.callbacks={type(callback).__name__} does not work here: {instead}")
    setattr(callback, "on_exception", partial(_end_too, callback, callback.on_exception))  # noqa: B010 - of an instance
    if isinstance(callback, ModelCheckpoint):
        retry = f"{type(callback).__name__} saves"
        for method in SAVING:
            setattr(callback, method, partial(save_or_stay, callback, getattr(callback, method), retry=retry))


def refuse_with_others(trainer: Trainer) -> None:
    """Refuse a callback that one learner may have, and several cannot.

    Raises:
        UserError: naming it.
    """
    every: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in every:
        if isinstance(callback, WeightAveraging) and trainer.world_size > 1:
            raise UserError(
                f"trainer.callbacks={type(callback).__name__} copies the learner, and one of several cannot be copied; "
                "train with --trainer.devices=1"
            )


def at_fault(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """`trainer.callbacks=SomeClass: …` for an error that a library raised in a callback or logger of these options."""
    if ranks.is_loss_of_a_rank(error):  # wherever this one waited for it
        return None
    named = {id(one): option for option in ("callbacks", "logger") for one in as_list(options.get(option))
             if not is_ours(one)}  # fmt: skip
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, (UserError, OSError)) or not frames or frames[-1].f_code.co_filename.startswith(OURS):
        return None
    if of_a_users_class(error) is not None:  # which says more: the file and line
        return None
    for frame in reversed(frames):
        owner = frame.f_locals.get("self")
        if id(owner) in named:
            return f"trainer.{named[id(owner)]}={type(owner).__name__}: {_without_a_list(str(error), owner)}"
    return None


def _without_a_list(text: str, callback: Any) -> str:
    """What a library said, in one line; of all metrics there are, the ones nearest to one that is not there."""
    monitor = getattr(callback, "monitor", None)
    if monitor and re.search(r"which is not available|could not find the monitored key", text):
        known = [name for name in re.findall(r"[`']([\w/.]+)[`']", text) if name != monitor]
        return f"there is no metric {monitor}; the nearest: {nearest(monitor, known)}"
    return " ".join(text.split())


def _end_too(callback: Callback, end: Callable[..., None], trainer: Trainer, *arguments: Any) -> None:
    try:
        end(trainer, *arguments)
    except Exception as error:
        say(trainer, f"{type(callback).__name__} failed at the end of the run: {described(error)}")
