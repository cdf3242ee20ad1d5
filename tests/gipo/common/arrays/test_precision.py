"""Equal at the precision of an artifact, and no further; what a space of another type gets for a policy's numbers."""

import numpy as np
import pytest

from gipo.common.arrays.precision import alike, nearest_in


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


@pytest.mark.parametrize(
    ("kind", "low", "high", "action", "expected"),
    [
        (np.int64, -3, 3, [0.268, -0.6, 2.5, 3.4, -9.0], [0, -1, 2, 3, -3]),
        (np.uint8, 0, 255, [-0.4, 254.6, 300.0, 1.5, 0.5], [0, 255, 255, 2, 0]),
        (np.float64, -0.35, 0.35, [0.3499999940395355, 0.5, -0.35, 0, 0.1], [0.3499999940395355, 0.35, -0.35, 0, 0.1]),
        (np.float64, -0.1, 0.1, [np.float32(0.1), np.float32(-0.1), 0.05, 0, 1], [0.1, -0.1, 0.05, 0, 0.1]),
        (np.float16, -0.1, 0.1, [0.1, -0.2, 0.05, 0, 1], np.array([0.1, -0.1, 0.05, 0, 0.1], np.float16)),
    ],
)  # fmt: skip
def test_the_nearest_values_within_the_bounds(kind, low, high, action, expected):
    bounds = np.full(5, low, kind), np.full(5, high, kind)
    found = nearest_in(np.array(action), *bounds)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, np.array(expected, kind))
    assert ((found >= bounds[0]) & (found <= bounds[1])).all()
