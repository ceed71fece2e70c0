"""Runs that the class ships for the bundled dialogues: `python -m lotr_tui.bench.training.class_runs [NAME ...]`.

Each run is trained by the code that trains the same run for a corpus of the user, and replaces the folder of that name
in `assets/class`, or in the folder of `--to`. Training takes one to three minutes for each.
"""

import argparse
from collections.abc import Callable, Generator
from pathlib import Path

from engine.data.dataset import load_dataset
from engine.storage.files import assets_dir
from lotr_tui.bench.training.scratch_twin import make_scratch_run
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.compared_models import SCRATCH_RUN
from lotr_tui.learn.live_training import limit_dataset
from lotr_tui.learn.overfitting_run import NAME, Regularization, overfitting_config, train_overfitting_run


def make_overfitting_run(folder: Path) -> Generator[str, None, None]:
    """Train the run without regularization, and yield lines of progress."""
    data = bundled_data_config()
    config = overfitting_config(data, len(limit_dataset(load_dataset(data)).train), Regularization())
    yield from train_overfitting_run(config, folder, lambda: False)


RUNS: dict[str, Callable[[Path], Generator[str, None, None]]] = {
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
