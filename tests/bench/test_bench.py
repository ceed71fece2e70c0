"""Tests of the figures and of the commands that the documents name, and of a recording."""

import math
import re
from types import SimpleNamespace

import pytest

from engine.config import LSTM
from tests.bench.__main__ import GROUPS, find_group
from tests.bench.measuring import Figure, Skip, alternate, compare
from tests.support.files import CHECKOUT

DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "assets" / "docs").glob("*.md")]


def test_figures_are_medians_or_nearest_ranks():
    assert Figure("a", "s", (3.0, 1.0, 8.0)).value == 3
    assert Figure("a", "ms", tuple(range(1, 41)), percent=95).value == 38
    ratio = list(compare("ours", "theirs", "s", [1, 6, 4], [2, 3, 1]))[2]
    assert (ratio.runs, ratio.value) == ((0.5, 2, 4), 2)


def test_candidates_run_in_turn_and_a_warm_up_does_not_count():
    order = []
    results = alternate(2, *(lambda name=name: order.append(name) or len(order) for name in "ab"), warm_up=True)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results == [[4, 5], [3, 6]]


def test_every_group_that_a_document_names_exists_and_says_what_it_measures():
    texts = [path.read_text("utf-8") for path in DOCUMENTS]
    commands = re.findall(r"python -m tests\.bench ([\w -]*?)(?: --|`|  |$)", "\n".join(texts), re.MULTILINE)
    named = {name for command in commands for name in command.split() if name != "GROUP"}
    assert named >= set(GROUPS) - {"keys", "gpu"}
    assert named <= set(GROUPS)
    assert all(find_group(name).__doc__ for name in GROUPS)


SHORTEST = {
    "train": {"precisions": ("fp32",), "num_steps": 1, "num_epochs": 1},
    "dashboard": {"epochs": 2},
    "scale-out": {"epochs": 1},
    "trackers": {"epochs": 2, "names": []},
    "growth": {"megabytes": (0.3,), "vocabularies": (300,)},
    "byte-pairs": {"megabytes": 0.3},
    "generate": {"names": ("large", LSTM)},
    "keys": {"num_keys": 4},
    "completion": {"num_presses": 1},
    "serve": {"num_keys": 4},
    "steering": {"seeds": (0,), "questions": ("Do you like fish?",)},
    "dialogue": {"max_hidden": 1, "max_shown": 1, "num_prompts": 2, "num_scenes": 2},
}  # sizes of the groups that would otherwise take minutes


@pytest.mark.slow
@pytest.mark.parametrize("group", [name for name in GROUPS if name != "gpu"])
def test_a_group_ends_with_finite_figures_in_its_shortest_form(group, lotr_csv, tmp_path):
    short_csv = tmp_path / "short.csv"
    short_csv.write_text("".join(lotr_csv.read_text().splitlines(keepends=True)[:800]))
    csv = lotr_csv if group in ("comparison", "dialogue", "growth") else short_csv
    options = SimpleNamespace(repeat=1, csv=csv, tales=lotr_csv, seconds=0.5, only="lstm-words-scratch", set=[])
    options.run, options.split, options.runs_dir = [LSTM], "test", tmp_path
    try:
        rows = list(find_group(group)(options, **SHORTEST.get(group, {})))
    except Skip as reason:
        pytest.skip(str(reason))
    figures = [row for row in rows if isinstance(row, Figure)]
    assert figures or len(rows) > 2  # a table
    assert all(math.isfinite(value) for figure in figures for value in figure.runs)
    assert all(min(figure.runs) > 0 for figure in figures if figure.unit not in ("", "nats", "bits/char"))
