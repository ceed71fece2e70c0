"""The screens that inspect the model of a session; each module is imported when its screen is opened."""

from textual.screen import Screen

from engine.analysis.activations import find_attention_model
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session.cast import Roles
from lotr_tui.session.columns import PromptContext
from lotr_tui.session.read_text import to_prompt_line
from lotr_tui.session.session_model import SessionModel


def create_inspector_screen(inspector: str, view: ConversationView, draft: str, answerer: str) -> Screen[None]:
    """Create the screen of an inspector on the typed `draft`, or on the reply under the cursor or the latest one.

    Unless a speaker is chosen, `answerer` answers the draft.
    """
    slot, model, reply = view.slot, view.slot.session_model, view.target_reply
    if inspector in ("temperatures", "compare"):
        prompt, seed, roles = draft, slot.sampler.seed, slot.roles
        if slot.reply_mode == "conversation":
            roles = roles._replace(speaker=roles.speaker or answerer)
        context = PromptContext(slot.reply_mode, view.previous_reply(), roles)
        if reply is not None and not draft:
            roles = Roles(reply.speaking_as, reply.speaker, reply.system_prompt)
            prompt, context = reply.prompt or "", PromptContext(reply.reply_mode, reply.turn.previous_reply, roles)
            seed = reply.seed if seed is None and reply.starts_turn else seed
        from lotr_tui.screens.inspect.comparison import LadderScreen, SideBySideScreen

        screen_type = LadderScreen if inspector == "temperatures" else SideBySideScreen
        return screen_type(model, prompt, slot.sampler.settings, seed, slot.pace, context)
    text = to_prompt_line(draft) if reply is None else reply.full_text()
    if reply is not None and not (reply.session_model.cast and model.cast):
        model = reply.session_model  # a conversation is the same text for all models that know speakers
    path = [] if reply is None else reply.path()
    names = tuple(dict.fromkeys(name for each in path for name in (each.speaking_as, each.speaker) if name))
    if inspector == "lens":
        from lotr_tui.screens.inspect.lens import LensScreen

        return LensScreen(model, text, names, reads_line_ends="\n" in text and not model.cast)
    if inspector == "copied":
        from lotr_tui.screens.inspect.copied import CopiedScreen

        return CopiedScreen(model, text, names)
    return create_inside_screen(model, text, names)


def create_inside_screen(model: SessionModel, text: str, names: tuple[str, ...] = ()) -> Screen[None]:
    """Create the screen of the attention of a model, or else of its gates, on a text."""
    if find_attention_model(model.model) is not None:
        from lotr_tui.screens.inspect.attention import AttentionScreen

        return AttentionScreen(model, text, names)
    from lotr_tui.screens.inspect.layers import ActivationsScreen

    return ActivationsScreen(model, text, names)
