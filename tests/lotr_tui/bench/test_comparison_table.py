"""Cells of the comparison table: their trainings, measures and the table."""

from pathlib import Path

import numpy as np
import pytest

from engine.analysis.bits_per_character import convert_text, text_bits_per_character
from engine.analysis.perplexity import evaluate
from engine.data.dataset import load_dataset
from engine.models.ngram import KneserNey
from engine.runs.loading import load_model
from lotr_tui.bench import comparison_cells, comparison_table
from lotr_tui.bench.comparison_cells import (
    Cell,
    CellResult,
    TableOptions,
    bits_by_form,
    compute_cell,
    fine_tuning_config,
    list_cells,
    pretraining_config,
    scratch_config,
)
from lotr_tui.bench.playing.playing_speed import PlayingSpeed, load_playable, measure_playing, write_ngram
from lotr_tui.bench.training import budget
from lotr_tui.bench.training.corpora import prepare_dialogues
from tests.support.files import sentences, write_csv, write_run
from tests.support.open_models import character_tokenizer, open_model

TINY_SETTINGS = {
    "embedding_size": 16, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocabulary_size": 300, "min_count": 1,
    "context_size": 16, "bptt": 16, "batch_size": 4, "softmax_samples": 0, "epochs": 1, "threads": 1,
}  # fmt: skip


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableOptions:
    """Options of a table of tiny models on invented text."""
    monkeypatch.setattr(budget, "measure_speed", lambda config, runs_dir: 10.0)
    monkeypatch.setattr(comparison_cells, "measure_playing_in_process", lambda folder: PlayingSpeed(100.0, 50.0))
    tales = tmp_path / "tales.txt"
    tales.write_text("\n".join(sentences(700, seed=1)))
    csv = write_csv(tmp_path / "lines.csv", sentences(400))
    return TableOptions(tmp_path, 2000.0, prepare_dialogues(csv, tmp_path), tales, TINY_SETTINGS)


def test_cells_are_all_combinations_but_n_grams_of_the_tales() -> None:
    cells = list_cells()
    assert len(cells) == len(set(cells)) == 3 * 3 + 2 * 3
    assert len({cell.name(600) for cell in cells}) == 15
    assert [cell.name(600) for cell in cells[::5]] == [
        "ngram-words", "lstm-bpe-scratch-600s", "lstm-characters-pretrained-600s",
    ]  # fmt: skip


@pytest.mark.parametrize("cell", [cell for cell in list_cells() if cell.architecture != "n-gram"], ids=str)
def test_every_configuration_is_valid_and_reads_its_text(cell: Cell, tmp_path: Path) -> None:
    paths = {split: tmp_path / f"{split}.txt" for split in ("train", "valid", "test")}
    options = TableOptions(tmp_path, 600, paths, tmp_path / "tales.txt", {"threads": 1})
    is_transformer = cell.architecture == "Transformer"
    config = pretraining_config(cell, options) if cell.is_pretrained else scratch_config(cell, options)
    assert (config.model.architecture == "transformer") == is_transformer
    assert config.data.tokenizer == cell.tokenizer
    assert config.training.threads == 1
    assert config.data.corpus == str(tmp_path / ("tales.txt" if cell.is_pretrained else "train.txt"))
    assert config.data.test_corpus == ("" if cell.is_pretrained else str(paths["test"]))
    if is_transformer:
        assert config.training.bptt <= config.model.context_size
    if cell.tokenizer != "words":
        assert not config.model.punctuation


@pytest.mark.parametrize("architecture", ["LSTM", "Transformer"])
def test_a_pretrained_cell_is_trained_twice_and_kept(architecture, options: TableOptions, monkeypatch) -> None:
    cell, messages = Cell(architecture, "bpe", is_pretrained=True), list[str]()
    result = compute_cell(cell, options, messages.append)
    name = cell.name(options.seconds)
    base, run = load_model(options.runs_dir / f"{name}-base"), load_model(options.runs_dir / name)
    assert run.config.training.init == f"{name}-base"
    assert run.decoder.tokenizer == base.decoder.tokenizer
    assert base.config.data.corpus == str(options.tales)
    assert len(messages) == 2
    test = options.dialogues["test"].read_text()
    assert result.test["original"] == pytest.approx(text_bits_per_character(run.model, test, "line"))
    assert set(result.test) == set(result.valid) == {"original", "words"}
    assert 0 < result.training_seconds < 600
    monkeypatch.setattr(comparison_cells, "train_within", None)
    assert compute_cell(cell, options, messages.append) == result  # read from its file


def test_fine_tuning_has_the_sizes_of_the_run_it_starts_from(options: TableOptions) -> None:
    cell = Cell("Transformer", "words", is_pretrained=True)
    compute_cell(cell, options, lambda text: None)
    config = fine_tuning_config(cell, options, f"{cell.name(options.seconds)}-base")
    assert (config.model.architecture, config.model.num_heads, config.training.lr) == ("transformer", 2, 0.0005)
    assert config.training.patience > 0


def test_n_grams_are_counted_with_the_order_that_is_best_on_validation(options: TableOptions, monkeypatch) -> None:
    monkeypatch.setattr(comparison_cells, "NGRAM_ORDERS", (1, 2, 3))
    result = compute_cell(Cell("n-gram", "words"), options, lambda text: None)
    model = load_playable(options.runs_dir / "ngram-words")
    assert isinstance(model, KneserNey)
    assert result.description == f"order {model.order}"
    assert result.training_seconds is None
    assert set(result.test) == {"words"}  # a closed vocabulary has no punctuation
    dataset = load_dataset(scratch_config(Cell("LSTM", "words"), options).data)
    perplexities = {
        order: evaluate(KneserNey(dataset.train, dataset.tokenizer, order), dataset.valid).perplexity
        for order in (1, 2, 3)
    }
    assert perplexities[model.order] == min(perplexities.values()) < max(perplexities.values())


def test_bits_per_character_are_those_of_both_forms() -> None:
    text = "The miller carries the green barrels.\nMy old friend forgets.\n"
    model = open_model(character_tokenizer())
    bits = bits_by_form(model, text)
    assert bits["original"] == text_bits_per_character(model, text, "line")
    assert bits["words"] == text_bits_per_character(model, convert_text(text, "words"), "line")


@pytest.mark.parametrize("kind", ["run", "n-grams"])
def test_playing_is_measured(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run")
    tokenizer = load_model(folder).decoder.tokenizer
    if kind == "n-grams":
        folder = tmp_path / "ngrams"
        write_ngram(folder, np.array([4, 5, 6, 7, 8, 1] * 20, np.int32), tokenizer, 3)
    monkeypatch.setattr("lotr_tui.bench.playing.playing_speed.PROMPT", "the road")
    speed = measure_playing(folder, 0.01)
    assert speed.words_per_second > 0
    assert speed.peak_megabytes is None or speed.peak_megabytes > 10


def test_table_has_a_row_per_cell_and_marks_the_best(options: TableOptions, monkeypatch, capsys) -> None:
    results = {
        "ngram-words": CellResult("n-gram", "words", False, "order 4", None, 900, None, {"words": 3}, {"words": 2.5}),
        "lstm-bpe-scratch-2000s": CellResult(
            "LSTM", "bpe", False, "1.2 M", 19.6, 1234.5, 61.2,
            {"words": 2.25, "original": 2.5}, {"words": 2.375, "original": 2.625},
        ),
    }  # fmt: skip
    monkeypatch.setattr(comparison_table, "compute_cell", lambda cell, options, report: results[cell.name(2000)])
    comparison_table.print_table(options, cells=[Cell("n-gram", "words"), Cell("LSTM", "bpe")])
    table = (options.runs_dir / "comparison.md").read_text()
    assert capsys.readouterr().out.endswith(f"{table}")
    header, rule, ngram, lstm = table.splitlines()
    assert header.count("|") == rule.count("|") == ngram.count("|") == lstm.count("|")
    assert ngram == "| n-gram | words | no | order 4 | 3.000 | 2.500 |  |  | 900 |  |  |"
    assert lstm == "| LSTM | bpe | no | 1.2 M | 2.250 | **2.375** | 2.500 | **2.625** | 1,234 | 61 MB | 20 s |"


def test_cells_are_chosen_by_a_part_of_their_names(options: TableOptions, monkeypatch) -> None:
    computed = []

    def compute(cell: Cell, *_: object) -> CellResult:
        computed.append(cell)
        return CellResult("LSTM", "bpe", False, "", None, 1, None)

    monkeypatch.setattr(comparison_table, "compute_cell", compute)
    comparison_table.print_table(options, ["ngram", "bpe-pretrained"])
    assert [cell.name(2000) for cell in computed] == [
        "ngram-words", "ngram-characters", "ngram-bpe", "lstm-bpe-pretrained-2000s", "transformer-bpe-pretrained-2000s",
    ]  # fmt: skip
