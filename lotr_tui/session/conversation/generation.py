"""Generation of a reply: the context that the model reads, and the thread that produces the tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.analysis.token_scores import tokenize_with_offsets
from engine.data.vocabulary import EOS_ID, Vocabulary
from engine.generation.generate import DecoderState, Done, TokenEvent, force_token, generate_from, prefill
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.conversation.reply_tree import Reply, context_text
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode

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


def to_prompt_line(text: str) -> str:
    """Return a typed text as one line of printable characters, in which a tokenizer finds the same tokens."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def encode_lines(vocabulary: Vocabulary, text: str) -> list[int]:
    """Return the token ids of a text in which each line break is read as `<eos>`, except after a line without words."""
    ids: list[int] = tokenize_with_offsets(text, vocabulary, eos_per_line=True).ids.tolist()
    return ids


def context_ids(vocabulary: Vocabulary, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None) -> list[int]:
    """Return the token ids that a model reads before a reply to `prompt`: the text of `previous_reply` and the prompt.

    `previous_reply` may be of a model with another vocabulary; its text is then tokenized again.
    """
    if previous_reply is None or previous_reply.session_model.model.vocabulary != vocabulary:
        return encode_lines(vocabulary, context_text(prompt, reply_mode, previous_reply))
    previous_ids = previous_reply.token_ids()
    if previous_ids and previous_ids[-1] != EOS_ID:  # a reply that was stopped before its first word ends in <eos>
        previous_ids.append(EOS_ID)
    return previous_ids + encode_lines(vocabulary, context_text(prompt, reply_mode, None))


def prepare_context(
    session_model: SessionModel, prompt: str, reply_mode: ReplyMode, previous_reply: Reply | None
) -> ReplyContext:
    """Return the context of a reply to `prompt`; in reply mode, the text of `previous_reply` comes first."""
    if reply_mode == "continue":
        previous_reply = None
    ids = context_ids(session_model.model.vocabulary, prompt, reply_mode, previous_reply)
    if previous_reply is not None and previous_reply.session_model.model is session_model.model:
        state = previous_reply.decoder_state(len(previous_reply.tokens))
        if state is not None:
            return ReplyContext(state, ids[len(previous_reply.token_ids()) :], ids)
    return ReplyContext(None, ids, ids)


def start_generation(
    reply: Reply, state: DecoderState | None, unread_ids: Sequence[int], forced_id: int | None, pace: float
) -> GeneratorThread[GenerationEvent]:
    """Generate the tokens of a reply in a thread, `pace` tokens per second (0: as fast as the model).

    The reply has only its shared tokens. The model reads `unread_ids` after the cached `state` (None: from the
    beginning of the text). The first token is `forced_id`; None samples the first token too.
    """
    model, settings, seed = reply.session_model.model, reply.settings, reply.seed
    history = reply.token_ids()
    starts_line = reply.starts_line(len(reply.tokens))

    def source(cancellation: Cancellation) -> Iterator[GenerationEvent]:
        current = prefill(model, unread_ids, state)
        yield current
        if forced_id is not None:
            event, current = force_token(model, current, history, settings, forced_id, is_first_token=starts_line)
            history.append(forced_id)
            yield event, current
        is_first_token = starts_line if forced_id is None else forced_id == EOS_ID
        events = generate_from(model, current, history, settings, seed, cancellation, is_first_token=is_first_token)
        yield from throttle(events, pace, cancellation)

    return GeneratorThread("generation", source).start()
