"""A command that goes on until it is ended."""

import os
import time
from pathlib import Path


def main(args: list[str]) -> int:
    """Say which process this is, in the file that the arguments name, and go on."""
    Path(args[0]).write_text(str(os.getpid()))
    time.sleep(600)
    return 0
