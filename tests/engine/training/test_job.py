"""Training jobs: checks of the input, the run directory, and recorded events."""

import json
import sys
from pathlib import Path

import pytest

from engine.config import Config
from engine.data.tokenizers import WordTokenizer
from engine.errors import ConfigError, CorpusError, RunError, TrainingError
from engine.events import EVENT_NAMES, Checkpointed, Evaluated, Finished, Preparing, Sampled, Started, Step
from engine.presets import PRESETS
from engine.runs.directory import summarize_run
from engine.runs.loading import load_model
from engine.training.job import prepare_job, resume_job
from tests.support.runs import read_strict_rows


def small_config(path, **values):
    small = {"embedding_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 10, "bptt": 20, "threads": 1}
    return Config("tiny").with_values(**{"corpus": str(path), **small, **values})


def test_a_new_run_has_the_configuration_and_the_vocabulary_and_is_locked(small_csv, home):
    job = prepare_job(small_config(small_csv), "mine")
    assert job.run.path == home / "runs" / "mine"
    assert Config.from_json((job.run.path / "config.json").read_text(), "") == job.config
    assert WordTokenizer.from_json((job.run.path / "vocabulary.json").read_text(), "") == job.dataset.tokenizer
    assert summarize_run(job.run.path).state == "running"
    job.run.lock.close()
    assert summarize_run(job.run.path).state == "crashed"


def test_the_path_of_the_corpus_becomes_absolute(small_csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("small.csv", "~/small.csv"):
        corpus = prepare_job(small_config(name), None, tmp_path / "runs").config.data.corpus
        assert Path(corpus).is_absolute()
        assert Path(corpus).samefile(small_csv)
    assert prepare_job(Config("tiny"), "mine", tmp_path / "runs").config.data.corpus == "bundled"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"corpus": "/no/such.csv"}, CorpusError, r"/no/such\.csv does not exist"),
        ({"batch_size": 5000}, ConfigError, r"batch_size=5000 is too large: [\d,]+ training tokens"),
        ({"teacher_columns": 2}, ConfigError, "teacher_columns needs teachers that write the text; add --teacher RUN"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_refused_before_a_run_is_created(small_csv, tmp_path, values, error, message):
    with pytest.raises(error, match=message):
        prepare_job(small_config(small_csv, **values), None, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have this device")
def test_a_device_that_is_not_there_is_refused(small_csv, tmp_path):
    with pytest.raises(ConfigError, match="--device mps: this machine"):
        prepare_job(small_config(small_csv, device="mps"), None, tmp_path / "runs")


def test_all_events_are_yielded_and_recorded(small_csv, tmp_path):
    job = prepare_job(small_config(small_csv), "mine", tmp_path)
    events = list(job.events(lambda: False))
    event_types = [type(event) for event in events]
    assert {Preparing, Started, Step, Evaluated, Sampled, Checkpointed, Finished} == set(event_types)
    metrics, samples = (
        read_strict_rows(job.run.path / "metrics.jsonl"),
        read_strict_rows(job.run.path / "samples.jsonl"),
    )
    recorded = [EVENT_NAMES[event_type] for event_type in event_types]
    assert sorted([row["event"] for row in metrics + samples]) == sorted(recorded)
    assert metrics[-1]["valid_perplexity"] == events[-1].valid_perplexity
    model = load_model(job.run.path)
    assert model.decoder.tokenizer == job.dataset.tokenizer
    assert model.started.corpus_sha256 == job.dataset.corpus.sha256
    assert summarize_run(job.run.path).state == "finished"


def test_a_failure_is_recorded_and_raised(small_csv, tmp_path):
    job = prepare_job(small_config(small_csv, lr=1000.0, clip=0.0, optimizer="sgd", epochs=3), "mine", tmp_path)
    message = (
        r"the loss is (nan|inf) at step \d+, likely because gradients are not clipped; "
        r"try --set clip=1 or --set lr=.*; the best model \(perplexity \d+\.\d\) is saved"
    )
    with pytest.raises(TrainingError, match=message):
        list(job.events(lambda: False))
    assert len(load_model(job.run.path).decoder.tokenizer) == len(job.dataset.tokenizer)
    last = read_strict_rows(job.run.path / "metrics.jsonl")[-1]
    assert last["event"] == "failed"
    assert "lr=" in last["message"]
    assert "Traceback" in last["details"]
    assert summarize_run(job.run.path).state == "failed"


def test_problems_of_other_readers_are_recorded_as_warnings(small_csv, tmp_path):
    job, problems = prepare_job(small_config(small_csv), "mine", tmp_path), [["the tracker is gone"]]
    list(job.events(lambda: True, lambda: problems.pop() if problems else []))
    rows = read_strict_rows(job.run.path / "metrics.jsonl")
    assert [row["message"] for row in rows if row["event"] == "warned"] == ["the tracker is gone"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("option", "was started with lr=.* and cannot be resumed with lr=0.5; omit that option"),
        ("corpus", r"small\.csv has changed since run 'mine' was started: its SHA-256 was"),
        ("vocabulary", "the vocabulary of .* has changed since the run was started"),
    ],
)
def test_a_changed_training_is_not_resumed(small_csv, tmp_path, change, message):
    job = prepare_job(small_config(small_csv), "mine", tmp_path / "runs")
    list(job.events(lambda: True))
    if change == "corpus":
        small_csv.write_text(small_csv.read_text().replace("seven lanterns", "eight lanterns"))
    elif change == "vocabulary":
        tokens = ["<unk>", "<eos>", "zorblax", *job.dataset.tokenizer.tokens[3:]]
        (job.run.path / "vocabulary.json").write_text(json.dumps(tokens))
    changes = {"lr": 0.5} if change == "option" else {}
    with pytest.raises(RunError, match=message):
        resume_job("mine", tmp_path / "runs", lambda config: config.with_values(**changes))


@pytest.mark.slow
def test_the_tiny_preset_beats_kneser_ney_on_the_real_dialogues(lotr_csv, tmp_path):
    config = PRESETS["tiny"].with_values(corpus=str(lotr_csv), mode="stream", threads=1)
    events = list(prepare_job(config, None, tmp_path).events(lambda: False))
    started = next(event for event in events if isinstance(event, Started))
    assert events[-1].valid_perplexity < 88 < started.kneser_ney_perplexity
    assert events[-1].test_perplexity < started.unigram_perplexity / 1.6
