"""Ready is what the gateway says of a deployment, not only what the state of its pods suggests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Facts
from fourways_operator.gateway_answers import (
    FIRST_PAUSE,
    FIRST_REFUSALS,
    FIRST_SILENCE,
    PAUSE,
    GatewayAnswerTracker,
)
from fourways_operator.status import should_answer
from fourways_operator.work_queue import Key
from tests.kit import mode_facts as modes
from tests.kit import status_facts as batch
from tests.kit.asked_gateway import AskedGateway

KEY = Key("demo", "m")
SERVED = ["realtime", "streaming"]


def ready(mode: str, answer: int | None = None) -> Facts:
    document = modes.deployment(mode)
    return replace(modes.facts(document, modes.pod(document, ready=True)), gateway_answer=answer)


# ---------------------------------------------------------------- what an answer means


@pytest.mark.parametrize("mode", SERVED)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "does not know the deployment"),
        (502, "invalid"),
        (503, "does not reach what serves the predictions"),
        (504, "in time"),
    ],
)
def test_a_gateway_that_cannot_answer_ends_ready_though_the_pods_are(
    mode: str, code: int, words: str
) -> None:
    found = modes.said(ready(mode, code))
    assert found["Ready"].startswith(f"False GatewayNotAnswering: the gateway answers HTTP {code}")
    assert words in found["Ready"]
    assert found["Degraded"].startswith("True GatewayNotAnswering")
    assert found["Reconciling"].startswith("True GatewayNotAnswering"), "it may recover by itself"


@pytest.mark.parametrize("mode", SERVED)
@pytest.mark.parametrize("answer", [None, 200])
def test_what_the_gateway_answers_or_was_not_asked_for_is_ready(
    mode: str, answer: int | None
) -> None:
    found = modes.said(ready(mode, answer))
    assert found["Ready"].startswith("True Answering")
    assert found["Degraded"].startswith("False")


@pytest.mark.parametrize("mode", SERVED)
def test_a_restarted_operator_keeps_the_word_until_it_has_asked(mode: str) -> None:
    before = modes.status(ready(mode, 503))
    document = modes.deployment(mode, status=before)
    restarted = modes.facts(document, modes.pod(document, ready=True))
    assert modes.said(restarted)["Ready"] == modes.said(ready(mode, 503))["Ready"]
    assert modes.said(replace(restarted, gateway_answer=200))["Ready"].startswith("True")


def test_the_first_ready_of_a_realtime_deployment_waits_for_the_gateway() -> None:
    asked = replace(ready("realtime"), asks_gateway=True)
    found = modes.said(asked)
    assert found["Ready"].startswith("False WaitingForGateway")
    assert found["Reconciling"].startswith("True WaitingForGateway")
    assert found["Degraded"].startswith("False"), "nothing is wrong yet"
    assert modes.said(replace(asked, gateway_answer=200))["Ready"].startswith("True Answering")
    assert modes.said(replace(ready("streaming"), asks_gateway=True))["Ready"].startswith("True")
    assert should_answer(asked, modes.status(asked)), "or it would never be asked"


def test_what_was_ready_does_not_wait_for_an_operator_that_has_not_asked_yet() -> None:
    before = modes.status(replace(ready("realtime", 200), asks_gateway=True))
    newer = modes.deployment("realtime", version="2", status=before)
    restarted = replace(modes.facts(newer, modes.pod(newer, ready=True)), asks_gateway=True)
    assert modes.said(restarted)["Ready"].startswith("True")


def test_another_mode_is_ready_once_the_gateway_answers_for_it() -> None:
    before = modes.status(ready("streaming", 200))
    changed = modes.deployment("realtime", status=before)
    facts = replace(modes.facts(changed, modes.pod(changed, ready=True)), asks_gateway=True)
    assert modes.said(facts)["Ready"].startswith("False WaitingForGateway")


def test_a_refused_edit_does_not_make_ready_what_the_gateway_has_not_reached() -> None:
    waiting = replace(ready("realtime"), asks_gateway=True)
    document = modes.deployment("realtime", status=modes.status(waiting))
    edited = replace(waiting, deployment=document)
    assert modes.said(edited, batch.WRONG)["Ready"].startswith("False WaitingForGateway")
    answered = replace(edited, gateway_answer=200)
    assert modes.said(answered, batch.WRONG)["Ready"].startswith("True")


def test_a_pod_that_is_not_ready_is_the_nearer_cause() -> None:
    document = modes.deployment("realtime")
    starting = replace(modes.facts(document, modes.pod(document)), gateway_answer=503)
    assert modes.said(starting)["Ready"].startswith("False Starting")


def test_a_published_run_that_the_gateway_cannot_read_is_not_ready() -> None:
    published = batch.facts(batch.GOOD_RUN)
    found = batch.conditions(replace(published, gateway_answer=503))
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "GatewayNotAnswering")
    assert found["Degraded"]["reason"] == "GatewayNotAnswering"
    unknown = batch.conditions(replace(published, gateway_answer=404))
    assert unknown["Ready"]["status"] == "True", "the runs in the store decide that"


def test_after_a_refused_edit_the_word_about_the_last_valid_spec_stays_true() -> None:
    document = modes.deployment("realtime", status=modes.status(ready("realtime")))
    edited = replace(ready("realtime", 503), deployment=document)
    found = modes.said(edited, batch.WRONG)
    assert found["Ready"].startswith("False GatewayNotAnswering")
    assert found["SpecValid"].startswith("False")


def test_only_what_serves_is_asked_for() -> None:
    for mode in SERVED:
        facts = ready(mode)
        assert should_answer(facts, modes.status(facts))
        asleep = modes.facts(modes.deployment(mode))
        assert not should_answer(asleep, modes.status(asleep)), "the question would start it"
    published, unpublished = batch.facts(batch.GOOD_RUN), batch.facts()
    assert should_answer(published, batch.status_at(published))
    assert not should_answer(unpublished, batch.status_at(unpublished))


# ---------------------------------------------------------------- how it is asked


class Gateway(AskedGateway):
    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(*answers)
        self.tracker = GatewayAnswerTracker(self.ask, self.changed.append, self.sleep)

    async def note(self, serves: bool = True) -> None:
        self.tracker.note(KEY, serves)
        await self.settle()

    async def rounds(self, number: int) -> None:
        for _ in range(number):
            await self.pass_time()


def http(code: int) -> GatewaySilent:
    return GatewaySilent(f"HTTP {code}", code)


NOBODY = GatewaySilent("connection refused")


async def test_the_second_refusal_in_a_row_counts_and_is_news_once() -> None:
    gateway = Gateway(b"{}", http(503), b"{}", http(503))
    await gateway.note()
    assert (gateway.tracker.of(KEY), gateway.pauses) == (200, [PAUSE])
    await gateway.rounds(2)
    assert gateway.tracker.of(KEY) == 200, "a rollout may cause a single refusal"
    assert gateway.changed == [KEY]
    await gateway.rounds(2)
    assert gateway.tracker.of(KEY) == 503
    assert gateway.changed == [KEY, KEY]
    await gateway.rounds(3)
    assert gateway.changed == [KEY, KEY]
    assert set(gateway.asked) == {("demo", "m")}


async def test_one_answer_ends_it() -> None:
    gateway = Gateway(b"{}", http(503), http(503), b"{}")
    await gateway.note()
    await gateway.rounds(2)
    assert gateway.tracker.of(KEY) == 503
    await gateway.rounds(1)
    assert gateway.tracker.of(KEY) == 200


async def test_the_first_answer_is_asked_for_at_a_quick_pace() -> None:
    gateway = Gateway(http(504), http(503), b"{}")
    await gateway.note()
    assert (gateway.tracker.of(KEY), gateway.changed) == (None, []), "nodes learn of a Service late"
    await gateway.rounds(2)
    assert gateway.pauses == [FIRST_PAUSE, FIRST_PAUSE, PAUSE]
    assert (gateway.tracker.of(KEY), gateway.changed) == (200, [KEY])


async def test_a_new_deployment_does_not_wait_for_the_next_round() -> None:
    gateway = Gateway(b"{}")
    await gateway.note()
    other = Key("demo", "other")
    gateway.tracker.note(other, True)
    await gateway.settle()
    assert gateway.tracker.of(other) == 200
    assert gateway.pauses == [PAUSE], "no time has passed, and the rounds are one task"


@pytest.mark.parametrize(
    ("answer", "number", "code"),
    [(http(503), FIRST_REFUSALS, 503), (GatewaySilent("refused"), FIRST_SILENCE, 200)],
)
async def test_a_first_answer_that_does_not_come_is_not_waited_for_without_end(
    answer: GatewaySilent, number: int, code: int
) -> None:
    gateway = Gateway(answer)
    await gateway.note()
    await gateway.rounds(number - 2)
    assert gateway.tracker.of(KEY) is None
    await gateway.rounds(1)
    assert gateway.tracker.of(KEY) == code
    assert gateway.pauses == [FIRST_PAUSE] * (number - 1) + [PAUSE]


async def test_a_fault_of_the_operator_itself_is_a_missed_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = Gateway(ValueError("a bug"))
    await gateway.note()
    await gateway.rounds(FIRST_SILENCE - 1)
    assert gateway.tracker.of(KEY) == 200
    assert "please report it" in caplog.text


@pytest.mark.parametrize("silence", [NOBODY, http(401), http(429)])
async def test_a_gateway_that_does_not_speak_of_the_deployment_is_no_refusal(
    silence: GatewaySilent,
) -> None:
    gateway = Gateway(b"{}", http(503), http(503), silence)
    await gateway.note()
    await gateway.rounds(4)
    assert gateway.tracker.of(KEY) == 503, "two missed answers do not change what is known"
    await gateway.rounds(1)
    assert gateway.tracker.of(KEY) == 200


async def test_what_serves_no_more_is_not_asked_for() -> None:
    gateway = Gateway(http(503))
    await gateway.note()
    await gateway.rounds(1)
    await gateway.note(False)
    assert gateway.tracker.of(KEY) is None
    asked = len(gateway.asked)
    await gateway.rounds(1)
    assert len(gateway.asked) == asked
    await gateway.note()
    gateway.tracker.forget_all_but(())
    await gateway.rounds(2)
    assert gateway.tracker.of(KEY) is None
    gateway.tracker.stop()
