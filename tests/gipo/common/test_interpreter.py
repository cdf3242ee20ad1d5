"""What a start does without: packages that others would import on the off chance, and garbage collection."""

import gc
import importlib.metadata
import importlib.util
import sys

import pytest

from gipo.common.interpreter import uncollected, without


def test_who_looks_finds_nothing_and_who_imports_does() -> None:
    with without(["numpy"], refused=["absent_here"]):
        assert importlib.util.find_spec("numpy") is None
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("numpy")
        import numpy

        assert numpy.ones(1).sum() == 1
        with pytest.raises(ModuleNotFoundError):
            import absent_here  # noqa: F401
        assert importlib.util.find_spec("orjson") is not None
    assert importlib.util.find_spec("numpy") is not None
    assert importlib.metadata.version("numpy") == numpy.__version__
    assert "absent_here" not in sys.modules


def test_who_kept_the_functions_finds_everything_again() -> None:
    with without(["numpy"]):
        find_spec, version = importlib.util.find_spec, importlib.metadata.version
    assert find_spec("numpy") is not None
    assert version("numpy")


def test_collection_goes_on_as_it_was() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
