"""Runs that the class ships: their configurations are those of its code, and a wheel contains them."""

from pathlib import Path

import pytest

from engine.runs.directory import read_config
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.bench.training import class_runs
from lotr_tui.learn.class_models import LABELS, ClassModelName, bundled_data_config, class_model_config
from tests.support.files import CHECKOUT

CLASS_DIR = assets_dir() / "class"


@pytest.mark.parametrize("name", LABELS)
def test_shipped_model_has_the_configuration_that_is_trained_for_any_corpus(name: ClassModelName) -> None:
    assert read_config(CLASS_DIR / name) == class_model_config(name, bundled_data_config())


def test_command_makes_every_shipped_run() -> None:
    assert {path.name for path in CLASS_DIR.iterdir() if path.is_dir()} == set(class_runs.RUNS)


def test_made_model_can_be_loaded_and_replaces_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_csv: Path
) -> None:
    def short_config(name: ClassModelName, data: object) -> object:
        return class_model_config(name, bundled_data_config()).with_values(
            corpus=str(small_csv), epochs=1, min_count=1, threads=1, embedding_size=8, hidden_size=8, min_characters=20
        )

    monkeypatch.setattr(class_runs, "class_model_config", short_config)
    (tmp_path / "lstm").mkdir()
    (tmp_path / "lstm" / "old").write_text("")
    lines = [*class_runs.RUNS["lstm"](tmp_path / "lstm")]
    assert any("epoch 1 of 1" in line for line in lines)
    assert not (tmp_path / "lstm" / "old").exists()
    assert load_model(tmp_path / "lstm").valid_perplexity is not None


def test_wheel_contains_the_shipped_runs() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(CHECKOUT))
    included = {
        f"{target}/{path.relative_to(CHECKOUT / source)}"
        for source, target in wheel.config.force_include.items()
        for path in (CHECKOUT / source).rglob("*")
        if path.is_file()
    }
    for path in CLASS_DIR.rglob("*"):
        assert path.is_dir() or f"lotr_tui/assets/class/{path.relative_to(CLASS_DIR)}" in included
