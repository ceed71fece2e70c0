"""The models that a training keeps along the way: which, that they are the ones, and what may be wrong with them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.perplexity import evaluate
from engine.config import Config, preset
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, TrainingEvent
from engine.models.base import LanguageModel
from engine.models.ngram import Unigram
from engine.models.numpy_lstm import Decoder
from engine.runs import store, writer
from engine.runs.combine import Combiner
from engine.runs.manage import remove
from engine.runs.store import KeptEpoch
from engine.storage import files
from engine.training.job import prepare_job
from tests.conftest import sentences, write_csv
from tests.support.runs import CONFIG, VOCABULARY, decoder, rows

KEEPS = CONFIG.with_values(keep_epochs=True)


def evaluated(epoch: float, best: bool = False) -> Evaluated:
    """An evaluation whose model and perplexity are of that epoch alone."""
    return Evaluated(int(10 * epoch), epoch, 100 - epoch, best, epoch, decoder(int(100 * epoch)))


def write(
    folder: Path, epochs: list[float], config: Config = KEEPS, name: str = "r"
) -> tuple[Path, list[TrainingEvent]]:
    """A run that was evaluated at these epochs, none of them the best but the first; and what it told."""
    run = writer.create(config, VOCABULARY, name, folder)
    events: list[TrainingEvent] = [evaluated(epoch, best=i == 0) for i, epoch in enumerate(epochs)]
    return run.path, list(writer.record(run, iter(events)))


def same_weights(model: LanguageModel | None, other: LanguageModel | None) -> bool:
    assert isinstance(model, Decoder)
    assert isinstance(other, Decoder)
    return model.weights.keys() == other.weights.keys() and all(
        model.weights[name].tobytes() == other.weights[name].tobytes() for name in model.weights
    )


# --- which ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        ([float(epoch) for epoch in range(36)], [1, 2, 4, 8, 16, 32]),
        ([0.0, 0.5, 1.0, 1.5, 2.25, 4.0001, 7.9999, 8.0], [1, 8]),
        ([0.0, 2.0, 4.0, 6.0, 8.0], [2, 4, 8]),
        ([0.0, 3.0, 6.0], []),
        ([1024.0, 65536.0, 65537.0], [1024, 65536]),
    ],
)
def test_the_number_of_epochs_doubles(tmp_path: Path, epochs: list[float], kept: list[int]) -> None:
    path, _ = write(tmp_path, epochs)
    assert {file.name for file in (path / store.EPOCHS).iterdir()} == {f"{epoch}.safetensors" for epoch in kept}
    assert store.kept_epochs(path) == [KeptEpoch(epoch, 100.0 - epoch) for epoch in kept]
    for epoch in kept:
        assert same_weights(store.load(path, epoch).decoder, decoder(100 * epoch))
    assert same_weights(store.load(path).decoder, decoder(int(100 * epochs[0])))


def test_each_file_is_told_and_recorded_once_it_is_there(tmp_path: Path) -> None:
    run = writer.create(KEEPS, VOCABULARY, "r", tmp_path)
    events = writer.record(run, iter([evaluated(0.0, best=True), evaluated(1.0, best=True), evaluated(2.0)]))
    told = []
    for event in events:
        if isinstance(event, Evaluated) and event.epoch:
            assert same_weights(store.load(run.path, int(event.epoch)).decoder, event.model)
        if isinstance(event, Checkpointed):
            assert (run.path / event.file).is_file()
            told.append((event.step, event.file))
    best, one, two = "model.safetensors", "epochs/1.safetensors", "epochs/2.safetensors"
    assert told == [(0, best), (10, best), (10, one), (20, two)]
    recorded = [row for row in rows(run.path / store.METRICS) if row["event"] == "checkpointed"]
    assert [(row["step"], row["file"]) for row in recorded] == told


def test_what_is_no_network_is_not_kept(tmp_path: Path) -> None:
    """Nothing but the weights of an LSTM is what a run can be loaded from."""
    run = writer.create(KEEPS, VOCABULARY, "r", tmp_path)
    counts = Unigram(np.array([2, 3, 4], np.int32), VOCABULARY)
    events: list[TrainingEvent] = [Evaluated(9, 1.0, 50.0, True, 1.0, counts)]
    assert list(writer.record(run, iter(events))) == events
    assert not (run.path / store.MODEL).exists()
    assert store.kept_epochs(run.path) == []


def test_with_the_setting_off_only_the_best_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, events = write(tmp_path, [0.0, 1.0, 2.0], CONFIG)
    assert not (path / store.EPOCHS).exists()
    assert [event.file for event in events if isinstance(event, Checkpointed)] == [store.MODEL]
    monkeypatch.setattr(
        store, "current_rows", lambda *_, **__: pytest.fail("a record may be long, and says nothing here")
    )
    assert store.kept_epochs(path) == []


def test_the_presets_keep_them_but_where_they_are_large() -> None:
    assert preset("default").training.keep_epochs
    assert preset("tiny").training.keep_epochs
    assert not preset("paper").training.keep_epochs


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({}, [1, 2, 4]), ({"averaging": "ema"}, [1, 2, 4]), ({"evaluate_every": 2}, [2, 4]), ({"keep_epochs": False}, [])],
)
def test_a_training_leaves_the_models_that_its_evaluations_told_of(
    tmp_path: Path, one_thread: None, changes: dict[str, object], kept: list[int]
) -> None:
    corpus = write_csv(tmp_path / "small.csv", sentences(120))
    config = preset("tiny").with_values(corpus=str(corpus), embedding_size=8, epochs=5, threads=1, **changes)
    job = prepare_job(config, "mine", tmp_path / "runs")
    evaluations = [event for event in job.events(lambda: False) if isinstance(event, Evaluated)]
    path = job.run.path
    assert [item.epoch for item in store.kept_epochs(path)] == kept
    for item in store.kept_epochs(path):
        event = next(event for event in evaluations if event.epoch == item.epoch)
        loaded = store.load(path, item.epoch)
        assert same_weights(loaded.decoder, event.model)
        assert loaded.valid_perplexity == item.valid_perplexity == event.valid_perplexity
        measured = evaluate(loaded.decoder, job.dataset.valid).perplexity
        assert measured == pytest.approx(event.valid_perplexity, rel=1e-4)


# --- names ----------------------------------------------------------------------------------------------------


def test_run_at_epoch_is_that_epochs_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = write(tmp_path, [0.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.chdir(tmp_path)
    for name in ("r@2", "latest@2", f"{path}@2", "./r@2", "r@02"):
        loaded = store.load_named(name, tmp_path)
        assert (loaded.name, loaded.path.resolve(), loaded.epoch) == ("r@2", path, 2)
        assert loaded.valid_perplexity == 98.0
        assert same_weights(loaded.decoder, decoder(200))
    best = store.load_named("r", tmp_path)
    assert (best.name, best.epoch, best.valid_perplexity) == ("r", None, 96.0)
    assert same_weights(best.decoder, decoder(0))
    assert store.load_named(None).path == files.assets_folder() / "model"


def test_several_epochs_can_be_combined(tmp_path: Path) -> None:
    write(tmp_path, [0.0, 1.0, 2.0])
    combiner = Combiner([store.load_named(name, tmp_path) for name in ("r@1", "r@2", "r")])
    assert [run.name for run in combiner.runs] == ["r@1", "r@2", "r"]


def test_an_epoch_that_was_not_kept_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    write(tmp_path, [0.0, 1.0, 2.0, 3.0, 4.0])
    for epoch in (0, 3, 8, 999_999_999):
        with pytest.raises(RunError) as caught:
            store.load_named(f"r@{epoch}", tmp_path)
        assert str(caught.value) == f"run 'r' has not kept epoch {epoch}; it has kept 1, 2, 4, and its best model"


def test_a_run_without_epochs_says_so(tmp_path: Path) -> None:
    write(tmp_path, [0.0, 3.0])
    old, _ = write(tmp_path, [0.0, 1.0], CONFIG, "old")
    values = json.loads((old / store.CONFIG).read_text())
    del values["training"]["keep_epochs"]  # as before there was such a setting
    (old / store.CONFIG).write_text(json.dumps(values))
    assert store.load_named("old", tmp_path).valid_perplexity == 99.0
    for name in ("r@1", "old@1", "bundled@1"):
        with pytest.raises(RunError) as caught:
            store.load_named(name, tmp_path)
        run = name.split("@")[0]
        assert str(caught.value) == f"run {run!r} has kept no epochs, so there is no {name}, only its best model"


@pytest.mark.parametrize("name", ["r@", "r@four", "r@-1", "r@1.0", "r@1@2", "@1", "r@ 1", "r@٣", "r@" + "9" * 5000])
def test_what_is_no_epoch_is_one_clear_line(tmp_path: Path, name: str) -> None:
    write(tmp_path, [0.0, 1.0])
    with pytest.raises(RunError, match="is neither in") as caught:
        store.load_named(name, tmp_path)
    assert str(caught.value).isprintable()


def test_a_run_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, [0.0, 1.0], name="alpha")
    with pytest.raises(RunError, match=r"'alhpa' is neither in .* did you mean alpha"):
        store.load_named("alhpa@1", tmp_path)


def test_no_run_can_be_called_as_an_epoch_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no folder name"):
        writer.create(KEEPS, VOCABULARY, "r@4", tmp_path)


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 8, 100, -1])
def test_a_damaged_epoch_is_refused_by_its_file_and_the_best_still_plays(tmp_path: Path, keep: int) -> None:
    path, _ = write(tmp_path, [0.0, 1.0, 2.0])
    file = store.epoch_file(path, 2)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"epochs/2\.safetensors"):
        store.load(path, 2)
    store.load(path)
    store.load(path, 1)


def test_an_epoch_of_another_network_is_refused_by_its_file(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [0.0, 1.0])
    shutil.copy(files.assets_folder() / "model" / store.MODEL, store.epoch_file(path, 1))
    with pytest.raises(RunError, match=r"epochs/1\.safetensors: .* none of this configuration"):
        store.load(path, 1)


def test_what_else_lies_there_is_no_epoch(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [0.0, 1.0])
    store.epoch_file(path, 1).rename(store.epoch_file(path, 4))  # of which the record knows nothing
    for name in ("04.safetensors", "0.safetensors", "x.safetensors", ".2.safetensors.half", "٣.safetensors", "7.txt"):
        (path / store.EPOCHS / name).write_bytes(b"")
    assert store.kept_epochs(path) == [KeptEpoch(4, None)]
    assert store.load(path, 4).valid_perplexity is None
    assert store.kept_epochs(tmp_path / "nowhere") == []


def test_a_full_disk_fails_the_training_and_leaves_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def events() -> Iterator[TrainingEvent]:
        yield evaluated(0.0, best=True)
        yield evaluated(1.0)
        monkeypatch.setattr("os.fsync", full)
        yield evaluated(2.0)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    run = writer.create(KEEPS, VOCABULARY, "r", tmp_path)
    with pytest.raises(RunError, match="No space left"):
        list(writer.record(run, events()))
    assert [file.name for file in (run.path / store.EPOCHS).iterdir()] == ["1.safetensors"]
    assert store.summarize(run.path).state == "failed"


# --- the list, and removing -----------------------------------------------------------------------------------


def test_an_epoch_half_written_by_who_was_killed_is_removed(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [1.0, 2.0])
    epochs = path / store.EPOCHS
    (epochs / ".2.safetensors.x7").write_bytes(b"hal")
    writer.reopen(path).lock.close()
    assert sorted(file.name for file in epochs.iterdir()) == ["1.safetensors", "2.safetensors"]


def test_they_count_in_the_size_of_the_run_and_are_removed_with_it(tmp_path: Path) -> None:
    path, _ = write(tmp_path, [0.0, 1.0, 2.0])
    alone, _ = write(tmp_path, [0.0, 1.0, 2.0], CONFIG, "alone")
    size = store.epoch_file(path, 1).stat().st_size
    assert size > 1000
    assert abs(store.summarize(path).bytes - store.summarize(alone).bytes - 2 * size) < 500  # their rows and log lines
    remove(path, tmp_path)
    assert not path.exists()
    assert alone.exists()
