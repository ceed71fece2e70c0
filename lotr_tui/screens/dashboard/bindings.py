"""The keys of the dashboard."""

from textual.binding import Binding, BindingType

TRAIN_KEYS: list[BindingType] = [
    Binding("space", "pause", "pause", id="train.pause", tooltip="Pause the training, or let it go on"),
    Binding("s", "stop", "stop", id="train.stop", tooltip="End the training; the best model is kept"),
    Binding("f2", "next_pane", "pane", id="train.pane", tooltip="Curve, words, figures or log"),
    Binding("c", "ask('checkpoint')", "save", id="train.save", tooltip="Save now all that is needed to go on"),
    Binding("d", "ask('detach')", "detach", id="train.detach", tooltip="Let the training go on without this screen"),
    Binding("p", "play", "play", id="train.play", tooltip="Prompt the model as it stands"),
    Binding("left", "sample(-1)", "words", key_display="← →", id="train.before", tooltip="The sample before"),
    Binding("right", "sample(1)", "next sample", show=False, id="train.next", tooltip="The next sample"),
    Binding(
        "plus,equals_sign",
        "curve('zoom(0.5)')",
        "zoom",
        key_display="+ -",
        id="train.closer",
        tooltip="See less, closer",
    ),
    Binding("minus", "curve('zoom(2.0)')", "zoom out", show=False, id="train.wider", tooltip="See more of the curve"),
    Binding("e", "prompt", "prompt", id="train.prompt", tooltip="Continue another prompt at evaluations"),
    Binding("l", "lower", "lower lr", id="train.lower", tooltip="Halve the learning rate"),
    Binding("L", "full", "full lr", show=False, id="train.full", tooltip="The learning rate as scheduled again"),
    Binding("ctrl+o", "runs", "runs", id="train.runs", tooltip="All runs: play with one, compare, tidy up"),
    Binding("q,escape", "close", "close", id="train.close", tooltip="Leave the dashboard"),
    Binding("comma", "column(-1)", "a little back", show=False, id="train.back", tooltip="The cursor a little back"),
    Binding("full_stop", "column(1)", "a little on", show=False, id="train.on", tooltip="The cursor a little on"),
    Binding("home", "first", "first sample", show=False, id="train.first", tooltip="The first sample"),
    Binding("end", "latest", "latest", show=False, id="train.latest", tooltip="Follow the latest again"),
    Binding(
        "left_square_bracket",
        "curve('pan(-0.5)')",
        "pan left",
        show=False,
        id="train.left",
        tooltip="Earlier parts of the curve",
    ),
    Binding(
        "right_square_bracket",
        "curve('pan(0.5)')",
        "pan right",
        show=False,
        id="train.right",
        tooltip="Later parts of the curve",
    ),
    Binding("0", "curve('show_all')", "all of it", show=False, id="train.all", tooltip="All of the curve again"),
    Binding(
        "y",
        "curve('toggle_logarithmic')",
        "log axis",
        show=False,
        id="train.log",
        tooltip="Perplexity linear, or logarithmic",
    ),
    Binding(
        "x", "curve('next_along')", "x axis", show=False, id="train.along", tooltip="The curve by epoch, update or time"
    ),
    Binding(
        "m", "curve('next_smoothing')", "smoother", show=False, id="train.smooth", tooltip="A smoother train curve"
    ),
    Binding("up", "log('step(-1)')", "log up", show=False, id="train.up", tooltip="A line up in the log"),
    Binding("down", "log('step(1)')", "log down", show=False, id="train.down", tooltip="A line down in the log"),
    Binding("pageup", "log('page(-1)')", "log page up", show=False, id="train.page-up", tooltip="A page up in the log"),
    Binding(
        "pagedown", "log('page(1)')", "log page", show=False, id="train.page-down", tooltip="A page down in the log"
    ),
    Binding("ctrl+c", "stop", "stop training", show=False, id="train.interrupt"),
]
