"""`gipo-robot`: run a policy on a robot, and look at, check, label, audit, show and export what was logged."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gipo.common import boundary
from gipo.common.errors import UserError
from gipo.common.files import refuse_to_replace
from gipo.common.parsing import Parser, number, whole, words
from robots.session.command import add_run, add_setting

if TYPE_CHECKING:
    from robots.review.compare import Comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 after one line of error; the boundary lists the other codes."""
    return boundary.run("gipo-robot", _command, arguments)


def _command(arguments: list[str]) -> int:
    parsed = build_parser().parse_args(arguments)
    return parsed.run(parsed) or 0


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

    between = ""
    for log in _logs(options.logs):
        print(between + info(log, read_log(log, salvage=True)), flush=True)
        between = "\n\n"


def _verify(options: argparse.Namespace) -> None:
    from robots.review.verify import verdicts

    for line in verdicts(options.logs, options.quarantine):
        print(line)


def _label(options: argparse.Namespace) -> None:
    from robots.log import append_label, labels_path, read_log

    log = read_log(options.log)
    known = {episode.number: len(episode) for episode in log.begun}
    if options.episode not in known:
        there = f"{len(known)}, {min(known)} to {max(known)}" if known else "none"
        raise UserError(f"{options.log} has no episode {options.episode}; it has {there}")
    if options.reward is not None and not known[options.episode]:
        raise UserError(f"no step of episode {options.episode} is logged that a reward could be added to")
    if log.unused_labels:
        print(f"gipo-robot: note: {labels_path(options.log)}: {log.unused_labels}", file=sys.stderr)
    success = True if options.success else False if options.failure else None
    discard = True if options.discard else False if options.keep else None
    append_label(options.log, log.header.session, options.episode, success, options.reward, discard)
    print(f"appended to {labels_path(options.log)}")


def _audit(options: argparse.Namespace) -> None:
    from robots.review.audit import audit, policies_in

    policies, left_out = policies_in(options.policies)
    _leave_out(left_out)
    found = audit(_logs(options.logs), policies)
    print(found.text())
    found.check()


def _compare(options: argparse.Namespace) -> int:
    found = _compared(options.logs)
    print(found.text())
    return 0 if found.paired.told else boundary.EXIT_NOT_KNOWN


def _compared(named: Sequence[str]) -> "Comparison":
    """Pairs of two that drove in turns, in all of these logs; or one after the other, in the first and the second."""
    from robots.log import read_opening
    from robots.review.compare import compare

    logs = [_logs([each]) for each in named]
    if len(logs) != 2 or all(read_opening(log).header.turns for each in logs for log in each):
        return compare([log for each in logs for log in each])
    return compare(*logs)


def _promote(options: argparse.Namespace) -> int:
    from robots.review.promote import NotKnown, promote

    pairs = _compared(options.pairs) if options.pairs else None
    if pairs is not None:
        print(pairs.text())
    try:
        print(promote(Path(options.candidate), Path(options.to), options.because, pairs))
    except NotKnown as error:
        print(f"gipo-robot: {error}", file=sys.stderr)
        return boundary.EXIT_NOT_KNOWN
    return 0


def _rollback(options: argparse.Namespace) -> None:
    from robots.review.promote import rollback

    print(rollback(Path(options.folder), options.because))


def _report(options: argparse.Namespace) -> None:
    from robots.review.report import write_report

    refuse_to_replace(options.out, ".html")
    write_report(_logs(options.logs), options.out)
    print(f"written {options.out}")


def _export(options: argparse.Namespace) -> None:
    from robots.review.export import export

    print(export(_logs(options.logs), options.format, options.out))


def _logs(named: Sequence[str]) -> list[Path]:
    """The logs at the given paths; other files in a folder are named on the terminal, and left out."""
    from robots.log import find_logs

    logs, left_out = find_logs(named)
    _leave_out(left_out)
    return logs


def _leave_out(reasons: Sequence[str]) -> None:
    for reason in reasons:
        print(f"gipo-robot: note: left out: {reason}", file=sys.stderr)


def build_parser() -> Parser:
    """The parser of every command."""
    parser = Parser(prog="gipo-robot", description=__doc__, epilog=boundary.DEBUG_HELP)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands.add_parser("run", help="run episodes and log them"))
    _add_spec(commands)
    _add_log_commands(commands)
    _add_compare(commands)
    _add_promote(commands)
    return parser


def _add_spec(commands: "argparse._SubParsersAction[Parser]") -> None:
    spec = commands.add_parser("spec", help="write what a policy and a device say of a robot, as JSON to be completed")
    spec.set_defaults(run=_spec)
    spec.add_argument("--policy", required=True, metavar="FILE", help="artifact that is to drive it")
    spec.add_argument(
        "--device", metavar="NAME", help="LeRobot's name of a robot, or package.module:Class; it is not connected"
    )
    add_setting(spec, "config", "FILE", "the device's own configuration, JSON or YAML")
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

    about_logs("info", _info, "what logs hold")
    verify = about_logs("verify", _verify, "check every byte of logs")
    verify.add_argument("--quarantine", type=words, metavar="FOLDER", help="move damaged logs there, with their labels")
    label = about_logs("label", _label, "say how an episode went; appended beside the log", many=False)
    label.add_argument("--episode", type=whole(0, 10**7), required=True)  # two policies in turns number twice as far
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


LOGS_OF_PAIRS = (
    "log, or folder of logs, of sessions in which the two drove in turns; or two, of the policy in place and of the "
    "candidate"
)
COMPARE = """Whether a candidate succeeds more often than the deployed policy, from pairs of episodes that were begun
from the same seed. The interval holds at every look: drive some pairs, compare, and stop as soon as it tells."""
PAIRS = f"""examples:
  gipo-robot run --policy deployed.onnx --candidate candidate.onnx --episodes 10 --log pairs/
  gipo-robot compare pairs/                      both drove each start, in turns

  gipo-robot run --policy deployed.onnx --episodes 10 --log deployed/
  gipo-robot run --policy candidate.onnx --episodes 10 --log candidate/
  gipo-robot compare deployed/ candidate/        one after the other

  and, where that is not enough, the next pairs with --first 10, 20, …

exit code 0: one is known to succeed more often; {boundary.EXIT_NOT_KNOWN}: not yet known
"""


def _with_examples(
    commands: "argparse._SubParsersAction[Parser]", name: str, said: str, description: str, examples: str
) -> Parser:
    """The parser of a command whose help ends with examples, line by line."""
    form = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(name, help=said, description=description, epilog=examples, formatter_class=form)


def _add_compare(commands: "argparse._SubParsersAction[Parser]") -> None:
    said = "whether a candidate succeeds more often, by pairs of episodes"
    compare = _with_examples(commands, "compare", said, COMPARE, PAIRS)
    compare.set_defaults(run=_compare)
    compare.add_argument("logs", type=words, nargs="+", metavar="LOG", help=LOGS_OF_PAIRS)


PROMOTE = """Put a candidate into FOLDER, whose policy.onnx a robot runs, and say why in its promotions.jsonl. Pairs
must tell that it succeeds more often than the policy in place, or a person says why it is promoted all the same."""
PLACE = f"""examples:
  gipo-robot promote policy.onnx --to arm/                            the first one
  gipo-robot run --policy arm/policy.onnx --candidate other.onnx --log pairs/
  gipo-robot promote other.onnx --to arm/ --pairs pairs/
  gipo-robot rollback arm/

exit code 0: it is in place; {boundary.EXIT_NOT_KNOWN}: the pairs do not tell yet, and nothing was changed
"""


def _add_promote(commands: "argparse._SubParsersAction[Parser]") -> None:
    said = "put a policy into place, by pairs that tell or a person's word"
    promote = _with_examples(commands, "promote", said, PROMOTE, PLACE)
    promote.set_defaults(run=_promote)
    promote.add_argument("candidate", type=words, metavar="CANDIDATE", help="its artifact")
    promote.add_argument(
        "--to", type=words, required=True, metavar="FOLDER", help="the place, made where there is none"
    )
    promote.add_argument("--pairs", type=words, nargs="+", metavar="LOG", help=LOGS_OF_PAIRS)
    rollback = commands.add_parser("rollback", help="put the policy back that was in place before")
    rollback.set_defaults(run=_rollback)
    rollback.add_argument("folder", type=words, metavar="FOLDER", help="the place")
    for parser in (promote, rollback):
        parser.add_argument("--because", default="", metavar="TEXT", help="why, for those who read it later")


if __name__ == "__main__":
    sys.exit(main())
