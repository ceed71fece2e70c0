"""`generate`: the text on stdout, JSON, seeds, notes on stderr, and models of open vocabularies."""

import json
import re
import sys
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from engine.config import Config
from engine.generation.settings import SamplerSettings
from engine.runs.loading import LoadedModel, load_model
from lotr_tui.cli.generate import Request, continue_text
from lotr_tui.session import settings
from lotr_tui.session.session_model import SessionModel
from tests.support.commands import json_output
from tests.support.files import KNOWN_WORDS
from tests.support.open_models import (
    RecitingModel,
    adapted_model,
    bpe_tokenizer,
    character_tokenizer,
    write_transformer_run,
)

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
LINE = "The wizard’s staff is old; Éowyn smiled — “Where is the Ring?” 日本…"


@pytest.fixture
def generate(lotr, untrained_run):
    """Return a function that runs `generate` with the run of random weights."""
    return lambda prompt, *options, **more: lotr("generate", prompt, "--run", untrained_run, *options, **more)


class TestOutput:
    def test_only_the_text_is_on_stdout(self, generate):
        done = generate("Bilbo Baggins is", "--seed", "3")
        assert done.returncode == 0
        assert done.stdout.endswith("\n")
        assert 1 <= len(done.stdout.split()) <= 30
        assert set(done.stdout.split()) <= set(KNOWN_WORDS)
        assert done.stderr.startswith("seed 3 · temperature 0.80")

    def test_generate_sessions_and_served_ones_have_the_same_defaults(self, generate, lotr, untrained_run, monkeypatch):
        server = pytest.importorskip("lotr_tui.serve.server", reason="needs textual-serve")
        sampler = SamplerSettings(temperature=0.5, min_p=0.25, max_tokens=3)
        monkeypatch.setattr(settings, "DEFAULT_SAMPLER", sampler)
        session_model = SessionModel.from_loaded(load_model(untrained_run))
        assert session_model.default_settings.sampler == sampler
        done = generate("the road", "--min-p", "0")
        assert "temperature 0.50 · " in done.stderr
        assert len(done.stdout.split()) <= 3
        make_server = Mock()
        monkeypatch.setattr(server, "BrowserServer", make_server)
        monkeypatch.setattr("lotr_tui.serve.access.serve_until_signal", AsyncMock(return_value=0))
        assert lotr("serve", "--run", untrained_run, "--port", "0").returncode == 0
        session = [sys.executable, "-m", "lotr_tui", "--run", str(untrained_run)]  # an ordinary one
        assert make_server.call_args.args[0] == session

    def test_bundled_model_is_found_from_any_folder(self, lotr):
        done = lotr("generate", "Bilbo Baggins is", "--seed", "0")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"[ -~]*[a-z][ -~]*\n", done.stdout)
        assert "note: this is the small LSTM; `lotr-tui fetch smollm2` brings a model that understands\n" in done.stderr

    def test_json_and_jsonl_describe_the_same_text(self, generate):
        row = json_output(generate("the road", "--seed", "1", "--json"))
        assert set(row) >= {"prompt", "text", "tokens", "seed", "temperature", "run", "reason", "tokens_per_second"}
        assert (row["prompt"], row["seed"], row["temperature"], row["run"]) == ("the road", 1, 0.8, "untrained")
        assert row["reason"] in ("eos", "length")
        assert row["tokens_per_second"] > 0
        assert row["first_token_seconds"] > 0
        assert row["text"] == " ".join(token["text"] for token in row["tokens"])
        assert [token["index"] for token in row["tokens"]] == list(range(len(row["tokens"])))
        rows = [json.loads(line) for line in generate("the road", "--seed", "1", "--jsonl").stdout.splitlines()]
        assert [each["event"] for each in rows] == ["token"] * (len(rows) - 1) + ["done"]
        assert " ".join(each["text"] for each in rows[:-1]) == row["text"]

    def test_a_seed_and_a_temperature_decide_the_text(self, generate):
        texts = [generate("the road", "--seed", seed, "--temperature", "1.5").stdout for seed in ("1", "1", "2")]
        assert texts[0] == texts[1] != texts[2]
        greedy = generate("the", "--temperature", "0", "--seed", "1").stdout
        assert generate("the", "--temperature", "0").stdout == greedy
        first = json_output(generate("the road", "--json"))  # a random seed is printed
        assert json_output(generate("the road", "--json", "--seed", first["seed"]))["text"] == first["text"]

    def test_count_uses_consecutive_seeds(self, generate):
        lines = generate("the", "--json", "--seed", "5", "--count", "3").stdout.splitlines()
        rows = [json.loads(line) for line in lines]
        assert [row["seed"] for row in rows] == [5, 6, 7]
        assert rows[2]["text"] == json_output(generate("the", "--json", "--seed", "7"))["text"]

    def test_the_number_of_tokens_and_repetitions_are_limited(self, generate):
        options = ("the road", "--seed", "2", "--temperature", "2")
        words = generate(*options).stdout.split()
        assert len(words) > 4
        assert generate(*options, "--max-tokens", "4").stdout.split() == words[:4]
        assert generate(*options, "--repetition-penalty", "1.9").stdout.split() != words

    @pytest.mark.parametrize("stdin", [b"the road\n", b"\xff\xfe the \x80 road"])
    def test_standard_input_is_read_for_a_dash_and_without_a_prompt(self, generate, lotr, untrained_run, stdin):
        expected = generate("the road", "--seed", "0").stdout
        assert generate("-", "--seed", "0", stdin=stdin).stdout == expected
        assert lotr("generate", "--run", untrained_run, "--seed", "0", stdin=stdin).stdout == expected

    def test_what_the_model_cannot_read_is_reported(self, generate):
        done = generate("☺ the мир xyzzy road")
        assert done.returncode == 0
        assert "not in the vocabulary, read as rare words: xyzzy\n" in done.stderr
        assert "skipped, because the model reads only words of a to z, digits and apostrophes: ☺, мир\n" in done.stderr
        assert json_output(generate("☺ the xyzzy", "--json"))["unknown"] == ["☺", "xyzzy"]

    def test_strengths_of_adapters_are_given_and_reported(self, lotr, monkeypatch):
        def load(name, runs_dir, precision, on_progress, adapters):
            return LoadedModel(name, Path(), Config(), adapted_model(name, *adapters))

        monkeypatch.setattr("engine.runs.loading.load_model_by_name", load)
        texts = []
        for options in ("", "--strength 0.5", "--strength 0.5 --adapter romeo:0.25 --adapter tales"):
            done = lotr("generate", "Where is", "--run", "film", "--seed", "1", "--json", *options.split())
            texts.append(json_output(done)["text"])
        assert json_output(done)["strengths"] == {"film": 0.5, "romeo": 0.25, "tales": 1.0}
        assert len(set(texts)) == 3
        plain = lotr("generate", "Where is", "--run", "film", "--seed", "1", "--strength", "0.5", "--raw")
        assert plain.stdout == f"{texts[1]}\n"
        assert " · strength 0.50 · " in plain.stderr

    def test_a_reply_starts_a_new_line_and_says_what_it_cannot_know(self, generate, untrained_run):
        plain, reply = (json_output(generate("the road", "--json", *more)) for more in ((), ("--reply",)))
        assert plain["tokens"][0]["top_tokens"] != reply["tokens"][0]["top_tokens"]
        assert "note: this model learned each line on its own" in generate("the road", "--reply").stderr
        assert generate("the road", "--reply", "--json").stderr == ""
        file = untrained_run / "config.json"
        file.write_text(file.read_text().replace('"mode": "line"', '"mode": "stream"'))
        assert "note: this model was trained without line ends" in generate("the road", "--reply").stderr

    def test_an_argument_that_is_not_utf8_gives_valid_json(self, generate):
        assert json_output(generate("the \udcff road", "--json"))["prompt"] == "the \ufffd road"


def recite(model, prompt, seeds=(3,), *, predicts_eos=True, **options):
    settings = SamplerSettings(max_tokens=90)
    loaded = SessionModel("open", "", model, predicts_eos=predicts_eos)
    continue_text(Request(loaded, settings, seeds, **options), prompt)


class TestOpenVocabularies:
    @TOKENIZERS
    def test_text_on_stdout_continues_the_prompt_exactly(self, tokenizer, capsys):
        recite(RecitingModel(tokenizer, LINE), "The wiz", (3, 4))
        out, err = capsys.readouterr()
        assert out == f"{LINE.removeprefix('The wiz')}\n" * 2
        assert "tokens/s · end of line" in err
        assert "vocabulary" not in err

    @TOKENIZERS
    def test_json_has_the_exact_text_and_the_pieces(self, tokenizer, capsys):
        recite(RecitingModel(tokenizer, LINE), "The", as_json=True)
        result = json.loads(capsys.readouterr().out)
        assert result["prompt"] + result["text"] == LINE
        assert "".join(token["piece"] for token in result["tokens"]) == result["text"]
        recite(RecitingModel(tokenizer, LINE), "The", jsonl=True)
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["piece"] for row in rows[:-1]] == [token["piece"] for token in result["tokens"]]

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_a_terminal_a_file_and_a_pipe_get_no_control_characters(self, monkeypatch, capsys, is_terminal):
        model = RecitingModel(character_tokenizer(), "a\x1b[2J\u202eb")
        monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
        recite(model, "a")
        assert capsys.readouterr().out == "�[2J�b\n"
        recite(model, "a", raw=True)
        assert capsys.readouterr().out == "\x1b[2J\u202eb\n"
        recite(model, "a", jsonl=True)
        assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_two_files_steer_a_text_at_a_strength(lotr, tmp_path):
    write_transformer_run(tmp_path / "runs" / "small", bpe_tokenizer())
    for name, line in (("good.txt", "What a fine day!\n"), ("bad.txt", "All is lost.\n")):
        (tmp_path / name).write_text(9 * line)
    arguments = "generate", "Where is", "--run", "runs/small", "--seed", "3"
    done = lotr(*arguments, "--steer", "good.txt,bad.txt:0.5", "--json")
    assert json.loads(done.stdout)["strengths"] == {"steer good.txt": 0.5}
    assert done.stderr.startswith("steer good.txt · strength 1 moves layer 2 of 3, ")
    assert lotr(*arguments, "--steer", "good.txt,bad.txt:0").stdout == lotr(*arguments).stdout
    refused = lotr(*arguments, "--steer", "Gollum:9")
    assert refused.returncode == 2
    assert "strength '9' is out of range" in refused.stderr
