"""What the API server answers, turned into what the operator does about it."""

import orjson
import pytest

from fourways_operator import errors
from fourways_operator.api_faults import fault_of

KSERVE_AWAY = (
    'Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server'
    '.defaulter": Post "https://kserve": dial tcp 10.0.0.1:443: connect: connection refused'
)


def body(message: str, *causes: dict[str, str]) -> bytes:
    return orjson.dumps({"message": message, "details": {"causes": list(causes)}})


@pytest.mark.parametrize(
    ("code", "answer", "headers", "fault"),
    [
        (404, body("no"), {}, errors.ObjectGone),
        (403, body("no"), {}, errors.Forbidden),
        (403, body("no", {"reason": "NamespaceTerminating"}), {}, errors.ObjectGone),
        (409, body("no"), {}, errors.Conflict),
        (422, body("no", {"field": "metadata.uid"}), {}, errors.Conflict),
        (422, body("no"), {}, errors.Invalid),
        (429, body("no"), {"Retry-After": "3"}, errors.Throttled),
        (503, body("no"), {"Retry-After": "3"}, errors.Throttled),
        (500, body("no"), {}, errors.ServerError),
        (500, body(KSERVE_AWAY), {}, errors.HookFailed),
        (500, b"not JSON", {}, errors.ServerError),
        (0, None, {}, errors.ApiUnreachable),
    ],
)
def test_an_answer_is_the_fault_it_stands_for(
    code: int, answer: bytes | None, headers: dict[str, str], fault: type
) -> None:
    assert type(fault_of("patch x", code, answer, headers)) is fault


def test_a_webhook_that_is_away_is_told_of_the_object_it_holds_up() -> None:
    fault = fault_of("patch demo/inferenceservices/m", 500, body(KSERVE_AWAY), {})
    assert isinstance(fault, errors.ObjectFault)
    assert "inferenceservices/m" in str(fault)
    assert "kserve-webhook-server" in str(fault)
