"""Measurements of models that play, each run in a process of its own."""

import itertools
import re
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from safetensors.numpy import save_file

from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import LSTM, DataConfig, ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import EOS, EOS_ID, UNK, WordTokenizer
from engine.generation.generate import (
    TextInProgress,
    TokenEvent,
    encode_prompt,
    force_token,
    generate,
    generate_batch,
    next_token_probs,
    prefill,
)
from engine.generation.settings import SamplerSettings
from engine.models.base import advance_tokens, score_sequence
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.numpy_transformer import HUGE_PAGES_DELAY, NumpyTransformer
from engine.models.pretrained.folders import read_base
from engine.models.weights import weight_shapes
from engine.presets import PRESETS
from engine.runs.directory import resolve_run
from engine.runs.export import export_hugging_face
from engine.runs.loading import load_model, load_model_by_name
from tests.bench.measuring import alternate, seconds_of, tokens_per_second

BATCH_SIZE, NUM_WORDS = 16, 879  # as many words of the film dialogues are seen three times


def play(model, ids, num_texts, max_tokens, *, first_seed=0, in_batch=False):
    """Generate texts with different seeds and return their words; a word of several tokens counts once."""
    settings, seeds = SamplerSettings(max_tokens=max_tokens), range(first_seed, first_seed + num_texts)
    if in_batch:
        state = prefill(model, ids)
        texts = [TextInProgress(model, ids, settings, seed, state) for seed in seeds]
        events = [event for step in generate_batch(texts) for _, event in step]
    else:
        events = [event for seed in seeds for event in generate(TextInProgress(model, ids, settings, seed))]
    tokens = [event.id for event in events if isinstance(event, TokenEvent)]
    return len(model.tokenizer.decode(np.array(tokens, np.int32)).split())


def play_speeds(model, ids, num_tokens=100):
    """Return words per second alone, and of 16 texts one after the other and in a batch."""
    return {
        "alone": tokens_per_second(partial(play, model, ids, 1, num_tokens)),
        "sequence": tokens_per_second(partial(play, model, ids, BATCH_SIZE, 30)),
        "batch": tokens_per_second(partial(play, model, ids, BATCH_SIZE, 30, in_batch=True)),
    }


def lstm(name):
    """Return a model without `<eos>`, and a prompt. Random weights are as fast as trained ones."""
    if name == LSTM:
        decoder = load_model(resolve_run(LSTM)).decoder
        config, tokenizer, tensors = decoder.config, decoder.tokenizer, dict(decoder.tensors)
        ids = encode_prompt("Bilbo Baggins is", tokenizer).ids
    else:
        large = ModelConfig(embedding_size=512, hidden_size=512, num_layers=2, tie_weights=False)
        configs = {"large": large, "words": ModelConfig(punctuation=True), "default": PRESETS["default"].model}
        config, tokenizer, rng, ids = configs[name], _word_tokenizer(NUM_WORDS), np.random.default_rng(0), (2, 3, 4)
        shapes = weight_shapes(config, NUM_WORDS)
        tensors = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["output.bias"] = np.array(tensors["output.bias"])
    tensors["output.bias"][EOS_ID] = -100
    return NumpyLSTM(config, tokenizer, tensors), ids


def _word_tokenizer(size):
    words = ("".join(letters) for letters in product(ascii_lowercase, repeat=3))
    return WordTokenizer((UNK, EOS, *islice(words, size - 2)))


def lstm_speeds(name):
    """Return the words per second of a model; of the large one, also in int8 and the bound of its products."""
    model, ids = lstm(name)
    speeds = play_speeds(model, ids)
    if name == "large":
        int8 = NumpyLSTM(model.config, model.tokenizer, model.tensors, int8=True)
        speeds["int8"] = tokens_per_second(partial(play, int8, ids, 1, 100))
        # Of the embedding and of its product with the first layer's weights, only a row is read.
        shapes = weight_shapes(model.config, NUM_WORDS)
        read = [s for n, s in shapes.items() if len(s) == 2 and n not in ("embedding.weight", "layers.0.weight_ih_l0")]
        matrices = [np.asfortranarray(np.random.default_rng(0).random(shape, np.float32)) for shape in read]

        def multiply():
            for _ in range(100):
                for matrix in matrices:
                    matrix @ np.ones(matrix.shape[1], np.float32)
            return 100

        speeds["bound"] = tokens_per_second(multiply)
    return speeds


def reply_speeds(name, num_replies=40):
    """Return words per second of the first reply of a process, and of the first 40."""
    model, ids = lstm(name)
    started = time.process_time()
    num_words = play(model, ids, 1, 30)
    first = num_words / (time.process_time() - started)
    num_words += play(model, ids, num_replies - 1, 30, first_seed=1)
    return {"first": first, "all": num_words / (time.process_time() - started)}


def transformer_speeds():
    """Return speeds of `gpt` in fp32 and int8, of its exported copy in transformers, and their differences."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write_random_gpt(f"{folder}/run")
        decoder = load_model(Path(folder, "run")).decoder
        export_hugging_face(Path(folder, "run"), Path(folder, "exported"))
        module = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/exported").eval()
    text = np.random.default_rng(0).integers(2, len(decoder.tokenizer), 500).astype(np.int32)
    scores, speeds = {}, {}
    for name in ("fp32", "int8"):
        model = type(decoder)(decoder.config, decoder.tokenizer, decoder.weights, int8=name == "int8")
        speeds |= {f"{name}_{key}": value for key, value in play_speeds(model, (2, 3)).items()}
        scores[name], states = score_sequence(model, text), [model.advance(model.start(), EOS_ID)[1]]
        for token in range(2, 302):
            states.append(model.advance(states[-1], token)[1])
        seconds = [seconds_of(partial(model.advance, states[-201], token)) for token in range(2, 22)]
        speeds[f"{name}_branch"] = 1000 * statistics.median(seconds)
    torch.set_num_threads(1)
    speeds["transformers"] = tokens_per_second(lambda: _generate(module, [EOS_ID, 2, 3], 100, EOS_ID))
    with torch.inference_mode():
        ids = torch.tensor([[EOS_ID, *text.tolist()]])
        expected = module(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].numpy()
    speeds["fp32_difference"] = float(abs(scores["fp32"] - expected).max())
    speeds["int8_difference"] = float(abs(scores["int8"] - expected).mean())
    return speeds


def _generate(module, ids, num_tokens, pad_id, temperature=1.0):
    """Sample exactly `num_tokens` by `generate` of transformers, and return their number."""
    import torch

    ids = torch.tensor([ids])
    length = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "pad_token_id": pad_id}
    sampling = {"do_sample": True, "use_cache": True, "temperature": temperature, "top_k": 0}
    with torch.inference_mode():
        module.generate(ids, attention_mask=torch.ones_like(ids), **sampling, **length)
    return num_tokens


def write_random_gpt(path):
    """Write an untrained run of the preset `gpt`, for which `<eos>` is about as improbable as any token."""
    config = PRESETS["gpt"].with_values(tokenizer="words", context_size=512)
    tokenizer, rng = _word_tokenizer(2048), np.random.default_rng(0)
    shapes = weight_shapes(config.model, len(tokenizer))
    weights = {name: rng.normal(len(shape) == 1, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["model.embed_tokens.weight"][EOS_ID] = 0
    Path(path).mkdir()
    Path(path, "config.json").write_text(config.to_json())
    Path(path, "vocabulary.json").write_text(tokenizer.to_json())
    save_file(weights, Path(path, "model.safetensors"))


SMOLLM2_TEXT = "The road went down from the hill to the river, and the travellers followed it in silence. " * 80


def _read_smollm2(name):
    """Return SmolLM2 in 8 bits, the seconds to load it, the model of transformers in fp32, and tokens of a text."""
    import transformers

    base, file = read_base(name), Path(name.removeprefix("gguf:"))
    started = time.perf_counter()
    model = base.decoder(int8=True)
    seconds = time.perf_counter() - started
    module = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32").eval()
    return model, seconds, module, model.tokenizer.encode(SMOLLM2_TEXT).tolist()


def pretrained_speeds(name, repeat, num_tokens=64, num_lens_tokens=500, num_back=200):
    """Return runs of SmolLM2 and of transformers, on all cores in the same process."""
    import torch

    from lotr_tui.screens.session.side import PREVIEW_INTERVAL
    from lotr_tui.session.read_text import MAX_CANDIDATES

    model, seconds, module, ids = _read_smollm2(name)
    runs, settings = {"loading": [seconds]}, SamplerSettings(temperature=0.8, max_tokens=num_tokens)
    prompt = list(encode_prompt("The old king rode out of the gate at dawn. At the bridge he", model.tokenizer).ids)

    def with_bars():
        shown_at = started = time.perf_counter()
        text = TextInProgress(model, prompt, settings, 1)
        for _ in generate(text):
            if time.perf_counter() - shown_at >= PREVIEW_INTERVAL:  # as often as the session computes them
                next_token_probs(text, MAX_CANDIDATES)
                shown_at = time.perf_counter()
        return text.num_tokens / (time.perf_counter() - started)

    def by_transformers():
        return num_tokens / seconds_of(partial(_generate, module, prompt, num_tokens, 0, 0.8))

    tokens = tokenize_with_offsets(model.tokenizer.decode(np.array(ids[:num_lens_tokens], np.int32)), model.tokenizer)

    def lens():
        return seconds_of(lambda: list(TokenScores(tokens, model.tokenizer).read(model)))

    def forward():
        with torch.inference_mode():
            return seconds_of(lambda: module(torch.tensor([ids[:num_lens_tokens]]), use_cache=False))

    runs["session"], runs["transformers"] = alternate(repeat, with_bars, by_transformers, warm_up=True)
    runs["lens"], runs["forward"] = alternate(repeat, lens, forward, warm_up=True)
    text = TextInProgress(model, ids[:50], replace(settings, max_tokens=250), 1)
    states = [text.state, *(event.state for event in generate(text) if isinstance(event, TokenEvent))]
    place = max(0, len(states) - 1 - num_back)
    for key, number in {"branch": place, "advance": len(states) - 1}.items():
        state, before = states[number], text.ids[: 50 + number]
        branches = [TextInProgress(model, before, settings, 1, state) for _ in range(10)]
        tokens = state.log_probs.argsort()[::-1].tolist()[1:11]
        pairs = zip(branches, tokens, strict=True)
        runs[key] = [seconds_of(partial(force_token, branch, token)) for branch, token in pairs]
    return runs


def decoder_speeds(name, contexts=(200, 800), num_tokens=50):
    """Return tokens per second of SmolLM2 on one core, in 8 bits and in transformers."""
    import torch

    torch.set_num_threads(1)
    model, _, module, ids = _read_smollm2(name)

    def in_batch(states):
        for token in ids[:10]:
            states = [state for _, state in model.advance_batch(states, [token] * len(states))]
        return 10 * len(states)

    speeds = {"reading 512 tokens": tokens_per_second(lambda: advance_tokens(model, model.start(), ids[:512]) and 512)}
    for context in contexts:
        before = ids[:context]
        speeds[f"ours {context}"] = _decoder_speed(
            ids[:num_tokens],
            lambda before=before: advance_tokens(model, model.start(), before)[1],
            lambda *pair: model.advance(*pair)[1],
        )
        with torch.inference_mode():
            speeds[f"transformers {context}"] = _decoder_speed(
                ids[:num_tokens],
                lambda before=before: module(torch.tensor([before])).past_key_values,
                lambda cache, token: module(torch.tensor([[token]]), past_key_values=cache).past_key_values,
            )
    for count in (8, 16):
        states = [advance_tokens(model, model.start(), ids[start : start + 200])[1] for start in range(count)]
        speeds[f"{count} texts at once"] = tokens_per_second(partial(in_batch, states))
    return speeds


def llama_cpp_speeds(name, contexts=(200, 800), num_tokens=50):
    """Return tokens per second of llama.cpp on one core; nothing if it is not installed.

    It has a process of its own: beside numkong, it ends by an illegal instruction where the processor has AMX tiles.
    """
    if not find_spec("llama_cpp"):
        return {}
    from llama_cpp import Llama

    ids = read_base(name).tokenizer.encode(SMOLLM2_TEXT).tolist()
    peer = Llama(name.removeprefix("gguf:"), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)
    return {
        f"llama.cpp {context}": _decoder_speed(
            ids[:num_tokens],
            lambda before=ids[:context]: (peer.reset(), peer.eval(before)),
            lambda _, token: peer.eval([token]),
        )
        for context in contexts
    }


def _decoder_speed(tokens, prepare, advance):
    """Return the median of five speeds, each of which continues a text of its own."""
    speeds = []
    for _ in range(5):
        state, started = prepare(), time.process_time()
        for token in tokens:
            state = advance(state, token)
        speeds.append(len(tokens) / (time.process_time() - started))
    return statistics.median(speeds)


def adapter_speeds(context=200, num_tokens=50):
    """Return tokens per second of the bundled adapter beside its base and merged into it, and differences in fp32."""
    beside, differences = load_model_by_name("bundled").decoder, {}
    ids = beside.tokenizer.encode("The road went down from the hill to the river, in silence. " * 80).tolist()
    merged = NumpyTransformer(beside.config, beside.tokenizer, beside.tensors, int8=True)

    def speed(model):
        state, started = advance_tokens(model, model.start(), ids[:context])[1], time.process_time()
        for token in ids[:num_tokens]:
            _, state = model.advance(state, token)
        return num_tokens / (time.process_time() - started)

    time.sleep(2 * HUGE_PAGES_DELAY)
    speeds = alternate(5, partial(speed, beside), partial(speed, merged), warm_up=True)
    exact = load_model_by_name("bundled", precision="fp32").decoder
    for strength in (0.0, 0.5, 1.0):
        model = exact.with_strengths({"bundled": strength})
        reference = NumpyTransformer(exact.config, exact.tokenizer, model.weights)
        rows = [each.predict_tokens(each.start(), ids[:context])[0] for each in (model, reference)]
        differences[strength] = float(np.abs(rows[0] - rows[1]).max())
    return {"beside": speeds[0], "merged": speeds[1], "differences": differences}


def load_playable(path, data, order):
    """Return the model of a run, or n-grams of the training text that `data` describes."""
    if not order:
        return load_model(Path(path)).model
    dataset = load_dataset(DataConfig(**data))
    return KneserNey(dataset.train, dataset.tokenizer, order)


def model_speed(path, data, order):
    """Return words per second of a run on one core, and the memory of the process that plays it."""
    model, seeds = load_playable(path, data, order), itertools.count()
    ids = encode_prompt("Where is the Ring", model.tokenizer).ids
    speed = tokens_per_second(lambda: play(model, ids, 1, 100, first_seed=next(seeds)), 2)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {"words_per_second": speed, "megabytes": int(peak[1]) / 1024}
