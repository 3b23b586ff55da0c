"""Tables as others write them: separators, capital letters, percent, and columns of other names."""

import pytest
import torch
from small_zoo import SmallZoo, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.reading import read_zoo


@pytest.fixture
def labelled(tmp_path) -> SmallZoo:
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(20):
        zoo.add(f"run{run:02d}", state_dict(run), label=str(run / 20))
    zoo.write_table()
    return zoo


def table(zoo: SmallZoo):
    return zoo.path / "metadata/mnist.csv"


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_and_capital_letters(labelled, separator):
    expected = read_zoo(labelled.path, "mnist", progress=False)
    header, *lines = table(labelled).read_text().splitlines()
    lines = [line.replace(",", separator) for line in lines]
    if separator == ";":  # where the comma is the decimal point
        lines = [line.replace(";0.", ";0,") for line in lines]
    table(labelled).write_text("\n".join([header.upper().replace(",", separator), *lines]))
    read = read_zoo(labelled.path, "mnist", progress=False)
    assert torch.equal(read.labels, expected.labels)
    assert torch.equal(read.hyperparameters, expected.hyperparameters)


def test_labels_in_percent_are_divided_where_the_whole_column_is(labelled):
    expected = read_zoo(labelled.path, "mnist", progress=False).labels
    for row in labelled.rows:
        row["test_top1_accuracy"] = str(100 * float(row["test_top1_accuracy"]))
    labelled.write_table()
    read = read_zoo(labelled.path, "mnist", progress=False)
    torch.testing.assert_close(read.labels, expected)
    assert "labels are in percent (20 numbers from 0 to 100): divided by 100" in read.report.summary()
    for row in labelled.rows[:10]:
        row["test_top1_accuracy"] = str(float(row["test_top1_accuracy"]) / 100)
    labelled.write_table()
    with pytest.raises(ZooError, match=r"10 of 20 labels .* lie outside \[0, 1\], --task regress"):
        read_zoo(labelled.path, "mnist", progress=False)


def test_losses_are_no_percent_and_name_their_task(labelled, tmp_path):
    for row in labelled.rows:
        row["test_loss"] = 2 + float(row["test_top1_accuracy"])
    labelled.write_table()
    own = tmp_path / "own.csv"
    own.write_bytes(table(labelled).read_bytes())
    for place in (None, own):
        settings = {"columns": Columns(label="test_loss"), "progress": False, "table": place}
        with pytest.raises(ZooError, match=r"20 of 20 labels .* outside \[0, 1\], --task regress"):
            read_zoo(labelled.path, "mnist", **settings)
        assert read_zoo(labelled.path, "mnist", labels="number", **settings).labels.min() >= 2


def test_columns_of_other_names_are_named_by_flags(labelled):
    expected = read_zoo(labelled.path, "mnist", progress=False)
    header, *lines = table(labelled).read_text().splitlines()
    names = {"ckpt_file": "path", "ckpt_epoch": "step", "test_top1_accuracy": "acc", "optimizer": "run"}
    for old, new in names.items():
        header = header.replace(old, new)
    table(labelled).write_text("\n".join([header, *lines]))
    with pytest.raises(ZooError, match=r"no column 'ckpt_file', .*; --file_column, --epoch_column, --label_column and"):
        read_zoo(labelled.path, "mnist", progress=False)
    columns = Columns("path", "step", "acc", "run")
    read = read_zoo(labelled.path, "mnist", progress=False, columns=columns)
    assert torch.equal(read.labels, expected.labels)
    assert set(read.runs) == {"adam"}
