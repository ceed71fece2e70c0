"""Small books in the form of Project Gutenberg, for tests of the pre-training corpus."""

import hashlib

from engine.data.tales.books import Book

PROSE = (
    "The old ferryman sat by the river and mended his net, for the evening was warm and\n"
    "nobody wished to cross before the moon was up over the hills.\n"
)
START = "*** START OF THE PROJECT GUTENBERG EBOOK THE FERRY ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK THE FERRY ***"


def make_book_text(body, start=START, end=END):
    """Return a file of Project Gutenberg: header, `body`, licence."""
    return (
        "The Project Gutenberg eBook of The Ferry, by Nobody\n\nThis eBook is for the use of anyone anywhere.\n\n"
        f"Title: The Ferry\n\n{start}\n\n{body}\n\n{end}\n\nSection 1. General Terms of Use of Project Gutenberg-tm\n"
    )


def make_books(count=3):
    """Return books of 2 to 3 kB with their files; the first is number 1."""
    books = {}
    for number in range(1, count + 1):
        paragraphs = [f"{PROSE}Then came traveller number {number} of day {day}.\n" for day in range(10 + number)]
        content = make_book_text("CHAPTER I\n\n\n" + "\n".join(paragraphs)).encode()
        digest = hashlib.sha256(content).hexdigest()
        books[Book(number, len(content), digest, f"The Ferry, part {number}")] = content
    return books
