"""The shape of a session: a tree of replies, whole lines that are checked when they are read."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UnusableInput
from engine.generation.generate import TokenEvent, stream
from engine.generation.settings import SamplerSettings
from lotr_tui.session.saved_session import Node, SavedSession, Word, header_line, node_line, read_session
from tests.lotr_tui.session.test_settings import samplers

shown = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18)
words = st.builds(Word, st.integers(0, 10**6), shown, finite, st.floats(0, 1), st.integers(1, 10**6), st.floats(0, 64))


@st.composite
def trees(draw):
    """Nodes whose parents come before them."""
    nodes: list[Node] = []
    for id in range(draw(st.integers(0, 6))):
        parent = draw(st.none() | st.sampled_from(nodes)) if nodes else None
        nodes.append(
            Node(
                id=id,
                parent=parent.id if parent else None,
                at=draw(st.integers(0, len(parent.words))) if parent else 0,
                prompt=draw(st.none() | st.text(max_size=20)),
                way=draw(st.sampled_from(["continue", "reply"])),
                words=tuple(draw(st.lists(words, max_size=4))),
                seed=draw(st.integers(0, 2**63 - 1)),
                settings=draw(samplers),
                reason=draw(st.sampled_from(["eos", "length", "stop", "cancelled", "error"])),
                words_per_second=draw(st.floats(0, 1e6)),
                model=draw(shown),
                unknown=tuple(draw(st.lists(shown, max_size=2))),
                name=draw(st.text(max_size=5)),
            )
        )
    return nodes


def word(text, id=5):
    return Word(id, text, -1.5, 0.25, 3, 4.5)


def node(id=0, parent=None, at=0, prompt="bilbo is", texts="a friend", **changes):
    said = tuple(word(text) for text in texts.split())
    return Node(id, parent, at, prompt, "continue", said, 7, SamplerSettings(), "length", 9000.0, "bundled", **changes)


def header(**changes):
    """A session's line."""
    record = {"version": 1, "model": "m", "started": 1.0, "current": None, **changes}
    return json.dumps({"session": record}).encode() + b"\n"


def changed(**changes):
    """Lines with a node of which some fields are changed; those set to ... are left out."""
    record = json.loads(node_line(node()))["node"] | changes
    record = {name: value for name, value in record.items() if value is not ...}
    return header() + json.dumps({"node": record}).encode() + b"\n"


@given(trees())
@settings(max_examples=60)
def test_what_was_written_is_read(nodes):
    session = SavedSession("x", "bundled", 1.7e9)
    found = read_session("x", header_line(session) + b"".join(map(node_line, nodes)))
    assert found == replace(session, nodes=tuple(nodes), current=nodes[-1].id if nodes else None)


def test_what_a_node_stands_on():
    nodes = (node(0), node(1, 0, 2), node(2, 0, 1, prompt=None), node(3, 2, 2), node(4))
    tree = SavedSession("x", "bundled", 0.0, nodes)
    assert [each.id for each in tree.line(3)] == [0, 2, 3]


def test_the_words_of_a_stream_are_kept(decoder):
    events = [e for e in stream(decoder, [5, 6], SamplerSettings(max_tokens=6), 3) if isinstance(e, TokenEvent)]
    kept = replace(node(), words=tuple(Word.of(event) for event in events))
    (found,) = read_session("x", header() + node_line(kept)).nodes
    for event, word in zip(events, found.words, strict=True):
        for name in ("id", "text", "logprob", "prob", "rank", "entropy"):
            assert getattr(word, name) == getattr(event, name)


def test_figures_that_are_not_finite_become_unknown():
    line = node_line(replace(node(), words=(Word(5, "a", -math.inf, 1.0, 1, math.nan),)))
    ((found,),) = (each.words for each in read_session("x", header() + line).nodes)
    assert math.isnan(found.logprob)
    assert math.isnan(found.entropy)
    assert found.prob == 1.0
    assert b"NaN" not in line
    assert b"Infinity" not in line


# Damage


def test_the_lines_that_are_changed_for_these_tests_are_sound():
    assert read_session("x", changed()).nodes == (node(),)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"\xff\xfe\n", "no text"),
        (b"nonsense\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"[]\n", "neither"),
        (b'{"session": 3}\n', "neither"),
        (b'{"song": {}}\n', "neither"),
        (header() + b"\n", "not JSON"),
        (header(version=2), "newer"),
        (header(version=None), "version"),
        (header(started="now"), "started"),
        (header(started=1e300), "started is no time"),
        (header(model="\x1b[31m"), "name"),
        (header(current="x"), "current"),
        (changed(id=...), "id is missing"),
        (changed(id="0"), "id '0' is of the wrong type"),
        (changed(id=-1), "out of range"),
        (changed(seed=2**63), "seed"),
        (changed(at=1), "out of range"),
        (changed(parent=0), "goes on from 0"),
        (changed(parent=3), "goes on from 3"),
        (changed(prompt=3), "prompt"),
        (changed(way="sing"), "way"),
        (changed(reason=[]), "reason"),
        (changed(settings={"temperature": -1}), "temperature -1"),
        (changed(words=3), "words"),
        (changed(words=[[1, "a", -1.0, 0.5, 1]]), "a word is not"),
        (changed(words=[[True, "a", -1.0, 0.5, 1, 2.0]]), "a word is not"),
        (changed(words=[[1, "a\x1b[0m", -1.0, 0.5, 1, 2.0]]), "a word is not"),
        (changed(words=[[1, "a", "x", 0.5, 1, 2.0]]), "figure"),
        (changed(words_per_second="x"), "figure"),
        (changed(unknown=[1]), "unknown"),
        (changed(unknown=["\x00"]), "unknown"),
        (changed(colour="red"), "colour"),
    ],
)
def test_damaged_lines_are_refused(content, why):
    with pytest.raises(UnusableInput) as raised:
        read_session("x", content)
    assert why in str(raised.value)
