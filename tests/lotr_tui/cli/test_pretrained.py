"""Models by others on the command line: generate, eval, who and tokenize; other commands refuse them in one line."""

import json
import shutil

import numpy as np
import pytest

from engine.data.tokenizers import EOS_ID
from engine.models.base import advance_tokens, score_sequence
from engine.models.pretrained.chat import ChatMessage

pytest.importorskip("transformers")

GENERATE = ("generate", "Where is the Ring?", "--max-tokens", "6", "--seed", "1")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    from tests.support.pretrained import save_model

    folder = tmp_path_factory.mktemp("models") / "llama"
    save_model(folder, "llama")
    return folder


@pytest.fixture
def name(model_folder):
    return f"hf:{model_folder}"


@pytest.fixture(scope="module")
def model(model_folder):
    from engine.models.pretrained.folders import read_base

    return read_base(f"hf:{model_folder}").decoder(int8=True)


@pytest.fixture
def printed(lotr):
    """Return a function that runs a command that succeeds, and returns its stdout."""

    def run(*arguments):
        done = lotr(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_prompt_is_continued(printed, name, model):
    record = json.loads(printed(*GENERATE, "--run", name, "--temperature", "0", "--json"))
    assert (record["run"], record["prompt"], len(record["tokens"])) == (name, "Where is the Ring?", 6)
    state, ids = model.start(), [EOS_ID, *model.tokenizer.encode("Where is the Ring?").tolist()]
    log_probs, state = advance_tokens(model, state, ids)
    for token in record["tokens"]:
        assert token["logprob"] == pytest.approx(float(log_probs[token["id"]]), abs=1e-3)
        log_probs, state = model.advance(state, token["id"])


def test_an_answer_follows_the_chat_template(printed, name, model):
    options = ("--reply", "--system", "You are Gandalf.", "--run", name, "--temperature", "0", "--jsonl")
    first, *_, done = map(json.loads, printed(*GENERATE, *options).splitlines())
    messages = [ChatMessage("system", "You are Gandalf."), ChatMessage("user", "Where is the Ring?")]
    log_probs, _ = advance_tokens(model, model.start(), model.chat.encode(messages))
    log_probs[EOS_ID] = -np.inf  # no answer is empty
    assert first["id"] == int(log_probs.argmax())
    assert done["event"] == "done"


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # read here, and by transformers
def test_what_a_library_prints_about_a_file_reaches_no_stream(family, command, tmp_path):
    from tests.support.pretrained import save_model

    save_model(tmp_path / "model", family)
    path = tmp_path / "model/tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][0]["\x1b]0;PWN\x07\x1b[31mowned"] = 1
    path.write_text(json.dumps(content))
    done = command("generate", "Where", "--max-tokens", "2", "--json", "--run", "hf:model")
    assert json.loads(done.stdout)["prompt"] == "Where"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_chat_template_that_fails_is_not_called_missing(lotr, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text("{{ raise_exception('no system') }}")
    done = lotr(*GENERATE, "--reply", "--run", "hf:model")
    assert done.stderr.startswith("note: the model's chat template cannot write this conversation: no system; it ")


def test_a_full_context_is_said_once_and_slides(lotr, name, model):
    note = f"note: the context of {model.context_size} tokens was full, so the model forgot the beginning"
    assert note not in lotr(*GENERATE, "--run", name).stderr
    done = lotr("generate", "Where is the Ring? " * 30, "--run", name, "--max-tokens", "2")
    assert (done.returncode, done.stderr.count(note)) == (0, 1)


def test_bits_per_character_are_those_of_the_whole_text(printed, name, model, tmp_path):
    text = "Where is the Ring?\n\nIt is safe, for tonight.\nOne"
    (tmp_path / "text.txt").write_text(text)
    record = json.loads(printed("eval", name, "--text", "text.txt", "--json"))
    ids = [*model.tokenizer.encode(f"{text}\n").tolist(), EOS_ID]
    log_probs = score_sequence(model, np.array(ids, np.int32))
    assert (record["run"], record["tokens"], record["characters"]) == (name, len(ids), len(text) + 1)
    assert record["bits_per_character"] == pytest.approx(-log_probs.sum() / np.log(2) / (len(text) + 1), rel=1e-4)
    tokens = [json.loads(line) for line in printed("eval", name, "--text", "text.txt", "--jsonl").splitlines()]
    assert [token["logprob"] for token in tokens] == pytest.approx(log_probs.tolist(), abs=1e-3)


def test_tokens_and_speakers_are_found_by_the_model(printed, name, model):
    guess = json.loads(printed("who", "We  wants it!", "--run", name, "--json", "--cast", "GOLLUM, Sam"))
    assert {item["speaker"] for item in guess["speakers"]} == {"GOLLUM", "SAM"}
    record = json.loads(printed("tokenize", "Where is\n\nthe Ring?", "--run", name, "--json"))
    assert record["tokenizer"] == "pretrained"
    assert [token["id"] for token in record["tokens"]] == model.tokenizer.encode("Where is\n\nthe Ring?").tolist()
    assert "hf:llama" in printed("tokenize", "Where", "--run", name)


REFUSALS = [
    *(
        (f"{command} NAME", "is a model by others, not a run of lotr-tui")
        for command in ("attach", "status", "stop", "runs show", "runs rm --yes", "train --resume")
    ),
    ("runs export NAME --hf folder", "is a model by others, not a run of lotr-tui"),
    ("eval NAME", "is a model by others and has no split to score; use --text FILE"),
    ("runs show smollm2", "is a model by others, not a run of lotr-tui"),
    ("generate the --run NAME --as FRODO", "--as needs a model that knows speakers"),
    ("generate the --run NAME --run NAME", "cannot be combined"),
    ("generate the --run NAME --system x", "add --reply, or leave out --system"),
    ("generate the --run hf:empty", "hf:empty: it has no config.json"),
    ("generate the --run gguf:bad.gguf", "is damaged"),
]


@pytest.mark.parametrize(("command_line", "message"), REFUSALS, ids=[line for line, _ in REFUSALS])
def test_what_a_model_by_others_cannot_do_is_refused(refused, name, tmp_path, command_line, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "scene.txt").write_text("Where is the Ring?\n")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 40)
    line = refused(*command_line.replace("NAME", name).split())
    assert message in line
