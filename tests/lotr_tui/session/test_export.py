"""What is exported says what was said, read by programs that did not write it: a Markdown, a JSON, an XML parser."""

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from engine.errors import UnusableInput, printable
from lotr_tui.session.export import KINDS, SVG_CELL, export, to_json, to_markdown, to_svg
from lotr_tui.session.saved_session import SavedSession, Word
from tests.lotr_tui.session.test_saved_session import node, trees
from tests.support.file_limits import no_file_longer_than

nasty = st.text(st.characters() | st.sampled_from("\\`*_{}[]()#+-.!|<>~&:=\n\r\t 1.)\x1b@$"), max_size=40)
MARKUP = [
    "# no heading", "- no list", "1. no list", "1) no", "+ no", "---", "===", "*no* **emphasis** _no_ __no__ ~~no~~",
    "[no](http://link.example)", "![no](image.png)", "<b>no html</b>", "&amp; &lt;", "`no code`", "```", "    no code",
    "> no quote", "| no | table |", "|---|---|", "https://no.link.example", "www.no-link.example", "no@mail.example",
    "a\\", "\\*", "[^1]", "$no$ math", ":smile:", "[red]no markup[/red]", "<unk>", "\x1b[31mno colour", "\u202eabc",
]  # fmt: skip


def session(*nodes):
    return SavedSession("20260727-140305", "shire-default", 1_700_000_000.0, nodes)


def inline_text(token):
    """The text that a reader sees of a line of Markdown; nothing but text, emphasis and breaks may be in it."""
    text = ""
    for child in token.children:
        if child.type in ("softbreak", "hardbreak"):
            text += "\n"
        else:
            assert child.type in ("text", "text_special", "em_open", "em_close"), child
            text += child.content
    return text


def markdown_blocks(text):
    """Kind and text of each block, as CommonMark with GitHub's tables, strike-through and links reads it."""
    parser = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    blocks, inside = [], []
    for token in parser.parse(text):
        if token.type == "inline":
            blocks.append((inside[0], inline_text(token)))
        elif token.nesting == 1:
            inside.append(token.type.removesuffix("_open"))
        elif token.nesting == -1:
            inside.pop()
        else:
            raise AssertionError(token)
    return blocks


def lines_of(prompt):
    return "\n".join(line for line in map(printable, prompt.splitlines()) if line)


@given(nasty | st.sampled_from(MARKUP), nasty | st.sampled_from(MARKUP))
@settings(max_examples=200)
def test_markdown_shows_the_text_and_nothing_else(prompt, name):
    blocks = markdown_blocks(to_markdown(session(node(prompt=prompt, texts="a friend", name=name))))
    expected = [
        ("heading", "lotr-tui session 20260727-140305"),
        ("heading", printable(f"1 · {name}" if name else "1")),
        ("blockquote", lines_of(prompt)),
        ("paragraph", "a friend"),
        ("paragraph", "bundled · seed 7 · temperature 0.80 · 9,000 words/s · stopped at 2 words"),
    ]
    del blocks[1]  # model and time, which depends on the time zone
    assert blocks == [(kind, text) for kind, text in expected if text]


@pytest.mark.parametrize("text", MARKUP)
def test_words_with_markup_are_words_in_markdown_too(text):
    words = tuple(Word(5, word, -1.0, 0.5, 1, 2.0) for word in text.split())
    blocks = markdown_blocks(to_markdown(session(replace(node(), words=words))))
    assert ("paragraph", printable(text)) in blocks


def test_nothing_becomes_a_link_on_github():
    parser = MarkdownIt("gfm-like")
    text = to_markdown(session(node(prompt="https://a.example http://b.example www.c.example d@e.example")))
    kinds = {child.type for token in parser.parse(text) for child in token.children or ()}
    assert "link_open" not in kinds


def test_branches_say_where_they_come_from():
    tree = session(
        node(0, texts="a very old friend"), node(1, 0, 2, prompt=None, texts="small", name="other"), node(2, 0, 4)
    )
    blocks = markdown_blocks(to_markdown(tree))
    assert ("heading", "2 · branches off 1 after 2 words · other") in blocks
    assert ("paragraph", "a very small") in blocks
    assert ("heading", "3 · goes on from 1") in blocks
    picture = "\n".join(svg_lines(to_svg(tree)))
    assert "2 · branches off 1 after 2 words · other" in picture
    assert "  a very small" in picture


# JSON


@given(trees())
def test_json_holds_all_there_is(nodes):
    tree = SavedSession("x", "m", 5.0, tuple(nodes))
    found = json.loads(to_json(tree))
    assert (found["format"], found["version"], found["name"], found["started"]) == ("lotr-tui session", 1, "x", 5.0)
    for record, each in zip(found["nodes"], nodes, strict=True):
        assert record["text"] == each.text
        assert record["chain"] == each.settings.chain()
        for field in ("id", "parent", "at", "prompt", "way", "seed", "reason", "words_per_second", "model", "name"):
            assert record[field] == getattr(each, field)
        assert record["unknown"] == list(each.unknown)
        assert [Word(**word) for word in record["words"]] == list(each.words)
        assert record["settings"]["temperature"] == each.settings.temperature


def test_json_has_no_nan():
    tree = session(replace(node(), words=(Word(5, "a", -math.inf, 1.0, 1, math.nan),)))

    def refuse(name):
        raise AssertionError(name)

    word = json.loads(to_json(tree), parse_constant=refuse)["nodes"][0]["words"][0]
    assert (word["logprob"], word["entropy"], word["prob"]) == (None, None, 1.0)


# SVG

SVG = "{http://www.w3.org/2000/svg}"


def svg_lines(text):
    """The lines as they are seen: each text in its column."""
    rows = {}
    for element in ET.fromstring(text).iter(f"{SVG}text"):
        line = rows.get(float(element.get("y")), "")
        column = round(float(element.get("x")) / SVG_CELL)
        assert round(float(element.get("textLength")) / SVG_CELL) == cell_len(element.text)
        assert cell_len(line) <= column
        rows[float(element.get("y"))] = line + " " * (column - cell_len(line)) + element.text
    return [rows[y].rstrip() for y in sorted(rows)]


def test_svg_shows_the_transcript():
    lines = svg_lines(to_svg(session(node(prompt="bilbo\nis"), node(1, 0, 2, prompt="日本 <b> & [red]"))))
    assert lines[0] == "lotr-tui session 20260727-140305"
    assert lines[2:] == [
        "1",
        "❯ bilbo",
        "  is",
        "  a friend",
        "  bundled · seed 7 · temperature 0.80 · 9,000 words/s · stopped at 2 words",
        "2 · goes on from 1",
        "❯ 日本 <b> & [red]",
        "  a friend",
        "  bundled · seed 7 · temperature 0.80 · 9,000 words/s · stopped at 2 words",
    ]


@given(nasty | st.sampled_from(MARKUP), nasty, st.integers(10, 100))
def test_svg_is_sound_and_loses_nothing_whatever_is_in_it(prompt, name, columns):
    lines = svg_lines(to_svg(session(node(prompt=prompt, name=name)), columns))
    assert all(cell_len(line) <= columns for line in lines)
    seen = "".join("".join(lines).split())
    assert "".join(lines_of(prompt).split()) in seen
    assert "".join(printable(name).split()) in seen


def test_svg_needs_nothing_from_the_network():
    text = to_svg(session(node()))
    assert "url(" not in text
    assert "href" not in text
    assert "@import" not in text


def test_a_session_without_replies_can_be_exported():
    for write in KINDS.values():
        assert "20260727-140305" in write(session())


# Files


@pytest.mark.parametrize("kind", ["md", "json", "svg"])
def test_an_export_is_a_new_file_each_time(tmp_path, kind):
    paths = [export(session(node(prompt=str(n))), kind, tmp_path) for n in range(3)]
    assert [path.name for path in paths] == [f"20260727-140305{n}.{kind}" for n in ("", "-2", "-3")]
    assert [path.read_text() for path in paths] == [KINDS[kind](session(node(prompt=str(n)))) for n in range(3)]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UnusableInput, match=r"cannot write .*gone.*No such file"):
        export(session(), "md", tmp_path / "gone")


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="'pdf'; use md, json, svg"):
        export(session(), "pdf", tmp_path)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    with no_file_longer_than(10), pytest.raises(UnusableInput, match=r"cannot write .*\.md: File too large"):
        export(session(), "md", tmp_path)
    assert list(tmp_path.iterdir()) == []
