"""A policy over chunks learns from decisions: they are put together here, of the steps in a store."""

from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import expand_right

from gipo.common.errors import UserError
from gipo.common.transition import NOBODY_SAID

OF_A_STEP = ("latent", "action", "log_prob", "valid", "source")  # [N, H, …]
OF_A_DECISION = ("episode", "policy", "policy_version", "success")  # [N], as at its first step


class _Span(NamedTuple):
    """A decision: which steps of a store it is.

    Args:
        first: index of its first step.
        after: index behind its last executed step.
        cut: whether neither a termination nor a decision that is kept follows, so that what comes next is bootstrapped.
    """

    first: int
    after: int
    cut: bool


def decisions_of(frames: TensorDictBase, chunk: int, recorded: bool = True) -> tuple[TensorDict, int]:
    """The decisions [N] of a store's steps [M], with the keys that the data contract has for chunks of H = `chunk`.

    Their observations refer to what was seen and told by `picture` [N, C] and `instruction` [N]; what a policy takes of
    them `datamodules.replay.sight.Sight` makes. A decision begins where the log has its first step and the image that
    it was made on, and is executed up to the step behind which another begins, the episode ends, or steps are missing.
    One that is followed by nothing ends at the last of its steps behind which there is an image to bootstrap from.

    Where nobody decided on chunks, and so none are `recorded`, every step with an image begins one, of what was done
    from it on; such decisions overlap, and each is bootstrapped at its own end.

    Returns:
        The decisions, and how many steps are in none of them.

    Raises:
        UserError: when there is no decision at all.
    """
    spans = _spans(frames, chunk) if recorded else _windows(frames, chunk)
    if not spans:
        raise UserError(
            "the logs hold no decision with the image that it was made on; nothing can be learned from them"
        )
    first, after, cut = (torch.tensor(values) for values in zip(*spans, strict=True))
    executed = torch.arange(chunk) < (after - first)[:, None]
    steps = torch.where(executed, first[:, None] + torch.arange(chunk), first[:, None])
    found = {name: _of_steps(frames, name, steps, executed) for name in OF_A_STEP if name in frames.keys()}
    found |= {name: frames[name][first] for name in OF_A_DECISION}
    found |= {"executed": executed, "step": places(found["episode"])}
    terminated = frames["next", "terminated"][after - 1]
    words = frames["instruction"][first]
    following = {
        **_seen(frames["next"], after - 1, words),
        "reward": _of_steps(frames["next"], "reward", steps, executed),
        "terminated": terminated,
        "truncated": cut,
        "done": cut | terminated,
    }
    found |= {**_seen(frames, first, words), "next": TensorDict(following, [len(spans)])}
    return TensorDict(found, [len(spans)]), len(frames) - int(steps[executed].unique().numel())


def _of_steps(frames: TensorDictBase, name: str, steps: torch.Tensor, executed: torch.Tensor) -> torch.Tensor:
    """A field [N, H, …] of the steps of decisions; nothing where they were not executed."""
    values, nothing = frames[name][steps], NOBODY_SAID if name == "source" else 0
    return torch.where(expand_right(executed, values.shape), values, nothing).to(values.dtype)


def _spans(frames: TensorDictBase, chunk: int) -> list[_Span]:
    """The decisions that can be learned from, in the order of their steps."""
    episode, step, place = (frames[name].numpy() for name in ("episode", "step", "chunk_step"))
    picture, after = _pictures(frames)
    terminated = frames["next", "terminated"].numpy()
    done = terminated | frames["next", "truncated"].numpy()
    linked = (np.diff(episode) == 0) & (np.diff(step) == 1) & ~done[:-1]
    begins = np.flatnonzero(np.append(True, ~linked | (place[1:] != place[:-1] + 1)))
    found: list[_Span] = []
    follower = -1  # first step of the decision that was found last, which comes next
    for first, end in zip(begins[::-1].tolist(), [len(step), *begins[:0:-1].tolist()], strict=True):
        if place[first] != 0 or picture[first] < 0:
            continue
        end = min(end, first + chunk)
        cut = not terminated[end - 1] and not (follower == end and linked[end - 1])
        while cut and end > first and after[end - 1] < 0:
            end -= 1
        if end > first:
            found.append(_Span(first, end, cut))
            follower = first
    return found[::-1]


def _pictures(frames: TensorDictBase) -> tuple[np.ndarray, np.ndarray]:
    """The lowest number [M] of what all cameras saw before and after steps: −1 where one of them saw nothing."""
    before, after = (side["picture"].amin(-1).numpy() for side in (frames, frames["next"]))
    return before, after


def _windows(frames: TensorDictBase, chunk: int) -> list[_Span]:
    """A decision from every step on, over the steps that follow it without a gap."""
    episode, step, terminated = (frames[name].numpy() for name in ("episode", "step", ("next", "terminated")))
    picture, after = _pictures(frames)
    done = terminated | frames["next", "truncated"].numpy()
    breaks = np.append((np.diff(episode) != 0) | (np.diff(step) != 1) | done[:-1], True)
    ends = np.flatnonzero(breaks)[np.searchsorted(np.flatnonzero(breaks), np.arange(len(step)))] + 1
    found = []
    for first in np.flatnonzero(picture >= 0).tolist():
        end = min(int(ends[first]), first + chunk)
        while end > first and after[end - 1] < 0 and not terminated[end - 1]:
            end -= 1
        if end > first:
            found.append(_Span(first, end, not terminated[end - 1]))
    return found


def places(episode: torch.Tensor) -> torch.Tensor:
    """The number of each row [N] within its episode, whose rows lie one after another."""
    _, sizes = episode.unique_consecutive(return_counts=True)
    return torch.cat([torch.arange(size) for size in sizes.tolist()])


def _seen(frames: TensorDictBase, rows: torch.Tensor, words: torch.Tensor) -> dict[str, Any]:
    """What was seen at rows [N] of steps, with the numbers of the words [N] that were told; and what is privileged."""
    seen = {"state": frames["observation"][rows], "picture": frames["picture"][rows], "instruction": words}
    told = {"privileged": frames["privileged"][rows]} if "privileged" in frames.keys() else {}
    return {"observation": TensorDict(seen, [len(rows)]), **told}
