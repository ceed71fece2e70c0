"""Memory of the states of a Transformer, whose key-value caches are shared."""

from lotr_tui.session.conversation.state_cache import state_arrays
from tests.support.models import make_tokenizer
from tests.support.numpy_transformer import random_transformer


def test_following_states_share_their_arrays() -> None:
    model = random_transformer(make_tokenizer(11), context_size=90)
    _, state = model.advance_tokens(model.start(), [1] * 60)
    _, following = model.advance(state, 3)
    _, branch = model.advance(state, 4)
    arrays = {id(array): array.nbytes for array in state_arrays(state)}
    own = [array for array in state_arrays(following) if id(array) not in arrays]
    assert [array.shape for array in own] == [(8,)]  # the hidden vector
    added = sum(array.nbytes for array in state_arrays(branch) if id(array) not in arrays)
    assert 0 < added < sum(arrays.values())


def test_all_keys_and_values_are_counted_once() -> None:
    model = random_transformer(make_tokenizer(11), context_size=90)
    _, state = model.advance_tokens(model.start(), [1] * 60)
    rows = [array for array in state_arrays(state) if array.ndim == 4]
    assert len(rows) == model.config.num_layers
    assert all(array.flags.owndata for array in rows)
    assert sum(array.nbytes for array in rows) >= 2 * 2 * 60 * 8 * 4  # keys and values, layers, tokens, width, bytes
