"""The group that measures what a dialogue model makes of speakers and scenes."""

from collections import Counter

import numpy as np

from engine.analysis.speaker_posterior import SpeakerPosterior
from engine.data.script_form import Turn, encode_turn, iter_scenes
from engine.data.speakers import SOMEONE
from engine.generation.best_of import stream_answers
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model_by_name
from tests.bench import dialogue_measures as measures
from tests.bench.measuring import Figure, Skip

NUM_ANSWERS = 8


def measure_dialogue(options, max_hidden=100, max_shown=250, num_prompts=100):
    """Bits, speakers and next lines of a dialogue run on held-out scenes (--run; --split)."""
    if not options.run:
        raise Skip("name a dialogue run with --run")
    run = load_model_by_name(options.run[0])
    dataset, model = load_run_dataset(run), run.model
    counts = Counter(line.speaker for line in dataset.corpus.lines)
    names = [name for name, count in counts.most_common() if count >= 20 and name in run.cast]
    scenes = list(iter_scenes(getattr(dataset.splits, options.split)))
    reader = measures.ContextReader(model, scenes)
    anonymous = [[Turn(SOMEONE, turn.text) for turn in scene] for scene in scenes]
    readers = {"with speakers": reader, "every speaker someone": measures.ContextReader(model, anonymous)}
    for name, each in readers.items():
        columns = measures.bits_by_context(each, num_random=3 if each is reader else 1)
        characters = columns.pop("characters")
        for context, bits in columns.items():
            yield Figure(f"{name}, {context} context", "bits/char", (bits.sum() / characters.sum(),))
        gains = columns["random"] - columns["true"]
        chosen = np.random.default_rng(0).integers(0, len(gains), (2000, len(gains)))
        error = (gains[chosen].sum(axis=1) / characters[chosen].sum(axis=1)).std()
        name = f"{name}, gain of the true context over a random one, ± {error:.3f}"
        yield Figure(name, "bits/char", (gains.sum() / characters.sum(),))

    def score(context, text, *, expect_context):
        posterior = SpeakerPosterior(model, context, expect_context=expect_context)
        return np.log(posterior.update(text, is_complete=True).posterior)

    for with_context in (False, True):
        accuracy = measures.identification_accuracy(reader, names, score, with_context=with_context)
        yield Figure(f"who says this, {'with' if with_context else 'without'} the scene", "", (accuracy,))
    yield Figure("next speaker", "", (measures.next_speaker_accuracy(reader, names),))
    for shown, places in ((False, max_hidden), (True, max_shown)):
        ranks = measures.next_line_accuracy(reader, speakers_shown=shown, max_places=places)
        name = f"true next line among ten, speakers {'shown' if shown else 'hidden'}"
        yield Figure(f"{name}, by log P(line)", "", (ranks.by_likelihood,))
        yield Figure(f"{name}, by gain", "", (ranks.by_gain,))
    speaker = "GANDALF" if "GANDALF" in run.cast else run.cast[0]
    settings, starts = SamplerSettings(temperature=0.7, min_p=0.05, max_tokens=40), Counter()
    lines = [line.text for line in [*dataset.splits.valid, *dataset.splits.test] if line.text][:num_prompts]
    for line in lines:
        ids = encode_turn(model.tokenizer, Turn("STRANGER", line))
        *_, answers = stream_answers(model, prefill(model, ids), speaker, settings, 1, NUM_ANSWERS, history=ids)
        starts[tuple(answers[0].text.lower().split()[:6])] += 1
    shared = sum(count for count in starts.values() if count > 1)
    yield Figure(f"of {len(lines)} answers of {speaker}, those that share their first six words", "", (shared,))
