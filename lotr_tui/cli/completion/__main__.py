"""`python -m lotr_tui.cli.completion`: write the description of the command line again, after a change of it."""

from lotr_tui.cli.completion.tree_file import describe_program
from lotr_tui.completion.command_tree import TREE_FILE

if __name__ == "__main__":
    TREE_FILE.write_text(describe_program(), encoding="utf-8")
