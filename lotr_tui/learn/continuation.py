"""Lines as a model reads them, and sampled continuations that are shown beside each other, with one seed."""

from collections.abc import Callable, Sequence

from engine.data.scripts import encode_speaker
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import EOS_ID
from engine.generation.generate import TokenEvent, force_token, generate
from engine.generation.prompt import DecoderState
from engine.generation.sampling import END_OF_TEXT, TextInProgress
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.formatting import LINE_END_MARK, displayable
from lotr_tui.session.session_model import find_cast, reads_line_ends


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
) -> str:
    """Sample `settings.max_tokens` tokens after `ids`, and return their text on one line.

    The engine's sampler draws the tokens, all with the noise of one seed. A sampled `<eos>` ends a line, which `¶`
    marks, and the next line begins; where `<eos>` ends a whole text, it ends the continuation.

    Args:
        model: The model.
        state: State of the model after `ids`.
        ids: Ids of the text before.
        settings: Sampler chain and number of tokens.
        seed: Seed of the noise.
        cancelled: Returns True to end the text early; called before each token.
    """
    text = TextInProgress(model, ids, settings, seed, state, is_first_token=False, end_ids=END_OF_TEXT)
    pieces: list[str] = []
    has_ended = False
    while not has_ended:
        for event in generate(text, cancelled):
            if isinstance(event, TokenEvent):
                pieces.append(event.piece)
            elif event.reason == "eos":
                pieces.append(f" {LINE_END_MARK} ")
                force_token(text, EOS_ID)
                text.num_tokens += 1
                has_ended = reads_line_ends(model)
            else:
                has_ended = True
    return " ".join(displayable("".join(pieces)).replace("\n", f" {LINE_END_MARK} ").split())
