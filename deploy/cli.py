"""`gipo-deploy`: export a policy, and look at, check, time and compare artifacts.

Only `export`, and `serve` of a checkpoint, need torch.
"""

import argparse
import contextlib
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy import bench, report
from deploy.runtime import compare
from deploy.runtime.acting import ActingPolicy
from deploy.runtime.check import MAX_BYTES, check_file
from deploy.runtime.identity import file_id
from deploy.runtime.layout import Layout
from deploy.runtime.place import refuse_place
from deploy.runtime.policy import OnnxPolicy
from gipo.common import boundary
from gipo.common.errors import UserError
from gipo.common.files import refuse_to_replace
from gipo.common.parsing import Parser, number, whole, words
from gipo.common.reading import read_bytes, read_text
from gipo.common.signals import Listener
from gipo.common.tables import pairs
from gipo.common.transition import MAX_CONTROL_RATE
from robots.spec import RobotSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 after one line of error; the boundary lists the other codes."""
    return boundary.run("gipo-deploy", _command, arguments)


def _command(arguments: list[str]) -> None:
    parsed = build_parser().parse_args(arguments)
    parsed.run(parsed)


def _export(options: argparse.Namespace) -> None:
    from deploy.export.artifact import export

    refuse_to_replace(options.out, ".onnx")
    refuse_place(options.out)
    before = file_id(options.out) if Path(options.out).is_file() else None
    done = export(options.checkpoint, options.out, options.rate, options.quantize, robot=_robot(options))
    print(report.exported(done, options.out, before))


def _check(options: argparse.Namespace) -> None:
    def passed(name: str, found: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever reads has seen enough; the exit code still needs the rest
            print(f"  ok  {name:<10}  {found}", flush=True)

    OnnxPolicy.load(options.file, options.require_id, report=passed)


def _info(options: argparse.Namespace) -> None:
    artifact = check_file(options.file, options.require_id)
    print(artifact.manifest.to_json() if options.json else report.info(artifact))


def _bench(options: argparse.Namespace) -> None:
    before = bench.resident_bytes()
    policy = OnnxPolicy.load(options.file, options.require_id, options.threads)
    grown = bench.resident_bytes() - before
    steps, names = [bench.decision(policy)], ["onnxruntime"]
    eager = bench.eager_decision(policy)
    if eager is not None:
        steps, names = [*steps, eager], [*names, "torch eager"]
    measured = bench.latencies(steps, options.count)
    print(report.latencies(zip(names, measured, strict=True)))
    rows = [("p99 / p50", f"{measured[0].p99 / measured[0].p50:.2f}")]
    if eager is not None:
        rows.append(("p50 against torch eager", f"{measured[0].p50 / measured[1].p50:.2f}"))
    rows.append(("loads per second", f"{bench.loads_per_second(options.file):.1f}, every check included"))
    rows.append(("memory of one policy", f"{grown / 2**20:.1f} MiB"))
    print(report.section(pairs(rows)))


def _diff(options: argparse.Namespace) -> None:
    first, second = OnnxPolicy.load(options.first), OnnxPolicy.load(options.second)
    if options.observations is not None:
        observations = _read_observations(options.observations, first.manifest.layout)
    else:
        observations = compare.typical_observations(first, options.count)
    found = compare.difference(first, second, observations)
    print(report.distances(found, f"{len(observations)} observations, KL(A‖B)"))


def _serve(options: argparse.Namespace) -> None:
    from deploy.runtime.serving.keys import read_token
    from deploy.runtime.serving.server import PolicyServer

    token = read_token(options.token)
    policy = _served(options)
    with Listener() as signals, PolicyServer(policy, options.bind, token) as server:
        signals.patient = True
        print(f"serving policy {policy.policy_id[:12]}… at {server.address}; Ctrl-C ends it", flush=True)
        server.serve(lambda: signals.heard is not None)
    print(f"answered {server.answered} messages, refused {server.refused}")


def _served(options: argparse.Namespace) -> ActingPolicy:
    """What is asked: an artifact by ONNX Runtime, or a checkpoint by torch."""
    if not (Path(options.file).is_file() and zipfile.is_zipfile(options.file)):  # nobody may write into a pipe
        if any(option is not None for option in (options.rate, options.spec, options.device)):
            raise UserError(f"--rate, --spec and --device are for checkpoints, and {options.file} is none")
        return OnnxPolicy.load(options.file, options.require_id, options.threads or 1)
    from deploy.export.checkpoint_policy import CheckpointPolicy

    if options.threads is not None:
        raise UserError("--threads is for artifacts; of torch, OMP_NUM_THREADS is the number")
    return CheckpointPolicy(
        options.file, options.rate, options.device, require_id=options.require_id, robot=_robot(options)
    )


def _robot(options: argparse.Namespace) -> RobotSpec | None:
    """The robot that a checkpoint's policy is for, where one is named."""
    return None if options.spec is None else RobotSpec.from_json(read_text(options.spec))


def _token(options: argparse.Namespace) -> None:
    from deploy.runtime.serving.keys import write_token

    write_token(options.file)
    print(f"written {options.file}; whoever has it may ask the server: copy it to the robot, and to nobody else")


def _read_observations(path: str, layout: Layout) -> np.ndarray:
    size, data = layout.row_size, read_bytes(path, MAX_BYTES)
    try:
        found = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # the header is text that numpy parses, and may ask for any amount of memory
        raise UserError(f"--observations {path} is no .npy file of numbers: {error}") from error
    numbers = found.ndim == 2 and len(found) > 0 and found.shape[1] == size and found.dtype.kind in "fiu"
    with np.errstate(over="ignore"):  # what does not fit becomes infinite
        rows = found.astype(np.float32) if numbers else found
    if not numbers or not np.isfinite(rows).all():
        allowed = f"finite numbers [B, {size}], B ≥ 1, of float32's range"
        raise UserError(f"--observations {path} is {found.dtype} {found.shape}; it must be {allowed}")
    try:
        layout.refuse_no_bytes(rows)
    except ValueError as error:
        raise UserError(f"--observations {path}: {error}") from error
    return rows


def build_parser() -> Parser:
    """The parser of every command."""
    parser = Parser(prog="gipo-deploy", description=__doc__, epilog=boundary.DEBUG_HELP)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_export(commands.add_parser("export", help="checkpoint → one ONNX file, if torch and ONNX Runtime agree on it"))
    check = commands.add_parser("check", help="every check of an artifact, one a line; exit 2 at the first that fails")
    info = commands.add_parser("info", help="what an artifact says of itself")
    info.add_argument("--json", action="store_true", help="print the manifest instead of tables")
    timing = commands.add_parser("bench", help="latency at batch 1, loads per second, memory")
    timing.add_argument("--count", type=whole(1, 10**7), default=5000, help="decisions timed (default: %(default)s)")
    timing.add_argument(
        "--threads", type=whole(1, 256), default=1, help="threads of ONNX Runtime (default: %(default)s)"
    )
    for command, run in ((check, _check), (info, _info), (timing, _bench)):
        command.add_argument("file", type=words, help="an artifact")
        command.add_argument(
            "--require-id", type=words, metavar="ID", help="policy id it must have, or a file that lists those allowed"
        )
        command.set_defaults(run=run)
    _add_serve(commands)
    _add_diff(commands.add_parser("diff", help="how far artifact B is from artifact A on the same observations"))
    return parser


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=words, help="a checkpoint of gipo")
    parser.add_argument(
        "--out", type=words, required=True, metavar="FILE", help="where to write; appears whole or not at all"
    )
    _add_known(parser)
    parser.add_argument("--quantize", choices=["dynamic"], help="int8 matrix products; the report says what moved")
    parser.set_defaults(run=_export)


def _add_known(parser: argparse.ArgumentParser) -> None:
    """What a person knows of a checkpoint's policy: its rate, or the robot that it is for."""
    rate, known = number(0, MAX_CONTROL_RATE, positive=True), parser.add_mutually_exclusive_group()
    known.add_argument("--rate", type=rate, metavar="HZ", help="control rate, where a checkpoint does not say")
    known.add_argument(
        "--spec", type=words, metavar="FILE",
        help="the robot it is for: its names, units and rate are taken where a checkpoint does not say",
    )  # fmt: skip


def _add_serve(commands: "argparse._SubParsersAction[Parser]") -> None:
    serve = commands.add_parser("serve", help="answer robots over the network, for policies too large for a controller")
    serve.add_argument("file", type=words, help="an artifact, or a checkpoint, which is run by torch")
    serve.add_argument("--token", type=words, required=True, metavar="FILE", help="secret shared with the robots")
    serve.add_argument(
        "--bind", type=words, default="127.0.0.1:5570", metavar="HOST:PORT",
        help="where to listen; 0.0.0.0:PORT for every network of this machine (default: %(default)s)",
    )  # fmt: skip
    serve.add_argument("--require-id", type=words, metavar="ID", help="policy id it must have, or a file of ids")
    serve.add_argument("--threads", type=whole(1, 256), metavar="N", help="of ONNX Runtime, for an artifact (1)")
    _add_known(serve)
    serve.add_argument(
        "--device", type=words, metavar="NAME",
        help="of torch, for a checkpoint: cuda, cpu (a GPU for a large network, where there is one)",
    )  # fmt: skip
    serve.set_defaults(run=_serve)
    token = commands.add_parser("token", help="write a new secret for serve and gipo-robot run")
    token.add_argument("file", type=words, metavar="FILE", help="appears readable by its owner alone")
    token.set_defaults(run=_token)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=words, metavar="A")
    parser.add_argument("second", type=words, metavar="B")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--observations",
        type=words,
        metavar="FILE",
        help=".npy [B, O], or of whole rows [B, R] of a policy that sees; default: drawn as A's normaliser says",
    )
    asked.add_argument("--count", type=whole(1, 10**5), default=1000, help="observations drawn (default: %(default)s)")
    parser.set_defaults(run=_diff)


if __name__ == "__main__":
    sys.exit(main())
