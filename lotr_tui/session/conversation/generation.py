"""Generation of a reply: the context that the model reads, and the thread that produces the tokens."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import DecoderState, Done, TokenEvent, force_token, generate_from, prefill
from engine.runtime.worker import Cancellation, GeneratorThread, throttle
from lotr_tui.session.conversation.reply_tree import Reply
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


def prepare_context(
    session_model: SessionModel, prompt_ids: Sequence[int], reply_mode: ReplyMode, previous_reply: Reply | None
) -> ReplyContext:
    """Return the context of a reply to `prompt_ids`; in reply mode, the text of `previous_reply` comes first."""
    if reply_mode == "continue":
        return ReplyContext(None, list(prompt_ids), list(prompt_ids))
    line_ids = [*prompt_ids, EOS_ID]
    if previous_reply is None:
        return ReplyContext(None, line_ids, line_ids)
    if previous_reply.session_model.model is session_model.model:
        state = previous_reply.decoder_state(len(previous_reply.tokens))
        if state is not None:
            ids = [*previous_reply.token_ids(), EOS_ID, *line_ids]
            return ReplyContext(state, [EOS_ID, *line_ids], ids)
    # The previous reply may be of a model with another vocabulary.
    tokens = previous_reply.session_model.model.vocabulary.tokens
    previous_tokens = [tokens[id] for id in previous_reply.token_ids()]
    ids = [*session_model.model.vocabulary.encode(previous_tokens).tolist(), EOS_ID, *line_ids]
    return ReplyContext(None, ids, ids)


def start_generation(
    reply: Reply, state: DecoderState | None, unread_ids: Sequence[int], forced_id: int | None, pace: float
) -> GeneratorThread[GenerationEvent]:
    """Generate the tokens of a reply in a thread, `pace` tokens per second (0: as fast as the model).

    The reply has only its shared tokens. The model reads `unread_ids` after the cached `state` (None: from the
    beginning of the text). The first token is `forced_id`; None samples the first token too.
    """
    model, settings, seed = reply.session_model.model, reply.settings, reply.seed
    history = [id for id in reply.token_ids() if id != EOS_ID]  # the repetition penalty ignores line ends
    is_first_token = not reply.tokens

    def source(cancellation: Cancellation) -> Iterator[GenerationEvent]:
        current = prefill(model, unread_ids, state)
        yield current
        if forced_id is not None:
            event, current = force_token(model, current, history, settings, forced_id, is_first_token=is_first_token)
            history.append(forced_id)
            yield event, current
        events = generate_from(
            model, current, history, settings, seed, cancellation, is_first_token=is_first_token and forced_id is None
        )
        yield from throttle(events, pace, cancellation)

    return GeneratorThread("generation", source).start()
