"""The declaration of a transition: names, types, defaults, tables."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gipo.common.transition import COLUMNS, FIELDS, STORED, Field, Place, complete, kept_in

BY_NAME = {field.name: field for field in FIELDS}


@pytest.mark.parametrize("attribute", ["name", "key", "row", "lerobot", "minari"])
def test_no_two_fields_have_the_same_name_anywhere(attribute: str) -> None:
    names = Counter(getattr(field, attribute) for field in FIELDS if getattr(field, attribute))
    assert set(names.values()) == {1}


@pytest.mark.parametrize("place", Place)
def test_every_place_keeps_something(place: Place) -> None:
    assert all(place in field.places for field in kept_in(place))
    assert {"observation", "latent", "log_prob", "valid", "policy_version"} <= {field.name for field in kept_in(place)}


def test_types_follow_what_is_given() -> None:
    latent, sent = BY_NAME["latent"], BY_NAME["sent_action"]
    assert latent.typed(np.array([[1], [2]], np.uint8)).dtype == np.int64
    assert latent.typed(np.array([[0.5]])).dtype == np.float32
    assert sent.type_for(whole=False) == np.float32
    assert sent.type_for(whole=False, logged=True) == np.float64
    assert np.isinf(sent.typed(np.array([1e300]))).all()


def test_what_nobody_says_is_completed() -> None:
    ends = {"terminated": np.array([False, False, True]), "truncated": np.array([False, True, False])}
    columns: dict[str, np.ndarray] = {"step": np.arange(3), "policy_version": np.array([4, 4, 5]), **ends}
    complete(columns, STORED)
    assert columns["policy_version"].tolist() == [4, 4, 5]
    assert columns["done"].tolist() == [False, True, True]
    assert columns["valid"].tolist() == [True] * 3
    assert (columns["reward"].dtype, columns["reward"].tolist()) == (np.float32, [0.0] * 3)
    assert (columns["chunk_step"].dtype, columns["chunk_step"].tolist()) == (np.int64, [0] * 3)
    assert not {"observation", "latent", "log_prob", "episode", "policy", "success"} & set(columns)


def test_who_chose_is_a_word_in_the_log_and_a_number_in_columns() -> None:
    source = BY_NAME["source"]
    found = source.parsed(["hold", "policy", "person"])
    assert (found.dtype, found.tolist()) == (np.int8, [2, 0, 1])
    with pytest.raises(ValueError, match="source 'robot' is none of policy, person, hold"):
        source.parsed(["policy", "robot"])


def test_who_chose_is_known_where_a_version_sampled_and_nowhere_else() -> None:
    columns = {"valid": np.array([True, False, True]), "policy_version": np.array([3, 3, -1])}
    assert BY_NAME["source"].default_of(columns).tolist() == [0, -1, -1]
    columns["policy_version"] -= 3  # a policy that has learned nothing yet is of version 0
    assert BY_NAME["source"].default_of(columns).tolist() == [0, -1, -1]


def test_what_follows_from_other_fields_is_no_column_of_a_source() -> None:
    assert {"done", "episode", "instruction", "policy", "success"} == {field.name for field in STORED} - {
        f.name for f in COLUMNS
    }


def test_a_field_that_says_no_more_has_one_name_everywhere() -> None:
    field = Field("x", "D", "float32", "a number", "nobody", Place.LOG)
    assert (field.key, field.row, field.log_dtype, field.path) == ("x", "x", "float32", ("x",))
    assert replace(field, key="next/x").path == ("next", "x")
