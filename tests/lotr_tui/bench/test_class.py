"""Latencies of the class: every chapter has gestures, and a key that changes nothing is an error."""

from dataclasses import replace

import pytest

from lotr_tui.bench.interface import learn
from lotr_tui.bench.interface.learn import CLASS_COMMAND, GESTURES, HEIGHT, WIDTH, figure_latencies, measure_class
from lotr_tui.bench.programs import run_in_terminal
from lotr_tui.bench.terminal import BenchError
from lotr_tui.learn.chapters import CHAPTERS


def test_every_chapter_has_gestures() -> None:
    assert [*GESTURES] == [chapter.name for chapter in CHAPTERS]


def test_latencies_of_keys_are_measured_until_the_figure_has_changed() -> None:
    ready_text, (letter, step) = GESTURES["tokens"]
    with run_in_terminal([*CLASS_COMMAND, "tokens"], WIDTH, HEIGHT, ready_text) as terminal:
        for gesture in (letter, step):
            latencies = figure_latencies(terminal, gesture, 2)
            assert len(latencies) == 2
            assert all(0 < reaction <= completion < 10 for reaction, completion in latencies)
        with pytest.raises(BenchError, match=r"did not change its figure at a step of the cut-off"):
            figure_latencies(terminal, replace(step, min_rows=HEIGHT), 1)


def test_all_latencies_have_a_median_a_limit_and_a_time_of_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "GESTURES", {"tokens": GESTURES["tokens"]})
    monkeypatch.setattr(learn, "first_paint_seconds", lambda command: 0.3 if command is CLASS_COMMAND else 0.25)
    monkeypatch.setattr(learn, "figure_latencies", lambda terminal, gesture: [(0.01, 0.02), (0.03, 0.06)])
    paint, baseline, ratio, *rest = measure_class(2)
    assert (paint.value, baseline.value, ratio.value, ratio.upper_limit) == (0.3, 0.25, pytest.approx(1.2), 1.1)
    median, slowest, last_change = rest[:3]
    assert (median.value, slowest.value, last_change.value) == pytest.approx((10, 30, 60))
    assert (median.upper_limit, slowest.upper_limit, last_change.upper_limit) == (None, 50, None)
    assert len(rest) == 6
