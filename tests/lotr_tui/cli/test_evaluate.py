"""`eval`: one model, combinations of models, and several models in one table, with the text that they are scored on."""

import json
import math
import shutil
from pathlib import Path

import pytest

from engine.data.dataset import load_dataset
from engine.presets import PRESETS
from engine.runs.directory import read_config
from tests.support.commands import json_output, run_here
from tests.support.files import sentences, write_csv, write_run
from tests.support.open_models import bpe_tokenizer, write_transformer_run
from tests.support.random_dialogues import write_dialogue_run

OPEN = ["subword_embeddings=no", "punctuation=no"]
RUNS = {
    "words": [], "stream": ["mode=stream"], "whitespace": ["tokenizer=whitespace", "punctuation=no"],
    "characters": ["tokenizer=characters", *OPEN], "bpe": ["tokenizer=bpe", "vocabulary_size=300", *OPEN],
}  # fmt: skip
OTHER_SPLITS = {
    "other": [],  # of another corpus
    "reseeded": ["tokenizer=characters", "split_seed=7", *OPEN],
    "whole": ["tokenizer=characters", *OPEN],  # trained on all lines of the others
}
TEXT = "The Miller sells: seven lanterns!\n\n  A king  carries a bag of apples…\nNo.\n" * 20
NUM_CHARACTERS = sum(len(" ".join(line.split())) + 1 for line in TEXT.splitlines() if line)
SMALL = "--set embedding_size=8 --set hidden_size=8 --set batch_size=4"
TRAIN = f"train --preset tiny --threads 1 {SMALL} --epochs 2 --json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the home of runs with random weights, different tokenizers and different splits."""
    folder = tmp_path_factory.mktemp("runs")
    texts = list(dict.fromkeys(sentences(200)))
    corpus, other = write_csv(folder / "one.csv", texts), write_csv(folder / "two.csv", sentences(60, seed=3))
    for name, changes in {**RUNS, **OTHER_SPLITS}.items():
        config = PRESETS["tiny"].with_values("embedding_size=8", "hidden_size=8", *changes)
        config = config.with_values(corpus=str(corpus if name != "other" else other))
        if name == "whole":
            config = config.with_values(valid_corpus=str(other), test_corpus=str(other))
        write_run(folder / "runs" / name, config, load_dataset(config.data).tokenizer)
    write_dialogue_run(folder / "runs" / "dialogue")
    gone = Path(shutil.copytree(folder / "runs/bpe", folder / "runs/gone")) / "config.json"
    gone.write_text(gone.read_text().replace("one.csv", "gone.csv"))
    (folder / "own.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """Train `one` and `two` with different seeds, and return the events of `one`."""
    events = {}
    for seed, name in enumerate(("one", "two")):
        arguments = [*TRAIN.split(), "--csv", folder / "one.csv", "--run", name, "--seed", seed]
        done = run_here(arguments, LOTR_TUI_HOME=str(folder))
        assert done.returncode == 0, done.stderr
        events[name] = [json.loads(line) for line in done.stdout.splitlines()]
    return events["one"]


@pytest.fixture
def home(folder, monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", str(folder))
    return folder


@pytest.fixture
def score(lotr, trained):
    """Return a function that runs `eval --json` with the trained runs."""
    return lambda *arguments, **options: json_output(lotr("eval", *arguments, "--json", **options))


class TestOneModel:
    def test_json_agrees_with_the_training_events(self, score, trained):
        started = next(event for event in trained if event["event"] == "started")
        row = score("one", "--baselines")
        assert (row["run"], row["split"], row["mode"]) == ("one", "valid", "line")
        assert row["tokens"] == started["valid_tokens"]
        assert row["perplexity"] == pytest.approx(trained[-1]["valid_perplexity"], rel=1e-3)
        assert row["bits_per_token"] == pytest.approx(math.log2(row["perplexity"]))
        assert 0 <= row["unk_rate"] < 1
        assert row["baselines"]["unigram"] == pytest.approx(started["unigram_perplexity"])
        assert row["baselines"]["kneser_ney_5"] == pytest.approx(started["kneser_ney_perplexity"])
        test = score("one", "--split", "test")
        assert test["perplexity"] == pytest.approx(trained[-1]["test_perplexity"], rel=1e-3)
        assert not {"cache", "mixture", "dynamic", "baselines", "plain"} & test.keys()

    def test_a_saved_epoch_is_selected_by_name(self, score, trained, lotr):
        valid = next(e["valid_perplexity"] for e in trained if e["event"] == "evaluated" and e["epoch"] == 1)
        row = score("one@1")
        assert (row["run"], row["perplexity"]) == ("one@1", pytest.approx(valid, rel=1e-3))
        assert json_output(lotr("generate", "the miller", "--run", "one@1", "--json"))["run"] == "one@1"

    def test_jsonl_prints_one_object_per_token(self, lotr, score):
        for arguments in (("one",), ("one", "--run", "two", "--mixture", "--cache")):
            rows = [json.loads(line) for line in lotr("eval", *arguments, "--jsonl").stdout.splitlines()]
            row = score(*arguments)
            assert len(rows) == row["tokens"]
            assert set(rows[0]) == {"id", "text", "logprob"}
            assert rows[-1]["text"] == "<eos>"
            assert math.exp(-sum(token["logprob"] for token in rows) / len(rows)) == pytest.approx(row["perplexity"])

    def test_text_is_read_from_a_file_or_standard_input(self, score, tmp_path):
        text = "the miller sells seven lanterns\nzzz\n\n"
        (tmp_path / "own.txt").write_text(text)
        from_file = score("one", "--text", "own.txt")
        piped = score("one", "--text", "-", stdin=text.encode() + b"\xff")
        assert from_file["tokens"] == piped["tokens"] == 5 + 1 + 1 + 1
        assert from_file["unk_rate"] == 1 / 8
        assert from_file["perplexity"] == piped["perplexity"]


class TestCombinations:
    def test_json_has_the_perplexity_of_each_combination_and_of_the_complete_one_at_the_top(self, score):
        row = score("one", "--cache", "--mixture", "--dynamic", "--baselines")
        assert row["run"] == "one"
        assert all(1 < row[key] < 100 for key in ("perplexity", "cache", "mixture", "dynamic", "plain"))
        assert row["mixture"] < 1.001 * min(row["plain"], row["baselines"]["kneser_ney_5"])
        assert "Kneser-Ney" in row["mixture_description"]
        row = score("one", "--split", "train", "--mixture")
        assert row["plain"] != row["perplexity"] == row["mixture"]
        assert row["bits_per_token"] == pytest.approx(math.log2(row["mixture"]))
        low, high = row["confidence_interval"]
        assert low < row["mixture"] < high

    def test_several_runs_are_an_ensemble(self, score, refused):
        ensemble = score("one", "--run", "two")
        assert ensemble["run"] == "one+two"
        assert score("--run", "one", "--run", "two") == ensemble
        alone = [score(name)["perplexity"] for name in ("one", "two")]
        assert ensemble["perplexity"] < sum(alone) / 2
        assert "run other has another vocabulary than run words" in refused("eval", "words", "--run", "other")

    @pytest.mark.usefixtures("trained")
    def test_generate_accepts_the_same_combinations(self, lotr):
        for options in (["--mixture"], ["--cache"], ["--run", "two", "--mixture", "--cache"]):
            arguments = ["generate", "the miller", "--run", "one", *options, "--seed", "5", "--json"]
            row = json_output(lotr(*arguments))
            assert row["text"]
            assert row["run"] == ("one+two" if "two" in options else "one")
            assert json_output(lotr(*arguments))["text"] == row["text"]


class TestSeveralModels:
    def test_all_models_are_scored_on_the_same_text(self, score, folder):
        report = score(*RUNS, "--text", folder / "own.txt")
        assert report["split"] == str(folder / "own.txt")
        texts = {text["text_form"]: text for text in report["texts"]}
        assert list(texts) == ["words", "whitespace"]  # one of them reads single spaces only
        assert {row["run"] for row in texts["words"]["models"]} == set(RUNS)
        assert {row["run"] for row in texts["whitespace"]["models"]} == set(RUNS) - {"words", "stream"}
        assert texts["whitespace"]["characters"] == NUM_CHARACTERS
        (original,) = score("characters", "bpe", "--text", folder / "own.txt")["texts"]
        assert (original["text_form"], original["characters"]) == ("original", len(TEXT))
        best, second = texts["words"]["models"][:2]
        assert texts["words"]["best_two"]["runs"] == [best["run"], second["run"]]
        low, high = best["bits_per_character_interval"]
        assert low < best["bits_per_character"] < min(high, second["bits_per_character"])

    @pytest.mark.parametrize(
        ("names", "owner"),
        [(["bpe", "reseeded"], "bpe"), (["words", "reseeded"], "reseeded"), (["words", "other"], "words")],
    )
    def test_runs_of_different_splits_are_compared_on_lines_that_one_may_know(self, score, folder, names, owner):
        train, held_out = {}, []
        for name in names:
            splits = load_dataset(read_config(folder / "runs" / name).data).splits
            train[name] = {line.text.lower() for line in splits.train}
            held_out = [line.text for line in splits.test] if name == owner else held_out
        (known_to_others,) = (train[name] - train[owner] for name in names if name != owner)
        kept = [line for line in held_out if line.lower() not in known_to_others]
        report = score(*names, "--split", "test")
        assert report["text"] == f"test of {owner}"
        assert report["texts"][-1]["characters"] == sum(len(line) + 1 for line in kept)
        left_out = f"left out: {len(held_out) - len(kept)} of {len(held_out)} lines, which another run was trained on"
        assert (left_out in report["notes"]) == (len(kept) < len(held_out))

    def test_where_runs_have_no_common_lines_the_advice_works(self, score, refused, folder):
        own = ("--text", folder / "own.txt")
        assert refused("eval", "bpe", "whole").endswith(
            "every line of valid of bpe is in the training text of another run; use --text FILE"
        )
        assert [row["run"] for row in score("bpe", "whole", *own)["texts"][0]["models"]]
        assert refused("eval", "gone", "gone").endswith("gone.csv does not exist; check the path, or use --text FILE")
        assert score("gone", *own)["characters"] == len(TEXT)
        report = score("gone", "bpe")
        assert report["text"] == "valid of bpe"
        assert report["notes"] == ["gone: its training text cannot be read, and may have some of the lines"]

    def test_a_text_without_names_is_said_by_someone(self, score, folder):
        report = score("dialogue", "bpe", "--text", folder / "own.txt")
        (single_spaces,) = report["texts"]
        assert single_spaces["text_form"] == "whitespace"
        assert {row["run"] for row in single_spaces["models"]} == {"dialogue", "bpe"}
        assert report["notes"] == ["dialogue: reads every line as said by SOMEONE"]

    def test_table_has_a_row_for_each_model_and_the_paired_test(self, lotr, folder):
        done = lotr("eval", "words", "bpe", "--text", folder / "own.txt")
        assert done.stderr == f"scoring {folder / 'own.txt'} by words, bpe …\n"  # it takes minutes without a word
        lines = done.stdout.splitlines()
        assert lines[0].endswith("own.txt: the lower-case words, 1,320 characters")
        assert lines[1].split() == ["run", "tokenizer", "bits/char", "95", "%", "CI", "perplexity", "tokens", "rare"]
        assert {line.split()[0] for line in lines[2:4]} == {"words", "bpe"}
        assert "bits/char less than" in lines[4]
        assert "(95 % CI " in lines[4]
        assert lines[6].endswith(f"the original text, {len(TEXT):,} characters")
        assert lines[8].split()[:2] == ["bpe", "bpe"]
        short = lotr("eval", "words", "bpe", "--text", "-", stdin=b"The miller sells.")
        assert "the text is too short for a confidence interval" in short.stdout

    def test_transformers_are_compared_with_the_smallest_context(self, home, lotr, score, tmp_path):
        (tmp_path / "text.txt").write_text(TEXT)
        for name, context_size in (("short", 12), ("long", 48)):
            write_transformer_run(home / "runs" / name, bpe_tokenizer(), context_size=context_size)
        text = ("--text", "text.txt")
        alone = [score(name, *text)["bits_per_character"] for name in ("short", "long")]
        assert alone[0] != pytest.approx(alone[1], abs=1e-3)
        for arguments in (("long", "short"), ("long", "--against", "short")):
            record = score(*arguments, *text)
            bits = [model["bits_per_character"] for model in record["texts"][0]["models"]]
            assert bits == pytest.approx([alone[0]] * 2, abs=1e-5)
            assert "context: 12 tokens for all, the smallest of these models" in record["notes"]

    def test_words_that_differ_most_are_listed_with_the_bits_of_both_models(self, lotr, score, refused, tmp_path):
        (tmp_path / "text.txt").write_text("the miller sells\nseven lanterns before sunrise\n")
        text, by_model = ("--normalized", "--text", "text.txt"), []
        for name in ("words", "bpe"):
            words, is_start = [], True
            for row in map(json.loads, lotr("eval", name, *text, "--jsonl").stdout.splitlines()):
                if name == "words" or is_start or row["text"].startswith((" ", "<eos>")):
                    words.append(["", 0.0])
                words[-1] = [words[-1][0] + row["text"].strip(), words[-1][1] - row["logprob"] / math.log(2)]
                is_start = row["text"] == "<eos>"
            by_model.append({word: bits for word, bits in words if word != "<eos>"})
        lists = score("words", "--against", "bpe", *text)["words"]
        gains = [word["gain"] for word in lists["gained"] + lists["lost"][::-1]]
        assert gains == sorted(gains, reverse=True)
        for name, bits in zip(("bits", "other_bits"), by_model, strict=True):
            assert {word["word"]: word[name] for word in lists["gained"] + lists["lost"]} == pytest.approx(bits)
        assert all(word["gain"] == word["other_bits"] - word["bits"] for word in lists["gained"])
        most = lists["gained"][0]
        shown = lotr("eval", "words", "--against", "bpe", *text).stdout.splitlines()
        (first,) = (line for line in shown if line.split()[:2] == [most["word"], f"{most['gain']:+.2f}"])
        assert first.rstrip().endswith(most["context"][-20:])
        assert refused("eval", "words", "--against", "words").endswith("is the model words itself; name another one")
        assert "--against compares one RUN with bpe" in refused("eval", "words", "stream", "--against", "bpe")
