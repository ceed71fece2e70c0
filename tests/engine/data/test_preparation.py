"""The on-disk cache of large corpora: equal to a dataset in memory, reused, and rebuilt when damaged."""

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import DataConfig
from engine.data import arrays, build, file_scan, lines, preparation
from engine.data.dataset import load_dataset
from engine.data.encoding import DataMode
from engine.errors import CorpusError
from engine.storage.files import cache_dir
from engine.training.batches import WindowReader
from tests.support.datasets import dataset_content
from tests.support.file_limits import no_file_longer_than
from tests.support.training import make_config


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower all limits, so that a small corpus is cached on disk and processed in many chunks."""
    monkeypatch.setattr(preparation, "CACHE_THRESHOLD_BYTES", 1)
    monkeypatch.setattr(arrays, "CHUNK_SIZE", 50)
    monkeypatch.setattr(arrays, "MAX_IN_MEMORY_BYTES", 64)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 200)
    monkeypatch.setattr(file_scan, "BLOCK_BYTES", 200)


def cache_entries() -> list[Path]:
    folder = cache_dir()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("tokenizer", ["words", "characters"])
@pytest.mark.parametrize("mode", ["line", "stream", "dialogue"])
def test_cached_dataset_equals_one_in_memory(
    small_csv: Path, mode: DataMode, tokenizer: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    config = DataConfig(str(small_csv), mode=mode, tokenizer=tokenizer, scene_lines=7)  # type: ignore[arg-type]
    in_memory = dataset_content(load_dataset(config))
    assert cache_entries() == []
    request.getfixturevalue("small_limits")
    assert dataset_content(load_dataset(config)) == in_memory
    assert len(cache_entries()) == 1
    monkeypatch.setattr(build, "TokenizedCorpus", None)  # so that building it again would fail
    assert dataset_content(load_dataset(config)) == in_memory


@pytest.mark.usefixtures("small_limits")
def test_a_script_and_its_marks_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "script.txt"
    path.write_text("SAM: the old mill\nFRODO (V.O.): the old road\nSAM: more\nOF IT: all\n\n" * 50)
    config = DataConfig(str(path), "text", mode="dialogue", min_characters=-1, split="scenes")
    built = load_dataset(config)
    monkeypatch.setattr(build, "TokenizedCorpus", None)
    assert dataset_content(load_dataset(config)) == dataset_content(built)
    assert dict(built.corpus.marks) == {"VOICE OVER": 50}
    assert built.tokenizer.cast == ("SAM", "FRODO", "OF IT", "SOMEONE")


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("tokenizer", ["words", "characters"])
def test_another_cast_has_its_own_cache_entry(small_csv: Path, tokenizer: str) -> None:
    config = DataConfig(str(small_csv), mode="dialogue", tokenizer=tokenizer)  # type: ignore[arg-type]
    chosen = load_dataset(config).tokenizer
    for cast in (("SPEAKER1", "SOMEONE"), ("SPEAKER0", "SOMEONE"), (*chosen.cast[::-1][1:], "SOMEONE")):
        earlier = chosen.with_cast(cast)
        for _ in range(2):
            assert load_dataset(config, earlier).tokenizer == earlier
    assert load_dataset(config).tokenizer == chosen
    assert len(cache_entries()) == 4


@pytest.mark.usefixtures("small_limits")
def test_a_corpus_of_three_files_is_cached(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("train", "valid", "test")]
    for number, path in enumerate(paths):
        path.write_text("".join(f"mr. N said <unk> {number} , éh\n" for _ in range(9 + number)))
    names = dict(zip(("corpus", "valid_corpus", "test_corpus"), map(str, paths), strict=True))
    config = DataConfig(**names, corpus_format="text", tokenizer="whitespace", min_characters=0, min_count=1)
    built, loaded = load_dataset(config), load_dataset(config)
    assert dataset_content(built) == dataset_content(loaded)
    assert built.tokenizer.decode(built.train[:7]) == "mr. N said <unk> 0 , éh"
    assert (len(built.splits.train), len(built.splits.valid), len(built.splits.test)) == (9, 10, 11)


@pytest.mark.usefixtures("small_limits")
def test_a_change_that_keeps_size_and_modification_time_is_noticed(small_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_bytes(small_csv.read_bytes())
    before, times = load_dataset(DataConfig(corpus=str(path))), path.stat()
    first_word = before.corpus.lines[0].text.split()[0]
    path.write_bytes(path.read_bytes().replace(first_word.encode(), first_word[::-1].encode(), 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert load_dataset(DataConfig(corpus=str(path))).corpus.lines[0].text.split()[0] == first_word[::-1]


@pytest.mark.usefixtures("small_limits")
def test_a_changed_file_or_setting_has_its_own_cache_entry(small_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_bytes(small_csv.read_bytes())
    config = DataConfig(corpus=str(path))
    before = load_dataset(config)
    assert len(load_dataset(replace(config, min_count=40)).tokenizer) < len(before.tokenizer)
    path.write_bytes(small_csv.read_bytes() + b'SAM,"And this is one line more than there was, my friend"\n')
    assert len(load_dataset(config).corpus.lines) == len(before.corpus.lines) + 1
    os.utime(path, ns=(1, 1))
    load_dataset(config)
    assert len(cache_entries()) == 4


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("damage", ["truncated", "missing file", "no JSON", "invalid id", "other JSON"])
def test_a_damaged_cache_entry_is_rebuilt(small_csv: Path, damage: str) -> None:
    config = DataConfig(corpus=str(small_csv))
    intact = dataset_content(load_dataset(config))
    (folder,) = cache_entries()
    if damage == "truncated":
        os.truncate(folder / "punctuation", 5)
    elif damage == "missing file":
        (folder / "text").unlink()
    elif damage == "invalid id":
        ids = np.fromfile(folder / "ids", np.int32)
        ids[3] = 1_000_000
        ids.tofile(folder / "ids")
    else:
        (folder / "metadata.json").write_text("[]" if damage == "other JSON" else "{")
    assert dataset_content(load_dataset(config)) == intact
    assert cache_entries() == [folder]
    assert dataset_content(load_dataset(config)) == intact


@pytest.mark.usefixtures("small_limits")
def test_only_the_most_recently_used_entries_are_kept(small_csv: Path) -> None:
    for seed in range(6):
        load_dataset(DataConfig(corpus=str(small_csv), split_seed=seed))
        newest_first = sorted(cache_entries(), key=lambda folder: -folder.stat().st_mtime_ns)
        for age, folder in enumerate(newest_first):
            os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    assert len(cache_entries()) == preparation.MAX_CACHE_ENTRIES
    assert not any(folder.name.startswith(".") for folder in cache_entries())


@pytest.mark.usefixtures("small_limits")
def test_an_entry_that_disappears_during_eviction_is_ignored(small_csv: Path, tmp_path: Path) -> None:
    cache_dir().mkdir(parents=True)
    for name in ("entry of another process", ".temporary"):
        (cache_dir() / name).symlink_to(tmp_path / "missing")
    assert load_dataset(DataConfig(corpus=str(small_csv))).corpus.num_rows == 120
    assert any(folder.is_dir() for folder in cache_entries())


@pytest.mark.usefixtures("small_limits")
def test_a_corpus_whose_metadata_is_too_large_is_kept_in_memory(
    small_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(corpus=str(small_csv))
    before = dataset_content(load_dataset(config))
    monkeypatch.setattr(preparation, "MAX_JSON_BYTES", 10)
    assert dataset_content(load_dataset(config)) == before


@pytest.mark.usefixtures("small_limits")
def test_error_for_an_unwritable_cache_says_what_to_do(small_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match=r"cannot be cached in .*LOTR_TUI_HOME"):
        load_dataset(DataConfig(corpus=str(small_csv)))


@pytest.mark.usefixtures("small_limits")
def test_an_entry_is_synced_to_disk_before_it_gets_its_name(small_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut, files without sync have the right size but no content."""
    synced: list[str] = []

    def record_sync(path: Path) -> None:
        if all(folder.name.startswith(".") for folder in cache_entries()):
            synced.append(path.name)

    monkeypatch.setattr(preparation, "fsync_path", record_sync)
    load_dataset(DataConfig(corpus=str(small_csv)))
    (folder,) = cache_entries()
    assert sorted(synced) == sorted(["entry", *(file.name for file in folder.iterdir())])


@pytest.mark.usefixtures("small_limits")
def test_a_full_disk_leaves_no_partial_entry(small_csv: Path) -> None:
    with no_file_longer_than(200), pytest.raises(CorpusError, match=r"cannot be cached in .*File too large"):
        load_dataset(DataConfig(corpus=str(small_csv)))
    assert not cache_entries()


@pytest.mark.usefixtures("small_limits")
def test_an_unusable_corpus_leaves_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("only one line of some length\n")
    with pytest.raises(CorpusError, match="cannot be split"):
        load_dataset(DataConfig(corpus=str(path), corpus_format="text"))
    assert cache_entries() == []


def test_too_large_a_vocabulary_is_refused(small_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MAX_VOCABULARY_SIZE", 10)
    with pytest.raises(CorpusError, match="use --set min_count=4 or more"):
        load_dataset(DataConfig(corpus=str(small_csv)))


@pytest.mark.usefixtures("small_limits")
def test_training_reads_a_cached_corpus_in_the_order_of_lists_of_lines(small_csv: Path) -> None:
    """The lines are permuted in chunks and in a temporary file, since the limits are low."""
    dataset = load_dataset(DataConfig(corpus=str(small_csv)))
    options = make_config(shuffle_lines=True).training
    reader = WindowReader(dataset, options, torch.device("cpu"), lambda ids: None, with_punctuation=True)
    order = list(range(len(dataset.train_lines)))
    rng = random.Random(options.seed)
    rng.shuffle(order)
    shift = rng.randrange(len(dataset.train))
    offsets = dataset.train_lines.offsets
    ids, punctuation = reader.draw_epoch()
    assert punctuation is not None
    for source, permuted in ((dataset.train, ids), (dataset.train_punctuation, punctuation)):
        parts = [source[offsets[i] : offsets[i + 1]] for i in order]
        assert np.array_equal(np.roll(np.concatenate(parts), shift), permuted)


@pytest.mark.parametrize(
    "text", ["вы видели моего пони сегодня утром", "他说我们必须在日落之前离开这个地方", "Ωμέγα abc"]
)
def test_a_text_of_letters_that_the_tokenizer_skips_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(f"{text} 1 2 3\n" * 300)
    config = DataConfig(corpus=str(path), corpus_format="text", min_characters=0)
    with pytest.raises(CorpusError, match=r"are not a to z .*, and the words tokenizer reads no others"):
        load_dataset(config)
    assert len(load_dataset(replace(config, tokenizer="whitespace")).tokenizer) > 3


def test_a_text_with_some_accents_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("Éomer, où est passé le déjeuner préféré\n" * 300)
    assert "est" in load_dataset(DataConfig(corpus=str(path), corpus_format="text")).tokenizer


def test_endless_words_are_never_part_of_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(f"the longest {'a' * 1000} and {'b' * 1001} words\n" * 50)
    for tokenizer in ("words", "whitespace"):
        config = DataConfig(corpus=str(path), corpus_format="text", tokenizer=tokenizer)  # type: ignore[arg-type]
        tokens = load_dataset(config).tokenizer.tokens
        assert tokens == ("<unk>", "<eos>", "the", "longest", "a" * 1000, "and", "words")
