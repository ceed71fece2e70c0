"""Our colours: dark, one accent. Any Textual theme can be used instead."""

from textual.theme import Theme

MUTED = "$foreground 60%"
"""For what explains; the words are what is read."""

SHIRE = Theme(
    name="shire",
    primary="#d9a648",
    secondary="#7d8a73",
    accent="#d9a648",
    foreground="#d8d4c8",
    background="#14150f",
    surface="#14150f",
    panel="#1e2018",
    success="#8fb573",
    warning="#d9a648",
    error="#d9715f",
    dark=True,
    variables={
        "footer-background": "#14150f",
        "footer-key-foreground": "#d9a648",
        "footer-description-foreground": "#8b8c7e",
        "border": "#3a3d31",
        "block-cursor-background": "#d9a648",
        "input-selection-background": "#d9a648 35%",
    },
)
