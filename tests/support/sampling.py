"""Helpers for tests of sampling: models with a fixed distribution, naive reference implementations, event contents."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from engine.data.scripts import Turn
from engine.data.tokenizers import EOS_ID, UNK_ID, WordTokenizer
from engine.generation.generate import DecoderState, Done, TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import TurnStart

NO_FILTERS = SamplerSettings(temperature=1.0)


def id_vocabulary(size):
    return WordTokenizer(("<unk>", "<eos>", *(f"w{i}" for i in range(2, size))))


class FixedModel:
    """A model with a constant distribution, or one computed from all tokens read. `calls` records its inputs."""

    def __init__(self, probs):
        if callable(probs):
            self._function, size = probs, len(probs((EOS_ID,)))
        else:
            constant = np.log(np.array(probs) / np.sum(probs)).astype(np.float32)
            self._constant, self._function, size = constant, None, len(probs)
        self.tokenizer = id_vocabulary(size)
        self.calls = []

    def start(self):
        return ()

    def advance(self, state, token):
        if self._function is None:
            return self._constant, ()
        self.calls.append((state, token))
        history = (*state, token)
        probs = np.array(self._function(history), dtype=np.float64)
        return np.log(probs / probs.sum()).astype(np.float32), history


def zipf_probs(size):
    """Return a Zipf distribution with a large probability of `<unk>` and a tiny one of `<eos>`."""
    return [0.2, 1e-9, *(1 / rank for rank in range(1, size - 1))]


def history_dependent_probs(history):
    return np.exp(np.random.default_rng([len(history), *history]).normal(0, 2, 30))


def text_after(log_probs, settings, ids, tokenizer, *, is_first_token=False):
    state, model = DecoderState(log_probs, None), SimpleNamespace(tokenizer=tokenizer)
    return TextInProgress(model, ids, settings, state=state, is_first_token=is_first_token)


def generate_tokens(model, settings, seed, ids=(2,)):
    events = list(generate(TextInProgress(model, ids, settings, seed)))
    assert isinstance(events[-1], Done)
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    assert len(tokens) == len(events) - 1
    return tokens, events[-1]


def said_text_of(events):
    return "".join(event.piece for event in events if isinstance(event, TokenEvent))


def script_of(events):
    turns: list[Turn] = []
    for event in events:
        if isinstance(event, TurnStart):
            turns.append(Turn(event.speaker, ""))
        elif isinstance(event, TokenEvent):
            turns[-1] = Turn(turns[-1].speaker, (turns[-1].text + event.piece).lstrip())
    return [Turn(turn.speaker, turn.text.rstrip()) for turn in turns]


def make_token_event(**fields):
    measured = {"logprob": -1.0, "sampling_prob": 0.3, "num_kept": 9, "seconds": 0.0, "piece": ""}
    predicted = {"log_probs": np.zeros(6, np.float32), "token_texts": id_vocabulary(6).tokens}
    return TokenEvent(**({"index": 0, "id": 5} | measured | predicted | fields))


def without_times(events):
    return [
        replace(event, seconds=0.0) if isinstance(event, TokenEvent) else replace(event, tokens_per_second=0.0)
        for event in events
    ]


def naive_order(logits):
    return sorted(range(len(logits)), key=lambda i: -logits[i])


def naive_top_p(logits, p):
    cumulative, kept = 0.0, set()
    total = sum(math.exp(logit) for logit in logits)
    for i in naive_order(logits):
        kept.add(i)
        cumulative += math.exp(logits[i]) / total
        if cumulative >= p:
            break
    return kept


def naive_chain(log_probs, settings, history, suppress_eos):
    """Apply all stages to plain lists, in the order of the settings; return probabilities."""
    logits = [float(value) for value in log_probs]
    logits[UNK_ID] = -math.inf
    if suppress_eos:
        logits[EOS_ID] = -math.inf
    penalty = settings.repetition_penalty
    for i in set(history) - {EOS_ID}:
        logits[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
    best = max(range(len(logits)), key=lambda i: logits[i])
    if settings.temperature == 0:
        logits = [0.0 if i == best else -math.inf for i in range(len(logits))]
    else:
        logits = [(logit - logits[best]) / settings.temperature for logit in logits]
    order = naive_order(logits)
    kept = set(order[: settings.top_k] if settings.top_k else order)
    logits = [logit if i in kept else -math.inf for i, logit in enumerate(logits)]
    if settings.top_p < 1:
        kept = naive_top_p(np.array(logits), settings.top_p)
        logits = [logit if i in kept else -math.inf for i, logit in enumerate(logits)]
    if settings.min_p:
        # The likeliest token has the logit 0, so its probability is 1 before normalization.
        logits = [logit if math.exp(logit) >= settings.min_p else -math.inf for logit in logits]
    probs = [math.exp(logit) for logit in logits]
    return [prob / sum(probs) for prob in probs]


CHAINS = [
    NO_FILTERS, SamplerSettings(temperature=0.7), SamplerSettings(temperature=0),
    SamplerSettings(temperature=2, top_k=5), SamplerSettings(temperature=1.5, top_p=0.9),
    SamplerSettings(temperature=0.6, min_p=0.1),
    SamplerSettings(temperature=1.2, top_k=12, top_p=0.8, min_p=0.05, repetition_penalty=1.4),
    SamplerSettings(temperature=0.8, repetition_penalty=0.7), SamplerSettings(temperature=0.9, repetition_penalty=2),
    SamplerSettings(temperature=0, top_k=3, top_p=0.1, min_p=0.9, repetition_penalty=10),
]  # fmt: skip


def chain_id(settings):
    """Return an ASCII test id: mutmut collects tests by id, and pytest escapes other characters twice."""
    return settings.describe().replace("→", "then")
