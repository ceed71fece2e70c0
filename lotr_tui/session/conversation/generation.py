"""Generation of a reply: the context that the model reads, and the thread that produces the tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.complete_words import end_word
from engine.generation.generate import Done, TokenEvent, force_token, generate_from
from engine.generation.prompt import DecoderState, prefill, prefill_prompt
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.conversation.reply_tree import Reply, context_text, encode_lines
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode

JOINERS = "\u200c\u200d"
"""Zero-width joiners, which are not printable but part of Persian words and of some emoji."""

GenerationEvent = DecoderState | tuple[TokenEvent, DecoderState] | Done
"""Event of a reply: the state before the first token, then each token with the state after it, then the end."""


class ReplyContext(NamedTuple):
    """Text before the first token of a reply."""

    state: DecoderState | None
    """Cached decoder state of the beginning of the text; None if nothing of the text is cached."""
    unread_ids: list[int]
    """Token ids that the model still has to read, after `state`."""
    ids: list[int]
    """Token ids of the whole text."""


def to_prompt_line(text: str, tokenizer: Tokenizer | None = None, reply_mode: ReplyMode = "continue") -> str:
    """Return a typed text as one line of printable characters, in which a tokenizer finds the same tokens.

    If a model with an open vocabulary continues the text, a space at its end stays: it says that the last word is
    complete.
    """
    line = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    is_word_complete = tokenizer is not None and tokenizer.is_open and reply_mode == "continue" and line[-1:] == " "
    return " ".join(line.split()) + (" " if is_word_complete and not line.isspace() else "")


def context_ids(tokenizer: Tokenizer, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None) -> list[int]:
    """Return the token ids that a model reads before a reply to `prompt`: the text of `previous_reply` and the prompt.

    `previous_reply` may be of a model with another vocabulary; its text is then tokenized again. In a closed
    vocabulary, a reply that was stopped before its first word adds no second `<eos>`.
    """
    if previous_reply is None or previous_reply.session_model.model.tokenizer != tokenizer:
        return encode_lines(tokenizer, context_text(prompt, reply_mode, previous_reply))
    previous_ids = previous_reply.token_ids()
    if previous_ids and (tokenizer.is_open or previous_ids[-1] != EOS_ID):
        previous_ids.append(EOS_ID)
    return previous_ids + encode_lines(tokenizer, context_text(prompt, reply_mode, None))


def prepare_context(
    session_model: SessionModel, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None
) -> ReplyContext:
    """Return the context of a reply to `prompt`; in reply mode, the text of `previous_reply` comes first."""
    if reply_mode == "continue":
        previous_reply = None
    ids = context_ids(session_model.model.tokenizer, prompt, reply_mode, previous_reply)
    if previous_reply is not None and previous_reply.session_model.model is session_model.model:
        state = previous_reply.decoder_state(len(previous_reply.tokens))
        if state is not None:
            return ReplyContext(state, ids[len(previous_reply.token_ids()) :], ids)
    return ReplyContext(None, ids, ids)


def start_generation(
    reply: Reply,
    state: DecoderState | None,
    unread_ids: Sequence[int],
    forced_ids: Sequence[int],
    pace: float,
    *,
    ends_word: bool = False,
) -> GeneratorThread[GenerationEvent]:
    """Generate the tokens of a reply in a thread, `pace` tokens per second (0: as fast as the model).

    The reply has only its shared tokens. The model reads `unread_ids` after the cached `state` (None: from the
    beginning of the text). The first tokens are `forced_ids`, and with `ends_word` the next token starts another word.
    """
    model, settings, seed = reply.session_model.model, reply.settings, reply.seed
    history = reply.token_ids()
    starts_line = reply.starts_line(len(reply.tokens))
    read_context = prefill if reply.tokens else prefill_prompt

    def source(cancellation: Cancellation) -> Iterator[GenerationEvent]:
        current = read_context(model, unread_ids, state)
        yield current
        is_first_token = starts_line
        for id in forced_ids:
            num_reread_tokens = current.num_reread_tokens
            event, current = force_token(model, current, history, settings, id, is_first_token=is_first_token)
            history[len(history) - num_reread_tokens :] = [id]
            is_first_token = id == EOS_ID
            yield event, current
        if ends_word:
            current = end_word(model.tokenizer, forced_ids, current)
        events = generate_from(model, current, history, settings, seed, cancellation, is_first_token=is_first_token)
        yield from throttle(events, pace, cancellation)

    return GeneratorThread("generation", source).start()
