"""Advantages and value targets over a whole buffer of trajectories in one vectorised pass.

The frames of many episodes lie one after another on one axis [M]; `linked[t]` says that frame t+1 continues the
episode of frame t. Where it does not, the trace stops and the value of the next observation is bootstrapped,
except after termination.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.common.faults import class_path


class Trajectories(NamedTuple):
    """Frames in episode order, each field [M]."""

    reward: Tensor
    value: Tensor  # V(s_t)
    next_value: Tensor  # V(s_{t+1}), also where the episode was cut or truncated; 0 where it terminated
    terminated: Tensor
    linked: Tensor
    log_ratio: Tensor  # log π(a|s) − log μ(a|s) of the whole action, nats; only V-trace reads it


class Estimate(NamedTuple):
    """Advantage and value target, each [M]."""

    advantage: Tensor
    target: Tensor


def discounted_sums(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t·y_{t+1} along [M], in log₂(longest run) doubling steps instead of M.

    `decay` is 0 where a run ends. After k steps y_t sums the first 2ᵏ terms of its run.
    """
    y, c = x, torch.cat((decay[:-1], decay.new_zeros(1)))
    shift = 1
    while shift < len(x) and c.any():
        later = torch.where(c[:-shift] != 0, c[:-shift] * y[shift:], 0.0)  # 0·NaN of another run would be NaN
        y = y + torch.cat((later, y.new_zeros(shift)))
        c = torch.cat((c[:-shift] * c[shift:], c.new_zeros(shift)))
        shift *= 2
    return y


class Estimator(ABC):
    """Turns trajectories [M] into advantages and value targets [M].

    One that reads no log-ratios says so by `needs_log_ratio = False`: they are then not computed, and zeros.
    """

    needs_log_ratio: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, frames: Trajectories) -> Estimate:
        """Advantage and value target [M] of frames in episode order."""


def estimated(estimator: Estimator, frames: Trajectories) -> Estimate:
    """What an estimator, which may be anybody's, says of frames in episode order, in their precision.

    Raises:
        UserError: when that is nothing that can be learned from; it names the class.
    """
    found, shape = estimator(frames), frames.reward.shape
    if type(estimator).__module__ == __name__:
        return found
    path = class_path(estimator)
    fits = isinstance(found, Estimate) and all(isinstance(part, Tensor) and part.shape == shape for part in found)
    if not fits:
        raise UserError(
            f"{path} must return a datamodules.advantages.Estimate of two tensors, of the shape {[*shape]} of reward"
        )
    if all(part.isfinite().all() for part in frames) and not all(part.isfinite().all() for part in found):
        raise UserError(f"{path} returns advantages or targets that are not finite, of trajectories that are")
    return Estimate(*(part.to(frames.reward.dtype) for part in found))


@dataclass(frozen=True)
class GAE(Estimator):
    """Generalised advantage estimation (arXiv 1506.02438).

    Args:
        gamma: discount γ.
        lam: trace decay λ.
    """

    gamma: float = 0.99
    lam: float = 0.95
    needs_log_ratio = False

    def __post_init__(self) -> None:
        _require_unit(self, "gamma", "lam")

    def __call__(self, frames: Trajectories) -> Estimate:
        """Advantage A_t = Σ (γλ)ᵏ δ_{t+k} and target A_t + V(s_t), each [M]."""
        # δ = r + γ·V(s') − V(s);  A_t = δ_t + γλ·A_{t+1}
        delta = frames.reward + self.gamma * frames.next_value * ~frames.terminated - frames.value
        advantage = discounted_sums(delta, self.gamma * self.lam * frames.linked)
        return Estimate(advantage, advantage + frames.value)


@dataclass(frozen=True)
class VTrace(Estimator):
    """V-trace (arXiv 1802.01561, eq. 1): targets corrected by truncated importance ratios of the whole action.

    The advantage r + γ·v_{t+1} − V(s_t) carries no ratio of its own: the objective applies it.

    Args:
        gamma: discount γ.
        lam: trace decay λ.
        rho_bar: truncation ρ̄ of the ratio in δ.
        c_bar: truncation c̄ of the ratio in the trace.
    """

    gamma: float = 0.99
    lam: float = 1.0
    rho_bar: float = 1.0
    c_bar: float = 1.0
    needs_log_ratio = True

    def __post_init__(self) -> None:
        _require_unit(self, "gamma", "lam")
        if not 0 < self.c_bar <= self.rho_bar:
            raise UserError(f"VTrace needs 0 < c_bar <= rho_bar, got c_bar={self.c_bar}, rho_bar={self.rho_bar}")

    def __call__(self, frames: Trajectories) -> Estimate:
        """Advantage r_t + γ·v_{t+1} − V(s_t) and V-trace target v_t, each [M]."""
        alive = (~frames.terminated).to(frames.value.dtype)
        ratio = frames.log_ratio.exp()
        # v_t − V_t = ρ_t·δ_t + γ·λ·c_t·(v_{t+1} − V_{t+1})
        delta = frames.reward + self.gamma * frames.next_value * alive - frames.value
        trace = self.gamma * self.lam * ratio.clamp(max=self.c_bar) * frames.linked
        correction = discounted_sums(ratio.clamp(max=self.rho_bar) * delta, trace)
        target = frames.value + correction
        next_correction = torch.cat((correction[1:], correction.new_zeros(1))) * frames.linked
        next_target = (frames.next_value + next_correction) * alive
        return Estimate(frames.reward + self.gamma * next_target - frames.value, target)


def _require_unit(estimator: Estimator, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(estimator, name) <= 1:
            raise UserError(f"{type(estimator).__name__}.{name} must lie in [0, 1], got {getattr(estimator, name)}")
