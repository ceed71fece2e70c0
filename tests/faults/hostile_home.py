"""A home with one good file of each kind that is read, made by the program itself: what hostile ones are made of."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from engine.config import Config
from engine.data import preparation
from engine.data.dataset import prepare
from engine.generation.settings import SamplerSettings
from engine.training.job import prepare_job
from lotr_tui.session.history import History
from lotr_tui.session.saved_session import Node, Word
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.session.settings import KeptSettings
from tests.conftest import sentences, write_csv

RUN = "r"


def config_for(home: Path) -> Config:
    """Of a training that takes a moment."""
    return Config("tiny").with_values(
        corpus=str(home / "corpus.csv"), embedding_size=8, hidden_size=8, epochs=2, batch_size=8, threads=1,
        averaging="ema", min_count=1, evaluate_updates=3, checkpoint_seconds=0.001,
    )  # fmt: skip


def make_home(home: Path) -> int:
    """Fill `home`, which is named in `LOTR_TUI_HOME`; the run was stopped in its second epoch."""
    write_csv(home / "corpus.csv", sentences(120))
    (home / "corpus.txt").write_text("\n".join(sentences(120)))
    config = config_for(home)
    job = prepare_job(config, RUN)
    cancelled = _after(40)
    for _ in job.events(lambda: next(cancelled)):
        pass
    asked = [{"what": "pause", "value": ""}, {"what": "lr", "value": "0.5"}]
    (home / "runs" / RUN / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    KeptSettings().keep(pace=5.0, keymap={"play.stop": "ctrl+l,f5"})
    history = History()
    for text in ("the miller", "seven lanterns"):
        history.add(text)
    session = SessionWriter(RUN)
    words = (Word(5, "green", -1.0, 0.4, 1, 2.0), Word(6, "barrels", -2.0, 0.1, 3, 1.5))
    for number, parent in ((0, None), (1, 0)):
        session.keep(
            Node(number, parent, 0 if parent is None else 2, "the miller", "continue", words, 7, SamplerSettings(),
                 "length", 900.0, RUN, ("xyzzy",), "a branch")
        )  # fmt: skip
    session.close()
    preparation.LARGE_BYTES = 0
    prepare(config.data)
    return 0


def _after(times: int) -> Iterator[bool]:
    """No so many times, then yes."""
    yield from [False] * times
    while True:
        yield True


def use(home: Path) -> None:
    """From here on this process's runs, settings and sessions are those in `home`."""
    os.environ["LOTR_TUI_HOME"] = str(home)
    os.environ.pop("LOTR_TUI_DEBUG", None)
    os.environ |= {"COLUMNS": "120", "NO_COLOR": "1"}
