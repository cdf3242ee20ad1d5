"""A terminal that is not there takes no file's place."""

import os
import sys
from pathlib import Path

from gipo.common import terminal


def test_a_stream_that_was_closed_is_no_place_for_a_file(tmp_path: Path) -> None:
    """`gipo … 2>&-`: what libraries print on number 2 must not reach the next file that is opened."""
    child = os.fork()
    if not child:
        code = 1
        try:
            for number in (1, 2):
                os.close(number)
            sys.stdout = sys.stderr = None  # type: ignore[assignment] # as Python begins then
            terminal.reopen_closed()
            file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
            os.write(2, b"what a library prints")
            print("what we print", file=sys.stderr, flush=True)
            print("what we print", flush=True)
            code = int(file in (1, 2) or os.fstat(file).st_size > 0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
