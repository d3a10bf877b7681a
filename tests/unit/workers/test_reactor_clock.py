"""Appointments of a reactor whose clock is set back."""

from __future__ import annotations

from twisted.internet.task import Clock, LoopingCall

from cleanroom_workers.reactor_clock import bring_forward

HOUR = 3600.0


def test_what_was_to_happen_in_a_moment_still_does() -> None:
    clock, seen = Clock(), []
    clock.advance(10 * HOUR)
    clock.callLater(2.0, seen.append, "soon")
    clock.callLater(2 * HOUR, seen.append, "later")
    beating = LoopingCall(seen.append, "beat")
    beating.clock = clock
    beating.start(5.0, now=False)
    clock.rightNow -= HOUR
    clock.callLater(1.0, seen.append, "made since")
    clock.advance(0.5)
    assert seen == []
    bring_forward(clock, HOUR)
    clock.advance(0.6)
    assert seen == ["made since"]
    clock.advance(1.0)
    assert seen == ["made since", "soon"]
    clock.advance(3.0)
    assert seen == ["made since", "soon", "beat"]
    clock.advance(5.0)
    assert seen[3:] == ["beat"]
    clock.advance(2 * HOUR)
    assert "later" in seen
