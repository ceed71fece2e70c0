"""Training jobs: checks of the input, the run directory, and recorded events."""

import json
import shutil
import sys

import pytest

from engine.config import Config
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import ConfigError, CorpusError, RunError, TrainingError
from engine.events import Checkpointed, Evaluated, Finished, Preparing, Sampled, Started, Step, event_name
from engine.presets import get_preset
from engine.runs.loading import load_model
from engine.runs.summary import summarize_run
from engine.training.job import prepare_job


def small_config(path, **values):
    sizes = {"embedding_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 10, "bptt": 20, "threads": 1}
    return Config("tiny").with_values(corpus=str(path), **{**sizes, **values})


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestNewRun:
    def test_creates_the_run_with_configuration_and_vocabulary(self, small_csv, home):
        job = prepare_job(small_config(small_csv), "mine")
        assert job.run.path == home / "runs" / "mine"
        assert Config.from_json((job.run.path / "config.json").read_text(), "") == job.config
        assert WordTokenizer.from_json((job.run.path / "vocabulary.json").read_text(), "") == job.dataset.tokenizer

    def test_the_run_is_locked_while_it_is_open(self, small_csv, home):
        job = prepare_job(small_config(small_csv), "mine")
        assert summarize_run(job.run.path).state == "running"
        job.run.lock.release()
        assert summarize_run(job.run.path).state == "crashed"

    def test_a_run_without_a_name_gets_a_unique_name_from_the_preset(self, small_csv, home):
        names = {prepare_job(small_config(small_csv)).run.name for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("tiny-") for name in names)

    def test_the_run_is_created_in_runs_dir(self, small_csv, home, tmp_path):
        job = prepare_job(small_config(small_csv), "mine", tmp_path / "a" / "b")
        assert job.run.path == tmp_path / "a" / "b" / "mine"
        assert not home.exists()

    def test_the_path_of_the_corpus_becomes_absolute(self, small_csv, home, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert prepare_job(small_config("small.csv")).config.data.corpus == str(small_csv.resolve())

    def test_a_tilde_in_the_path_is_expanded(self, small_csv, home, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert prepare_job(small_config("~/small.csv")).config.data.corpus == str(small_csv)

    def test_the_bundled_corpus_keeps_its_name(self, home):
        assert prepare_job(Config("tiny"), "mine").config.data.corpus == "bundled"


class TestRefusals:
    def test_a_missing_corpus_creates_no_run(self, home, tmp_path):
        with pytest.raises(CorpusError):
            prepare_job(small_config(tmp_path / "none.csv"))
        assert not home.exists()

    def test_a_batch_larger_than_the_corpus_creates_no_run(self, small_csv, home):
        with pytest.raises(ConfigError, match=r"batch_size=5000 is too large: [\d,]+ training tokens"):
            prepare_job(small_config(small_csv, batch_size=5000))
        assert not home.exists()

    def test_the_largest_batch_in_the_error_is_accepted(self, small_csv, home):
        tokens = len(prepare_job(small_config(small_csv)).dataset.train)
        prepare_job(small_config(small_csv, batch_size=tokens // 2))
        with pytest.raises(ConfigError):
            prepare_job(small_config(small_csv, batch_size=tokens // 2 + 1))

    def test_an_existing_run_is_not_overwritten(self, small_csv, home):
        first = prepare_job(small_config(small_csv), "mine")
        before = (first.run.path / "config.json").read_bytes()
        with pytest.raises(RunError, match="'mine' exists"):
            prepare_job(small_config(small_csv, epochs=2), "mine")
        assert (first.run.path / "config.json").read_bytes() == before

    @pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/abs", "-x", ".hidden", "a b", "x" * 101, "a\n"])
    def test_an_invalid_run_name_is_refused(self, small_csv, home, name):
        with pytest.raises(RunError, match="run name"):
            prepare_job(small_config(small_csv), name)
        assert not home.exists()

    @pytest.mark.parametrize("below", ["", "runs"])
    def test_a_runs_dir_that_cannot_be_created_is_refused(self, small_csv, home, below):
        with pytest.raises(RunError, match=r"small\.csv.* cannot be written"):
            prepare_job(small_config(small_csv), "mine", small_csv / below)


class TestTraining:
    def test_all_events_are_yielded_and_recorded(self, small_csv, home):
        job = prepare_job(small_config(small_csv), "mine")
        events = list(job.events(lambda: False))

        event_types = [type(event) for event in events]
        assert event_types[0] is Preparing
        assert event_types[-1] is Finished
        assert {Started, Step, Evaluated, Sampled, Checkpointed} <= set(event_types)
        finished = events[-1]
        assert finished.reason == "done"
        assert finished.valid_perplexity == min(e.valid_perplexity for e in events if isinstance(e, Evaluated))

        metrics = read_rows(job.run.path / "metrics.jsonl")
        recorded = [event_name(event_type) for event_type in event_types]
        assert sorted([row["event"] for row in metrics] + ["sampled"] * event_types.count(Sampled)) == sorted(recorded)
        assert metrics[-1]["valid_perplexity"] == finished.valid_perplexity
        assert len(read_rows(job.run.path / "samples.jsonl")) == event_types.count(Sampled)

        model = load_model(job.run.path)
        assert model.decoder.tokenizer == job.dataset.tokenizer
        assert model.corpus_sha256 == job.dataset.corpus.sha256
        assert summarize_run(job.run.path).state == "finished"

    def test_a_cancelled_training_stops_and_saves_a_model(self, small_csv, home):
        job = prepare_job(small_config(small_csv, epochs=50), "mine")
        events = list(job.events(lambda: True))
        assert events[-1].reason == "stopped"
        assert summarize_run(job.run.path).state == "stopped"
        load_model(job.run.path)

    @pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have the device that this test needs to be missing")
    def test_a_missing_device_is_refused_before_the_run_is_created(self, small_csv, home):
        with pytest.raises(ConfigError, match="mps"):
            prepare_job(small_config(small_csv, device="mps"), "mine")
        assert not (home / "runs").exists()

    def test_a_failure_is_recorded_and_raised(self, small_csv, home):
        job = prepare_job(small_config(small_csv, lr=1000.0, clip=0.0, optimizer="sgd", epochs=3), "mine")
        message = (
            r"the loss is (nan|inf) at step \d+, likely because gradients are not clipped; "
            r"try --set clip=1 or --set lr=.*; the best model \(perplexity \d+\.\d\) is saved"
        )
        with pytest.raises(TrainingError, match=message):
            list(job.events(lambda: False))
        assert len(load_model(job.run.path).decoder.tokenizer) == len(job.dataset.tokenizer)
        last = read_rows(job.run.path / "metrics.jsonl")[-1]
        assert last["event"] == "failed"
        assert "lr=" in last["message"]
        assert "Traceback" in (job.run.path / "log.txt").read_text()
        assert summarize_run(job.run.path).state == "failed"

    def test_the_tiny_preset_beats_kneser_ney_on_the_real_dialogues(self, lotr_csv, home):
        config = get_preset("tiny").with_values(corpus=str(lotr_csv), mode="stream", threads=1)
        events = list(prepare_job(config).events(lambda: False))
        started = next(event for event in events if isinstance(event, Started))
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.valid_perplexity < 88 < started.kneser_ney_perplexity
        assert finished.test_perplexity < started.unigram_perplexity / 1.6

    def test_a_deleted_run_directory_is_an_error(self, small_csv, home):
        job = prepare_job(small_config(small_csv), "mine")
        shutil.rmtree(job.run.path)
        with pytest.raises(RunError, match="mine cannot be written"):
            list(job.events(lambda: False))
