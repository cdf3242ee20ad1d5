"""Marks of tests that the base install leaves out, where an extra is not installed."""

from importlib.util import find_spec

import pytest

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra train")
needs_export = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("minari", "pyarrow")), reason="needs the extra export"
)
needs_sim = pytest.mark.skipif(find_spec("metaworld") is None, reason="needs the extra sim")
needs_envpool = pytest.mark.skipif(find_spec("envpool") is None, reason="needs the extra fast")


def can_draw() -> bool:
    """Whether MetaWorld is here, and what its cameras draw with."""
    if find_spec("metaworld") is None:
        return False
    from gipo.common.errors import UserError
    from gipo.common.simulators.metaworld_camera import refuse_no_graphics

    try:
        refuse_no_graphics()
    except UserError:
        return False
    return True


needs_camera = pytest.mark.skipif(not can_draw(), reason="needs the extra sim, and EGL to draw its cameras with")
