"""Memory of the decoder states that a conversation keeps to branch from."""

import pytest

from engine.generation.settings import SamplerSettings
from engine.models.cache import CHUNK_ROWS, CacheSettings, NeuralCache
from engine.models.dialogue import DialogueModel
from lotr_tui.session.conversation import state_cache
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.state_cache import count_array_bytes, state_arrays
from lotr_tui.session.session_model import SessionModel
from tests.support.dialogues import dialogue_model, finish_scene

HIDDEN_SIZE = 12


def cached_model() -> DialogueModel:
    """Return a dialogue model with a neural cache, whose states share the hidden vectors of the tokens before."""
    model = dialogue_model()
    return DialogueModel(NeuralCache(model.model, CacheSettings(window=200, theta=0.4, weight=0.1)), model.turn_model)


def test_arrays_that_states_share_count_once(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 300_000
    monkeypatch.setattr(state_cache, "MAX_CACHE_BYTES", limit)
    conversation.go_on(SessionModel("cached", "", cached_model()), None, 40, SamplerSettings(max_tokens=20), 3, None)
    turns = finish_scene(conversation)
    states = [state for turn in turns for state in turn.decoder_states if state is not None]
    arrays = {id(array): array for state in states for array in state_arrays(state)}
    chunk_bytes = 4 * CHUNK_ROWS * HIDDEN_SIZE
    assert any(array.nbytes == chunk_bytes for array in arrays.values())
    num_bytes = sum(array.nbytes for array in arrays.values())
    num_shared_chunks = 200 // CHUNK_ROWS + 1  # arrays of evicted states that later states still use
    assert limit // 2 < num_bytes < limit + num_shared_chunks * chunk_bytes
    assert sum(map(count_array_bytes, states)) > 2 * limit
