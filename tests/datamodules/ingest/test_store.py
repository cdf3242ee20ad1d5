"""A store is made once, whole or not at all, whatever kills its making, and in memory that its sources do not bound."""

import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from datamodules.ingest import IngestOptions, ingest, load_store
from datamodules.ingest import pipeline as build_module
from datamodules.ingest import store as store_module
from datamodules.ingest.hashes import SETTLED_NS, Hashes
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import LogWriter, Session, Step, append_label, labels_path, read_header
from tests.datamodules.ingest.builders import assert_equal_frames, store_of, write_log, write_persons
from tests.robots.builders import make_spec
from tests.runs import within

ROOT = Path(__file__).parents[3]


@pytest.fixture
def logs(token: OnnxPolicy, newer: OnnxPolicy, tmp_path: Path) -> list[Path]:
    """Four logs, long enough for a kill to fall in the midst of them."""
    steps = (200,) * 10
    return [write_log(tmp_path / f"{seed}.mcap", [token, newer], steps, seed) for seed in range(4)]


def settled(*paths: Path) -> None:
    """As if they had been written a minute ago."""
    for path in paths:
        os.utime(path, (time.time() - 60,) * 2)


def test_a_second_start_reads_no_source(
    logs: list[Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(*logs, *folder.iterdir())
    first = store_of(*logs, cache=tmp_path / "cache", policies=folder, workers=2)
    monkeypatch.setattr("datamodules.ingest.hashes.file_id", _never)
    monkeypatch.setattr(build_module, "run_jobs", _never)
    again = store_of(*logs, cache=tmp_path / "cache", policies=folder)
    assert again.path == first.path
    assert_equal_frames(first, again)
    assert {each.name for each in (tmp_path / "cache").iterdir()} == {
        first.path.name,
        f"{first.path.name}.lock",
        "hashes.json",
    }


def _never(*_: object) -> None:
    raise AssertionError("a second start does no work")


def test_workers_change_nothing(logs: list[Path], folder: Path, tmp_path: Path) -> None:
    one = store_of(*logs, cache=tmp_path / "one", policies=folder, workers=1)
    three = store_of(*logs, cache=tmp_path / "three", policies=folder, workers=3)
    assert one.facts == three.facts
    assert_equal_frames(one, three)


def test_what_the_frames_depend_on_changes_the_key(
    token: OnnxPolicy, newer: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    a, b = (write_log(tmp_path / f"{seed}.mcap", [token], seed=seed) for seed in range(2))
    (tmp_path / "none").mkdir()

    def key(*sources: Path, **options: object) -> str:
        return store_of(*sources, **{"cache": tmp_path / "cache", "policies": folder, **options}).facts.key

    known = [
        key(a, b),
        key(b, a),
        key(a),
        key(a, b, audit=0.5),
        key(a, b, audit=0.0),
        key(a, b, bad_episodes="skip"),
    ]
    # Without artifacts all episodes are bad, so that a later ingest with them must not find an earlier one.
    with pytest.raises(UserError, match=r"all 3 episodes are bad, the first: .*no artifact"):
        key(a, bad_episodes="skip", policies=tmp_path / "none")
    assert len(set(known)) == len(known)
    assert key(a, b) == known[0] == key(a, b, workers=2)
    a.rename(tmp_path / "moved.mcap")
    assert key(tmp_path / "moved.mcap", b) == known[0]  # contents, not names


def test_hashes_are_remembered_only_of_files_that_have_settled(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = Hashes(tmp_path).of([path])[path]
    before = os.stat(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))  # same size, same inode, same tick of the clock
    second = Hashes(tmp_path).of([path])[path]
    assert second != first
    settled(path)
    assert Hashes(tmp_path).of([path])[path] == second
    known = Hashes(tmp_path)._known[str(path)]
    assert known[0].mtime_ns < known[1] - SETTLED_NS
    (tmp_path / "hashes.json").write_text("{")
    assert Hashes(tmp_path).of([path])[path] == second
    (tmp_path / "hashes.json").unlink()
    (tmp_path / "hashes.json").mkdir()  # where it cannot be written, as in stores of others, it is forgotten
    assert Hashes(tmp_path).of([path])[path] == second
    assert {each.name for each in tmp_path.iterdir()} == {"a", "hashes.json"}


def test_a_source_that_changes_meanwhile_is_refused(
    token: OnnxPolicy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_log(tmp_path / "a.mcap", [token])
    run = build_module.run_jobs

    def touched(*arguments: object) -> object:
        found = run(*arguments)  # type: ignore[arg-type]
        with open(path, "ab") as file:
            file.write(b"x")
        return found

    monkeypatch.setattr(build_module, "run_jobs", touched)
    with pytest.raises(UserError, match=r"a\.mcap changed while it was read"):
        store_of(path, cache=tmp_path / "cache", policies=folder)
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


def test_a_first_label_that_comes_meanwhile_is_refused(
    token: OnnxPolicy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store would be known as that of the log without labels, and say what they say."""
    path = write_log(tmp_path / "a.mcap", [token])
    run = build_module.run_jobs
    header = read_header(path)
    assert header is not None

    def labelled(*arguments: object) -> object:
        append_label(path, header.session, 0, True, 5.0)
        return run(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(build_module, "run_jobs", labelled)
        with pytest.raises(UserError, match=r"a\.mcap changed while it was read \(.*a\.labels\.jsonl\); ingest it"):
            store_of(path, cache=tmp_path / "cache", policies=folder)
    assert store_of(path, cache=tmp_path / "cache", policies=folder).frames["success"][0] == 1
    labels_path(path).unlink()
    assert store_of(path, cache=tmp_path / "cache", policies=folder).frames["success"][0] != 1


def test_an_error_in_a_worker_leaves_nothing(logs: list[Path], folder: Path, tmp_path: Path) -> None:
    def spoil(episode: int, rows: list[Step]) -> None:
        if episode == 3:
            rows[5].reward = float("nan")

    bad = write_log(tmp_path / "bad.mcap", [OnnxPolicy.load(folder / "token.onnx")], (20,) * 5, 9, change=spoil)
    with pytest.raises(UserError, match=r"bad\.mcap, episode 3, step 5: reward is not finite"):
        store_of(*logs, bad, cache=tmp_path / "cache", policies=folder, workers=2)
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]
    assert not workers_of(os.getpid())


def test_a_worker_that_is_killed_is_an_error(
    logs: list[Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_one() -> None:
        deadline = time.monotonic() + 30
        while not (found := workers_of(os.getpid())) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(found[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    with pytest.raises(UserError, match=r"the process that read .*\.mcap ended \(exit code -9\)"):
        store_of(*logs, cache=tmp_path / "cache", policies=folder, workers=2)
    thread.join()
    assert not workers_of(os.getpid())


def workers_of(process: int | None = None) -> list[int]:
    """Workers of an ingest that are alive, as children of a process or of any."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            state = (each / "stat").read_text().rpartition(")")[2].split()[0]
            named = b"datamodules.ingest.worker" in (each / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if named and state != "Z" and process in (None, parent):
            found.append(int(each.name))
    return found


def forked(action: Callable[[], object]) -> int:
    """A process that runs it and ends; this one works in one thread, so that a fork is safe and saves imports."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        tqdm.set_lock(threading.RLock())  # else all processes share one, and who is killed may have it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{each}").exists() for each in processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [each for each in processes if Path(f"/proc/{each}").exists()]


def half_made(cache: Path) -> list[Path]:
    """Stores that were begun and not ended; the index of hashes is written beside them, and is a file."""
    return [each for each in cache.glob("*.partial") if each.is_dir()]


def wait_until_half_made(cache: Path) -> None:
    deadline = time.monotonic() + 30
    while not half_made(cache) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert half_made(cache)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.campaign)])
def test_killed_ingests_leave_nothing_half_made(kills: int, logs: list[Path], folder: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = store_of(*logs, cache=tmp_path / "whole", policies=folder, workers=2)
    duration = time.monotonic() - began
    chance, cache = random.Random(kills), tmp_path / "cache"
    interrupted = 0
    for attempt in range(kills):
        child = forked(lambda: store_of(*logs, cache=cache, policies=folder, workers=2))
        wait_until_half_made(cache)
        time.sleep(chance.uniform(0, 1) * duration * bool(attempt))  # the first time as soon as it has begun
        workers = workers_of(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        wait_until_gone(workers)
        left = [each for each in cache.iterdir() if each.is_dir()]
        interrupted += bool(half_made(cache))
        for each in left:
            if each.suffix != ".partial":
                assert_equal_frames(load_store(each), whole)
                for path in sorted(each.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                each.rmdir()
    assert interrupted
    again = store_of(*logs, cache=cache, policies=folder, workers=2)
    assert again.facts == whole.facts
    assert_equal_frames(again, whole)
    assert not list(cache.glob("*.partial"))


def test_ctrl_c_leaves_no_process_and_no_folder(logs: list[Path], folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    child = forked(lambda: store_of(*logs, cache=cache, policies=folder, workers=2))
    deadline = time.monotonic() + 30
    while len(workers := workers_of(child)) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    for worker in workers:  # so that the ingest cannot be done before the signal comes
        os.kill(worker, signal.SIGSTOP)
    wait_until_half_made(cache)
    # A thread for each worker, and so the child knows both; one that it does not know yet would end as its input does.
    assert within(30, lambda: len(os.listdir(f"/proc/{child}/task")) == 3)
    os.kill(child, signal.SIGINT)
    assert len(workers) == 2
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    wait_until_gone(workers)
    assert not [each for each in cache.iterdir() if each.is_dir()]


def test_an_interrupt_while_jobs_are_handed_out_waits_for_nobody(
    logs: list[Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(ThreadPoolExecutor):
        """Ctrl-C when the first job is with a worker that does not answer."""

        def submit(self, ask: Any, *args: Any, **options: Any) -> Any:
            if self._threads:
                raise KeyboardInterrupt
            started.extend(ask._all)
            for worker in started:
                worker.send_signal(signal.SIGSTOP)
            return super().submit(ask, *args, **options)

    monkeypatch.setattr("datamodules.ingest.pool.ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        store_of(*logs, cache=tmp_path / "cache", policies=folder, workers=2)
    assert len(started) == 2
    assert all(worker.returncode == -signal.SIGKILL for worker in started)


def test_two_that_want_the_same_store_make_it_once(logs: list[Path], folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    children = [forked(lambda: store_of(*logs, cache=cache, policies=folder)) for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert len([each for each in cache.iterdir() if each.is_dir()]) == 1


def test_what_another_process_uses_is_not_removed(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "other.partial").mkdir(parents=True)
    (cache / "dead.partial").mkdir()
    code = "import fcntl, sys\nfile = open(sys.argv[1], 'ab')\nfcntl.flock(file, 2)\nprint(flush=True)\ninput()"
    command = [sys.executable, "-c", code, cache / "other.lock"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    store_of(write_log(tmp_path / "a.mcap", [token]), cache=cache, policies=folder)
    assert (cache / "other.partial").exists()
    assert not (cache / "dead.partial").exists()
    holder.communicate(b"\n")


def test_a_file_that_was_cut_is_refused_and_not_filled_with_zeros(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    """As root, whom no mode holds back, a map of it would be as long as it was, and zeros a log-prob of none."""
    log = write_log(tmp_path / "a.mcap", [token])
    store = store_of(log, cache=tmp_path / "cache", policies=folder)
    files = sorted((store.path / "frames").rglob("*.memmap"))
    assert {"log_prob.memmap", "reward.memmap"} < {file.name for file in files}
    for file in files:
        whole = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=rf"the store .* is damaged \(ValueError {file.stem}.memmap has"):
            load_store(store.path)
        assert file.stat().st_size == len(whole) // 2
        file.unlink()
        with pytest.raises(UserError, match=r"the store .* is damaged \(FileNotFoundError"):
            load_store(store.path)
        file.write_bytes(whole)
    assert len(load_store(store.path).frames) == len(store.frames)


def test_a_store_that_is_spoilt_is_refused(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token])
    store = store_of(log, cache=tmp_path / "cache", policies=folder)
    (store.path / "store.json").write_text("{}")
    with pytest.raises(UserError, match=r"the store .* is damaged .* delete it"):
        store_of(log, cache=tmp_path / "cache", policies=folder)


def test_the_default_cache_is_where_caches_are(
    token: OnnxPolicy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    store = ingest(str(write_log(tmp_path / "a.mcap", [token])), IngestOptions(policies=folder), progress=False)
    assert store.path.parent == tmp_path / "xdg" / "gipo"
    with pytest.raises(UserError, match=r"name another folder with data\.ingest\.cache"):
        store_of(tmp_path / "a.mcap", cache=tmp_path / "a.mcap" / "x", policies=folder)


def test_a_store_names_its_sources_where_they_are_now(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "usb", tmp_path / "nas 2"
    logs = [write_log(old / f"{name}.mcap", [token], seed=seed) for seed, name in enumerate(["a b", "a"])]
    for log in logs:
        os.truncate(log, log.stat().st_size - 600)
    before = store_of(old, cache=tmp_path / "cache", policies=folder)
    assert [note.partition(" is torn")[0] for note in before.facts.notes] == list(map(str, logs))
    old.rename(new)
    now = store_of(new, cache=tmp_path / "cache", policies=folder)
    assert now.path == before.path
    assert [each.path for each in now.facts.sources] == [str(new / log.name) for log in logs]
    assert [note.partition(" is torn")[0] for note in now.facts.notes] == [str(new / log.name) for log in logs]


@pytest.mark.parametrize(("number", "advised"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.EIO, False)])
def test_a_disk_without_room_for_a_store_names_the_way_out(
    number: int, advised: bool, token: OnnxPolicy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    log = write_log(tmp_path / "a.mcap", [token])
    monkeypatch.setattr(build_module, "run_jobs", refuse)
    with pytest.raises(UserError, match=os.strerror(number)) as refused:
        store_of(log, cache=tmp_path / "cache", policies=folder)
    assert str(refused.value).endswith("; name another folder with data.ingest.cache") == advised


def test_files_of_a_store_are_not_to_be_written(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    store = store_of(write_log(tmp_path / "a.mcap", [token]), cache=tmp_path / "cache", policies=folder)
    files = list(store.path.rglob("*.memmap"))
    assert len(files) == len(set(store.frames.keys(True, True)))
    assert {path.stat().st_mode & 0o222 for path in files} == {0}


def test_memory_stays_far_below_the_size_of_the_log(tmp_path: Path) -> None:
    size, steps, allowed = 200, 500, 24 << 20
    names = {"observation_names": tuple(f"s{i}" for i in range(size)), "observation_units": ("m",) * size}
    spec = make_spec(**names, observation_low=(-10.0,) * size, observation_high=(10.0,) * size)
    seen = np.random.default_rng(0).standard_normal((steps, size)).astype(np.float32)
    action, log_prob = np.zeros(3, np.float32), np.full(3, -1, np.float32)
    writer = LogWriter(tmp_path / "a.mcap", Session(spec.to_json()), capacity=1000)
    for episode in range(90):
        for t in range(steps):
            row = Step(episode, t, t, t, seen[t], np.zeros(3, int), action, action, log_prob, 7, valid=False)
            while not writer.step(row):
                time.sleep(0.001)
    writer.close()
    assert writer.path.stat().st_size > allowed

    def limited() -> None:
        status = Path("/proc/self/status").read_text().splitlines()
        used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (used + allowed,) * 2)
        making = build_module.Plan([writer.path], IngestOptions(cache=tmp_path, workers=1))
        (tmp_path / "work").mkdir()
        making.make(tmp_path / "work", tmp_path / "store", progress=False)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(limited), 0)[1]) == 0
    store = load_store(tmp_path / "store")
    assert store.facts.steps == 90 * (steps - 1)  # the log names no final observations
    assert sum(path.stat().st_size for path in store.path.rglob("*.memmap")) > 2 * allowed


def test_descriptors_do_not_grow_with_the_number_of_logs(tmp_path: Path) -> None:
    """Months of sessions are as many files, and a process may often open no more than 1,024."""
    for number in range(30):
        write_persons(tmp_path / "logs" / f"{number}.mcap", steps=(3,))

    def limited() -> None:
        opened = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 60,) * 2)
        ingest(tmp_path / "logs", IngestOptions(cache=tmp_path / "cache", workers=1), progress=False)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(limited), 0)[1]) == 0
    assert store_of(tmp_path / "logs", cache=tmp_path / "cache").facts.steps == 90


def test_the_space_of_a_file_that_is_mapped_is_taken_before_it_is_written(tmp_path: Path) -> None:
    """A full disk is an error then, and no SIGBUS later."""
    file = tmp_path / "sparse"
    with open(file, "wb") as found:
        found.truncate(1 << 20)
    assert file.stat().st_blocks * 512 < 1 << 20
    store_module.reserve(file)
    assert file.stat().st_blocks * 512 >= 1 << 20
    assert file.stat().st_size == 1 << 20


def test_frames_for_which_a_disk_has_no_room_are_an_error_of_the_disk(tmp_path: Path) -> None:
    """Torch, which makes their files, raises what else a fault of ours would be."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match=f"{re.escape(os.strerror(errno.EFBIG))}.*frames"):
            store_module.allocate(tmp_path / "frames", {}, 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("ended", "cut", "parts"),
    [
        (True, slice(0, 0), ()),
        (False, slice(0, 0), ()),  # stopped amid a command, whose outcome nobody saw
        (None, slice(0, 0), (0, 1, 2)),  # torn: the log does not say that they ended
        (True, slice(-3, None), (0, 1, 2)),  # the last steps were dropped
        (True, slice(0, 2), (0, 1, 2)),  # the first
    ],
)
def test_episodes_of_which_a_log_has_only_parts_are_named(
    tmp_path: Path, token: OnnxPolicy, ended: bool | None, cut: slice, parts: tuple[int, ...]
) -> None:
    def change(episode: int, rows: list[Step]) -> None:
        del rows[cut]

    log = write_log(tmp_path / "a.mcap", [token], change=change, ended=ended)
    assert ingest([log], IngestOptions(audit=0, cache=tmp_path / "cache")).facts.parts == parts


def test_episodes_that_were_driven_again_with_the_same_noise_are_named(tmp_path: Path, token: OnnxPolicy) -> None:
    """As by a simulated robot whose command is typed twice: they tell no more than once."""

    def change(episode: int, rows: list[Step]) -> None:
        rows[-1].reward += episode == 2  # what came of it is another

    def ingested(*logs: Path) -> tuple[tuple[int, ...], list[str]]:
        facts = ingest(logs, IngestOptions(audit=0, cache=tmp_path / "cache")).facts
        return facts.copies, [note for note in facts.notes if "noise" in note]

    first = write_log(tmp_path / "a.mcap", [token], noise="of 0 ")
    again = write_log(tmp_path / "b.mcap", [token], noise="of 0 ", change=change)
    append_label(again, read_header(again).session, 0, True, None)  # type: ignore[union-attr]
    other = write_log(tmp_path / "c.mcap", [token], noise="of 1 ")
    copies, notes = ingested(first, again, other)
    assert copies == (3, 4)
    assert notes == [
        f"2 of 9 episodes are copies of others, from the same noise, such as {again}, episode 0: they count twice. "
        "Go on with --first or another --seed"
    ]
    unsaid = [write_log(tmp_path / f"{name}.mcap", [token]) for name in "de"]  # by chance, as nobody says otherwise
    assert ingested(*unsaid) == ((), [])
