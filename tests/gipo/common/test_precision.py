"""Equal at the precision of an artifact, and no further."""

import numpy as np
import pytest

from gipo.common.precision import alike


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.35, 0.3499999940395355), (1 / 3, float(np.float32(1 / 3))), ((-0.35, 1.0), (-0.3499999940395355, 1)),
     (30, 30.0), (1e39, 1e39)],
)  # fmt: skip
def test_what_rounds_to_the_same_float32(first, second):
    assert alike(first, second)
    assert alike(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.35, 0.3500001), (1.0, 1.0000002), ((1.0, 2.0), (2.0, 1.0)), ((1.0,), (1.0, 1.0)), (1e-46, -1e-3), (50, 49.99)],
)
def test_what_differs_by_more(first, second):
    assert not alike(first, second)
    assert not alike(second, first)
