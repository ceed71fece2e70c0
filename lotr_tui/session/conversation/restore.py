"""Restoring a conversation from a saved session.

Decoder states are not saved; the text is read again where a state is needed.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.data.tokenizers.base import EOS, EOS_ID, UNK_ID, Tokenizer, is_open_vocabulary
from engine.errors import InvalidInputError, printable
from engine.generation.generate import Done
from lotr_tui.session.conversation.cast import Roles
from lotr_tui.session.conversation.chat import chat_ids
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.generation import context_ids, to_prompt_line
from lotr_tui.session.conversation.reply_tree import OWN_FIELDS, Reply, Turn
from lotr_tui.session.model_abilities import answers_by_template
from lotr_tui.session.reply_token import ReplyToken
from lotr_tui.session.saved_session import SavedReply, SavedSession, SavedToken
from lotr_tui.session.session_file import SessionError, SessionWriter, load_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode


def resume_conversation(path: Path, session_model: SessionModel, pace: float) -> Conversation:
    """Restore a saved session, continued with `session_model` and in the same file.

    If the file cannot be written, for instance because another window has it open, new replies are saved as a new
    session, and `notice` says so.

    Raises:
        SessionError: If the file is missing, or damaged; a damaged file has then been set aside.
    """
    try:
        writer = SessionWriter.resume(path)
    except SessionError as error:
        try:
            session = load_session(path)
        except SessionError:
            raise error from None
        conversation = rebuild_conversation(session, session_model, pace)
        conversation.notice = f"{error}; new replies are saved as a new session"
        return conversation
    return rebuild_conversation(writer.session, session_model, pace, writer)


def rebuild_conversation(
    session: SavedSession, session_model: SessionModel, pace: float, writer: SessionWriter | None = None
) -> Conversation:
    """Return the conversation with the same replies selected, saved by `writer` (None: in a new file)."""
    conversation = Conversation(pace, writer)
    replies: dict[int, Reply] = {}
    for saved in sorted(session.replies, key=lambda reply: reply.id):  # parents come before their replies
        parent = None if saved.parent_id is None else replies[saved.parent_id]
        if parent is None or saved.prompt is not None:
            reply = _build_prompted_reply(saved, session_model, parent)
        else:
            reply = _build_branch(saved, session_model, parent)
        _add_to_turn(reply)
        _restore_tokens(reply, saved)
        replies[saved.id] = conversation.replies_by_exchange[reply.exchange] = reply
        conversation.current_reply = reply
    for reply in replies.values():
        reply.turn.label_branches()
    current = conversation.current_reply if session.current_id is None else replies[session.current_id]
    if current is not None:
        conversation.current_reply = _select_path(current)
    return conversation


def selected_replies(conversation: Conversation) -> list[Reply]:
    """Return the selected replies in the order in which their turns began."""
    turns = list(dict.fromkeys(reply.turn for reply in conversation.replies_by_exchange.values()))
    replies = [reply for turn in turns if turn.previous_reply is None for reply in turn.selected_reply.selected_path()]
    turn_index = {turn: index for index, turn in enumerate(turns)}
    return sorted(replies, key=lambda reply: turn_index[reply.turn])


def _add_to_turn(reply: Reply) -> None:
    """Add a reply to its turn, and select it unless a better answer was shown."""
    turn, selected_index = reply.turn, reply.turn.selected_index
    turn.add(reply)
    if reply.score is not None and reply.score.rank > 1:
        turn.selected_index = selected_index


def _build_prompted_reply(saved: SavedReply, session_model: SessionModel, previous: Reply | None) -> Reply:
    """Return a reply to a prompt, without tokens. Replies to an edited prompt share a turn."""
    tokenizer = session_model.model.tokenizer
    prompt = to_prompt_line(saved.prompt or "", tokenizer, saved.reply_mode)
    roles = Roles(saved.speaking_as, saved.speaker, saved.system_prompt)
    reply = Reply(
        turn=Turn.after(previous),
        prompt=prompt,
        unknown_tokens=saved.unknown_tokens,
        context_ids=_restored_context(session_model, prompt, saved.reply_mode, previous, roles),
        parent=previous,
        parent_offset=saved.parent_offset,
        speaking_as=saved.speaking_as,
        system_prompt=saved.system_prompt,
        read_only_reason="" if previous is None else previous.read_only_reason,
        **_saved_fields(saved, session_model),
    )
    unknown = [span.text for span in tokenizer.unknown_spans(prompt)]
    _check_vocabulary(reply, [text for text in unknown if text not in saved.unknown_tokens])
    _check_conversation(reply)
    return reply


def _restored_context(
    session_model: SessionModel, prompt: str, reply_mode: ReplyMode, previous: Reply | None, roles: Roles
) -> list[int]:
    """Return the token ids before a reply; of the plain text if no chat template accepts the messages."""
    model = session_model.model
    if answers_by_template(model, reply_mode):
        with suppress(InvalidInputError):
            return chat_ids(model, prompt, previous, roles.system_prompt)
    return context_ids(model, prompt, reply_mode, previous, roles)


def _build_branch(saved: SavedReply, session_model: SessionModel, parent: Reply) -> Reply:
    """Return a reply that branches off from `parent` or continues it, with the shared tokens only."""
    reply = Reply.branch_from(parent, saved.parent_offset, **_saved_fields(saved, session_model))
    reply.decoder_states = [None] * reply.num_shared_tokens
    reply.read_only_reason = parent.read_only_reason
    _check_conversation(reply)
    is_continuation = reply.num_shared_tokens == len(parent.tokens) and parent in parent.turn.replies
    if not is_continuation:
        reply.exchange.num_shared_tokens = reply.num_shared_tokens
    elif parent.next_turn is None:  # the continuation replaced its parent
        parent.turn.replies.remove(parent)
    return reply


def _saved_fields(saved: SavedReply, session_model: SessionModel) -> dict[str, Any]:
    """Return the fields of a reply that its parent does not determine."""
    return {"session_model": session_model, **{name: getattr(saved, name) for name in OWN_FIELDS}}


def _restore_tokens(reply: Reply, saved: SavedReply) -> None:
    """Restore the own tokens of a reply, its name and its end."""
    tokenizer = reply.session_model.model.tokenizer
    ids = [_token_id(token, tokenizer) for token in saved.tokens]
    if tokenizer.is_open or is_open_vocabulary(saved.tokenizer):
        if None in ids or tokenizer.is_open != is_open_vocabulary(saved.tokenizer):
            reply.read_only_reason = reply.read_only_reason or (
                f"{reply.session_model.name} splits text into other tokens and cannot continue from here"
            )
    else:
        _check_vocabulary(reply, [token.text for token in saved.tokens])
    if not reply.read_only_reason and not reply.num_shared_tokens:
        reply.split_context(min(saved.num_reread_tokens, len(reply.context_ids)))
    for token, id in zip(saved.tokens, ids, strict=True):
        unknown_id = EOS_ID if token.text == EOS else UNK_ID
        reply.tokens.append(_reply_token(token, unknown_id if id is None else id))
    reply.exchange.add_pieces(token.piece for token in reply.tokens[reply.num_shared_tokens :])
    reply.saved = saved
    reply.name = printable(saved.name)
    if saved.reason == "error":
        reply.exchange.mark_interrupted()
        return
    num_tokens = saved.settings.max_tokens if saved.reason == "length" else len(saved.tokens)
    reply.done = Done(saved.reason, saved.seed, num_tokens, saved.tokens_per_second)
    reply.exchange.mark_done(reply.done)


def _check_conversation(reply: Reply) -> None:
    """Make a reply of a conversation read-only if its model cannot hold one."""
    session_model = reply.session_model
    if reply.reply_mode == "conversation" and not session_model.cast and not reply.is_chat:
        reason = f"{session_model.name} knows no speakers and cannot continue from here"
        reply.read_only_reason = reply.read_only_reason or reason


def _check_vocabulary(reply: Reply, tokens: Sequence[str]) -> None:
    """Make a reply read-only if its model does not know one of `tokens`."""
    tokenizer = reply.session_model.model.tokenizer
    unknown = next((token for token in tokens if token not in tokenizer), None)
    if unknown is not None and not reply.read_only_reason:
        reply.read_only_reason = f"{reply.session_model.name} does not know {unknown!r} and cannot continue from here"


def _token_id(token: SavedToken, tokenizer: Tokenizer) -> int | None:
    """Return the id of a saved token in the session model's vocabulary; None if it is no token of it.

    In an open vocabulary, that is the saved id or none: other tokens with the same text may add another text.
    """
    if token.id < len(tokenizer) and tokenizer.tokens[token.id] == token.text:
        return token.id
    return None if tokenizer.is_open else tokenizer.token_to_id.get(token.text)


def _reply_token(token: SavedToken, id: int) -> ReplyToken:
    """Return a saved token as it was in the reply, with its id in the session model's vocabulary."""
    figures = (token.logprob, token.prob, token.entropy)
    logprob, prob, entropy = (math.nan if figure is None else figure for figure in figures)
    return ReplyToken(
        id=id,
        text=token.text,
        logprob=min(logprob, 0.0),  # an edited file may hold any number
        sampling_prob=prob,
        rank=token.rank,
        entropy=entropy,
        piece=token.piece,
    )


def _select_path(reply: Reply) -> Reply:
    """Select a reply and its predecessors in the turns before. Return the last reply of the visible path."""
    ancestor: Reply | None = reply
    while ancestor is not None:
        turn = ancestor.turn
        if ancestor in turn.replies:  # a reply that was continued is not in its turn any more
            turn.selected_index = turn.replies.index(ancestor)
        ancestor = turn.previous_reply
    return reply.turn.selected_reply.selected_path()[-1]
