"""A large corpus, kept in files: the same as one in memory, made once, and never believed where it is damaged."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DataConfig
from engine.data import arrays, corpus, lines, preparation
from engine.data.dataset import Dataset, prepare, summarize
from engine.errors import CorpusError
from engine.storage.files import cache_folder
from tests.support.file_limits import no_file_longer_than


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large, and worked on in many pieces."""
    monkeypatch.setattr(preparation, "LARGE_BYTES", 1)
    monkeypatch.setattr(arrays, "PIECE", 50)
    monkeypatch.setattr(arrays, "LARGEST_IN_MEMORY", 64)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 200)
    monkeypatch.setattr(corpus, "BLOCK_BYTES", 200)


def parts_of(dataset: Dataset) -> list[Any]:
    arrays = (dataset.train, dataset.valid, dataset.test, dataset.train_pauses, dataset.train_lines.bounds)
    splits = (dataset.split.train, dataset.split.valid, dataset.split.test, dataset.train_sources, dataset.corpus.lines)
    facts = [dataset.vocabulary, dataset.mode, dataset.facts, replace(dataset.corpus, lines=None), summarize(dataset)]  # type: ignore[arg-type]
    return [*(its.tolist() for its in arrays), *(list(its) for its in splits), *facts]


def kept() -> list[Path]:
    folder = cache_folder()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_kept_in_files_it_is_the_same(
    small_csv: Path, mode: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    config = DataConfig(corpus=str(small_csv), mode=mode)
    in_memory = parts_of(prepare(config))
    assert kept() == []
    request.getfixturevalue("large")
    assert parts_of(prepare(config)) == in_memory
    assert len(kept()) == 1
    monkeypatch.setattr(preparation, "_make", None)  # the second time nothing is made
    assert parts_of(prepare(config)) == in_memory


@pytest.mark.usefixtures("large")
def test_three_files_are_kept_as_well(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("train", "valid", "test")]
    for number, path in enumerate(paths):
        path.write_text("".join(f"mr. N said <unk> {number} , éh\n" for _ in range(9 + number)))
    names = dict(zip(("corpus", "valid_corpus", "test_corpus"), map(str, paths), strict=True))
    config = DataConfig(**names, corpus_format="text", tokenizer="spaces", min_characters=0, min_count=1)
    first, again = prepare(config), prepare(config)
    assert parts_of(first) == parts_of(again)
    assert first.vocabulary.decode(first.train[:7]) == "mr. N said <unk> 0 , éh"
    assert (len(first.split.train), len(first.split.valid), len(first.split.test)) == (9, 10, 11)


@pytest.mark.usefixtures("large")
def test_another_file_or_option_is_another_outcome(small_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_bytes(small_csv.read_bytes())
    config = DataConfig(corpus=str(path))
    before = prepare(config)
    assert len(prepare(replace(config, min_count=40)).vocabulary) < len(before.vocabulary)
    path.write_bytes(small_csv.read_bytes() + b'SAM,"And this is one line more than there was, my friend"\n')
    assert len(prepare(config).corpus.lines) == len(before.corpus.lines) + 1
    os.utime(path, ns=(1, 1))
    prepare(config)
    assert len(kept()) == 4


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("damage", ["shorter", "gone", "no JSON", "other ids", "JSON of something else"])
def test_what_is_damaged_is_made_again(small_csv: Path, damage: str) -> None:
    config = DataConfig(corpus=str(small_csv))
    whole = parts_of(prepare(config))
    (folder,) = kept()
    if damage == "shorter":
        os.truncate(folder / "pauses", 5)
    elif damage == "gone":
        (folder / "text").unlink()
    elif damage == "other ids":
        ids = np.fromfile(folder / "ids", np.int32)
        ids[3] = 1_000_000
        ids.tofile(folder / "ids")
    else:
        (folder / "rest.json").write_text("[]" if damage == "JSON of something else" else "{")
    assert parts_of(prepare(config)) == whole
    assert kept() == [folder]
    assert parts_of(prepare(config)) == whole


@pytest.mark.usefixtures("large")
def test_only_the_last_ones_are_kept(small_csv: Path) -> None:
    for seed in range(6):
        prepare(DataConfig(corpus=str(small_csv), split_seed=seed))
        for age, folder in enumerate(sorted(kept(), key=lambda its: -its.stat().st_mtime_ns)):
            os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    assert len(kept()) == preparation.KEPT
    assert not any(folder.name.startswith(".") for folder in kept())


@pytest.mark.usefixtures("large")
def test_an_outcome_that_is_gone_before_it_is_looked_at_is_no_obstacle(small_csv: Path, tmp_path: Path) -> None:
    cache_folder().mkdir(parents=True)
    for name in ("of another process", ".half made"):
        (cache_folder() / name).symlink_to(tmp_path / "gone")
    assert prepare(DataConfig(corpus=str(small_csv))).corpus.rows == 120
    assert any(folder.is_dir() for folder in kept())


@pytest.mark.usefixtures("large")
def test_what_is_too_much_to_be_read_again_is_held_in_memory(small_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(corpus=str(small_csv))
    before = parts_of(prepare(config))
    monkeypatch.setattr(preparation, "MOST_OF_REST", 10)
    assert parts_of(prepare(config)) == before


@pytest.mark.usefixtures("large")
def test_without_room_it_says_what_to_do(small_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match=r"cannot be kept in .*LOTR_TUI_HOME"):
        prepare(DataConfig(corpus=str(small_csv)))


@pytest.mark.usefixtures("large")
def test_what_is_kept_reaches_the_disk_before_it_has_its_name(small_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut leaves files of the right size with nothing in them, which would be read."""
    synced: list[str] = []

    def sync(path: Path) -> None:
        if all(folder.name.startswith(".") for folder in kept()):
            synced.append(path.name)

    monkeypatch.setattr(preparation, "sync", sync)
    prepare(DataConfig(corpus=str(small_csv)))
    (folder,) = kept()
    assert sorted(synced) == sorted(["made", *(file.name for file in folder.iterdir())])


@pytest.mark.usefixtures("large")
def test_a_full_disk_leaves_nothing_that_is_half_made(small_csv: Path) -> None:
    with no_file_longer_than(200), pytest.raises(CorpusError, match=r"cannot be kept in .*File too large"):
        prepare(DataConfig(corpus=str(small_csv)))
    assert not kept()


@pytest.mark.usefixtures("large")
def test_a_wrong_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("only one line of some length\n")
    with pytest.raises(CorpusError, match="cannot be split"):
        prepare(DataConfig(corpus=str(path), corpus_format="text"))
    assert kept() == []


def test_more_words_than_a_model_can_have_are_refused(small_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "MAX_WORDS", 10)
    with pytest.raises(CorpusError, match="use --set min_count=4 or more"):
        prepare(DataConfig(corpus=str(small_csv)))


@pytest.mark.usefixtures("large")
def test_a_training_reads_what_is_kept_as_it_reads_what_is_in_memory(
    small_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch's text, in pieces and in a file without a name, is the one that lists of lines made."""
    import torch

    from engine.training.trainer import Loop
    from tests.support.training import config_of

    dataset = prepare(DataConfig(corpus=str(small_csv)))
    loop = Loop(config_of(pauses=True, shuffle_lines=True), dataset, torch.device("cpu"), 0.0)
    order = list(range(len(dataset.train_lines)))
    chance = type(loop.chance)()
    chance.setstate(loop.chance.getstate())
    chance.shuffle(order)
    first = chance.randrange(len(dataset.train))
    bounds = dataset.train_lines.bounds
    text, pauses = loop._epoch_text()
    assert pauses is not None
    for whole, moved in ((dataset.train, text), (dataset.train_pauses, pauses)):
        lines = [whole[bounds[i] : bounds[i + 1]] for i in order]
        assert np.array_equal(np.roll(np.concatenate(lines), first), moved)
