"""The on-disk cache of large corpora: equal to a dataset in memory, reused, and rebuilt when it is damaged."""

import os
from dataclasses import replace

import numpy as np
import pytest

from engine.config import DataConfig
from engine.data import arrays, file_scan, lines, preparation
from engine.data.dataset import load_dataset, summarize_dataset
from engine.errors import CorpusError
from engine.models.pretrained.tokenizer import PretrainedTokenizer
from engine.storage.files import cache_dir
from tests.support.files import no_file_longer_than, write_sparse_file
from tests.support.pretrained import SPECIALS, VOCABULARY_SIZE, new_backend


def dataset_content(dataset):
    """Return all parts of a dataset in a form that can be compared with `==`."""
    arrays = (
        *(dataset.train, dataset.valid, dataset.test, dataset.train_punctuation),
        *(dataset.train_lines.offsets, dataset.train_scene_offsets, dataset.corpus.lines.scene_ids),
    )
    lines = (
        dataset.splits.train, dataset.splits.valid, dataset.splits.test, dataset.train_source_lines,
        dataset.corpus.lines,
    )  # fmt: skip
    facts = [dataset.tokenizer, dataset.mode, dataset.stats, replace(dataset.corpus, lines=None)]
    return [*(array.tolist() for array in arrays), *(list(part) for part in lines), *facts, summarize_dataset(dataset)]


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def small_limits(monkeypatch):
    """Lower all limits, so that a small corpus is cached on disk and processed in many chunks."""
    monkeypatch.setattr(preparation, "CACHE_THRESHOLD_BYTES", 1)
    monkeypatch.setattr(arrays, "CHUNK_SIZE", 50)
    monkeypatch.setattr(arrays, "MAX_IN_MEMORY_BYTES", 64)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 200)
    monkeypatch.setattr(file_scan, "BLOCK_BYTES", 200)


@pytest.fixture
def corpus(small_limits, small_csv):
    return small_csv


def cache_entries():
    folder = cache_dir()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(("mode", "tokenizer"), [("line", "words"), ("stream", "characters"), ("dialogue", "bpe")])
def test_a_cached_dataset_equals_one_in_memory_and_is_reused(small_csv, mode, tokenizer, request):
    config = DataConfig(str(small_csv), mode=mode, tokenizer=tokenizer, scene_lines=7)
    in_memory = dataset_content(load_dataset(config))
    assert cache_entries() == []
    request.getfixturevalue("small_limits")
    for _ in range(2):
        assert dataset_content(load_dataset(config)) == in_memory
        assert len(cache_entries()) == 1


def test_a_changed_file_setting_or_vocabulary_has_its_own_cache_entry(corpus):
    config = DataConfig(str(corpus), mode="dialogue", tokenizer="bpe", vocabulary_size=300)
    before, times = load_dataset(config), corpus.stat()
    larger = load_dataset(replace(config, vocabulary_size=320)).tokenizer
    assert len(larger) > len(before.tokenizer)
    assert load_dataset(config, larger).tokenizer == larger
    others = PretrainedTokenizer(new_backend().to_str(), VOCABULARY_SIZE, SPECIALS)
    assert load_dataset(replace(config, tokenizer="pretrained"), others).tokenizer == others
    word = before.corpus.lines[0].text.split()[0]
    corpus.write_bytes(corpus.read_bytes().replace(word.encode(), word[::-1].encode(), 1))
    os.utime(corpus, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_dataset(config).corpus.lines[0].text.split()[0] == word[::-1]
    for seed in range(6):
        load_dataset(replace(config, split_seed=seed))
    assert len(cache_entries()) == preparation.MAX_CACHE_ENTRIES


def test_an_unwritable_or_full_disk_is_reported_and_leaves_no_entry(corpus, home):
    with no_file_longer_than(200), pytest.raises(CorpusError, match=r"cannot be cached in .*File too large"):
        load_dataset(DataConfig(str(corpus)))
    assert not cache_entries()
    cache_dir().rmdir()
    home.rmdir()
    home.write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match=r"cannot be cached in .*LOTR_TUI_HOME"):
        load_dataset(DataConfig(str(corpus)))


def set_element(name, dtype, value, index=-1):
    def damage(folder):
        array = np.fromfile(folder / name, dtype)
        array[index] = value
        array.tofile(folder / name)

    return damage


DAMAGES = {
    "truncated": lambda folder: os.truncate(folder / "punctuation", 5),
    "missing file": lambda folder: (folder / "text").unlink(),
    "no JSON": lambda folder: (folder / "metadata.json").write_bytes(b"{"),
    "gigabytes": lambda folder: write_sparse_file(folder / "metadata.json"),
    "no vocabulary": lambda folder: (folder / "tokenizer.json").write_bytes(b"{}"),
    "id": set_element("ids", np.int32, 1_000_000, 3), "line index": set_element("split_indices", np.int32, 10**6),
    "line offset": set_element("train_line_offsets", np.int64, -(2**40)),
    "text offset": set_element("offsets", np.int64, 2**40, 5), "speaker": set_element("speaker_ids", np.int32, 99),
    "scene offset": set_element("train_scene_offsets", np.int64, 3, 1),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_entry_is_rebuilt(corpus, damage):
    config = DataConfig(str(corpus), mode="dialogue", tokenizer="bpe", vocabulary_size=300)
    before = dataset_content(load_dataset(config))
    (folder,) = cache_entries()
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES[damage](folder)
    assert dataset_content(load_dataset(config)) == before
    assert cache_entries() == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == intact
