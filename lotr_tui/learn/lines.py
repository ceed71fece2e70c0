"""Lines that the figures start with, lines as a model reads them, and their continuations."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice

from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE
from engine.data.tokenizers import EOS_ID, Tokenizer
from engine.generation.generate import END_OF_TEXT, DecoderState, TextInProgress, TokenEvent, force_token, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.formatting import LINE_END_MARK, displayable
from lotr_tui.session.session_model import find_cast, reads_line_ends

MAX_EXAMPLES = 300


def find_example(
    default: str,
    lines: Iterable[str],
    tokenizer: Tokenizer,
    is_suitable: Callable[[str], bool] = lambda line: True,
    *,
    start_words: int | None = None,
) -> str:
    """Return the default or the first suitable line of words that a model knows.

    Without one, return the first line of such words, or else the first line of ordinary length; with `start_words`, the
    first words of a longer line.
    """
    split = ((line, line.split()) for line in islice(lines, MAX_EXAMPLES))
    if start_words is None:
        candidates = (line for line, words in split if 6 <= len(words) < 12)
    else:
        candidates = (" ".join(words[:start_words]) for _, words in split if len(words) > start_words)
    known = unknown = ""
    for candidate in chain([default], candidates):
        if not tokenizer.unknown_spans(candidate):
            if is_suitable(candidate):
                return candidate
            known = known or candidate
        elif candidate != default:
            unknown = unknown or candidate
    return known or unknown or default


def encode_line(model: LanguageModel, line: str) -> tuple[int, ...]:
    """Return the token ids of a line, which a model with a cast reads as said by someone."""
    tokenizer = model.tokenizer
    if not find_cast(model):
        return tuple(tokenizer.encode(line).tolist())
    return (*encode_speaker(tokenizer, SOMEONE), *tokenizer.encode(f" {line}").tolist())


def continue_text(
    model: LanguageModel,
    state: DecoderState,
    ids: Sequence[int],
    settings: SamplerSettings,
    seed: int,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    to_line_end: bool = False,
) -> str:
    """Sample `settings.max_tokens` tokens after `ids`, whose state is `state`, and return their text on one line.

    A sampled `<eos>` ends a line, which `¶` marks, and the next line begins, except with `to_line_end`; where `<eos>`
    ends a whole text, it ends the continuation.
    """
    text = TextInProgress(model, ids, settings, seed, state, is_first_token=False, end_ids=END_OF_TEXT)
    pieces: list[str] = []
    has_ended = False
    while not has_ended:
        for event in generate(text, cancelled):
            if isinstance(event, TokenEvent):
                pieces.append(event.piece)
                has_ended = to_line_end and "\n" in event.piece
                if has_ended:
                    break
            elif event.reason == "eos":
                pieces.append(f" {LINE_END_MARK} ")
                force_token(text, EOS_ID)
                text.num_tokens += 1
                has_ended = to_line_end or reads_line_ends(model)
            else:
                has_ended = True
    return " ".join(displayable("".join(pieces)).replace("\n", f" {LINE_END_MARK} ").split())
