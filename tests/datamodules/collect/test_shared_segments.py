"""Segments in shared memory: what one process writes another reads, and nothing has a name."""

import os
from multiprocessing import get_context

import torch
from tensordict import TensorDict

from datamodules.collect.shared_segments import ALIGNMENT, SharedSegments, layout_of


def segment(offset: float = 0.0) -> TensorDict:
    frames = {
        "observation": {
            "image": torch.arange(5 * 3 * 2, dtype=torch.uint8).reshape(5, 3, 2),
            "state": torch.ones(5, 7),
        },
        "log_prob": torch.arange(10.0).reshape(5, 2) + offset,
        "valid": torch.tensor([True, False, True, True, False]),
        "next": {"reward": torch.full((5,), 2.5 + offset), "done": torch.zeros(5, dtype=torch.bool)},
    }
    return TensorDict(frames, batch_size=[5])


def test_segments_of_all_kinds_are_read_as_they_were_written() -> None:
    shared = SharedSegments(layout_of(segment(), 2))
    shared[0].update_(segment())
    shared[1].update_(segment(1.0))
    for place, expected in ((0, segment()), (1, segment(1.0))):
        assert set(shared[place].keys(True, True)) == set(expected.keys(True, True))
        assert (shared[place] == expected).all()
        assert all(value.dtype == expected[key].dtype for key, value in shared[place].items(True, True))


def test_entries_begin_on_cache_lines_of_their_own() -> None:
    layout = layout_of(segment(), 3)
    offsets = [column.offset for column in layout.columns]
    assert offsets == sorted(set(offsets))
    assert all(offset % ALIGNMENT == 0 for offset in [*offsets, layout.size])
    ends = [column.offset + column.dtype.itemsize * torch.Size(column.shape).numel() for column in layout.columns]
    assert all(end <= following for end, following in zip(ends, [*offsets[1:], layout.size], strict=True))


def test_another_process_sees_what_is_written_and_the_memory_outlives_its_handle() -> None:
    shared = SharedSegments(layout_of(segment(), 1))
    shared[0].update_(segment())

    def write() -> None:
        there = SharedSegments(layout_of(segment(), 1), os.dup(shared.descriptor))
        there.close()
        there[0].update_(segment(3.0))

    process = get_context("fork").Process(target=write)
    process.start()
    process.join()
    shared.close()
    assert process.exitcode == 0
    assert (shared[0] == segment(3.0)).all()


def test_the_memory_has_no_name() -> None:
    before = set(os.listdir("/dev/shm"))
    shared = SharedSegments(layout_of(segment(), 2))
    assert set(os.listdir("/dev/shm")) == before
    assert os.readlink(f"/proc/self/fd/{shared.descriptor}").startswith("/memfd:")
