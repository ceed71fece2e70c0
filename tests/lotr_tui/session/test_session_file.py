"""Sessions are saved as they go: whole lines, one writer, nothing lost to damage or to a full disk."""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lotr_tui.session.session_file as module
from lotr_tui.session.saved_session import node_line
from lotr_tui.session.session_file import (
    SessionError,
    SessionWriter,
    load_session,
    saved_sessions,
    sessions_folder,
)
from tests.lotr_tui.session.test_saved_session import changed, header, node, trees
from tests.support.file_limits import no_file_longer_than


@given(trees())
@settings(max_examples=60)
def test_what_was_saved_is_resumed(nodes):
    with TemporaryDirectory() as folder:
        writer = SessionWriter("bundled", Path(folder))
        for each in nodes:
            writer.keep(each)
        writer.close()
        if not nodes:
            assert list(Path(folder).iterdir()) == []
            return
        (path,) = Path(folder).iterdir()
        found = load_session(path)
        assert found.nodes == tuple(nodes)
        assert found.current == nodes[-1].id
        assert found == writer.session
        again = SessionWriter.resume(path)
        assert again.session == found
        again.close()


def test_a_later_node_takes_the_place_of_the_one_with_its_id(home):
    writer = SessionWriter("bundled")
    writer.keep(node(0, texts=""))
    writer.keep(node(1, 0, 0))
    writer.keep(node(0, texts="a very old friend", name="old"))
    writer.close()
    found = load_session(sessions_folder() / f"{writer.session.name}.jsonl")
    assert [(each.id, each.text, each.name) for each in found.nodes] == [
        (0, "a very old friend", "old"),
        (1, "a friend", ""),
    ]
    assert found.current == 0


def test_where_one_looked_is_remembered_and_resuming_goes_on_in_the_same_file(home):
    writer = SessionWriter("bundled")
    writer.keep(node(0))
    writer.keep(node(1, 0, 1, prompt=None))
    writer.look_at(0)
    writer.close()
    (path,) = sessions_folder().iterdir()
    again = SessionWriter.resume(path)
    assert again.session.current == 0
    again.keep(node(2, 1, 2))
    again.close()
    assert [each.id for each in load_session(path).nodes] == [0, 1, 2]
    assert load_session(path).started == writer.session.started


def test_no_file_is_made_before_there_is_something_to_save(home):
    SessionWriter("bundled").close()
    assert not home.exists()


def saved(folder, *nodes):
    writer = SessionWriter("bundled", folder)
    for each in nodes or (node(),):
        writer.keep(each)
    writer.close()
    return folder / f"{writer.session.name}.jsonl"


def test_two_sessions_of_one_second_have_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "time", lambda: 1_700_000_000.0)
    paths = {saved(tmp_path, node(prompt=str(number))) for number in range(3)}
    assert len(paths) == 3
    assert sorted(load_session(path).nodes[0].prompt for path in paths) == ["0", "1", "2"]


# Two writers


def test_a_session_that_is_open_cannot_be_resumed(tmp_path):
    writer = SessionWriter("bundled", tmp_path)
    writer.keep(node())
    (path,) = tmp_path.iterdir()
    with pytest.raises(SessionError, match="open in another window"):
        SessionWriter.resume(path)
    assert len(load_session(path).nodes) == 1  # reading it is no harm
    writer.keep(node(1))
    writer.close()
    again = SessionWriter.resume(path)
    assert len(again.session.nodes) == 2
    again.close()


HOLDER = """
import sys
from pathlib import Path
from lotr_tui.session.session_file import SessionWriter
writer = SessionWriter.resume(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_another_process_holds_the_lock_until_it_dies(tmp_path):
    path = saved(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(module.__file__).parents[2],
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(SessionError, match="another window"):
            SessionWriter.resume(path)
        process.kill()
        process.wait()
    SessionWriter.resume(path).close()


# Damage


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_last_line_without_its_end_is_not_there_and_does_not_spoil_the_next(tmp_path, cut):
    path = saved(tmp_path, node(0), node(1, 0, 1))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [each.id for each in load_session(path).nodes] == [0]
    writer = SessionWriter.resume(path)
    writer.keep(node(1, 0, 2, prompt="again"))
    writer.close()
    assert [each.prompt for each in load_session(path).nodes] == ["bilbo is", "again"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"\xff\xfe\n", "no text"),
        (header(version=2), "newer"),
        (changed(parent=3), "goes on from 3"),
    ],
)
@pytest.mark.parametrize("open_session", [load_session, SessionWriter.resume])
def test_a_damaged_file_is_set_aside_and_said(tmp_path, content, why, open_session):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(SessionError) as raised:
        open_session(path)
    assert why in str(raised.value)
    assert "set aside as broken.jsonl.damaged-1" in str(raised.value)
    assert (tmp_path / "broken.jsonl.damaged-1").read_bytes() == content
    assert saved_sessions(tmp_path) == []


@given(st.data())
@settings(max_examples=80)
def test_no_damage_is_more_than_a_session_error(data):
    with TemporaryDirectory() as folder:
        nodes = (node(0), node(1, 0, 1, prompt=None), node(2, 1, 2))
        content = bytearray(header() + b"".join(map(node_line, nodes)))
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        path = Path(folder) / "damaged.jsonl"
        path.write_bytes(content)
        saved_sessions(Path(folder))
        try:
            writer = SessionWriter.resume(path)
        except SessionError:
            (aside,) = Path(folder).iterdir()
            assert aside.read_bytes() == content
        else:
            writer.close()


def test_a_session_that_is_gone_is_said(tmp_path):
    for open_session in (load_session, SessionWriter.resume):
        with pytest.raises(SessionError, match="No such file"):
            open_session(tmp_path / "gone.jsonl")


# A disk that takes no more


def test_a_full_disk_is_said_once_and_what_waits_is_written_when_there_is_room(tmp_path):
    writer = SessionWriter("bundled", tmp_path)
    writer.keep(node(0))
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with no_file_longer_than(len(before) + 40):
        with pytest.raises(SessionError, match=re.escape(f"not saved: {path}: File too large")):
            writer.keep(node(1, 0, 1))
        writer.keep(node(2, 1, 1))
    assert path.read_bytes() == before
    assert [each.id for each in writer.session.nodes] == [0, 1, 2]
    writer.keep(node(3))
    assert [each.id for each in load_session(path).nodes] == [0, 1, 2, 3]
    with no_file_longer_than(0), pytest.raises(SessionError, match="File too large"):
        writer.keep(node(4))
    writer.close()
    assert [each.id for each in load_session(path).nodes] == [0, 1, 2, 3]


def test_a_part_of_a_line_that_cannot_be_taken_back_is_written_over(tmp_path):
    writer = SessionWriter("bundled", tmp_path)
    writer.keep(node(0))
    (path,) = tmp_path.iterdir()

    class Stuck:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def truncate(self, _size):
            raise OSError("left as it is")

    writer._file = Stuck(writer._file)
    with no_file_longer_than(path.stat().st_size + 40), pytest.raises(SessionError):
        writer.keep(node(1, 0, 1))
    assert not path.read_bytes().endswith(b"\n")
    assert len(load_session(path).nodes) == 1
    writer.keep(node(2))
    writer.close()
    assert [each.id for each in load_session(path).nodes] == [0, 1, 2]


@pytest.mark.parametrize("room", [0, 40])
def test_a_disk_that_is_full_from_the_start_leaves_no_file_until_there_is_room(tmp_path, room):
    """Whoever looked at an empty or half written one set it aside as damaged, while it was written."""
    writer = SessionWriter("bundled", tmp_path)
    with no_file_longer_than(room):
        with pytest.raises(SessionError, match=r"not saved: .*\.jsonl: File too large"):
            writer.keep(node(0))
        assert list(tmp_path.iterdir()) == []
    writer.keep(node(1))
    writer.close()
    (path,) = tmp_path.iterdir()
    assert [each.id for each in load_session(path).nodes] == [0, 1]


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    writer = SessionWriter("bundled", tmp_path / "file" / "sessions")
    with pytest.raises(SessionError, match="not saved"):
        writer.keep(node())
    writer.keep(node(1))
    writer.close()
    assert len(writer.session.nodes) == 2


def test_a_file_that_was_deleted_while_the_session_ran_is_written_anew(tmp_path):
    writer = SessionWriter("bundled", tmp_path)
    writer.keep(node(0))
    writer.keep(node(1, 0, 1))
    (path,) = tmp_path.iterdir()
    path.unlink()
    writer.keep(node(2))
    writer.close()
    (path,) = tmp_path.iterdir()
    assert [each.id for each in load_session(path).nodes] == [0, 1, 2]


# The list


def test_the_list_has_the_one_changed_last_first(tmp_path):
    paths = [saved(tmp_path, node(prompt=f"prompt {number}\n\x1b[31m"), node(1)) for number in range(3)]
    for age, path in enumerate(paths):
        os.utime(path, (1000 - age, 1000 - age))
    found = saved_sessions(tmp_path)
    assert [summary.path for summary in found] == paths
    assert [summary.first_prompt for summary in found] == [
        f"prompt {n} \N{REPLACEMENT CHARACTER}[31m" for n in range(3)
    ]
    assert all(summary.model == "bundled" and not summary.problem for summary in found)
    assert all(summary.bytes == summary.path.stat().st_size for summary in found)


def test_the_list_changes_nothing_and_tells_what_is_damaged(tmp_path):
    saved(tmp_path)
    (tmp_path / "broken.jsonl").write_text("nonsense\n")
    (tmp_path / "newer.jsonl").write_bytes(header(version=9))
    (tmp_path / "folder.jsonl").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    problems = {summary.name: summary.problem for summary in saved_sessions(tmp_path)}
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert "not JSON" in problems.pop("broken")
    assert "newer" in problems.pop("newer")
    assert list(problems.values()) == [""]


def test_no_folder_no_sessions(home):
    assert saved_sessions() == []
