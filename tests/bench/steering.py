"""The group that measures how far a vector steers answers to a speaker, and what that costs in fluency."""

import math
import re

import numpy as np

from engine.analysis.speakers import SpeakerPosterior
from engine.analysis.steering import SteeringVector, find_vector
from engine.data.scripts import Turn, encode_speaker, encode_turn, encode_turns, utterance_text
from engine.data.speakers import SOMEONE, STRANGER, display_name
from engine.generation.generate import TokenEvent, generate_batch
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, read_turns
from engine.models.base import score_sequence
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model_by_name
from tests.bench.measuring import Figure, Skip

SPEAKERS, STRENGTHS, SEEDS = ("GOLLUM", "GANDALF", "SAM"), (0.5, 1.0, 1.5), (0, 1)
SETTINGS = SamplerSettings(temperature=0.7, repetition_penalty=1.1, min_p=0.05, max_tokens=40)
BATCH = 8
QUESTIONS = re.findall(
    r"\S[^?.]*[?.]",
    "Where are you going? What do you have in your pocket? Are you hungry? What do you think of the Ring? Who is "
    "your best friend? What did you have for breakfast? Is it far to the river? Do you like the rain? What are you "
    "afraid of? Can I trust you? Tell me a story. How did you sleep? What shall we do tomorrow? What is the best "
    "thing in the world? Did you see anyone on the road? Why are you so quiet? What is the news? Do you know a good "
    "song? What is that noise? May I sit by the fire? What should I do if I get lost? Do you miss your home? What "
    "is in the cave? Have you ever seen a dragon? Who taught you to fight? Is the water safe to drink? What do you "
    "do when it is dark? Do you believe in luck? How old are you? What would you like for your birthday? Are the "
    "mountains always so cold? What do you think of me? Will you help me carry this? Did you lose something? What "
    "happened to your hand? Which way is north? Do you like fish? How do you make a friend? Should I be worried? "
    "What makes you happy? ",
)


def measure_steering(options, seeds=SEEDS, questions=QUESTIONS):
    """P(speaker | answer) and bits of answers by someone, steered at several strengths."""
    if not is_base_stored(SMOLLM2):
        raise Skip("SmolLM2 is not stored; run `lotr-tui fetch smollm2`")
    loaded = load_model_by_name("bundled")
    model, train = loaded.model, load_run_dataset(loaded).splits.train

    def measure(answering, title):
        asked = [(seed, question) for seed in seeds for question in questions]
        said = [
            text for start in range(0, len(asked), BATCH) for text in answer(answering, asked[start : start + BATCH])
        ]
        bits = bits_per_character(model, [question for _, question in asked], said)
        posterior = SpeakerPosterior(model)
        probs = np.mean([posterior.update(text, is_complete=True).posterior for text in said], axis=0)
        yield Figure(f"{title}: bits per character by the model that is not steered", "bits", (bits,))
        for speaker in SPEAKERS:
            yield Figure(
                f"{title}: P({display_name(speaker)} | answer)", "%", (100 * probs[model.cast.index(speaker)],)
            )
        yield f"  {said[0]}"

    yield from measure(model, "not steered")
    for speaker in SPEAKERS:
        kinds = [[line.text for line in train if (line.speaker == speaker) == is_own] for is_own in (True, False)]
        found = next(each for each in find_vector(model, *kinds) if isinstance(each, SteeringVector))
        yield f"{display_name(speaker)}: layer {found.layer}, gain {found.gain:+.3f}, others {found.other_gain:+.3f}"
        steered = model.with_vector("steer", found.layer, found.vector)
        for strength in STRENGTHS:
            title = f"steered to {display_name(speaker)}, strength {strength}"
            yield from measure(steered.with_strengths({"steer": strength}), title)


def answer(model, asked):
    """Return what someone answers to seeds and questions, all written together."""
    texts, pieces = [], [[] for _ in asked]
    for seed, question in asked:
        turns = [Turn(STRANGER, question)]
        state, history = read_turns(model, turns), encode_turns(model.tokenizer, turns)
        texts.append(begin_turn(model, state, SOMEONE, SETTINGS, seed, history))
    for step in generate_batch(texts):
        for index, event in step:
            if isinstance(event, TokenEvent):
                pieces[index].append(event.piece)
    return ["".join(each).strip() for each in pieces]


def bits_per_character(model, questions, answers):
    nats = num_characters = 0
    for question, text in zip(questions, answers, strict=True):
        head = [*encode_turn(model.tokenizer, Turn(STRANGER, question)), *encode_speaker(model.tokenizer, SOMEONE)]
        ids = np.array([*head, *model.tokenizer.encode(utterance_text(text))], np.int32)
        nats -= score_sequence(model, ids)[len(head) :].sum()
        num_characters += len(text) + 1
    return nats / math.log(2) / num_characters
