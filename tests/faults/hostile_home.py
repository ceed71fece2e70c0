"""A home with one valid file of each kind, written by the program itself, from which hostile files are made."""

import json
import os
import shutil
from pathlib import Path

from engine.config import Config
from engine.data import preparation
from engine.data.dataset import load_dataset
from engine.events import Evaluated
from engine.generation.settings import SamplerSettings
from engine.runs.directory import COMMANDS_FILE, EPOCHS_DIR, INITIAL_FILE, MODEL_FILE, RESUME_FILE
from engine.training.job import prepare_job
from engine.training.search.plan import SearchPlan
from engine.training.search.records import SearchFolder, TrialRecord
from engine.training.search.space import parse_space
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.saved_session import SavedToken
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.session.settings import SettingsStore
from tests.support.files import sentences, write_csv
from tests.support.sessions import saved_reply

RUN, SEARCH = "r", "search"


def small_config(home: Path) -> Config:
    """Return the configuration of a training that takes a moment."""
    return Config("tiny").with_values(
        corpus=str(home / "corpus.csv"),
        embedding_size=8,
        hidden_size=8,
        epochs=2,
        batch_size=8,
        threads=1,
        averaging="ema",
        min_count=1,
        checkpoint_seconds=0.001,
    )


def make_home(home: Path) -> None:
    """Fill `home`, which must be the value of `LOTR_TUI_HOME`. The run in it is stopped in its second epoch."""
    write_csv(home / "corpus.csv", sentences(120))
    (home / "corpus.txt").write_text("\n".join(sentences(120)))
    config = small_config(home)
    _train_until_second_epoch(config)
    run_dir = home / "runs" / RUN
    for name in (MODEL_FILE, RESUME_FILE, f"{EPOCHS_DIR}/1.safetensors"):
        assert (run_dir / name).exists(), f"{name} was not written"
    shutil.copy(run_dir / MODEL_FILE, run_dir / INITIAL_FILE)
    commands = [{"kind": "pause", "value": ""}, {"kind": "lr", "value": "0.5"}]
    (run_dir / COMMANDS_FILE).write_text("".join(json.dumps(command) + "\n" for command in commands))
    SettingsStore().update(pace=5.0, keymap={"session.stop": "ctrl+l,f5"})
    progress = ProgressStore()
    progress.add(done="tokens", last="counting")
    progress.save()
    history = PromptHistory()
    for text in ("the miller", "seven lanterns"):
        history.add(text)
    _save_session()
    _save_search(config)
    cache_every_corpus()
    load_dataset(config.data)


def _train_until_second_epoch(config: Config) -> None:
    epochs = [0.0]
    for event in prepare_job(config, RUN).events(lambda: epochs[-1] >= 1):
        if isinstance(event, Evaluated):
            epochs.append(event.epoch)


def _save_search(config: Config) -> None:
    plan = SearchPlan(config, parse_space(["lr=0.01..0.1"])[1], (1234,), "")
    folder = SearchFolder.create(SEARCH, None, plan)
    folder.write(TrialRecord(0, "complete", {"lr": 0.05}, folder.run_names(0), [9.5], [(0.25, 12.5), (1.0, 9.5)], 3.0))
    folder.write(TrialRecord(1, "stopped", {"lr": 0.02}, folder.run_names(1), [], [(0.25, 13.5)], 1.0))
    folder.close()


def _save_session() -> None:
    session = SessionWriter(RUN)
    for reply_id, parent_id in ((0, None), (1, 0)):
        session.save(
            saved_reply(
                reply_id,
                parent_id,
                0 if parent_id is None else 2,
                prompt="the miller",
                tokens=(SavedToken(5, "green", -1.0, 0.4, 1, 2.0), SavedToken(6, "barrels", -2.0, 0.1, 3, 1.5)),
                settings=SamplerSettings(),
                model=RUN,
                unknown_tokens=("xyzzy",),
                name="a branch",
            )
        )
    session.close()


def cache_every_corpus() -> None:
    """Cache every prepared corpus in this process, however small."""
    preparation.CACHE_THRESHOLD_BYTES = 0


def use_home(home: Path) -> None:
    """Make `home` the home of this process."""
    os.environ["LOTR_TUI_HOME"] = str(home)
    os.environ.pop("LOTR_TUI_DEBUG", None)
    os.environ |= {"COLUMNS": "120", "NO_COLOR": "1"}
