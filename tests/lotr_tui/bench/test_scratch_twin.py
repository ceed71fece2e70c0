"""Test of the recipe of the class's run from scratch."""

from engine.runs.directory import read_config
from engine.storage.files import assets_dir
from lotr_tui.bench.training.scratch_twin import scratch_config


def test_shipped_run_has_the_configuration_of_the_recipe() -> None:
    assert read_config(assets_dir() / "class" / "scratch") == scratch_config()
