"""`gipo-robot run`: its options, and a session run as they say."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.manifest import Manifest
from gipo.common import terminal
from gipo.common.errors import UserError
from gipo.common.parsing import SEEDS, Parser, number, whole, words
from robots.drivers.calls import Call
from robots.people.operator import Operator
from robots.session.options import RANGES, Options
from robots.spec import RobotSpec

DEADMAN_SECONDS = 0.5  # since a file was touched, after which nobody holds it
SIMULATED = 40.0  # times the patience with a robot of the world: a simulated one harms nobody when a machine is late


def add_run(parser: Parser) -> None:
    """Give the parser of `gipo-robot run` its options, and what runs them."""
    parser.set_defaults(run=_run)
    _which_robot(parser)
    _who_acts(parser)
    _who_helps(parser)
    _how_episodes_run(parser)


def _which_robot(run: Parser) -> None:
    run.add_argument(
        "--robot", type=words, default="sim", help="sim, gym, lerobot, or package.module:Class (%(default)s)"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the robot, read as its annotation says, text where it has none; lists and objects as "
        "JSON, or KEY.INNER=VALUE; repeatable",
    )
    for option, unit, text in (
        ("device", "NAME", "of LeRobot: so101_follower, or package.module:Class"),
        ("config", "FILE", "that device's own configuration, JSON or YAML"),
        ("spec", "FILE", "that device's limits, as gipo-robot spec begins them"),
    ):
        add_setting(run, option, unit, text)


def add_setting(parser: Parser, name: str, unit: str, text: str) -> None:
    """Give a parser `--name value`, which is short for `--set name=value`."""
    parser.add_argument(
        f"--{name}", dest="set", action="append", default=[], type=lambda value: f"{name}={words(value)}",
        metavar=unit, help=text,
    )  # fmt: skip


def _who_acts(run: Parser) -> None:
    run.add_argument(
        "--policy",
        type=words,
        required=True,
        metavar="POLICY",
        help="artifact that acts, or HOST:PORT where gipo-deploy serve answers",
    )
    run.add_argument(
        "--token", type=words, metavar="FILE", help="secret shared with the server; gipo-deploy token writes it"
    )
    run.add_argument(
        "--require-id",
        type=words,
        metavar="ID",
        help="policy id the artifact must have, or a file that lists those of several",
    )
    run.add_argument("--shadow", type=words, metavar="FILE", help="artifact that scores what the policy does")
    run.add_argument(
        "--candidate", type=words, metavar="POLICY",
        help="drives in turns with it: each start twice, once by each, and who is first alternates; gipo-robot compare "
        "reads the log",
    )  # fmt: skip
    run.add_argument(
        "--until-told", action="store_true",
        help="no more of them than until one is known to succeed more often, 95 %% sure at whatever pair that comes",
    )  # fmt: skip


def _who_helps(run: Parser) -> None:
    people = run.add_argument_group(
        "a person who helps",
        "may take the robot over inside an episode, hand it back, and say how it goes. keyboard: space takes over, "
        "Enter hands back; arrows and letters move, as it says when it starts; s success, f failure, d discard, digits "
        "a reward. gamepad: the right shoulder has the robot while it is held, sticks move; south success, east "
        "failure, north or west a reward, select discard. scripted: MetaWorld's policies, where progress stalls. A "
        "person's commands go through the same gate; while a device does not answer, or a stick is held out in "
        "silence, the robot is held, and without an answer it is stopped.",
    )
    people.add_argument(
        "--operator", type=words, metavar="NAME",
        help="keyboard, gamepad, scripted, a LeRobot teleoperator or an operator of yours, package.module:Class",
    )  # fmt: skip
    people.add_argument(
        "--operator-set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it, as --set; repeatable"
    )
    people.add_argument(
        "--end-on-label", action="store_true", help="cut an episode when a person says success, failure or discard"
    )


def _how_episodes_run(run: Parser) -> None:
    def bounded(option: str, key: str, unit: str, text: str, default: float | None) -> None:
        low, high = RANGES[key]
        kind = whole(int(low), int(high)) if isinstance(getattr(Options, key), int) else number(low, high)
        run.add_argument(option, type=kind, default=default, metavar=unit, help=text)

    run.add_argument("--episodes", type=whole(1, 10**6), default=10, metavar="N", help="of each policy (%(default)s)")
    run.add_argument(
        "--first", type=whole(0, 10**6), default=0, metavar="N",
        help="number of the first episode, where another session runs those before it (%(default)s)",
    )  # fmt: skip
    bounded("--steps", "steps", "N", "after which an episode is cut (%(default)s)", Options.steps)
    run.add_argument("--log", type=words, default="logs", metavar="FOLDER", help="(%(default)s)")
    run.add_argument("--seed", type=whole(0, SEEDS), default=0, help="of goals and sampling noise (%(default)s)")
    run.add_argument("--deterministic", action="store_true", help="most likely actions; nothing to learn from")
    run.add_argument("--end-on-success", action="store_true", help="cut an episode when the robot reports success")
    bounded("--speed", "speed", "X", "of the clock, simulated robots only (1)", Options.speed)
    bounded("--engage", "engage_seconds", "SECONDS", "to hand over control (%(default)s)", Options.engage_seconds)
    bounded("--deadline", "deadline", "PERIODS", f"for policy, driver and operator ({_both(Options.deadline)})", None)
    bounded("--max-age", "max_age", "PERIODS", f"of an observation ({_both(Options.max_age)})", None)
    run.add_argument("--instruction", default="", metavar="TEXT", help="what a policy with vision is to do")
    run.add_argument(
        "--camera", type=words, action="append", default=[], metavar="NAME",
        help="whose image it sees; repeated, in its order, for one that sees several (those that it names, or image)",
    )  # fmt: skip
    run.add_argument(
        "--video",
        default="",
        choices=("h264", "av1"),
        help="log cameras as video, not as an image a frame (extra video), encoded in a process of its own",
    )
    bounded("--replan", "replan", "N", "steps of a chunk before it decides anew (all)", Options.replan)
    run.add_argument(
        "--deadman", type=words, metavar="FILE",
        help=f"stop when this file was last touched more than {DEADMAN_SECONDS:g} s ago: touch it ten times a second",
    )  # fmt: skip
    run.add_argument("--table", action="store_true", help="end with a row for each episode")
    run.add_argument("--view", action="store_true", help="show the session in rerun (extra viewer)")


def _run(options: argparse.Namespace) -> int:
    from robots.session.leftovers import Leftovers

    leftovers = Leftovers()
    try:
        return _session(options)
    finally:
        leftovers.tell()


def _session(options: argparse.Namespace) -> int:
    from deploy.runtime.policy import OnnxPolicy
    from deploy.runtime.serving.client import ServedPolicy
    from robots.load import load_robot
    from robots.session.prompt import ask_reset
    from robots.session.runner import Runner
    from robots.session.viewer import viewer

    with ExitStack() as stack:
        policies = _acting(options, stack)
        policy, candidate = policies[0], policies[1] if len(policies) > 1 else None
        shadow = OnnxPolicy.load(options.shadow) if options.shadow else None
        robot = load_robot(options.robot, policy.manifest, options.set, options.speed)
        settings = _settings(options, getattr(robot, "simulated", False))
        for served in (each for each in policies if isinstance(each, ServedPolicy)):
            # A little earlier than the watchdog, which does not know what is wrong.
            served.answer_within(0.9 * settings.deadline * robot.spec.period_ns / 1e9)
        record = {"robot": options.robot, "set": options.set, "seed": options.seed, "task": policy.manifest.task}
        operator = _operator(options, robot.spec, policy.manifest)
        if operator is not None:
            record |= {"operator": options.operator, "operator_set": options.operator_set}
            stack.callback(_release, operator)
        listeners = stack.enter_context(viewer(robot.spec)) if options.view else ()
        runner = Runner(
            robot, policy, settings, options.log, shadow=shadow, candidate=candidate, settings=record, reset=ask_reset,
            listeners=listeners, status=sys.stderr, operator=operator,
        )  # fmt: skip
        report = runner.run(options.episodes, options.seed, options.first, options.until_told)
    life = report.life
    try:
        print(report.table() + "\n" if options.table and report.results else "", end="")
        print(report.text(), flush=True)
    except (OSError, ValueError):  # whether the table could be printed says nothing of the robot
        terminal.give_up(sys.stdout)
    if life.faults:
        raise UserError("; ".join(life.faults)) from life.cause
    if life.signals:
        terminal.tell(f"gipo-robot: ended by {life.ended_by}; the robot is stopped and the log whole")
    return life.exit_code


def _acting(options: argparse.Namespace, stack: ExitStack) -> list[ActingPolicy]:
    """The policy, and the candidate where there is one; servers are left when the stack is."""
    from deploy.runtime.serving.client import ServedPolicy
    from robots.load import is_server, load_policy

    if options.until_told and options.candidate is None:
        raise UserError("--until-told is of two policies that drive in turns; name the other one with --candidate")
    found: list[ActingPolicy] = []
    names = [options.policy, *filter(None, [options.candidate])]
    for name in names:
        shared = is_server(name) or not any(map(is_server, names))  # a file among them needs no secret
        found.append(load_policy(name, options.token if shared else None, options.require_id))
        if isinstance(found[-1], ServedPolicy):
            stack.callback(found[-1].close)  # whatever else cannot be loaded
    tasks = dict.fromkeys(each.manifest.task for each in found)
    if len(tasks) > 1:
        terminal.tell(f"gipo-robot: note: the two were trained for other tasks: {' and '.join(map(str, tasks))}")
    return found


def _operator(options: argparse.Namespace, spec: RobotSpec, manifest: Manifest) -> Operator | None:
    """The person who helps, if one is named; what else is said of one without a name is refused."""
    from robots.people.load import load_operator

    if options.operator is not None:
        return load_operator(options.operator, spec, manifest, options.operator_set)
    given = {"--operator-set": options.operator_set, "--end-on-label": options.end_on_label}
    if idle := [name for name, value in given.items() if value]:
        raise UserError(f"{idle[0]} is of a person who helps, and nobody is named who does; add --operator NAME")
    return None


def _release(operator: Operator) -> None:
    """Close an operator for whom no session came about; one that did has closed it, and said what went wrong."""
    from robots.session.runner import CLOSE_SECONDS

    Call(operator.close).wait(CLOSE_SECONDS)


def _both(periods: float) -> str:
    """A default, for a robot of the world and for a simulated one."""
    return f"{periods:g}; simulated: {SIMULATED * periods:g}"


def _settings(options: argparse.Namespace, simulated: bool) -> Options:
    patience = SIMULATED if simulated else 1.0
    return Options(
        steps=options.steps,
        speed=options.speed,
        deterministic=options.deterministic,
        end_on_success=options.end_on_success,
        end_on_label=options.end_on_label,
        engage_seconds=options.engage,
        deadline=Options.deadline * patience if options.deadline is None else options.deadline,
        max_age=Options.max_age * patience if options.max_age is None else options.max_age,
        instruction=options.instruction,
        camera=tuple(options.camera),
        video=options.video,
        replan=options.replan,
        deadman=_deadman(options.deadman) if options.deadman else (lambda: True),
    )


def _deadman(path: str) -> Callable[[], bool]:
    """A deadman that is held while something keeps touching a file, e.g. the reader of a pedal."""
    file = os.path.abspath(path)  # a driver may change the working folder

    def held() -> bool:
        try:
            return abs(time.time() - os.stat(file).st_mtime) < DEADMAN_SECONDS
        except OSError:
            return False

    return held
