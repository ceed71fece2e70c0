"""`train`, with `--init` and `--list-settings`, `finetune` and `search`: events, runs, commands to repeat, labels."""

import json
import re
import shlex

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.config import SETTINGS, Config
from engine.data.tokenizers import WordTokenizer
from engine.presets import PRESETS
from engine.runs.directory import list_runs
from lotr_tui.cli.main import TrainingOptions
from lotr_tui.cli.train import format_train_command
from tests.support.commands import json_output
from tests.support.files import no_file_longer_than, sentences
from tests.support.open_models import bpe_tokenizer
from tests.support.pretrained import CONTEXT_SIZE, save_llama
from tests.support.random_dialogues import write_distinct_dialogues
from tests.support.training import write_initial_run

SMALL = ("--threads", "1", "--set", "embedding_size=8", "--epochs", "1")


@pytest.fixture
def initial_runs(home):
    """Create the runs `words` and `pieces` in the runs folder."""
    (home / "runs").mkdir(parents=True)
    write_initial_run(home / "runs" / "words", WordTokenizer(("<unk>", "<eos>", "the", "miller")))
    write_initial_run(home / "runs" / "pieces", bpe_tokenizer(), embedding_size=12, hidden_size=12)


@pytest.fixture
def settings_of(lotr):
    """Return a function that runs `train --list-settings` and returns the value of each setting as text."""

    def read(*options):
        process = lotr("train", "--list-settings", *options)
        assert process.returncode == 0, process.stderr
        rows = (line.partition("=") for line in process.stdout.splitlines())
        return {name: rest.removesuffix(SETTINGS[name].meta.description).rstrip() for name, _, rest in rows}

    return read


class TestTraining:
    @pytest.mark.parametrize("output", ["--no-tui", "--json"])
    def test_a_training_whose_model_cannot_be_saved_fails_in_place_of_being_done(self, lotr, home, small_csv, output):
        settings = (*SMALL, "--set", "embedding_size=60", "--csv", small_csv)
        with no_file_longer_than(20_000):
            done = lotr("train", "--preset", "tiny", *settings, output, "--run", "r")
        assert done.returncode == 1
        assert "lotr-tui: cannot write" in done.stderr.splitlines()[-1]
        assert done.stderr.endswith("; the end of the training is not saved\n")
        assert "lotr-tui --run r" not in done.stdout
        assert '"event": "finished"' not in done.stdout
        assert not (home / "runs" / "r" / "model.safetensors").exists()

    def test_json_prints_one_event_per_line_and_the_result_last(self, lotr, home, small_csv):
        done = lotr("train", "--preset", "tiny", *SMALL, "--csv", small_csv, "--json", "--run", "mine")
        assert (done.returncode, done.stderr) == (0, "")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert {"started", "step", "evaluated", "sampled", "checkpointed"} <= {event["event"] for event in events}
        last = events[-1]
        assert last["event"] == "finished"
        assert last["run"] == str(home / "runs" / "mine")
        assert last["seconds"] > 0
        evaluated = [event["valid_perplexity"] for event in events if event["event"] == "evaluated"]
        assert last["valid_perplexity"] == min(evaluated)
        assert last["test_perplexity"] > 1
        assert {path.name for path in (home / "runs" / "mine").iterdir()} == {
            *("config.json", "vocabulary.json", "model.safetensors", "metrics.jsonl", "samples.jsonl"),
            *("epochs", "lock"),
        }

    def test_without_a_terminal_plain_lines_tell_the_progress(self, lotr, small_csv):
        done = lotr("train", "--preset", "tiny", *SMALL, "--csv", small_csv, "--run", "r")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert done.stdout.startswith(f"for a model that converses, use lotr-tui finetune --csv {small_csv}\n")
        assert re.search(r"baselines \(validation perplexity\): unigram \d+\.\d, Kneser-Ney \d+\.\d", done.stdout)
        assert re.search(r"^epoch +1\.0.*valid", done.stdout, re.MULTILINE)
        assert re.search(r"^done after .*: valid perplexity \d+\.\d .*, test \d+\.\d$", done.stdout, re.MULTILINE)

    def test_options_and_settings_reach_the_configuration(self, settings_of):
        settings = settings_of("--preset=tiny", "--set=lr=0.5", "--mode=stream", "--seed=7", "--split-seed=8")
        names = ("lr", "mode", "seed", "split_seed", "embedding_size")
        expected = ("0.5", "stream", "7", "8", str(PRESETS["tiny"].model.embedding_size))
        assert tuple(settings[name] for name in names) == expected
        for options in (("--tokenizer", "bpe"), ("--split", "scenes"), ("--epochs", "3"), ("--precision", "bf16")):
            name = options[0].removeprefix("--")
            assert settings_of(*options) == settings_of("--set", f"{name}={options[1]}")
            assert settings_of(*options)[name] == options[1]

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ((), ("whitespace", "0", "1")),
            (("--tokenizer", "words"), ("words", "0", "3")),
            (("--tokenizer", "bpe", "--set", "min_characters=5"), ("bpe", "5", "3")),
        ],
    )
    def test_a_corpus_that_is_already_split_keeps_all_lines(self, settings_of, tmp_path, options, expected):
        files = [argument for name in ("text", "valid", "test") for argument in (f"--{name}", tmp_path / name)]
        settings = settings_of(*files, *options)
        assert tuple(settings[name] for name in ("tokenizer", "min_characters", "min_count")) == expected


@pytest.mark.usefixtures("initial_runs")
def test_init_trains_a_run_with_the_tokenizer_and_the_sizes_of_the_initial_run(lotr, home, small_csv):
    options = ("--epochs", "1", "--threads", "1", "--set", "bptt=50")
    process = lotr("train", "--init", "pieces", "--csv", small_csv, "--run", "new", *options)
    assert process.returncode == 0, process.stderr
    assert f"run new in {home / 'runs' / 'new'}, from run pieces\n" in process.stdout
    config = Config.from_json((home / "runs" / "new" / "config.json").read_text(), "")
    assert (config.preset, config.training.init, config.data.tokenizer) == ("finetune", "pieces", "bpe")
    assert (config.model.hidden_size, config.training.patience) == (12, 4)


@pytest.mark.slow
def test_trials_are_runs_and_the_best_settings_become_a_command_for_train(lotr, home, tmp_path, settings_of):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(120)))
    small = ("--set", "embedding_size=16", "--set", "subword_embeddings=false", "--set", "punctuation=false")
    small += ("--precision", "fp32", "--epochs", "2")
    options = ("--text", corpus, "--set", "lr=0.002..0.1", "--set", "optimizer=adamw,sgd", "--name", "s", *small)
    process = lotr("search", "--trials", 2, "--json", "--jobs", "1", *options)
    assert process.returncode == 0, process.stderr
    *trials, summary = map(json.loads, process.stdout.splitlines())
    assert [trial["number"] for trial in trials] == [0, 1]
    best = min((trial for trial in trials if trial["state"] == "complete"), key=lambda row: row["valid_perplexity"])
    assert (summary["reason"], summary["best"]["number"]) == ("trials", best["number"])
    runs = {run.name: run for run in list_runs(home / "runs")}
    assert sorted(runs) == ["s-000", "s-001"]
    for trial in trials:
        run = runs[trial["run"]]
        assert run.state == ("finished" if trial["state"] == "complete" else trial["state"])
        assert (run.valid_perplexity, run.test_perplexity) == (trial["valid_perplexity"], None)
    found = settings_of(*shlex.split(summary["command"])[2:])
    fixed = settings_of("--text", corpus, *small)
    assert found == fixed | {name: str(value) for name, value in best["settings"].items()}
    assert found["score_test"] == "True"
    process = lotr("search", "--resume", "s", "--trials", 1, "--jobs", 1)
    assert process.returncode == 0, process.stderr
    assert "after 2 earlier trials" in process.stdout
    assert len(list_runs(home / "runs")) == 3
    corpus.write_text("\n".join(sentences(121)))
    refused = lotr("search", "--resume", "s", "--trials", 1)
    assert (refused.returncode, "has changed since the search was started" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("initial_runs")
@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--preset=notebook", "--mode=stream"], {"preset": "notebook", "mode": "stream"}),
        (["--init=words", "--set=patience=0"], {"init": "words", "assignments": ["patience=0"]}),
        (["--set=num_heads=2", "--set=sample_prompt=a b"], {"assignments": ["num_heads=2", "sample_prompt=a b"]}),
        (["--set=architecture=transformer"], {"assignments": ["architecture=transformer"]}),
    ],
)
def test_the_command_repeats_any_configuration(settings_of, options, values):
    printed = format_train_command(TrainingOptions(**values).configure())
    assert settings_of(*shlex.split(printed)[2:]) == settings_of(*options)


LABEL = "pre-trained on other text"


def test_an_adapter_is_trained_in_script_form_and_every_figure_says_pre_trained(lotr, home, tmp_path):
    save_llama(tmp_path / "tiny")
    corpus = write_distinct_dialogues(tmp_path / "dialogues.csv", 80)
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "bptt": CONTEXT_SIZE,
        "lora_rank": 2,
        "min_speaker_lines": 5,
        "threads": 1,
    }
    options = [f"--set={name}={value}" for name, value in settings.items()]
    done = lotr("finetune", "--init", "hf:tiny", "--csv", corpus, "--run", "film", "--no-tui", *options)
    assert done.returncode == 0, done.stderr
    assert "for a model that converses" not in done.stdout
    assert f"baselines (validation bits/character, {LABEL}): unigram " in done.stdout
    figures = r"valid bits/character (\d+\.\d{3}), test (\d+\.\d{3})"
    end = re.search(rf"\ndone after .*: {figures}, {LABEL}\n", done.stdout)
    assert end is not None
    valid, test = end.groups()
    config = json_output(lotr("runs", "show", "film"))["config"]
    assert (config["preset"], config["data"]["mode"], config["model"]["lora_rank"]) == ("lora", "dialogue", 2)
    listed = lotr("runs").stdout
    assert re.search(rf"film .* {re.escape(valid)}\* +{re.escape(test)}\* ", listed)
    assert listed.endswith(f"\n* {LABEL}; three decimals: bits/character\n")
    status = lotr("status").stdout
    assert re.search(rf"figures +bits/character, {LABEL}", status)
    assert f"best {valid} at epoch" in status
    for arguments in (("film",), ("film", "--by-speaker"), ("film", "lstm", "--text", "line.txt")):
        (tmp_path / "line.txt").write_text("Frodo: the oak and the elm\n")
        assert LABEL in lotr("eval", *arguments).stdout, arguments
    assert json_output(lotr("eval", "film", "--json"))["pretrained_on_other_text"]
    models = json_output(lotr("eval", "film", "lstm", "--text", "line.txt", "--json"))["texts"][0]["models"]
    assert {model["run"]: model["pretrained_on_other_text"] for model in models} == {"film": True, "lstm": False}
    compared = json_output(lotr("runs", "compare", "film", "lstm", "--json"))
    assert "Pre-trained on other text: film." in compared["notes"]
    adapter, layer = load_file(home / "runs/film/adapter_model.safetensors"), "base_model.model.model.layers.0.mlp"
    product = adapter[f"{layer}.up_proj.lora_B.weight"] @ adapter[f"{layer}.up_proj.lora_A.weight"]
    scale = json_output(lotr("runs", "show", "film"))["config"]["model"]["lora_alpha"] / 2
    norms = [run["adapter_norms"] for run in compared["runs"]]
    assert norms[0]["up_proj"][0] == pytest.approx(scale * np.linalg.norm(product.astype(np.float64)), rel=1e-4)
    assert (len(norms[0]), norms[1]) == (7, None)
    assert "up_proj" in lotr("runs", "compare", "film", "lstm").stdout
    shown = lotr("eval", "film", "--against", "hf:tiny", "--text", "line.txt").stdout
    assert shown.count("most  bits gained") == 2
    assert "\nline: of the script with each turn on one line" in shown
