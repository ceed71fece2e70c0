"""Files and tensors that are written whole or not at all, appended records, locks, and data that is checked."""

import contextlib
import errno
import json
import math
import os
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from safetensors.numpy import save

from engine.config import Config
from engine.errors import InvalidInputError, RunError
from engine.models.weights import weight_shapes
from engine.runs.loading import load_model
from engine.storage import files
from engine.storage.tensor_file import UNSEALED, TensorFile, open_weights, quantize_rows, serialize_weights, to_float32
from tests.support.files import KNOWN_WORDS, no_file_longer_than, write_run, write_sparse_file


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestHome:
    def test_the_home_is_set_by_the_environment(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        for value, path in ((tmp_path / "here", tmp_path / "here"), ("~/there", tmp_path / "there")):
            monkeypatch.setenv("LOTR_TUI_HOME", str(value))
            assert (files.app_home(), files.default_runs_dir()) == (path, path / "runs")
        monkeypatch.setenv("LOTR_TUI_HOME", "~nobody-there/x")
        with pytest.raises(RunError, match="LOTR_TUI_HOME=~nobody-there/x names an unknown user"):
            files.app_home()
        monkeypatch.setenv("LOTR_TUI_HOME", "")
        assert (files.app_home().name, files.app_home().is_absolute()) == ("lotr-tui", True)

    def test_a_path_becomes_absolute(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "link").symlink_to("there")
        there = {"~/a": "a", "a/../b": "b", "link": "there"}
        there |= {name: name for name in ("loop", "~nobody-there/x", "\0")}  # these cannot be resolved
        for name, where in there.items():
            assert str(files.absolute_path(Path(name))) == str(tmp_path / where)


class TestAtomicWrite:
    def test_a_file_is_replaced_and_readable_by_others_and_no_temporary_file_left(self, tmp_path):
        for content in (b"a long first content", b"short"):
            files.write_atomically(tmp_path / "a.json", content)
            assert contents(tmp_path) == {"a.json": content}
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644

    def test_a_missing_folder_or_a_folder_in_the_place_of_the_file_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "taken").mkdir()
        for path in (tmp_path / "gone" / "a.json", tmp_path / "taken"):
            with pytest.raises(RunError, match=f"cannot write {path}"):
                files.write_atomically(path, b"x")
        assert [path.name for path in tmp_path.rglob("*")] == ["taken"]

    def test_the_content_is_synced_before_the_rename_and_the_folder_after_it(self, tmp_path, monkeypatch):
        calls = []
        plain_replace = Path.replace

        def fsync(file):
            is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
            calls.append("folder" if is_folder else f"{os.fstat(file).st_size} bytes")
            if is_folder:
                raise OSError(errno.EINVAL, "this file system cannot, which is no error")

        def replace(self, target):
            calls.append(f"rename to {target.name}")
            return plain_replace(self, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        files.write_atomically(tmp_path / "model", b"12345")
        assert calls == ["5 bytes", "rename to model", "folder"]
        assert contents(tmp_path) == {"model": b"12345"}

    def test_a_failed_write_changes_nothing(self, tmp_path):
        path = tmp_path / "a"
        for content in (b"one", b"three"):
            files.write_atomically(path, content)
            assert contents(tmp_path) == {"a": content}
        with contextlib.suppress(ZeroDivisionError), files.atomic_replace(path) as file:
            file.write(b"four")
            raise ZeroDivisionError
        with no_file_longer_than(2), pytest.raises(RunError, match=r"cannot write .*/a: File too large"):
            files.write_atomically(path, b"four")
        assert contents(tmp_path) == {"a": b"three"}

    def test_an_exclusive_write_never_overwrites(self, tmp_path):
        for content in (b"one", b"two"):
            with contextlib.suppress(FileExistsError), files.atomic_replace(tmp_path / "a", exclusive=True) as file:
                file.write(content)
        assert contents(tmp_path) == {"a": b"one"}


class TestFolders:
    def test_files_are_written_into_a_new_or_an_empty_folder(self, tmp_path):
        for folder in (tmp_path / "new" / "folder", tmp_path / "empty"):
            files.write_folder(folder, {"a": b"one", "b": b"two"})
            assert contents(folder) == {"a": b"one", "b": b"two"}
            (tmp_path / "empty").mkdir(exist_ok=True)
        for path in (tmp_path / "empty", tmp_path / "empty" / "a"):
            with pytest.raises(RunError, match="exists, and nothing is overwritten"):
                files.write_folder(path, {"c": b"three"})

    def test_a_failure_leaves_no_file(self, tmp_path):
        with no_file_longer_than(3), pytest.raises(RunError, match=r"cannot write .*/b: File too large"):
            files.write_folder(tmp_path / "r", {"a": b"one", "b": b"longer"})
        assert contents(tmp_path / "r") == {}


def read_records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


HOLDER = """
import sys
from pathlib import Path
from engine.storage.files import lock_file
lock = lock_file(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


class TestAppendedFiles:
    @settings(max_examples=60)
    @given(torn=st.integers(0, 40), more=st.lists(st.text(), min_size=1, max_size=3))
    def test_a_file_torn_at_any_byte_keeps_its_whole_lines(self, tmp_path_factory, torn, more):
        path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
        content = b"".join(json.dumps({"row": row}).encode() + b"\n" for row in range(4))[: 40 - torn]
        path.write_bytes(content)
        appender = files.JsonLinesAppender(path)
        for text in more:
            appender.append({"text": text})
        appender.close()
        whole = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        assert read_records(path) == whole + [{"text": text} for text in more]

    def test_records_wait_while_the_disk_is_full_and_no_part_of_a_line_stays(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        appender = files.JsonLinesAppender(path)
        appender.append("first")
        with no_file_longer_than(path.stat().st_size + 3):
            appender.append("second")
            assert "cannot write" in appender.problem
            assert path.read_bytes() == b'"first"\n'
        appender.append("third")
        assert not appender.problem
        appender.close()
        assert read_records(path) == ["first", "second", "third"]

    def test_a_long_torn_line_is_removed_and_one_of_gigabytes_ended_without_a_search_for_its_start(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b'{"row": 1}\n' + b"x" * 200_000)
        files.JsonLinesAppender(path).close()
        assert path.read_bytes() == b'{"row": 1}\n'
        size = write_sparse_file(path).stat().st_size
        files.JsonLinesAppender(path).close()
        assert path.stat().st_size == size + 1

    def test_a_deleted_file_is_reported(self, tmp_path):
        appender = files.JsonLinesAppender(tmp_path / "rows.jsonl")
        (tmp_path / "rows.jsonl").unlink()
        appender.append(1)
        assert "was deleted" in appender.problem
        appender.close()

    @pytest.mark.parametrize("use", [files.JsonLinesAppender, files.lock_file])
    def test_a_pipe_or_a_link_is_neither_appended_to_nor_locked(self, tmp_path, use):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        for name in ("pipe", "link"):
            with pytest.raises(OSError, match=r"not a regular file|symbolic links|/link"):
                use(tmp_path / name)
        assert not (tmp_path / "elsewhere").exists()

    def test_a_second_lock_on_the_same_file_is_refused_until_the_first_is_released(self, tmp_path):
        path = tmp_path / "lock"
        with files.lock_file(path):
            for timeout in (0.0, 0.05):
                with pytest.raises(BlockingIOError):
                    files.lock_file(path, timeout)
        files.lock_file(path, 0.05).close()
        files.lock_file(path).close()

    def test_the_kernel_releases_the_lock_of_a_killed_process(self, tmp_path):
        path = tmp_path / "lock"
        command = [sys.executable, "-c", HOLDER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(BlockingIOError):
                files.lock_file(path)
            process.kill()
            process.wait()
        files.lock_file(path).close()


@dataclass(frozen=True)
class Sampler:
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["line", "stream"] = "line"


@dataclass(frozen=True)
class Settings:
    name: str
    temperature: float = 0.8
    sampler: Sampler = field(default_factory=Sampler)
    more: tuple[Sampler, ...] = ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "x", "tempreature": 1}', "unknown field 'tempreature'; did you mean temperature?"),
        ('{"name": "x", "sampler": {"topk": 1}}', "unknown field 'sampler.topk'; did you mean top_k?"),
        ("{}", "object missing required field name"),
        ('{"name": "x", "temperature": true}', "temperature: expected float, got bool"),
        ('{"name": "x", "sampler": {"top_k": -1}}', "sampler.top_k: expected int >= 0"),
        ('{"name": "x", "sampler": {"mode": "both"}}', "sampler.mode: invalid enum value 'both'"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(content, message):
    with pytest.raises(InvalidInputError) as error:
        files.decode(Settings, files.parse_json(content))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "content",
    ["{", '{"name": NaN}', "1e999", b"\xff", "[" * 100_000, b'{"name": "\xed\xa0\x80"}'],
    ids=lambda content: ascii(content[:20]),
)
def test_what_is_not_json_is_refused(content):
    with pytest.raises(InvalidInputError, match="not valid JSON"):
        files.parse_json(content)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_data_is_built_or_refused_in_one_line(data):
    try:
        built = files.decode(Settings, data)
    except InvalidInputError as error:
        built = str(error)
    assert isinstance(built, Settings) or len(built.splitlines()) == 1


SHAPES = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(["float64", "float32", "float16", "int64", "int32", "uint8"]),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(SHAPES, st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=2), st.integers(0, 10**6))
def test_a_saved_file_is_read_and_a_truncated_one_refused_in_one_line(tmp_path_factory, shapes, metadata, tear):
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    tensors = {name: np.zeros(shape, kind) for name, (kind, shape) in shapes.items()}
    content = save(tensors, metadata=metadata or None)  # with {}, the library writes invalid JSON
    path.write_bytes(content)
    assert TensorFile(path).tensors == shapes
    assert TensorFile(path).metadata == metadata
    path.write_bytes(content[: tear % len(content)])
    with pytest.raises(RunError) as error:
        TensorFile(path)
    assert str(error.value).startswith(f"{path} is not a valid safetensors file: ")


def test_a_model_larger_than_the_free_memory_is_refused(tmp_path):
    """Configuration and sparse file agree: 16 layers of 16,384 units, which would take 137 GB of memory."""
    run = write_run(tmp_path / "r")
    config = Config("tiny").with_values(embedding_size=16_384, hidden_size=16_384, num_layers=16)
    (run / "config.json").write_text(config.to_json())
    header, place = {}, 0
    for name, shape in weight_shapes(config.model, 2 + len(KNOWN_WORDS)).items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    (run / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(run / "model.safetensors", 8 + len(text) + place)
    with pytest.raises(RunError, match=r"needs 41\d\.\d GB of memory"):
        load_model(run)


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    content = serialize_weights({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"note": "b", **UNSEALED})
    path.write_bytes(content)
    assert np.array_equal(open_weights(path, {"a": (2, 3)}).read_weight("a"), [[0, 1, 2], [3, 4, 5]])
    for position in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(RunError):
            TensorFile(path).check_bytes()
    path.write_bytes(flipped)
    with pytest.raises(RunError, match=r"a\.safetensors has changed since it was written; the run is damaged"):
        open_weights(path, {"a": (2, 3)})


def test_a_file_that_is_deleted_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(serialize_weights({"a": np.zeros(2, np.float32)}))
    file = TensorFile(path)
    path.unlink()
    with pytest.raises(RunError, match=r"a\.safetensors cannot be read: .*No such file"):
        file.read_weight("a")


MATRICES = hypothesis_numpy.arrays(
    np.float32,
    hypothesis_numpy.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**49), 2.0**49, width=32).filter(lambda value: value == 0 or abs(value) > 1e-18),
)


@settings(max_examples=40)
@given(MATRICES)
def test_each_number_is_restored_within_half_a_step_of_its_row_and_rounded_to_the_same_integers(matrix):
    rows = quantize_rows(matrix)
    assert rows.values.dtype == np.int8
    assert rows.values.min() >= -127
    restored = to_float32(rows)
    steps = np.abs(matrix.astype(np.float64)).max(axis=1, keepdims=True) / 127
    assert (np.abs(restored - matrix.astype(np.float64)) <= steps * (0.5 + 1e-4)).all()
    again = quantize_rows(restored)
    assert np.array_equal(again.values, rows.values)
    np.testing.assert_allclose(again.scales, rows.scales, rtol=3e-7)
