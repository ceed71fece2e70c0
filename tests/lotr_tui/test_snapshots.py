"""Snapshots of the screens in a dark and a light theme and without colour.

Run `pytest --snapshot-update` after an intended change, and look at the new pictures.
"""

from collections.abc import Callable

import pytest

from lotr_tui.app import LotrApp
from tests.support import attention_scenes, dialogue_scenes, open_scenes, scenes
from tests.support import dialogue_inspector_scenes as inspector_scenes
from tests.support.learn_scenes import attention as learn_attention
from tests.support.learn_scenes import counting as learn_counting
from tests.support.learn_scenes import frame as learn_frame
from tests.support.learn_scenes import memory as learn_memory
from tests.support.learn_scenes import perplexity as learn_perplexity
from tests.support.learn_scenes import sampling as learn_sampling
from tests.support.learn_scenes import training as learn_training
from tests.support.open_inspectors import use_training_text
from tests.support.scenes import Scene

Variant = tuple[str, tuple[int, int]]
COLOURLESS = "colourless"

SMALL: list[Variant] = [("shire", (80, 24)), (COLOURLESS, (60, 20))]
"""For a dialog above another screen."""
NARROW: list[Variant] = [("shire", (60, 20)), ("shire-light", (80, 24))]
"""For panes that a wide terminal shows in another place."""
ALL: list[Variant] = [("shire", (160, 45)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]
"""Each size and each theme once; the colours of a widget depend on the theme alone."""

TABLE: list[tuple[Scene, list[Variant]]] = [
    (scenes.session, [*ALL, *SMALL[:1], *NARROW[:1], ("ansi-light", (100, 30))]),
    (scenes.next_word_pane, NARROW),
    (scenes.training_pane, NARROW),
    (scenes.cursor_mode, ALL),
    (scenes.branches, ALL),
    (scenes.search, SMALL),
    (scenes.controls, ALL),
    (scenes.reply_mode, SMALL),
    (dialogue_scenes.first_conversation, [("shire", (120, 35)), (COLOURLESS, (60, 20))]),
    (dialogue_scenes.conversation, [*ALL, ("shire-light", (120, 35)), ("ansi-dark", (80, 24))]),
    (dialogue_scenes.who_answers_pane, NARROW),
    (dialogue_scenes.answers, [ALL[0], SMALL[1]]),
    (dialogue_scenes.cast_dialog, [*SMALL, ("shire-light", (120, 35))]),
    (scenes.ladder, ALL),
    (scenes.side_by_side_models, ALL),
    (scenes.lens_text, ALL),
    (scenes.lens_sentences, NARROW),
    (inspector_scenes.script_lens, [("shire", (120, 35)), *SMALL]),
    (inspector_scenes.who_lens, ALL),
    (inspector_scenes.pair_lens, [*ALL[1:], ("ansi-light", (100, 30))]),
    (inspector_scenes.speaker_pair_dialog, SMALL),
    (inspector_scenes.speakers_side_by_side, ALL[1:]),
    (inspector_scenes.column_dialog, SMALL),
    (inspector_scenes.speaker_ladder, ALL[1:]),
    (scenes.memorization, ALL),
    (scenes.activations, ALL),
    (scenes.top_activations, ALL),
    (attention_scenes.attention, [("shire", (200, 50)), ("shire", (120, 35)), ("ansi-light", (120, 35)), *ALL[1:]]),
    (attention_scenes.attended_words, NARROW),
    (attention_scenes.head_along_text, [("shire", (120, 35)), *NARROW]),
    (attention_scenes.logit_lens, [*NARROW, (COLOURLESS, (60, 20))]),
    (attention_scenes.open_vocabulary_attention, [ALL[0], NARROW[1]]),
    (scenes.sessions, ALL),
    (scenes.help_screen, ALL),
    (scenes.palette, SMALL),
    (scenes.name_dialog, SMALL),
    (scenes.path_dialog, SMALL),
    (scenes.export_dialog, SMALL),
    (scenes.confirm_dialog, SMALL),
    (scenes.quit_dialog, SMALL),
    (scenes.new_training_dialog, SMALL),
    (scenes.model_dialog, SMALL),
    (open_scenes.byte_pairs, ALL),
    (open_scenes.characters, ALL),
    (open_scenes.open_ladder, SMALL),
    (open_scenes.open_side_by_side, SMALL),
    (open_scenes.tokens_of_bars, [ALL[0], SMALL[0]]),
    (open_scenes.open_lens, [ALL[0], ALL[2]]),
    (open_scenes.open_memorization, SMALL[:1]),
    (open_scenes.open_activations, [ALL[0], ALL[2]]),
    (open_scenes.open_top_activations, [("shire-light", (120, 35))]),
    (learn_frame.learn_tokens, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_frame.learn_tokens_figure, NARROW[:1]),
    (learn_frame.learn_done, [("shire", (80, 24)), ("ansi-light", (120, 35))]),
    (learn_frame.learn_contents, SMALL),
    (learn_frame.learn_source, [("shire", (80, 24)), ("shire-light", (120, 35))]),
    (learn_frame.learn_too_small, [("shire", (38, 10))]),
    (learn_counting.learn_counting, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_counting.learn_counting_trigram, [("shire", (60, 20)), ("ansi-dark", (200, 50))]),
    (learn_sampling.learn_sampling, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_sampling.learn_sampling_figure, [("shire", (60, 20)), ("ansi-dark", (200, 50))]),
    (
        learn_perplexity.learn_perplexity,
        [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20)), ("ansi-dark", (200, 50))],
    ),
    (learn_memory.learn_memory, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_memory.learn_memory_kept, [("shire", (80, 24)), ("ansi-dark", (200, 50))]),
    (learn_training.learn_training, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_training.learn_training_start, [("shire", (60, 20)), ("ansi-dark", (200, 50))]),
    (learn_training.learn_overfitting, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_attention.learn_attention, [("shire", (120, 35)), ("shire-light", (80, 24)), (COLOURLESS, (60, 20))]),
    (learn_attention.learn_attention_models, [("shire", (60, 20)), ("shire", (80, 24)), ("ansi-dark", (200, 50))]),
]


@pytest.mark.parametrize(
    ("scene", "theme", "size"),
    [
        pytest.param(scene, theme, size, id=f"{scene.__name__}-{theme}-{size[0]}x{size[1]}")
        for scene, variants in TABLE
        for theme, size in variants
    ],
)
def test_snapshot(
    snap_compare: Callable[..., bool],
    make_app: Callable[..., LotrApp],
    monkeypatch: pytest.MonkeyPatch,
    scene: Scene,
    theme: str,
    size: tuple[int, int],
) -> None:
    scenes.make_deterministic(monkeypatch)
    if scene in open_scenes.TRAINING_TOKENIZERS:
        use_training_text(monkeypatch, open_scenes.TRAINING_TOKENIZERS[scene]())
    if theme == COLOURLESS:
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "ansi-dark"
    assert snap_compare(make_app(theme=theme), terminal_size=size, run_before=scene)
