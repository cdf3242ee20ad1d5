"""ONNX Runtime as a policy uses it: one thread, no noise on the terminal, bounded memory."""

import contextlib
import re
import threading
from collections.abc import Iterator

import numpy as np
import onnxruntime

from deploy.runtime.layout import Layout
from gipo.common.errors import UserError, first_line

MAX_MEMORY = 1 << 30  # bytes of tensors, for all policies of a process together
# Rows run at once. A long batch costs time, not memory; and int8 scales its activations over all rows of a run, so
# that a row's answer would depend on its neighbours: there each row goes alone.
MOST_ROWS = {"float32": 4096, "int8": 1}
VISION_ROWS, VISION_PIXELS = 64, 1 << 22  # images take more memory than vectors, with all that is made of them
# In messages of ONNX Runtime: the versions of a file that is newer, and the C++ function that complains.
_IR = re.compile(r"model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.* till opset (\d+)")
_SOURCE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])")

_arena_lock = threading.Lock()
_arena_made = False


def rows_at_once(precision: str, layout: Layout) -> int:
    """How many rows a policy is asked about together."""
    if layout.vision is None:
        return MOST_ROWS[precision]
    return min(MOST_ROWS[precision], VISION_ROWS, max(1, VISION_PIXELS // layout.vision.pixels))


def run(
    session: onnxruntime.InferenceSession,
    names: tuple[str, ...],
    rows: np.ndarray,
    noise: np.ndarray,
    at_once: int,
    layout: Layout,
    options: onnxruntime.RunOptions | None = None,
) -> list[np.ndarray]:
    """The named outputs [B, K] for observation [B, R] and noise [B, K], `at_once` rows together.

    `options` are ONNX Runtime's, by which another thread may end it.

    Raises:
        UserError: when the graph cannot be run.
    """
    try:
        if len(rows) <= at_once:
            return [layout.flat(value) for value in session.run(names, layout.feeds(rows, noise), options)]
        cuts = range(at_once, len(rows), at_once)
        parts = zip(np.split(rows, cuts), np.split(noise, cuts), strict=True)
        runs = [session.run(names, layout.feeds(part, drawn), options) for part, drawn in parts]
    except Exception as error:  # ONNX Runtime's own errors share no base class below Exception
        raise UserError(f"the policy cannot be run: {_reason(error)}") from error
    return [layout.flat(np.concatenate(values)) for values in zip(*runs, strict=True)]


@contextlib.contextmanager
def ending(options: onnxruntime.RunOptions, seconds: float, what: str) -> Iterator[None]:
    """Have runs with these options end where they are not done after so many seconds.

    Raises:
        UserError: saying that `what` takes longer.
    """
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    except UserError as error:
        if options.terminate:
            raise UserError(f"{what} took more than {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        timer.join()  # so that it does not end a run that comes after these
        options.terminate = False


def new_session(data: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session that neither spins, nor prints, nor takes more than MAX_MEMORY for its tensors.

    Raises:
        UserError: when ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; nothing else belongs on a robot's terminal
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    _bound_memory()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise UserError(f"ONNX Runtime refuses the graph: {_reason(error)}") from error


def _bound_memory() -> None:
    """Give ONNX Runtime one bounded arena, so that a hostile graph fails instead of filling the robot's memory."""
    global _arena_made
    with _arena_lock:
        if _arena_made:
            return
        where = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        # Where the program has already registered an arena of its own, that one's limit holds.
        with contextlib.suppress(RuntimeError):
            onnxruntime.create_and_register_allocator(where, onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY}))
        _arena_made = True


def _reason(error: Exception) -> str:
    """What ONNX Runtime says, without the place in its source; which versions do not meet, where that is it."""
    line = first_line(error)
    for versions, what in ((_IR, "IR version"), (_OPSET, "opset")):
        if found := versions.search(line):
            of_file, of_runtime = found.groups()
            return (
                f"the file has {what} {of_file}, onnxruntime {onnxruntime.__version__} reads up to {of_runtime}; "
                "upgrade onnxruntime on this machine"
            )
    return _SOURCE.sub("", line)[:300]
