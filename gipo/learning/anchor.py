"""How strongly the anchor KL(μ‖π) holds the policy to its data: by a weight, or by whatever weight meets a KL."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gipo.common.errors import UserError

TOLERANCE = STEP = 1.5  # how far off the KL may be before the weight is moved, and how far it is moved then
WEIGHTS = (1e-4, 1e2)  # between which it is moved


class Anchor(nn.Module):
    """The weight β of the anchor: held, or moved once an iteration so that the KL comes near a target.

    PPO's penalty has its weight moved this way (arXiv 1707.06347, section 4); there it is of consecutive policies, here
    of the data's and the learner's.

    Args:
        weight: to begin with.
        target: mean KL of an action dimension, nats; None to hold the weight.
    """

    weight: Tensor

    def __init__(self, weight: float, target: float | None = None):
        super().__init__()
        if target is not None and not 0 < target < math.inf:
            raise UserError(f"model.kl_target must be positive and finite, got {target}")
        if target is not None and not WEIGHTS[0] <= weight <= WEIGHTS[1]:
            raise UserError(
                f"model.kl_target moves the weight of the anchor between {WEIGHTS[0]:g} and {WEIGHTS[1]:g}, and "
                f"model.kl_coef={weight} is where it would begin; choose one there, or leave kl_target out"
            )
        self.target = target
        # A tensor, so that what is compiled reads it anew. One that is held is not saved: it is what the options say.
        self.register_buffer("weight", torch.tensor(float(weight)), persistent=target is not None)

    @torch.no_grad()
    def meet(self, kl: Tensor) -> None:
        """Move the weight by the KL of an iteration; one that is not a number moves nothing."""
        if self.target is None:
            return
        # β ← 1.5·β where KL > 1.5·target;  β ← β/1.5 where KL < target/1.5
        too_far, too_near = kl > TOLERANCE * self.target, kl < self.target / TOLERANCE
        self.weight *= torch.where(too_far, STEP, torch.where(too_near, 1 / STEP, 1.0))
        self.weight.clamp_(*WEIGHTS)

    def figures(self) -> dict[str, Tensor]:
        """The weight, where it moves, by the name under which it is logged."""
        return {} if self.target is None else {"kl_coef": self.weight.clone()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # One that moves goes on from where it was; from where the options say where it was held.
        name = f"{prefix}weight"
        if self.target is None:
            state_dict.pop(name, None)
        else:
            state_dict.setdefault(name, self.weight.clone())
        super()._load_from_state_dict(state_dict, prefix, *args)
