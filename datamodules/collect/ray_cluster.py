"""The Ray runtime of a run: joined or started quietly, and left as it was found."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from math import ceil
from types import ModuleType

from gipo.common.errors import UserError, first_line
from gipo.common.extras import install
from gipo.common.interpreter import cores


class RayCluster:
    """A connection to Ray: to the cluster at `address`, or to one started here for the run and ended with it.

    Args:
        address: `host:port` of a cluster's head, `auto` for the one this machine belongs to, None to start one here.
        cpus: cores that a cluster started here counts, so that it places this many one-core actors.

    Raises:
        UserError: when Ray is not installed or there is no cluster at `address`.
    """

    def __init__(self, address: str | None, cpus: float):
        self.ray = _import_ray()
        self._ours = not self.ray.is_initialized()
        if not self._ours:
            return
        if address is not None and address != "auto":
            _refuse_unreachable(address)
        options = {"address": address} if address else {"address": "local", "num_cpus": max(cores(), ceil(cpus))}
        try:
            with _own_sigterm(starts=address is None):
                self.ray.init(
                    **options,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )
        except Exception as error:  # many kinds, by what it could not reach or start
            where = f"reach a cluster at {address!r} (data.collector.ray.address)" if address else "start here"
            raise UserError(f"Ray could not {where}: {first_line(error)}") from error

    @property
    def cores(self) -> str:
        """Free and all cores of the cluster, in words."""
        free, everything = self.ray.available_resources(), self.ray.cluster_resources()
        return f"{free.get('CPU', 0):g} of {everything.get('CPU', 0):g} cores free"

    def close(self) -> None:
        """Leave the cluster; end it where it was started here. Safe to call twice."""
        if self._ours and self.ray.is_initialized():
            self.ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where nobody answers, which Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if not 0 < int(port) < 1 << 16:  # or the system takes it modulo 2¹⁶
            raise ValueError(f"there is no port {port}")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):  # brackets are of IPv6
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"nobody answers at {address!r} (data.collector.ray.address): {error}; it is the host:port that "
            "`ray start --head` prints, auto for the cluster of this machine, or null to start one here"
        ) from error


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a trainer sends nothing home
    try:
        import ray
    except ImportError as error:
        raise UserError(f"data.collector.backend=ray needs Ray: {install('ray')}") from error
    return ray


@contextlib.contextmanager
def _own_sigterm(starts: bool) -> Iterator[None]:
    """SIGTERM stays with the learner: Ray neither takes over its handler nor ends by a signal to the whole group.

    What is started with a blocked signal keeps it blocked, so that the learner can save while its actors still live.
    """
    handler, blocked = signal.getsignal(signal.SIGTERM), {signal.SIGTERM} if starts else set()
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not on the main thread, where Ray sets no handler either
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
