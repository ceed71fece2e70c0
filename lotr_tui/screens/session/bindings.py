"""Key bindings of the session screen."""

from dataclasses import replace

from textual.binding import Binding, BindingType

from lotr_tui.widgets.bindings import binding_table

_TABLE = """
stop              | escape   | stop                      | stop     | Stop; keep what was written
lower-temperature | f7       | sampler('step_temperature(-1)') | temp     | Lower the temperature by 0.05
raise-temperature | f8       | sampler('step_temperature(1)') | hotter   | Raise the temperature by 0.05
inspect-words     | ctrl+g   | conversation('enter_cursor_mode') | words    | Inspect the words: why each was picked
pane              | f2       | next_pane                 | pane     | Show the next pane on a narrow terminal
train             | ctrl+t   | train                     | train    | Start a training, or watch the running one
ladder            | ctrl+l   | inspect('ladder')         | ladder   | The prompt at several temperatures
lens              | ctrl+e   | inspect('lens')           | lens     | Surprise per word in any text
compare           | ctrl+y   | inspect('side_by_side')   | compare  | The prompt with several models
memorization      | f9       | inspect('memorization')   | copied?  | Which parts are copied from training
activations       | f10      | inspect('activations')    | inside   | Gates of an LSTM, or attention of a Transformer
runs              | ctrl+o   | choose_model              | runs     | All runs: use one, compare, delete
model             | ctrl+backslash | switch_model       | model    | SmolLM2, or the small LSTM that shows everything
learn             | ctrl+underscore,ctrl+slash | learn   | learn    | The class: what a language model is | ^/
sessions          | ctrl+s   | choose_session            | sessions | Saved sessions: open, new, rename, delete, export
regenerate        | ctrl+r   | regenerate                | again    | Regenerate the reply with another seed
continue          | ctrl+n   | continue                  | more     | Keep going: the next turn, or after the last word
cast              | ctrl+d   | choose_cast               | cast     | Choose who answers and who you are
edit              | ctrl+x   | conversation('edit_prompt') | edit     | Change the prompt and send it again
copy              | f11      | conversation('copy_reply') | copy     | Copy the prompt and its reply
find              | ctrl+f   | conversation('open_search') | find     | Find words in the conversation
reply-mode        | f6       | toggle_reply_mode         | mode     | Conversation, continue my text, or answer it
pace              | f5       | next_pace                 | pace     | Words or tokens per second, up to full speed
controls          | f4       | sampler('toggle_all')     | controls | All sampling controls, or only the main ones
preset            | f3       | sampler('step_preset(1)') | preset   | The next sampling preset
tokens            | ctrl+right_square_bracket | toggle_tokens | tokens | Next words whole, or as their tokens
hold-seed         | f12      | sampler('toggle_fixed_seed') | hold seed | Keep the last random seed
page-up           | pageup   | scroll_page(-1)           | scroll up | Earlier replies
page-down         | pagedown | scroll_page(1)            | scroll down | Later replies
interrupt         | ctrl+c   | interrupt                 | stop     | Stop the reply; ctrl+q quits
"""
_HIDDEN_KEYS = {
    "ctrl+underscore,ctrl+slash",
    "ctrl+backslash",
    "f8",
    "ctrl+s",
    "f11",
    "f3",
    "f12",
    "ctrl+right_square_bracket",
    "pageup",
    "pagedown",
    "ctrl+c",
}
"""Keys that only the palette and the help show."""
_PRIORITY_KEYS = {"escape", "ctrl+g", "ctrl+r", "ctrl+n", "ctrl+x", "ctrl+f", "ctrl+d", "f6", "f5", "ctrl+c"}
"""Keys that a focused input would otherwise take."""
SESSION_BINDINGS: list[BindingType] = [
    replace(binding, show=binding.key not in _HIDDEN_KEYS, priority=binding.key in _PRIORITY_KEYS)
    for binding in binding_table("session", _TABLE)
    if isinstance(binding, Binding)
]
"""In the order of the footer, which shows as many as fit."""
