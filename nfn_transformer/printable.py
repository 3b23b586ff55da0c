"""Text of strangers' files on its way to a terminal: escaped, and of bounded length.

Names, keys and titles in files must neither steer a terminal, nor end a line, nor fill a screen.
"""

MOST_LINES, MOST_CHARACTERS = 30, 4000
"""Bounds of a whole message."""


def printable(text: str, most: int = 500) -> str:
    """Return the text with Python's escapes for all that is not printable, and no more than its first `most` letters.

    Control characters, line ends and surrogates are not printable.
    """
    if len(text) > most:
        text = f"{text[:most]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quoted(text: str) -> str:
    """Return the printable text in quotes."""
    return f"'{printable(text, 200)}'"


def shown(value: object) -> str:
    """Return a value of JSON or YAML, printable and short; a long one by its type and length."""
    if isinstance(value, list | dict) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value):,} entries"
    return printable(repr(value), 200)


def printable_message(message: str) -> str:
    """Return a message of several lines, each of them printable, within the bounds of a message."""
    return bounded("\n".join(printable(line.expandtabs(), MOST_CHARACTERS // 2) for line in message.split("\n")))


def bounded(message: str) -> str:
    """Return a message of at most MOST_LINES lines and MOST_CHARACTERS characters, its middle left out."""
    lines = message.split("\n")
    half = MOST_LINES // 2 - 1
    if len(lines) > MOST_LINES:
        lines = [*lines[:half], f"({len(lines) - 2 * half} lines left out)", *lines[-half:]]
    text, half = "\n".join(lines), MOST_CHARACTERS // 2 - 20
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]}\n(characters left out)\n{text[-half:]}"
