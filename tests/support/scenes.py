"""Scenes for snapshots and key tests: every screen in a state that is the same in each run."""

import os
import time
from dataclasses import replace
from types import SimpleNamespace

from textual.widgets import Input, OptionList

from engine.analysis.memorization import TrainingIndex
from engine.config import Config
from engine.data.corpus import Line
from engine.events import Checkpointed, CommandApplied, Diagnosed, Evaluated, Finished, Warned
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import MODEL_FILE, directory_size
from engine.runs.locked_run import create_run
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.dialogs.questions import FirstModelDialog, QuitDialog
from lotr_tui.screens.dialogs.sessions import SessionsScreen
from lotr_tui.screens.inspect import comparison, lens
from lotr_tui.screens.inspect.attention import AttentionScreen
from lotr_tui.screens.inspect.comparison import LadderScreen, ModelChoiceDialog, SideBySideScreen
from lotr_tui.screens.inspect.copied import CopiedScreen
from lotr_tui.screens.inspect.layers import ActivationsScreen
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.screens.learn import screen as learn_screen
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session import comparison as session_comparison
from lotr_tui.session.reply import Token
from lotr_tui.session.session_file import Session, sessions_folder
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt import PromptInput
from tests.support import runs
from tests.support.analysis import LENS_TEXT, make_kneser_ney, make_random_lstm, open_inspector
from tests.support.app import VOCABULARY, finished, make_decoder, training_events
from tests.support.attention import attention_session_model
from tests.support.columns import until_columns_ended
from tests.support.files import write_run
from tests.support.pilot import lines_of, text_of, until
from tests.support.runs import append_events, view_of
from tests.support.sessions import add_reply, saved_reply

NUCLEUS = SamplerSettings(top_p=0.9)
TOP_K = SamplerSettings(top_k=20)
TRAINING_TEXT = (
    ("ROSA", "We walked all night with our pony."),
    ("TOLLY", "I think he knows it!"),
    ("ROSA", "That ranger kept his promise, and walked all night with our bread."),
    ("", "The lamp was lit in the high tower before winter came down from the north."),
)
REPLY_TEXT = (
    "Bilbo Baggins is a very old friend and i think he knows it we walked all night with our wizard the lamp was lit"
)
# So that a change of the class does not change its picture.
SOURCE = 'class WordTokenizer(Tokenizer):\n    """Tokens are words."""\n' + "".join(
    f"\n    def words_of_{number}_letters(self, text: str) -> list[str]:\n        # Punctuation counts.\n"
    f"        return [word for word in text.split() if len(word) == {number}]\n"
    for number in range(1, 12)
)
STARTED = 1_600_000_000
AGE = 3 * 3600  # age in seconds of sessions and runs, which is shown as `3 h`


def make_deterministic(monkeypatch, times=1):
    """Replace the data that screens read from runs, with each training line `times` times, and set the time zone."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    lines = [Line(text, speaker) for speaker, text in TRAINING_TEXT * times]
    train = tuple(VOCABULARY.encode(line.text) for line in lines)
    data = SimpleNamespace(tokenizer=VOCABULARY, train_lines=train, train_source_lines=lines, cast=())
    index, counts = TrainingIndex(train, lines), make_kneser_ney()
    monkeypatch.setattr(session_comparison, "load_training_data", lambda run: data)
    monkeypatch.setattr(session_comparison, "load_training_index", lambda run: index)
    monkeypatch.setattr(learn_screen, "read_source", lambda chapter: (SOURCE, 218))
    monkeypatch.setattr(lens, "load_kneser_ney", lambda run: counts)
    baseline = SessionModel("kneser-ney", "3-gram counts · valid 94.1", counts)
    monkeypatch.setattr(comparison, "load_model_choice", lambda choice, runs_dir: replace(baseline, name=choice.name))


def set_age(path, minutes=0):
    os.utime(path, (time.time() - AGE - 60 * minutes,) * 2)


def write_session(model, *replies, started=STARTED, current=None):
    session = Session(model=model, started=started)
    for reply in replies:
        add_reply(session, reply)
    session.save(current_id=current)
    session.close()
    set_age(session.path)
    return session.path


def session_model_of(app):
    assert app.session_model is not None
    return app.session_model


# The session


def reply_of(id, text, **changes):
    ids = VOCABULARY.token_to_id
    tokens = [Token(ids[word], word, -2.0, 0.14, 3, 5.2, f" {word}") for word in text.split()]
    fields = {"settings": NUCLEUS, "tokens_per_second": 14_200.0, "tokens": tokens, "reason": "eos", **changes}
    return saved_reply(id, **fields)


FIRST_REPLY = reply_of(0, "a very old friend of mine and i think he knows it", prompt="Bilbo Baggins is")
BRANCH = {"prompt": None, "parent_id": 0, "parent_offset": 4, "seed": 8, "reason": "length"}


def save_session():
    """Write a session of two exchanges, the first with a branch at its fifth token, and return its file."""
    branch = reply_of(1, "pony that walked all night down from the north before winter came", **BRANCH)
    text = "he kept his promise and walked with our friend down from the high tower"
    last = reply_of(2, text, prompt="Where is the wizard", unknown_tokens=("wizard",))
    return write_session("bundled", FIRST_REPLY, branch, last)


def show_ended_training(app):
    view = view_of([*training_events(), finished(make_decoder())])
    app.state.training = SimpleNamespace(view=view, path=None, has_unsaved_progress=False, stop=lambda: None)
    app.screen.show_training()


async def session(pilot):
    """Two exchanges, the chart of a training, and an incomplete prompt."""
    app = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    await pilot.pause(0.1)
    assert app.screen.query_one(ConversationView).open_session(save_session())
    app.screen.query_one("#prompt", PromptInput).value = "the lamp"
    show_ended_training(app)
    await pilot.pause()


def after(name, scene, *keys, pause=0.0):
    """Return a scene of that name: another scene after some keys."""

    async def run(pilot):
        await scene(pilot)
        await pilot.press(*keys)
        await pilot.pause(pause)

    run.__name__ = name
    return run


next_word_pane = after("next_word_pane", session, "end", "tab")
cursor_mode = after("cursor_mode", session, "ctrl+g", "left", "left")  # with another alternative marked
branches = after("branches", session, "ctrl+g", "up", "right", "right")
search = after("search", session, "ctrl+f", *"the")
out_of_range = after("out_of_range", session, "ctrl+g", "o", *"40", "tab", *"1.5", "enter")


async def controls(pilot):
    """All sampling controls, one of them out of range."""
    await out_of_range(pilot)
    await until(pilot, lambda: "out of range" in text_of(pilot.app.screen.query_one("#problem")))


# Columns


async def _open(pilot, screen):
    await pilot.app.push_screen(screen)
    await pilot.pause()


async def open_columns(pilot, screen):
    await _open(pilot, screen)
    await until(pilot, lambda: isinstance(screen, LadderScreen) or (len(screen.slots) > 1 and not screen.is_loading))
    await until_columns_ended(pilot, screen)


async def ladder(pilot):
    await open_columns(pilot, LadderScreen(session_model_of(pilot.app), "the tower", TOP_K, 3, 0))


async def side_by_side_models(pilot):
    screen = SideBySideScreen(session_model_of(pilot.app), "the wizard of the tower", TOP_K, 3, 0)
    await open_columns(pilot, screen)


# Inspectors


def confident_model(app):
    """Return a model with low entropy, so that the lens shows words of every shade."""
    model = make_decoder()
    weights = {name: 3 * value for name, value in model.weights.items()}
    sure = NumpyLSTM(model.config, VOCABULARY, weights)
    return SessionModel("sure", "1 layer of 12 · valid 74.9", sure, run=app.state.runs_dir)


async def lens_text(pilot):
    """The lens with a text of three sentences, and the cursor on a word."""
    await open_inspector(pilot, LensScreen(confident_model(pilot.app), LENS_TEXT), "home", "n")


async def memorization(pilot):
    await open_inspector(pilot, CopiedScreen(session_model_of(pilot.app), REPLY_TEXT), "n")


def large_model(app):
    description = "2 layers of 200 · valid 74.9 (Kneser-Ney 94.1)"
    return SessionModel("two", description, make_random_lstm(200), run=app.state.runs_dir)


async def activations(pilot):
    await open_inspector(pilot, ActivationsScreen(large_model(pilot.app), LENS_TEXT), "space", "N")


async def attention(pilot):
    """The heads of the last layer on a word, with one head pinned."""
    screen = AttentionScreen(attention_session_model(VOCABULARY, num_layers=12, num_heads=9), LENS_TEXT)
    await open_inspector(pilot, screen, "down", "down", "down", "space", "N", "N")
    await pilot.pause(0.2)


# What each layer predicts, which replaces the other lists on a small terminal
logit_lens = after("logit_lens", attention, "tab", "tab", "up", pause=0.1)


# Sessions, runs and trainings


async def sessions(pilot):
    """Three saved sessions, one damaged and one with markup in its prompt."""
    save_session()
    older = replace(FIRST_REPLY, prompt="an older [red]prompt[/]")
    path = write_session("a model of a very long name, longer than others", older, started=1_000_000_000)
    set_age(path, minutes=2)
    broken = sessions_folder() / "broken.jsonl"
    broken.write_text("{}\n")
    set_age(broken, minutes=1)
    await _open(pilot, SessionsScreen())
    await until(pilot, lambda: pilot.app.screen.query_one(OptionList).option_count == 3)


palette = after("palette", sessions, "ctrl+p", pause=0.3)
help_screen = after("help_screen", sessions, "f1", pause=0.3)


def write_recorded_runs(runs_dir):
    """Write three runs, latest first: ring (with a model), shire and active; return the lock of the last one."""
    lock = None
    for number, (name, best, epochs) in enumerate((("ring", 70.0, 6), ("shire", 80.0, 6), ("active", 90.0, 3))):
        if name == "ring":
            path = write_run(runs_dir / name)
        else:
            config = Config("tiny").with_values(lr=0.1 * (3 - number))
            run = create_run(config, runs.VOCABULARY, name, runs_dir)
            path, lock = run.path, run.lock
        for epoch in range(epochs + 1):
            evaluated = Evaluated(10 * epoch, float(epoch), best + 90 * 0.5**epoch, True, float(epoch))
            append_events(path, [evaluated, Checkpointed(10 * epoch, MODEL_FILE)])
        if name != "active":
            append_events(path, [Finished("done", name, float(epochs), best, best + 2, 9.0)])
        if name == "shire":
            lock.close()
        set_age(path / "config.json", minutes=number)
        size = 4_200_000 - directory_size(path)
        (path / "padding").touch()
        os.truncate(path / "padding", size)
    return lock


async def compared_runs(pilot):
    """A marked run and the selected one, with their curves and differences."""
    app = pilot.app
    app.lock_of_active_run = write_recorded_runs(app.state.runs_dir)
    await _open(pilot, RunsScreen(app.state.runs_dir))
    await until(pilot, lambda: app.screen.query_one("#rows", OptionList).option_count >= 5)
    await pilot.press("slash", *"tiny", "enter")
    await until(pilot, lambda: app.screen.query_one("#rows", OptionList).option_count == 3)
    await pilot.press("s", "s", "home", "c", "space", "down", "down")
    await until(pilot, lambda: "\nresults" in lines_of(app.screen.query_one("#settings")))
    await pilot.pause(0.2)


DIAGNOSIS = Diagnosed(
    93, 9.0, "rising_validation",
    "validation perplexity rose from its best, 63.7 at epoch 5.0, to 71.2 in 4 evaluations; the model overfits",
    "lotr-tui stop tiny-test keeps the best model; next time --set patience=4 --set input_dropout=0.5",
)  # fmt: skip
LATER_EVENTS = (
    Checkpointed(93, "resume.safetensors"),
    CommandApplied(93, 9.0, "lr", "0.5"),
    Warned("runs/tiny-test/metrics.jsonl cannot be written: No space left on device; the training goes on"),
)


async def dashboard(pilot, *more_events):
    """The dashboard of a run of another process, which has no tiles of this machine, and the cursor on a sample."""
    view = view_of([*training_events(9, models=False), *LATER_EVENTS, *more_events])
    await _open(pilot, DashboardScreen(view, lambda command: None, attached=True))
    await pilot.pause(0.2)
    await pilot.press("left_square_bracket", "left_square_bracket")
    await pilot.pause(0.1)


async def diagnosed_training(pilot):
    await dashboard(pilot, DIAGNOSIS)


# Dialogs


async def export_dialog(pilot):
    """The dialog for the path of an export, with a path that cannot be written."""
    await sessions(pilot)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: pilot.app.screen.query("ExportDialog Input"))
    pilot.app.screen.query_one(Input).value = "/dev/full"
    await pilot.press("enter")
    await until(pilot, lambda: text_of(pilot.app.screen.query_one("#problem")))


async def quit_dialog(pilot):
    await dashboard(pilot)
    await _open(pilot, QuitDialog())


async def first_model_dialog(pilot):
    await session(pilot)
    await _open(pilot, FirstModelDialog())


async def new_training_dialog(pilot):
    """The dialog for a new training, with a corpus that does not exist."""
    await session(pilot)
    await _open(pilot, NewTrainingDialog("no/such.csv"))
    await pilot.press("enter")
    await until(pilot, lambda: text_of(pilot.app.screen.query_one("#problem")))
    await pilot.pause()
    # Whether the problem appears before or after the field is scrolled into view decides about a row.
    pilot.app.screen.query_one(".dialog").scroll_home(animate=False, immediate=True)
    await pilot.pause()


def write_runs(app):
    """Write two runs, the second with a name that is too long for its column."""
    for number, name in enumerate(("first", "a-run-whose-name-is-longer-than-its-column-is")):
        run = write_run(app.state.runs_dir / name)
        append_events(run, [Evaluated(1, 1.0, 70.5, True, 1.0), Checkpointed(1, MODEL_FILE)])
        set_age(run / "config.json", minutes=number)


async def model_dialog(pilot):
    write_runs(pilot.app)
    session_model = SessionModel("first", "", make_decoder(), run=pilot.app.state.runs_dir / "first")
    await _open(pilot, SideBySideScreen(session_model, "", NUCLEUS, 3, 0))
    await until(pilot, lambda: not pilot.app.screen.is_loading)
    pilot.app.screen.action_add_column()
    await until(pilot, lambda: isinstance(pilot.app.screen, ModelChoiceDialog))
    await pilot.pause()
