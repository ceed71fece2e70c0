"""Small datasets in tests, and their comparison."""

from dataclasses import replace

from engine.config import DataConfig
from engine.data.dataset import load_dataset, summarize_dataset


def dataset_content(dataset):
    """Return all parts of a dataset in a form that can be compared with `==`."""
    arrays = (
        *(dataset.train, dataset.valid, dataset.test, dataset.train_punctuation),
        *(dataset.train_lines.offsets, dataset.train_scene_offsets, dataset.corpus.lines.scene_ids),
    )
    lines = (
        dataset.splits.train,
        dataset.splits.valid,
        dataset.splits.test,
        dataset.train_source_lines,
        dataset.corpus.lines,
    )
    facts = [dataset.tokenizer, dataset.mode, dataset.stats, replace(dataset.corpus, lines=None)]
    return [*(array.tolist() for array in arrays), *(list(part) for part in lines), *facts, summarize_dataset(dataset)]


def load_rows(tmp_path, lines, **values):
    """Return a dataset whose training split consists of these speakers and lines, in order."""
    for name, rows in (("train", lines), ("valid", [("X", "one more line")]), ("test", [("X", "one more line")])):
        records = "".join(f'{speaker},"{line}"\n' for speaker, line in rows)
        (tmp_path / f"{name}.csv").write_text("char,dialog\n" + records)
    paths = {
        "corpus": str(tmp_path / "train.csv"),
        "valid_corpus": str(tmp_path / "valid.csv"),
        "test_corpus": str(tmp_path / "test.csv"),
    }
    return load_dataset(DataConfig(**{**paths, "min_characters": 0, "min_count": 1, **values}))


def encode_lines(lines, tokenizer):
    """Return the ids of each line that has a token, each encoded alone."""
    return tuple(ids for line in lines if (ids := tokenizer.encode(line.text)).size)
