"""What is told once in a run, however often it happens."""

import sys

_told: set[str] = set()


def say_once(line: str) -> None:
    """One line on standard error, the first time it is said."""
    if line not in _told:
        _told.add(line)
        print(f"gipo: {line}", file=sys.stderr, flush=True)
