"""Models by others against transformers itself: distributions, kept states, batches and full contexts."""

from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy

import numpy as np
import pytest
import torch

from engine.data.tokenizers import EOS_ID
from engine.models.base import advance_tokens, score_sequence
from engine.models.pretrained.loading import PretrainedModel, load_pretrained
from tests.support.pretrained import CONTEXT_SIZE, VOCABULARY_SIZE, save_model

transformers = pytest.importorskip("transformers")

START, END = 0, 2  # Ids of <|endoftext|> and <|im_end|> in the tiny vocabulary
FAMILIES = [
    "llama",
    "mistral",
    *(pytest.param(family, marks=pytest.mark.slow) for family in ("gpt2", "gpt_neox", "gemma2")),
    "mamba",
]  # families with a buffer of keys and values, one that slides, and one that has none; the others are slow


def random_ids(num, seed=0):
    return np.random.default_rng(seed).integers(3, VOCABULARY_SIZE, num).tolist()


def reference_rows(module, model_ids):
    """Return the distributions `[time, vocabulary]` after each of the model's ids, as our vocabulary has them.

    Computed from the definition: both end tokens are one event, at id 1, and id 1 is exchanged with the end token.
    """
    with torch.inference_mode():
        logits = module(torch.tensor([model_ids]), use_cache=False).logits[0].double()
    probs = torch.softmax(logits, -1).numpy()
    swapped = probs.copy()
    swapped[:, EOS_ID] = probs[:, END] + probs[:, START]
    swapped[:, END] = probs[:, 1]
    swapped[:, START] = 0
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(swapped), -1e4)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_equal_those_of_transformers_token_by_token_and_in_one_pass(family, pretrained, folders):
    model, ids = pretrained(family), random_ids(CONTEXT_SIZE - 1)
    module = transformers.AutoModelForCausalLM.from_pretrained(folders(family)).eval()
    expected = reference_rows(module, [START, *ids])
    log_probs, state = model.advance(model.start(), EOS_ID)
    rows = [log_probs]
    for token in ids:
        log_probs, state = model.advance(state, token)
        rows.append(log_probs)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert all(row.dtype == np.float32 and len(row) == len(model.tokenizer) for row in rows)
    first, state = model.predict_tokens(model.start(), [EOS_ID, *ids[:20]])
    rest, _ = model.predict_tokens(state, ids[20:])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, atol=1e-4)
    last, _ = model.predict_tokens(state, ids[20:], last_only=True)
    np.testing.assert_allclose(last, expected[-1:], atol=1e-4)
    array = np.array(ids, np.int32)
    np.testing.assert_allclose(score_sequence(model, array), expected[np.arange(len(ids)), ids], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_state_can_be_continued_in_several_ways(family, pretrained):
    model = pretrained(family)
    _, state = advance_tokens(model, model.start(), [EOS_ID, *random_ids(8)])
    continuations = [random_ids(10, seed) for seed in (1, 2, 1)]
    branches = [advance_tokens(model, state, tokens)[1] for tokens in continuations]
    for branch, tokens in zip(branches, continuations, strict=True):
        expected, _ = advance_tokens(model, model.start(), [EOS_ID, *random_ids(8), *tokens, 9])
        np.testing.assert_allclose(model.advance(branch, 9)[0], expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(3, 9, 1), (CONTEXT_SIZE - 1, 6, 2)])
def test_a_batch_equals_each_text_alone(family, lengths, pretrained):
    model = pretrained(family)
    states = [
        advance_tokens(model, model.start(), [EOS_ID, *random_ids(length, seed)])[1]
        for seed, length in enumerate(lengths)
    ]
    alone = list(states)
    for step in range(6):  # the longest text slides on the way
        tokens = random_ids(len(states), 50 + step)
        batch = model.advance_batch(states, tokens)
        single = [model.advance(state, token) for state, token in zip(alone, tokens, strict=True)]
        for (log_probs, _), (expected, _) in zip(batch, single, strict=True):
            np.testing.assert_allclose(log_probs, expected, atol=1e-4)
        states, alone = [state for _, state in batch], [state for _, state in single]
    # A text of the batch can be continued alone, and some of the texts together.
    np.testing.assert_allclose(model.advance(states[1], 7)[0], model.advance(alone[1], 7)[0], atol=1e-4)
    rest = model.advance_batch(states[1:], [8, 9])
    for (log_probs, _), state, token in zip(rest, alone[1:], [8, 9], strict=True):
        np.testing.assert_allclose(log_probs, model.advance(state, token)[0], atol=1e-4)


@pytest.mark.parametrize(("family", "setting"), [("llama", "max_position_embeddings"), ("gpt2", "n_positions")])
def test_a_full_context_slides_by_rereading_its_last_half(family, setting, tmp_path):
    size = 16
    module = save_model(tmp_path, family, **{setting: size})
    model, ids = load_pretrained(f"hf:{tmp_path}"), random_ids(40)
    assert model.context_size == size
    read, state, window = [START], model.advance(model.start(), EOS_ID)[1], [START]
    expected = []
    for count, token in enumerate(ids, 2):
        if len(window) == size:
            window = window[-size // 2 :]
        window.append(token)
        read.append(token)
        log_probs, state = model.advance(state, token)
        expected.append(reference_rows(module, window)[-1])
        np.testing.assert_allclose(log_probs, expected[-1], atol=1e-4)
        assert state.num_positions == len(window)
        assert model.has_slid(state) == (count > size)
    rows, last = model.predict_tokens(model.start(), [EOS_ID, *ids])
    np.testing.assert_allclose(rows[1:], expected, atol=1e-4)
    assert last.tokens.tolist() == window
    scores = score_sequence(model, np.array(ids, np.int32))
    np.testing.assert_allclose(scores[1:], [row[id] for row, id in zip(expected, ids[1:], strict=False)], atol=1e-4)


def test_threads_may_continue_the_same_state(pretrained):
    model = pretrained("gpt2")
    _, state = advance_tokens(model, model.start(), [EOS_ID, *random_ids(10)])

    def continue_text(seed):
        return advance_tokens(model, state, random_ids(20, seed))[0]

    expected = [continue_text(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(continue_text, range(8)))
    np.testing.assert_allclose(results, expected, atol=1e-5)


def test_a_model_without_a_cache_predicts_the_same(pretrained):
    fast = pretrained("llama")
    slow = copy(fast)
    slow.has_cache = False
    ids = random_ids(CONTEXT_SIZE + 20)
    expected, _ = fast.predict_tokens(fast.start(), [EOS_ID, *ids])
    first, state = slow.predict_tokens(slow.start(), [EOS_ID, *ids[:50]])
    rest, _ = slow.predict_tokens(state, ids[50:])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, atol=1e-4)
    batch = slow.advance_batch([state, state], ids[50:52])
    np.testing.assert_allclose(batch[0][0], expected[51], atol=1e-4)
    np.testing.assert_allclose(slow.advance(state, ids[50])[0], expected[51], atol=1e-4)


@pytest.mark.parametrize(("kind", "has_cache"), [("sliding_attention", True), ("linear_attention", False)])
def test_only_layers_that_can_forget_tokens_have_a_cache(kind, has_cache, pretrained):
    model = pretrained("llama")
    module = copy(model.module)
    module.config = deepcopy(module.config)
    module.config.layer_types = ["full_attention", kind]
    assert PretrainedModel(module, lambda *_: (model.tokenizer, model.chat), "").has_cache is has_cache


def test_the_states_of_a_text_share_its_keys_and_values(pretrained):
    model = pretrained("llama")
    states = [model.predict_tokens(model.start(), [EOS_ID, *random_ids(8)])[1]]
    for token in random_ids(5):
        states.append(model.advance(states[-1], token)[1])
    assert len({id(state.texts) for state in states}) == 1
    assert states[0].texts.cache.get_seq_length() == len(states[-1].tokens)
    assert model.advance(states[2], 9)[1].texts is not states[2].texts
