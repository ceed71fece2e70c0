"""Speaker of a text for models without a cast: any names are written before the lines, as in a script."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from engine.analysis.speaker_posterior import WORD, SpeakerGuess, explain_guess
from engine.data.script_form import Turn
from engine.data.scripts import detect_style, read_utterances
from engine.data.speakers import find_member, normalize_speaker
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.prompt import DecoderState, prefill
from engine.models.base import LanguageModel, ParallelModel

CHUNK_TOKENS = 64
"""Tokens that are scored together: a large vocabulary has much memory for the distributions of each."""
MIN_SPEAKERS, MAX_SPEAKERS = 2, 64
"""Limits of a cast. The model reads the text once for each speaker."""


def read_script(script: str, names: Sequence[str] | None, source: str) -> tuple[list[Turn], tuple[str, ...]]:
    """Return the turns of a script of any cast, and the names of the speakers to consider.

    Args:
        script: Lines of the form "NAME: text"; a line without a name continues the one before it. May be empty.
        names: Names of the speakers as typed, in any case; None for all names in the script, in order of appearance.
        source: Name of the script in messages.

    Raises:
        InvalidInputError: If there are too few or too many speakers, one of `names` is no name or given twice, or a
            script without names does not name them.
    """
    cast = [] if names is None else [" ".join(name.split()) for name in names]
    keys = [normalize_speaker(name).name for name in cast]
    for index, key in enumerate(keys):
        if not key:
            raise InvalidInputError(f"--cast: {cast[index]!r} is not a name; give names such as --cast FRODO,SAM")
        if key in keys[:index]:
            raise InvalidInputError(f"--cast names {cast[index]} twice; name every speaker once")
    turns = []
    lines = script.splitlines()
    if script.strip() and detect_style(lines) is None:
        raise InvalidInputError(f"{source} names no speakers; write its lines as NAME: text")
    for utterance in read_utterances(iter(lines), source) if script.strip() else ():
        if not utterance.speaker:
            continue
        key = normalize_speaker(utterance.speaker).name
        member = find_member(key, keys)
        if member is None and names is None:
            cast.append(utterance.speaker)
            keys.append(key)
            member = key
        turns.append(Turn(utterance.speaker if member is None else cast[keys.index(member)], utterance.text))
    if not MIN_SPEAKERS <= len(cast) <= MAX_SPEAKERS:
        given = source if names is None else f"--cast {','.join(cast)}"
        raise InvalidInputError(
            f"the number of speakers of {given} is {len(cast)}; name {MIN_SPEAKERS} to {MAX_SPEAKERS}, such as "
            "--cast FRODO,SAM"
        )
    return turns, tuple(cast)


def guess_written_speaker(
    model: LanguageModel, cast: tuple[str, ...], turns: Sequence[Turn], text: str, *, eos_per_line: bool
) -> SpeakerGuess:
    """Return the posterior over `cast` of the speaker of a line after `turns`.

    The model reads the line after "NAME:" for each speaker. The posterior is proportional to the prior and to the
    probability of the text and the end of its line. The prior is the frequency of each speaker in `turns`, with one
    more line for each, and so uniform without `turns`.

    Args:
        model: Any language model.
        cast: Names as the model reads them.
        turns: Lines before the text.
        text: The line, whose white space counts as single spaces.
        eos_per_line: True if `<eos>` ends every line for the model, and False if a line feed does.
    """
    counts = Counter(turn.speaker for turn in turns)
    prior = np.array([counts[name] + 1 for name in cast], np.float64)
    words = text.split()
    context: list[int] = []
    for turn in turns:
        context += _encode_line(model, f"{turn.speaker}: {turn.text}", eos_per_line=eos_per_line)[0]
    state = prefill(model, context)
    totals = np.array(
        [_score_line(model, state, name, " ".join(words), eos_per_line=eos_per_line) for name in cast]
    ).T  # [words + 1, cast]
    return explain_guess(cast, words, list(np.log(prior / prior.sum()) + totals))


def _encode_line(model: LanguageModel, line: str, *, eos_per_line: bool) -> tuple[list[int], list[int]]:
    """Return the token ids of a line with its end, and the index after the last character of each token."""
    spans = model.tokenizer.spans(line if eos_per_line else f"{line}\n")
    ids, ends = [span.id for span in spans], [span.end for span in spans]
    return ([*ids, EOS_ID], [*ends, len(line) + 1]) if eos_per_line else (ids, ends)


def _score_line(model: LanguageModel, state: DecoderState, name: str, text: str, *, eos_per_line: bool) -> list[float]:
    """Return the log-probability of the line of a speaker up to the end of each word; the last includes its end.

    The first of the `[words + 1]` results is 0.
    """
    label = f"{name}:"  # a space belongs to the token after it in most vocabularies
    ids, ends = _encode_line(model, f"{label} {text}", eos_per_line=eos_per_line)
    first = bisect_right(ends, len(label))
    totals = [0.0]
    for log_prob in _iter_scores(model, prefill(model, ids[:first], state), ids[first:]):
        totals.append(totals[-1] + log_prob)
    word_ends = [len(label) + 1 + match.end() for match in WORD.finditer(text)]
    at_words = [totals[max(0, bisect_right(ends, end) - first)] for end in word_ends]
    return [0.0, *at_words[:-1], totals[-1]]


def _iter_scores(model: LanguageModel, state: DecoderState, ids: Sequence[int]) -> Iterator[float]:
    """Yield the log-probability of each of `ids` after `state`, many tokens at once where the model can."""
    log_probs, model_state = state.log_probs, state.model_state
    if not isinstance(model, ParallelModel):
        for id in ids:
            yield float(log_probs[id])
            log_probs, model_state = model.advance(model_state, id)
        return
    for start in range(0, len(ids), CHUNK_TOKENS):
        chunk = ids[start : start + CHUNK_TOKENS]
        yield float(log_probs[chunk[0]])
        rows, model_state = model.predict_tokens(model_state, chunk)
        yield from rows[np.arange(len(chunk) - 1), list(chunk[1:])].tolist()
        log_probs = rows[-1]
