"""Opening a session with a model by others: progress on the screen, failures, and a tiny Llama from a folder."""

import threading
from pathlib import Path

import pytest
from textual.widgets import Label

from engine.errors import RunError
from engine.models.pretrained.loading import LoadingProgress
from engine.models.pretrained.names import parse_pretrained_name
from lotr_tui.app import LotrApp
from lotr_tui.cli import launch
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.conversation.entries import Note
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.pilot import MakeApp, bars_text, entries, latest_reply, reply_to, send, text_of, until
from tests.support.slow_models import FakeSlowModel, slow_session_model


class HeldLoading:
    """Replacement for `load_pretrained_session_model` that waits after its first step."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.failure: Exception | None = None
        self.model = FakeSlowModel()

    def __call__(self, name: str, on_progress: object = None) -> SessionModel:
        assert callable(on_progress)
        on_progress(LoadingProgress("reading the weights", 2**30))
        assert self.released.wait(10)
        if self.failure is not None:
            raise self.failure
        return slow_session_model(self.model)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> HeldLoading:
    loading = HeldLoading()
    monkeypatch.setattr("lotr_tui.session.session_model.load_pretrained_session_model", loading)
    return loading


@pytest.fixture
def loader(tmp_path: Path) -> ModelLoader:
    file = tmp_path / "slowpoke.gguf"
    file.write_bytes(b"GGUF")
    return ModelLoader(parse_pretrained_name(f"gguf:{file}"))


async def test_progress_and_memory_are_shown_and_keys_are_handled(
    make_app: MakeApp, loading: HeldLoading, loader: ModelLoader
) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#loading"))
        await until(pilot, lambda: "reading the weights" in text_of(app.screen.query_one("#loading")))
        text = text_of(app.screen.query_one("#loading"))
        assert text.startswith("loading slowpoke: reading the weights · needs 1.0 GiB of ")
        assert "available" in text
        await pilot.press(*"hello")
        assert app.screen.query_one("#prompt", PromptInput).value == "hello"
        await pilot.press("enter")
        loading.released.set()
        await until(pilot, lambda: app.screen.query(ConversationView) and latest_reply_or_none(app))
        assert latest_reply(app).prompt == "hello"
        assert not app.screen.query("#loading")


def latest_reply_or_none(app: LotrApp) -> object:
    return app.screen.query_one(ConversationView).conversation.current_reply


async def test_failure_is_one_line_and_the_session_continues(
    make_app: MakeApp, loading: HeldLoading, loader: ModelLoader
) -> None:
    app = make_app(session_model=None, load_session_model=loader)
    loading.failure = RunError("gguf:slowpoke.gguf is damaged; download it again")
    loading.released.set()
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#no-model"))
        text = text_of(app.screen.query_one("#no-model", Label))
        assert text.startswith("No model: gguf:slowpoke.gguf is damaged; download it again\n")
        assert not app.screen.query("#loading")
        loading.failure = None
        await send(pilot, f"/model {loader.source.name}")
        await until(pilot, lambda: app.screen.is_ready)  # type: ignore[attr-defined]
        assert "Say something to Slowpoke-1B" in "".join(entries(app, Note))


def test_model_by_others_is_loaded_after_the_first_paint(monkeypatch: pytest.MonkeyPatch, loader: ModelLoader) -> None:
    apps: list[LotrApp] = []
    monkeypatch.setattr(launch, "run_app", lambda app, mouse: apps.append(app) or 0)
    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}", type("Terminal", (), {"isatty": lambda self: True, "write": print})())
    launch.open_session([loader.source.name])
    assert apps[0].session_model is None
    assert isinstance(apps[0]._load_session_model, ModelLoader)


async def test_tiny_llama_from_a_folder(make_app: MakeApp, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.support.pretrained import CONTEXT_SIZE, save_model

    folder = tmp_path / "tiny-llama"
    save_model(folder, "llama")
    loader = ModelLoader(parse_pretrained_name(f"hf:{folder}"))
    app = make_app(session_model=None, load_session_model=loader)
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.is_ready, 60)  # type: ignore[attr-defined]
        assert "Say something to tiny-llama" in "".join(entries(app, Note))
        reply = await reply_to(pilot, "Where is the Ring?")
        assert reply.is_chat
        assert reply.tokens
        await until(pilot, lambda: "NEXT TOKEN" in bars_text(app))
        note = f"The context of {CONTEXT_SIZE} tokens is full; the model now forgets the oldest half."
        for _ in range(4):
            await reply_to(pilot, "It is safe, for tonight.")
        assert entries(app, Note).count(note) == 1
        await pilot.press("ctrl+g", "left", "2")
        await until(pilot, lambda: app.screen.query_one(ConversationView).conversation.active_reply is None)
        assert len(latest_reply(app).turn.replies) == 2
