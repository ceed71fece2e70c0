"""`train --init RUN`: fine-tuning from the command line, and its refusals."""

import pytest

from engine.config import Config
from engine.data.tokenizers.words import WordTokenizer
from tests.support.commands import json_output
from tests.support.initial_runs import write_initial_run
from tests.support.open_models import bpe_tokenizer

SHORT = ("--no-tui", "--epochs", "1", "--threads", "1", "--set", "bptt=50")


@pytest.fixture
def initial_runs(home):
    """Create the runs `words` and `pieces` in the runs folder."""
    (home / "runs").mkdir(parents=True)
    write_initial_run(home / "runs" / "words", WordTokenizer(("<unk>", "<eos>", "the", "miller")))
    write_initial_run(home / "runs" / "pieces", bpe_tokenizer(), embedding_size=12, hidden_size=12)


@pytest.fixture
def settings_of(command):
    """Return a function that runs `train --list-settings` and returns the value of each setting as text."""

    def read(*options):
        process = command("train", "--list-settings", *options)
        assert process.returncode == 0, process.stderr
        assignments = (line.split(maxsplit=1)[0].partition("=") for line in process.stdout.splitlines())
        return {name: value for name, _, value in assignments}

    return read


@pytest.mark.usefixtures("initial_runs")
class TestInit:
    def test_trains_a_run_with_the_tokenizer_and_the_sizes_of_the_initial_run(self, command, home, small_csv):
        process = command("train", "--init", "pieces", "--csv", small_csv, "--run", "new", *SHORT)
        assert process.returncode == 0, process.stderr
        assert f"run new in {home / 'runs' / 'new'}, from run pieces\n" in process.stdout
        assert ", 340 tokens, " in process.stdout
        config = Config.from_json((home / "runs" / "new" / "config.json").read_text(), "")
        assert (config.preset, config.training.init, config.data.tokenizer) == ("finetune", "pieces", "bpe")
        assert (config.model.hidden_size, config.training.patience) == (12, 4)
        tokenizers = [(home / "runs" / name / "tokenizer.json").read_bytes() for name in ("pieces", "new")]
        assert tokenizers[0] == tokenizers[1]
        assert json_output(command("generate", "the", "--run", "new", "--json"))["run"] == "new"

    @pytest.mark.parametrize("init", [("--init", "words"), ("--set", "init=words")])
    def test_another_preset_is_adapted_to_the_initial_run(self, settings_of, init):
        settings = settings_of("--preset", "tiny", *init)
        assert (settings["init"], settings["hidden_size"], settings["patience"]) == ("words", "16", "4")
        assert settings["input_dropout"] == settings_of("--preset", "tiny")["input_dropout"]

    @pytest.mark.parametrize(
        ("option", "now", "remedy"),
        [
            (("--tokenizer", "words"), "tokenizer=words", "--tokenizer bpe"),
            (("--set", "num_layers=3"), "num_layers=3", "--set num_layers=1"),
        ],
    )
    def test_another_model_is_refused_with_the_settings_to_use(self, command, home, small_csv, option, now, remedy):
        process = command("train", "--init", "pieces", "--csv", small_csv, "--run", "new", *SHORT, *option)
        message = (
            f"a model with {now} cannot start from the weights of run 'pieces'; use {remedy}, or omit these settings"
        )
        assert (process.returncode, process.stderr) == (2, f"lotr-tui: {message}\n")
        assert not (home / "runs" / "new").exists()

    @pytest.mark.parametrize("name", ["train", "ablate"])
    def test_an_unknown_run_is_refused(self, command, small_csv, name):
        process = command(name, "--init", "wrods", "--csv", small_csv)
        assert process.returncode == 2
        assert process.stderr.startswith("lotr-tui: run 'wrods' is neither in")
        assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["train", "ablate"])
@pytest.mark.parametrize("init", ["", " "])
def test_an_empty_name_does_not_train_from_random_weights(refused, name, init):
    assert "--init names no run" in refused(name, "--init", init)


class TestTokenizer:
    def test_is_the_same_as_the_setting(self, settings_of):
        assert settings_of("--tokenizer", "bpe") == settings_of("--set", "tokenizer=bpe")
        assert settings_of("--tokenizer", "bpe")["tokenizer"] == "bpe"
        assert settings_of("--tokenizer", "words") == settings_of()
        assert settings_of("--split", "scenes") == settings_of("--set", "split=scenes")

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ((), ("whitespace", "0", "1")),
            (("--tokenizer", "words"), ("words", "0", "3")),
            (("--tokenizer", "bpe"), ("bpe", "-1", "3")),
            (("--tokenizer", "bpe", "--set", "min_characters=5"), ("bpe", "5", "3")),
        ],
    )
    def test_a_corpus_that_is_already_split_keeps_all_lines(self, settings_of, tmp_path, options, expected):
        files = [argument for name in ("text", "valid", "test") for argument in (f"--{name}", tmp_path / name)]
        settings = settings_of(*files, *options)
        assert tuple(settings[name] for name in ("tokenizer", "min_characters", "min_count")) == expected
