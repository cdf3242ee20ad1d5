"""Compare `gipo fit` with Stable-Baselines3 and SBX: the same task, evaluation and cores, one run after the other.

Every run is a process of its own. Success is that of 20 sampled episodes of MetaWorld's own simulator on fixed goals,
every 10 000 environment steps, which do not count as training time; a run ends with the first success of at least
--until. Prints and appends to a file one JSON line a run: environment steps and seconds of training to that success,
steps/s, processor time for 1 000 steps, seconds to start up, and peak memory over all its processes.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.table import NEEDED, table
from benchmarks.training.marks import read
from benchmarks.training.process_tree import watched
from benchmarks.training.timing import Training, figures, simulator
from gipo.commands.studies.fifty.rivals import RIVALS
from gipo.common.errors import UserError, nearest
from gipo.common.parsing import SEEDS, whole

ROOT = Path(__file__).parents[2]
PROGRAM = "python -m benchmarks.peers"
CLOCK = "benchmarks.peers.gipo_run.TimedEvaluations"
PEERS = {"gipo": "`gipo fit`, the default recipe", **{name: rival.what for name, rival in RIVALS.items()}}

DEFAULT = ["gipo", "ppo", "ppo_processes", "sbx_sac"]  # SBX's SAC took 0.6 of the processor time of the other


def build_parser() -> argparse.ArgumentParser:
    """The options of the command, with what each peer is."""
    named = "\n".join(f"  {name:14} {what}" for name, what in PEERS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=f"{__doc__}\npeers:\n{named}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", default="reach-v3", help="a MetaWorld task (%(default)s)")
    add("--seeds", type=whole(0, SEEDS), nargs="+", default=[0], help="one run each, of every peer in turn (0)")
    add("--peers", nargs="+", default=DEFAULT, metavar="PEER", help=f"some of those above ({' '.join(DEFAULT)})")
    add("--steps", type=whole(1, 10**10), default=120_000, help="environment steps of a run at most (%(default)s)")
    add("--until", type=float, default=0.9, help="success that ends a run; above 1 none does (%(default)s)")
    add("--cores", type=whole(1, 1024), default=2, help="cores that all processes of a run share (%(default)s)")
    add("--threads", type=whole(1, 1024), default=1, help="threads of a rival's matrix products in torch (%(default)s)")
    add("--output", type=Path, default=Path("peers.jsonl"), help="file to append to (%(default)s)")
    add("--table", type=Path, metavar="FILE", help="run nothing; print a table of the lines in FILE")
    add("options", nargs="*", metavar="-- OPTION", help="options of `gipo fit`, after --, beside the default recipe")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Entry every peer with every seed, or tabulate what has been run; exits with 2 where that is not possible."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    try:
        command(given)
    except UserError as error:
        parser.error(str(error))


def command(given: argparse.Namespace) -> None:
    """Print and keep the figures of every run, or the table of those that are kept.

    Raises:
        UserError: naming a peer that cannot be run, a run that failed or a file that cannot be read.
    """
    if given.table is not None:
        print(table(kept(given.table)))
        return
    refuse(given.peers)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    for found in measure(given):
        line = json.dumps(found)
        print(line, flush=True)
        with open(given.output, "a") as file:  # line by line: what is measured stays when a later run fails
            file.write(line + "\n")


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Figures of one run after the other, peers in turn."""
    for seed in given.seeds:
        for peer in given.peers:
            with tempfile.TemporaryDirectory() as folder:
                yield measure_one(peer, seed, given, Path(folder))


def measure_one(peer: str, seed: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one run, whose files lie in `folder`."""
    marks, load = folder / "marks.jsonl", os.getloadavg()[0]  # load of the last minute: something else was running
    threads = {} if peer == "gipo" else {"OMP_NUM_THREADS": str(given.threads)}
    words = _ours(seed, given, marks, folder) if peer == "gipo" else _theirs(peer, seed, given, marks)
    usage = watched([sys.executable, *words], ROOT, folder / "log", os.environ | threads)
    training = Training(read(marks), usage.started)
    steps_to, seconds_to = training.first(given.until)
    return {
        "peer": peer,
        "version": importlib.metadata.version("gipo" if peer == "gipo" else RIVALS[peer].distribution),
        "task": given.task,
        "seed": seed,
        "options": given.options if peer == "gipo" else [],
        "simulator": simulator(folder / "run") if peer == "gipo" else "python",
        "steps_to": steps_to,
        "seconds_to": seconds_to,
        **figures(training, usage),
        "evaluations": training.evaluations(),
        "cores": given.cores,
        "threads": None if peer == "gipo" else given.threads,
        "load_average_before": load,
    }


def _ours(seed: int, given: argparse.Namespace, marks: Path, folder: Path) -> list[str]:
    """The default recipe on the task, evaluated by the callback instead of by itself."""
    clock = {"file": marks, "task": given.task, "until": given.until}
    return [
        "-m", "gipo.cli", "fit", f"--data.task={given.task}", f"--seed_everything={seed}",
        f"--data.total_frames={given.steps}", f"--trainer.default_root_dir={folder / 'run'}",
        "--trainer.enable_progress_bar=false",
        f"--trainer.check_val_every_n_epoch={given.steps}",  # never
        f"--trainer.callbacks+={CLOCK}", *(f"--trainer.callbacks.{name}={value}" for name, value in clock.items()),
        *given.options,
    ]  # fmt: skip


def _theirs(peer: str, seed: int, given: argparse.Namespace, marks: Path) -> list[str]:
    settings = [peer, given.task, seed, given.steps, given.until, marks]
    return ["-m", "benchmarks.peers.rival_run", *map(str, settings)]


def refuse(peers: list[str]) -> None:
    """Raise a UserError that names a peer that does not exist, or is not installed."""
    for peer in peers:
        if peer not in PEERS:
            raise UserError(f"--peers has no {peer!r}; nearest: {nearest(peer, PEERS)}")
        if peer in RIVALS and importlib.util.find_spec(RIVALS[peer].package) is None:
            raise UserError(
                f"{peer} needs {RIVALS[peer].distribution}, which is not installed: pip install -c constraints.txt "
                "'.[peers]'; or leave it out, as in --peers gipo"
            )


def kept(file: Path) -> list[dict[str, Any]]:
    """The runs in a file, a line each.

    Raises:
        UserError: when it cannot be read, or a line is of no run.
    """
    try:
        runs = [json.loads(line) for line in file.read_text().splitlines()]
    except OSError as error:
        raise UserError(f"--table={file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"--table={file} is not what --output wrote: {error}") from error
    for number, run in enumerate(runs, 1):
        if not isinstance(run, dict) or (missing := NEEDED - run.keys()):
            lacking = f"lacks {', '.join(sorted(missing))}" if isinstance(run, dict) else "is no object"
            raise UserError(f"--table={file} is not what --output wrote: line {number} {lacking}")
    return runs


if __name__ == "__main__":
    main()
