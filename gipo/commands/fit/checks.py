"""What is held against each other before a run begins: its checkpoint, its task, and what its logs can teach."""

from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import expand_right

from datamodules.envs import metaworld
from datamodules.offline import OfflineDataModule
from datamodules.replay.people_share import PeopleShare
from datamodules.replay.values import Seen, log_ratios
from gipo.commands import staleness
from gipo.common.checkpoint_head import CheckpointHead, read_head
from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.simulators.equality import why_not_native
from gipo.common.simulators.native import available
from gipo.common.tables import write_table
from gipo.common.transition import PERSON
from gipo.module import GIPOModule
from gipo.objective import NEEDED, Objective
from gipo.objectives import k3
from gipo.policies import Policy


def refuse_a_later_iteration(done: int, last: int | None) -> None:
    """Refuse a checkpoint from beyond the end of this run, which Lightning would tell in its own words.

    Args:
        done: iterations that the checkpoint is the end of.
        last: iterations of this run; None or -1 for no end.
    """
    if last is not None and -1 < last < done:
        raise UserError(
            f"the checkpoint is the end of iteration {done}, and this run ends with iteration {last}; raise "
            "data.total_frames (or data.iterations, or trainer.max_epochs)"
        )


def notes_on_learning(model: GIPOModule, data: Any, last: int | None, resumed: bool) -> list[str]:
    """Sentences on runs whose policy may learn less than was meant: from nothing, or not at all.

    Args:
        model: that is to learn.
        data: data module.
        last: iterations of this run; None or -1 for no end.
        resumed: whether it goes on from a checkpoint.
    """
    notes = []
    if isinstance(data, OfflineDataModule) and model.init_from is None and not resumed:
        notes.append("the policy starts from nothing; --model.init_from=CHECKPOINT starts it from a trained one")
    if last is not None and 0 < last <= model.critic_warmup:
        notes.append(
            f"the policy stays as it is: the critic learns alone for model.critic_warmup={model.critic_warmup} "
            f"iterations, and this run ends with iteration {last}; raise data.iterations (or data.total_frames, or "
            "trainer.max_epochs), or lower the warm-up"
        )
    if model.human_coef and data.logs is None:
        notes.append(f"model.human_coef={model.human_coef:g} is for what persons did in logs, and there are no logs")
    return notes + _without_effect(model, last)


def _without_effect(model: GIPOModule, last: int | None) -> list[str]:
    """Sentences on options that the others leave unread, or that a run of `last` iterations is too short for."""
    notes = []
    if model.kl_exact and model.losses.kl_estimator is not k3:
        notes.append("model.kl_estimator is not read: with model.kl_exact=true the anchor is computed without samples")
    if model.actor_every > 1 == model.reuse:
        notes.append(
            f"model.actor_every={model.actor_every} has no effect with model.reuse=1: each batch is learned from once, "
            "by the policy too; raise model.reuse"
        )
    if last is not None and 0 < last < model.lr_warmup:
        notes.append(
            f"the learning rates end at {last / model.lr_warmup:.0%} of what was given: model.lr_warmup="
            f"{model.lr_warmup} iterations, and this run ends with iteration {last}"
        )
    return notes


def refuse_another_task(trained: str | None, asked: str) -> None:
    """Refuse to evaluate on the task that is `asked` for what was trained on another, where that is known."""
    if trained is not None and trained != asked:
        raise UserError(
            f"the checkpoint was trained on {trained!r}, data.task is {asked!r}; give the run's own configuration "
            f"(--config RUN/config.yaml) or --data.task={trained}"
        )


def refuse_another_order(data: Any, checkpoint: str | None) -> None:
    """Refuse a task whose sensors or commands are those of the policy in a `checkpoint` in another order.

    Raises:
        UserError: naming both orders. Other names may mean the same things, and pass.
    """
    learned = None if checkpoint is None else read_head(checkpoint).interface
    given = None if data.task is None else data.task.interface
    for name in ("observation_names", "action_names"):
        ours, theirs = (list((said or {}).get(name, ())) for said in (learned, given))
        if ours != theirs and sorted(ours) == sorted(theirs):
            raise UserError(
                f"{name} of the task {data.task.name} are those of {checkpoint} in another order: {theirs!r:.200} "
                f"against {ours!r:.200}, by which its policy learned; give the task the order of the policy"
            )


def bound_as_the_policy(data: Any, checkpoint: str | None) -> None:
    """Have logs that say no bounds of an action take those of the policy in a `checkpoint`, if there is one."""
    if checkpoint is not None and isinstance(data, OfflineDataModule):
        data.logs.bounded_as(read_head(checkpoint).policy.get("spaces") or {})


def refuse_nothing_to_learn(frames: TensorDictBase, human_share: float | None, model: GIPOModule) -> None:
    """Refuse logs from which only the critic would learn, or which have nothing of what is to be drawn of them.

    Args:
        frames: of the logs.
        human_share: of a batch that is drawn from what persons did; null for any.
        model: that is to learn; where its objective reads log-probs of who acted, logs without usable steps are left
            to the staleness report to refuse.

    Raises:
        UserError: naming the option.
    """
    if human_share is not None:
        PeopleShare(frames["source"], human_share)  # which refuses logs without such steps
    if human_share == 0 and model.human_coef:
        raise UserError(
            f"data.human_share=0 draws nothing that persons did, and model.human_coef={model.human_coef:g} would have "
            "it imitated; leave one of the two out"
        )
    person = frames["source"] == PERSON
    drawn = person.reshape(len(person), -1).any(-1) if human_share == 1 else torch.ones(len(person), dtype=torch.bool)
    if bool(frames["valid"][drawn].any()) or (model.human_coef and bool(person.any())):
        return
    if human_share == 1 and bool(person.any()):
        raise UserError(
            "data.human_share=1 draws what persons did and nothing else, and with model.human_coef=0 the policy learns "
            "nothing of it; give model.human_coef=1"
        )
    if not model.objective.needs_behaviour:
        raise UserError(staleness.NOTHING)


def refuse_unknown_ages(frames: TensorDictBase, objective: Objective) -> None:
    """Refuse an objective that reads the age of data where nobody says which version chose some of it.

    Raises:
        UserError: naming the objective, and how much of the data is so.
    """
    if "age" not in objective.needs:
        return
    chosen = frames["valid"].reshape(len(frames), -1).any(-1)
    unknown = int((chosen & (frames["policy_version"] < 0)).sum())
    if unknown:
        raise UserError(
            f"model.objective={type(objective).__name__} needs {NEEDED['age']}; of these logs {unknown:,} of "
            f"{int(chosen.sum()):,} transitions do not. Choose another, such as --model.objective=GIPO"
        )


def settle_simulator(data: Any, head: CheckpointHead | None) -> None:
    """Say in the configuration what `data.simulator=auto` comes to: what the checkpoint's run had, or what there is.

    Args:
        data: options of the data module.
        head: of the checkpoint, if there is one; from before there was a choice it names no simulator.

    Raises:
        UserError: when a checkpoint's simulator is not installed.
    """
    task = data.get("task")
    if data.get("simulator") != "auto" or not isinstance(task, str) or metaworld.find(task) is None:
        return
    if head is None or head.task != task:
        data.simulator = "python" if why_not_native(task) else "envpool"
        return
    data.simulator = head.simulator or "python"
    if data.simulator == "envpool" and not available():
        raise UserError(
            f"the checkpoint was trained in envpool's simulators, and envpool is not installed: {install('fast')}; "
            "--data.simulator=python evaluates it in MetaWorld's own"
        )


def less_memory(config: Any) -> str:
    """What a run of this configuration may need less memory with, of the options that it has."""
    data = config.data.get("init_args", config.data)
    there = {
        "model.micro_batch (a batch is added up in parts)": True,
        "data.capacity": "capacity" in data,
        "data.collector.num_envs": "collector" in data,
    }
    return f"it needs less with a smaller {' or '.join(name for name, has in there.items() if has)}"


def report_staleness(model: GIPOModule, data: Any, folder: Path, speaks: bool, device: torch.device) -> None:
    """Say what the logs can teach this policy, and keep it as `staleness.csv`; refuse them when it is too little.

    Of a policy over chunks, `staleness_tokens.csv` has a row for every token of a decision.

    Args:
        model: with its policy.
        data: data module with logs.
        folder: of the run.
        speaks: whether this process is the one that prints and writes.
        device: of the learner, where a large network is asked: a processor takes seconds for a decision.

    Raises:
        UserError: when the logs are of another robot, or the policy can hardly learn from them.
    """
    objective, policy, logs = model.objective, model.policy, data.logs
    frames = learnable(model, data)
    if not objective.needs_behaviour:
        if speaks and not model.human_coef:
            _say_who_is_not_imitated(frames)
        return
    x = _asked(policy, device, frames, logs.seen)
    used = frames["valid"]
    # With action chunks every step is one of its own, by the policy that decided on its chunk.
    who, version = (expand_right(frames[name], used.shape) for name in ("policy", "policy_version"))
    log_prob = x + frames["log_prob"] if policy.gives_probabilities else None
    rows = staleness.staleness_report(x, used, who, version, int(policy.version), objective, log_prob)
    names = logs.store.facts.policies
    if speaks:
        print(staleness.text(rows, names))
        done = frames.get("executed", used.new_ones(used.shape))  # of a chunk, what was cut off was no step
        others = staleness.other_steps((x + frames["log_prob"])[done], used[done], frames["source"][done])
        if said := others.text(model.human_coef):
            print(said)
    staleness.refuse_unsupported(rows, data.min_ess, names)
    if speaks:
        staleness.write_csv(rows, names, folder / "staleness.csv")
        if used.ndim > 1:
            acted = frames["policy_version"], int(policy.version)
            write_table(staleness.token_report(x, used, *acted, objective, log_prob), folder / "staleness_tokens.csv")


def _say_who_is_not_imitated(frames: TensorDictBase) -> None:
    """Say how many steps of persons, such as corrections of what is cloned, the policy learns nothing from."""
    persons = frames["source"] == PERSON
    if count := int((persons & frames.get("executed", persons)).sum()):
        print(f"{count:,} steps of a person are nothing to the policy; --model.human_coef=1 imitates them, too")


def learnable(model: GIPOModule, data: Any) -> TensorDictBase:
    """The transitions of logs that the policy of `model` is to learn from.

    Raises:
        UserError: when they cannot teach it anything.
    """
    for said in (model.interface, data.interface):  # of the policy that the run goes on with, and of its simulator
        data.logs.refuse_unlike(model.policy.spaces, said)
    if data.logs.modelled:  # which takes long
        refuse_unknown_ages(data.logs.logged, model.objective)
    frames: TensorDictBase = data.logs.frames(model.policy, data.reads_behaviour(model))
    refuse_nothing_to_learn(frames, getattr(data, "human_share", None), model)
    refuse_unknown_ages(frames, model.objective)
    return frames


def _asked(policy: Policy, device: torch.device, frames: TensorDictBase, seen: Seen) -> torch.Tensor:
    """`log_ratios` of frames, for which a large network is brought to a device."""
    home = policy.version.device
    x = log_ratios(policy.to(device if policy.network.large else home), frames, seen)
    policy.to(home)  # the strategy brings it there, whole or in part
    return x
