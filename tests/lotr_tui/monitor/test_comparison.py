"""Comparison of runs: settings that differ, differences to a baseline, best figures, and the layout."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.events import Checkpointed, Evaluated, Finished, Started, Step
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from lotr_tui.monitor.compared_run import ComparedRun, ScoredText, read_compared_run
from lotr_tui.monitor.comparison_layout import layout_comparison
from lotr_tui.monitor.run_comparison import METRICS, compare_runs
from tests.support.metrics import append_events
from tests.support.runs import CONFIG, VOCABULARY

TEXT = ScoredText("corpus", "split", "line", "vocabulary", "words 100")


def make_run(name, **figures):
    return ComparedRun(name, Path(name), "finished", "cpu", {"lr": 0.01}, TEXT, figures)


def row_of(comparison, name):
    return next(row for row in comparison.metrics if row.metric.name == name)


def write_metrics(folder, valid_perplexity, seconds, *, sha256="ab"):
    """Append a finished training of 3 steps at 100, 300 and 200 tokens/s, on 10 tokens and 50 characters."""
    started = Started("r", "tiny", 99, 5, 100, 10, 2, "cpu", sha256, 151.0, 94.0, 1, 50, 7.0)
    speeds = (100.0, 300.0, 200.0)
    steps = [Step(n, n / 3, 90.0, 0.01, 1.0, speed, n / 3, 0.0) for n, speed in enumerate(speeds)]
    evaluations = [Evaluated(n, n / 3, valid_perplexity + 2 - n, True, n / 3) for n in range(3)]
    events = [event for pair in zip(steps, evaluations, strict=True) for event in pair]
    finished = Finished("done", "r", 2.0, valid_perplexity, valid_perplexity + 5, seconds)
    append_events(folder, [started, *events, Checkpointed(2, MODEL_FILE), finished])


# Comparison


def test_differences_and_best_of_three_runs():
    runs = [
        make_run("a", valid_perplexity=80.0, test_perplexity=90.0, tokens_per_second=500.0, epochs=10.0),
        make_run("b", valid_perplexity=76.0, test_perplexity=93.6, tokens_per_second=750.0, epochs=20.0),
        make_run("c", valid_perplexity=100.0, tokens_per_second=500.0, epochs=10.0),
    ]
    comparison = compare_runs(runs)
    valid, test = row_of(comparison, "valid_perplexity"), row_of(comparison, "test_perplexity")
    assert [(item.absolute, item.percent) for item in valid.differences] == [(0, 0), (-4, -5), (20, 25)]
    assert valid.best == {1}
    assert test.values == (90, 93.6, None)
    assert test.differences[1].percent == pytest.approx(4)
    assert test.differences[2] is None
    assert test.best == {0}
    assert row_of(comparison, "tokens_per_second").best == {1}  # higher is better
    assert row_of(comparison, "epochs").best == frozenset()  # neither is better
    assert row_of(comparison, "parameters").values == (None, None, None)
    assert any("Choose a run by its validation figures" in note for note in comparison.notes)
    to_c = compare_runs(runs, 2)
    assert [item.absolute for item in row_of(to_c, "valid_perplexity").differences] == [-20, -24, 0]


@pytest.mark.parametrize("part", ["corpus", "split", "mode", "vocabulary"])
@pytest.mark.parametrize("value", ["other", None])
def test_perplexities_of_other_texts_are_neither_compared_nor_marked(part, value):
    figures = {"valid_perplexity": 80.0, "valid_bits_per_character": 2.0, "tokens_per_second": 1.0}
    runs = [make_run("a", **figures), make_run("b", **{key: 2 * figure for key, figure in figures.items()})]
    runs[1] = replace(runs[1], text=replace(TEXT, **{part: value}))
    comparison = compare_runs(runs)
    valid, bits = row_of(comparison, "valid_perplexity"), row_of(comparison, "valid_bits_per_character")
    assert not valid.is_comparable
    assert valid.best == frozenset()
    assert valid.differences[0].absolute == 0
    assert valid.differences[1] is None
    reason = f"{'unknown' if value is None else 'other'} {part}"
    assert f"Perplexities of b are not comparable with a: {reason}." in comparison.notes
    same_text = part in ("mode", "vocabulary")
    assert bits.is_comparable == same_text
    assert bits.best == ({0} if same_text else frozenset())
    assert ("Bits per character are comparable." in comparison.notes) == same_text
    assert row_of(comparison, "tokens_per_second").best == {1}


figures = st.dictionaries(st.sampled_from([metric.name for metric in METRICS]), st.floats(1e-3, 1e9))
texts = st.builds(ScoredText, *[st.sampled_from(["x", "y", None])] * 5)
values = st.one_of(st.integers(0, 2), st.booleans(), st.sampled_from(["", "1"]))
settings = st.none() | st.dictionaries(st.sampled_from("abcd"), values)
compared_runs = st.lists(
    st.builds(ComparedRun, st.just("r"), st.just(Path("r")), st.sampled_from(["running", "finished"]), st.just("cpu"),
              settings, texts, figures),
    min_size=2, max_size=6,
)  # fmt: skip


@given(compared_runs, st.data())
def test_baseline_does_not_differ_from_itself_and_best_is_an_extreme_of_comparable_figures(runs, data):
    baseline = data.draw(st.integers(0, len(runs) - 1))
    for row in compare_runs(runs, baseline).metrics:
        own = row.differences[baseline]
        assert (own is None) == (row.values[baseline] is None)
        assert own is None or (own.absolute, own.percent) == (0, 0)
        for value, difference in zip(row.values, row.differences, strict=True):
            if difference is not None:
                reference = row.values[baseline]
                assert reference + difference.absolute == pytest.approx(value, abs=1e-9 * reference)
        known = [index for index, value in enumerate(row.values) if value is not None]
        for index in row.best:
            better = [other for other in known if runs[other].state == "finished" or not row.metric.is_of_finished]
            extreme = (min if row.metric.better == "lower" else max)(row.values[other] for other in better)
            assert row.values[index] == extreme
            parts = [[getattr(runs[other].text, part) for part in row.metric.parts] for other in known]
            assert all(part == parts[0] and None not in part for part in parts)


# Reading


def test_figures_of_a_finished_run(tmp_path):
    run = create_run(CONFIG, VOCABULARY, "ring", tmp_path)
    run.lock.release()
    write_metrics(run.path, 64.0, 12.5)
    compared = read_compared_run(run.path)
    assert (compared.name, compared.state, compared.device) == ("ring", "finished", "cpu")
    size = sum(path.stat().st_size for path in run.path.rglob("*"))
    assert compared.figures == {
        "valid_perplexity": 64.0,
        "test_perplexity": 69.0,
        "valid_bits_per_character": pytest.approx((10 * math.log2(64) + 7) / 50),
        "epochs": 2.0,
        "seconds": 12.5,
        "tokens_per_second": 200.0,
        "parameters": 99,
        "size_bytes": size,
    }
    assert compared.settings is not None
    assert (compared.settings["preset"], compared.settings["embedding_size"]) == ("tiny", 6)


def test_runs_with_the_same_text_and_tokenizer_are_comparable(tmp_path):
    def text(name, sha256="ab", **changes):
        run = create_run(CONFIG.with_values(**changes), VOCABULARY, name, tmp_path)
        write_metrics(run.path, 64.0, 1.0, sha256=sha256)
        run.lock.release()
        return read_compared_run(run.path).text

    plain = text("a")
    assert None not in vars(plain).values()
    assert text("b", lr=0.5, num_layers=3, corpus="/another/path/of/the/same/file.csv") == plain
    assert text("c", "cd").corpus != plain.corpus
    for number, changes in enumerate(
        ({"split_seed": 1}, {"split": "scenes"}, {"held_out": 0.2}, {"min_characters": 3}, {"max_eval_tokens": 9})
    ):
        assert text(f"split{number}", **changes) == replace(plain, split=text(f"again{number}", **changes).split)
    stream = text("d", mode="stream")
    assert (stream.mode, stream.form) == ("stream", plain.form)
    (tmp_path / "b" / "vocabulary.json").write_text("{}")
    assert read_compared_run(tmp_path / "b").text.vocabulary not in (None, plain.vocabulary)
    (tmp_path / "b" / "vocabulary.json").unlink()
    assert read_compared_run(tmp_path / "b").text.vocabulary is None


TEXT = ScoredText("corpus", "split", "line", "vocabulary", "words 100")


def full_run(number, **settings):
    figures = {
        "valid_perplexity": 80.0 + number,
        "valid_bits_per_character": 2.0 + number / 100,
        "epochs": 20.0,
        "seconds": 3600.0 + number,
        "tokens_per_second": 12_345.0 - 100 * number,
        "parameters": 1_601_899 + 1_000_000 * number,
        "size_bytes": 32_000_000 * (number + 1),
    }
    return ComparedRun(f"run-{number}", Path("r"), "finished", "cpu", {"lr": 0.01, **settings}, TEXT, figures)


def layout(runs, width, names=None):
    return layout_comparison(compare_runs(runs), names or [run.name for run in runs], width)


def lines_of(lines):
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def test_two_runs_are_columns_with_differences_below_the_figures():
    runs = [full_run(0, epochs=5, tie_weights=True), full_run(4, epochs=9, tie_weights=False)]
    assert lines_of(layout(runs, 60)) == [
        "different settings       run-0               run-4",
        "epochs                       5                   9",
        "tie_weights               true               false",
        "",
        "results                  run-0               run-4",
        "valid ↓                   80.0*               84.0",
        "                                       +4.0 +5.0 %",
        "valid bits/char ↓        2.000*              2.040",
        "                                     +0.040 +2.0 %",
        "epochs                    20.0                20.0",
        "time ↓                 1:00:00*            1:00:04",
        "                                      +0:04 +0.1 %",
        "tokens/s ↑              12,345*             11,945",
        "                                       -400 -3.2 %",
        "parameters ↓         1,601,899*          5,601,899",
        "                                 +4,000,000 +250 %",
        "size ↓                 32.0 MB*           160.0 MB",
        "                                  +128.0 MB +400 %",
        "",
        "* best · ↓ lower is better · ↑ higher is better · baseline",
        "run-0",
    ]


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("count", [2, 4, 10])
def test_every_line_fits_and_every_run_is_named(width, count):
    runs = [
        full_run(number, keep_epoch_checkpoints=bool(number), corpus=f"/data/a/long/path/of/corpus-{number}.csv")
        for number in range(count)
    ]
    names = [f"20250101-120000-default-long-name-{number:02}" for number in range(count)]
    lines = lines_of(layout(runs, width, names))
    assert max(map(cell_len, lines)) <= width
    squeezed = "".join("".join(lines).split())
    for number in range(count):
        assert f"{number:02}" in squeezed
        assert f"-{number}.csv" in squeezed
    has_columns = lines[0] != "different settings"  # which is a line of its own above rows
    assert has_columns == (count <= {60: 2, 80: 4}.get(width, 6))


def test_names_and_values_are_printable_and_values_keep_their_end():
    runs = [full_run(0, corpus="a\x1b[2Jb"), full_run(1, corpus="/a/very/long/path/to/films.csv", lr=0.1 + 0.2)]
    lines = "\n".join(lines_of(layout(runs, 60, ["\x1b[31mred", "plain"])))
    assert "\x1b" not in lines
    assert re.search("…[a-z/]*/films.csv", lines)
    assert "0.3\n" in lines
    close = [full_run(0, lr=0.3), full_run(1, lr=0.1 + 0.2)]
    assert "0.30000000000000004" in "\n".join(lines_of(layout(close, 80)))
    wide = "\n".join(lines_of(layout(runs, 1_000_000)))
    assert "/a/very/long/path/to/films.csv" in wide
