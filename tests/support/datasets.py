"""Comparison of datasets in tests."""

from dataclasses import replace
from typing import Any

from engine.data.dataset import Dataset, summarize_dataset


def dataset_content(dataset: Dataset) -> list[Any]:
    """Return all parts of a dataset in a form that can be compared with `==`."""
    arrays = (dataset.train, dataset.valid, dataset.test, dataset.train_punctuation, dataset.train_lines.offsets)
    lines = (
        dataset.splits.train,
        dataset.splits.valid,
        dataset.splits.test,
        dataset.train_source_lines,
        dataset.corpus.lines,
    )
    facts = [dataset.vocabulary, dataset.mode, dataset.stats, replace(dataset.corpus, lines=None)]  # type: ignore[arg-type]
    return [*(array.tolist() for array in arrays), *(list(part) for part in lines), *facts, summarize_dataset(dataset)]
