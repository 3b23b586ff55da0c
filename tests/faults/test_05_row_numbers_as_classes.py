"""Fault 5: row numbers before the classes of texts are taken for classes."""

import pytest

from nfn_transformer.errors import ZooError
from nfn_transformer.generation.texts import read_texts


def write(folder, header):
    for name in ("train.csv", "test.csv"):
        lines = [f'"{row}","{row % 4 + 1}","a b","c d"' for row in range(1, 41)]
        (folder / name).write_text("\n".join([header, *lines]))


def test_05_the_header_names_the_classes(tmp_path):
    write(tmp_path, '"","Class Index","Title","Description"')
    train, _ = read_texts(tmp_path)
    assert sorted(set(train.labels)) == [0, 1, 2, 3]
    assert train.words[0] == ["a", "b", "c", "d"]


def test_05_row_numbers_without_a_named_class_are_an_error(tmp_path):
    write(tmp_path, '"","Kind of text","Title","Description"')
    with pytest.raises(ZooError, match=r"train\.csv: expected the header Class Index,Title,Description, got ,Kind of"):
        read_texts(tmp_path)
