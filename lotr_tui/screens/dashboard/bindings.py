"""Key bindings of the dashboard."""

from textual.binding import Binding, BindingType

from lotr_tui.widgets.bindings import binding_table

_SHOWN = """
pause           | space            | toggle_pause               | pause    | Pause or resume the training
stop            | s                | stop_training              | stop     | Stop the training; the best model is kept
pane            | f2               | next_pane                  | pane     | Next of curve, samples, metrics and log
save            | c                | send_command('checkpoint') | save     | Save a checkpoint to resume from
detach          | d                | send_command('detach')     | detach   | Continue the training without a screen
play            | p                | open_session               | play     | Play with the latest model
previous-sample | left             | step_sample(-1)            | samples  | The previous sample | ← →
zoom-in         | plus,equals_sign | chart('zoom(0.5)')         | zoom     | Zoom into the curve | + -
prompt          | e                | change_prompt              | prompt   | Change the prompt of the samples
halve-lr        | l                | halve_lr                   | lower lr | Halve the learning rate
runs            | ctrl+o           | choose_model               | runs     | All runs: play, compare, rename, delete
close           | q,escape         | close                      | close    | Close the dashboard
"""
_HIDDEN = """
dismiss       | k              | dismiss_diagnosis         | dismiss       | Hide the problem; the log keeps it
next-sample   | right          | step_sample(1)            | next sample   | The next sample
zoom-out      | minus          | chart('zoom(2.0)')        | zoom out      | Zoom out of the curve
reset-lr      | L              | reset_lr                  | full lr       | Restore the scheduled learning rate
cursor-left   | comma          | move_cursor(-1)           | cursor left   | Move the cursor on the curve to the left
cursor-right  | full_stop      | move_cursor(1)            | cursor right  | Move the cursor on the curve to the right
first         | home           | first_sample              | first sample  | The first sample
latest        | end            | follow_latest             | latest        | Follow the latest sample
pan-left      | left_square_bracket | chart('pan(-0.5)')        | pan left      | Earlier parts of the curve
pan-right     | right_square_bracket | chart('pan(0.5)')         | pan right     | Later parts of the curve
show-all      | 0              | chart('reset_zoom')       | whole curve   | Show the whole curve
log-scale     | y              | chart('toggle_log_scale') | log axis      | Linear or logarithmic perplexity axis
x-axis        | x              | chart('next_x_axis')      | x axis        | Curve by epoch, step or time
smoothing     | m              | chart('next_smoothing')   | smoothing     | More smoothing of the training curve
log-up        | up             | log('step(-1)')           | log up        | A line up in the log
log-down      | down           | log('step(1)')            | log down      | A line down in the log
log-page-up   | pageup         | log('page(-1)')           | log page up   | A page up in the log
log-page-down | pagedown       | log('page(1)')            | log page down | A page down in the log
"""
DASHBOARD_BINDINGS: list[BindingType] = [
    *binding_table("dashboard", _SHOWN, show=True),
    *binding_table("dashboard", _HIDDEN),
    Binding("ctrl+c", "stop_training", "stop training", show=False, id="dashboard.interrupt"),
]
