"""`lotr-tui eval A B C`: several models in one table, and the text that they are scored on."""

import json
import math

import pytest

from engine.data.dataset import load_dataset
from engine.presets import get_preset
from tests.support.commands import json_output
from tests.support.files import sentences, write_csv, write_random_run

OPEN = ["subword_embeddings=no", "punctuation=no"]
RUNS = {
    "words": [],
    "stream": ["mode=stream"],
    "whitespace": ["tokenizer=whitespace", "punctuation=no"],
    "characters": ["tokenizer=characters", *OPEN],
    "bpe": ["tokenizer=bpe", "vocabulary_size=300", *OPEN],
    "bpe-stream": ["tokenizer=bpe", "vocabulary_size=320", "mode=stream", *OPEN],
}
TEXT = "The Miller sells: seven lanterns!\n\n  A king  carries a bag of apples…\nNo.\n" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the home of runs with different tokenizers on the same corpus, and of `other` on another corpus."""
    folder = tmp_path_factory.mktemp("runs")
    corpus, other = write_csv(folder / "one.csv", sentences(200)), write_csv(folder / "two.csv", sentences(60, seed=3))
    for name, changes in {**RUNS, "other": []}.items():
        config = get_preset("tiny").with_overrides(["embedding_size=8", "hidden_size=8", *changes])
        config = config.with_values(corpus=str(corpus if name != "other" else other))
        write_random_run(folder / "runs" / name, config, load_dataset(config.data).tokenizer)
    (folder / "own.txt").write_text(TEXT)
    return folder


def test_all_models_are_scored_on_the_same_text(lotr, folder):
    report = json_output(lotr("eval", *RUNS, "--text", folder / "own.txt", "--json"))
    assert report["split"] == str(folder / "own.txt")
    texts = {text["text_form"]: text for text in report["texts"]}
    assert list(texts) == ["words", "whitespace", "original"]
    assert {row["run"] for row in texts["words"]["models"]} == set(RUNS)
    assert {row["run"] for row in texts["whitespace"]["models"]} == set(RUNS) - {"words", "stream"}
    assert {row["run"] for row in texts["original"]["models"]} == {"characters", "bpe", "bpe-stream"}
    assert texts["original"]["characters"] == len(TEXT)
    for text in texts.values():
        figures = [row["bits_per_character"] for row in text["models"]]
        assert figures == sorted(figures)
        best_two = text["best_two"]
        assert best_two["runs"] == [row["run"] for row in text["models"][:2]]
        assert best_two["difference"] == pytest.approx(figures[0] - figures[1])
        assert best_two["confidence_interval"][0] <= best_two["difference"] <= best_two["confidence_interval"][1]
        for row in text["models"]:
            low, high = row["bits_per_character_interval"]
            assert low < row["bits_per_character"] < high
            total = row["bits_per_token"] * row["tokens"]
            assert total == pytest.approx(math.log2(row["perplexity"]) * row["tokens"])
            if row["tokenizer"] in ("characters", "bpe"):
                assert row["bits_per_character"] * text["characters"] == pytest.approx(total)
                assert row["unk_rate"] == 0
            else:
                assert row["bits_per_character"] * text["characters"] > total


def test_each_model_has_the_figures_that_it_has_alone(lotr, folder):
    path = folder / "own.txt"
    report = json_output(lotr("eval", "words", "bpe", "characters", "--text", path, "--json"))
    for form, names in (("words", ["words"]), ("original", ["bpe", "characters"])):
        text = next(text for text in report["texts"] if text["text_form"] == form)
        for name in names:
            alone = json_output(lotr("eval", name, "--text", path, "--json"))
            row = next(row for row in text["models"] if row["run"] == name)
            assert (alone["text_form"], alone["characters"]) == (form, text["characters"])
            for key in ("bits_per_character", "bits_per_character_interval", "perplexity", "tokens", "unk_rate"):
                assert alone[key] == row[key]


def test_normalized_scores_lower_case_words_with_every_tokenizer(lotr, folder):
    options = ("--normalized", "--text", folder / "own.txt", "--json")
    (text,) = json_output(lotr("eval", "characters", "bpe", *options))["texts"]
    assert text["text_form"] == "words"
    alone = json_output(lotr("eval", "bpe", *options))
    assert (
        alone["characters"]
        == text["characters"]
        == len("the miller sells seven lanterns\na king carries a bag of apples\nno\n") * 20
    )
    assert alone["bits_per_character"] in [row["bits_per_character"] for row in text["models"]]


def test_splits_of_the_same_corpus_are_compared(lotr):
    report = json_output(lotr("eval", "words", "bpe", "--split", "test", "--json"))
    assert report["split"] == "test"
    for text in report["texts"]:
        for row in text["models"]:
            if row["run"] == "bpe" or text["text_form"] == "words":
                assert row["tokens"] > 0
    alone = json_output(lotr("eval", "words", "--split", "test", "--json"))
    assert alone["bits_per_character"] in [row["bits_per_character"] for row in report["texts"][0]["models"]]


def test_order_of_the_runs_does_not_matter(lotr):
    arguments = ("words", "bpe", "stream")
    assert lotr("eval", *arguments, "--json").stdout == lotr("eval", *reversed(arguments), "--json").stdout


def test_a_model_is_not_better_than_itself(lotr):
    (text,) = json_output(lotr("eval", "words", "words", "--split", "train", "--json"))["texts"]
    assert text["best_two"]["difference"] == 0
    assert text["best_two"]["better_fraction"] == 0.5


def test_combinations_apply_to_each_model(lotr):
    report = json_output(lotr("eval", "words", "stream", "--mixture", "--json"))
    alone = json_output(lotr("eval", "words", "--mixture", "--json"))
    row = next(row for row in report["texts"][0]["models"] if row["run"] == "words")
    assert row["perplexity"] == pytest.approx(alone["mixture"])
    assert [note.split(": ")[0] for note in report["notes"]] == ["words", "stream"]


def test_table_has_a_row_for_each_model_and_the_paired_test(lotr, folder):
    lines = lotr("eval", "words", "bpe", "--text", folder / "own.txt").stdout.splitlines()
    assert lines[0].endswith("own.txt: the lower-case words, 1,320 characters")
    assert lines[1].split() == ["run", "tokenizer", "bits/char", "95", "%", "CI", "perplexity", "tokens", "rare"]
    assert {line.split()[0] for line in lines[2:4]} == {"words", "bpe"}
    assert "bits/char less than" in lines[4]
    assert lines[4].endswith("% of resampled texts")
    assert lines[6].endswith(f"the original text, {len(TEXT):,} characters")
    assert lines[8].split()[:2] == ["bpe", "bpe"]
    assert lines[8].split()[-1] == "-"


def test_short_text_has_no_interval(lotr):
    done = lotr("eval", "words", "bpe", "--text", "-", stdin=b"The miller sells.")
    assert "the text is too short for a confidence interval" in done.stdout
    report = json_output(lotr("eval", "words", "bpe", "--text", "-", "--json", stdin=b"The miller sells."))
    assert report["texts"][0]["best_two"]["confidence_interval"] is None
    assert report["texts"][1]["characters"] == len("The miller sells.\n")


def test_carriage_returns_and_byte_order_marks_are_no_text(lotr, folder):
    (folder / "windows.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    plain, windows = (
        json_output(lotr("eval", "bpe", "--text", folder / f"{name}.txt", "--json")) for name in ("own", "windows")
    )
    piped = json_output(lotr("eval", "bpe", "--text", "-", "--json", stdin=(folder / "windows.txt").read_bytes()))
    for key in ("characters", "tokens", "bits_per_character"):
        assert plain[key] == windows[key] == piped[key]


def test_jsonl_has_every_token_of_the_original_text(lotr, folder):
    rows = [
        json.loads(line) for line in lotr("eval", "bpe", "--text", folder / "own.txt", "--jsonl").stdout.splitlines()
    ]
    assert sum(row["text"] == "<eos>" for row in rows) == TEXT.count("\n")
    report = json_output(lotr("eval", "bpe", "--text", folder / "own.txt", "--json"))
    bits = -sum(row["logprob"] for row in rows) / math.log(2)
    assert bits / len(TEXT) == pytest.approx(report["bits_per_character"])


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["words", "bpe", "--baselines"], "--baselines is for one model, but several RUNs are compared"),
            (["words", "bpe", "--jsonl"], "--jsonl is for one model, but several RUNs are compared"),
            (["words", "bpe", "--run", "stream"], "--run is for one model, but several RUNs are compared"),
            (["words", "other"], "the splits of words and other are not the same text; choose runs of the same corpus"),
            (["words", "bpe", "--text", "none.txt"], "none.txt does not exist"),
            (["words", "missing"], "missing"),
            (["--run", "words", "--run", "bpe"], "run bpe has another vocabulary than run words"),
        ],
    )
    def test_unusable_comparison_is_one_line(self, refused, folder, arguments, expected):
        assert expected in refused("eval", *arguments, LOTR_TUI_HOME=str(folder))

    @pytest.mark.parametrize("text", [b"", b"\n \n", b"... --- ...\n"])
    @pytest.mark.parametrize("names", [["words"], ["words", "bpe"]])
    def test_text_without_words_is_one_line(self, refused, folder, names, text):
        line = refused("eval", *names, "--text", "-", stdin=text, LOTR_TUI_HOME=str(folder))
        assert "--text - has no words to score; use a longer text" in line
