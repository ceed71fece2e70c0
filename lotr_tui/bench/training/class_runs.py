"""Runs that the class ships for the bundled dialogues: `python -m lotr_tui.bench.training.class_runs [NAME ...]`.

Each run is trained by the code that trains the same run for a corpus of the user, and replaces the folder of that name
in `assets/class`, or in the folder of `--to`. Training takes one to three minutes for each.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from engine.data.dataset import load_dataset
from engine.runs.compact import write_compact_copy
from engine.storage.files import assets_dir
from lotr_tui.bench.training.scratch_twin import make_scratch_run
from lotr_tui.learn.class_models import (
    LABELS,
    ClassModelName,
    bundled_data_config,
    class_model_config,
    train_small_model,
)
from lotr_tui.learn.compared_models import SCRATCH_RUN
from lotr_tui.learn.live_training import limit_dataset
from lotr_tui.learn.overfitting_run import NAME, Regularization, overfitting_config, train_overfitting_run


def make_small_model(name: ClassModelName, folder: Path) -> Generator[str, None, None]:
    """Train a small model, and write a compact copy of it to `folder`, which is replaced; yield lines of progress."""
    config = class_model_config(name, bundled_data_config())
    with tempfile.TemporaryDirectory() as temporary:
        trained, copy = Path(temporary) / name, Path(temporary) / "compact"
        yield from train_small_model(name, config, Path(temporary) / "runs", trained, lambda: False)
        write_compact_copy(trained, copy, "int8")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(copy, folder)


def make_overfitting_run(folder: Path) -> Generator[str, None, None]:
    """Train the run without regularization, and yield lines of progress."""
    data = bundled_data_config()
    config = overfitting_config(data, len(limit_dataset(load_dataset(data)).train), Regularization())
    yield from train_overfitting_run(config, folder, lambda: False)


RUNS: dict[str, Callable[[Path], Generator[str, None, None]]] = {
    **{name: partial(make_small_model, name) for name in LABELS},
    NAME: make_overfitting_run,
    SCRATCH_RUN: make_scratch_run,
}
"""Functions that make the runs, by name."""


def main() -> None:
    """Make the runs that the command line names, or all."""
    parser = argparse.ArgumentParser(description="Train the runs that the class ships.")
    parser.add_argument(
        "names", nargs="*", choices=[*RUNS, []], metavar="NAME", help=f"{', '.join(RUNS)}; default: all"
    )
    parser.add_argument("--to", type=Path, default=assets_dir() / "class", help="folder for the runs")
    options = parser.parse_args()
    for name in options.names or RUNS:
        if name not in RUNS:
            parser.error(f"there is no run {name!r}; the runs are {', '.join(RUNS)}")
        for line in RUNS[name](options.to / name):
            print(line, flush=True)
        print(f"{options.to / name} is written")


if __name__ == "__main__":
    main()
