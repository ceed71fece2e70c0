"""`python -m lotr_tui` is `lotr-tui`."""

from lotr_tui.cli import main

main()
