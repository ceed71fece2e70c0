"""Tests of what a live training is said to have shown."""

import math

import pytest

from engine.events import Failed, TrainingEvent
from lotr_tui.learn.training_verdict import Verdict, judge
from lotr_tui.monitor.training_view import TrainingView
from tests.support.live_training import live_events

GOOD = [2247.0, 295.0, 208.0, 170.0, 146.0, 135.0, 127.0, 120.0, 114.5, 111.0, 108.0]


def verdict_of(events: list[TrainingEvent]) -> Verdict:
    view = TrainingView()
    for event in events:
        view.apply(event)
    return judge(view)


def test_nothing_is_shown_before_the_first_evaluation() -> None:
    assert judge(TrainingView()) == Verdict()
    assert verdict_of(live_events([])) == Verdict()
    assert verdict_of(live_events([2247.0])) == Verdict()


def test_curve_beats_the_5_gram_model_at_the_first_evaluation_below_it() -> None:
    assert verdict_of(live_events(GOOD[:-1])) == Verdict()
    assert verdict_of(live_events(GOOD)) == Verdict(beats_ngram=True)


@pytest.mark.parametrize(("last", "is_slow"), [(286.0, True), (285.0, False)])
def test_training_above_the_unigram_model_after_two_of_five_epochs_is_too_slow(last: float, is_slow: bool) -> None:
    early = [2247.0, *[700.0] * 7]
    assert verdict_of(live_events(early)) == Verdict()
    assert verdict_of(live_events([*early, last])) == Verdict(is_too_slow=is_slow, is_hopeless=is_slow)


def test_network_that_learns_a_short_text_by_heart_is_not_too_slow() -> None:
    valid = [2247.0, 250.0, *[290.0] * 8]  # better than the unigram model, and then worse
    assert verdict_of(live_events(valid)) == Verdict()
    valid = [2247.0, *[290.0 + number for number in range(9)]]  # never better, while the training text is learned
    train = [280.0 - number for number in range(9)]
    assert verdict_of(live_events(valid, train)) == Verdict()


@pytest.mark.parametrize(
    ("train", "has_jumped"),
    [
        ([300.0, 250.0, 400.0], False),  # another text
        ([300.0, 250.0, 760.0], True),
        ([6000.0, 250.0, 200.0], False),
        ([6800.0, 250.0, 200.0], True),  # compared with the evaluation before the first step
        ([math.inf, 250.0, 200.0], True),
        ([math.nan, 250.0, 200.0], True),
    ],
)
def test_loss_jumps_if_the_perplexity_is_three_times_the_lowest_one_before(
    train: list[float], has_jumped: bool
) -> None:
    assert verdict_of(live_events([2247.0, 290.0, 250.0, 240.0], train)).has_jumped == has_jumped


def test_loss_that_is_not_finite_is_a_jump_and_a_full_disk_is_none() -> None:
    assert verdict_of([*live_events([2247.0]), Failed("the loss is nan at step 3, likely because …")]).has_jumped
    assert not verdict_of([*live_events([2247.0]), Failed("the disk is full")]).has_jumped


def test_training_that_has_jumped_is_not_too_slow_and_is_hopeless_after_three_evaluations() -> None:
    valid = [2247.0, 1e9, 1e8, 1e7, 1e6, 1e5, 1e5, 1e5, 1e5, 1e5]
    for number in range(2, len(valid)):
        verdict = verdict_of(live_events(valid[:number]))
        assert verdict == Verdict(has_jumped=True, is_hopeless=number >= 4)


def test_training_that_recovers_from_a_jump_is_not_ended() -> None:
    """A student who lowers the rate again sees the curve fall again."""
    valid = [*GOOD[:5], 900.0, 400.0, 140.0]
    assert verdict_of(live_events(valid)) == Verdict(has_jumped=True)


def test_curve_that_falls_again_after_a_jump_is_not_ended() -> None:
    valid = [2247.0, 5000.0, 1500.0, 900.0]
    assert verdict_of(live_events(valid, [9e3, 1500.0, 900.0])) == Verdict(has_jumped=True)
    assert verdict_of(live_events([*valid, 850.0, 830.0], [9e3, 1500.0, 900.0, 850.0, 830.0])).is_hopeless
