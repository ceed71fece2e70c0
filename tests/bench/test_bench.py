"""Tests of the figures and of the commands that the documents name, and of a recording."""

import re
from types import SimpleNamespace

import pytest

from tests.bench.__main__ import GROUPS, find_group
from tests.bench.interface import measure_memory
from tests.bench.measuring import Figure, alternate, call, compare
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


@pytest.mark.slow
def test_measured_functions_and_programs_run_in_processes_of_their_own(tmp_path):
    text = tmp_path / "text.txt"
    call("loops", "write_text", str(text), 10_000)
    seconds, usage = call("loops", "index_words", str(text))
    assert text.stat().st_size > 10_000
    assert min(seconds["ours"], seconds["notebook"], usage.cpu_seconds, usage.megabytes) > 0
    session, bare, ratio = measure_memory(SimpleNamespace(repeat=1))
    assert session.value > bare.value > 5
    assert ratio.value == session.value / bare.value
