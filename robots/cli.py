"""`gipo-robot`: run a policy on a robot, and look at, check, label, audit, show and export what was logged."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from gipo.common import boundary, terminal
from gipo.common.errors import UserError
from gipo.common.parsing import SEEDS, Parser, number, whole, words
from robots.session.options import RANGES, Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 after one line of error; the boundary lists the other codes."""
    return boundary.run("gipo-robot", _command, arguments)


def _command(arguments: list[str]) -> int:
    parsed = _parser().parse_args(arguments)
    return parsed.run(parsed) or 0


def _run(options: argparse.Namespace) -> int:
    from deploy.runtime.policy import OnnxPolicy
    from robots.load import load_robot
    from robots.people.load import load_operator
    from robots.session.prompt import ask_reset
    from robots.session.runner import Runner
    from robots.session.viewer import viewer

    policy = OnnxPolicy.load(options.policy, options.require_id)
    shadow = OnnxPolicy.load(options.shadow) if options.shadow else None
    robot = load_robot(options.robot, policy.manifest, options.set, options.speed)
    settings = _settings(options, getattr(robot, "simulated", False))
    record = {"robot": options.robot, "set": options.set, "seed": options.seed, "task": policy.manifest.task}
    with ExitStack() as stack:
        operator = None
        if options.operator is not None:
            record |= {"operator": options.operator, "operator_set": options.operator_set}
            operator = load_operator(options.operator, robot.spec, policy.manifest, options.operator_set)
            stack.callback(operator.close)
        listeners = stack.enter_context(viewer(robot.spec)) if options.view else ()
        runner = Runner(
            robot, policy, settings, options.log, shadow, record, ask_reset, listeners, sys.stderr, operator
        )
        report = runner.run(options.episodes, options.seed, options.first)
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


def _settings(options: argparse.Namespace, simulated: bool) -> Options:
    # A simulated robot harms nobody when a busy machine is late; a real one does.
    patience = 40.0 if simulated else 1.0
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
        camera=options.camera,
        replan=options.replan,
        deadman=_deadman(options.deadman) if options.deadman else (lambda: True),
    )


def _deadman(path: str, seconds: float = 0.5) -> Callable[[], bool]:
    """A deadman that is held while something keeps touching a file, e.g. the reader of a pedal."""
    file = os.path.abspath(path)  # a driver may change the working folder

    def held() -> bool:
        try:
            return abs(time.time() - os.stat(file).st_mtime) < seconds
        except OSError:
            return False

    return held


def _spec(options: argparse.Namespace) -> None:
    from deploy.runtime.policy import OnnxPolicy
    from robots.spec import MARK, undecided
    from robots.spec_draft import draft_for

    found = draft_for(OnnxPolicy.load(options.policy).manifest, options.robot, options.device, options.set)
    # The file is to be UTF-8, whatever writes it.
    escaped = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    print(json.dumps(found, allow_nan=False, indent=1, ensure_ascii=escaped))
    if questions := undecided(found):
        print(f"gipo-robot: a person must replace every {MARK} in it before it drives a robot:", file=sys.stderr)
        print("\n".join(f"  {question}" for question in questions), file=sys.stderr)


def _info(options: argparse.Namespace) -> None:
    from robots.log import read_log
    from robots.review.info import info

    print(info(options.log, read_log(options.log, salvage=True)))


def _verify(options: argparse.Namespace) -> None:
    from robots.review.verify import verdicts

    for line in verdicts(options.logs, options.quarantine):
        print(line)


def _label(options: argparse.Namespace) -> None:
    from robots.log import append_label, labels_path, read_log

    log = read_log(options.log)
    known = [episode.number for episode in log.episodes]
    if options.episode not in known:
        there = f"{known[0]}–{known[-1]}" if known else "none"
        raise UserError(f"{options.log} has no episode {options.episode}; it has {there}")
    if log.unused_labels:
        print(f"gipo-robot: note: {labels_path(options.log)}: {log.unused_labels}", file=sys.stderr)
    success = True if options.success else False if options.failure else None
    discard = True if options.discard else False if options.keep else None
    append_label(options.log, log.header.session, options.episode, success, options.reward, discard)
    print(f"appended to {labels_path(options.log)}")


def _audit(options: argparse.Namespace) -> None:
    from robots.review.audit import audit, policies_in

    found = audit(_logs(options.logs), policies_in(options.policies))
    print(found.text())
    found.check()


def _report(options: argparse.Namespace) -> None:
    from robots.review.report import write_report

    write_report(_logs(options.logs), options.out)
    print(f"written {options.out}")


def _export(options: argparse.Namespace) -> None:
    from robots.review.export import export

    print(export(_logs(options.logs), options.format, options.out))


def _logs(named: Sequence[str]) -> list[Path]:
    """The logs at the given paths; other files in a folder are named on the terminal, and left out."""
    from robots.log import find_logs

    logs, left_out = find_logs(named)
    for reason in left_out:
        print(f"gipo-robot: note: left out: {reason}", file=sys.stderr)
    return logs


def _parser() -> Parser:
    parser = Parser(prog="gipo-robot", description=__doc__, epilog=boundary.DEBUG_HELP)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run episodes and log them")
    run.set_defaults(run=_run)
    _who_acts(run)
    _who_helps(run)
    _how_episodes_run(run)
    _add_spec(commands)
    _add_log_commands(commands)
    return parser


def _who_acts(run: Parser) -> None:
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
    run.add_argument("--policy", type=words, required=True, metavar="FILE", help="artifact that acts")
    run.add_argument(
        "--require-id", type=words, metavar="ID", help="policy id the artifact must have, or a file that lists them"
    )
    run.add_argument("--shadow", type=words, metavar="FILE", help="artifact that scores what the policy does")


def _who_helps(run: Parser) -> None:
    people = run.add_argument_group(
        "a person who helps",
        "may take the robot over inside an episode, hand it back, and say how it goes. keyboard: space takes over and "
        "hands back; arrows and letters move, as it says when it starts; s success, f failure, d discard, digits a "
        "reward. gamepad: the right shoulder has the robot while it is held, sticks move; south success, east failure, "
        "north a reward, select discard. scripted: MetaWorld's policies, where progress stalls. A person's commands go "
        "through the same gate; without a sign of life of the device the robot is held, and stopped.",
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

    run.add_argument("--episodes", type=whole(1, 10**6), default=10, metavar="N", help="(%(default)s)")
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
    bounded("--deadline", "deadline", "PERIODS", "for policy, driver and operator (1.25; simulated: 50)", None)
    bounded("--max-age", "max_age", "PERIODS", "of an observation (1.5; simulated: 60)", None)
    run.add_argument("--instruction", default="", metavar="TEXT", help="what a policy with vision is to do")
    run.add_argument("--camera", type=words, default="image", metavar="NAME", help="whose image it sees (%(default)s)")
    bounded("--replan", "replan", "N", "steps of a chunk before it decides anew (all)", Options.replan)
    run.add_argument("--deadman", type=words, metavar="FILE", help="stop unless this file is touched twice a second")
    run.add_argument("--table", action="store_true", help="end with a row for each episode")
    run.add_argument("--view", action="store_true", help="show the session in rerun (extra viewer)")


def _add_spec(commands: "argparse._SubParsersAction[Parser]") -> None:
    spec = commands.add_parser("spec", help="write what a policy and a device say of a robot, as JSON to be completed")
    spec.set_defaults(run=_spec)
    spec.add_argument("--policy", required=True, metavar="FILE", help="artifact that is to drive it")
    spec.add_argument("--device", metavar="CLASS", help="LeRobot device, package.module:Class; it is not connected")
    spec.add_argument("--robot", metavar="NAME", help="robot that says its own spec: sim, gym or package.module:Class")
    spec.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it; repeatable")


def _add_log_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    def about_logs(name: str, function: Callable[[argparse.Namespace], None], text: str, many: bool = True) -> Parser:
        parser = commands.add_parser(name, help=text)
        parser.set_defaults(run=function)
        if many:
            parser.add_argument("logs", type=words, nargs="+", metavar="LOG", help="file, or folder of *.mcap files")
        else:
            parser.add_argument("log", type=words, metavar="LOG")
        return parser

    about_logs("info", _info, "what a log holds", many=False)
    verify = about_logs("verify", _verify, "check every byte of logs")
    verify.add_argument("--quarantine", type=words, metavar="FOLDER", help="move damaged logs there, with their labels")
    label = about_logs("label", _label, "say how an episode went; appended beside the log", many=False)
    label.add_argument("--episode", type=whole(0, 10**6), required=True)
    verdict = label.add_mutually_exclusive_group()
    verdict.add_argument("--success", action="store_true")
    verdict.add_argument("--failure", action="store_true")
    label.add_argument("--reward", type=number(-1e30, 1e30), help="added to the reward of the last step that is kept")
    use = label.add_mutually_exclusive_group()
    use.add_argument("--discard", action="store_true", help="nothing is to be learned from it")
    use.add_argument("--keep", action="store_true", help="it is, whatever was said before")
    audit = about_logs("audit", _audit, "recompute every log-prob from the artifacts")
    audit.add_argument("--policies", type=words, required=True, metavar="FOLDER", help="with the artifacts")
    report = about_logs("report", _report, "one HTML page that opens offline")
    report.add_argument("--out", type=words, default="report.html", metavar="FILE", help="(%(default)s)")
    export = about_logs("export", _export, "as a dataset of another format")
    export.add_argument("--format", required=True, choices=("lerobot", "minari"))
    export.add_argument("--out", type=words, required=True, metavar="FOLDER")


if __name__ == "__main__":
    sys.exit(main())
