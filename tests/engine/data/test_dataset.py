"""Datasets: splits, vocabulary, `<eos>` and the summary."""

import numpy as np
import pytest

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.summary import summarize_dataset
from engine.data.tokenizers import EOS_ID, UNK_ID, split_words
from engine.errors import ConfigError, CorpusError
from tests.support.references import word_tokenizer


def load(path, **values):
    return load_dataset(DataConfig(corpus=str(path), **values))


def text_file(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


class TestRealDialogues:
    def test_line_mode_has_an_eos_after_every_line_and_stream_mode_one_at_the_end(self, lotr_csv):
        line, stream = load(lotr_csv, mode="line"), load(lotr_csv, mode="stream")
        assert [int(np.sum(ids == EOS_ID)) for ids in (line.train, line.valid, line.test)] == [1315, 164, 165]
        lengths = [len(split_words(each.text)) for each in line.splits.train]
        ends = np.flatnonzero(line.train == EOS_ID)
        assert ends.tolist() == (np.cumsum(lengths) + np.arange(len(lengths))).tolist()
        for ids in (stream.train, stream.valid, stream.test):
            assert np.flatnonzero(ids == EOS_ID).tolist() == [len(ids) - 1]
        assert line.tokenizer == stream.tokenizer
        assert line.train[line.train != EOS_ID].tolist() == stream.train[:-1].tolist()

    def test_summary_counts_the_real_dialogues(self, lotr_csv):
        dataset = load(lotr_csv)
        words = [int(np.sum(ids != EOS_ID)) for ids in (dataset.train, dataset.valid, dataset.test)]
        assert words == [19_021, 2_226, 2_368]
        assert len(dataset.tokenizer) == 879
        summary = summarize_dataset(dataset)
        assert (summary.num_rows, summary.num_lines, summary.num_tokens) == (2390, 1644, 23_615)
        assert (summary.speakers[0].name, summary.speakers[0].num_lines) == ("GANDALF", 168)
        assert summary.longest_line_tokens == 142
        assert summary.most_frequent[:2] == (("the", 1138), ("you", 620))
        unk_rates = {name: round(part.unk_rate, 3) for name, part in summary.splits.items()}
        assert unk_rates == {"train": 0.130, "valid": 0.182, "test": 0.170}


class TestGivenSplit:
    """A corpus with separate files for the splits, as Penn Treebank."""

    def load_three_files(self, tmp_path, last="c b"):
        train = text_file(tmp_path / "train.txt", ["a b", "mr. <unk> sold b $ N", "c"])
        valid = text_file(tmp_path / "valid.txt", ["b a zzz"])
        test = text_file(tmp_path / "test.txt", ["a", "", last])
        files = {"corpus_format": "text", "valid_corpus": str(valid), "test_corpus": str(test)}
        return load(train, **files, tokenizer="whitespace", min_characters=0, min_count=1)

    def test_every_line_and_word_in_order(self, tmp_path):
        dataset = self.load_three_files(tmp_path)
        words = dataset.tokenizer
        assert words.decode(dataset.train) == "a b\nmr. <unk> sold b $ N\nc\n"
        assert words.decode(dataset.valid) == "b a <unk>\n"
        assert words.decode(dataset.test) == "a\nc b\n"
        assert set(words.tokens) == {"<unk>", "<eos>", "a", "b", "c", "mr.", "sold", "$", "N"}

    def test_a_missing_file_is_named(self, small_csv, tmp_path):
        for name in ("valid_corpus", "test_corpus"):
            with pytest.raises(ConfigError, match="valid_corpus and test_corpus belong together"):
                load(small_csv, **{name: str(small_csv)})
        with pytest.raises(CorpusError, match=r"nowhere\.csv does not exist"):
            load(small_csv, valid_corpus=str(small_csv), test_corpus=str(tmp_path / "nowhere.csv"))

    def test_penn_treebank_has_its_published_sizes(self, lotr_csv):
        folder = lotr_csv.parent / "ptb"
        if not folder.is_dir():
            pytest.skip("needs the Penn Treebank beside the dialogues")
        train, valid, test = (str(folder / f"ptb.{name}.txt") for name in ("train", "valid", "test"))
        files = {"corpus_format": "text", "valid_corpus": valid, "test_corpus": test}
        dataset = load(train, **files, tokenizer="whitespace", min_characters=0, min_count=1)
        assert len(dataset.tokenizer) == 10_000
        assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [929_589, 73_760, 82_430]
        assert np.sum(dataset.train != EOS_ID) == 887_521


def test_vocabulary_is_built_from_the_training_split_only(small_csv):
    dataset = load(small_csv, min_count=1)
    training = [word for line in dataset.splits.train for word in split_words(line.text)]
    assert dataset.tokenizer == word_tokenizer(training, 1)
    assert UNK_ID not in dataset.train


def test_a_split_without_words_is_an_error(tmp_path):
    lines = ["the old mill is the old mill is the old mill"] * 14 + ["... ... ... ... ... ... ..."] * 6
    path = text_file(tmp_path / "a.txt", lines)
    refused = []
    for seed in range(30):
        try:
            dataset = load(path, corpus_format="text", split_seed=seed)
        except CorpusError as error:
            refused.append(str(error))
        else:
            assert np.any(dataset.valid != EOS_ID)
            assert np.any(dataset.test != EOS_ID)
    assert 0 < len(refused) < 30
    assert all("has no word" in message for message in refused)


def test_a_corpus_of_rare_words_is_an_error(tmp_path):
    path = text_file(tmp_path / "a.txt", [f"word{i}a word{i}b word{i}c word{i}d" for i in range(20)])
    with pytest.raises(CorpusError, match=r"a\.txt: 0 words occur 3 times or more"):
        load(path, corpus_format="text")
    assert len(load(path, corpus_format="text", min_count=1).tokenizer) == 2 + 16 * 4


@pytest.mark.parametrize(("text", "is_read"), [("вы видели пони", False), ("Ωμέγα abc", False), ("déjà vu", True)])
def test_a_text_of_letters_that_the_tokenizer_skips_is_refused(tmp_path, text, is_read):
    path = text_file(tmp_path / "corpus.txt", [f"{text} 1 2 3"] * 300)
    if not is_read:
        with pytest.raises(CorpusError, match=r"are not a to z .*, and the words tokenizer reads no others"):
            load(path, corpus_format="text", min_characters=0)
    tokenizer = "words" if is_read else "whitespace"
    assert len(load(path, corpus_format="text", min_characters=0, tokenizer=tokenizer).tokenizer) > 3


@pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
def test_endless_words_are_never_part_of_the_vocabulary(tmp_path, tokenizer):
    path = text_file(tmp_path / "corpus.txt", [f"the longest {'a' * 1000} and {'b' * 1001} words"] * 50)
    tokens = load(path, corpus_format="text", tokenizer=tokenizer).tokenizer.tokens
    assert tokens == ("<unk>", "<eos>", "the", "longest", "a" * 1000, "and", "words")


@pytest.mark.slow
def test_a_vocabulary_of_over_a_million_words_is_refused_with_the_remedy(tmp_path):
    words = (" ".join(f"w{number}" for number in range(start, start + 10)) for start in range(0, 1_300_000, 10))
    path = text_file(tmp_path / "corpus.txt", words)
    with pytest.raises(CorpusError, match=r"has 1 to 999,998; use .* --set min_count"):
        load(path, corpus_format="text", min_count=1)
