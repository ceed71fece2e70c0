"""Exports of a session, read by independent parsers of Markdown and JSON."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from engine.errors import InvalidInputError, printable
from lotr_tui.session import export
from lotr_tui.session.export import check_export_target, export_session, to_json, to_markdown, to_text
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
            assert child.type in ("text", "text_special", "em_open", "em_close", "strong_open", "strong_close"), child
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
    line = saved_reply(prompt=prompt, text="a friend")
    said = saved_reply(1, prompt="*no*", text="safe", reply_mode="conversation", speaker="<B>*X*</B>")
    blocks = markdown_blocks(to_markdown(session(line, said)))
    del blocks[1]  # model and time, which depends on the time zone
    figures = ("paragraph", "seed 7 · temperature 0.80")
    assert blocks == [
        ("heading", "lotr-tui session 20260727-140305"),
        ("heading", "Scene 1"), ("paragraph", printable(f"{prompt} a friend")), figures,
        ("heading", "Scene 2"), ("paragraph", "Stranger: *no*"), ("paragraph", "<b>*x*</B>: safe"), figures,
    ]  # fmt: skip


def test_branches_are_other_answers_and_a_continued_reply_is_shown_once():
    tree = session(
        saved_reply(0, text="a very old friend"),
        saved_reply(1, 0, 2, prompt=None, text="small"),
        saved_reply(2, 0, 4, prompt=None, text="indeed"),
        current_id=2,
    )
    blocks = markdown_blocks(to_markdown(tree))
    assert ("paragraph", "bilbo is a very old friend indeed") in blocks
    assert blocks[-2:] == [("heading", "Other answers"), ("paragraph", "bilbo is a very small")]


@given(reply_trees())
@settings(max_examples=25)
def test_any_session_is_json_with_every_field_and_a_script_of_printable_lines(replies):
    tree = session_of(*replies)
    assert all(line == printable(line) for line in to_text(tree).splitlines())
    assert "lotr-tui session x" in to_markdown(tree)
    exported = json.loads(to_json(tree))
    assert [exported[field] for field in ("format", "version", "name")] == ["lotr-tui session", 5, "x"]
    for record, reply in zip(exported["replies"], replies, strict=True):
        assert record.pop("text") == "".join(token.piece for token in reply.own_tokens).removeprefix(" ")
        assert record.pop("chain") == reply.settings.describe()
        assert [Token(**token) for token in record.pop("tokens")] == reply.own_tokens
        saved = json.loads(json.dumps(reply.record()))
        assert record == {name: value for name, value in saved.items() if name != "tokens"}


def test_answers_that_were_never_shown_are_left_out():
    prompt, replies = "where is frodo", []
    for id, text in enumerate(("quite safe", "i wonder", "never mind")):
        fields = {"reply_mode": "conversation", "speaker": "GANDALF", "score": AnswerScore(id + 1, 3, -9.0, -10.0, 3)}
        replies.append(saved_reply(id, 0 if id else None, prompt=None if id else prompt, text=text, **fields))
    tree = session(*replies)
    assert to_text(tree) == "Stranger: where is frodo\nGandalf: quite safe\n"
    assert "Other answers" not in to_markdown(tree)
    tree.current_id = 2
    assert to_text(tree) == "Stranger: where is frodo\nGandalf: never mind\n"
    assert markdown_blocks(to_markdown(tree))[-2:] == [
        ("heading", "Other answers"),
        ("paragraph", "Gandalf: quite safe"),
    ]


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
    with pytest.raises(InvalidInputError, match=r"no known ending; end it in \.md or \.txt or \.json"):
        export_session(session(), tmp_path / name)
    with pytest.raises(InvalidInputError, match="no known ending"):
        export.check_session_target(str(tmp_path / name))


def test_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path):
    (tmp_path / "old.md").write_text("mine")
    for path in (tmp_path / "new.md", tmp_path / "old.md"):
        with no_file_longer_than(10), pytest.raises(InvalidInputError, match=r"cannot write .*\.md: File too large"):
            export_session(session(), path, replace=path.exists())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.md", "mine")]


# Paths that the user types


def test_suggestion_names_no_existing_file_and_is_in_the_current_folder_if_the_last_one_is_gone(tmp_path, monkeypatch):
    (tmp_path / "v0.3 party.md").touch()
    (tmp_path / "v0.3 party-2.md").symlink_to("nowhere")
    assert export.suggest_export_path(tmp_path, "v0.3 party.md").name == "v0.3 party-3.md"
    monkeypatch.chdir(tmp_path)
    for gone in (tmp_path / "gone", tmp_path / "v0.3 party.md" / "gone", tmp_path / ("x" * 300)):
        assert export.suggest_export_path(gone, "a.md") == tmp_path / "a.md"


def test_missing_folder_is_named_and_not_created(tmp_path):
    target = check_export_target(f"{tmp_path}/a/b/c.md", is_folder=False)
    assert target.missing_folder == tmp_path / "a" / "b"
    assert check_export_target(f"{tmp_path}/a/b", is_folder=True).missing_folder == tmp_path / "a"
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
        check_export_target(text, is_folder=False)
    assert str(raised.value).isprintable()


def test_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert check_export_target(f"{tmp_path}/empty/", is_folder=True).path == tmp_path / "empty"
    with pytest.raises(InvalidInputError, match="is not empty, and nothing in it is replaced"):
        check_export_target(str(tmp_path), is_folder=True)
    with pytest.raises(InvalidInputError, match="is a file; choose a new folder"):
        check_export_target(f"{tmp_path}/file", is_folder=True)
