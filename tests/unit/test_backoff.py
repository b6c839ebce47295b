"""The pauses of every loop that tries again."""

from __future__ import annotations

from fourways_api.backoff import Backoff


def test_pauses_grow_up_to_the_longest_and_begin_again_after_a_success() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.pause() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert backoff.pause(at_least=9.0) == 9.0
    backoff.reset()
    assert backoff.pause() == 1.0
    slow = Backoff(1.0, 2.0, growth=1.5)
    assert [slow.pause() for _ in range(3)] == [1.0, 1.5, 2.0]


def test_jitter_takes_a_share_of_the_pause_and_not_of_what_the_server_asked_for() -> None:
    backoff = Backoff.jittered(1.0, 8.0, lambda: 0.25)
    assert [backoff.pause() for _ in range(3)] == [0.25, 0.5, 1.0]
    assert backoff.pause(at_least=3.0) == 3.0
    drawn = [Backoff.jittered(1.0, 8.0).pause() for _ in range(20)]
    assert len(set(drawn)) > 1
    assert all(0.0 <= it < 1.0 for it in drawn)
