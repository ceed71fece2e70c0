"""Saved conversations as scripts, in plain text, Markdown and pictures."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from markdown_it import MarkdownIt

from engine.errors import printable
from lotr_tui.session.answer_score import AnswerScore
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.restore import selected_replies
from lotr_tui.session.export import to_markdown, to_svg
from lotr_tui.session.saved_session import SavedReply, SavedSession
from lotr_tui.session.script import read_scenes, to_text
from lotr_tui.session.session_file import load_session
from tests.support.conversations import SETTINGS, finish_reply
from tests.support.dialogues import dialogue_session_model, finish_scene, say, text_of
from tests.support.sessions import reply_trees, saved_reply


def turn(id: int, parent_id: int | None, prompt: str | None, speaker: str, text: str, **changes: object) -> SavedReply:
    """A turn of a conversation that follows a reply of two words, or starts a scene."""
    offset = 0 if parent_id is None else 2
    return saved_reply(
        id, parent_id, offset, prompt, text, **{"reply_mode": "conversation", "speaker": speaker, **changes}
    )


CONVERSATION = (
    turn(0, None, "where is frodo", "GANDALF", "quite safe"),
    turn(1, 0, "bilbo is here", "GOLLUM", "nasty hobbit", speaking_as="FRODO"),
    turn(2, 1, "", "FRODO", "be quiet"),
    replace(turn(3, 0, None, "FRODO", "right here"), parent_offset=0),  # another answer in the first turn
    turn(4, None, "good morning", "GANDALF", "my friend"),
)


def saved_session(*replies: SavedReply, current_id: int | None = None) -> SavedSession:
    return SavedSession("name", "scenes", 1_700_000_000.0, replies, current_id)


def test_text_is_the_script_of_the_visible_lines() -> None:
    assert to_text(saved_session(*CONVERSATION, current_id=2)) == (
        "STRANGER: where is frodo\nGANDALF: quite safe\nFRODO: bilbo is here\nGOLLUM: nasty hobbit\nFRODO: be quiet\n"
        "\nSTRANGER: good morning\nGANDALF: my friend\n"
    )
    branch = to_text(saved_session(*CONVERSATION, current_id=3))
    assert branch.startswith("STRANGER: where is frodo\nFRODO: right here\n\nSTRANGER: good morning")


def test_branch_in_the_middle_of_a_line_is_complete() -> None:
    branch = replace(turn(1, 0, None, "GANDALF", "and warm"), parent_offset=1)
    assert to_text(saved_session(CONVERSATION[0], branch)) == "STRANGER: where is frodo\nGANDALF: quite and warm\n"


def test_line_that_was_continued_is_there_once() -> None:
    continued = replace(turn(1, 0, None, "GANDALF", "and warm"), parent_offset=2)
    (scene,) = read_scenes(saved_session(CONVERSATION[0], continued))
    assert list(map(str, scene.lines)) == ["STRANGER: where is frodo", "GANDALF: quite safe and warm"]
    assert not scene.other_answers


def test_texts_without_speakers_have_no_names() -> None:
    replies = (saved_reply(0), saved_reply(1, prompt="hello", reply_mode="reply"), saved_reply(2, prompt="", text=""))
    assert to_text(saved_session(*replies)) == "bilbo is a friend\n\nhello\na friend\n\n"


def test_answers_that_were_never_shown_are_left_out() -> None:
    shown, *others = (AnswerScore(rank, 3, -9.0, -10.0, 3) for rank in (1, 2, 3))
    replies = [turn(0, None, "where is frodo", "GANDALF", "quite safe", score=shown)]
    replies += [
        replace(turn(id, 0, None, "GANDALF", text, score=score), parent_offset=0)
        for id, text, score in zip((1, 2), ("i wonder", "never mind"), others, strict=True)
    ]
    (scene,) = read_scenes(saved_session(*replies))
    assert list(map(str, scene.lines)) == ["STRANGER: where is frodo", "GANDALF: quite safe"]
    assert not scene.other_answers
    (scene,) = read_scenes(saved_session(*replies, current_id=2))
    assert list(map(str, scene.lines))[1:] == ["GANDALF: never mind"]
    assert list(map(str, scene.other_answers)) == ["GANDALF: quite safe"]


def test_markdown_reads_like_a_script() -> None:
    tokens = MarkdownIt().parse(to_markdown(saved_session(*CONVERSATION, saved_reply(9), current_id=2)))
    lines = [token.content for token in tokens if token.type == "inline"]
    assert lines[2:] == [
        "Scene 1",
        "**STRANGER:** where is frodo",
        "**GANDALF:** quite safe",
        "**FRODO:** bilbo is here",
        "**GOLLUM:** nasty hobbit",
        "**FRODO:** be quiet",
        "Other answers",
        "**FRODO:** right here",
        "Scene 2",
        "**STRANGER:** good morning",
        "**GANDALF:** my friend",
        "1",
        "bilbo is",
        "a friend",
        lines[-1],
    ]


def test_picture_reads_like_a_script() -> None:
    root = ET.fromstring(to_svg(saved_session(*CONVERSATION, current_id=2)))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[2:] == [
        "STRANGER: ", "where is frodo", "GANDALF: ", "quite safe", "FRODO: ", "bilbo is here",
        "GOLLUM: ", "nasty hobbit", "FRODO: ", "be quiet", "STRANGER: ", "good morning", "GANDALF: ", "my friend",
    ]  # fmt: skip


def test_markup_in_a_name_and_in_a_line_stays_text() -> None:
    reply = turn(0, None, "*no* `markup`", "<B>*X*</B>", "safe")
    (paragraph,) = [token for token in MarkdownIt().parse(to_markdown(saved_session(reply))) if "safe" in token.content]
    kinds = [child.type for child in paragraph.children or ()]
    assert kinds.count("strong_open") == 1
    assert "em_open" not in kinds
    assert "html_inline" not in kinds
    assert "<B>*X*</B>:" in "".join(child.content for child in paragraph.children or ())


@given(reply_trees())
def test_any_session_is_a_script_of_printable_lines(replies: list[SavedReply]) -> None:
    text = to_text(saved_session(*replies))
    assert all(line == printable(line) for line in text.splitlines())
    scenes = read_scenes(saved_session(*replies))
    assert sorted(id for scene in scenes for id in scene.reply_ids) == sorted(reply.id for reply in replies)
    for export in (to_markdown, to_svg):
        assert "lotr-tui session name" in export(saved_session(*replies)).replace("\\", "")


def test_script_of_a_conversation_is_what_was_shown(conversation: Conversation, tmp_path: Path) -> None:
    session_model = dialogue_session_model()
    first = say(conversation, session_model, "where is frodo", best_of=4)
    conversation.answer_as(first, "GOLLUM", SETTINGS, 3, 2)
    conversation.go_on(session_model, None, 3, SETTINGS, 5, finish_reply(conversation), 3)
    finish_scene(conversation)
    session = load_session(tmp_path / "sessions" / f"{conversation.name}.jsonl")
    replies = selected_replies(conversation)
    assert to_text(session) == "STRANGER: where is frodo\n" + "".join(
        f"{reply.speaker}: {text_of(reply)}\n" for reply in replies
    )
    assert to_text(session) == f"{replies[-1].full_text()}\n"
