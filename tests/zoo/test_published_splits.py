"""Published splits: the sides that the papers' own code gives, for arrays by row and for files by path."""

import json
import random

import numpy as np
import pytest
from public_zoos import STEPS, write_array_zoo

from nfn_transformer.errors import UserError
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import Split, draw_split, prepare
from nfn_transformer.zoo.published_split import checksum_of, read_published_split
from nfn_transformer.zoo.reading import Zoo, read_zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    """The last checkpoints of 20 networks, relu and tanh."""
    folder = tmp_path_factory.mktemp("arrays") / "cifar10"
    write_array_zoo(folder)
    return read_zoo(folder, "cifar10")


def drawn(zoo, path, text: str, **settings) -> Split:
    path.write_text(text)
    return draw_split(zoo, DataConfig("cifar10", split=str(path), split_checksum=checksum_of(path), **settings), 3)


def names(zoo, side) -> list[str]:
    return [zoo.names[index] for index in side.tolist()]


def test_rows_of_the_small_cnn_zoo_are_split_as_in_the_papers(zoo, tmp_path):
    order = np.random.default_rng(1).permutation(20 * len(STEPS))
    # As NFN's loader does: reorder, keep the last step, halve, shuffle the first half.
    rows = [row for row in order if row % 9 == 8]
    first = list(range(10))
    random.Random(0).shuffle(first)
    split = drawn(zoo, tmp_path / "cifar_split.csv", "\n".join(map(str, [0, *order])))
    assert set(names(zoo, split.train)) == {f"row{rows[place]}" for place in first[:8]}
    assert set(names(zoo, split.validation)) == {f"row{rows[place]}" for place in first[8:]}
    assert set(names(zoo, split.test)) == {f"row{row}" for row in rows[10:]}
    record = prepare(zoo, split, DataConfig("cifar10", split="f", split_checksum="1f")).record
    assert record["published"] == {"file": "f", "checksum": "1f"}


def test_paths_choose_by_their_ends(zoo, tmp_path):
    sides = {
        "train": {"path": ["/home/authors/zoo/row8", "row17"], "label": [1, 2]},
        "val": {"path": ["row26"]},
        "test": ["elsewhere/row35", "row99"],
    }
    split = drawn(zoo, tmp_path / "splits.json", json.dumps(sides))
    assert [names(zoo, side) for side in (split.train, split.validation, split.test)] == [
        ["row8", "row17"],
        ["row26"],
        ["row35"],
    ]
    assert names(zoo, drawn(zoo, tmp_path / "s.json", json.dumps(sides), cut_off=0.07).train) == ["row17"]


def test_a_file_s_name_alone_chooses_no_network_of_another_folder(tmp_path):
    sides = {"train": ["/a/train/m_1.pth", "train/m_2.pth"], "val": ["/a/train/m_3.pth"], "test": ["/a/test/m_4.pth"]}
    (tmp_path / "split").write_text(json.dumps(sides))
    names = ["test/m_1.pth", "train/m_2.pth", "zoo/train/m_3.pth", "test/m_4.pth"]
    assert read_published_split(tmp_path / "split", checksum_of(tmp_path / "split"), names) == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train": ["row8"], "val": ["row8"], "test": []}', "'row8' is on the sides train and validation"),
        ('{"train": ["row8"], "val": [8], "test": []}', "'val': expected a list of paths"),
        ('{"train": ["row8"], "test": []}', "no key 'val' or 'valid' or 'validation'; there are train, test"),
        (
            '{"train": ["row8"], "val": ["row17"], "test": ["x"]}',
            "on each side, got 1 train, 1 validation, 0 test of 20",
        ),
        ('{"train": ', "Expecting value"),
        ("7\n8\n", "first line '7': expected a header or the published file's 0"),
        ("0\n8\nx\n", "expected JSON, or a row index in each line, got 'x'"),
        ("0\n8\n8\n", "expected each row index once"),
    ],
)
def test_other_files_are_errors_of_one_line(zoo, tmp_path, text, message):
    with pytest.raises(UserError) as error:
        drawn(zoo, tmp_path / "split", text)
    assert message in str(error.value)
    assert str(error.value).startswith(f"--split {tmp_path}/split: ")
    assert "\n" not in str(error.value)


def test_a_file_that_has_changed_is_an_error(zoo, tmp_path):
    (tmp_path / "split").write_text("")
    with pytest.raises(UserError, match=r"has changed, checksum 00000000, expected 12345678"):
        draw_split(zoo, DataConfig("cifar10", split=str(tmp_path / "split"), split_checksum="12345678"), 3)
