"""Runs in processes forked from one that has imported everything: short ones by the hundred start at once."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from gipo.commands.studies.pipeline.once import is_done, once
from gipo.commands.studies.pipeline.processes import BAR_SECONDS, PATIENCE, how_it_ended, tail
from gipo.commands.studies.pipeline.versions import IN_FLOAT32, UNCOPIED, OneVersion
from gipo.common import boundary
from gipo.common.errors import UserError

# Of a run that has a core to itself. Nothing is saved before its end, as a checkpoint begins all episodes anew: a run
# that was interrupted is made from its beginning.
ALONE = (
    "data.collector.workers=0", "trainer.logger=false", "trainer.enable_progress_bar=false", "checkpoint.every=1000000",
)  # fmt: skip
IMPORTED = ["gipo.commands.fit.cli", "metaworld.env_dict", "lightning.pytorch", "torchrl.collectors"]
FIT = "fit"  # what `once` knows a run of `gipo fit` by


class Forks:
    """Functions that run in processes of their own.

    They end together: none begins once `end` is called, and none goes on where the study was ended, by whatever it was.
    They are killed: asked to end, a run would save where it stands, and what goes on from there has other episodes than
    a run that nobody stopped.

    Args:
        imported: modules that all of them need (IMPORTED).
        asked: ask them to end, as what drives a robot must be, and kill only those that do not.
    """

    def __init__(self, imported: Sequence[str] | None = None, asked: bool = False) -> None:
        self._ending = signal.SIGTERM if asked else signal.SIGKILL
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(IMPORTED if imported is None else imported))
        self._lock = threading.Lock()
        self._running: set[ForkServerProcess] = set()
        self._ended = False
        self._version = OneVersion()

    def run(self, folder: Path, function: Callable[..., int | None], *args: object) -> None:
        """Call a function in a process of its own; what it says goes to a file beside `folder`, which is its work's.

        What it returns is the exit code of its process; None is 0.

        Raises:
            UserError: when it fails, with the end of what it said; or the study has ended.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        output = Path(f"{folder}.txt")
        process = self._context.Process(target=_called, args=(output, self._ending, function, *args))
        with self._lock:
            self._refuse_when_ended()
            process.start()
            self._running.add(process)
        process.join()
        with self._lock:
            self._running.discard(process)
            if process.exitcode:
                self._refuse_when_ended()
        if process.exitcode:
            raise UserError(f"a run {how_it_ended(process.exitcode)}; {output} ends with:\n{tail(output)}")

    def fit(self, folder: Path, options: Sequence[str], of: Sequence[str] = ()) -> None:
        """A run of `gipo fit` in `folder`, resumed where it was interrupted; none where it has come to its end.

        Args:
            folder: of the run.
            options: of `gipo fit`.
            of: what made that which the run starts from; of another it is another run.

        Raises:
            OtherVersion: when it differs from another of these runs in what no option says.
            UserError: when it fails, or the folder is of a run with other options; or the study has ended.
        """
        if not is_done(folder, FIT, [*options, *of]):
            self.run(folder, _fit, folder, options, of)
        self._version.add(folder, options)

    def end(self, patience: float = 0.0) -> None:
        """End the runs, at once, and let none begin."""
        with self._lock:
            self._ended, running = True, list(self._running)
        for process in running:
            (process.kill if self._ending == signal.SIGKILL else process.terminate)()  # nothing, of one that has ended
        deadline = time.monotonic() + PATIENCE
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()

    def _refuse_when_ended(self) -> None:
        if self._ended:
            raise UserError("the study has ended")


def _fit(folder: Path, options: Sequence[str], of: Sequence[str]) -> None:
    last = folder / "checkpoints" / "last.ckpt"

    def work(_: int) -> None:
        from gipo.cli import main

        begun = ("--config", str(folder / "config.yaml"), f"--ckpt_path={last}")
        more = begun if last.exists() else (IN_FLOAT32, UNCOPIED, *options)
        main(["fit", *more, f"--trainer.default_root_dir={folder}"])

    once(folder, FIT, [*options, *of], work, fresh=True, keep=last)


def _called(output: Path, ending: int, function: Callable[..., int | None], *args: object) -> None:
    """In the new process: what the function says goes to a file."""
    os.setsid()  # Ctrl-C is the study's; and the scheduler has none pay for what runs beside it
    threading.Thread(target=_end_with_the_study, args=(ending,), daemon=True).start()
    os.environ.setdefault("TQDM_MININTERVAL", BAR_SECONDS)
    _have_one_core()
    tqdm.set_lock(threading.RLock())  # else all runs share one, and none goes on where the one that has it is killed
    with open(output, "w") as file:
        for standard in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), standard.fileno())
    sys.exit(boundary.run("gipo-study", lambda _: function(*args), []))


def _have_one_core() -> None:
    """Compute on one thread, unless the environment says how many: as `gipo fit`, so also what others offer."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # read where torch is imported from here on
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)


def _end_with_the_study(ending: int) -> None:
    """End this process once the study is no more, as `Forks.end` does."""
    study = multiprocessing.parent_process()
    assert study is not None  # which only the first process has not
    study.join()
    os.kill(os.getpid(), ending)
