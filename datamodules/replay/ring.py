"""Replay: a TorchRL buffer of single transitions that knows how to refresh its advantages."""

from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import Sampler

from datamodules.advantages import Estimator
from datamodules.ingest.sources.base import POLICY
from datamodules.replay.sampling import check_sampler, drawn, uniform_unless, with_own_options
from datamodules.replay.values import value_frames
from gipo.common.errors import UserError
from gipo.common.transition import LEARNED
from gipo.policies import Policy

# What a learner reads of a transition where there is such a thing, and always: what a store lacks of that is modelled
# (`datamodules.replay.behaviour`). The rest stays in the buffer.
OPTIONAL_KEYS = [field.key for field in LEARNED if field.optional and field.name not in POLICY]
LEARNER_KEYS = [field.key for field in LEARNED if field.key not in OPTIONAL_KEYS]


class Replay:
    """A ring of transitions with advantages, on one device.

    Args:
        capacity: transitions kept; the oldest leave first.
        estimator: GAE or V-trace.
        advantages: `recompute` values the whole buffer with the current critic on every `refresh`; `stored` values
            new frames once, when they arrive, as the GIPO authors do.
        sampler: TorchRL sampler; uniform unless given. `StalenessAwareSampler` prefers fresh transitions.
        reward_scale: factor on rewards where advantages are computed; the buffer keeps raw rewards.
        seed: of the buffer's own sampling generator.
        device: where frames are kept.
    """

    def __init__(
        self,
        capacity: int,
        estimator: Estimator,
        advantages: Literal["recompute", "stored"] = "recompute",
        sampler: Sampler | None = None,
        reward_scale: float = 1.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if capacity < 1:
            raise UserError(f"replay capacity must be at least 1, got {capacity}")
        self.estimator = estimator
        self.advantages = advantages
        self.reward_scale = reward_scale
        self.sampler = uniform_unless(sampler)
        self.device = torch.device(device)
        self.buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(capacity, device=device),
            sampler=self.sampler,
            generator=torch.Generator(device).manual_seed(seed),
        )

    def __len__(self) -> int:
        return len(self.buffer)

    def extend(self, frames: TensorDictBase, policy: Policy, refresh_follows: bool = False) -> None:
        """Add transitions [M] in time order within each episode, keys as in the data contract.

        They are valued on arrival, unless a `refresh` of the whole buffer follows before the next `sample`.

        Raises:
            UserError: on a non-finite observation, reward or log-prob; nothing is stored.
        """
        refuse_non_finite(frames)
        frames = completed(frames).to(self.device)
        blank = torch.full_like(frames["next", "reward"], torch.nan)
        frames = frames.clone(recurse=False).update({"advantage": blank, "value_target": blank.clone()})
        if self.advantages == "stored" or not refresh_follows:
            self._estimate(frames, policy)
        self.buffer.extend(frames)

    def refresh(self, policy: Policy) -> None:
        """Advantages and value targets of the whole buffer with the current critic (no-op when `stored`)."""
        if self.advantages == "stored":
            return
        frames = self.buffer[:]  # a view: writing into it writes into the buffer
        # Oldest first: the ring starts at the write cursor once it is full.
        start = self.buffer.write_count % len(frames)
        self._estimate(frames, policy, torch.arange(len(frames), device=frames.device).roll(-start))

    def sample(self, rounds: int, batch: int, version: int) -> TensorDict:
        """[rounds, batch] transitions, only what a learner reads; `version` is the learner's, for staleness."""
        return draw(self.buffer, rounds, batch, version)

    def _estimate(self, frames: TensorDictBase, policy: Policy, chronological: Tensor | None = None) -> None:
        order, estimate = value_frames(frames, policy, self.estimator, self.reward_scale, chronological)
        frames["advantage"][order] = estimate.advantage
        frames["value_target"][order] = estimate.target

    def state_dict(self) -> dict[str, Any]:
        """The frames in use, cursor, sampler and generator, as plain data."""
        state, capacity = self.buffer.state_dict(), self.buffer.storage.max_size
        del state["_storage"]  # all rows of it, also those that are memory nobody has written to yet
        frames = self.buffer[:] if len(self) else TensorDict()
        # A view of some rows would be saved with all the others.
        frames = frames.clone() if len(self) < capacity else frames
        valued = how_valued(self.estimator, self.reward_scale)
        return {"capacity": capacity, "frames": frames.state_dict(), "buffer": state, "valued": valued}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, which `check_replay` accepts; another capacity is filled from the oldest frame on."""
        capacity, cursor = self.buffer.storage.max_size, state["buffer"]["_writer"]["_cursor"]
        frames = completed(TensorDict().load_state_dict(state["frames"], strict=False)).to(self.device)
        count = _count(state)
        moved = capacity != state["capacity"]
        if moved and count == state["capacity"]:
            frames = torch.cat((frames[cursor:], frames[:cursor]))
        if count:
            self.buffer.extend(frames)
        fresh = self.buffer.state_dict()
        kept = ("_storage", "_writer") if moved else ("_storage",)
        generator = (state["buffer"]["_rng"][0].cpu(), str(self.device))  # of several devices of a kind, this one
        kept_or_new = {name: fresh[name] for name in kept} | {"_rng": generator}
        sampler = with_own_options(state["buffer"]["_sampler"], self.sampler)
        self.buffer.load_state_dict(state["buffer"] | kept_or_new | {"_sampler": sampler})


def how_valued(estimator: Estimator, reward_scale: float) -> dict[str, Any]:
    """What advantages depend on, beside the critic: the estimator and its numbers, and the scale of rewards."""
    numbers = {name: value for name, value in vars(estimator).items() if isinstance(value, int | float)}
    return {"estimator": type(estimator).__name__, **numbers, "reward_scale": reward_scale}


def draw(buffer: TensorDictReplayBuffer, rounds: int, batch: int, version: int) -> TensorDict:
    """[rounds, batch] transitions of a buffer, only what a learner reads; `version` is the learner's."""
    frames = drawn(buffer, rounds * batch, version)
    keys = [*LEARNER_KEYS, *(key for key in OPTIONAL_KEYS if key in frames.keys())]
    return frames.select(*keys).reshape(rounds, batch)


def worth_keeping(segment: TensorDictBase, policy: Policy) -> TensorDictBase:
    """Select of transitions [M] what `policy` learns from: what is privileged only where its critic looks."""
    unread: list[Any] = [("next", "success"), ("next", "staggered")]
    unread += [] if policy.privileged_size else ["privileged", ("next", "privileged")]
    return segment.exclude(*unread)


def refuse_bad_buffer(capacity: int, frames: int, advantages: str, estimator: Estimator, refresh_every: int) -> None:
    """Raise a UserError when a buffer of so many transitions cannot serve iterations of `frames` new ones.

    Args:
        capacity: of the buffer.
        frames: new ones of an iteration.
        advantages: `recompute` or `stored`.
        estimator: of them.
        refresh_every: iterations from one recomputation to the next; 1 where something else is recomputed, too.
    """
    if capacity < frames:
        raise UserError(f"data.capacity={capacity} cannot hold one iteration of {frames} transitions")
    if advantages == "stored" and estimator.needs_log_ratio:
        raise UserError("V-trace needs data.advantages=recompute: its ratios change with the policy")
    if advantages == "stored" and refresh_every != 1:
        raise UserError(
            f"data.refresh_every={refresh_every} is of advantages that are recomputed, and data.advantages=stored "
            "keeps them; leave one of the two out"
        )


def check_replay(
    state: dict[str, Any],
    capacity: int,
    store_params: bool,
    device: torch.device | None = None,
    sampler: Sampler | None = None,
    valued: dict[str, Any] | None = None,
) -> None:
    """Raise a UserError when a buffer of these options cannot take up the `Replay.state_dict`.

    Args:
        state: what `Replay.state_dict` gave.
        capacity: of the buffer.
        store_params: whether its frames hold the behaviour policy's distribution.
        device: where it is, where that is known.
        sampler: of the buffer; uniform unless given.
        valued: how its advantages are computed, where those that are there stay.
    """
    sampled_on = torch.device(state["buffer"]["_rng"][1]).type
    if device is not None and device.type != sampled_on:
        raise UserError(
            f"the checkpoint's replay drew its samples on {sampled_on}, this one would on {device.type}, differently; "
            "resume with the data.replay_device and the trainer.accelerator of the run"
        )
    check_sampler(state["buffer"]["_sampler"], sampler)
    if valued is not None and (had := state.get("valued", valued)) != valued:
        raise UserError(
            f"with data.advantages=stored those of the checkpoint stay, which were computed by {had}, and this run's "
            f"would be by {valued}; resume with the data.estimator and data.reward_scale of the run"
        )
    if _count(state) > capacity:
        raise UserError(
            f"the checkpoint's replay holds {_count(state)} transitions, data.capacity is {capacity}; raise it"
        )
    stored = "behaviour_params" in state["frames"]
    if _count(state) and stored != store_params:
        raise UserError(
            f"the checkpoint's replay was collected with data.store_params={str(stored).lower()}; "
            "it cannot be mixed with frames of the other kind"
        )


def _count(state: dict[str, Any]) -> int:
    return len(state["frames"].get("episode", ()))


def completed(frames: TensorDictBase) -> TensorDictBase:
    """Frames [M] with the defaults of what a learner reads and nobody said, as in a checkpoint older than the field."""
    missing = [field for field in LEARNED if field.later and not field.optional and field.key not in frames.keys()]
    if not missing or not len(frames):
        return frames
    said = (field for field in LEARNED if not field.shape and field.key in frames.keys())
    columns = {field.name: frames[field.key].cpu().numpy() for field in said}
    found = {field.key: torch.from_numpy(field.default_of(columns)) for field in missing}
    return frames.clone(recurse=False).update(found)


def refuse_non_finite(frames: TensorDictBase) -> None:
    """Raise a UserError that names the first non-finite entry of the keys learning depends on."""
    keys = ("observation", ("next", "observation"), ("next", "reward"), "log_prob")
    learned_from = frames.select(*keys, "privileged", ("next", "privileged"), strict=False)
    for key, values in learned_from.items(include_nested=True, leaves_only=True):
        finite = torch.isfinite(values)
        if key == "log_prob":  # nobody reads it where the policy did not choose
            finite = finite | ~frames["valid"].unsqueeze(-1)
        if not finite.all():
            row = int((~finite.reshape(len(frames), -1).all(-1)).nonzero()[0])
            name = key if isinstance(key, str) else "/".join(key)
            raise UserError(
                f"non-finite {name} at step {int(frames['step'][row])} of episode {int(frames['episode'][row])}: "
                f"{values[row].flatten()[:8].tolist()}; mend the environment or policy that produced it"
            )
