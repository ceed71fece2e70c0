"""Layout of a comparison of runs: columns or rows, widths, marks and texts."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from lotr_tui.monitor.compared_run import ComparedRun, ScoredText
from lotr_tui.monitor.comparison_layout import layout_comparison
from lotr_tui.monitor.run_comparison import compare_runs
from lotr_tui.monitor.text_table import Line, truncate_middle

TEXT = ScoredText("corpus", "split", "line", "vocabulary", "words 100")


def make_run(number: int, **settings: object) -> ComparedRun:
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


def layout(runs: list[ComparedRun], width: int, names: list[str] | None = None) -> list[Line]:
    return layout_comparison(compare_runs(runs), names or [run.name for run in runs], width)


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def test_two_runs_are_columns_with_differences_below_the_figures() -> None:
    runs = [make_run(0, epochs=5, tie_weights=True), make_run(4, epochs=9, tie_weights=False)]
    assert texts(layout(runs, 60)) == [
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


@pytest.mark.parametrize("width", [60, 80, 120, 198])
@pytest.mark.parametrize("count", [2, 3, 4, 7, 10])
def test_every_line_fits_and_every_run_is_named(width: int, count: int) -> None:
    runs = [
        make_run(number, keep_epoch_checkpoints=bool(number), corpus=f"/data/a/long/path/of/corpus-{number}.csv")
        for number in range(count)
    ]
    names = [f"20250101-120000-default-long-name-{number:02}" for number in range(count)]
    lines = texts(layout(runs, width, names))
    assert max(map(cell_len, lines)) <= width
    squeezed = "".join("".join(lines).split())
    for number in range(count):
        assert f"{number:02}" in squeezed
        assert f"-{number}.csv" in squeezed
    has_columns = lines[0] != "different settings"  # which is a line of its own above rows
    assert has_columns == (count <= {60: 2, 80: 4}.get(width, 6))


def test_many_runs_are_rows() -> None:
    lines = texts(layout([make_run(number, lr=number / 3) for number in range(8)], 80))
    assert lines[:4] == ["different settings", "             lr", "run-0         0", "run-1  0.333333"]
    start = lines.index("results")
    assert lines[start + 1 : start + 4] == [
        "       valid ↓    difference  valid bits/char ↓      difference  epochs",
        "run-0     80.0*                           2.000*                   20.0",
        "run-1     81.0   +1.0 +1.2 %              2.010   +0.010 +0.5 %    20.0",
    ]


def test_best_and_better_figures_have_roles_and_signs() -> None:
    roles = {text.strip(): role for line in layout([make_run(1), make_run(0)], 80) for text, role in line}
    assert roles["80.0*"] == "best"
    assert roles["-1.0 -1.2 %"] == "better"  # a lower perplexity
    assert roles["+100 +0.8 %"] == "better"  # a higher speed
    roles = {text.strip(): role for line in layout([make_run(0), make_run(1)], 80) for text, role in line}
    assert roles["+1.0 +1.2 %"] == roles["-100 -0.8 %"] == "worse"
    assert roles["results"] == "heading"


def test_names_and_values_are_printable_and_values_keep_their_end() -> None:
    runs = [make_run(0, corpus="a\x1b[2Jb"), make_run(1, corpus="/a/very/long/path/to/films.csv", lr=0.1 + 0.2)]
    lines = "\n".join(texts(layout(runs, 60, ["\x1b[31mred", "plain"])))
    assert "\x1b" not in lines
    assert re.search("…[a-z/]*/films.csv", lines)
    assert "0.3\n" in lines
    close = [make_run(0, lr=0.3), make_run(1, lr=0.1 + 0.2)]
    assert "0.30000000000000004" in "\n".join(texts(layout(close, 80)))
    wide = "\n".join(texts(layout(runs, 1_000_000)))
    assert "/a/very/long/path/to/films.csv" in wide


def test_unknown_settings_and_figures() -> None:
    runs = [make_run(0, lr=0.1), make_run(1, lr=0.2), replace(make_run(2), settings=None, figures={})]
    lines = texts(layout(runs, 80))
    assert next(line for line in lines if line.startswith("lr ")).split() == ["lr", "0.1", "0.2", "?"]
    assert next(line for line in lines if line.startswith("valid ↓")).split() == ["valid", "↓", "80.0*", "81.0", "-"]
    assert texts(layout([make_run(0), make_run(1)], 80))[0].startswith("no setting differs")


def test_huge_figures_of_damaged_metrics_stay_short() -> None:
    huge = replace(make_run(1), figures={"tokens_per_second": 1e300, "seconds": 1e300, "size_bytes": -1e308})
    assert max(map(len, texts(layout([make_run(0), huge], 80)))) <= 80


def test_truncated_names_keep_both_ends() -> None:
    assert truncate_middle("a-long-name-seed-12", 11) == "a-lon…ed-12"
    assert truncate_middle("日本語日本語日本語", 8) == "日…本語"
    assert truncate_middle("short", 5) == "short"
