"""What strangers wrote before what reads it in the engine: bounded, refused in a line, and kept inside the run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DataConfig
from engine.control import Command
from engine.data import preparation
from engine.data.corpus import read_csv
from engine.data.dataset import prepare
from engine.data.vocabulary import Vocabulary
from engine.errors import CorpusError, RunError, UnusableInput
from engine.events import TrainingEvent
from engine.runs import metrics, store, writer
from engine.runs.control_files import Requests
from engine.runs.metrics import Follower, current_rows, read_rows
from engine.storage.files import cache_folder, read_file
from tests.conftest import write_run
from tests.engine.data.test_preparation import parts_of
from tests.support.runs import CONFIG, VOCABULARY

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"


def sparse(path: Path, start: bytes = b"", size: int = 50_000_000_000) -> Path:
    path.write_bytes(start)
    os.truncate(path, size)
    return path


# --- files of gigabytes, and what are none -----------------------------------------------------------------------


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        read_file(path, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no file"):
        read_file(tmp_path / "pipe", 5)


@pytest.mark.parametrize("name", [store.CONFIG, store.VOCABULARY])
def test_a_run_with_a_file_of_50_gigabytes_is_refused(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path / "r")
    sparse(path / name, b"{")
    with pytest.raises(RunError, match=rf"{name} cannot be read: it is larger than the [0-9,]+ bytes that are read"):
        store.load(path)


def test_a_vocabulary_of_millions_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.data.vocabulary.json.loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(RunError, match="more than 1,000,000 words"):
        Vocabulary.from_json("[" + "[]," * 2_000_001 + "[]]", "a file")


def test_a_record_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    follower = Follower(sparse(tmp_path / "metrics.jsonl"))
    assert follower.more(9).rows == []
    assert (follower.at_end, "larger than the 4,000,000,000 bytes" in follower.problem) == (True, True)


def test_a_record_of_other_lines_than_reports_is_read_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_OTHERS", 10)
    monkeypatch.setattr(metrics, "AT_ONCE", 100)
    path = tmp_path / "metrics.jsonl"
    reports = b'{"event": "step", "step": 1}\n' * 50
    path.write_bytes(reports + b"\n" * 10)
    assert len(list(read_rows(path))) == 50
    path.write_bytes(reports + b'{"event": "evaluated"}\n' * 10 + reports)
    assert len(list(read_rows(path))) == 110
    for line in (b"\n", b"{}\n", b'{"event": "evaluated"}\n'):
        path.write_bytes(reports + line * 1000)
        follower = Follower(path)
        rows = follower.more(9).rows
        assert len(rows) < 50 + 20
        assert (follower.at_end, follower.problem) == (True, "")
        assert follower.more(9).rows == []
        assert "more than 10 lines that are no reports" in follower.problem


@pytest.mark.parametrize("value", ["[]", "{}", '{"a": [1]}', "[" + "[]," * 1000 + "[]]"])
def test_rows_of_lists_are_none_of_ours(tmp_path: Path, value: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "evaluated", "a": %s}\n{"event": "evaluated"}\n' % value)  # noqa: UP031
    assert current_rows(path) == [{"event": "evaluated"}]


def test_rows_of_objects_are_none_of_ours_whatever_stands_between_them(tmp_path: Path) -> None:
    """They were, where as many lines had no object at all: then it seemed that each line had one."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "evaluated", "a": {}}\n\n\nnothing\n{"event": "evaluated"}\n')
    assert current_rows(path) == [{"event": "evaluated"}]


def test_rows_of_very_many_fields_are_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"event": "evaluated"} | {str(n): 1 for n in range(63)}) + "\n")
    assert len(current_rows(path)) == 1
    path.write_text(json.dumps({"event": "evaluated"} | {str(n): 1 for n in range(64)}) + "\n")
    assert current_rows(path) == []


@pytest.mark.parametrize(("columns", "refused"), [(999, False), (1000, True), (60_000, True)])
def test_a_table_of_very_many_columns_is_refused(tmp_path: Path, columns: int, refused: bool) -> None:
    path = tmp_path / "a.csv"
    path.write_text("dialog" + ",a" * columns + "\na line that is long enough for it" + ",1" * columns + "\n")
    if refused:
        with pytest.raises(CorpusError, match="has a header of over 100,000 characters or 1,000 columns"):
            read_csv(path, "dialog", "char", 20)
    else:
        assert read_csv(path, "dialog", "char", 20).rows == 1


def test_a_table_with_a_header_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"dialog,{'a' * 100_000},{'b,' * 10_000}\na line that is long enough for it\n")
    with pytest.raises(CorpusError, match="has a header of over 100,000 characters"):
        read_csv(path, "dialog", "char", 20)


@pytest.mark.parametrize("header", ['char,"dialog\n"', '"char\n",dialog,a', 'a,"dialog\nof all"'])
def test_a_table_whose_header_goes_over_several_lines_is_refused(tmp_path: Path, header: str) -> None:
    """Its first line alone names the column that is asked for, or none."""
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nSAM,a line that is long enough for it\n")
    with pytest.raises(CorpusError, match=r"a quote in its header ends on another line|has no column 'dialog'"):
        read_csv(path, "dialog", "char", 20)


@pytest.mark.parametrize("name", ["a\0b", "~\0", "~\ud800/x", "\ud800"])
def test_a_run_whose_name_is_no_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="nor a path"):
        store.resolve(name, tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_corpus_whose_path_is_none_is_refused(name: str) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        prepare(DataConfig(corpus=name))


# --- outside the run ---------------------------------------------------------------------------------------------


def test_a_run_whose_epochs_lead_elsewhere_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its owner's files were deleted there that look like unfinished ones, and weights written."""
    path = writer.create(CONFIG, VOCABULARY, "r", tmp_path).path
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".1.safetensors.other").write_text("precious")
    (path / store.EPOCHS).symlink_to(outside)
    with pytest.raises(RunError, match="epochs is a link, which leads out of the run"):
        writer.reopen(path)
    assert (outside / ".1.safetensors.other").read_text() == "precious"


# --- what goes to the terminal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("pause", ESCAPES),
        ("stop", "\x1b[2J"),
        ("go_on", "x"),
        ("lr", "0.5\x1c"),
        ("lr", "\x850.5"),
        ("prompt", ESCAPES),
    ],
)
def test_a_request_that_would_send_controls_to_the_terminal_is_none(tmp_path: Path, what: Any, value: str) -> None:
    """What was asked for is printed, and stands in the record."""
    with pytest.raises(UnusableInput):
        Command(what, value)
    (tmp_path / store.REQUESTS).write_text(json.dumps({"what": what, "value": value}) + "\n")
    assert Requests(tmp_path)() == []


def test_the_log_has_nothing_but_text_of_what_broke(tmp_path: Path) -> None:
    def breaks() -> Any:
        raise ValueError(f"over\n  there: {ESCAPES}")
        yield  # makes it a generator

    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    events: Any = breaks()
    with pytest.raises(ValueError, match="over"):
        list[TrainingEvent](writer.record(run, events))
    log = (run.path / store.LOG).read_text()
    assert all(line.isprintable() for line in log.split("\n"))
    assert "\n    raise ValueError(" in log  # still as a traceback looks
    assert "]0;title" in log


# --- what was made of a corpus -----------------------------------------------------------------------------------


def rest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "rest.json"
        there = json.loads(path.read_text())
        change(there)
        path.write_text(json.dumps(there))

    return damage


def numbers(name: str, kind: Any, value: int, place: int = -1) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        array = np.fromfile(folder / name, kind)
        array[place] = value
        array.tofile(folder / name)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deep": lambda folder: (folder / "rest.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "rest.json").write_text("[]"),
    "gigabytes": lambda folder: sparse(folder / "rest.json"),
    "sizes in a list": rest(lambda there: there.update(bytes=[])),
    "no ends": rest(lambda there: there.update(ends=[])),
    "ends of infinity": rest(lambda there: there.update(ends=[float("inf"), 1])),
    "ends outside": rest(lambda there: there.update(ends=[10, 10**9])),
    "no vocabulary": rest(lambda there: there.update(vocabulary=["\x1b"])),
    "speakers": rest(lambda there: there.update(speakers=[1, 2, 3, 4])),
    "splits": rest(lambda there: there.update(splits=[0, 0, 0])),
    "facts": rest(lambda there: there["facts"].update(words="many")),
    "the longest line": rest(lambda there: there["facts"].update(longest_line=10**6)),
    "rows": rest(lambda there: there["corpus"].update(rows="\x1b")),
    "a line's number": numbers("numbers", np.int32, 10**6),
    "a source": numbers("sources", np.int32, -5),
    "a line's bounds": numbers("line_bounds", np.int64, -(2**40)),
    "a pause": numbers("pauses", np.uint8, 200),
    "the text's bounds": numbers("bounds", np.int64, 2**40, 5),
    "a speaker": numbers("speakers", np.int32, 99),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_cache_is_made_again(
    small_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(preparation, "LARGE_BYTES", 1)
    config = DataConfig(corpus=str(small_csv))
    before = parts_of(prepare(config))
    (folder,) = cache_folder().iterdir()
    DAMAGES[kind](folder)
    assert parts_of(prepare(config)) == before


def test_millions_in_the_cache_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rest.json").write_bytes(b"[" + b"[]," * 4_000_001 + b"[]]")
    monkeypatch.setattr("engine.data.preparation.json.loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(ValueError, match="more words and speakers"):
        preparation._load(tmp_path, DataConfig())


def test_a_text_in_the_cache_that_is_none_is_still_read(
    small_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(preparation, "LARGE_BYTES", 1)
    prepare(DataConfig(corpus=str(small_csv)))
    (folder,) = cache_folder().iterdir()
    numbers("text", np.uint8, 0xFF, 7)(folder)
    assert "\N{REPLACEMENT CHARACTER}" in prepare(DataConfig(corpus=str(small_csv))).corpus.lines[0].text
