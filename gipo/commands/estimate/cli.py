"""`gipo estimate CHECKPOINT LOG...`: what a policy would return and how often it would succeed, from logs of others.

Nothing moves. The logs hold the exact log-prob of every action, so that an episode counts by how much likelier this
policy would have been to act as it went. How much that can tell depends on how far the policies are apart and how many
episodes there are; where it is too little, this says so.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gipo.common.boundary import DEBUG_HELP
from gipo.common.errors import UserError
from gipo.common.files import refuse_to_replace
from gipo.common.interpreter import lean_imports
from gipo.common.parsing import Parser, number, path
from gipo.common.tables import write_table

if TYPE_CHECKING:
    from gipo.commands.estimate.episodes import Logged
    from gipo.commands.estimate.estimators import Array

LEAST = 10.0
EXAMPLES = f"""examples:
  gipo estimate runs/logs-0/checkpoints/last.ckpt logs/
  gipo estimate runs/logs-0/checkpoints/last.ckpt logs/*.mcap --discount 0.99 --csv estimates.csv

exit code 1: these logs cannot tell

{DEBUG_HELP}
"""


def build_parser() -> Parser:
    """The policy, the logs, and what is estimated."""
    parser = Parser(
        prog="gipo estimate", description=__doc__, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("policy", type=path, metavar="CHECKPOINT", help="of the policy that is asked about")
    add("logs", type=path, nargs="+", metavar="LOG", help="files or folders, as data.logs takes them")
    add("--discount", type=number(0, 1, positive=True), default=1.0, help="γ of a step, for the return (%(default)s)")
    add("--episodes", type=number(2, 1e6), default=LEAST, metavar="N",
        help="effective ones that an estimate needs (%(default)g)")  # fmt: skip
    add("--policies", type=path, action="append", metavar="FOLDER",
        help="of artifacts or checkpoints that acted, for the audit; repeatable (the folders of the logs)")  # fmt: skip
    add("--csv", type=path, metavar="FILE", help="write every estimate there, too")
    return parser


def main(args: Sequence[str]) -> int:
    """Print the estimates; 1 where the logs cannot tell.

    Raises:
        UserError: when the policy or the logs cannot be read, do not fit each other, or hold too few whole episodes.
    """
    options = build_parser().parse_args(args)
    if options.csv is not None:
        refuse_to_replace(options.csv, ".csv")
    if options.policy.suffix == ".onnx":
        raise UserError(
            f"{options.policy} is an artifact; name the checkpoint that it was exported from (gipo lineage)"
        )
    with lean_imports():
        from gipo.commands.estimate import report
    found = _found(options)
    records, told = [], True
    for measure, rows, explained, form in found:
        print(f"\n{report.text(rows, measure, form)}\n\n{report.conclusion(rows, measure, form, options.episodes)}")
        print(f"(the baseline explains {max(0.0, explained):.0%} of what followed a decision)")
        records += [row.record(measure) for row in rows]
        told = told and report.answer(rows) is not None
    if options.csv is not None:
        try:
            write_table(records, options.csv)
        except OSError as error:
            raise UserError(f"cannot write {options.csv}: {error.strerror or error}") from error
        print(f"\nwritten {options.csv}")
    return 0 if told else 1


def _found(options: Any) -> list[tuple[str, list[Any], float, str]]:
    """What is estimated, its rows, how much the baseline explains, and the form of its figures."""
    from datamodules.ingest import IngestOptions
    from datamodules.replay.logs import Logs
    from datamodules.replay.values import log_ratios
    from gipo.checkpoints import load_checkpoint, policy_from
    from gipo.commands.estimate import report
    from gipo.commands.estimate.episodes import logged

    policy = policy_from(load_checkpoint(options.policy))
    folders = [str(each) for each in options.policies] if options.policies else None
    logs = Logs([str(each) for each in options.logs], IngestOptions(policies=folders), None, seed=0)
    frames = logs.frames(policy, needs_behaviour=True)
    known = logged(logs.store.frames, frames, log_ratios(policy, frames, logs.seen), options.discount)
    print(_said(known, logs.store.facts.policies, int(policy.version)))
    if len(known) < options.episodes:
        need = f"an estimate needs {options.episodes:g} effective ones (--episodes)"
        raise UserError(f"{len(known)} whole episodes are too few: {need}")
    measures = _measures(known)
    episodes = known.episodes(*(reward for reward, _ in measures.values()))
    return [
        (name, report.rows(found, options.episodes), explained, form)
        for (name, (_, form)), (found, explained) in zip(measures.items(), episodes, strict=True)
    ]


def _measures(known: "Logged") -> dict[str, tuple["Array", str]]:
    """The rewards of whatever can be estimated, by name, and the form of its figures."""
    found = {"return": (known.reward, ".1f")} if known.reward.any() else {}
    unknown = int((known.success < 0).sum())
    if not unknown:
        found["success"] = known.outcome, ".2f"
    elif unknown < len(known):
        missing = f"nobody said of {unknown} episodes how they went (gipo-robot label)"
        print(f"gipo: note: success is not estimated: {missing}", file=sys.stderr)
    if not found:
        raise UserError(
            "there is nothing to estimate: every reward is 0, and nobody said how episodes went (gipo-robot label)"
        )
    return found


def _said(known: "Logged", names: Sequence[str], version: int) -> str:
    """What the estimates rest on."""
    acted = f"{len(names)} policies" if len(names) > 1 else f"policy {names[0][:12]}" if names else "nobody knows whom"
    lines = [
        f"{len(known):,} episodes of {len(known.log_ratio):,} decisions by {acted}; this policy is version {version}",
        f"KL of a decision, of those that acted against this one: {known.kl:.3g} nats",
    ]
    if known.persons:
        lines.append(f"in {known.persons:,} of them a person acted, too, and is taken to act so beside this policy")
    if known.broken:
        lines.append(f"left out: {known.broken:,} episodes of which the logs have not all steps")
    return "\n".join(lines)
