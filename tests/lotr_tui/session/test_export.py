"""Exports of a session, read by independent parsers of Markdown and JSON."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from engine.errors import InvalidInputError, printable
from lotr_tui.session import export
from lotr_tui.session.reply import AnswerScore, Token
from tests.support.files import no_file_longer_than
from tests.support.sessions import reply_trees, saved_reply, session_of

hostile_texts = st.text(st.characters() | st.sampled_from("\\`*_{}[]()#+-.!|<>~&:=\n\r\t 1.)\x1b@$"), max_size=40)
MARKUP = [
    "# no heading", "- no list", "1. no list", "1) no", "+ no", "---", "===", "*no* **emphasis** _no_ __no__ ~~no~~",
    "[no](http://link.example)", "![no](image.png)", "<b>no html</b>", "&amp; &lt;", "`no code`", "```", "    no code",
    "> no quote", "| no | table |", "|---|---|", "https://no.link.example", "www.no-link.example", "no@mail.example",
    "a\\", "\\*", "[^1]", "$no$ math", ":smile:", "[red]no markup[/red]", "<unk>", "\x1b[31mno colour", "\u202eabc",
]  # fmt: skip


def session(*replies, current_id=None):
    fields = {"name": "20260727-140305", "model": "shire-default", "started": 1_700_000_000.0}
    return session_of(*replies, current_id=current_id, **fields)


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


@given(hostile_texts | st.sampled_from(MARKUP))
@settings(max_examples=100)
def test_markdown_shows_exactly_the_text(prompt):
    blocks = markdown_blocks(export.to_markdown(session(saved_reply(prompt=prompt, text="a friend"))))
    expected = [
        ("heading", "lotr-tui session 20260727-140305"),
        ("paragraph", printable(f"{prompt} a friend")),
        ("paragraph", printable("seed 7 · temperature 0.80")),
    ]
    del blocks[1]  # model and time, which depends on the time zone
    assert blocks == expected


def test_branches_are_other_answers_and_a_continued_reply_is_shown_once():
    tree = session(
        saved_reply(0, text="a very old friend"),
        saved_reply(1, 0, 2, prompt=None, text="small"),
        saved_reply(2, 0, 4, prompt=None, text="indeed"),
        current_id=2,
    )
    blocks = markdown_blocks(export.to_markdown(tree))
    assert ("paragraph", "bilbo is a very old friend indeed") in blocks
    assert blocks[-2:] == [("heading", "Other answers"), ("paragraph", "bilbo is a very small")]


# JSON


@given(reply_trees())
@settings(max_examples=25)
def test_json_contains_every_field(replies):
    exported = json.loads(export.to_json(session_of(*replies, started=5.0)))
    header = [exported[field] for field in ("format", "version", "name", "started")]
    assert header == ["lotr-tui session", 5, "x", 5.0]
    for record, reply in zip(exported["replies"], replies, strict=True):
        assert record["text"] == "".join(token.piece for token in reply.own_tokens).removeprefix(" ")
        assert record["chain"] == reply.settings.describe()
        for field in (
            "id", "parent_id", "parent_offset", "reply_mode", "seed", "reason", "tokens_per_second", "model",
            "speaking_as", "speaker", "speaker_prob",
        ):  # fmt: skip
            assert record[field] == getattr(reply, field)
        assert record["score"] == (None if reply.score is None else asdict(reply.score))
        assert record["prompt"] == (reply.prompt if reply.starts_turn else None)
        assert record["unknown_tokens"] == list(reply.unknown_tokens if reply.starts_turn else ())
        assert [Token(**token) for token in record["tokens"]] == reply.own_tokens
        assert record["settings"]["temperature"] == reply.settings.temperature


# Scripts of conversations


def turn(id, parent_id, prompt, speaker, text, **changes):
    """A turn of a conversation that follows a reply of two words, or starts a scene."""
    fields = {"parent_offset": 0 if parent_id is None else 2, "reply_mode": "conversation", "speaker": speaker}
    return saved_reply(id, parent_id, prompt=prompt, text=text, **{**fields, **changes})


def lines_of(replies):
    return [": ".join(filter(None, line)) for reply in replies for line in export.script_lines(reply)]


def test_answers_that_were_never_shown_are_left_out():
    shown, *others = (AnswerScore(rank, 3, -9.0, -10.0, 3) for rank in (1, 2, 3))
    replies = [turn(0, None, "where is frodo", "GANDALF", "quite safe", score=shown)]
    replies += [
        turn(id, 0, None, "GANDALF", text, score=score, parent_offset=0)
        for id, text, score in zip((1, 2), ("i wonder", "never mind"), others, strict=True)
    ]
    tree = session(*replies)
    (scene,) = export.read_scenes(tree)
    assert lines_of(scene.turns) == ["Stranger: where is frodo", "Gandalf: quite safe"]
    assert not scene.other_answers
    tree.current_id = 2
    (scene,) = export.read_scenes(tree)
    assert lines_of(scene.turns)[1:] == ["Gandalf: never mind"]
    assert lines_of(scene.other_answers)[1:] == ["Gandalf: quite safe"]


def test_markup_in_a_name_and_in_a_line_stays_text():
    reply = turn(0, None, "*no* `markup`", "<B>*X*</B>", "safe")
    (paragraph,) = [
        token for token in MarkdownIt().parse(export.to_markdown(session(reply))) if "safe" in token.content
    ]
    kinds = [child.type for child in paragraph.children or ()]
    assert kinds.count("strong_open") == 1
    assert "em_open" not in kinds
    assert "html_inline" not in kinds
    assert "<b>*x*</B>:" in "".join(child.content for child in paragraph.children or ())


@given(reply_trees())
@settings(max_examples=25)
def test_any_session_is_a_script_of_printable_lines(replies):
    tree = session(*replies)
    assert all(line == printable(line) for line in export.to_text(tree).splitlines())
    assert "lotr-tui session 20260727-140305" in export.to_markdown(tree).replace("\\", "")


# Files


def test_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match=r"a\.md exists already"):
        export.export_session(session(), path)
    assert path.read_text() == "mine"
    export.export_session(session(), path, replace=True)
    assert path.read_text() == export.to_markdown(session())


@pytest.mark.parametrize("name", ["a.pdf", "a", "md"])
def test_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"no known ending; end it in \.md or \.txt or \.json"):
        export.export_session(session(), tmp_path / name)
    with pytest.raises(InvalidInputError, match="no known ending"):
        export.check_session_target(str(tmp_path / name))


def test_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path):
    (tmp_path / "old.md").write_text("mine")
    for path in (tmp_path / "new.md", tmp_path / "old.md"):
        with no_file_longer_than(10), pytest.raises(InvalidInputError, match=r"cannot write .*\.md: File too large"):
            export.export_session(session(), path, replace=path.exists())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.md", "mine")]


# Paths that the user types


def test_suggestion_names_no_existing_file(tmp_path):
    assert export.suggest_export_path(tmp_path, "v0.3 party.md").name == "v0.3 party.md"
    (tmp_path / "v0.3 party.md").touch()
    (tmp_path / "v0.3 party-2.md").symlink_to("nowhere")
    assert export.suggest_export_path(tmp_path, "v0.3 party.md").name == "v0.3 party-3.md"


def test_suggestion_is_in_the_current_folder_if_the_last_one_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for gone in (tmp_path / "gone", tmp_path / "file" / "gone", tmp_path / ("x" * 300)):
        assert export.suggest_export_path(gone, "a.md") == tmp_path / "a.md"


def test_missing_folder_is_named_and_not_created(tmp_path):
    target = export.check_export_target(f"{tmp_path}/a/b/c.md", is_folder=False)
    assert target.missing_folder == tmp_path / "a" / "b"
    assert export.check_export_target(f"{tmp_path}/a/b", is_folder=True).missing_folder == tmp_path / "a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "type a path"), ("new/", "is a folder; add the name of a file"), ("pipe", "is not a regular file"),
        ("x" * 10_000, "File name too long"),
        ("~nobody-of-this-name/x", "is not a path"), ("a\ud800b", "is not a path"),
        ("loop/x", "is not a path|symbolic links"),
    ],
)  # fmt: skip
def test_unusable_file_is_refused_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    with pytest.raises(InvalidInputError, match=message) as raised:
        export.check_export_target(text, is_folder=False)
    assert str(raised.value).isprintable()


def test_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert export.check_export_target(f"{tmp_path}/empty/", is_folder=True).path == tmp_path / "empty"
    with pytest.raises(InvalidInputError, match="is not empty, and nothing in it is replaced"):
        export.check_export_target(str(tmp_path), is_folder=True)
    with pytest.raises(InvalidInputError, match="is a file; choose a new folder"):
        export.check_export_target(f"{tmp_path}/file", is_folder=True)
