"""Readers of the files that users exchange or that other processes write, and checks of what they read."""

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple, get_args

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import Config
from engine.control import CommandQueue
from engine.data.corpus import read_corpus, read_whole_text
from engine.data.dataset import load_dataset
from engine.data.speakers import normalize_speaker
from engine.data.tokenizers import EOS, UNK, WordTokenizer, split_words
from engine.errors import printable
from engine.events import Step
from engine.generation.settings import SamplerSettings
from engine.runs import directory, loading
from engine.runs.locked_run import parse_command
from engine.training import TrainingInput
from engine.training.search import Search
from engine.training.state import ResumeCheckpoint
from engine.training.trainer import train
from lotr_tui.cli.data import print_data_summary
from lotr_tui.cli.generate import Request, continue_text
from lotr_tui.cli.runs import print_status
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.monitor import run_list
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.inspect.text_screen import marks_to_newlines, newlines_to_marks
from lotr_tui.session.export import to_json, to_markdown
from lotr_tui.session.session_file import list_sessions, load_session, parse_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import PromptHistory, SettingsStore
from lotr_tui.widgets.prompt import sanitize_prompt
from tests.faults import hostile_content as made
from tests.faults.hostile_content import RUN, SEARCH, small_config
from tests.support.open_models import RecitingModel, character_tokenizer
from tests.support.sessions import records_of, update_settings

VOCABULARY = WordTokenizer((UNK, EOS, "the", "road", "is"))


def use_home(home):
    os.environ |= {"LOTR_TUI_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1"}


def run_dir(home):
    return home / "runs" / RUN


def _assert_printable(lines):
    assert [line for line in lines if not line.isprintable()] == []


# Texts


def _read_csv(home, path):
    config = replace(small_config(home).data, corpus=str(path), corpus_format="csv", min_characters=0)
    lines = read_corpus(config).lines
    assert all(normalize_speaker(line.speaker) == line.speaker for line in lines)
    if len(lines) >= 6:  # otherwise they cannot be split
        print_data_summary(config, as_json=False)


def _read_text(home, path):
    config = replace(small_config(home).data, corpus=str(path), corpus_format="text", min_characters=0)
    print_data_summary(config, as_json=False)


def _read_lens_text(home, path):
    text = read_whole_text(path, 4_000_000)
    assert tokenize_with_offsets(text, VOCABULARY).ids.tolist() == VOCABULARY.encode(text).tolist()
    line = newlines_to_marks(text)
    typed, shown = (split_words(marks_to_newlines(each)) for each in (text, line))
    assert shown == typed[len(typed) - len(shown) :]  # a long text loses its beginning
    _assert_printable([line, printable(text)])


def _read_prompt(home, path):
    text, _ = sanitize_prompt(read_whole_text(path, 4_000_000)[:10_000])
    _assert_printable(text.replace("\u200c", "").replace("\u200d", "").replace("\u3000", " ").split("\n"))


def _print_generated(home, path):
    """Print what a model says that knows the text by heart; the trial fails if a line of it is not printable."""
    text = read_whole_text(path, 4_000_000)[:300].replace("\u200c", "").replace("\u200d", "")
    model = RecitingModel(character_tokenizer(), f"x{text}")
    loaded = SessionModel("recited", "", model, predicts_eos=True)
    for form in ({}, {"as_json": True}, {"jsonl": True}):
        continue_text(Request(loaded, SamplerSettings(max_tokens=300), (1,), **form), "x")


def _read_overrides(home, path):
    config = Config().with_values(*read_whole_text(path, 4_000_000).split("\n"))
    assert Config.from_json(config.to_json(), "round trip") == config


def _read_run_name(home, path):
    name = read_whole_text(path, 4_000_000)
    directory.check_run_name(name)
    loading.load_model_by_name(name)


# Files of a run


def _list_runs(home, path):
    runs = [run.path for run in (*directory.list_runs(), *run_list.list_selectable_runs(None))]
    comparison = run_list.compare_runs([*map(run_list.read_compared_run, [*runs, run_dir(home)])])
    styles = dict.fromkeys(get_args(run_list.Role), "")
    run_list.comparison_tables(comparison, [run.name for run in comparison.runs], 80, styles)
    loading.list_epoch_checkpoints(run_dir(home))
    directory.summarize_run(run_dir(home))


def _read_config(home, path):
    loading.load_model(run_dir(home))
    config, tokenizer = loading.read_config_and_tokenizer(run_dir(home))
    assert Config.from_json(config.to_json(), "round trip") == config
    assert all(token.isprintable() for token in tokenizer.tokens)
    _list_runs(home, path)


def _resume(home, path):
    config, _ = loading.read_config_and_tokenizer(run_dir(home))
    num_checks = count()
    checkpoint = ResumeCheckpoint(run_dir(home) / directory.RESUME_FILE)
    commands = CommandQueue(cancelled=lambda: next(num_checks) > 3)
    for _ in train(config, TrainingInput(load_dataset(config.data)), RUN, commands, checkpoint):
        pass


def _read_initial_weights(home, path):
    config, tokenizer = loading.read_config_and_tokenizer(run_dir(home))
    loading.read_initial_weights(run_dir(home), config.with_values(init="base"), tokenizer)


def _read_metrics(home, path):
    events = list(directory.read_events(path))
    subsampled = [repr(event) for event in directory.read_events(path, subsample=True) if not isinstance(event, Step)]
    assert subsampled == [repr(event) for event in events if not isinstance(event, Step)]
    assert len(directory.drop_superseded(directory.read_events(path))) <= len(events)
    for subsample in (True, False):
        _assert_printable(line.text for line in TrainingView.from_run(run_dir(home), subsample=subsample).log)
    for as_json in (False, True):
        with redirect_stdout(io.StringIO()) as output:
            print_status(run_dir(home), as_json=as_json)
        _assert_printable(output.getvalue().split("\n"))
    json.loads(output.getvalue())


def _read_commands(home, path):
    commands = directory.RecordFollower(run_dir(home) / directory.COMMANDS_FILE, parse_command).read()
    _assert_printable(command.value for command in commands)


def _read_search(home, path):
    search = Search.open(SEARCH, None)
    try:
        json.dumps([asdict(record) for record in search.records()], allow_nan=False)
    finally:
        search.close()


# Files of the session


def _read_settings(home, path):
    store = SettingsStore()
    json.loads(store.current.to_json())
    _change(store, lambda: update_settings(store, pace=3.0))


def _read_progress(home, path):
    store = ProgressStore()
    store.add(done="tokens", last="tokens")
    _change(store, store.save)


def _change(store, save):
    """Change a file that is not valid, which is then set aside; a valid one would be replaced."""
    assert len(store.notice.splitlines()) <= 1, store.notice
    if store.notice:
        print(store.notice)
        print(save())


def _read_history(home, path):
    problem = PromptHistory().add("more")  # of a file that cannot be written, such as a folder
    assert problem or PromptHistory().entries[-1] == "more"


def _read_sessions(home, path):
    for summary in list_sessions():
        _assert_printable([summary.model, summary.first_prompt, summary.error])
        session = load_session(summary.path)
        assert records_of(parse_session(session.name, session.encode())) == records_of(session)
        assert all(reply.parent_id is None or reply.parent_id in session.replies for reply in session.replies.values())
        _assert_printable(to_markdown(session).split("\n"))
        json.loads(to_json(session))


class Reader(NamedTuple):
    file: str  # pattern of its paths, relative to the home
    read: Callable[[Path, Path], object]  # of the home and the file; one that is not valid may raise a `LotrError`
    hostile_files: tuple = ()
    rewrites_file: bool = False  # it may replace a damaged file, which else must be kept, in place or set aside


_RUN, _SEARCH = f"runs/{RUN}", f"runs/{SEARCH}"
READERS = {
    "CSV": Reader("corpus.csv", _read_csv, made.CORPORA),
    "CSV dialect": Reader("texts/*.csv", _read_csv),
    "text": Reader("corpus.txt", _read_text, made.CORPORA),
    "small text": Reader("texts/plain.txt", _read_text),
    "screenplay": Reader("texts/play.fountain", _read_text, made.CORPORA),
    "lens": Reader("texts/plain.txt", _read_lens_text, made.CORPORA),
    "prompt": Reader("texts/prompt", _read_prompt),
    "generated text": Reader("texts/prompt", _print_generated),
    "overrides": Reader("texts/overrides", _read_overrides),
    "run name": Reader("texts/run-name", _read_run_name),
    "configuration": Reader(f"{_RUN}/config.json", _read_config),
    "list of runs": Reader(f"{_RUN}/config.json", _list_runs),
    "vocabulary": Reader(f"{_RUN}/vocabulary.json", _read_config, made.VOCABULARIES),
    "model": Reader(f"{_RUN}/model.safetensors", lambda home, _: loading.load_model(run_dir(home)), made.TENSORS),
    "epoch": Reader(f"{_RUN}/epochs/1.safetensors", lambda home, _: loading.load_model(run_dir(home), 1), made.TENSORS),
    "initial weights": Reader(f"{_RUN}/initial.safetensors", _read_initial_weights, made.TENSORS),
    "checkpoint": Reader(f"{_RUN}/resume.safetensors", _resume, made.TENSORS),
    "metrics": Reader(f"{_RUN}/metrics.jsonl", _read_metrics, made.METRICS),
    "samples": Reader(f"{_RUN}/samples.jsonl", _read_metrics, made.METRICS),
    "commands": Reader(f"{_RUN}/commands.jsonl", _read_commands),
    "lock": Reader(f"{_RUN}/lock", lambda home, _: print(directory.lock_owner(run_dir(home)))),
    "settings": Reader("settings.json", _read_settings),
    "progress": Reader("learn.json", _read_progress, made.PROGRESS_FILES),
    "history": Reader("history.jsonl", _read_history, rewrites_file=True),
    "session": Reader("sessions/*.jsonl", _read_sessions),
    "plan of a search": Reader(f"{_SEARCH}/search.json", _read_search),
    "trials of a search": Reader(f"{_SEARCH}/trials.log", _read_search, rewrites_file=True),
}
