"""Plan and status take every spec that validation accepts: neither ever raises for one.

An exception there would cost every deployment of the namespace, because the gateway's objects are
planned for all of them together. The unit test of this name asks for a fifth.
"""

from __future__ import annotations

import pytest

from tests.kit.plan_total import judge_manifests

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]


def test_no_valid_manifest_makes_plan_or_status_raise() -> None:
    judge_manifests(150)
