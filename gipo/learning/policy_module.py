"""A policy as a LightningModule: built for the data or taken from a checkpoint, evaluated, saved with what it is."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from lightning.pytorch import LightningModule
from tensordict import TensorDictBase
from torch import nn
from torch.optim import Optimizer

from gipo.checkpoints import (
    load_checkpoint,
    policy_from,
    refuse_other_frozen,
    refuse_other_optimizer,
    refuse_other_policy,
)
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT, CheckpointHead, LearnedLog, note
from gipo.common.errors import UserError
from gipo.common.faults import class_path
from gipo.distributed.sharding import shard
from gipo.learning.critic import CriticSees
from gipo.learning.metrics import episode_figures
from gipo.learning.user_classes import refuse_unlearned, refuse_unusable, refuse_unusable_scale
from gipo.learning.value_scale import ValueScale, ValueScaleFactory
from gipo.networks import convolve_in_single
from gipo.policies import Policy, PolicyFactory, Spaces, TokenPolicy, build


class PolicyModule(LightningModule):
    """Holds a policy, whatever it learns by.

    Args:
        policy: policy class and its options; None for `TokenPolicy`, or with `init_from` for that of the checkpoint.
        init_from: checkpoint whose policy, critic, normaliser and policy version the run starts from.
        critic: what the critic sees; None for what that of the checkpoint does, or the observation.
        optimizer: makes an optimizer of parameters.
        value_scale: makes what the critic's outputs mean; None for that of the checkpoint, or values as they are.
        frozen: parts of the policy's network that do not learn; None for none.
        recompute: keep no activations for the backward pass.
    """

    policy: Policy

    def __init__(
        self,
        policy: PolicyFactory | None,
        init_from: str | None,
        critic: CriticSees | None,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        value_scale: ValueScaleFactory | None,
        frozen: Sequence[str] | None,
        recompute: bool,
    ):
        super().__init__()
        self.policy_factory, self.init_from, self.critic_sees = policy, init_from, critic
        self.optimizer_factory, self.value_scale_factory = optimizer, value_scale
        self.frozen, self.recompute = frozen or (), recompute
        self.interface: dict[str, Any] | None = None  # names, units and rate of the policy that the run goes on with
        self._ancestry: dict[str, Any] = {}

    @property
    def _data(self) -> Any:
        """The data module, which Lightning's Trainer has but does not declare."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Refuse of a Trainer of one's own what would learn nothing, or not in single precision.

        Raises:
            UserError: naming its option.
        """
        if stage == "fit" and not self.trainer.limit_train_batches:
            raise UserError("Trainer(limit_train_batches=0): an iteration is one batch, and nothing would be learned")
        if self.trainer.precision.endswith("-true") and self.trainer.precision != "32-true":
            raise UserError(
                f"Trainer(precision={self.trainer.precision!r}): weights, ratios and data are in single precision; "
                "choose 32-true, bf16-mixed or, on a GPU, 16-mixed"
            )

    def configure_model(self) -> None:
        """Build the policy for the task at hand; a strategy with a mesh of devices has it sharded."""
        if not hasattr(self, "policy"):
            self._refuse_alone()
            privileged = getattr(self._data, "privileged_size", 0)  # a data module of one's own need not know of it
            self.policy = self.build_policy(self._data.spaces, privileged=privileged)
        if self.device_mesh is not None:
            shard(self.policy, self.device_mesh["data_parallel"])

    def _refuse_alone(self) -> None:
        if self._trainer is None:  # as in Lightning's `load_from_checkpoint`
            raise UserError(
                "a module knows its policy from a Trainer's data; the policy of a checkpoint is "
                "gipo.checkpoints.policy_from(gipo.checkpoints.load_checkpoint(PATH)), and a run goes on by "
                "trainer.fit(module, data, ckpt_path=PATH)"
            )

    def build_policy(self, spaces: Spaces, resumed: dict[str, Any] | None = None, privileged: int = 0) -> Policy:
        """The policy to train: that of the checkpoint to resume, of `init_from`, or a new one; in part it is `frozen`.

        Args:
            spaces: of the data.
            resumed: a checkpoint of the run itself.
            privileged: G, the numbers of the data that a critic may see and a policy does not get.

        Raises:
            UserError: when a checkpoint's policy is of other spaces than the data, or of another kind than `policy`; or
                when the critic is to see what the data do not hold; or `frozen` is not to be had.
        """
        convolve_in_single()
        policy = self._built(spaces, resumed, privileged)
        if self.recompute:
            policy.network.recompute()
        freeze(policy, self.frozen)
        refuse_unlearned(policy)
        return policy

    def _new(self, spaces: Spaces, privileged: int) -> Policy:
        policy = (self.policy_factory or TokenPolicy)(spaces)
        refuse_unusable(policy)
        if self.critic_sees == "privileged":
            policy.see_privileged(privileged_or_refuse(privileged))
        if self.value_scale_factory is not None:
            policy.scale_values(self._value_scale(self.value_scale_factory), learned=False)
        return policy

    @staticmethod
    def _value_scale(factory: ValueScaleFactory) -> ValueScale:
        scale = factory()
        refuse_unusable_scale(scale)
        return scale

    def _built(self, spaces: Spaces, resumed: dict[str, Any] | None, privileged: int) -> Policy:
        found = resumed
        if found is None:
            if self.init_from is None:
                return self._new(spaces, privileged)
            found = load_checkpoint(self.init_from)
        policy = policy_from(found).train()
        wanted = policy.description()
        wanted["spaces"] = asdict(spaces)
        if self.policy_factory is not None:
            wanted |= self.policy_factory(spaces).description()
        refuse_other_policy(policy.description(), wanted)
        self._scale_learned_values(policy, resumed is not None)
        if resumed is None:
            policy = with_critic(policy, self.critic_sees or policy.critic_sees, privileged)
            head = CheckpointHead.of(found)
            self._remember(head.id, head, (*head.logs_before, *head.logs))
        elif self.critic_sees not in (None, policy.critic_sees):
            raise UserError(
                f"the checkpoint's critic sees the {policy.critic_sees}, model.critic asks for {self.critic_sees}; "
                "leave it out, or start a new run from its policy with --model.init_from"
            )
        return policy

    def _scale_learned_values(self, policy: Policy, resumed: bool) -> None:
        """Give a policy to start from the value scale that is asked for, unless it has one, which must be that."""
        if self.value_scale_factory is None:
            return
        scale, found = self._value_scale(self.value_scale_factory), policy.value_scale
        if type(found) is ValueScale and not resumed:
            policy.scale_values(scale, learned=True)
        elif (class_path(found), found.config()) != (class_path(scale), scale.config()):
            raise UserError(
                f"the checkpoint's critic has value_scale={type(found).__name__} with {found.config()}, and "
                f"model.value_scale asks for {type(scale).__name__} with {scale.config()}; leave it out"
            )

    def validation_step(self, episodes: TensorDictBase, batch_idx: int) -> None:
        """Log the figures of finished evaluation episodes [N] as `val/…`."""
        self._log_episodes("val", episodes)

    def test_step(self, episodes: TensorDictBase, batch_idx: int) -> None:
        """Log the figures of finished test episodes [N] as `test/…`."""
        self._log_episodes("test", episodes)

    def _log_episodes(self, prefix: str, episodes: TensorDictBase) -> None:
        parts = self._data.evaluated_task.parts if "task" in episodes.keys() else ()
        figures = episode_figures(episodes, parts)
        self.log_dict({f"{prefix}/{name}": value for name, value in figures.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the policy is made of, so that it can be rebuilt without this configuration, and how it learned."""
        said = (
            self._ancestry | self._data.provenance() | {"precision": self.trainer.precision, "frozen": [*self.frozen]}
        )
        note(checkpoint, format=CHECKPOINT_FORMAT, policy=self.policy.description(), **said)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another policy, and the state of another optimizer."""
        head, wanted = CheckpointHead.of(checkpoint), self.policy.description()
        if head.policy != wanted:  # a checkpoint from before there was an option says nothing of it
            refuse_other_policy(build(head.policy).description(), wanted)
        if self.trainer.state.fn == "fit":
            self.check_optimizers(checkpoint)
        self._remember(head.init_from, head, head.logs_before)

    def check_optimizers(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a checkpoint whose optimizers are others, or move other parameters.

        Raises:
            UserError: naming the option.
        """
        refuse_other_frozen(CheckpointHead.of(checkpoint).frozen, self.frozen)
        parts = (self.policy.actor_parameters(), self.policy.critic_parameters())
        for state, parameters in zip(checkpoint.get("optimizer_states") or (), parts, strict=False):
            refuse_other_optimizer(state, self.optimizer_factory(parameters))

    def _remember(self, init_from: str | None, head: CheckpointHead, logs: tuple[LearnedLog, ...]) -> None:
        """Keep for the next checkpoint what the one that was started or resumed from says of its origin."""
        known = (("init_from", init_from), ("task", head.task), ("logs_before", [*map(asdict, logs)] or None))
        self._ancestry = {key: value for key, value in known if value is not None}
        self.interface = head.interface


def with_critic(policy: Policy, sees: CriticSees, privileged: int) -> Policy:
    """The policy with a critic that `sees` what it is to see: its own, or a new one, of `privileged` numbers.

    Raises:
        UserError: when there are none, or others than its critic has learned of.
    """
    if policy.critic_sees == sees == "observation":
        return policy
    if sees == "privileged":
        privileged_or_refuse(privileged)
        if policy.privileged_size == privileged:
            return policy
        if policy.privileged_size:
            raise UserError(
                f"the checkpoint's critic sees {policy.privileged_size} privileged numbers, and the data hold "
                f"{privileged}; use model.critic=observation"
            )
    fresh = build(policy.description() | {"critic": {"privileged": privileged} if sees == "privileged" else None})
    learned = policy.state_dict()
    kept = {name: learned[name] for name in learned if not name.startswith(("network.critic.", "value_scale."))}
    fresh.load_state_dict(kept, strict=False)
    return fresh.train()


def freeze(policy: Policy, names: Sequence[str]) -> None:
    """Have parts of the policy's network stay as they are.

    Args:
        policy: whose network it is.
        names: of parts, by their place in it: `encoder`, `encoder.image`.

    Raises:
        UserError: when there is no such part, or nothing would be left to learn.
    """
    for name in names:
        within = [one for each, one in policy.network.named_parameters() if f"{each}.".startswith(f"{name}.")]
        if not within:
            named = (each for each, _ in policy.network.named_parameters())
            parts = dict.fromkeys(".".join(each.split(".")[:2]) for each in named)
            raise UserError(
                f"model.frozen names {name!r}, which holds nothing that learns; there are {', '.join(parts)}"
            )
        for parameter in within:
            parameter.requires_grad_(False)
    for what, left in (("policy", policy.actor_parameters()), ("critic", policy.critic_parameters())):
        if not any(parameter.requires_grad for parameter in left):
            raise UserError(f"model.frozen={[*names]} leaves nothing of the {what} to learn")


def privileged_or_refuse(size: int) -> int:
    """The `size` of what is privileged.

    Raises:
        UserError: when there is none.
    """
    if not size:
        raise UserError(
            "the critic is to see what is privileged, and neither the task nor the logs hold it; use "
            "model.critic=observation"
        )
    return size
