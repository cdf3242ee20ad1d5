"""What a loop is of: a task in simulation, the robot that it is of, and the words that each command needs for them."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gipo.commands.studies.options import refuse_no_task
from gipo.common.errors import UserError
from gipo.common.simulators.metaworld_camera import PREFIX, instruction_of, seen_task
from gipo.common.simulators.toy import CAMERA, INSTRUCTION
from robots.drivers.sim import RealityGap
from robots.drivers.sim_camera import SeenGap
from robots.drivers.toy import ToyGap
from robots.settings.annotations import arguments
from robots.settings.assignments import parse_settings


@dataclass(frozen=True)
class Subject:
    """A task and its robot.

    Args:
        gap_kind: fields by which the robot may differ from the simulator.
        gap: how it does, unless a study says otherwise.
        named: settings by the name of a gap.
        script: options of `gipo-demos` in simulation; empty where a policy learns from nothing.
        train: options of `gipo fit` in simulation, or of cloning what the script does.
        export: options of `gipo-deploy export`.
        robot: options of `gipo-robot run`.
        post: options of post-training.
    """

    gap_kind: type
    gap: tuple[str, ...]
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    script: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    robot: tuple[str, ...] = ("--robot", "sim")
    post: tuple[str, ...] = ()


SAWYER = Subject(RealityGap, ("action_offset=.25",), {"late": ("delay=36", "friction_scale=30")})
# What a step of the toy earns depends on its own action alone.
AT_ONCE = ("--data.estimator.gamma=0", "--data.estimator.lam=0")
TOY = Subject(
    ToyGap,
    ("action_gain=.8", "shift_x=.3", "light=.8", "colour=.2"),
    train=(
        "--config=toy_vla.yaml", "--data.task.init_args.shown=image", "--data.rounds=24", "--model.policy.bins=16",
        *AT_ONCE,
    ),
    export=("--rate", "10"),
    robot=(
        "--robot", "robots.drivers.toy:robot", "--camera", CAMERA, "--instruction", INSTRUCTION, "--steps", "16",
        "--engage", "0",
    ),
    post=(
        "--data.iterations=60", "--data.rounds=24", "--data.batch=128", "--data.reward_scale=.5", "--model.kl_coef=.03",
        "--model.policy_lr=1e-3", "--model.value_lr=1e-3", *AT_ONCE,
    ),
)  # fmt: skip


# Tasks of policies that see, by how their names begin.
SEEING = {"toy": "`toy`", PREFIX: f"a MetaWorld task with `{PREFIX}` before its name, which is cloned from its script"}


def seen(task: str) -> Subject:
    """A MetaWorld task with `camera:` before its name: cloned from its script, and run on an arm with a camera."""
    cameras = [word for camera in seen_task(task)[1] for word in ("--camera", camera)]
    return Subject(
        SeenGap,
        ("action_gain=.8", "light=.8", "colour=.2", "shift_x=.04"),
        script=("--task", task, "--noise", "0.2"),
        train=(
            "--config=bc.yaml", "--model.human_coef=1", "--model.policy=gipo.vla.policies.VLATokenPolicy",
            "--model.policy.network=gipo.vla.tiny.TinyVLANetworks", "--model.policy.network.norm=true",
            "--model.policy.bins=33", f"--data.task={task}", "--data.chunk=10", "--data.iterations=15",
            "--data.batch=128", "--data.refresh_every=15", "--trainer.check_val_every_n_epoch=15",
            "--data.evaluation.episodes=50", "--data.evaluation.num_envs=10",
        ),
        robot=(
            "--robot", "robots.drivers.sim_camera:robot", *cameras, "--instruction", instruction_of(task),
            "--steps", "150", "--engage", "0", "--set", "every=0",  # nobody interrupts a chunk, and pictures cost time
        ),
        # So few pictures are soon known by heart: the critic sees what the arm logged for it alone, and of the policy
        # only the head learns, on what its encoder made of pictures when it was cloned.
        post=(
            "--data.iterations=60", "--model.critic_warmup=15", "--data.rounds=24", "--data.batch=128",
            "--model.critic=privileged", "--model.frozen=[encoder]", "--model.kl_coef=.03", "--model.value_lr=1e-3",
            "--model.policy_lr=1e-3",
        ),
    )  # fmt: skip


def add_task(parser: argparse.ArgumentParser, seeing: Sequence[str] = tuple(SEEING)) -> None:
    """`--task` of a study, and `--gap` between its robot and the simulator.

    Args:
        parser: of the study.
        seeing: which of SEEING it takes.
    """
    also = f"; or, of policies that see, {', or '.join(SEEING[each] for each in seeing)}" if seeing else ""
    parser.add_argument("--task", help=f"a MetaWorld task (default: that of the recipe){also}")
    of_toy = f"; with --task toy of robots.drivers.toy.ToyGap (default: {' '.join(TOY.gap)})" if "toy" in seeing else ""
    parser.add_argument(
        "--gap", nargs="+", metavar="KEY=VALUE",
        help=f"how the robot differs from the simulator; fields of robots.drivers.sim.RealityGap (default: "
        f"{' '.join(SAWYER.gap)}), or `late`: it obeys late, with more friction{of_toy}",
    )  # fmt: skip


def subject_of(options: argparse.Namespace, seeing: Sequence[str] = tuple(SEEING)) -> Subject:
    """The subject of the options that `add_task` added, of which `gap` is filled in where nobody gave one.

    Raises:
        UserError: when there is no such task, or it sees and the study takes no such.
    """
    subject, kind = SAWYER, None
    if options.task == "toy":
        subject, kind = TOY, "toy"
    elif options.task is not None and options.task.startswith(PREFIX):
        subject, kind = seen(options.task), PREFIX
    if kind is not None and kind not in seeing:
        raise UserError(f"--task {options.task}: this study has no policies that see in that way; gipo-study loop has")
    options.gap = list(subject.gap) if options.gap is None else options.gap
    if options.task is None or subject is not SAWYER:
        return subject
    refuse_no_task([options.task], "--task")
    return Subject(subject.gap_kind, subject.gap, subject.named, train=(f"--data.task={options.task}",))


def parse_gap(settings: Sequence[str], subject: Subject = SAWYER) -> dict[str, Any]:
    """Settings of a subject's robot, checked before anything is trained for them.

    Args:
        settings: each `key=value`, or a name of a gap.
        subject: whose robot it is.

    Raises:
        UserError: when there is no such field, or its value is out of range.
    """
    named = [setting for each in settings for setting in subject.named.get(each, (each,))]
    try:
        gap = arguments(subject.gap_kind, parse_settings(named), "")
        subject.gap_kind(**gap)
    except UserError as error:
        raise UserError(f"--gap {' '.join(settings)}: {error}") from error
    return gap
