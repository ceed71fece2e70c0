"""The group that measures what a dialogue model makes of speakers and scenes, on the held-out scenes of a split.

The context of a line is its scene before it. All figures but bits and errors count where the best guess is right.
"""

import random
from collections import Counter
from itertools import product

import numpy as np

from engine.analysis.speakers import SpeakerPosterior
from engine.data.scripts import Turn, encode_speaker, encode_turn
from engine.generation.generate import prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, next_speaker_probs, stream_answers
from engine.models.base import predict_tokens
from engine.models.dialogue import cast_index
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model_by_name
from lotr_tui.session.session_model import SessionModel, default_num_answers
from tests.bench.measuring import Figure, Skip

MIN_LINES, MIN_WORDS = 20, 4  # lines in the corpus of a speaker who is to be recognized, and words of such a line
NUM_RANDOM_CONTEXTS, NUM_CANDIDATES = 3, 10
NUM_BINS = 10
"""Bins of the expected calibration error (Guo et al. 2017), which is over all lines and the whole cast."""
MIN_SPEAKER_PROB = 0.05  # probability below which a speaker who may say a line is left out of the sum over all speakers


def measure_dialogue(options, max_hidden=100, max_shown=250, num_prompts=100, num_scenes=None):
    """Bits, speakers and next lines of dialogue runs on held-out scenes (--run; --split)."""
    if not options.run:
        raise Skip("name a dialogue run with --run")
    for name in options.run:
        run = load_model_by_name(name)
        dataset = load_run_dataset(run)
        counts = Counter(line.speaker for line in dataset.corpus.lines)
        names = [name for name, count in counts.most_common() if count >= MIN_LINES and name in run.model.cast]
        scenes = Scenes(run.model, list(getattr(dataset.splits, options.split).scenes())[:num_scenes])
        prefix = f"{name}: " if len(options.run) > 1 else ""
        for title, unit, value in [
            *bits_by_context(scenes),
            *who_says_this(scenes, names),
            next_speaker(scenes, names),
            *next_line(scenes, "hidden", max_hidden),
            *next_line(scenes, "shown", max_shown),
            shared_beginnings(run, dataset, num_prompts),
        ]:
            yield Figure(prefix + title, unit, (value,))


class Scenes:
    """Scenes, and the states of a model before their lines, each of which is read once."""

    def __init__(self, model, scenes):
        self.model, self.scenes = model, scenes
        self.empty = prefill(model, ())
        self._states = [[self.empty] for _ in scenes]

    def places(self, first=0):
        """Return the scene and the position of all lines with at least `first` lines before them."""
        return [(index, number) for index, scene in enumerate(self.scenes) for number in range(first, len(scene))]

    def turn(self, place):
        return self.scenes[place[0]][place[1]]

    def state(self, place):
        scene, position = place
        states = self._states[scene]
        while len(states) <= position:
            ids = encode_turn(self.model.tokenizer, self.scenes[scene][len(states) - 1])
            states.append(prefill(self.model, ids, states[-1]))
        return states[position]

    def random_state(self, place, rng):
        """Return the state after equally many lines of another scene, fewer if no other scene is so long."""
        others = [index for index in range(len(self.scenes)) if index != place[0]]
        longest = max(min(len(self.scenes[index]), place[1]) for index in others)
        return self.state((rng.choice([index for index in others if len(self.scenes[index]) >= longest]), longest))


def line_log_prob(model, state, turn):
    """Return log P(text and line end of a turn | speaker, state)."""
    said = encode_turn(model.tokenizer, turn)[len(encode_speaker(model.tokenizer, turn.speaker)) :]
    state = begin_turn(model, state, turn.speaker, SamplerSettings(), 0).state
    rows = [state.log_probs[None]]
    if len(said) > 1:
        rows.append(predict_tokens(model, state.model_state, said[:-1])[0])
    return float(np.concatenate(rows)[np.arange(len(said)), list(said)].sum(dtype=np.float64))


def bits_by_context(scenes, seed=0):
    """Bits of all lines after their true, a random and no scene; the first line of a scene has none in all cases."""
    rng, rows = random.Random(seed), []
    for place in scenes.places():
        turn, states = scenes.turn(place), [scenes.empty]
        if place[1]:
            states += [scenes.state(place), *(scenes.random_state(place, rng) for _ in range(NUM_RANDOM_CONTEXTS))]
        none, *others = (line_log_prob(scenes.model, state, turn) / -np.log(2) for state in states)
        rows.append((others[0] if others else none, np.mean(others[1:] or none), none, len(turn.text) + 1))
    true, randoms, none, characters = np.array(rows).T
    for name, bits in (("the true", true), ("a random", randoms), ("no", none)):
        yield f"bits of utterances after {name} scene", "bits/char", bits.sum() / characters.sum()
    gains, chosen = randoms - true, np.random.default_rng(0).integers(0, len(true), (2000, len(true)))
    error = (gains[chosen].sum(axis=1) / characters[chosen].sum(axis=1)).std()
    yield f"gain of the true scene over a random one, ± {error:.3f}", "bits/char", gains.sum() / characters.sum()


def who_says_this(scenes, names):
    indices, cast = [scenes.model.cast.index(name) for name in names], scenes.model.cast
    for judge, title in product(("text model", "language model"), ("without", "with")):
        hits, errors = [], np.zeros(NUM_BINS)
        for place in scenes.places():
            turn, context = scenes.turn(place), scenes.state(place) if title == "with" else None
            posterior = SpeakerPosterior(scenes.model, context, by_language_model=judge == "language model")
            probs = posterior.update(turn.text, is_complete=True).posterior
            is_right = probs.argmax() == cast_index(turn.speaker, cast)
            errors[min(int(NUM_BINS * probs.max()), NUM_BINS - 1)] += probs.max() - is_right
            if turn.speaker in names and len(turn.text.split()) >= MIN_WORDS:
                hits.append(names[probs[indices].argmax()] == turn.speaker)
        name = f"who says this, by the {judge}, {title} the scene"
        yield name, "", float(np.mean(hits))
        yield f"{name}: expected calibration error", "", float(abs(errors).sum() / len(scenes.places()))


def next_speaker(scenes, names):
    places = [place for place in scenes.places(1) if scenes.turn(place).speaker in names]
    best = [next_speaker_probs(scenes.model, scenes.state(place), names)[0].name for place in places]
    hits = [name == scenes.turn(place).speaker for name, place in zip(best, places, strict=True)]
    return "next speaker", "", float(np.mean(hits))


def next_line(scenes, speakers, max_places, seed=0):
    """The true next line among lines of other scenes; hidden speakers are summed over, shown ones have to be next."""
    rng, hits, chosen, known = random.Random(seed), np.zeros(3), scenes.places(1), {}
    rng.shuffle(chosen)

    def log_prob(state, place):
        return turn_log_prob(scenes.model, state, scenes.turn(place), speakers)

    def alone(place):
        """Return log P(line) as the first line of a scene, and as the mean over other scenes."""
        if place not in known:
            others = [other for other in scenes.places(1) if other[0] != place[0]]
            states = map(scenes.state, random.Random(str(place)).sample(others, NUM_RANDOM_CONTEXTS))
            mean = np.logaddexp.reduce([log_prob(state, place) for state in states]) - np.log(NUM_RANDOM_CONTEXTS)
            known[place] = log_prob(scenes.empty, place), mean
        return known[place]

    for place in chosen[:max_places]:
        others = [other for other in scenes.places() if other[0] != place[0]]
        candidates = [place, *rng.sample(others, NUM_CANDIDATES - 1)]
        after = np.array([log_prob(scenes.state(place), each) for each in candidates])
        first, mean = np.array([alone(each) for each in candidates]).T
        hits += [after.argmax() == 0, (after - first).argmax() == 0, (after - mean).argmax() == 0]
    gain = "log P(line, scene) - log P(line)"
    for score, value in zip(("log P(line, scene)", gain, f"{gain} by other scenes"), hits, strict=True):
        title = f"true next line among {NUM_CANDIDATES}, speakers {speakers}, by {score}"
        yield title, "", value / min(len(chosen), max_places)


def turn_log_prob(model, state, turn, speakers):
    probs = {speaker.name: speaker.prob for speaker in next_speaker_probs(model, state)}
    shown = {turn.speaker: probs.get(turn.speaker, probs[model.cast[-1]])}
    likely = {name: prob for name, prob in probs.items() if prob >= MIN_SPEAKER_PROB}
    return np.logaddexp.reduce(
        [
            np.log(prob) + line_log_prob(model, state, Turn(name, turn.text))
            for name, prob in (shown if speakers == "shown" else likely).items()
        ]
    )


def shared_beginnings(run, dataset, num_prompts):
    """Answers of Gandalf to held-out lines of a stranger, with one seed, whose first six words another one shares."""
    speaker = "GANDALF" if "GANDALF" in run.model.cast else run.model.cast[0]
    starts: Counter[tuple[str, ...]] = Counter()
    num_answers = default_num_answers(run.model)
    settings = SessionModel.from_loaded(run).default_settings.sampler
    lines = [line.text for line in [*dataset.splits.valid, *dataset.splits.test] if line.text][:num_prompts]
    for line in lines:
        ids = encode_turn(run.model.tokenizer, Turn("STRANGER", line))
        state = prefill(run.model, ids)
        *_, answers = stream_answers(begin_turn(run.model, state, speaker, settings, 1, ids), num_answers)
        starts[tuple(answers[0].text.lower().split()[:6])] += 1
    shared = sum(count for count in starts.values() if count > 1)
    return f"of {len(lines)} answers of {speaker}, those that share their first six words", "", shared
