"""Keys of the screen with the runs."""

from textual.binding import Binding, BindingType

from lotr_tui.widgets.bindings import binding_table

RUNS_BINDINGS: list[BindingType] = [
    Binding("enter", "select_run", "play", id="runs.select", tooltip="Play with the selected run", priority=True),
    *binding_table(
        "runs",
        """
        mark        | space    | toggle_mark           | mark        | Mark the run for the comparison
        baseline    | b        | toggle_baseline       | baseline    | Compare other runs with this one; again: unpin it
        differences | d        | toggle_differences    | diff        | Settings that differ, and results
        scroll-down | right_square_bracket | scroll_differences(1) | scroll | Later lines of the comparison | [ ]
        filter      | slash    | focus_filter          | filter      | Filter the runs | /
        sort        | s        | sort(1)               | sort        | Sort by the next column
        rename      | r        | rename                | rename      | Rename the selected run
        delete      | delete,x | delete                | delete      | Delete the selected run | x
        csv         | c        | export('csv')         | CSV         | Export the metrics as CSV files
        tensorboard | t        | export('tensorboard') | TensorBoard | Export to TensorBoard
        """,
        show=True,
    ),
    *binding_table(
        "runs",
        """
        reverse     | S                    | reverse_sort           | reverse     | Reverse the order
        scroll-up   | left_square_bracket  | scroll_differences(-1) | scroll up   | Earlier lines of the comparison
        refresh     | f5                   | refresh                | refresh     | Read the runs again
        """,
    ),
    Binding("escape", "back", "back", id="runs.back", tooltip="Clear the filter, or go back", priority=True),
]
"""Keys, in the order of the footer and of the help."""
