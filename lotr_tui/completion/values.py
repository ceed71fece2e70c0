"""Candidates for the word at the cursor."""

from typing import TYPE_CHECKING

from lotr_tui.completion.candidate import Candidate, ShellFiles, matching, with_prefix
from lotr_tui.completion.command_tree import CommandTree, Value
from lotr_tui.completion.cursor import Cursor

if TYPE_CHECKING:
    from lotr_tui.completion.runs import RunFolder

PRETRAINED_PREFIXES = {"hf:": "folder of a Hugging Face model", "gguf:": "GGUF file"}


class Completer:
    """Lists the candidates of every kind of value for one shell."""

    def __init__(self, tree: CommandTree, *, shell_completes_files: bool, groups: bool) -> None:
        """Store the abilities of the shell.

        Args:
            tree: Description of the command line.
            shell_completes_files: True to answer with `ShellFiles` where a path is typed.
            groups: True if the shell shows a common beginning of many names without adding a space.
        """
        self._tree = tree
        self._shell_completes_files = shell_completes_files
        self._groups = groups

    def complete(self, cursor: Cursor) -> list[Candidate] | ShellFiles:
        """Return the candidates for the word at the cursor, or the request that the shell completes a path."""
        candidates: list[Candidate] = []
        if cursor.value:
            values = self._complete_value(cursor.value, cursor)
            if isinstance(values, ShellFiles):
                return values._replace(prefix=cursor.prefix + values.prefix)
            candidates += values
        if cursor.offers_commands:
            candidates += [Candidate(name, row["help"]) for name, row in cursor.command.commands.items()]
        if cursor.offers_options:
            for option in cursor.command.options:
                if option.is_repeatable or cursor.used_options.isdisjoint(option.names):
                    names = option.names if cursor.word.startswith("-") else option.names[:1]
                    candidates += [Candidate(name, option.help) for name in names]
        return with_prefix(cursor.prefix, matching(candidates, cursor.word))

    def _complete_value(self, value: Value, cursor: Cursor) -> list[Candidate] | ShellFiles:
        word = cursor.word
        if value.kind == "choices":
            return [Candidate(*choice) for choice in value.choices.items()]
        if value.kind == "setting":
            return self._complete_setting(word)
        if value.kind in ("file", "folder"):
            return self._complete_path(word, "", value.extensions, only_folders=value.kind == "folder")
        from lotr_tui.completion.runs import open_run_folder  # needs the engine, which commands and options do not

        folder = open_run_folder(self._tree, cursor.typed.runs_dir)
        if value.kind in ("run", "model", "any_model"):
            return self._complete_run(folder, word, value.kind)
        if folder and value.kind == "search":
            return folder.complete_searches(word)
        if folder and value.kind == "speaker":
            return [Candidate(name) for name in folder.read_cast(cursor.typed.run)]
        if folder and value.kind == "cast":
            head, comma, _ = word.rpartition(",")
            taken = head.split(",")
            names = [name for name in folder.read_cast(cursor.typed.run) if name not in taken]
            return [Candidate(head + comma + name, is_complete=False) for name in names]
        return []

    def _complete_setting(self, word: str) -> list[Candidate]:
        name, equals, _ = word.partition("=")
        if not equals:
            return [Candidate(f"{name}=", setting.help, False) for name, setting in self._tree.settings.items()]
        setting = self._tree.settings.get(name)
        return [Candidate(f"{name}={choice}") for choice in setting.choices] if setting else []

    def _complete_run(self, folder: "RunFolder | None", word: str, kind: str) -> list[Candidate] | ShellFiles:
        """Return runs; for a model also the bundled ones and RUN@EPOCH, and for any model those by others."""
        if kind == "any_model":
            if word.startswith("hf:"):
                return self._complete_path(word, "hf:", (), only_folders=True)
            if word.startswith("gguf:"):
                paths = self._complete_path(word, "gguf:", (".gguf",))
                if isinstance(paths, ShellFiles):
                    return paths
                return [path for path in paths if not path.is_complete or path.text.casefold().endswith(".gguf")]
        if "/" in word or word.startswith(("~", ".")):
            return self._complete_path(word, "", (), only_folders=True)
        run, at, epoch = word.rpartition("@")
        if at and kind != "run":
            return folder.complete_epochs(run, epoch) if folder else []
        names = list(self._tree.run_names.items())
        candidates = [Candidate(*name) for name in (names[:1] if kind == "run" else names)]
        if folder:
            candidates += folder.complete_names(word, groups=self._groups)
        if kind == "any_model":
            candidates += [Candidate(prefix, help, False) for prefix, help in PRETRAINED_PREFIXES.items()]
        return candidates

    def _complete_path(
        self, word: str, prefix: str, extensions: tuple[str, ...], *, only_folders: bool = False
    ) -> list[Candidate] | ShellFiles:
        if self._shell_completes_files:
            return ShellFiles(prefix, extensions, only_folders)
        from lotr_tui.completion.paths import complete_path

        path = word.removeprefix(prefix)
        return with_prefix(prefix, complete_path(path, extensions, only_folders=only_folders))
