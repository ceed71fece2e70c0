"""Exports of a session, read by independent parsers of Markdown, JSON and XML."""

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from engine.errors import InvalidInputError, printable
from lotr_tui.session.export import (
    SVG_CHAR_WIDTH,
    check_session_target,
    export_session,
    read_scenes,
    to_json,
    to_markdown,
    to_svg,
    to_text,
)
from lotr_tui.session.reply import AnswerScore
from lotr_tui.session.session_file import SavedSession, SavedToken
from tests.support.files import no_file_longer_than
from tests.support.sessions import reply_trees, saved_reply, saved_token

hostile_texts = st.text(st.characters() | st.sampled_from("\\`*_{}[]()#+-.!|<>~&:=\n\r\t 1.)\x1b@$"), max_size=40)
MARKUP = [
    "# no heading", "- no list", "1. no list", "1) no", "+ no", "---", "===", "*no* **emphasis** _no_ __no__ ~~no~~",
    "[no](http://link.example)", "![no](image.png)", "<b>no html</b>", "&amp; &lt;", "`no code`", "```", "    no code",
    "> no quote", "| no | table |", "|---|---|", "https://no.link.example", "www.no-link.example", "no@mail.example",
    "a\\", "\\*", "[^1]", "$no$ math", ":smile:", "[red]no markup[/red]", "<unk>", "\x1b[31mno colour", "\u202eabc",
]  # fmt: skip


def session(*replies, current_id=None):
    return SavedSession("20260727-140305", "shire-default", 1_700_000_000.0, replies, current_id)


def inline_text(token):
    """Return the visible text of a Markdown line, which may contain only text, emphasis and line breaks."""
    text = ""
    for child in token.children:
        if child.type in ("softbreak", "hardbreak"):
            text += "\n"
        else:
            assert child.type in ("text", "text_special", "em_open", "em_close"), child
            text += child.content
    return text


def markdown_blocks(text):
    """Return kind and text of each block, parsed as CommonMark with GitHub's tables and strike-through."""
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


def printable_lines(prompt):
    return "\n".join(line for line in map(printable, prompt.splitlines()) if line)


@given(hostile_texts | st.sampled_from(MARKUP), hostile_texts | st.sampled_from(MARKUP))
@settings(max_examples=100)
def test_markdown_shows_exactly_the_text(prompt, name):
    blocks = markdown_blocks(to_markdown(session(saved_reply(prompt=prompt, text="a friend", name=name))))
    expected = [
        ("heading", "lotr-tui session 20260727-140305"),
        ("heading", printable(f"1 · {name}" if name else "1")),
        ("blockquote", printable_lines(prompt)),
        ("paragraph", "a friend"),
        ("paragraph", "bundled · seed 7 · temperature 0.80 · 9,000 words/s · stopped at 2 words"),
    ]
    del blocks[1]  # model and time, which depends on the time zone
    assert blocks == [(kind, text) for kind, text in expected if text]


def test_branches_name_their_parent():
    tree = session(
        saved_reply(0, text="a very old friend"),
        saved_reply(1, 0, 2, prompt=None, text="small", name="other"),
        saved_reply(2, 0, 4),
    )
    blocks = markdown_blocks(to_markdown(tree))
    assert ("heading", "2 · branches off 1 after 2 words · other") in blocks
    assert ("paragraph", "a very small") in blocks
    assert ("heading", "3 · continues 1") in blocks
    picture = "\n".join(svg_lines(to_svg(tree)))
    assert "2 · branches off 1 after 2 words · other" in picture
    assert "  a very small" in picture


# JSON


@given(reply_trees())
@settings(max_examples=25)
def test_json_contains_every_field(replies):
    exported = json.loads(to_json(SavedSession("x", "m", 5.0, tuple(replies))))
    header = [exported[field] for field in ("format", "version", "name", "started")]
    assert header == ["lotr-tui session", 5, "x", 5.0]
    for record, reply in zip(exported["replies"], replies, strict=True):
        assert record["text"] == reply.text
        assert record["chain"] == reply.settings.describe()
        for field in (
            "id", "parent_id", "parent_offset", "prompt", "reply_mode", "seed", "reason", "tokens_per_second", "model",
            "name", "speaking_as", "speaker", "speaker_prob",
        ):  # fmt: skip
            assert record[field] == getattr(reply, field)
        assert record["score"] == (None if reply.score is None else asdict(reply.score))
        assert record["unknown_tokens"] == list(reply.unknown_tokens)
        assert [SavedToken(**token) for token in record["tokens"]] == list(reply.tokens)
        assert record["settings"]["temperature"] == reply.settings.temperature


# SVG

SVG = "{http://www.w3.org/2000/svg}"


def svg_lines(text):
    """Return the visible lines, each text in its column."""
    rows = {}
    for element in ET.fromstring(text).iter(f"{SVG}text"):
        line = rows.get(float(element.get("y")), "")
        column = round(float(element.get("x")) / SVG_CHAR_WIDTH)
        assert round(float(element.get("textLength")) / SVG_CHAR_WIDTH) == cell_len(element.text)
        assert cell_len(line) <= column
        rows[float(element.get("y"))] = line + " " * (column - cell_len(line)) + element.text
    return [rows[y].rstrip() for y in sorted(rows)]


def open_reply(pieces, *arguments, **changes):
    tokens = tuple(saved_token(piece.replace("\n", "<0x0A>"), piece=piece) for piece in pieces)
    return replace(saved_reply(*arguments, **changes), tokens=tokens, tokenizer="bpe")


def test_replies_of_an_open_vocabulary_are_exported_as_prose():
    saved = session(
        open_reply(["ard", ",", " said", "\n", "He", ":"], prompt="The old wiz"),
        open_reply(["isp", "ered", "."], 1, 0, 3, prompt=None),
        open_reply(["ened"], 2, 0, 0, prompt=None),
    )
    lines = [line.strip() for line in svg_lines(to_svg(saved, 200))]
    for line in ("wizard, said He:", "wizard, saidispered.", "wizened", "2 · branches off 1 after 3 tokens"):
        assert line in lines
    markdown = to_markdown(saved)
    for line in ("wizard, said He:", "*wizard,* saidispered.", "wizened"):
        assert f"\n\n{line}\n\n" in markdown


@given(hostile_texts | st.sampled_from(MARKUP), hostile_texts, st.integers(10, 100))
@settings(max_examples=50)
def test_svg_is_well_formed_and_complete_for_any_text(prompt, name, columns):
    picture = to_svg(session(saved_reply(prompt=prompt, name=name)), columns)
    assert not {"image", "script", "use", "a"} & {each.tag.removeprefix(SVG) for each in ET.fromstring(picture).iter()}
    lines = svg_lines(picture)
    assert all(cell_len(line) <= columns for line in lines)
    visible = "".join("".join(lines).split())
    assert "".join(printable_lines(prompt).split()) in visible
    assert "".join(printable(name).split()) in visible


# Scripts of conversations


def turn(id, parent_id, prompt, speaker, text, **changes):
    """A turn of a conversation that follows a reply of two words, or starts a scene."""
    offset = 0 if parent_id is None else 2
    return saved_reply(
        id, parent_id, offset, prompt, text, **{"reply_mode": "conversation", "speaker": speaker, **changes}
    )


def test_answers_that_were_never_shown_are_left_out():
    shown, *others = (AnswerScore(rank, 3, -9.0, -10.0, 3) for rank in (1, 2, 3))
    replies = [turn(0, None, "where is frodo", "GANDALF", "quite safe", score=shown)]
    replies += [
        replace(turn(id, 0, None, "GANDALF", text, score=score), parent_offset=0)
        for id, text, score in zip((1, 2), ("i wonder", "never mind"), others, strict=True)
    ]
    (scene,) = read_scenes(session(*replies))
    assert list(map(str, scene.lines)) == ["Stranger: where is frodo", "Gandalf: quite safe"]
    assert not scene.other_answers
    (scene,) = read_scenes(session(*replies, current_id=2))
    assert list(map(str, scene.lines))[1:] == ["Gandalf: never mind"]
    assert list(map(str, scene.other_answers)) == ["Gandalf: quite safe"]


def test_markup_in_a_name_and_in_a_line_stays_text():
    reply = turn(0, None, "*no* `markup`", "<B>*X*</B>", "safe")
    (paragraph,) = [token for token in MarkdownIt().parse(to_markdown(session(reply))) if "safe" in token.content]
    kinds = [child.type for child in paragraph.children or ()]
    assert kinds.count("strong_open") == 1
    assert "em_open" not in kinds
    assert "html_inline" not in kinds
    assert "<b>*x*</B>:" in "".join(child.content for child in paragraph.children or ())


@given(reply_trees())
@settings(max_examples=25)
def test_any_session_is_a_script_of_printable_lines(replies):
    text = to_text(session(*replies))
    assert all(line == printable(line) for line in text.splitlines())
    scenes = read_scenes(session(*replies))
    assert sorted(id for scene in scenes for id in scene.reply_ids) == sorted(reply.id for reply in replies)
    for export in (to_markdown, to_svg):
        assert "lotr-tui session 20260727-140305" in export(session(*replies)).replace("\\", "")


# Files


def test_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match=r"a\.md exists already"):
        export_session(session(), path)
    assert path.read_text() == "mine"
    export_session(session(), path, replace=True)
    assert path.read_text() == to_markdown(session())


@pytest.mark.parametrize("name", ["a.pdf", "a", "md"])
def test_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"no known ending; end it in \.md or \.txt or \.json or \.svg"):
        export_session(session(), tmp_path / name)
    with pytest.raises(InvalidInputError, match="no known ending"):
        check_session_target(str(tmp_path / name))


def test_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path):
    (tmp_path / "old.md").write_text("mine")
    for path in (tmp_path / "new.md", tmp_path / "old.md"):
        with no_file_longer_than(10), pytest.raises(InvalidInputError, match=r"cannot write .*\.md: File too large"):
            export_session(session(), path, replace=path.exists())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.md", "mine")]
