"""A shadow is told what it would have done of the same latents, or is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.session.shadow import ShadowPolicy, check_comparable


def policy(way: str, family: str = "gaussian") -> Any:
    manifest = SimpleNamespace(vision=None, family=family, action_size=2, parameters_per_dimension=2)
    return SimpleNamespace(manifest=manifest, latents=SimpleNamespace(way=way))


def test_equal_latents_that_are_other_actions_are_refused() -> None:
    check_comparable(policy("tanh"), policy("tanh"))
    with pytest.raises(UserError, match="makes actions of latents by clip, the acting one by tanh"):
        check_comparable(policy("clip"), policy("tanh"))


def test_the_divergence_is_its_estimate_wherever_the_shadow_gives_no_support() -> None:
    shadow = ShadowPolicy(policy("tanh"), log=None)  # type: ignore[arg-type]
    try:
        assert np.isnan(shadow.summary()["kl"])  # of nothing there is no estimate
        shadow._log_ratios = [-200.0, 0.0]  # eˣ − 1 − x = 199 and 0
        assert shadow.summary()["kl"] == pytest.approx(99.5)
    finally:
        shadow.worker.close()
