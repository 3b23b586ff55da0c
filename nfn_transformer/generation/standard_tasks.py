"""Tasks of standard transformers: images and texts with classes, and the next token of a text."""

import argparse
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.bundled import find_bundled
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.task_data import read_images
from nfn_transformer.generation.texts import Texts, frequent_words, read_texts

DEFAULT_TEXT = Path("data/documentation.txt")
"""Bundled text for next tokens: the project's documentation of November 2026, which stays as it is."""

PADDING, CLASS_TOKEN = 0, 1
"""Rows of the words that stand for padding and unknown words, and for the class token in front of each text."""

OTHER_CHARACTER = 0
"""Row of all rare characters."""

_LARGEST_TEXT = 2**28


@dataclass(frozen=True)
class StandardTask:
    """A task with train samples, test samples for labels, and fresh samples that tell how well labels rank."""

    train: LabelledSamples
    """Train samples; of a text, sequences [n, tokens + 1] without classes."""
    test: LabelledSamples
    """Test samples, of which labels are."""
    fresh: LabelledSamples
    """Test samples that are not among `test`: as many, or fewer, perhaps none."""
    outputs: int
    """Classes, or tokens of the vocabulary."""
    tokens: int = 0
    """Tokens that a network reads; 0 of images."""
    vocabulary: int = 0
    """Rows of words or characters; 0 of images."""
    is_next_token: bool = False
    """True if each token's successor is to be told."""
    files: tuple[tuple[str, bytes], ...] = ()
    """Files beside the networks: names and contents."""

    def to(self, device: torch.device) -> "StandardTask":
        """Return the task on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("train", "test", "fresh")}
        return replace(self, **parts)

    def inputs_and_targets(self, samples: LabelledSamples, index: slice) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some samples, see `read_and_target`."""
        return self.read_and_target(samples.inputs[index], samples.labels[index])

    def read_and_target(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what networks read, and classes [...] or next tokens [..., tokens]."""
        return (inputs[..., :-1], inputs[..., 1:]) if self.is_next_token else (inputs, labels)

    def digest(self) -> str:
        """Return a hash of all that networks see of the data."""
        digest = hashlib.sha256()
        for part in (self.train, self.test, self.fresh):
            for tensor in (part.inputs, part.labels):
                digest.update(f"{tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def standard_task(kind: str, options: argparse.Namespace) -> StandardTask:
    """Read the task that flags ask for.

    Args:
        kind: `images`, `texts` or `next_token`.
        options: flags of make_zoo.py.

    Raises:
        UserError: a flag does not fit the data, or a file does not exist.
        ZooError: a file has another format.
    """
    if kind == "images":
        data = read_images(options.images)
        train, test = data.train, data.test
        task = StandardTask(train, test, test.first(0), data.classes)
    elif kind == "texts":
        task = _classified_texts(options)
    else:
        task = _sequences(options)
    return _limited(task, options)


def _limited(task: StandardTask, options: argparse.Namespace) -> StandardTask:
    """Return the task with the first samples of each part; test samples after these are fresh."""
    for flag, part in (("--train_images", task.train), ("--test_images", task.test)):
        count = getattr(options, flag[2:])
        if count is not None and count > len(part.labels):
            raise UserError(f"{flag} {count}: expected at most {len(part.labels)}")
    count = options.test_images or len(task.test.labels)
    later = LabelledSamples(task.test.inputs[count:], task.test.labels[count:])
    fresh = (task.fresh if len(task.fresh.labels) else later).first(count)
    return replace(task, train=task.train.first(options.train_images), test=task.test.first(count), fresh=fresh)


def _classified_texts(options: argparse.Namespace) -> StandardTask:
    train, test = read_texts(options.texts)
    words = frequent_words(train.words, options.vocabulary)
    rows = {word: row for row, word in enumerate(words, 2)}

    def samples(texts: Texts) -> LabelledSamples:
        ids = torch.full((len(texts.words), options.tokens), PADDING)
        ids[:, 0] = CLASS_TOKEN
        for row, text in zip(ids, texts.words, strict=True):
            known = [rows.get(word, PADDING) for word in text[: options.tokens - 1]]
            row[1 : 1 + len(known)] = torch.tensor(known, dtype=torch.int64)
        return LabelledSamples(ids, torch.tensor(texts.labels))

    names = "".join(f"{word}\n" for word in ("[PAD]", "[CLS]", *words))
    return StandardTask(
        train=samples(train),
        test=(all_test := samples(test)),
        fresh=all_test.first(0),
        outputs=max(train.labels) + 1,
        tokens=options.tokens,
        vocabulary=len(words) + 2,
        files=(("vocab.txt", names.encode()),),
    )


def _sequences(options: argparse.Namespace) -> StandardTask:
    """Return sequences of a text's characters: 8 of 10 to train on, 1 for labels, 1 that is fresh."""
    path = find_bundled(options.text or DEFAULT_TEXT)
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise ZooError(f"--text {path}: {path.stat().st_size} bytes, expected at most {_LARGEST_TEXT}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--text {path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ZooError(f"--text {path}: not UTF-8 ({error})") from None
    characters = frequent_words([[*text]], options.vocabulary - 1)
    rows = {character: row for row, character in enumerate(characters, OTHER_CHARACTER + 1)}
    length = options.tokens + 1
    ids = torch.tensor([rows.get(character, OTHER_CHARACTER) for character in text])
    sequences = ids[: len(ids) // length * length].unflatten(0, (-1, length))
    # Sequences are dealt by a hash of their number: parts of a text differ, and all splits shall see all of them.
    dealt = [int(hashlib.sha256(f"text/{number}".encode()).hexdigest(), 16) % 10 for number in range(len(sequences))]
    part = torch.tensor(dealt)
    train, test, fresh = (sequences[chosen] for chosen in (part > 1, part == 0, part == 1))
    if min(map(len, (train, test, fresh))) < 1:
        raise ZooError(f"--text {path}: {len(text)} characters, too few for sequences of {length}")
    train, test, fresh = (
        LabelledSamples(each, torch.zeros(len(each), dtype=torch.int64)) for each in (train, test, fresh)
    )
    names = "".join(f"{character!r}\n" for character in ("", *characters))
    count = len(characters) + 1
    return StandardTask(
        train,
        test,
        fresh,
        count,
        options.tokens,
        count,
        is_next_token=True,
        files=(("characters.txt", names.encode()),),
    )
