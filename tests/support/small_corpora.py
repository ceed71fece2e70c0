"""Small corpora of a user for the class, and generators that load."""

import random
from typing import TypeVar

from engine.config import DataConfig

T = TypeVar("T")
ENGLISH = "the ring is lost and we must find it before night falls on this old road my friend"
CYRILLIC = "кольцо потеряно и мы должны найти его до ночи на этой старой дороге мой друг"


def write_corpus(path, num_lines=300, words=ENGLISH):
    """Write a CSV of lines with random words, and return the configuration of the corpus."""
    rng = random.Random(1)
    lines = (f"SAM,{' '.join(rng.choices(words.split(), k=9))}\n" for _ in range(num_lines))
    path.write_text("char,dialog\n" + "".join(lines), encoding="utf-8")
    return DataConfig(corpus=str(path))


def run_to_end(loading):
    """Run a generator; return its value and its lines of progress."""
    lines = []
    while True:
        try:
            lines.append(next(loading))
        except StopIteration as end:
            return end.value, lines
