"""CPU time to tokenize and index a text, by lotr-tui and by the notebook's code.

`python -m lotr_tui.bench.training.tokenizer_speed FILE` prints CPU seconds as JSON.
"""

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

from engine.data.lines import BLOCK_BYTES
from engine.data.token_indexer import TokenIndexer

MIN_COUNT = 3
"""Occurrences that a word needs to be in the notebook's vocabulary."""


def time_tokenizers(path: Path) -> dict[str, float]:
    """Tokenize and index a text in both ways, and return CPU seconds.

    `token_indexer` is the time of lotr-tui, including the reading of the file; `notebook_split` is the time that the
    notebook takes to split the text, and `notebook_total` that to split, count and index it.
    """
    started, indexer = time.process_time(), TokenIndexer()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            indexer.index_block((block + file.readline()).decode())
    indexer_seconds = time.process_time() - started

    text = path.read_text()
    started = time.process_time()
    words = re.sub(r"[^a-z0-9']+", " ", text.lower()).split()
    split_seconds = time.process_time() - started
    frequent_words = [word for word, count in Counter(words).items() if count >= MIN_COUNT]
    word_to_id = {word: id for id, word in enumerate(["<unk>", "<eos>", *frequent_words])}
    _ = [word_to_id.get(word, 0) for word in words]
    total_seconds = time.process_time() - started
    return {"token_indexer": indexer_seconds, "notebook_split": split_seconds, "notebook_total": total_seconds}


if __name__ == "__main__":
    print(json.dumps(time_tokenizers(Path(sys.argv[1]))))
