"""Frames against the data contract."""

from collections.abc import Mapping, Sequence

import numpy as np
from tensordict import TensorDictBase

from gipo.common.transition import FIELDS, Place


def assert_contract(
    frames: TensorDictBase, place: Place, sizes: Mapping[str, int], without: Sequence[str] = ()
) -> None:
    """Frames [M] have the keys of a place, those that may be missing aside, each with its type and shape.

    Args:
        frames: with flat observations.
        place: they are kept in.
        sizes: of the symbols of shapes.
        without: fields that are not there yet.
    """
    kept = [field for field in FIELDS if place in field.places and field.name not in without]
    fields = {field.path if len(field.path) > 1 else field.key: field for field in kept}
    found = set(frames.keys(True, True))
    assert found <= set(fields)
    assert {key for key, field in fields.items() if not field.optional} <= found
    for key in found:
        field, values = fields[key], frames[key].numpy()
        assert values.dtype == field.type_for(np.issubdtype(values.dtype, np.integer)), key
        assert values.shape == (len(frames), *(sizes[symbol] for symbol in field.shape.split())), key
