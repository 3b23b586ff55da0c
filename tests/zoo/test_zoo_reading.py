"""A sound zoo, read from every place and in every way, is the same zoo; what is not there is an error that says so."""

import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_zoo import BLOCK, SPEC, SmallZoo, assert_same, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import (
    state_dict_from_weights,
    state_dict_shapes,
    weights_from_state_dict,
)
from nfn_transformer.zoo import collecting
from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.sources import FolderSource


def test_what_is_read_is_what_was_saved(zoo):
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert read.spec == SPEC
    assert read.shapes == state_dict_shapes(SPEC)
    assert read.names == [f"run{index:03d}_75_{index}.pt" for index in range(40)]
    assert read.runs == [f"run{index:03d}" for index in range(40)]
    assert (read.rows.dtype, read.labels.dtype) == (torch.float32, torch.float32)
    weights = read.weights(torch.tensor([7, 3]))
    weights.check(SPEC)
    for position, seed in enumerate((7, 3)):
        expected = weights_from_state_dict(state_dict(seed), SPEC)
        for tensor, wanted in zip(weights.tensors(), expected.tensors(), strict=True):
            assert torch.equal(tensor[position], wanted[0])
    assert torch.equal(state_dict_from_weights(weights)["classifier.fc1.bias"][1], state_dict(3)["classifier.fc1.bias"])


def test_labels_follow_their_files(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for index in (3, 1, 2, 0):
        zoo.add(f"run{index}", state_dict(index), label=f"{index / 10}")
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert torch.equal(read.labels, torch.tensor([0.0, 0.1, 0.2, 0.3]))
    assert torch.equal(read.rows[2, :4], state_dict(2)["embedding.conv1.weight"].flatten()[:4])


@pytest.mark.parametrize("top", ["", "MNIST-Transformers/", "any name/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_the_same_zoo_as_its_folder(zoo, tmp_path, top, compression):
    zoo.add("bad", b"")
    zoo.write_table()
    archive = zoo.to_zip(tmp_path / "zoo.zip", top, compression)
    from_zip = read_zoo(archive, "mnist", progress=False)
    assert_same(read_zoo(zoo.path, "mnist", progress=False), from_zip)
    assert_same(from_zip, read_zoo(archive, "mnist", progress=False))


def test_files_of_a_mac_and_of_other_data_sets_are_ignored(zoo, tmp_path):
    other = SmallZoo(tmp_path / "other", "cifar", runs=3)
    archive = zoo.to_zip(tmp_path / "zoo.zip")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("__MACOSX/MNIST-Transformers/mnist/._run000_75_0.pt", b"x")
        members.writestr("__MACOSX/metadata/._mnist.csv", b"x")
        members.write(other.path / "metadata/cifar.csv", "MNIST-Transformers/metadata/cifar.csv")
    read = read_zoo(archive, "mnist", progress=False)
    assert_same(read_zoo(zoo.path, "mnist", progress=False), read)
    assert read.report.unlisted == ()


@pytest.mark.parametrize("from_zip", [False, True])
def test_workers_read_the_same_zoo(zoo, tmp_path, monkeypatch, from_zip):
    monkeypatch.setattr(collecting, "CHUNK", 8)
    monkeypatch.setattr(collecting.os, "cpu_count", lambda: 2)
    zoo.add("bad", b"")
    zoo.write_table()
    path = zoo.to_zip(tmp_path / "zoo.zip") if from_zip else zoo.path
    alone = read_zoo(path, "mnist", load_cache=False, progress=False)
    assert_same(alone, read_zoo(path, "mnist", load_cache=False, n_workers=2, progress=False))


def test_there_are_never_more_workers_than_cores(zoo, monkeypatch):
    counts = []

    def pool(count, *rest):
        counts.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(collecting, "CHUNK", 1)
    monkeypatch.setattr(collecting, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(collecting, "_read_chunk", lambda files: [Outcome(None) for _ in files])
    for cores in (3, None):
        monkeypatch.setattr(collecting.os, "cpu_count", lambda cores=cores: cores)
        assert len(list(collecting.read_outcomes(FolderSource(zoo.path), [("a", "a")] * 40, 1000))) == 40
    assert counts == [3, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(zoo, dtype):
    zoo.add("run", state_dict(5, dtype=dtype))
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    key, expected = next(iter(state_dict(5, dtype=dtype).items()))
    assert torch.equal(read.rows[-1, : expected.numel()], expected.float().flatten())
    assert key == "embedding.conv1.weight"


def test_parameters_and_views_are_read_as_plain_numbers(zoo):
    state = state_dict(5)
    state["classifier.fc1.weight"] = torch.nn.Parameter(state["classifier.fc1.weight"].t().contiguous().t())
    zoo.add("run", state)
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert not read.rows.requires_grad
    weight = state_dict_from_weights(read.weights(torch.tensor([40])))["classifier.fc1.weight"][0]
    assert torch.equal(weight, state["classifier.fc1.weight"])


def test_a_zoo_without_embedding_and_its_label_column(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo", "ag_news", label_column="test_accuracy")
    spec = TransformerSpec((BLOCK,), SPEC.classifier)
    for index in range(3):
        zoo.add(f"run{index}", state_dict(index, spec), label="0.25")
    zoo.write_table(encoding="utf-8-sig")
    read = read_zoo(zoo.path, "ag_news", progress=False)
    assert read.spec == spec
    assert read.labels.tolist() == [0.25] * 3
    assert read.weights(torch.arange(3)).embedding is None


@pytest.fixture
def epochs_zoo(tmp_path) -> SmallZoo:
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(2):
        for epoch in ("1", "75", "75.0", "best", "best1"):
            path = f"mnist/model/mnist/run{run}_{epoch}_{len(zoo.rows)}.pt"
            zoo.add(f"run{run}", state_dict(run), epoch, ckpt_file=path)
    zoo.write_table()
    return zoo


@pytest.mark.parametrize(
    ("epoch", "count"),
    [("1", 2), ("75", 4), ("75.0", 4), (75, 4), ("best", 4), ("best1", 2), ("Best", 4), ("all", 10), ("last", 2)],
)
def test_the_epoch_chooses_rows(epochs_zoo, epoch, count):
    assert len(read_zoo(epochs_zoo.path, "mnist", epoch, progress=False)) == count
    # The second time it is the cache that must not mix them up.
    assert len(read_zoo(epochs_zoo.path, "mnist", epoch, progress=False)) == count


def test_a_table_without_epoch_75_gives_the_last_of_each_run(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run, epochs in enumerate((("5", "50", "9"), ("50",), ("9", "100"))):
        for epoch in epochs:
            zoo.add(f"run{run}", state_dict(run), epoch)
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert sorted(zip(read.runs, read.epochs, strict=True)) == [("run0", "50"), ("run1", "50"), ("run2", "100")]
    assert "read the last checkpoint of each of 3 runs (--ckpt_epoch)" in read.report.summary()
    assert len(read_zoo(zoo.path, "mnist", "50", progress=False)) == 2


def test_an_epoch_that_is_not_there_is_an_error(epochs_zoo):
    with pytest.raises(ZooError) as error:
        read_zoo(epochs_zoo.path, "mnist", "50", progress=False)
    assert "no checkpoints of epoch '50'; there are '1' (2 rows), '75' (4 rows), 'best' (2 rows), 'best1'" in str(
        error.value
    )


def test_heads_come_from_the_row_then_from_the_flag_then_are_two(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    spec = TransformerSpec((BLOCK,), SPEC.classifier)
    for index in range(3):
        zoo.add(f"run{index}", state_dict(index, spec), n_attention_heads="" if index else "2.0")
    zoo.write_table()
    assert read_zoo(zoo.path, "mnist", progress=False).spec.blocks[0].heads == 2
    assert read_zoo(zoo.path, "mnist", n_heads=2, progress=False).spec.blocks[0].heads == 2
    with pytest.raises(ZooError, match=r"--n_heads 1 contradicts 1 of 3 rows; that of 'run0_75_0.pt' has .* 2"):
        read_zoo(zoo.path, "mnist", n_heads=1, progress=False)
    zoo.write_table(drop="n_attention_heads")
    assert read_zoo(zoo.path, "mnist", n_heads=1, progress=False).spec.blocks[0].heads == 1
    assert read_zoo(zoo.path, "mnist", progress=False).spec.blocks[0].heads == 2
    with pytest.raises(ZooError, match=r"queries\.weight' has 4 rows, which 3 heads do not divide"):
        read_zoo(zoo.path, "mnist", n_heads=3, progress=False)


def test_of_two_files_with_one_name_the_released_one_is_read(zoo):
    (zoo.file("copies")).mkdir()
    (zoo.file("copies") / "run000_75_0.pt").write_bytes(b"")
    assert len(read_zoo(zoo.path, "mnist", progress=False)) == 40


def test_progress_is_shown_on_a_terminal_and_only_there(zoo, capsys, monkeypatch):
    read_zoo(zoo.path, "mnist", load_cache=False)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    read_zoo(zoo.path, "mnist", load_cache=False)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "reading mnist" in shown.err
    assert "40/40" in shown.err
    read_zoo(zoo.path, "mnist", load_cache=False, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_missing_path_or_data_set_is_an_error(zoo, tmp_path):
    with pytest.raises(ZooError, match="nowhere: no such file or folder; expected a zoo's folder or zip"):
        read_zoo(tmp_path / "nowhere", "mnist")
    (tmp_path / "deep/deeper").mkdir(parents=True)
    zoo.to_zip(tmp_path / "deep/other")
    missing = "no data set 'cifar'; looked for 'metadata/cifar.csv', and there are the data sets 'mnist'"
    for path in (zoo.path, zoo.to_zip(tmp_path / "zoo.zip")):
        for name, message in (("cifar", missing), ("../mnist", "no data set '../mnist'"), ("", "no data set ''")):
            with pytest.raises(ZooError, match=message.replace(".", r"\.")):
                read_zoo(path, name)
    with pytest.raises(ZooError, match=r"no metadata tables at all; the zoo holds 'deeper', 'other'"):
        read_zoo(tmp_path / "deep", "mnist")


def test_a_data_set_without_checkpoints_is_an_error(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    zoo.add("run0", None)
    zoo.write_table()
    looked_for = (
        r"looked for .pt, .pth, .ckpt, .bin or .safetensors files under 'mnist/', and the zoo holds 'metadata', "
    )
    with pytest.raises(ZooError, match=f"{looked_for}'mnist'"):
        read_zoo(zoo.path, "mnist")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("ckpt_file", "no column 'ckpt_file'; there are 'optimizer', 'n_attention_heads', 'ckpt_epoch', 'test_top1"),
        ("ckpt_epoch", "no column 'ckpt_epoch'; there are"),
        ("test_top1_accuracy", "no column 'test_top1_accuracy' or 'test_accuracy'; there are 'optimizer'"),
    ],
)
def test_a_missing_column_is_an_error(zoo, column, message):
    zoo.write_table(drop=column)
    with pytest.raises(ZooError, match=message) as error:
        read_zoo(zoo.path, "mnist")
    assert "metadata/mnist.csv" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"ckpt_file,ckpt_epoch,test_accuracy\n", b'a,"' + b"b" * 200000]
)
def test_a_metadata_file_that_is_no_table_is_an_error(zoo, content):
    (zoo.path / "metadata/mnist.csv").write_bytes(content)
    with pytest.raises(ZooError, match=r"mnist\.csv: (no column|not a CSV table|no checkpoints of epoch '75')"):
        read_zoo(zoo.path, "mnist")
