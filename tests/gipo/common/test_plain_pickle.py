"""A pickle as plain data: what torch writes comes through, everything else is refused, and nothing ever runs."""

import io
import os
import pickle
import pickletools
import zipfile
from collections import Counter, OrderedDict
from typing import Any

import pytest
import torch

from gipo.common.plain_pickle import Made, load


def saved(found: Any) -> bytes:
    """The file that `torch.save` writes."""
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


def pickled(found: Any) -> bytes:
    """The pickle in it."""
    with zipfile.ZipFile(io.BytesIO(saved(found))) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)


PLAIN = {
    "texts": ["a", "é", ""], "numbers": (0, 255, 65_535, -1, 2**40, -(2**70), 0.5, float("inf")),
    "flags": [True, False, None], 7: {}, (1, "a"): [[], ()], "long": list(range(2_000)),
}  # fmt: skip


def test_plain_data_come_through() -> None:
    assert load(pickled(PLAIN)) == PLAIN
    assert load(pickled(OrderedDict(PLAIN))) == PLAIN
    shared: list[Any] = [1]
    found = load(pickled([shared, shared]))
    assert found[0] is found[1]


def test_tensors_are_described() -> None:
    found = load(
        pickled({"a": torch.zeros(2, 3), "size": torch.Size([2, 3]), "module": torch.nn.Linear(2, 1).state_dict()})
    )
    tensor = found["a"]
    assert tensor.function == "torch._utils _rebuild_tensor_v2"
    storage, offset, shape, stride, *_ = tensor.arguments
    assert (storage.function, offset, shape, stride) == ("storage", 0, (2, 3), (3, 1))
    assert found["size"] == Made("torch Size", ((2, 3),))
    assert set(found["module"]) == {"weight", "bias"}


@pytest.mark.parametrize("found", [{1, 2}, Counter("aab"), 1j, b"a", bytearray(b"a")])
def test_what_torch_reads_as_plain_is_described(found: Any) -> None:
    assert torch.load(io.BytesIO(saved({"mine": found})), weights_only=True)["mine"] == found
    assert isinstance(load(pickled({"mine": found}))["mine"], Made)


class Runs:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


class Holds:
    def __init__(self) -> None:
        self.x = 1


DEEP = b")" + b"\x85" * 200_000  # a tuple in a tuple and so on, which overflows the C stack when it is hashed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps(Runs(), 2), "names 'posix mkdir'"),
        (pickle.dumps(Holds(), 2), "names 'tests.gipo.common.test_plain_pickle Holds'"),
        (pickle.dumps({"a": frozenset("x")}, 2), "names '__builtin__ frozenset'"),
        (pickle.dumps([1], 4), "uses FRAME"),
        (pickle.dumps([1], 0), "uses INT|uses LIST|uses PUT"),
        (pickle.dumps([1], 2)[:-1], "exhausted|STOP"),
        (b"", "exhausted"),
        (b"\x80\x02.", "makes no sense: it leaves 0 objects"),
        (b"\x80\x02K\x01K\x02.", "makes no sense: it leaves 2 objects"),
        (b"\x80\x02K\x01a.", "makes no sense"),
        (b"\x80\x02K\x01K\x02R.", "makes no sense"),
        (b"\x80\x02h\x05.", "makes no sense"),
        (b"\x80\x02t.", "makes no sense"),
        (b"\x80\x02}]K\x01s.", "a list in the key of a dict"),
        (b"\x80\x02}" + DEEP + b"K\x01s.", "a tuple in the key of a dict"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "expected 2147483647 bytes"),
        (b"\xff\xfe\xfd", "opcode"),
    ],
    ids=range(17),
)
def test_what_no_checkpoint_holds(data: bytes, words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        load(data)
    assert not list(tmp_path.iterdir())


def test_damage_anywhere_is_a_value_error_or_other_data() -> None:
    whole = pickled(PLAIN)
    assert len(list(pickletools.genops(whole))) > 2_000
    for position in range(0, len(whole), 97):
        for data in (whole[:position], whole[:position] + bytes([whole[position] ^ 0x11]) + whole[position + 1 :]):
            try:
                load(data)
            except ValueError:
                continue
