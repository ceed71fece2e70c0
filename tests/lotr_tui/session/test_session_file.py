"""Session files: one writer, complete lines, no loss through damage or a full disk."""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

import lotr_tui.session.session_file as module
from engine.errors import InvalidInputError
from lotr_tui.session.reply import AnswerScore
from lotr_tui.session.session_file import Session, SessionError, delete_session, list_sessions, rename_session
from tests.support.files import no_file_longer_than
from tests.support.sessions import add_reply, header_line, records_of, reply_trees, save_replies, saved_reply
from tests.support.sessions import changed_reply_lines as changed

SCORE = {"rank": 1, "num_answers": 8, "log_prob": -20.0, "log_prob_alone": -25.0, "num_tokens": 9}


@pytest.fixture
def writer(tmp_path):
    """An open session with one reply."""
    session = Session(model="bundled", folder=tmp_path)
    add_reply(session, saved_reply(0))
    yield session
    session.close()


def reply_ids(path):
    return list(module.load_session(path).replies)


@given(reply_trees())
@settings(max_examples=25)
def test_saved_session_is_loaded_and_resumed_unchanged(replies):
    with TemporaryDirectory() as folder:
        path = save_replies(Path(folder), *replies, started=5.0)
        if not replies:
            assert list(Path(folder).iterdir()) == []
            return
        session = module.load_session(path)
        assert records_of(session) == [reply.record() for reply in replies]
        assert (session.model, session.started, session.current_id) == ("bundled", 5.0, replies[-1].id)
        resumed = Session.resume(path)
        assert records_of(resumed) == records_of(session) == records_of(module.parse_session("x", session.encode()))
        resumed.close()


LOCK_HOLDER = """
import sys
from pathlib import Path
from lotr_tui.session.session_file import Session
writer = Session.resume(Path(sys.argv[1]))
print("locked", flush=True)
input()
"""


def test_killed_process_releases_its_lock(tmp_path):
    path = save_replies(tmp_path, saved_reply())
    command, root = [sys.executable, "-c", LOCK_HOLDER, str(path)], Path(module.__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(SessionError, match="another window"):
            Session.resume(path)
        process.kill()
        process.wait()
    Session.resume(path).close()


# Damage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line does not describe a session"), (b"\xff\xfe\n", "not valid JSON"),
        (b"[" * 100_000 + b"\n", "not valid JSON"), (b'{"song": {}}\n', "neither"), (header_line(version=6), "newer"),
        (header_line(version=4), "written by an older lotr-tui (format 4)"), (header_line(version=None), "version"),
        (header_line(started=1e17), "started: expected float <= "),
        (header_line(model="\x1b[31m"), "model is not a printable name"), (changed(id=...), "id"),
        (changed(seed=2**63), "seed: expected int <= "), (changed(parent_id=0), "continues reply 0"),
        (changed(parent_offset=1), "parent_offset 1 of reply 0 is out of range"),
        (changed(edited_id=0), "reply 0 edits reply 0"),
        (changed(reply_mode="sing"), "reply_mode: invalid enum value 'sing'"),
        (changed(settings={"temperature": -1}), "temperature -1"),
        (changed(tokens=[[1, "a", -1.0, 0.5, 1]]), "tokens[0]: expected array of length 7"),
        (changed(tokens=[[1, "a\x1b[0m", -1.0, 0.5, 1, 2.0, "a"]]), "tokens of reply 0: control"),
        (changed(tokens=[[1, "a", -1.0, 1e300, 1, 2.0, "a"]]), "tokens[0][3]: expected float < "),
        (changed(speaker="\x1b[31m"), "speaker of reply 0: control characters"),
        (changed(speaker_prob=1.5), "speaker_prob: expected float <= 1"),
        (changed(score=SCORE | {"rank": 0}), "score.rank: expected int >= 1"),
        (changed(token=[]), "unknown field 'token'; did you mean tokens?"),
    ],
)  # fmt: skip
def test_damaged_line_is_refused_with_the_name_of_the_field(content, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        module.parse_session("x", content)


def test_file_of_this_format_with_a_name_of_a_branch_is_read():
    (reply,) = module.parse_session("x", changed(name="party")).replies.values()
    assert reply.record() == saved_reply().record()


@pytest.mark.parametrize("open_session", [module.load_session, Session.resume])
def test_file_without_a_whole_reply_is_refused_and_stays_as_it_is(tmp_path, open_session):
    path = tmp_path / "broken.jsonl"
    for content in (b"\xff\xfe\n", header_line(version=1) + changed().splitlines(keepends=True)[1]):
        path.write_bytes(content)
        message = f"{path} cannot be used: (not valid JSON|written by an older lotr-tui .*)"
        with pytest.raises(SessionError, match=message):
            open_session(path)
        assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], content)
    path.unlink()
    with pytest.raises(SessionError, match=r"No such file|is gone"):
        open_session(path)


@pytest.mark.parametrize(("line", "kept"), [(0, [0, 1, 2, 3]), (1, [1, 3]), (3, [0, 2, 3]), (5, [0, 1, 2])])
def test_an_invalid_byte_loses_its_line_only_and_the_file_as_it_was_is_kept(tmp_path, line, kept):
    # A conversation of three turns, the first of which has a second answer.
    replies = [saved_reply(0), saved_reply(1, 0, 2), saved_reply(2, 0, 0, prompt=None), saved_reply(3, 1, 2)]
    path = save_replies(tmp_path, *replies)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = b"\xff" + lines[line][1:]
    damaged = b"".join(lines)
    path.write_bytes(damaged)
    assert reply_ids(path) == kept
    writer = Session.resume(path)
    number = 2 if line == 1 else 1  # an answer without its prompt cannot be kept
    assert writer.damage == (
        f"{number} damaged line{'s' * (number > 1)} of session 'bilbo is' left out: not valid JSON; "
        "the file as it was is kept as bilbo is.jsonl.damaged-1"
    )
    add_reply(writer, saved_reply(4))
    writer.close()
    assert (tmp_path / "bilbo is.jsonl.damaged-1").read_bytes() == damaged
    again = module.load_session(path)
    assert (list(again.replies), again.damage, again.model) == ([*kept, 4], "", "bundled")


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_incomplete_last_line_is_ignored_and_removed_by_the_next_writer(tmp_path, cut):
    path = save_replies(tmp_path, saved_reply(0), saved_reply(1, 0, 1))
    path.write_bytes(path.read_bytes()[:-cut])
    assert reply_ids(path) == [0]
    writer = Session.resume(path)
    add_reply(writer, saved_reply(1, 0, 2, prompt="again"))
    writer.close()
    assert [reply.prompt for reply in module.load_session(path).replies.values()] == ["bilbo is", "again"]


def test_branches_that_share_a_long_text_many_times_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 100)
    branches = [saved_reply(id, 0, 50, prompt=None, text="") for id in range(1, 30)]
    path = save_replies(tmp_path, saved_reply(0, text="a " * 50), *branches)
    with pytest.raises(SessionError, match="more than 1,000 tokens in branches"):
        module.load_session(path)


# Renaming and deleting


def test_open_session_is_renamed_continues_in_the_new_file_and_is_closed_to_other_windows(tmp_path, writer):
    writer.rename("Bilbo's 🎂 party")
    path = tmp_path / "Bilbo's 🎂 party.jsonl"
    for change in (Session.resume, delete_session, lambda path: rename_session(path, "again")):
        with pytest.raises(SessionError, match="is open in another window"):
            change(path)
    add_reply(writer, saved_reply(1))
    writer.close()
    assert [each.name for each in list_sessions(tmp_path)] == ["Bilbo's 🎂 party"]
    renamed = rename_session(path, "after")
    resumed = Session.resume(renamed)
    add_reply(resumed, saved_reply(2))
    resumed.close()
    assert reply_ids(renamed) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "at least one character"), ("x" * 10_000, "at most 50 characters instead of 10,000"),
        ("../x", "'/' is not allowed"), ("a\x1b[2J", r"'\\x1b' is not allowed"),
        ("a\udcff", r"'\\udcff' is not allowed"), (".hidden", "cannot begin with a full stop"),
        ("taken", "exists already"),
    ],
)  # fmt: skip
def test_bad_or_taken_name_is_refused_and_both_sessions_stay(tmp_path, writer, name, rule):
    rename_session(save_replies(tmp_path, saved_reply(prompt="1")), "taken")
    with pytest.raises(SessionError, match=rule):
        writer.rename(name)
    writer.close()
    with pytest.raises(SessionError, match=rule):
        rename_session(writer.path, name)
    assert {each.first_prompt for each in list_sessions(tmp_path)} == {"1", "bilbo is"}


@pytest.mark.parametrize("change", [delete_session, lambda path: rename_session(path, "again")])
def test_session_renamed_by_another_window_is_reported_as_gone(tmp_path, change):
    path = save_replies(tmp_path, saved_reply())
    rename_session(path, "party")
    with pytest.raises(SessionError, match="is gone; another window has renamed or deleted it"):
        change(path)
    assert [each.name for each in list_sessions(tmp_path)] == ["party"]


def test_nothing_is_written_without_a_change(writer):
    writer.save(current_id=0)
    before = writer.path.read_bytes()
    assert [writer.save(current_id=0), writer.save_again()] == ["", ""]
    assert writer.path.read_bytes() == before


def test_deleted_session_is_not_written_again(tmp_path, writer):
    writer.delete()
    add_reply(writer, saved_reply(1))
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_file_deleted_by_another_program_is_written_again_in_full(writer):
    writer.path.unlink()
    add_reply(writer, saved_reply(1))
    assert reply_ids(writer.path) == [0, 1]


# Full disk


def test_full_disk_is_reported_once_and_unsaved_replies_are_written_later(writer):
    before = writer.path.read_bytes()
    with no_file_longer_than(len(before) + 40):
        assert f"not saved: cannot write {writer.path}: File too large" in add_reply(writer, saved_reply(1, 0, 1))
        assert add_reply(writer, saved_reply(2, 1, 1)) == ""
    assert writer.path.read_bytes() == before
    add_reply(writer, saved_reply(3))
    assert reply_ids(writer.path) == [0, 1, 2, 3]
    with no_file_longer_than(0):
        assert "File too large" in add_reply(writer, saved_reply(4))
    writer.close()
    assert reply_ids(writer.path) == [0, 1, 2, 3, 4]  # close tries once more


@pytest.mark.parametrize("room", [0, 40])
def test_disk_that_is_full_from_the_start_leaves_no_file_until_there_is_room(tmp_path, room):
    """Another window would set an empty or incomplete file aside as damaged while it is being written."""
    writer = Session(model="bundled", folder=tmp_path)
    with no_file_longer_than(room):
        assert re.search(r"not saved: .*\.jsonl: File too large", add_reply(writer, saved_reply(0)))
        assert list(tmp_path.iterdir()) == []
    add_reply(writer, saved_reply(1))
    writer.close()
    assert reply_ids(writer.path) == [0, 1]


# The list of sessions


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Hello, Gandalf! Where is Frodo's pony, friend?", "Hello Gandalf Where is Frodo's pony"),
        ("../.etc/x\x1b[2J", "etc x 2J"), ("x" * 100, "x" * 40), ("", "a friend"),  # what a scene begins with
    ],
)  # fmt: skip
def test_session_is_named_by_its_first_words_and_a_second_one_by_a_number(tmp_path, prompt, name):
    assert [save_replies(tmp_path, saved_reply(prompt=prompt)).stem for _ in range(2)] == [name, f"{name} 2"]


def test_list_begins_with_the_latest_session_and_shows_first_prompts_and_numbers_of_shown_replies(tmp_path):
    scores = [AnswerScore(rank, 10, -9.0, -10.0, 3) for rank in (1, 2, 10)]
    answers = [saved_reply(id, prompt='"score": {"rank": 2, "', score=score) for id, score in enumerate(scores)]
    scene = saved_reply(0, prompt="", reply_mode="conversation", speaker="KING OF THE DEAD")
    replies = [
        (saved_reply(prompt="frodo\n\x1b[31m"), saved_reply(1), saved_reply(0, text="renamed")),
        (*answers, saved_reply(3)),
        (scene,),
    ]
    paths = [save_replies(tmp_path, *each) for each in replies]
    for age, path in enumerate(paths):
        os.utime(path, (1000 - age, 1000 - age))
    summaries = list_sessions(tmp_path)
    assert [summary.path for summary in summaries] == paths
    assert summaries[0].first_prompt == "frodo \N{REPLACEMENT CHARACTER}[31m"
    assert summaries[2].first_prompt == "(scene: King of the Dead begins)"
    assert [summary.num_replies for summary in summaries] == [2, 2, 1]
    assert all(summary.model == "bundled" and not summary.error for summary in summaries)


def test_list_reports_damaged_sessions_and_changes_no_file(tmp_path):
    contents = {"broken.jsonl": b"nonsense\n", "older.jsonl": header_line(version=1), "ok.jsonl": header_line()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jsonl").mkdir()
    errors = {summary.name: summary.error for summary in list_sessions(tmp_path)}
    assert "not valid JSON" in errors.pop("broken")
    assert "older" in errors.pop("older")
    assert errors == {"ok": ""}
    assert {path.name for path in tmp_path.iterdir()} == {*contents, "folder.jsonl"}
