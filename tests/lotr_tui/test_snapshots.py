"""Snapshots: each screen at 120x35, and at a smaller size where its layout changes; each theme appears among them.

Run `pytest --snapshot-update` after an intended change, and look at the new pictures.
"""

import pytest

from tests.support import dialogue_scenes, scenes
from tests.support import learn_scenes as learn

NORMAL, SMALL, TINY = (120, 35), (80, 24), (60, 20)
COLOURLESS = "colourless"

SESSION = [
    (scenes.session, "shire", NORMAL), (scenes.session, COLOURLESS, TINY), (scenes.next_word_pane, "shire", TINY),
    (scenes.cursor_mode, "shire-light", NORMAL), (scenes.branches, "shire", NORMAL),
    (scenes.controls, "ansi-light", NORMAL), (dialogue_scenes.first_conversation, "shire", NORMAL),
    (dialogue_scenes.conversation, "shire-light", NORMAL), (dialogue_scenes.conversation, COLOURLESS, TINY),
    (dialogue_scenes.answers, "ansi-dark", NORMAL), (dialogue_scenes.cast_dialog, "shire-light", NORMAL),
    (scenes.first_model_dialog, "shire", NORMAL), (scenes.first_model_dialog, COLOURLESS, TINY),
    (scenes.new_training_dialog, "shire", NORMAL), (scenes.new_training_dialog, COLOURLESS, TINY),
]  # fmt: skip
"""Scenes in the app with its session; the others open on an empty screen."""
OTHERS = [
    (scenes.ladder, "shire", NORMAL), (scenes.ladder, COLOURLESS, TINY), (scenes.model_dialog, "shire", NORMAL),
    (scenes.side_by_side_models, "shire-light", NORMAL), (dialogue_scenes.speakers_side_by_side, "shire", NORMAL),
    (scenes.lens_text, "shire", NORMAL), (scenes.lens_text, COLOURLESS, TINY),
    (dialogue_scenes.who_lens, "shire", NORMAL), (dialogue_scenes.who_lens, COLOURLESS, TINY),
    (scenes.memorization, "shire", NORMAL),
    (scenes.activations, "shire-light", NORMAL), (scenes.activations, COLOURLESS, TINY),
    (scenes.attention, "ansi-light", NORMAL), (scenes.attention, COLOURLESS, TINY), (scenes.logit_lens, "shire", TINY),
    (scenes.sessions, "shire", NORMAL), (scenes.sessions, COLOURLESS, TINY), (scenes.palette, "shire", NORMAL),
    (scenes.export_dialog, "shire", SMALL), (scenes.help_screen, "shire", NORMAL),
    (scenes.compared_runs, "shire", NORMAL), (scenes.compared_runs, COLOURLESS, TINY),
    (scenes.dashboard, "shire", NORMAL), (scenes.dashboard, COLOURLESS, TINY),
    (scenes.diagnosed_training, "shire-light", SMALL), (scenes.quit_dialog, "ansi-dark", NORMAL),
    (learn.learn_tokens, "shire", NORMAL), (learn.learn_tokens_figure, "shire", TINY),
    (learn.learn_contents, COLOURLESS, TINY), (learn.learn_source, "shire-light", NORMAL),
    (learn.learn_counting, "shire", NORMAL), (learn.learn_counting_trigram, "shire", TINY),
    (learn.learn_sampling, "shire", NORMAL), (learn.learn_perplexity, "shire", NORMAL),
    (learn.learn_memory, "shire", NORMAL), (learn.learn_training, "shire", NORMAL),
    (learn.learn_overfitting, "shire", NORMAL), (learn.learn_attention, "shire", NORMAL),
    (learn.learn_attention_models, "shire", SMALL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "theme", "size"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[1]}-{row[2][0]}x{row[2][1]}") for row in SESSION + OTHERS],
)
def test_snapshot(snap_compare, make_app, make_host, monkeypatch, scene, theme, size):
    scenes.make_deterministic(monkeypatch)
    if theme == COLOURLESS:
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "ansi-dark"
    make = make_app if scene in {row[0] for row in SESSION} else make_host
    assert snap_compare(make(theme=theme), terminal_size=size, run_before=scene)
