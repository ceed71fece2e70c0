"""Train the runs that the class ships for the bundled dialogues: `python -m tests.tools.class_runs [NAME ...]`."""

import shutil
import sys
import tempfile
from pathlib import Path

from engine.data.dataset import load_dataset
from engine.presets import get_preset
from engine.runs.compact import write_compact_copy
from engine.runs.dialogue_parts import WHO_FILE
from engine.storage.files import assets_dir
from engine.training.job import prepare_job
from engine.training.transfer.initial_run import configure
from lotr_tui.learn import class_models, overfitting_run
from lotr_tui.learn.compared_models import SCRATCH_RUN
from lotr_tui.learn.live_training import limit_dataset

TWIN = {"tokenizer": "bpe", "init": "", "embedding_size": 320, "hidden_size": 320, "epochs": 20, "lr": 0.005}
"""The twin from scratch of the pre-trained model: 1.494 bits per character on validation; 1.531 with 768 units."""


def train(name, folder):
    """Train a run, and write a compact copy of it to `folder`; yield what happens."""
    data = class_models.bundled_data_config()
    if name == overfitting_run.NAME:
        num_tokens = len(limit_dataset(load_dataset(data)).train)
        config = overfitting_run.overfitting_config(data, num_tokens, overfitting_run.Regularization())
        yield from overfitting_run.train_overfitting_run(config, folder, lambda: False)
        return
    with tempfile.TemporaryDirectory() as temporary:
        trained, copy = Path(temporary, name), Path(temporary, "compact")
        if name == SCRATCH_RUN:
            config = configure(get_preset("dialogue"), lambda config: config.with_values(**TWIN, threads=1))
            yield from prepare_job(config, name, Path(temporary)).events(lambda: False)
        else:
            config = class_models.class_model_config(name, data)
            runs_dir = Path(temporary, "runs")
            yield from class_models.train_small_model(name, config, runs_dir, trained, lambda: False)
        write_compact_copy(trained, copy, "int8")
        (copy / WHO_FILE).unlink(missing_ok=True)  # as large as the network, and not used in the class
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(copy, folder)


if __name__ == "__main__":
    for name in sys.argv[1:] or [*class_models.LABELS, overfitting_run.NAME, SCRATCH_RUN]:
        for event in train(name, assets_dir() / "class" / name):
            print(str(event)[:150], flush=True)
