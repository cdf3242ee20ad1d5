"""What the audits of several sources come to, by hand."""

from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.ingest.assemble import _audited
from datamodules.ingest.metadata import AuditFacts


def test_the_audits_of_all_sources_are_one() -> None:
    found = (
        AuditFacts(1.0, 10, {"p": 3e-6, "q": 1e-7}, from_video=4, drift=0.1, drift_max=0.5, unlike=1),
        AuditFacts(1.0, 20, {"p": 1e-6}, from_video=12, drift=0.3, drift_max=0.4, unlike=2),
    )
    parts: list[Any] = [SimpleNamespace(converted=SimpleNamespace(audit=each)) for each in found]
    drift: Any = pytest.approx((4 * 0.1 + 12 * 0.3) / 16)
    assert _audited(parts, 0.5) == AuditFacts(0.5, 30, {"p": 3e-6, "q": 1e-7}, 16, drift, 0.5, 3)
