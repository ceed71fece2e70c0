"""Readers of the files that users exchange or that other processes write, for the tests with hostile files."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from engine.data.dataset import load_dataset, summarize_dataset
from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import (
    COMMANDS_FILE,
    CONFIG_FILE,
    EPOCHS_DIR,
    INITIAL_FILE,
    LOCK_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RESUME_FILE,
    SAMPLES_FILE,
    is_locked,
    lock_owner,
    read_config_and_tokenizer,
)
from engine.runs.loading import list_epoch_checkpoints, load_model, read_initial_weights
from engine.runs.summary import list_runs, summarize_run
from engine.storage.text_files import read_text_file
from engine.training.checkpoint import ResumeCheckpoint
from engine.training.run import train
from engine.training.search.records import SEARCH_FILE, TRAINING_FILE, TRIALS_FILE, SearchFolder
from engine.training.search.study import SearchStudy
from lotr_tui.cli.data.summary import print_data_summary
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.monitor.compared_run import read_compared_run
from lotr_tui.monitor.comparison_layout import layout_comparison
from lotr_tui.monitor.run_comparison import compare_runs
from lotr_tui.monitor.run_list import list_selectable_runs, read_validation_curve
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.session.history import PromptHistory
from lotr_tui.session.session_file import list_sessions, load_session
from lotr_tui.session.settings import SettingsStore
from tests.faults.hostile_content import (
    CONFIGS,
    CORPORA,
    FOR_ANY_READER,
    METRICS,
    PROGRESS_FILES,
    SESSIONS,
    SETTINGS_FILES,
    TENSORS,
    VOCABULARIES,
    HostileFile,
)
from tests.faults.hostile_home import RUN, SEARCH, cache_every_corpus, small_config

VALID_HOME_VARIABLE = "LOTR_TUI_TESTS_VALID_HOME"
"""Environment variable with the path of the home whose files are all valid."""


def run_dir(home: Path) -> Path:
    """Return the directory of the run in a home."""
    return home / "runs" / RUN


def _read_csv_corpus(home: Path) -> None:
    config = replace(small_config(home).data, corpus=str(home / "corpus.csv"), corpus_format="csv")
    print_data_summary(config, as_json=False)


def _read_text_corpus(home: Path) -> None:
    config = replace(small_config(home).data, corpus=str(home / "corpus.txt"), corpus_format="text")
    print_data_summary(config, as_json=False)


def _read_cache(home: Path) -> None:
    """Load the valid corpus with the cache of `home`. A damaged cache must be rebuilt."""
    cache_every_corpus()
    dataset = load_dataset(small_config(Path(os.environ[VALID_HOME_VARIABLE])).data)
    summarize_dataset(dataset)
    for lines in (dataset.splits.train, dataset.splits.valid, dataset.splits.test):
        assert all(line.text for line in lines)
    assert len([int(line.sum()) for line in dataset.train_lines]) > 90
    assert int(dataset.train.max()) < len(dataset.tokenizer)


def _list_runs(home: Path) -> None:
    runs = [*list_runs(), *list_selectable_runs(None)]
    comparison = compare_runs([read_compared_run(run.path) for run in runs] + [read_compared_run(run_dir(home))])
    layout_comparison(comparison, [run.name for run in comparison.runs], 80)
    for run in runs:
        read_validation_curve(run)
    list_epoch_checkpoints(run_dir(home))
    summarize_run(run_dir(home))


def _read_config(home: Path) -> None:
    load_model(run_dir(home))
    _list_runs(home)


def _resume(home: Path) -> None:
    config, _ = read_config_and_tokenizer(run_dir(home))
    num_checks = count()
    checkpoint = ResumeCheckpoint(run_dir(home) / RESUME_FILE)
    dataset = load_dataset(config.data)
    for _ in train(config, dataset, RUN, lambda: next(num_checks) > 3, checkpoint=checkpoint):
        pass


def _read_initial_weights(home: Path) -> None:
    config, tokenizer = read_config_and_tokenizer(run_dir(home))
    read_initial_weights(run_dir(home), config.with_values(init="base"), tokenizer)


def _read_metrics(home: Path) -> None:
    for subsample in (True, False):
        TrainingView.from_run(run_dir(home), subsample=subsample)
    summarize_run(run_dir(home))


def _read_commands(home: Path) -> None:
    for command in CommandFileReader(run_dir(home))():
        print(command.kind, command.value)


def _read_settings(home: Path) -> None:
    store = SettingsStore()
    assert len(store.notice.splitlines()) <= 1, store.notice
    if store.notice:  # otherwise the file is valid, and an update replaces it
        print(store.notice)
        print(store.update(pace=3.0))


def _read_progress(home: Path) -> None:
    store = ProgressStore()
    assert len(store.notice.splitlines()) <= 1, store.notice
    if store.notice:  # otherwise the file is valid, and is replaced
        print(store.notice)
        store.add(done="tokens", last="tokens")
        print(store.save())


def _read_history(home: Path) -> None:
    PromptHistory()
    PromptHistory().add("more")


def _read_sessions(home: Path) -> None:
    for summary in list_sessions():
        load_session(summary.path)


def _read_search(home: Path) -> None:
    folder = SearchFolder.open(SEARCH, None)
    study = SearchStudy(folder.plan.space, 0, folder.plan.rungs)
    for record in folder.records.values():
        study.finish(study.replay(record), record.state, record.value)
    folder.close()


@dataclass(frozen=True)
class Reader:
    """Function that reads a file of a home."""

    file: str
    """Pattern of the paths of the file, relative to the home."""
    read: Callable[[Path], object]
    """Function of the home; a file that is not valid may raise a `LotrError`."""
    hostile_files: Sequence[HostileFile] = ()
    """Hostile files for this reader, besides those for all readers."""
    rewrites_file: bool = False
    """True if the reader may replace a damaged file; otherwise the file must be kept, in place or set aside."""

    @property
    def all_hostile_files(self) -> Sequence[HostileFile]:
        """The hostile files for this reader and those for all readers."""
        return (*FOR_ANY_READER, *self.hostile_files)


_RUN = f"runs/{RUN}"
READERS = {
    "CSV corpus": Reader("corpus.csv", _read_csv_corpus, CORPORA),
    "text corpus": Reader("corpus.txt", _read_text_corpus, CORPORA),
    "text for the lens": Reader("corpus.txt", lambda home: read_text_file(home / "corpus.txt"), CORPORA),
    "configuration": Reader(f"{_RUN}/{CONFIG_FILE}", _read_config, CONFIGS),
    "configuration in the list": Reader(f"{_RUN}/{CONFIG_FILE}", _list_runs, CONFIGS),
    "vocabulary": Reader(f"{_RUN}/{VOCABULARY_FILE}", lambda home: load_model(run_dir(home)), VOCABULARIES),
    "model": Reader(f"{_RUN}/{MODEL_FILE}", lambda home: load_model(run_dir(home)), TENSORS),
    "model of an epoch": Reader(
        f"{_RUN}/{EPOCHS_DIR}/1.safetensors", lambda home: load_model(run_dir(home), 1), TENSORS
    ),
    "initial weights": Reader(f"{_RUN}/{INITIAL_FILE}", _read_initial_weights, TENSORS),
    "checkpoint": Reader(f"{_RUN}/{RESUME_FILE}", _resume, TENSORS),
    "metrics": Reader(f"{_RUN}/{METRICS_FILE}", _read_metrics, METRICS),
    "samples": Reader(f"{_RUN}/{SAMPLES_FILE}", _read_metrics, METRICS),
    "commands": Reader(f"{_RUN}/{COMMANDS_FILE}", _read_commands),
    "lock": Reader(f"{_RUN}/{LOCK_FILE}", lambda home: print(lock_owner(run_dir(home)), is_locked(run_dir(home)))),
    "settings": Reader("settings.json", _read_settings, SETTINGS_FILES),
    "progress in the class": Reader("learn.json", _read_progress, PROGRESS_FILES),
    "history": Reader("history.jsonl", _read_history, rewrites_file=True),
    "lock of the history": Reader("history.lock", lambda home: PromptHistory().add("more"), rewrites_file=True),
    "session": Reader("sessions/*.jsonl", _read_sessions, SESSIONS),
    "plan of a search": Reader(f"runs/{SEARCH}/{SEARCH_FILE}", _read_search, CONFIGS),
    "configuration of a search": Reader(f"runs/{SEARCH}/{TRAINING_FILE}", _read_search, CONFIGS),
    "trials of a search": Reader(f"runs/{SEARCH}/{TRIALS_FILE}", _read_search, METRICS, rewrites_file=True),
    "cache": Reader("cache/*/*", _read_cache, rewrites_file=True),
}
