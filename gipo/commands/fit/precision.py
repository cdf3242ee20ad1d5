"""The precision that a run takes by itself."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from gipo.commands.fit.trainer_options import precision_advice

SINGLE, LOWERED = "32-true", "bf16-mixed"
INSTRUCTIONS = ("amx_bf16", "avx512_bf16")  # of processors that may multiply faster in bfloat16
WORTH = 2 / 3  # of the time in float32; what is between depends on what else the machine does
SIZE, REPEATS = 512, 8  # rows and columns: a batch of the default recipe; and products of each type


def precision_of(trainer: Any, had: str | None, alone: bool) -> str:
    """The precision of a run that names none: of the run that it goes on with, where that can be had, or the default.

    Args:
        trainer: options of the trainer.
        had: by the run that it goes on with, as its checkpoint says.
        alone: whether there is one learner.
    """
    if had is not None and precision_advice(had, trainer) is None:
        return had
    return default_precision(trainer["accelerator"], alone)


def default_precision(accelerator: str, alone: bool = True) -> str:
    """The precision of a run that begins: `bf16-mixed` where the learner's processor multiplies faster so.

    Several learners, who would each measure for itself and must do the same, have float32.

    Measured, in a twentieth of a second: the same instructions take a fifth of float32's time on one processor and
    twice as much on another. On a GPU an update of so small a network waits for its kernels to be launched, not for its
    products.
    """
    # A function of newer versions of torch; without it nothing is known of the processor.
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not alone or accelerator != "cpu" or not any(has.get(name, False) for name in INSTRUCTIONS):
        return SINGLE
    return LOWERED if share_of_time() <= WORTH else SINGLE


def share_of_time() -> float:
    """What a matrix product in bfloat16 takes, as a share of what it takes in float32."""
    operands = {dtype: torch.ones(SIZE, SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    least = dict.fromkeys(operands, float("inf"))
    for _ in range(REPEATS):  # in turns, so that what else the machine does slows both
        for dtype, operand in operands.items():
            began = time.perf_counter()
            operand @ operand
            least[dtype] = min(least[dtype], time.perf_counter() - began)
    return least[torch.bfloat16] / least[torch.float32]
