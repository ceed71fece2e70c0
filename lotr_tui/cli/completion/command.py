"""`lotr-tui completion`: the script that teaches a shell to complete the command line."""

from typing import Annotated

import typer

from lotr_tui.completion.shell_scripts import completion_script


def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the completion for a shell: commands, options, runs, presets, settings and files.

    bash: add `eval "$(lotr-tui completion bash)"` to ~/.bashrc. zsh: add `eval "$(lotr-tui completion zsh)"` to
    ~/.zshrc, after compinit. fish: run `lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish` once.
    """
    print(completion_script(shell), end="")
