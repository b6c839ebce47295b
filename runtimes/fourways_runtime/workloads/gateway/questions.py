"""The question of a request with inputs: its entity key and inputs together.

A stream's prediction that was made for one question is not given to another, whatever key they
share. Questions are compared by the digest of their events, which hold the inputs as they were read
and not as they were written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from fourways_runtime.io.brokers.source import QUESTION_DIGITS
from fourways_runtime.io.store.streams.stream import AnswerKey, LiveAnswer
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.protocol import refuse


def question_of(event: bytes) -> bytes:
    """Return the digest of the key and inputs in an event that :class:`EventReader` made."""
    return hashlib.sha256(event).digest()[: QUESTION_DIGITS // 2]


def read_question(query: Mapping[str, str]) -> bytes | None:
    """Return the question that a location names, if any. Raises HttpError 400."""
    given = query.get("question")
    if given is None:
        return None
    if not re.fullmatch(f"[0-9a-f]{{{QUESTION_DIGITS}}}", given):
        raise refuse("question", f"must be {QUESTION_DIGITS} hexadecimal digits")
    return bytes.fromhex(given)


def by_key(
    keys: Sequence[Key], questions: Mapping[Key, bytes], answers: Mapping[AnswerKey, LiveAnswer]
) -> dict[Key, LiveAnswer]:
    """Return answers by key, of keys that are looked up by question, or else by themselves."""
    found = {key: answers.get(questions.get(key, key)) for key in keys}
    return {key: answer for key, answer in found.items() if answer is not None}
