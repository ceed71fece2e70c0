"""`lotr-tui tokenize` and `lotr-tui data info --tokenizer`."""

import pytest

from tests.support.commands import json_output
from tests.support.files import sentences, write_csv
from tests.support.open_models import bpe_tokenizer, write_open_run


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
def test_the_tokens_of_an_open_vocabulary_hold_the_whole_text(command, tokenizer):
    text = "Théoden's  ☺ wizards\nlaughed."
    report = json_output(command("tokenize", text, "--tokenizer", tokenizer, "--json"))
    assert report["tokenizer"] == tokenizer
    assert report["unknown"] == []
    assert report["characters"] == len(text)
    assert "".join(token["text"] for token in report["tokens"]) == text
    assert all(text[token["start"] :].startswith(token["text"]) for token in report["tokens"])


def test_the_vocabulary_has_the_requested_size(command):
    report = json_output(command("tokenize", "a", "--tokenizer", "bpe", "--vocabulary-size", "400", "--json"))
    assert report["vocabulary_size"] == 400


def test_the_bundled_tokenizer_is_the_default_and_knows_every_word(command):
    report = json_output(command("tokenize", "Where is Xyzzy?", "--json"))
    assert "".join(token["text"] for token in report["tokens"]) == "Where is Xyzzy?"
    assert report["unknown"] == []
    assert report["vocabulary_size"] == 2048


def test_a_closed_vocabulary_names_what_it_does_not_know(command):
    process = command("tokenize", "Where is Xyzzy?", "--tokenizer", "words")
    assert process.returncode == 0
    marked, tokens, summary = process.stdout.splitlines()
    assert marked == "Where is Xyzzy?"
    assert tokens.startswith("where:")
    assert "<unk>:0" in tokens
    assert "unknown: xyzzy" in summary.lower()


def test_the_tokenizer_of_a_run_is_used(command, tmp_path):
    run = write_open_run(tmp_path / "run", bpe_tokenizer())
    report = json_output(command("tokenize", "Bilbo Baggins", "--run", str(run), "--json"))
    assert [token["id"] for token in report["tokens"]] == bpe_tokenizer().encode("Bilbo Baggins").tolist()


def test_standard_input_is_read(command):
    report = json_output(command("tokenize", "-", "--tokenizer", "characters", "--json", stdin=b"ab\n"))
    assert [token["text"] for token in report["tokens"]] == ["a", "b"]


def test_control_characters_do_not_reach_the_terminal(command):
    process = command("tokenize", "a\x1b[2Jb \u202e", "--tokenizer", "bpe")
    assert process.returncode == 0
    assert "\x1b" not in process.stdout
    assert "\u202e" not in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--tokenizer", "bpe"], "the text is empty"),
        (["a", "--tokenizer", "bpe", "--vocabulary-size", "1"], "vocabulary_size=1 is not a whole number from 300"),
        (
            ["a", "--tokenizer", "bpe", "--vocabulary-size", "10000000"],
            "vocabulary_size=10000000 is not a whole number",
        ),
        (["a", "--vocabulary-size", "500"], "--vocabulary-size belongs to --tokenizer bpe"),
        (["a", "--tokenizer", "bpe", "--run", "bundled"], "leave out --run or --tokenizer"),
        (["a", "--run", "missing"], "missing"),
    ],
)
def test_wrong_use_is_one_line(command, arguments, message):
    process = command("tokenize", *arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert message in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_data_info_describes_the_vocabulary_of_a_tokenizer(command, tmp_path):
    path = write_csv(tmp_path / "corpus.csv", sentences(100))
    info = json_output(command("data", "info", path, "--tokenizer", "bpe", "--vocabulary-size", "350", "--json"))
    assert info["tokenizer"] == "bpe"
    assert info["vocabulary_size"] <= 350
    assert all(split["unk_rate"] == 0 for split in info["splits"].values())
    table = command("data", "info", path, "--tokenizer", "characters").stdout
    assert "tokens" in table
    assert "rare words" not in table


def test_data_info_holds_out_scenes(command, tmp_path):
    path = write_csv(tmp_path / "corpus.csv", sentences(200))
    info = json_output(command("data", "info", path, "--split", "scenes", "--json"))
    assert info["split"] == "scenes"
    assert info["splits"]["valid"]["num_lines"] == 20
