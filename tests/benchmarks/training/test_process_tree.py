"""All processes of a command are watched, not the first alone."""

import sys
from types import SimpleNamespace

import pytest

from benchmarks.training import process_tree
from benchmarks.training.process_tree import Usage, watched
from gipo.common.errors import UserError

# The child holds 64 MiB and is busy for half a second, its parent only waits.
BUSY = "import time; x = b'1' * (64 << 20); end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


def test_memory_and_processor_time_of_a_child_count(tmp_path) -> None:
    usage = watched([sys.executable, "-c", PARENT], tmp_path, tmp_path / "log", every=0.02)
    assert 64 < usage.peak_mib < 150
    assert 0.4 < usage.processor[-1] < 5
    assert usage.processor_seconds(usage.started, usage.at[-1]) == pytest.approx(usage.processor[-1], abs=0.1)


def test_memory_that_processes_share_counts_once(tmp_path) -> None:
    # both hold the same 64 MiB: those of the parent before it forked
    share = "import os, time; x = b'1' * (64 << 20); pid = os.fork(); time.sleep(0.5)"
    usage = watched([sys.executable, "-c", share], tmp_path, tmp_path / "log", every=0.02)
    assert 64 < usage.peak_mib < 128  # counted twice it would be more


def test_a_sample_in_which_a_process_ends_does_not_count(monkeypatch) -> None:
    class Member:
        def __init__(self, *children: list) -> None:
            self.listed = iter(children)

        def children(self, recursive: bool) -> list:
            return next(self.listed)

        def cpu_times(self) -> SimpleNamespace:
            return SimpleNamespace(user=1.0, system=0.0, children_user=0.0, children_system=0.0)

        def memory_full_info(self) -> SimpleNamespace:
            return SimpleNamespace(pss=64 << 20, uss=64 << 20, rss=70 << 20)

    usage, child = Usage(0.0), Member([])
    process_tree._sample(Member([child], []), usage)  # there before the memory was read, and gone after
    assert usage.at == []
    process_tree._sample(Member([child], [child]), usage)
    assert usage.memory == [(64 + 64 + 6) << 20]


def test_processor_time_lies_between_samples() -> None:
    usage = Usage(0.0, [0.0, 10.0, 20.0], [1, 1, 1], [0.0, 10.0, 30.0])
    assert usage.processor_seconds(5.0, 15.0) == 15.0


def test_a_command_that_fails_is_told_with_its_last_line(tmp_path, capsys) -> None:
    with pytest.raises(UserError, match=r"ended with 3: the reason"):
        watched([sys.executable, "-c", "print('first\\nthe reason'); raise SystemExit(3)"], tmp_path, tmp_path / "log")
    assert "first" in capsys.readouterr().err
