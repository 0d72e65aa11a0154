"""What a standby keeps, what it lets go of, and when it thinks that it is alone."""

from schemas.frames import Frame, FrameHeader
from schemas.messages import DeadLetter
from streams.align import Aligner
from streams.align_standby import SILENT_S, Kept, at_epoch
from tests.streams.align_line import mark, read, spec_of


def frames(*ticks: int, epoch: int = 0) -> list[Frame]:
    aligner = Aligner(spec_of(), epoch=epoch)
    read(aligner, [(10.0 * tick, float(tick)) for tick in range(1, max(ticks) + 1)])
    mark(aligner, 10.0 * max(ticks))
    return [frame for frame in aligner.close() if frame.tick in ticks]


def headers(*ticks: int, epoch: int = 0) -> list[FrameHeader]:
    return [frame.header for frame in frames(*ticks, epoch=epoch)]


def ticks_of(kept: Kept) -> list[int]:
    return [frame.tick for frame in kept.take()[0]]


def test_what_was_said_is_not_kept_whoever_was_first() -> None:
    kept = Kept(frames(1))
    kept.closed(frames(1, 2, 3), [])
    kept.heard(headers(2, 4))
    kept.closed(frames(4, 5), [])
    assert ticks_of(kept) == [5]
    assert not kept


def test_repeated_ticks_and_lower_epochs_say_nothing() -> None:
    kept = Kept(frames(3, epoch=2))
    kept.closed(frames(4, 5, 6), [])
    kept.heard(headers(4, 5, 6, epoch=1))
    kept.heard(headers(3, epoch=2))
    assert ticks_of(kept) == [4, 5, 6]


def test_dead_letters_are_kept_until_a_frame_was_made_of_what_came_after_them() -> None:
    header = headers(2)[0]
    ((topic, places),) = ((t, p) for t, p in header.positions.items() if "sensors" in t)
    letters = [DeadLetter(topic, 0, places[0] + more, "late", "") for more in (-1, 0)]
    kept = Kept()
    kept.closed([], letters)
    kept.heard([header])
    assert kept.take() == ([], letters[1:])


def test_silence_is_counted_while_something_is_due_and_somebody_looks() -> None:
    kept = Kept(frames(1))
    assert not any(kept.silent(10.0) for _ in range(50))  # nothing is due
    kept.closed(frames(2), [])
    assert not kept.silent(10.0)  # the machine stood still
    kept.heard(headers(2))
    kept.closed(frames(3), [])
    looks = [kept.silent(0.1) for _ in range(round(10 * SILENT_S) + 1)]
    assert looks[-1]
    assert not any(looks[:-2])
    kept.wait_anew()
    assert not kept.silent(0.1)


def test_what_others_went_on_without_is_let_go_of() -> None:
    """A cohort that only this one believes to be there must not fill its memory."""
    kept = Kept(margin=3)
    kept.closed(frames(1, 2, 3, 4, 5, 6), [])
    other = [frame.header for frame in frames(8)]
    kept.heard([FrameHeader(**{**vars(header), "cohort": 1}) for header in other])
    assert ticks_of(kept) == [5, 6]


def test_an_epoch_can_be_given_later() -> None:
    (frame,) = frames(1)
    assert at_epoch(frame, 0) is frame
    late = at_epoch(frame, 7)
    assert (late.header.epoch, late.tick, late.entities) == (7, 1, frame.entities)
