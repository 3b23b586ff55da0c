"""Tasks of labelled texts, in AG News' format: `Class Index,Title,Description`.

A network sees a text as its first words, which whitespace separates. Each is a frozen word vector that all networks of
a zoo share. Row 0 of the vectors is zero: unknown words and padding.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.generation.samples import MOST_CLASSES, LabelledSamples, TaskData
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.forward import ActivationDropout, no_dropout, word_logits

UNKNOWN = 0
"""Row of unknown words and of padding."""

_LONGEST_FIELD = 1 << 26


class Texts(NamedTuple):
    """Texts with their classes."""

    words: list[list[str]]
    """Words of each text."""
    labels: list[int]
    """Class of each text, from 0."""


@dataclass(frozen=True)
class TextData(TaskData):
    """A task of texts. Inputs are rows of their words in the vectors [n, tokens], int64."""

    vectors: Tensor
    """Word vectors [V, D]."""
    vocabulary: tuple[str, ...]
    """Words of the rows, from row 1."""
    vectors_key: str = ""
    """Short name of all that the vectors were computed from; empty: unknown."""

    @property
    def label_column(self) -> str:
        """See `TaskData`."""
        return "test_accuracy"

    @property
    def dtype(self) -> torch.dtype:
        """See `TaskData`."""
        return self.vectors.dtype

    def logits(self, inputs: Tensor, weights: TransformerWeights, dropout: ActivationDropout = no_dropout) -> Tensor:
        """See `TaskData`."""
        return word_logits(self.vectors[inputs], weights, dropout)

    def embedding(self, width: int, patch: int) -> None:
        """Check the width; word vectors are no part of the networks, see `TaskData`.

        Raises:
            UserError: the vectors have another width.
        """
        if self.vectors.shape[1] != width:
            raise UserError(
                f"embed_dim {width}: expected {self.vectors.shape[1]}, the width of the word vectors that all networks "
                "of a zoo of texts share (--embed_dim)"
            )

    def shared_files(self) -> dict[str, bytes]:
        """Return `embedding.pt`, the vectors under the released zoo's key, and `words.txt`, the words from row 1."""
        content = io.BytesIO()
        torch.save({"embedding.embedding.weight": self.vectors.float().cpu().clone()}, content)
        lines = "".join(f"{word}\n" for word in self.vocabulary)
        return {"embedding.pt": content.getvalue(), "words.txt": lines.encode()}

    def computed(self) -> dict[str, Tensor]:
        """Return the word vectors."""
        return {self.vectors_key: self.vectors} if self.vectors_key else {}

    def to(self, device: torch.device) -> Self:
        """Return the task on another device."""
        return replace(super().to(device), vectors=self.vectors.to(device))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*super()._tensors(), self.vectors)


def read_texts(folder: Path) -> tuple[Texts, Texts]:
    """Read `train.csv` and `test.csv` of a folder; a header is optional, a text is title and description.

    Raises:
        UserError: the folder does not exist.
        ZooError: a file is missing, empty or no such table; the message names the line.
    """
    if not folder.is_dir():
        raise UserError(f"--texts {folder}: no such folder")
    train, test = (_read(folder / name) for name in ("train.csv", "test.csv"))
    if unknown := sorted(set(test.labels) - set(train.labels)):
        raise ZooError(f"{folder / 'test.csv'}: class {unknown[0] + 1} has no text in train.csv")
    return train, test


def _read(path: Path) -> Texts:
    texts = Texts([], [])
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines, first = csv.reader(file, strict=True), 0
            for line in lines:
                if lines.line_num == 1 and line and not line[0].strip().isdigit():
                    first = _class_column(line, path)
                elif line:
                    texts.labels.append(_label(line[first:], f"{path}, line {lines.line_num}"))
                    texts.words.append(" ".join(line[first + 1 :]).split())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ZooError(f"{path}: cannot be read as a CSV table in UTF-8 ({error})") from None
    if not texts.labels:
        raise ZooError(f"{path}: no texts")
    return texts


def _class_column(header: list[str], path: Path) -> int:
    """Return the position of the column with the classes: row numbers may stand before it.

    Raises:
        ZooError: the header names no class in its first two columns.
    """
    names = [name.strip().lower().replace("_", " ") for name in header]
    for column, name in enumerate(names[:2]):
        if name in ("class index", "class", "label", "category", "target"):
            return column
    if not names[0] or names[0] in ("index", "id", "unnamed: 0"):
        raise ZooError(f"{path}: expected the header Class Index,Title,Description, got {','.join(header)[:100]}")
    return 0


def _label(line: list[str], position: str) -> int:
    text = line[0].strip()
    if len(line) < 2 or not (len(text) < 10 and text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_CLASSES):
        raise ZooError(
            f"{position}: expected a class from 1 to {MOST_CLASSES}, a title and a description, got '{text[:40]}' "
            f"and {len(line) - 1} further columns"
        )
    return int(text) - 1


def frequent_words(texts: Sequence[Sequence[str]], most: int) -> list[str]:
    """Return the `most` most frequent words, sorted by falling count, then by themselves."""
    counts = Counter(word for text in texts for word in text)
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def vectors_key(texts: Texts, *others: object) -> str:
    """Return a name for word vectors that were computed from these texts and other values."""
    digest = hashlib.sha256(repr(others).encode())
    for words in texts.words:
        digest.update(f"{' '.join(words)}\n".encode())
    return f"vectors_{digest.hexdigest()[:16]}"


def build_text_data(
    train: Texts, test: Texts, vocabulary: Sequence[str], vectors: np.ndarray, tokens: int, vectors_key: str = ""
) -> TextData:
    """Build the task of the first `tokens` words of each text, padded if there are fewer.

    Args:
        train: train texts.
        test: test texts.
        vocabulary: words of the rows of `vectors`, in their order.
        vectors: [V, D].
        tokens: words of a text that networks see.
        vectors_key: see `TextData`.
    """
    rows = {word: row for row, word in enumerate(vocabulary, 1)}

    def samples(texts: Texts) -> LabelledSamples:
        ids = torch.full((len(texts.words), tokens), UNKNOWN)
        for row, text in zip(ids, texts.words, strict=True):
            known = [rows.get(word, UNKNOWN) for word in text[:tokens]]
            row[: len(known)] = torch.tensor(known, dtype=torch.int64)
        return LabelledSamples(ids, torch.tensor(texts.labels))

    padded = np.concatenate([np.zeros_like(vectors[:1]), vectors])
    return TextData(
        train=samples(train),
        test=samples(test),
        classes=max(train.labels) + 1,
        vectors=torch.as_tensor(padded, dtype=torch.float32),
        vocabulary=tuple(vocabulary),
        vectors_key=vectors_key,
    )
