"""The keys of the session."""

from textual.binding import Binding, BindingType

PLAY_KEYS: list[BindingType] = [
    Binding("escape", "stop", "stop", id="play.stop", tooltip="Stop the words; those that came stay", priority=True),
    Binding("f7", "temperature(-1)", "temp", key_display="f7/8", id="play.cooler", tooltip="Temperature 0.05 lower"),
    Binding("f8", "temperature(1)", "hotter", show=False, id="play.hotter", tooltip="Temperature 0.05 higher"),
    Binding(
        "ctrl+g",
        "talk('walk')",
        "words",
        priority=True,
        id="play.walk",
        tooltip="Walk over the words: why each was picked",
    ),
    Binding("f2", "next_pane", "pane", id="play.pane", tooltip="On a narrow terminal: another pane"),
    Binding("ctrl+t", "train", "train", id="play.train", tooltip="Start a training, or see the one going on"),
    Binding("ctrl+l", "look('ladder')", "ladder", id="play.ladder", tooltip="The prompt at several temperatures"),
    Binding("ctrl+e", "look('lens')", "lens", id="play.lens", tooltip="Bits a word of a text of yours"),
    Binding("ctrl+y", "look('side_by_side')", "compare", id="play.compare", tooltip="The prompt with several models"),
    Binding("f9", "look('memorised')", "new?", id="play.memorised", tooltip="What of it stands in the training text"),
    Binding("f10", "look('inside')", "inside", id="play.inside", tooltip="The LSTM's gates and cells, word by word"),
    Binding("ctrl+o", "choose_model", "runs", id="play.model", tooltip="All runs: play with one, compare, tidy up"),
    Binding(
        "ctrl+s", "sessions", "sessions", show=False, id="play.sessions", tooltip="Sessions saved before: open, export"
    ),
    Binding(
        "ctrl+r",
        "talk('again')",
        "again",
        priority=True,
        id="play.again",
        tooltip="Say the reply anew, with another seed",
    ),
    Binding(
        "ctrl+n",
        "talk('more')",
        "more",
        priority=True,
        id="play.more",
        tooltip="More words behind the reply's last one",
    ),
    Binding(
        "ctrl+x", "talk('edit')", "edit", priority=True, id="play.edit", tooltip="Change the prompt and send it again"
    ),
    Binding("f11", "talk('copy')", "copy", show=False, id="play.copy", tooltip="Send the reply to the clipboard"),
    Binding("ctrl+f", "talk('find')", "find", priority=True, id="play.find", tooltip="Find words in the transcript"),
    Binding(
        "f6", "way", "way", priority=True, id="play.way", tooltip="Continue the prompt, or reply to it as to a line"
    ),
    Binding(
        "f5", "pace", "pace", priority=True, id="play.pace", tooltip="Words a second, from reading speed to full speed"
    ),
    Binding("f4", "sampler('all')", "controls", id="play.controls", tooltip="All controls of the sampler, or few"),
    Binding(
        "f3", "sampler('preset(1)')", "preset", show=False, id="play.preset", tooltip="The next preset of the sampler"
    ),
    Binding(
        "f12",
        "sampler('hold_seed')",
        "hold seed",
        show=False,
        id="play.hold-seed",
        tooltip="The last seed again",
    ),
    Binding("pageup", "scroll(-1)", "scroll up", show=False, id="play.up", tooltip="Earlier exchanges"),
    Binding("pagedown", "scroll(1)", "scroll down", show=False, id="play.down", tooltip="Later exchanges"),
    Binding("ctrl+c", "stop", "stop", show=False, id="play.interrupt", priority=True),
]
"""In the order in which the footer takes them, as many as there is room for.

What is done with a reply has priority: a field that has the focus would else take some of the keys.
"""
