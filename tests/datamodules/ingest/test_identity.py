"""A function has another identity where it may act otherwise, and the same in every process."""

import importlib
import importlib.util
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.ingest.identity import function_identity
from datamodules.ingest.rewards import logged, success
from gipo.common.errors import UserError

Define = Callable[[str], Any]
HEAD = "import functools, math, numpy as np\n"


@pytest.fixture
def define(tmp_path: Path) -> Iterator[Define]:
    """`define(text)`: the function `reward` of a user's module with this text."""
    names: list[str] = []

    def found(text: str) -> Any:
        folder = tmp_path / str(len(names))
        folder.mkdir()
        path = folder / "mine.py"
        path.write_text(HEAD + text)
        spec = importlib.util.spec_from_file_location("mine", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["mine"] = importlib.util.module_from_spec(spec)
        names.append("mine")
        spec.loader.exec_module(module)
        return module.reward  # type: ignore[attr-defined]

    yield found
    sys.modules.pop("mine", None)


class Distance:
    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, columns: Mapping[str, np.ndarray], success: bool | None) -> np.ndarray:
        return self.scale * columns["reward"]


class Held:
    """Shown by its address."""

    def __init__(self, value: float):
        self.value = value


def distance(columns: Mapping[str, np.ndarray], success: bool | None, scale: Any = 1.0) -> np.ndarray:
    return scale * columns["reward"]


def test_functions_and_their_bound_values_are_told_apart() -> None:
    def scaled(scale: float) -> Any:
        return lambda columns, success: scale * columns["reward"]

    long, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 1  # which its repr leaves out
    tensors = torch.from_numpy(long).float(), torch.from_numpy(other).float()
    known = [
        logged, success, distance, partial(distance, scale=2.0), Distance(1.0), Distance(2.0), scaled(1), scaled(2),
        partial(distance, scale=long), partial(distance, scale=other), partial(distance, scale=Held(1)),
        partial(distance, scale=Held(2)), *(partial(distance, scale=one) for one in tensors),
        partial(distance, scale=np.array([None, "a"])), partial(distance, scale=np.array([None, "b"])),
    ]  # fmt: skip
    assert len({tuple(function_identity(each)) for each in known}) == len(known)
    assert function_identity(Distance(1.0)) == function_identity(Distance(1.0))
    mixed = [partial(distance, scale=np.array([None, "".join(("a", "bc"))])) for _ in range(2)]
    assert function_identity(mixed[0]) == function_identity(mixed[1])
    assert function_identity(partial(distance, scale=Held(1))) == function_identity(partial(distance, scale=Held(1)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SCALE = 1\ndef reward(c, s): return SCALE * c", "SCALE = 5\ndef reward(c, s): return SCALE * c"),
        ("def h(x): return x\ndef reward(c, s): return h(c)", "def h(x): return -x\ndef reward(c, s): return h(c)"),
        # a comprehension is code of its own
        ("K = {1}\ndef reward(c, s): return [x for x in c if x in K]",
         "K = {2}\ndef reward(c, s): return [x for x in c if x in K]"),
        ("W = np.zeros(2000)\ndef reward(c, s): return c @ W",
         "W = np.ones(2000)\ndef reward(c, s): return c @ W"),
        ("def h(x): return g(x)\ndef g(x): return x\ndef reward(c, s): return h(c)",
         "def h(x): return g(x)\ndef g(x): return 2 * x\ndef reward(c, s): return h(c)"),
        ("S = 1\nclass R:\n def __call__(self, c, s): return S * c\nreward = R()",
         "S = 2\nclass R:\n def __call__(self, c, s): return S * c\nreward = R()"),
        ("S = 1\ndef f(c, s, k): return S * c\nreward = functools.partial(f, k=math.sqrt)",
         "S = 1\ndef f(c, s, k): return S * c\nreward = functools.partial(f, k=math.exp)"),
    ],
)  # fmt: skip
def test_what_a_function_names_is_a_part_of_it(one: str, other: str, define: Define) -> None:
    first, again = (function_identity(define(one)) for _ in range(2))
    assert first == again
    assert function_identity(define(other)) != first
    assert not any(" at 0x" in part for part in first)


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("class B:\n def f(self, c): return K * c\nclass R(B):\n def __call__(self, c, s): return self.f(c)", "R()"),
        ("class R:\n def f(self, c): return K * c\n def called(self, c, s): return self.f(c)", "R().called"),
        (
            "class R:\n @staticmethod\n def f(c): return S * c\n def __call__(self, c, s): return self.f(c)\nS = K",
            "R()",
        ),
        ("class R:\n @property\n def f(self): return S\n def __call__(self, c, s): return self.f * c\nS = K", "R()"),
        ("class R:\n @functools.cached_property\n def f(self): return S\n __call__ = lambda s, *_: s.f\nS = K", "R()"),
        (
            "class R:\n def f(self, c, k): return S * c\n g = functools.partialmethod(f, k=1)\n"
            " def __call__(self, c, s): return self.g(c)\nS = K",
            "R()",
        ),
        ("S = K\nclass R:\n __slots__ = ('k',)\n def __init__(self): self.k = S\n __call__ = min", "R()"),
    ],
)
def test_so_is_what_its_class_is_made_of(text: str, called: str, define: Define) -> None:
    one, other, again = (
        function_identity(define(f"{text}\nreward = {called}".replace("K", factor))) for factor in ("1", "2", "1")
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    "text",
    [
        "def reward(c, s):\n    import scaling\n    return scaling.scale(c)",
        "def reward(c, s):\n    from scaling import scale\n    return scale(c)",
        "import scaling\ndef reward(c, s): return scaling.scale(c)",
        "import near\ndef reward(c, s): return near.scale(c)",  # which imports it
        "from near import scale\ndef reward(c, s):\n    def inner():\n        return scale(c)\n    return inner()",
    ],
)
def test_so_are_modules_that_it_imports(
    text: str, define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "near.py").write_text("from scaling import scale\n")

    def identity(factor: int) -> list[str]:
        (tmp_path / "scaling.py").write_text(f"def scale(c): return {factor} * c\n")
        for name in ("scaling", "near"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        linecache.clearcache()
        return function_identity(define(text))

    assert identity(2) == identity(2)
    assert identity(2) != identity(333)  # of another length too, by which Python tells a compiled file to be old


def test_a_module_of_the_user_without_its_source_text_is_refused(
    define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "compiled.py").write_text("def scale(c): return 2 * c\n")
    importlib.invalidate_caches()
    importlib.import_module("compiled")
    (tmp_path / "compiled.py").unlink()
    linecache.clearcache()
    for text in ("import compiled\ndef reward(c, s): return compiled.scale(c)",
                 "def reward(c, s):\n    import compiled\n    return compiled.scale(c)"):  # fmt: skip
        with pytest.raises(UserError, match="the module compiled, which a reward imports, has no source text"):
            function_identity(define(text))
    sys.modules.pop("compiled")
    assert function_identity(define(text)) == function_identity(
        define(text)
    )  # it cannot be imported, as a call will say


def test_functions_that_name_each_other_have_one(define: Define) -> None:
    text = "def even(x): return x == 0 or odd(x - 1)\ndef odd(x): return x and even(x - 1)\nreward = even"
    assert len(function_identity(define(text))) == len(function_identity(define(text))) < 10


def test_our_own_have_the_identity_that_stores_were_made_with() -> None:
    for each in (logged, success):
        name, source, bound = function_identity(each)
        assert name == f"datamodules.ingest.rewards.{each.__name__}"
        assert source.startswith(f"def {each.__name__}(")
        assert bound == "([], None, None)"


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(UserError, match="no source text"):
        function_identity(np.zeros)
    with pytest.raises(UserError, match="of which a change cannot be told; give it plain values or arrays"):
        function_identity(partial(distance, scale=object()))
