"""Comparison of runs: settings that differ, differences to a baseline, best figures, and the layout."""

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from engine.events import Checkpointed, Evaluated, Finished, Started, Step
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from lotr_tui.monitor.run_list import ComparedRun, Role, compare_runs, comparison_tables, read_compared_run
from tests.support.runs import CONFIG, VOCABULARY, append_events

NAMES = ("corpus", "split", "mode", "vocabulary", "form")
TEXT = dict(zip(NAMES, ("corpus", "split", "line", "vocabulary", "words 100"), strict=True))


NO_CURVE = (np.empty(0), np.empty(0))


def make_run(name, **figures):
    return ComparedRun(name, Path(name), "finished", "cpu", {"lr": 0.01}, TEXT, figures, NO_CURVE)


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


@pytest.mark.parametrize("part", ["corpus", "split", "mode", "vocabulary"])
@pytest.mark.parametrize("value", ["other", None])
def test_perplexities_of_other_texts_are_neither_compared_nor_marked(part, value):
    figures = {"valid_perplexity": 80.0, "valid_bits_per_character": 2.0, "tokens_per_second": 1.0}
    runs = [make_run("a", **figures), make_run("b", **{key: 2 * figure for key, figure in figures.items()})]
    runs[1] = replace(runs[1], text=TEXT | {part: value})
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


# Reading


def test_bits_and_speed_of_a_finished_run_and_the_text_that_it_shares_with_others(tmp_path):
    def text(name, sha256="ab", **changes):
        run = create_run(CONFIG.with_values(**changes), VOCABULARY, name, tmp_path)
        write_metrics(run.path, 64.0, 1.0, sha256=sha256)
        run.lock.close()
        return read_compared_run(run.path).text

    plain = text("a")
    compared = read_compared_run(tmp_path / "a")
    assert (compared.state, compared.device, compared.settings["embedding_size"]) == ("finished", "cpu", 6)
    assert compared.figures["valid_bits_per_character"] == pytest.approx((10 * math.log2(64) + 7) / 50)
    assert (compared.figures["seconds"], compared.figures["tokens_per_second"]) == (1.0, 200.0)
    assert all(plain[name] for name in NAMES)
    assert text("b", lr=0.5, num_layers=3, corpus="/another/path/of/the/same/file.csv") == plain
    assert text("c", "cd")["corpus"] != plain["corpus"]
    for number, changes in enumerate(({"split_seed": 1}, {"split": "scenes"}, {"max_eval_tokens": 9})):
        other = text(f"split{number}", **changes)
        assert other == plain | {"split": other["split"]} != plain
    stream = text("d", mode="stream")
    assert (stream["mode"], stream["form"]) == ("stream", plain["form"])
    (tmp_path / "b" / "vocabulary.json").write_text("{}")
    assert read_compared_run(tmp_path / "b").text["vocabulary"] not in (None, plain["vocabulary"])


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("count", [2, 4, 10])
def test_every_line_of_the_table_fits_and_every_run_is_named_in_printable_characters(width, count):
    runs = [
        replace(make_run(f"{number:02}", valid_perplexity=80.0, seconds=3600.0, size_bytes=32e6 * (number + 1)),
                settings={"lr": 0.1 + 0.1 * number, "corpus": f"/data/a/long/\x1b[2Jpath/of/corpus-{number}.csv"})
        for number in range(count)
    ]  # fmt: skip
    names = [f"20250101-120000-default-\x1b[31mlong-name-{run.name}" for run in runs]
    console = Console(width=width, file=StringIO())
    for part in comparison_tables(compare_runs(runs), names, width, dict.fromkeys(get_args(Role), "")):
        console.print(part)
    lines = console.file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    squeezed = "".join("".join(lines).split())
    assert squeezed.isprintable()
    assert all(f"-{number}.csv" in squeezed and f"{number:02}" in squeezed for number in range(count))
    assert "0.2" in squeezed
