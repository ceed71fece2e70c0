"""Speech in prose: the text between quotation marks, as training text that is nearer to dialogue than a whole book."""

import re
from pathlib import Path

from engine.data.file_scan import read_whole_text
from engine.errors import CorpusError, InvalidInputError
from engine.storage.files import check_output, write_output

MIN_WORDS = 4  # shortest quotation that is kept; shorter ones are mostly titles, single words and cries

_DOUBLE = re.compile(r'[“"]([^“”"]+)(?:[”"]|$)')
# A single quotation mark is an apostrophe too, unless it is where a word begins or ends.
_SINGLE = re.compile(r"(?:(?<=[\s—(])|^)‘(.+?)’(?=[\s—)]|$)")


def find_quotations(paragraph: str) -> list[str]:
    """Return the quotations in a paragraph, without quotation marks.

    A quotation without an end reaches to the end of the paragraph: the next paragraph continues it. Single quotation
    marks count only if there are no double ones, since a quotation in a quotation has the other kind.
    """
    found = _DOUBLE.findall(paragraph) or _SINGLE.findall(paragraph)
    quotations = [quotation.strip().rstrip(",") for quotation in found]
    return [quotation for quotation in quotations if len(quotation.split()) >= MIN_WORDS]


def write_speech(source: Path, output: Path) -> int:
    """Write the quotations of a text with a paragraph a line to `output`, one per line, and return their number."""
    quotations = [each for paragraph in read_whole_text(source).split("\n") for each in find_quotations(paragraph)]
    if not quotations:
        raise CorpusError(f"{source} contains no speech of {MIN_WORDS} words between quotation marks")
    check_output(output)
    if output.exists() and output.samefile(source):
        raise InvalidInputError(f"--output {output} is the text itself; name another file")
    write_output(output, "".join(f"{quotation}\n" for quotation in quotations).encode())
    return len(quotations)
