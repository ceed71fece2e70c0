"""Caches, mixtures, ensembles and dynamic evaluation on the command line."""

import json
import math

import pytest

from engine.analysis.bits_per_character import spelling_bits
from engine.presets import get_preset
from engine.runs.loading import load_model
from engine.training.job import prepare_job
from tests.support.commands import json_output
from tests.support.files import sentences, write_csv, write_run

SMALL = ["embedding_size=8", "hidden_size=8", "batch_size=4", "epochs=2", "threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the home of the runs `one` and `two` on the same corpus, and of the run `other` on another corpus."""
    folder = tmp_path_factory.mktemp("runs")
    one, other = write_csv(folder / "one.csv", sentences(120)), write_csv(folder / "other.csv", sentences(60, seed=3))
    for name, corpus, seed in (("one", one, 0), ("two", one, 1), ("other", other, 0)):
        config = get_preset("tiny").with_overrides(SMALL).with_values(corpus=str(corpus), seed=seed)
        job = prepare_job(config.with_values(min_count=3 if name != "other" else 12), name, folder / "runs")
        assert list(job.events(lambda: False))
    return folder


def test_json_has_the_perplexity_of_each_requested_combination(lotr):
    row = json_output(lotr("eval", "one", "--cache", "--mixture", "--dynamic", "--baselines", "--json"))
    assert row["run"] == "one"
    for key in ("perplexity", "cache", "mixture", "dynamic", "plain"):
        assert 1 < row[key] < 100
    assert row["mixture"] < 1.001 * min(row["plain"], row["baselines"]["kneser_ney_5"])
    assert "Kneser-Ney" in row["mixture_description"]
    assert "cache" in row["mixture_description"]
    plain = json_output(lotr("eval", "one", "--json"))
    assert plain["perplexity"] == row["plain"]
    assert not {"cache", "mixture", "dynamic", "baselines", "plain"} & plain.keys()


def test_json_figures_at_the_top_are_those_of_the_complete_combination(lotr):
    plain, row = (
        json_output(lotr("eval", "one", "--split", "train", "--json", *more)) for more in ((), ("--mixture",))
    )
    assert row["perplexity"] == row["mixture"]
    assert row["plain"] == plain["perplexity"] != row["perplexity"]
    assert row["bits_per_token"] == pytest.approx(math.log2(row["mixture"]))
    low, high = row["confidence_interval"]
    assert low < row["mixture"] < high
    assert row["confidence_interval"] != plain["confidence_interval"]


def test_short_text_has_no_confidence_interval(lotr, tmp_path):
    (tmp_path / "line.txt").write_text("the miller carries a bag of apples\n")
    arguments = ("eval", "one", "--text", "line.txt")
    assert json_output(lotr(*arguments, "--json"))["confidence_interval"] is None
    shown = lotr(*arguments).stdout
    assert "a confidence interval (95 % CI) needs at least 200 tokens" in shown
    assert shown.splitlines()[1].split()[2] == "-"


def test_several_runs_are_an_ensemble(lotr):
    ensemble = json_output(lotr("eval", "one", "--run", "two", "--json"))
    assert ensemble["run"] == "one+two"
    assert json_output(lotr("eval", "--run", "one", "--run", "two", "--json")) == ensemble
    alone = [json_output(lotr("eval", name, "--json"))["perplexity"] for name in ("one", "two")]
    assert ensemble["perplexity"] < sum(alone) / 2
    assert json_output(lotr("eval", "one", "--run", "one", "--json"))["perplexity"] == pytest.approx(alone[0], rel=1e-5)


def test_jsonl_scores_the_complete_combination(lotr):
    options = ("eval", "one", "--run", "two", "--mixture", "--cache")
    rows = [json.loads(line) for line in lotr(*options, "--jsonl").stdout.splitlines()]
    row = json_output(lotr(*options, "--json"))
    assert len(rows) == row["tokens"]
    assert math.exp(-sum(token["logprob"] for token in rows) / len(rows)) == pytest.approx(row["mixture"])


def test_weights_option_sets_the_mixture_weights(lotr):
    row = json_output(lotr("eval", "one", "--run", "two", "--weights", "1,0", "--json"))
    assert row["mixture"] == pytest.approx(json_output(lotr("eval", "one", "--json"))["perplexity"], rel=1e-5)
    with_kneser_ney = json_output(lotr("eval", "one", "--mixture", "--weights", "0,1", "--baselines", "--json"))
    assert with_kneser_ney["mixture"] == pytest.approx(with_kneser_ney["baselines"]["kneser_ney_5"], rel=1e-5)


def test_bits_per_character_counts_the_line_ends_and_the_letters_of_unknown_words(lotr, folder):
    text = b"The miller sells; seven lanterns!\n\nZzz...\n"
    row = json_output(lotr("eval", "one", "--text", "-", "--json", stdin=text))
    tokenizer = load_model(folder / "runs" / "one").decoder.tokenizer
    spelled = spelling_bits(tokenizer, ["zzz"]).sum()
    assert row["text_form"] == "words"
    assert row["characters"] == len("the miller sells seven lanterns\nzzz\n")
    assert row["bits_per_character"] * row["characters"] == pytest.approx(
        row["bits_per_token"] * row["tokens"] + spelled
    )
    assert row["unk_rate"] == 1 / 8
    assert row["bits_per_character_interval"] is None


def test_a_text_of_unknown_words_is_spelled(lotr):
    row = json_output(lotr("eval", "one", "--text", "-", "--json", stdin=b"xyzzy plugh\n"))
    assert row["unk_rate"] == 2 / 3
    assert row["bits_per_character"] > 3
    assert row["bits_per_character"] * row["characters"] > 2 * row["bits_per_token"] * row["tokens"]


def test_table_has_all_combinations_and_descriptions(lotr):
    shown = lotr("eval", "one", "--run", "two", "--mixture", "--cache", "--dynamic").stdout
    lines = shown.splitlines()
    assert [line.split("  ")[0] for line in lines[1:9]] == [
        *["ensemble", "with dynamic evaluation", "with a cache", "mixture", "one", "two", "unigram", "Kneser-Ney 5"]
    ]
    assert any(line.startswith("mixture: ") and "one + " in line and "Kneser-Ney" in line for line in lines)


@pytest.mark.parametrize(
    "options", [["--mixture"], ["--cache"], ["--dynamic"], ["--run", "two"], ["--run", "two", "--mixture", "--cache"]]
)
def test_generate_accepts_the_same_combinations(lotr, options):
    arguments = ["generate", "the miller", "--run", "one", *options, "--seed", "5", "--json"]
    row = json_output(lotr(*arguments))
    assert row["text"]
    assert row["run"] == ("one+two" if "two" in options else "one")
    assert json_output(lotr(*arguments))["text"] == row["text"]


class TestRefusals:
    @pytest.fixture
    def refused_in_folder(self, refused, folder):
        return lambda *arguments, **options: refused(*arguments, LOTR_TUI_HOME=str(folder), **options)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--mixture", "--weights", "0.5,0.2"], "weights 0.5,0.2 sum to 0.7; they must be 0 or more and sum to 1"),
            (["--mixture", "--weights", "1.5,-0.5"], "weights 1.5,-0.5 sum to 1; they must be 0 or more"),
            (["--mixture", "--weights", "nan,1"], "they must be 0 or more and sum to 1"),
            (["--mixture", "--weights", "0.5,0.2,0.3"], "3 weights for 2 models"),
            (["--mixture", "--weights", "half,half"], "--weights half,half must be numbers separated by commas"),
            (["--weights", "1"], "--weights needs several models; add --mixture or another --run"),
            (["--cache", "--cache-window", "0"], "--cache-window 0 is not a whole number from 1"),
            (["--cache", "--cache-window", "-3"], "--cache-window -3 is not a whole number from 1"),
            (["--cache-window", "5"], "--cache-window 5 has no effect without --cache"),
            (["--run", "other"], "run other has another vocabulary than run one"),
        ],
    )
    @pytest.mark.parametrize("command_name", ["eval", "generate"])
    def test_invalid_combination_is_refused(self, refused_in_folder, command_name, options, expected):
        first = ["eval", "one"] if command_name == "eval" else ["generate", "the miller", "--run", "one"]
        assert expected in refused_in_folder(*first, *options)

    def test_tensors_of_another_configuration_are_refused(self, refused, home, tmp_path):
        mixed_up = write_run(home / "runs" / "mixed-up")
        larger = write_run(tmp_path / "larger")
        config = json.loads((larger / "config.json").read_text())
        config["model"]["hidden_size"] = config["model"]["embedding_size"] = 16
        (mixed_up / "config.json").write_text(json.dumps(config))
        assert "model.safetensors: embedding.weight is float32" in refused(
            "eval", "mixed-up", "--text", "-", stdin=b"a"
        )

    @pytest.mark.parametrize("options", [["--valid", "a.txt"], ["--test", "a.txt"]])
    def test_valid_and_test_need_each_other(self, refused, small_csv, options):
        assert "--valid and --test need each other" in refused("train", "--csv", small_csv, *options)

    def test_valid_and_test_need_a_training_text(self, refused, small_csv):
        assert "and --text or --csv for the training text" in refused(
            "train", "--valid", small_csv, "--test", small_csv
        )
