"""A user's class that is at fault for an error which another's code raises: called in a way it does not take."""

import inspect
import re
import sys
from collections.abc import Callable

# `Mine.__call__() takes 2 positional arguments but 3 were given`, `Can't instantiate abstract class Mine …`.
NAMED = re.compile(
    r"(?:Can't instantiate abstract class )?(\w+)(?:\.\w+\(\) (?:takes|missing|got)|\(\) |\b.* abstract method)"
)


def at_fault(error: BaseException, is_users: Callable[[str], bool]) -> str | None:
    """`mine.Mine (mine.py:4): …` for a call that a class does not take, an abstract class, or a mistyped module.

    Args:
        error: as it was raised.
        is_users: whether the code in a file is neither ours nor installed.
    """
    if isinstance(error, SyntaxError) and error.filename and is_users(error.filename):
        return f"{type(error).__name__} ({error.filename}:{error.lineno}): {error.msg}"
    found = NAMED.match(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    for module in list(sys.modules.values()):
        file, kind = getattr(module, "__file__", None), getattr(module, "__dict__", {}).get(found[1])
        if file and inspect.isclass(kind) and kind.__module__ == module.__name__ and is_users(file):
            return f"{kind.__module__}.{kind.__qualname__} ({file}:{inspect.getsourcelines(kind)[1]}): {error}"
    return None
