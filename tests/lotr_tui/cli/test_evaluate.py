"""Caches, mixtures, ensembles and learning while reading, from the command line."""

import json
import math

import pytest

from engine.config import preset
from engine.training.job import prepare_job
from tests.conftest import sentences, write_csv, write_run
from tests.lotr_tui.cli.test_bad_input import refused  # noqa: F401  (a fixture)

SMALL = ["embedding_size=8", "hidden_size=8", "batch_size=4", "epochs=2", "threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The home of two runs of one corpus, `one` and `two`, and a third of another corpus."""
    folder = tmp_path_factory.mktemp("runs")
    one, other = write_csv(folder / "one.csv", sentences(120)), write_csv(folder / "other.csv", sentences(60, seed=3))
    for name, corpus, seed in (("one", one, 0), ("two", one, 1), ("other", other, 0)):
        config = preset("tiny").with_settings(SMALL).with_values(corpus=str(corpus), seed=seed)
        job = prepare_job(config.with_values(min_count=3 if name != "other" else 12), name, folder / "runs")
        assert list(job.events(lambda: False))
    return folder


@pytest.fixture
def lotr(folder, command):
    def run(*arguments, **options):
        return command(*arguments, LOTR_TUI_HOME=str(folder), **options)

    return run


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eval_prints_each_thing_that_was_asked_for(lotr):
    row = answer(lotr("eval", "one", "--cache", "--mixture", "--dynamic", "--baselines", "--json"))
    assert row["run"] == "one"
    for key in ("perplexity", "cache", "mixture", "dynamic"):
        assert 1 < row[key] < 100
    assert row["mixture"] < 1.001 * min(row["perplexity"], row["baselines"]["kneser_ney_5"])
    assert "Kneser-Ney" in row["mixture_of"]
    assert "cache" in row["mixture_of"]
    low, high = row["interval"]
    assert low < row["perplexity"] < high
    plain = answer(lotr("eval", "one", "--json"))
    assert plain["perplexity"] == row["perplexity"]
    assert not {"cache", "mixture", "dynamic", "baselines"} & plain.keys()


def test_several_runs_are_an_ensemble_however_they_are_named(lotr):
    ensemble = answer(lotr("eval", "one", "two", "--json"))
    assert ensemble["run"] == "one+two"
    assert answer(lotr("eval", "one", "--run", "two", "--json")) == ensemble
    alone = [answer(lotr("eval", name, "--json"))["perplexity"] for name in ("one", "two")]
    assert ensemble["perplexity"] < sum(alone) / 2
    assert answer(lotr("eval", "one", "one", "--json"))["perplexity"] == pytest.approx(alone[0], rel=1e-5)


def test_jsonl_is_of_the_whole_combination(lotr):
    options = ("eval", "one", "two", "--mixture", "--cache")
    rows = [json.loads(line) for line in lotr(*options, "--jsonl").stdout.splitlines()]
    row = answer(lotr(*options, "--json"))
    assert len(rows) == row["tokens"]
    assert math.exp(-sum(one["logprob"] for one in rows) / len(rows)) == pytest.approx(row["mixture"])


def test_weights_of_ones_own(lotr):
    row = answer(lotr("eval", "one", "two", "--weights", "1,0", "--json"))
    assert row["mixture"] == pytest.approx(answer(lotr("eval", "one", "--json"))["perplexity"], rel=1e-5)
    with_counts = answer(lotr("eval", "one", "--mixture", "--weights", "0,1", "--baselines", "--json"))
    assert with_counts["mixture"] == pytest.approx(with_counts["baselines"]["kneser_ney_5"], rel=1e-5)


def test_bits_a_character_count_the_letters_of_the_text(lotr, folder, tmp_path):
    (tmp_path / "own.txt").write_text("The miller sells; seven lanterns!\n")
    row = answer(lotr("eval", "one", "--text", "own.txt", "--json"))
    characters = len("the miller sells seven lanterns\n")
    assert row["bits_per_character"] == pytest.approx(row["bits_per_token"] * row["tokens"] / characters)


def test_for_people_everything_stands_in_one_table(lotr):
    shown = lotr("eval", "one", "two", "--mixture", "--cache", "--dynamic").stdout
    lines = shown.splitlines()
    assert [line.split("  ")[0] for line in lines[1:9]] == [
        *["ensemble", "learning as it reads", "with a cache", "mixture", "one", "two", "unigram", "Kneser-Ney 5"]
    ]
    assert any(line.startswith("mixture: ") and "one + " in line and "Kneser-Ney" in line for line in lines)


@pytest.mark.parametrize(
    "options", [["--mixture"], ["--cache"], ["--dynamic"], ["--run", "two"], ["--run", "two", "--mixture", "--cache"]]
)
def test_generate_speaks_with_any_of_them(lotr, options):
    given = ["generate", "the miller", "--run", "one", *options, "--seed", "5", "--json"]
    row = answer(lotr(*given))
    assert row["text"]
    assert row["run"] == ("one+two" if "two" in options else "one")
    assert answer(lotr(*given))["text"] == row["text"]


class TestRefusals:
    @pytest.fixture
    def said(self, refused, folder):  # noqa: F811
        return lambda *arguments, **options: refused(*arguments, LOTR_TUI_HOME=str(folder), **options)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--mixture", "--weights", "0.5,0.2"], "weights 0.5,0.2 sum to 0.7; they must be 0 or more and sum to 1"),
            (["--mixture", "--weights", "1.5,-0.5"], "weights 1.5,-0.5 sum to 1; they must be 0 or more"),
            (["--mixture", "--weights", "nan,1"], "they must be 0 or more and sum to 1"),
            (["--mixture", "--weights", "0.5,0.2,0.3"], "3 weights for 2 models"),
            (["--mixture", "--weights", "half,half"], "--weights half,half are no numbers"),
            (["--weights", "1"], "give --mixture or more than one --run"),
            (["--cache", "--cache-window", "0"], "cache window 0 is out of range"),
            (["--cache", "--cache-window", "-3"], "cache window -3 is out of range"),
            (["--cache-window", "5"], "give --cache too"),
            (["--run", "other"], "run other knows other words than run one"),
        ],
    )
    @pytest.mark.parametrize("command_name", ["eval", "generate"])
    def test_what_cannot_be_combined(self, said, command_name, options, expected):
        first = ["eval", "one"] if command_name == "eval" else ["generate", "the miller", "--run", "one"]
        assert expected in said(*first, *options)

    def test_a_text_with_none_of_its_words_known(self, said):
        line = said("eval", "one", "--text", "-", stdin=b"xyzzy plugh\n")
        assert "no word that the model knows" in line

    def test_weights_of_another_configuration(self, refused, home, tmp_path):  # noqa: F811
        mixed_up = write_run(home / "runs" / "mixed-up")
        larger = write_run(tmp_path / "larger")
        config = json.loads((larger / "config.json").read_text())
        config["model"]["hidden_size"] = config["model"]["embedding_size"] = 16
        (mixed_up / "config.json").write_text(json.dumps(config))
        assert "model.safetensors: embedding.weight is float32" in refused(
            "eval", "mixed-up", "--text", "-", stdin=b"a"
        )

    @pytest.mark.parametrize("options", [["--valid", "a.txt"], ["--test", "a.txt"]])
    def test_valid_and_test_belong_together(self, refused, small_csv, options):  # noqa: F811
        assert "--valid and --test belong together" in refused("train", "--csv", small_csv, *options)

    def test_valid_and_test_without_a_text_to_train_on(self, refused, small_csv):  # noqa: F811
        assert "beside the --text or --csv" in refused("train", "--valid", small_csv, "--test", small_csv)
