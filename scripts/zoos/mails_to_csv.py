"""Turn e-mails in folders, one message a file, into train.csv and test.csv of texts that make_zoo.py trains on.

Classes are 1, ham, and 2, spam. A text is the subject and the body in lower case, read as Latin-1, without markup.
Numbers and signs are words, and a text has at most 400 of them. Repeated texts are used once, and both classes have as
many texts. The test part follows from hashes of the texts alone.

    python scripts/zoos/mails_to_csv.py --ham FOLDER ... --spam FOLDER ... --out mails/ [--test_share 0.2]
"""

import argparse
import csv
import email
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nfn_transformer import UserError
from nfn_transformer.cli.command_line import HelpFormatter, number_in, run_command

_FEWEST_WORDS, _MOST_WORDS = 5, 400
HAM, SPAM = 1, 2


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--ham", type=Path, nargs="+", required=True, help="folders of wanted messages")
    parser.add_argument("--spam", type=Path, nargs="+", required=True, help="folders of unwanted ones")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for train.csv and test.csv")
    parser.add_argument("--test_share", type=number_in(float, 0, 1), default=0.2, help="part of the texts for testing")
    flags = parser.parse_args(arguments)
    ham, spam = _texts(flags.ham), _texts(flags.spam)
    spam = {digest: text for digest, text in spam.items() if digest not in ham}
    count = min(len(ham), len(spam))
    chosen = [(digest, label, text) for label, texts in ((HAM, ham), (SPAM, spam)) for digest, text in texts.items()]
    by_class = [[row for row in sorted(chosen) if row[1] == label][:count] for label in (HAM, SPAM)]
    rows = sorted(row for part in by_class for row in part)
    cut = int((1 - flags.test_share) * len(rows))
    if not 0 < cut < len(rows):
        raise UserError(f"{len(ham)} ham and {len(spam)} spam: expected enough for a train and a test part")
    try:
        flags.out.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"--out {flags.out}: already exists") from None
    for name, part in (("train.csv", rows[:cut]), ("test.csv", rows[cut:])):
        with open(flags.out / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["Class Index", "Title", "Description"])
            writer.writerows((label, "", text) for _, label, text in part)
    print(
        f"{flags.out}: {cut} texts to train, {len(rows) - cut} to test; {len(ham)} ham and {len(spam)} spam were there"
    )
    return 0


def _texts(folders: Sequence[Path]) -> dict[str, str]:
    """Read the texts of all messages in folders, by their hashes.

    Raises:
        UserError: a folder does not exist.
    """
    texts_by_hash = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            words = list(itertools.islice(_words(path.read_bytes()), _MOST_WORDS))
            text = " ".join(words)
            if len(words) >= _FEWEST_WORDS:
                texts_by_hash[hashlib.sha256(text.encode()).hexdigest()] = text
    return texts_by_hash


def _words(content: bytes) -> Iterator[str]:
    message = email.message_from_bytes(content)
    parts = {part.get_content_type(): part for part in reversed(list(message.walk()))}  # the first of each type
    part = parts.get("text/plain") or parts.get("text/html")
    if part is not None:
        body = re.sub(r"<[^>]*>", " ", (part.get_payload(decode=True) or b"").decode("latin-1"))
        yield from re.findall(r"[a-z']+|[0-9]+|[^\sa-z0-9]", f"{message['subject'] or ''} {body}".lower())


if __name__ == "__main__":
    run_command(main)
