"""Plan and status take every spec that validation accepts: neither ever raises for one.

An exception there would cost every deployment of the namespace, because the gateway's objects are
planned for all of them together. The embedded suite asks for five times as many.
"""

from __future__ import annotations

from tests.kit.plan_total import judge_manifests


def test_no_valid_manifest_makes_plan_or_status_raise() -> None:
    judge_manifests(30)
