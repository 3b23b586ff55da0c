"""Names and keys of strangers' files in messages: nothing in them may steer a terminal or end a line."""


def printable(text: str) -> str:
    """The text with all that is not printable as Python's escapes: control characters, line ends, surrogates."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quoted(text: str) -> str:
    """The printable text in quotes."""
    return f"'{printable(text)}'"
