"""The twin from scratch of the bundled pre-trained LSTM, with which the class isolates pre-training.

It is an LSTM of byte pairs that reads the same dialogues, in the same split, with their speakers, but starts from
random weights and learns its byte pairs from the dialogues. Its size, learning rate and epochs were chosen on
validation:

| units | lr | epochs | bits per character, valid | minutes, one core |
| --- | --- | --- | --- | --- |
| 256 | 0.003 | 16 | 1.528 | 2.5 |
| 320 | 0.003 | 16 | 1.514 | 2.8 |
| 320 | 0.005 | 20, stopped early | 1.494 | 3.1 |
| 768, as the pre-trained one | 0.002 | 12, stopped early | 1.531 | 5.4 |

More units do not help without other text to read: the pre-trained model of 768 units needs 1.368.
"""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from engine.config import Config
from engine.events import Evaluated
from engine.presets import get_preset
from engine.runs.compact import write_compact_copy
from engine.runs.dialogue_parts import WHO_FILE
from engine.training.job import prepare_job
from engine.training.transfer.initial_run import configure
from lotr_tui.learn.compared_models import SCRATCH_RUN

UNITS = 320


def scratch_config() -> Config:
    """Return the configuration of the run."""

    def apply_options(config: Config) -> Config:
        return config.with_values(
            tokenizer="bpe", init="", embedding_size=UNITS, hidden_size=UNITS, epochs=20, lr=0.005, threads=1
        )

    return configure(get_preset("dialogue"), apply_options)


def make_scratch_run(folder: Path) -> Generator[str, None, None]:
    """Train the run, and write a compact copy of it to `folder`, which is replaced; yield lines of progress.

    The copy has no model of who says a text, which is as large as the network and which the class does not need.
    """
    with tempfile.TemporaryDirectory() as temporary:
        job = prepare_job(scratch_config(), SCRATCH_RUN, Path(temporary))
        for event in job.events(lambda: False):
            if isinstance(event, Evaluated):
                yield f"epoch {event.epoch:.0f}: validation perplexity {event.valid_perplexity:.1f}"
        copy = Path(temporary) / "compact"
        write_compact_copy(job.run.path, copy, "int8")
        (copy / WHO_FILE).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(copy, folder)
