import json
import shutil
import sys

import pytest

from engine.config import Config, preset
from engine.data.vocabulary import Vocabulary
from engine.errors import ConfigError, CorpusError, RunError, TrainingError
from engine.events import Checkpointed, Evaluated, Finished, Preparing, Sampled, Started, Step
from engine.runs import store
from engine.training.job import prepare_job


def small(path, **values):
    sizes = {"embedding_size": 8, "hidden_size": 8, "epochs": 1, "batch_size": 10, "window": 20, "threads": 1}
    return Config("tiny").with_values(corpus=str(path), **{**sizes, **values})


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestPreparing:
    def test_makes_the_run_with_all_that_is_known(self, small_csv, home):
        job = prepare_job(small(small_csv), "mine")
        assert job.run.path == home / "runs" / "mine"
        assert Config.from_json((job.run.path / "config.json").read_text(), "") == job.config
        assert Vocabulary.from_json((job.run.path / "vocabulary.json").read_text(), "") == job.dataset.vocabulary

    def test_the_run_is_locked_as_long_as_it_is_written(self, small_csv, home):
        job = prepare_job(small(small_csv), "mine")
        assert store.summarize(job.run.path).state == "running"
        job.run.lock.close()
        assert store.summarize(job.run.path).state == "crashed"

    def test_without_a_name_it_is_called_after_the_preset_and_never_taken(self, small_csv, home):
        names = {prepare_job(small(small_csv)).run.name for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("tiny-") for name in names)

    def test_another_folder(self, small_csv, home, tmp_path):
        job = prepare_job(small(small_csv), "mine", tmp_path / "a" / "b")
        assert job.run.path == tmp_path / "a" / "b" / "mine"
        assert not home.exists()

    def test_the_corpus_is_found_again_from_any_folder(self, small_csv, home, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert prepare_job(small("small.csv")).config.data.corpus == str(small_csv.resolve())

    def test_a_home_directory_is_understood(self, small_csv, home, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert prepare_job(small("~/small.csv")).config.data.corpus == str(small_csv)

    def test_the_bundled_corpus_keeps_its_name(self, home):
        assert prepare_job(Config("tiny"), "mine").config.data.corpus == "bundled"


class TestRefusals:
    def test_a_missing_corpus_leaves_nothing(self, home, tmp_path):
        with pytest.raises(CorpusError):
            prepare_job(small(tmp_path / "none.csv"))
        assert not home.exists()

    def test_a_batch_larger_than_the_corpus_leaves_nothing(self, small_csv, home):
        with pytest.raises(ConfigError, match=r"batch_size=5000 is too large: [\d,]+ training tokens"):
            prepare_job(small(small_csv, batch_size=5000))
        assert not home.exists()

    def test_the_largest_batch_it_names_is_one_it_takes(self, small_csv, home):
        tokens = len(prepare_job(small(small_csv)).dataset.train)
        prepare_job(small(small_csv, batch_size=tokens // 2))
        with pytest.raises(ConfigError):
            prepare_job(small(small_csv, batch_size=tokens // 2 + 1))

    def test_a_name_that_is_taken_keeps_the_first_run(self, small_csv, home):
        first = prepare_job(small(small_csv), "mine")
        before = (first.run.path / "config.json").read_bytes()
        with pytest.raises(RunError, match="'mine' exists"):
            prepare_job(small(small_csv, epochs=2), "mine")
        assert (first.run.path / "config.json").read_bytes() == before

    @pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/abs", "-x", ".hidden", "a b", "x" * 101, "a\n"])
    def test_what_is_no_folder_name(self, small_csv, home, name):
        with pytest.raises(RunError, match="run name"):
            prepare_job(small(small_csv), name)
        assert not home.exists()

    @pytest.mark.parametrize("below", ["", "runs"])
    def test_a_runs_folder_that_cannot_be_made(self, small_csv, home, below):
        with pytest.raises(RunError, match=r"small\.csv.* cannot be written"):
            prepare_job(small(small_csv), "mine", small_csv / below)


class TestTraining:
    def test_tells_and_records_everything(self, small_csv, home):
        job = prepare_job(small(small_csv), "mine")
        events = list(job.events(lambda: False))

        kinds = [type(event) for event in events]
        assert kinds[0] is Preparing
        assert kinds[-1] is Finished
        assert {Started, Step, Evaluated, Sampled, Checkpointed} <= set(kinds)
        finished = events[-1]
        assert finished.reason == "done"
        assert finished.valid_perplexity == min(e.valid_perplexity for e in events if isinstance(e, Evaluated))

        metrics = rows(job.run.path / "metrics.jsonl")
        recorded = [kind.__name__.lower() for kind in kinds]
        assert sorted([row["event"] for row in metrics] + ["sampled"] * kinds.count(Sampled)) == sorted(recorded)
        assert metrics[-1]["valid_perplexity"] == finished.valid_perplexity
        assert len(rows(job.run.path / "samples.jsonl")) == kinds.count(Sampled)

        model = store.load(job.run.path)
        assert model.decoder.vocabulary == job.dataset.vocabulary
        assert model.corpus_sha256 == job.dataset.corpus.sha256
        assert store.summarize(job.run.path).state == "finished"

    def test_a_cancelled_one_stops_and_keeps_a_model(self, small_csv, home):
        job = prepare_job(small(small_csv, epochs=50), "mine")
        events = list(job.events(lambda: True))
        assert events[-1].reason == "stopped"
        assert store.summarize(job.run.path).state == "stopped"
        store.load(job.run.path)

    @pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have the device that must be missing here")
    def test_a_missing_device_is_told_before_anything_is_written(self, small_csv, home):
        with pytest.raises(ConfigError, match="mps"):
            prepare_job(small(small_csv, device="mps"), "mine")
        assert not (home / "runs").exists()

    def test_a_failure_is_recorded_and_raised(self, small_csv, home):
        job = prepare_job(small(small_csv, lr=1000.0, clip=0.0, optimizer="sgd", epochs=3), "mine")
        said = (
            r"the loss is (nan|inf) at update \d+, likely because gradients are not clipped; "
            r"try --set clip=1 or --set lr=.*; the best model, of perplexity \d+\.\d, is kept"
        )
        with pytest.raises(TrainingError, match=said):
            list(job.events(lambda: False))
        assert len(store.load(job.run.path).decoder.vocabulary) == len(job.dataset.vocabulary)
        last = rows(job.run.path / "metrics.jsonl")[-1]
        assert last["event"] == "failed"
        assert "lr=" in last["message"]
        assert "Traceback" in (job.run.path / "log.txt").read_text()
        assert store.summarize(job.run.path).state == "failed"

    def test_the_tiny_preset_passes_kneser_ney_on_the_real_dialogues(self, lotr_csv, home):
        config = preset("tiny").with_values(corpus=str(lotr_csv), mode="stream", threads=1)
        events = list(prepare_job(config).events(lambda: False))
        started = next(event for event in events if isinstance(event, Started))
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.valid_perplexity < 88 < started.kneser_ney_perplexity
        assert finished.test_perplexity < started.unigram_perplexity / 1.6

    def test_a_run_whose_folder_is_gone_fails_without_a_hang(self, small_csv, home):
        job = prepare_job(small(small_csv), "mine")
        shutil.rmtree(job.run.path)
        with pytest.raises(RunError, match="mine cannot be written"):
            list(job.events(lambda: False))
