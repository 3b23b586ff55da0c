"""Labelled texts that populations are trained and tested on, in AG News' format: `Class Index,Title,Description`.

A network sees a text as its first whitespace tokens, each a frozen word vector that all networks of a zoo share. Row 0
of the vectors is zero; it stands for unknown words and for padding.
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
from nfn_transformer.weights.forward import Dropout, no_dropout, word_logits

UNKNOWN = 0
"""The row of unknown words and of padding."""

_LONGEST_FIELD = 1 << 26


class Texts(NamedTuple):
    """Texts as lists of words, and their classes from 0."""

    words: list[list[str]]
    labels: list[int]


@dataclass(frozen=True)
class TextData(TaskData):
    """Texts as row numbers of their words [n, tokens], int64, in vectors [V, D]; words, of each row from row 1 on;
    source, a name for what the vectors were computed from."""

    vectors: Tensor
    words: tuple[str, ...]
    source: str = ""

    @property
    def label_column(self) -> str:
        """See `TaskData`."""
        return "test_accuracy"

    @property
    def dtype(self) -> torch.dtype:
        """See `TaskData`."""
        return self.vectors.dtype

    def logits(self, inputs: Tensor, weights: TransformerWeights, dropout: Dropout = no_dropout) -> Tensor:
        """See `TaskData`."""
        return word_logits(self.vectors[inputs], weights, dropout)

    def embedding(self, width: int, patch: int) -> None:
        """See `TaskData`; word vectors are no part of the networks.

        Raises:
            UserError: the vectors have another width.
        """
        if self.vectors.shape[1] != width:
            raise UserError(
                f"embed_dim {width}: all networks of a zoo of texts share word vectors, which --embed_dim makes "
                f"{self.vectors.shape[1]} wide"
            )

    def shared_files(self) -> dict[str, bytes]:
        """`embedding.pt`, the vectors under the released zoo's key, and `words.txt`, the words of rows 1, 2, ..."""
        content = io.BytesIO()
        torch.save({"embedding.embedding.weight": self.vectors.float().cpu().clone()}, content)
        return {"embedding.pt": content.getvalue(), "words.txt": "".join(f"{word}\n" for word in self.words).encode()}

    def computed(self) -> dict[str, Tensor]:
        """The vectors."""
        return {self.source: self.vectors} if self.source else {}

    def to(self, device: torch.device) -> Self:
        """The same data on another device."""
        return replace(super().to(device), vectors=self.vectors.to(device))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*super()._tensors(), self.vectors)


def read_texts(folder: Path) -> tuple[Texts, Texts]:
    """The texts of `train.csv` and `test.csv` of a folder; a header is optional, a text is title and description.

    Raises:
        UserError: the folder is not there.
        ZooError: a file is missing, empty or no such table; the message names the line.
    """
    if not folder.is_dir():
        raise UserError(f"--texts {folder}: no such folder")
    train, test = (_read(folder / name) for name in ("train.csv", "test.csv"))
    if unknown := sorted(set(test.labels) - set(train.labels)):
        raise ZooError(f"{folder / 'test.csv'}: class {unknown[0] + 1} has no text in train.csv")
    return train, test


def _read(path: Path) -> Texts:
    found = Texts([], [])
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            for line in lines:
                is_header = lines.line_num == 1 and line and not line[0].strip().isdigit()
                if not line or is_header:
                    continue
                found.labels.append(_label(line, f"{path}, line {lines.line_num}"))
                found.words.append(" ".join(line[1:]).split())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ZooError(f"{path}: cannot be read as a CSV table in UTF-8 ({error})") from None
    if not found.labels:
        raise ZooError(f"{path}: no texts")
    return found


def _label(line: list[str], where: str) -> int:
    text = line[0].strip()
    if len(line) < 2 or not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_CLASSES):
        raise ZooError(
            f"{where}: expected a class from 1 to {MOST_CLASSES}, a title and a description, got '{text[:40]}' "
            f"and {len(line) - 1} further columns"
        )
    return int(text) - 1


def frequent_words(texts: Sequence[Sequence[str]], most: int) -> list[str]:
    """The `most` most frequent words, most frequent first, those of one count by themselves."""
    counts = Counter(word for text in texts for word in text)
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def vectors_source(texts: Texts, *others: object) -> str:
    """A name for word vectors that were computed from these texts and these other values."""
    found = hashlib.sha256(repr(others).encode())
    for words in texts.words:
        found.update(f"{' '.join(words)}\n".encode())
    return f"vectors_{found.hexdigest()[:16]}"


def text_data(
    train: Texts, test: Texts, words: Sequence[str], vectors: np.ndarray, tokens: int, source: str = ""
) -> TextData:
    """Data of the first `tokens` words of each text, padded where there are fewer.

    Args:
        words: of the rows of `vectors` [V, D], in their order.
        source: see `TextData`.
    """
    rows = {word: row for row, word in enumerate(words, 1)}

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
        words=tuple(words),
        source=source,
    )
