"""Array zoos: rows of the Small CNN Zoo's files become networks with the outputs that TensorFlow's order means."""

import gzip
import os
import shutil
import tarfile

import numpy as np
import pytest
import torch
from public_zoos import CNN_LAYERS, STEPS, layout_text, pack, table_text, write_array_zoo

from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.weights.feed_forward_pass import network_outputs
from nfn_transformer.zoo import unpacking
from nfn_transformer.zoo.array_layout import parse_layout
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.network_facts import network_facts
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.several_sizes import MixedZoo


@pytest.fixture
def folder(tmp_path):
    write_array_zoo(tmp_path / "cifar10")
    return tmp_path / "cifar10"


def in_tensorflows_order(row: np.ndarray, images: torch.Tensor, activation) -> torch.Tensor:
    """The outputs [n, 10] of a network for images [n, h, w, 1], by kernels [h, w, in, out] on patches, stride 2."""
    maps, start = images, 0
    for shape in CNN_LAYERS.values():
        size = int(np.prod(shape))
        bias = torch.from_numpy(row[start : start + shape[-1]])
        kernel = torch.from_numpy(row[start + shape[-1] : start + shape[-1] + size]).reshape(shape)
        start += shape[-1] + size
        if len(shape) == 4:
            patches = maps.unfold(1, 3, 2).unfold(2, 3, 2)  # [n, h', w', in, 3, 3]
            maps = activation(torch.einsum("nxyckl,klco->nxyo", patches, kernel) + bias)
        else:
            maps = maps.mean((1, 2)) @ kernel + bias
    return maps


@pytest.mark.parametrize("archive", ["", "cifar10.tar.xz", "cifar10.zip"])
def test_last_rows_become_networks_with_the_same_outputs(folder, archive):
    numbers = np.load(folder / "weights.npy")
    path = folder.parent
    if archive:
        path = pack(folder, folder.parent / archive)
        shutil.rmtree(folder)
    zoo = read_zoo(path, "cifar10")
    assert isinstance(zoo, MixedZoo)
    assert [spec.activation for spec in zoo.specs] == ["relu", "tanh"]
    assert len(zoo) == 20
    assert set(zoo.epochs) == {"86"}
    assert len(set(zoo.runs)) == 20
    images = torch.randn(3, 17, 17, 1, dtype=torch.float64)
    for part, activation in zip(zoo.parts, (torch.relu, torch.tanh), strict=True):
        assert part.spec.sizes == (1, 4, 5, 4, 10)
        assert part.spec.strides == (2, 2, 2)
        outputs = network_outputs(images.movedim(3, 1), part.weights(torch.arange(len(part))).to(torch.float64))
        for name, label, got in zip(part.names, part.labels, outputs, strict=True):
            row = int(name.removeprefix("row"))
            assert label == pytest.approx(row / 180)
            torch.testing.assert_close(got, in_tensorflows_order(numbers[row].astype(float), images, activation))


def test_conditions_and_steps_choose_rows_and_the_cache_gives_them_again(folder):
    for epoch, count in (("86", 10), ("40", 10), ("best", 10), ("all", 90)):
        for _ in range(2):  # from the files, then from the cache
            zoo = read_zoo(folder, "cifar10", epoch, where="config.activation=relu")
            assert len(zoo) == count
            assert zoo.spec.activation == "relu"
            assert len(set(zoo.runs)) == 10
    rows = [int(name.removeprefix("row")) for name in zoo.names]
    assert np.array_equal(np.sort(zoo.rows), np.sort(np.load(folder / "weights.npy")[rows]))  # the same, in other order
    assert zoo.hyperparameters[0, 0] == pytest.approx(0.001)
    assert zoo.hyperparameters[-1, 0] == pytest.approx(0.019)
    with pytest.raises(ZooError, match=r"no checkpoints of epoch '41'; there are '0', '1', "):
        read_zoo(folder, "cifar10", "41")
    with pytest.raises(ZooError, match=r"no row where config.activation=gelu; 'config.activation' is 'relu', 'tanh'"):
        read_zoo(folder, "cifar10", where="config.activation=gelu")


def test_a_folder_of_each_checkpoint_is_no_run(folder):
    """A column that tells each row apart must not part a network: sides of a split would share it."""
    table = gzip.decompress((folder / "metrics.csv.gz").read_bytes()).decode().splitlines()
    lines = [f"{line},{'modeldir' if not row else f'dir/{row}'}" for row, line in enumerate(table)]
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    zoo = read_zoo(folder.parent, "cifar10", "all")
    assert len(zoo) == 20 * len(STEPS)
    assert len(set(zoo.runs)) == 20
    assert len(read_zoo(folder.parent, "cifar10")) == 20


def test_half_precision_copies_labels_and_flattened_maps(tmp_path):
    """A made zoo: columns run, copy and label, float16, and maps of 2 x 2 that a dense layer reads flattened."""
    folder = tmp_path / "digits"
    write_array_zoo(folder, 6, {"conv2d": (3, 3, 1, 4), "dense": (2 * 2 * 4, 3)}, np.float16)
    rows = [
        {
            "step": 100 + row,
            "run": row // 18,
            "copy": row // 9 % 2,
            "label": "abc"[row // 18],
            "config.activation": "sin",
        }
        | {"config.omega": "30.0", "config.stride": 1, "config.padding": "valid", "config.offset": 0.5}
        for row in range(6 * len(STEPS))
    ]
    (folder / "metrics.csv.gz").unlink()
    (folder / "metrics.csv").write_text(table_text(rows))
    zoo = read_zoo(folder, "digits", labels="class")
    assert zoo.classes == ("a", "b", "c")
    assert zoo.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert zoo.runs == ["0", "0", "1", "1", "2", "2"]
    spec = zoo.spec
    assert (spec.activation, spec.omega, spec.offset, spec.strides) == ("sine", 30.0, 0.5, (1,))
    assert spec.flattened == 4
    images = torch.randn(2, 4, 4, 1, dtype=torch.float64)
    row = torch.from_numpy(np.load(folder / "weights.npy")[8].astype(float))
    patches = images.unfold(1, 3, 1).unfold(2, 3, 1)
    maps = torch.sin(30 * (torch.einsum("nxyckl,klco->nxyo", patches, row[4:40].reshape(3, 3, 1, 4)) + row[:4]))
    expected = maps.flatten(1) @ row[43:].reshape(16, 3) + row[40:43] + 0.5
    got = network_outputs(images.movedim(3, 1), zoo.weights(torch.tensor([0])).to(torch.float64))
    torch.testing.assert_close(got[0], expected)


def test_rows_that_are_not_finite_or_without_a_label_are_faults(folder):
    numbers = np.load(folder / "weights.npy")
    numbers[8, 3] = np.inf
    np.save(folder / "weights.npy", numbers)
    zoo = read_zoo(folder, "cifar10")
    assert len(zoo) == 19
    assert zoo.report.fault_lines() == ["row8: not finite: holds NaN or Inf"]
    with pytest.raises(ZooError, match=r"20 of 20 checkpoints .* are faulty(.|\n)*row17: label: label tanh"):
        read_zoo(folder, "cifar10", columns=Columns(label="config.activation"))


DAMAGES = {
    "weights.npy": [
        (lambda content: content[:-5], "truncated: "),
        (lambda content: b"PK" + content, "magic string is not correct"),
        (lambda content: content.replace(b"'descr'", b"('descr'"), "a damaged header"),
        (lambda content: content.replace(b"'<f4'", b"'|O' "), "an array of object, expected floating point by rows"),
        (lambda content: content.replace(b"(180, ", b"(179, "), "expected 180 rows of the table"),
    ],
    "layout.csv": [
        (lambda content: content.replace(b'"(3, 3, 1, 4)"', b'"__import__(1)"'), "expected a tuple of whole numbers"),
        (lambda content: content.replace(b"bias:0", b"gamma:0"), "expected LAYER/kernel:0 or LAYER/bias:0"),
        (lambda content: content.replace(b",0,4,", b",0,5,"), "has columns 0 to 5, expected 4 of them"),
        (lambda content: content.replace(b",start_idx", b",begin"), "no column 'start_idx' in each row"),
    ],
    "metrics.csv.gz": [
        (lambda content: content[:-40], "metrics.csv.gz: Compressed file ended"),
        (lambda content: b"step" + content, "metrics.csv.gz: Not a gzipped file"),
        (
            lambda content: gzip.compress(gzip.decompress(content).replace(b"test_accuracy", b"acc")),
            "no column 'test_top1_accuracy' or 'test_accuracy'; there are '', 'step', 'acc'",
        ),
        (
            lambda content: gzip.compress(gzip.decompress(content).replace(b"tanh", b"mish")),
            "row 17: activation 'mish': expected one of relu",
        ),
    ],
}


@pytest.mark.parametrize(("name", "damage"), [(name, each) for name, many in DAMAGES.items() for each in many])
def test_damaged_files_are_errors_of_one_line(folder, name, damage):
    change, message = damage
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ZooError) as error:
        read_zoo(folder.parent, "cifar10")
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_archives_are_unpacked_once_and_checked(folder, tmp_path, capsys):
    path = pack(folder, tmp_path / "cifar10.tar.xz")
    for _ in range(2):
        read_zoo(path, "cifar10")
    assert capsys.readouterr().err.count("unpacking") == 1
    with pytest.raises(ZooError, match="no data set 'mnist'; there are 'cifar10'"):
        read_zoo(path, "mnist")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ZooError, match=r"cifar10.tar.xz: cannot be unpacked"):
        read_zoo(path, "cifar10")
    for name, expected in (("../weights.npy", "unsafe name"), ("a/b.txt", "holds none of weights.npy")):
        with tarfile.open(path, "w:xz") as archive:
            archive.add(folder / "layout.csv", name)
        with pytest.raises(UserError, match=expected):
            read_zoo(path, "cifar10")
    assert not list((tmp_path / ".zoo_cache").glob("*.part"))


def test_a_killed_unpacking_leaves_nothing_for_long(folder, tmp_path):
    path = pack(folder, tmp_path / "cifar10.tar.xz")
    killed, alive = (tmp_path / f".zoo_cache/.cifar10.tar.xz-0123abcd.{name}.part" for name in ("killed", "alive"))
    for part in (killed, alive):
        part.mkdir(parents=True)
        (part / "weights.npy").write_bytes(b"half")
        os.utime(part, (0, 0))
    with unpacking._locked(alive):
        read_zoo(path, "cifar10")
    assert (killed.exists(), alive.exists()) == (False, True)


def test_layouts_of_tensorflow_may_have_kernels_first():
    one, other = (parse_layout(layout_text(CNN_LAYERS, first)[0]) for first in (True, False))
    assert one.shapes == other.shapes
    assert not np.array_equal(one.columns, other.columns)


def test_facts_are_checked_before_anything_is_read():
    assert network_facts({}, {"stride": "2,1", "activation": "SIN"}, {}) == {"strides": (2, 1), "activation": "sine"}
    for name, text in (
        ("activation", "mish"),
        ("omega", "1e9"),
        ("stride", "0"),
        ("padding", "1.5"),
        ("offset", "nan"),
    ):
        with pytest.raises(UserError, match=rf"^--{name} {text}: expected "):
            network_facts({}, {name: text}, {})
