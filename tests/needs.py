"""Marks of tests that the base install leaves out, where an extra is not installed."""

from importlib.util import find_spec

import pytest

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra train")
needs_sim = pytest.mark.skipif(find_spec("metaworld") is None, reason="needs the extra sim")
needs_envpool = pytest.mark.skipif(find_spec("envpool") is None, reason="needs the extra fast")
