"""Calls of a driver that may never return: each in a thread of its own, waited for as long as it may take."""

import threading
from collections.abc import Callable
from typing import Any

from gipo.common.faults import line_of
from gipo.common.signals import join
from robots.drivers.contract import carry_out


class Call:
    """A call of a driver that has begun, in a thread of its own, and may never return.

    Args:
        function: of a driver, which may raise anything or hang.
        arguments: for it.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._fault = ""
        self._thread = threading.Thread(target=self._run, args=(function, arguments), name="driver", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had, and a robot must stop all the same
            self._run(function, arguments)

    @property
    def running(self) -> bool:
        """Whether the call has neither returned nor raised yet."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> str:
        """What went wrong within `seconds`: an exception, or that it has not returned; empty when nothing did."""
        join(self._thread, seconds)
        return f"it takes more than {seconds:g} s" if self.running else self._fault

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            carry_out(function, *arguments)
        except BaseException as error:  # a driver's own errors share no base class, and some exit
            self._fault = f"{type(error).__name__}: {error}{line_of(error)}"
