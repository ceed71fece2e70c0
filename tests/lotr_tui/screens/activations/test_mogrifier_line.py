"""Tests of the line that shows the factors of a mogrifier."""

import numpy as np
import pytest

from engine.analysis.activations import record_activations
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import ModelConfig
from lotr_tui.screens.activations.mogrifier_line import EXPLANATION, mogrifier_line
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.status_bar import StatusBar
from tests.support.analysis import ACTIVATIONS_TEXT, MakeHost, open_activations, status_text
from tests.support.app import VOCABULARY
from tests.support.models import random_lstm

FACTORS = [np.array(values, np.float32) for values in ([0.5, 1.5, 1.0], [2.0, 1.0], [1.0, 0.2, 1.2])]


@pytest.mark.parametrize(
    ("width", "line", "explanation"),
    [
        (
            170,
            "mogrifier  layer input ×1.00 (0.5–1.5)  hidden ×1.50 (1.0–2.0)  layer input ×0.80 (0.2–1.2)",
            EXPLANATION,
        ),
        (92, "mogrifier  layer input ×1.00 (0.5–1.5)  hidden ×1.50 (1.0–2.0)  layer input ×0.80 (0.2–1.2)", ""),
        (64, "mogrifier  layer input ×1.00  hidden ×1.50  layer input ×0.80", ""),
        (30, "mogrifier  layer input ×0.67  hidden ×1.50", ""),  # 0.5 x 1.0, 1.5 x 0.2 and 1.0 x 1.2
    ],
)
def test_the_line_has_as_many_details_as_fit(width: int, line: str, explanation: str) -> None:
    assert mogrifier_line(FACTORS, width) == (line, explanation)


async def test_the_line_follows_word_and_layer(make_host: MakeHost, session_model: SessionModel) -> None:
    config = ModelConfig(embedding_size=6, hidden_size=8, num_layers=2, mogrifier_rounds=2, mogrifier_rank=3)
    lstm = random_lstm(config, VOCABULARY, seed=1)
    ids = tokenize_with_offsets(ACTIVATIONS_TEXT, VOCABULARY, eos_per_line=True).ids
    layers = record_activations(lstm, ids)
    app = make_host(session_model=session_model)

    def expected(layer: int, position: int) -> str:
        return mogrifier_line([factors[position] for factors in layers[layer].mogrifier], 78)[0]

    async with app.run_test(size=(92, 24)) as pilot:
        await open_activations(pilot, SessionModel("mogrified", "2 layers", lstm))
        assert status_text(app, "#mogrifier") == expected(0, len(ids) - 1)
        await pilot.press("comma")
        assert status_text(app, "#mogrifier") == expected(0, len(ids) - 2)
        await pilot.press("f2")
        assert status_text(app, "#mogrifier") == expected(1, len(ids) - 2)
        await pilot.press("escape")
        await open_activations(pilot, session_model)
        assert not app.screen.query_one("#mogrifier", StatusBar).display
