"""The record of a run, `metrics.jsonl` and `samples.jsonl`: one JSON object a line."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL record; a torn last line is the end, not an error."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict) and isinstance(row.get("event"), str):
                    yield row
    except FileNotFoundError:
        return


def current_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a record, without those that a resume did again."""
    return without_repeated(read_rows(path))


def without_repeated(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what came before a resume and was done again after it, and the end that was none.

    A row of an update counts as done again from the update that the resume names on.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        first = row.get("step")
        if row["event"] == "resume" and isinstance(first, int):
            kept = [
                earlier
                for earlier in kept
                if earlier["event"] not in ("finished", "failed") and not _from(earlier.get("step"), first)
            ]
        kept.append(row)
    return kept


def _from(step: object, first: int) -> bool:
    return isinstance(step, int) and step >= first
