import numpy as np
import pytest
import torch

from engine.data.tokenizers.base import EOS_ID
from engine.generation.batch import GenerationRequest, generate_batch
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.models.attention import AttentionModel
from engine.models.base import (
    BatchModel,
    DistributionModel,
    HiddenVectorModel,
    ParallelModel,
    SequenceScorer,
    advance_tokens,
)
from engine.models.pretrained.contexts import BufferReader, CopyReader, RereadReader
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.model import PretrainedModel
from tests.support.pretrained import CONTEXT_SIZE, VOCABULARY_SIZE, save_model

transformers = pytest.importorskip("transformers")

START, END = 0, 2
"""Ids of <|endoftext|> and <|im_end|> in the tiny vocabulary."""
FAMILIES = ["llama", "gpt2", "mistral", "gpt_neox", "gemma2", "mamba"]


def random_ids(num, seed=0):
    """Return ids of ordinary tokens."""
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
def test_log_probs_equal_those_of_transformers_token_by_token(family, pretrained, references):
    model, ids = pretrained(family), random_ids(CONTEXT_SIZE - 1)
    expected = reference_rows(references(family), [START, *ids])
    log_probs, state = model.advance(model.start(), EOS_ID)
    rows = [log_probs]
    for token in ids:
        log_probs, state = model.advance(state, token)
        rows.append(log_probs)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert all(row.dtype == np.float32 and len(row) == len(model.tokenizer) for row in rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_equal_those_of_transformers_in_one_pass(family, pretrained, references):
    model, ids = pretrained(family), random_ids(CONTEXT_SIZE - 1)
    expected = reference_rows(references(family), [START, *ids])
    first, state = model.predict_tokens(model.start(), [EOS_ID, *ids[:20]])
    rest, _ = model.predict_tokens(state, ids[20:])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, atol=1e-4)
    last, _ = model.advance_tokens(state, ids[20:])
    np.testing.assert_allclose(last, expected[-1], atol=1e-4)
    array = np.array(ids, np.int32)
    targets = expected[np.arange(len(ids)), ids]
    np.testing.assert_allclose(model.score_sequence(array), targets, atol=1e-4)
    np.testing.assert_allclose(list(model.iter_log_probs(array)), expected[: len(ids)], atol=1e-4)


def test_log_probs_of_200_tokens_equal_those_of_transformers(tmp_path):
    module = save_model(tmp_path, "llama", max_position_embeddings=512)
    model, ids = load_pretrained(f"hf:{tmp_path}"), random_ids(300)
    expected = reference_rows(module, [START, *ids])
    rows, state = model.predict_tokens(model.start(), [EOS_ID, *ids[:100]])
    for index, token in enumerate(ids[100:], 101):  # the buffer of 256 positions grows on the way
        log_probs, state = model.advance(state, token)
        np.testing.assert_allclose(log_probs, expected[index], atol=1e-4)
    np.testing.assert_allclose(rows, expected[:101], atol=1e-4)




@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_state_can_be_continued_in_several_ways(family, pretrained):
    model = pretrained(family)
    first, second = random_ids(10, 1), random_ids(10, 2)
    _, state = advance_tokens(model, model.start(), [EOS_ID, *random_ids(8)])
    results = []
    for tokens in (first, second, first):
        log_probs, branch = model.advance_tokens(state, tokens)
        results.append((log_probs, branch))
    np.testing.assert_allclose(results[0][0], results[2][0], atol=1e-5)
    assert np.abs(results[0][0] - results[1][0]).max() > 0.01
    # The branches can be continued too, each after the other.
    fresh = [
        advance_tokens(model, model.start(), [EOS_ID, *random_ids(8), *tokens, 9])[0] for tokens in (first, second)
    ]
    for (_, branch), expected in zip(results, fresh, strict=False):
        np.testing.assert_allclose(model.advance(branch, 9)[0], expected, atol=1e-4)


def test_following_states_share_a_buffer_and_a_branch_copies_it(pretrained):
    model = pretrained("llama")
    _, state = model.advance(model.start(), EOS_ID)
    _, second = model.advance(state, 5)
    _, third = model.advance(second, 6)
    _, branch = model.advance(second, 7)
    assert second.context.buffer is third.context.buffer
    assert branch.context.buffer is not third.context.buffer
    assert third.context.tokens == [START, 5, 6]
    assert branch.context.tokens == [START, 5, 7]




@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 9, 1), (CONTEXT_SIZE - 1, 6, 2)])
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
        assert model.num_positions(state) == len(window)
        assert model.has_slid(state) == (count > size)
    rows, last = model.predict_tokens(model.start(), [EOS_ID, *ids])
    np.testing.assert_allclose(rows[1:], expected, atol=1e-4)
    assert last.context.tokens == window
    scores = model.score_sequence(np.array(ids, np.int32))
    np.testing.assert_allclose(scores[1:], [row[id] for row, id in zip(expected, ids[1:], strict=False)], atol=1e-4)


def test_the_hidden_vector_leads_to_the_next_token(pretrained, references):
    model, module = pretrained("llama"), references("llama")
    assert model.hidden_vector(model.start()).shape == (0,)
    log_probs, state = model.advance_tokens(model.start(), [EOS_ID, *random_ids(5)])
    logits = module.lm_head(torch.from_numpy(model.hidden_vector(state)))
    expected = torch.log_softmax(logits, -1).detach().numpy()
    np.testing.assert_allclose(log_probs[3:], expected[3:], atol=1e-4)




def test_texts_are_generated_with_the_sampler_chain_alone_and_in_a_batch(pretrained):
    model = pretrained("llama")
    ids, settings = random_ids(6), SamplerSettings(max_tokens=12, temperature=0.8, repetition_penalty=1.2)
    seeds = (3, 4, 5)
    alone = [
        [event.id for event in generate(model, ids, settings, seed) if isinstance(event, TokenEvent)] for seed in seeds
    ]
    assert all(alone)
    state = prefill(model, ids)
    together = [[] for _ in seeds]
    for step in generate_batch(model, [GenerationRequest(state, tuple(ids), settings, seed) for seed in seeds]):
        for index, event in step:
            if isinstance(event, TokenEvent):
                together[index].append(event.id)
    assert together == alone


def test_threads_may_continue_the_same_state(pretrained):
    from concurrent.futures import ThreadPoolExecutor

    model = pretrained("gpt2")
    _, state = advance_tokens(model, model.start(), [EOS_ID, *random_ids(10)])

    def continue_text(seed):
        return advance_tokens(model, state, random_ids(20, seed))[0]

    expected = [continue_text(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(continue_text, range(8)))
    np.testing.assert_allclose(results, expected, atol=1e-5)


@pytest.mark.parametrize(
    "new_reader",
    [
        lambda forward: CopyReader(forward, one_by_one=False),
        lambda forward: CopyReader(forward, one_by_one=True),
        RereadReader,
    ],
)
def test_slower_ways_to_keep_a_text_predict_the_same(new_reader, pretrained):
    fast = pretrained("llama")
    slow = PretrainedModel(fast._forward, new_reader(fast._forward), fast.tokenizer, fast.info)
    ids = random_ids(CONTEXT_SIZE + 20)
    expected, _ = fast.predict_tokens(fast.start(), [EOS_ID, *ids])
    first, state = slow.predict_tokens(slow.start(), [EOS_ID, *ids[:50]])
    rest, _ = slow.predict_tokens(state, ids[50:])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, atol=1e-4)
    batch = slow.advance_batch([state, state], ids[50:52])
    np.testing.assert_allclose(batch[0][0], expected[51], atol=1e-4)
    np.testing.assert_allclose(slow.advance(state, ids[50])[0], expected[51], atol=1e-4)


def test_a_kept_distribution_does_not_keep_the_logits_of_the_whole_text(pretrained, monkeypatch):
    model = pretrained("llama")
    monkeypatch.setattr(model._forward, "_last_logits_argument", None)  # as for models that compute all logits
    log_probs, _ = model.advance_tokens(model.start(), [EOS_ID, *random_ids(10)])
    owner = log_probs
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    kept = owner.base.untyped_storage().nbytes() if isinstance(owner.base, torch.Tensor) else owner.nbytes
    assert kept == log_probs.nbytes
