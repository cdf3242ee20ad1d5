"""Which transitions of a buffer are drawn: by any sampler of TorchRL's that draws by nothing nobody updates."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Generator
from torchrl.data import PrioritizedSampler, RandomSampler, TensorDictReplayBuffer
from torchrl.data.replay_buffers import Sampler, StalenessAwareSampler

from gipo.common.errors import UserError
from gipo.common.faults import described


def drawn(buffer: TensorDictReplayBuffer, count: int, version: int) -> TensorDictBase:
    """So many transitions [count] of a buffer; `version` is the learner's.

    Raises:
        UserError: when the sampler cannot draw them.
    """
    own: AbstractContextManager[None] = nullcontext()
    if isinstance(buffer.sampler, StalenessAwareSampler):
        # Logs may be of a later version than the learner's: they count as fresh, as everywhere.
        newest = int(buffer[:]["policy_version"].max())
        buffer.sampler.consumer_version = max(version, newest)
        _refuse_all_stale(buffer.sampler.max_staleness, version - newest)
        own = _in_place_of_torchs(buffer._rng)
    with own:
        frames = _sampled(buffer, count)
        while len(frames) < count:  # without replacement, it was through with all that there are
            frames = torch.cat((frames, _sampled(buffer, count - len(frames))))
    return frames


def _sampled(buffer: TensorDictReplayBuffer, count: int) -> TensorDictBase:
    try:
        found: TensorDictBase = buffer.sample(count)
        problem, cause = "it draws none", None
    except (RuntimeError, ValueError) as error:  # what TorchRL's raise where their options do not fit the buffer
        if type(buffer.sampler) is RandomSampler:
            raise
        found, problem, cause = buffer[:0], described(error), error
    if len(found):
        return found
    raise UserError(
        f"data.sampler={type(buffer.sampler).__name__} cannot draw {count:,} of the {len(buffer):,} transitions that "
        f"there are: {problem}; give it other options, or name another"
    ) from cause


def _refuse_all_stale(most: int, age: int) -> None:
    """Refuse a limit, −1 where there is none, that leaves all transitions out: the newest is `age` versions old."""
    if 0 <= most < age:
        raise UserError(
            f"data.sampler.max_staleness={most} leaves out all transitions, of which the newest is {age} versions old; "
            "raise it, or leave it out: logs do not get younger as the policy learns"
        )


@contextmanager
def _in_place_of_torchs(generator: Generator) -> Iterator[None]:
    """Have what draws by torch's own generator, which is in the same state in every learner, depend on this one."""
    device, on_cpu = generator.device, generator.device.type == "cpu"
    seed = int(torch.randint(1 << 62, (), generator=generator, device=device))
    with torch.random.fork_rng([] if on_cpu else [device]):
        (torch.default_generator if on_cpu else torch).manual_seed(seed)  # the latter seeds every device
        yield


def uniform_unless(sampler: Sampler | None) -> Sampler:
    """What is drawn by: a uniform one where none is given.

    Raises:
        UserError: when it would not draw by what it is made for.
    """
    if isinstance(sampler, PrioritizedSampler):
        raise UserError("data.sampler=PrioritizedSampler draws by priorities, which nothing here updates; name another")
    if getattr(sampler, "drop_last", False):
        raise UserError(
            "data.sampler.drop_last=true leaves out what fills no batch, and here every batch is filled: leave it out"
        )
    return sampler or RandomSampler()


def check_sampler(state: dict[str, Any], sampler: Sampler | None) -> None:
    """Raise a UserError when a sampler, uniform unless given, cannot take up the state of one."""
    if set(state) != set(uniform_unless(sampler).state_dict()):
        raise UserError(
            "the checkpoint's replay was drawn from by another data.sampler; resume with that one, or start a new run "
            "from its policy with --model.init_from"
        )


def with_own_options(state: dict[str, Any], sampler: Sampler) -> dict[str, Any]:
    """The state of another sampler of the same class, with what the constructor of this one was given."""
    options = inspect.signature(type(sampler).__init__).parameters
    return state | {name: value for name, value in sampler.state_dict().items() if name.lstrip("_") in options}
