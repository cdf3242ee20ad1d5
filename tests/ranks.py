"""Learners of one run as processes of a test, joined the way torchrun joins them."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

from tests.runs import CONTEXT


def on_ranks(function: Callable[..., Any], *args: Any, ranks: int = 2, seconds: float = 120) -> list[Any]:
    """`function(*args)` on every rank at once; what each returned, in their order."""
    queue, port = CONTEXT.Queue(), free_port()
    started = [
        CONTEXT.Process(target=_on_rank, args=(rank, ranks, port, queue, function, args)) for rank in range(ranks)
    ]
    for process in started:
        process.start()
    try:
        found = dict(queue.get(timeout=seconds) for _ in started)
    finally:
        for process in started:
            process.join(10)
            process.kill()
    for result in found.values():
        assert not isinstance(result, str), result
    return [pickle.loads(found[rank]) for rank in range(ranks)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank; Lightning then starts no processes of its own."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def _on_rank(
    rank: int, ranks: int, port: int, queue: multiprocessing.Queue, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ |= environment(rank, ranks, port)
    import torch

    from tests.tiny_env import register

    torch.set_num_threads(1)
    register()
    try:
        # Pickled here: a queue would pass tensors as handles on memory that is gone when this process is.
        queue.put((rank, pickle.dumps(function(*args))))
    except BaseException:  # a rank says what went wrong, and the test fails with it
        queue.put((rank, traceback.format_exc()))
