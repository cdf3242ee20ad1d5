"""`gipo estimate CHECKPOINT LOG...`: what a policy would return and how often it would succeed, from logs of others.

Nothing moves. The logs hold the exact log-prob of every action, so that an episode counts by how much likelier this
policy would have been to act as it went. How much that can tell depends on how far the policies are apart and how many
episodes there are; where it is too little, this says so. Of logs that the policy learned from, an estimate is too good.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipo.common.boundary import DEBUG_HELP, EXIT_NOT_KNOWN
from gipo.common.checkpoint_head import CheckpointHead, LearnedLog
from gipo.common.errors import UserError
from gipo.common.files import refuse_to_replace
from gipo.common.interpreter import lean_imports
from gipo.common.parsing import Parser, number, path
from gipo.common.tables import write_table

if TYPE_CHECKING:
    from datamodules.ingest import Store
    from gipo.commands.estimate.episodes import Logged
    from gipo.commands.estimate.estimators import Array
    from gipo.policies import Policy

LEAST = 10.0
EXAMPLES = f"""examples:
  gipo estimate runs/logs-0/checkpoints/last.ckpt apart/
  gipo estimate runs/logs-0/checkpoints/last.ckpt apart/*.mcap --policies artifacts --discount 0.99 --out estimates.csv

exit code 0: there is an estimate, be it that it is either more or less; {EXIT_NOT_KNOWN}: these logs can tell nothing

{DEBUG_HELP}
"""
# What an error of reading logs calls an option of `gipo fit`, and the option that is meant here.
OPTIONS = {
    "data.ingest.policies": "--policies",
    "data.ingest.audit=": "--audit ",
    "data.ingest.cache": "XDG_CACHE_HOME",
    "data.ingest.bad_episodes=skip leaves such episodes out": "`gipo-robot label --discard` leaves one of a log out",
    "the policy to be trained": "the policy",
}


def build_parser() -> Parser:
    """The policy, the logs, and what is estimated."""
    parser = Parser(
        prog="gipo estimate", description=__doc__, epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("policy", type=path, metavar="CHECKPOINT", help="of the policy that is asked about")
    add("logs", type=path, nargs="+", metavar="LOG", help="files or folders, as data.logs takes them")
    add("--discount", type=number(0, 1, positive=True), default=1.0, help="γ of a step, for the return (%(default)s)")
    add("--effective", type=number(2, 1e6), default=LEAST, metavar="N",
        help="effective episodes that an estimate needs (%(default)g); of fewer, intervals are too narrow"
        )  # fmt: skip
    add("--policies", type=path, action="append", metavar="FOLDER",
        help="of the artifacts that acted, or checkpoints that were served, for the audit; repeatable (where logs are, "
        "and the folders above)")  # fmt: skip
    add("--audit", type=number(0, 1), default=0.05, metavar="SHARE",
        help="of the steps, whose log-probs are recomputed; 0 trusts the logs (%(default)s)")  # fmt: skip
    add("--out", type=path, metavar="FILE", help="write every estimate there, too, as CSV")
    return parser


def main(args: Sequence[str]) -> int:
    """Print the estimates; `EXIT_NOT_KNOWN` where the logs cannot tell.

    Raises:
        UserError: when the policy or the logs cannot be read, or do not fit each other, or the file not be written.
    """
    options = build_parser().parse_args(args)
    if options.out is not None:
        refuse_to_replace(options.out, ".csv")
        if not options.out.resolve().parent.is_dir():
            raise UserError(f"--out {options.out}: there is no such folder")
    if options.policy.suffix == ".onnx":
        raise UserError(
            f"{options.policy} is an artifact; name the checkpoint that it was exported from (gipo lineage)"
        )
    with lean_imports():
        from gipo.commands.estimate.report import Measure
    known = _read(options)
    if len(known) < options.effective:
        print(f"these logs cannot tell: an estimate needs {options.effective:g} effective episodes (--effective)")
        return EXIT_NOT_KNOWN
    kinds = _kinds(known)
    episodes = known.episodes(*(reward for reward, _ in kinds.values()))
    measures = [
        Measure(name, found, explained, options.effective, most)
        for (name, (_, most)), (found, explained) in zip(kinds.items(), episodes, strict=True)
    ]
    for measure in measures:
        print(f"\n{measure.text()}")
    if options.out is not None:
        _write([row.record(measure.name) for measure in measures for row in measure.rows], options.out)
    return 0 if any(measure.answer for measure in measures) else EXIT_NOT_KNOWN


def _write(records: list[dict[str, object]], out: Path) -> None:
    try:
        write_table(records, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    print(f"\nwritten {out}")


def _read(options: Any) -> "Logged":
    """The episodes of the logs, with the policy's log-ratios; what they are is told on the terminal."""
    from datamodules.ingest import IngestOptions
    from datamodules.replay.logs import Logs
    from datamodules.replay.values import log_ratios
    from gipo.checkpoints import load_checkpoint, policy_from
    from gipo.commands.estimate.episodes import logged

    checkpoint = load_checkpoint(options.policy)
    policy, head = policy_from(checkpoint), CheckpointHead.of(checkpoint, options.policy)
    folders = [str(each) for each in options.policies] if options.policies else None
    ingest = IngestOptions(policies=folders, audit=options.audit)
    logs = Logs([str(each) for each in options.logs], ingest, None, seed=0)
    try:
        store = logs.store
        _refuse_other_kind(store, policy, options.policy)
        logs.refuse_unlike(policy.spaces, head.interface)
        frames = logs.frames(policy, needs_behaviour=True, critic=False)
    except UserError as error:
        raise UserError(_in_these_options(str(error))) from error
    if learned := _learned_from((*head.logs_before, *head.logs), store):
        why = "and estimates from that are too good; name other logs"
        print(f"gipo: note: the policy learned from {', '.join(learned)}, {why}", file=sys.stderr)
    known = logged(store, frames, log_ratios(policy, frames, logs.seen), options.discount)
    print(_said(known, store.facts.policies, int(policy.version)))
    return known


def _refuse_other_kind(store: "Store", policy: "Policy", path: Path) -> None:
    """Refuse logs of which a policy cannot say how likely it would have been to act so."""
    if not store.facts.has_log_prob:
        raise UserError("the logs do not hold log-probs of who acted, without which nothing can be estimated")
    interface, here = store.facts.interface, type(policy).__name__
    count = interface.parameters_per_dimension
    if policy.latent_dtype != store.frames["latent"].dtype or count not in (None, policy.parameters_per_dimension):
        acted = f"{interface.family or 'another'} policies of {count} parameters a dimension"
        raise UserError(
            f"the logs are of {acted}, and {path} holds a {here} of {policy.parameters_per_dimension}: its ratio to "
            "them is of other choices"
        )


def _learned_from(learned: Sequence[LearnedLog], store: "Store") -> list[str]:
    """The sources of a store that a policy has `learned` from: what it was fitted to, luck included, speaks for it."""
    known = {name for log in learned for name in (log.session, log.sha256, *log.sessions) if name is not None}
    return [source.path for source in store.facts.sources if known & {source.sha256, *source.sessions}]


def _in_these_options(text: str) -> str:
    for theirs, ours in OPTIONS.items():
        text = text.replace(theirs, ours)
    return text


def _kinds(known: "Logged") -> dict[str, tuple["Array", float | None]]:
    """The rewards of whatever can be estimated, by name, and the most that an episode can have where the least is 0."""
    found: dict[str, tuple[Array, float | None]] = {"return": (known.reward, None)} if known.reward.any() else {}
    unknown = int((known.success < 0).sum())
    if not unknown:
        found["success"] = known.outcome, 1.0
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
    acted = f"{len(names)} policies" if len(names) > 1 else f"policy {names[0][:12]}…" if names else "nobody knows whom"
    decisions = len(known.log_ratio)
    lines = [
        f"{len(known):,} episodes of {decisions:,} decisions by {acted}; this policy is version {version}",
        f"KL of a decision, of those that acted against this one: about {known.kl:.2g} nats",
    ]
    if known.sampled < decisions:
        lines.append(f"{decisions - known.sampled:,} decisions were not sampled, and are taken to be made so again")
    if known.persons:
        lines.append(f"in {known.persons:,} episodes a person acted, too, and is taken to act so beside this policy")
    if known.unsampled:
        lines.append(f"left out: {known.unsampled:,} episodes in which no policy sampled")
    if known.parts:
        lines.append(f"left out: {known.parts:,} episodes that the logs have only in part")
    if known.copies:
        lines.append(f"left out: {known.copies:,} episodes that were driven again with the same noise")
    return "\n".join(lines)
