"""Updates of a policy and of its critic: each has an optimizer, a schedule, a gradient clip, and a count of its own."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from gipo.checkpoints import options_of
from gipo.common.errors import UserError
from gipo.common.faults import class_path, is_ours
from gipo.distributed.sharding import whole
from gipo.learning.policy_module import PolicyModule

HEADS = ("policy", "value")  # in the order of their optimizers; the critic's figures are those of the value
MAX_SKIPS_IN_A_ROW = 10
CLIP_MARGIN = 1e-6  # which torch adds to a norm before it compares it with the limit


class UpdatingModule(PolicyModule):
    """Updates a policy and its critic, whose parameters are disjoint, from the loss of each.

    Args:
        policy_lr: learning rate of the policy.
        value_lr: learning rate of the critic.
        lr_warmup: iterations of linear warm-up.
        lr_final: fraction of the learning rate that the cosine decay ends at.
        max_grad_norm: gradient clip, for the policy and the critic each.
        critic_warmup: first iterations in which the critic learns alone.
        options: of `PolicyModule`.
    """

    skipped: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        *,
        policy_lr: float,
        value_lr: float,
        lr_warmup: int,
        lr_final: float,
        max_grad_norm: float,
        critic_warmup: int,
        **options: Any,
    ):
        super().__init__(**options)
        self.automatic_optimization = False
        self.policy_lr, self.value_lr = policy_lr, value_lr
        self.lr_warmup, self.lr_final, self.max_grad_norm = lr_warmup, lr_final, max_grad_norm
        self.critic_warmup = critic_warmup
        self._late = critic_warmup  # iterations of the whole run in which the critic learns alone
        self._asked: list[list[dict[str, Any]]] = []  # of each optimizer's groups, the options they were made with
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped_in_a_row", torch.zeros(2, dtype=torch.int64))  # of the policy and of the critic

    def configure_optimizers(self) -> Any:
        """One optimizer and one schedule for the policy, one of each for the critic."""
        optimizers, schedules = [], []
        self._asked = []
        for parameters, (rate, factor) in zip(
            (self.policy.actor_parameters(), self.policy.critic_parameters()), self._rates, strict=True
        ):
            optimizer = self.optimizer_factory(parameters)
            _refuse_closure(optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            options = options_of(optimizer)
            self._asked.append([
                {key: value for key, value in group.items() if key in options} for group in optimizer.param_groups
            ])  # fmt: skip
            optimizers.append(optimizer)
            schedules.append(LambdaLR(optimizer, factor))
        return optimizers, schedules

    def on_train_start(self) -> None:
        """Take rates and options of the optimizers from this run, also where a checkpoint remembers others."""
        schedules: Any = self.lr_schedulers()
        # In those that are done, and in those to come: other than the warm-up where that was another one before.
        done = self.current_epoch - schedules[0].last_epoch
        self._late = done + max(0, self.critic_warmup - self.current_epoch)
        for schedule, (rate, factor), given in zip(schedules, self._rates, self._asked, strict=True):
            schedule.base_lrs = [rate] * len(schedule.base_lrs)
            for group, options in zip(schedule.optimizer.param_groups, given, strict=True):
                group.update(options, initial_lr=rate, lr=rate * factor(schedule.last_epoch))

    def step_schedules(self, warming_up: bool) -> None:
        """An iteration is done; while the critic warms up, those of the policy have not begun."""
        schedules: Any = self.lr_schedulers()
        for schedule in schedules[1:] if warming_up else schedules:
            schedule.step()

    @property
    def _rates(self) -> list[tuple[float, Callable[[int], float]]]:
        """Learning rate and its schedule, of the policy and of the critic."""
        # The policy's iterations begin when the critic no longer learns alone.
        return [
            (self.policy_lr, lambda iteration: self._rate_factor(iteration, late=self._late)),
            (self.value_lr, self._rate_factor),
        ]

    def _rate_factor(self, iteration: int, late: int = 0) -> float:
        """(k+1)/warm-up, then cosine from 1 to `lr_final`; never 0 at the first iteration, k = 0.

        Args:
            iteration: k, of those in which these parameters learn.
            late: iterations of the run before the first of them.
        """
        if iteration < self.lr_warmup:
            return (iteration + 1) / self.lr_warmup
        epochs = self.trainer.max_epochs or 0
        last = max((epochs if epochs > 0 else self._data.iterations) - late, self.lr_warmup + 1)
        progress = min(1.0, (iteration - self.lr_warmup) / (last - self.lr_warmup))
        return self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))

    def update(self, parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One optimizer step of each head that has a loss, or none where its gradient is not finite.

        Args:
            parts: scalar losses by the names of `HEADS`, of each part of a batch, whose gradients are added. Each is
                asked for when the one before has been, so that what they are computed with need not be there at once.

        Returns:
            Of each, the gradient norm before clipping.
        """
        parts = iter(parts)
        losses = next(parts)
        # In half precision a step may change the scale that losses are multiplied by: each has a backward pass then.
        if self._scaler is not None and len(losses) > 1:
            assert next(parts, None) is None  # `on_fit_start` refuses parts of a batch there
            return {name: self.update([{name: loss}])[name] for name, loss in losses.items()}
        every: Any = self.optimizers()
        optimizers = {name: every[HEADS.index(name)] for name in losses}
        parameters = {name: _parameters(optimizer) for name, optimizer in optimizers.items()}
        for parameter in itertools.chain(*parameters.values()):
            parameter.grad = None
        # ∇(L_policy + L_value) is the gradient of each to its own parameters.
        for some in itertools.chain([losses], parts):
            self.manual_backward(sum(some.values()))  # type: ignore[arg-type]
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        totals = {name: _total_norm(some) for name, some in parameters.items()}
        norms = {name: whole(total) / scale for name, total in totals.items()}
        for (name, optimizer), norm in zip(optimizers.items(), torch.stack(list(norms.values())).tolist(), strict=True):
            if math.isfinite(norm):
                if norm + CLIP_MARGIN > self.max_grad_norm:
                    # Lightning's scale s multiplies gradients: |s·g| ≤ s·limit clips g at the limit.
                    nn.utils.clip_grads_with_norm_(parameters[name], self.max_grad_norm * scale, totals[name])
                optimizer.step()
                self.skipped_in_a_row[HEADS.index(name)] = 0
            else:
                self._skip(name, optimizer, scale)
        return norms

    @property
    def _scaler(self) -> Any:
        """What scales losses in half precision; None in any other."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _skip(self, name: str, optimizer: Any, scale: float) -> None:
        """Count an update that is left out; refuse too many in a row."""
        index = HEADS.index(name)
        self.skipped += 1
        self.skipped_in_a_row[index] += scale <= 1.0  # a larger one may be what overflowed, and falls now
        if self._scaler is not None:
            self._scaler.unscale_(optimizer.optimizer)
            self._scaler.update()
            if self._scaler.get_scale() >= scale:  # it looks at gradients: their norm may overflow alone
                self._scaler.update(scale * self._scaler.get_backoff_factor())
        if self.skipped_in_a_row[index] >= MAX_SKIPS_IN_A_ROW:
            who = "critic" if name == "value" else name
            raise UserError(
                f"{MAX_SKIPS_IN_A_ROW} updates of the {who} in a row had a non-finite gradient "
                f"at policy version {int(self.policy.version)}; lower model.policy_lr and model.value_lr, or look for "
                f"extreme rewards{self._suspect()}"
            )

    def _suspect(self) -> str:
        """An objective of somebody's own, whose gradient may be what is not finite."""
        objective = getattr(self, "objective", None)
        if objective is None or is_ours(objective):
            return ""
        return f", or at the gradient of {class_path(objective)}: with fresh data every log_ratio is 0"


@contextmanager
def told_to_listeners(trainer: Trainer) -> Iterator[None]:
    """Within, Lightning tells of updates only those callbacks that listen: asking all takes a 25th of an update."""
    every: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [one for one in every if _listens(one)]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.callbacks = every  # type: ignore[attr-defined]


def _listens(callback: Callback) -> bool:
    """Whether a callback has a method of its own for what happens at every update."""
    hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    return any(getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook) for hook in hooks)


def _refuse_closure(optimizer: Any) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"model.optimizer={class_path(optimizer)} computes the loss several times a step, and here each batch's is "
            "computed once; choose one that steps by a gradient, such as torch.optim.AdamW"
        )


def _parameters(optimizer: Any) -> list[nn.Parameter]:
    """What an optimizer moves: the parameters themselves, also where they are sharded and a layer is in use."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _total_norm(parameters: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
