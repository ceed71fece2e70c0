"""Training view: state of a training computed from its events."""

import math

from engine.events import (
    CommandApplied,
    Failed,
    Finished,
    Resume,
    Started,
    Step,
    TrainingEvent,
    event_from_dict,
    event_to_dict,
)
from tests.support.app import finished, make_decoder, training_events
from tests.support.metrics import view_of


def decode(event: TrainingEvent) -> TrainingEvent:
    decoded = event_from_dict(event_to_dict(event))
    assert decoded is not None
    return decoded


def test_view_is_the_same_from_live_events_and_from_their_records() -> None:
    events = [*training_events(), finished(make_decoder())]
    live = view_of(events)
    assert live == view_of(map(decode, events))
    assert live.best is not None
    assert live.best.valid_perplexity == min(event.valid_perplexity for event in live.evaluations)
    assert live.epoch == 12
    assert not live.is_active


def test_failed_training_is_not_active() -> None:
    view = view_of([Failed("out of memory")])
    assert view.phase == "failed"
    assert not view.is_active


def test_commands_change_the_view_and_a_resume_undoes_them() -> None:
    view = view_of(training_events(3))
    assert (view.prompt, view.lr_scale, view.paused, view.checkpoint_step) == ("bilbo baggins is", 1, False, None)
    for kind, value in (("pause", ""), ("lr", "0.5"), ("prompt", "the lamp"), ("resume", ""), ("pause", "")):
        view.apply(CommandApplied(33, 3.0, kind, value))
    assert (view.prompt, view.lr_scale, view.paused) == ("the lamp", 0.5, True)
    view.apply(Finished("detached", "r", 3.0, 70.0, math.nan, 6.0))
    assert not view.paused
    view.apply(Resume(20))
    assert (view.prompt, view.lr_scale, view.paused, view.resume_count) == ("bilbo baggins is", 1, False, 1)
    assert view.phase == "training"
    assert [line.text for line in view.log][-2:] == ["epoch 1.0: valid 130.0, new best", "resumed at step 20"]
    view.apply(Step(20, 2.0, 90.0, 0.1, 0.1, 9.0, 4.0, 2.0))
    assert view.steps.column("step").tolist()[-2:] == [13, 20]


def test_damaged_record_is_shown_as_far_as_possible() -> None:
    view = view_of(
        [
            Started("r\x1b[31m", "tiny", 1, 2, 3, 4, 5, "cpu\n", "", math.nan, math.inf),
            Step(3, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan),
            CommandApplied(3, math.nan, "lr", "much"),
        ]
    )
    assert (view.epoch, view.seconds, view.best) == (0, 0, None)
    assert all(character.isprintable() for line in view.log for character in line.text)
