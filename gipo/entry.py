"""`gipo-robot` and `gipo-deploy` as installed: their packages are imported after it is known that they are ours.

A folder `robots/` or `deploy/` of a user's that comes first in PYTHONPATH would be imported in their place.
"""

import importlib
import sys

from gipo.common.errors import UserError
from gipo.common.working_folder import refuse_shadows


def robot() -> int:
    """Entry point of `gipo-robot`."""
    return _main("gipo-robot", "robots.cli")


def deploy() -> int:
    """Entry point of `gipo-deploy`."""
    return _main("gipo-deploy", "deploy.cli")


def _main(program: str, module: str) -> int:
    try:
        refuse_shadows()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(module).main()
    return code
