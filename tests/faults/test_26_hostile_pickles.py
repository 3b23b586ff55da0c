"""Pickles that ask for memory or time without end, or break their own result, are refused before they are loaded."""

import io
import time
import tracemalloc

import pytest
import torch
from pickles import archive, entry, name, tensor, text, whole

from nfn_transformer.zoo import pickle_scan
from nfn_transformer.zoo.checkpoint import read_checkpoint
from nfn_transformer.zoo.containers import find_network
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.torch_file import load_torch_file

ORDERED = name("collections", "OrderedDict") + b")R"
CHINESE = "".join(map(chr, range(0x4E00, 0x4E00 + 20000))) * 4


def called_often(function: bytes, arguments: bytes) -> bytes:
    """Return the opcodes of a thousand calls with one tuple of arguments, which the memo holds."""
    return b"(" + function + b"q\x01" + arguments + b"q\x02" + b"h\x01h\x02R" * 1000 + b"t"


HOSTILE = {
    "items": (ORDERED + b"}" + text("items") + b"K\x05sb", "set attributes other than '_metadata'"),
    "hash": (b"})" + b"q\x01h\x01\x86" * 60 + b"Ns", "one of its keys is a tuple of other things than scalars"),
    "memory": (
        entry(name("builtins", "bytearray") + b"(" + whole(4 * 2**30) + b"tR"),
        "loading it would call 'builtins.bytearray'",
    ),
    "punycode": (
        entry(name("_codecs", "encode") + b"(" + text(CHINESE) + text("punycode") + b"tR"),
        "calls '_codecs.encode' with arguments that torch.save never writes",
    ),
    "opcode": (entry(b"I5\n"), "opcode 0x49 in its pickle"),
    "underflow": (b"bbb", "damaged pickle, IndexError"),
    "copies": (
        called_often(name("_codecs", "encode"), text("x" * 2**20) + text("latin1") + b"\x86"),
        "its calls take more than 4194304 letters or 10000 items",
    ),
    "sizes": (
        called_often(name("torch", "Size"), b"(" + b"K\x01" * 2**16 + b"t\x85"),
        "its calls take more than 4194304 letters or 10000 items",
    ),
    "long key": (
        b"}((" + b"N" * 2**12 + b"tq\x01N" + b"h\x01N" * 2**12 + b"u",
        "one of its keys is a tuple of 4096 values",
    ),
    "sets": (
        called_often(name("builtins", "set"), b"](" + b"K\x01" * 2**10 + b"e\x85"),
        "its calls take more than 4194304 letters or 10000 items",
    ),
    "hooks": (
        b"(" + tensor(1, 0, 1, 1).removesuffix(b"tR") + b"q\x01tRh\x01" + text("x") + b"Nst",
        "damaged pickle, TypeError",
    ),
    "tensors": (b"]" + (name("torch", "Size") + b")\x85R") * 50_001, "more than 50000 tensors"),
    "one hash": (
        b"}(" + b"".join(whole(number * (2**61 - 1)) + b"N" for number in range(1, 4)) * 40_000 + b"u",
        "more than 10000 keys that are no text",
    ),
    "long": (b"]" + text("x" * 2**23), "a pickle of 8388617 bytes, expected at most 4194304"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_in_no_time(kind):
    pickle, message = HOSTILE[kind]
    content = archive(pickle)
    tracemalloc.start()
    start = time.process_time()
    fault = read_checkpoint("a.pt", content).fault
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert fault.reason == "unreadable"
    assert message in fault.detail
    assert len(fault.detail) < 200


def test_one_hostile_file_does_not_stop_a_zoo(zoo):
    for kind in ("items", "hash"):
        zoo.add(kind, archive(HOSTILE[kind][0]))
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert (len(read), len(read.report.faults)) == (40, 2)


def test_a_pickle_that_was_scanned_is_not_scanned_again():
    pickle_scan.scan_archived_pickle.cache_clear()
    for _ in range(3):
        assert read_checkpoint("a.pt", archive(entry(whole(5)))).fault.reason == "missing key"
    assert pickle_scan.scan_archived_pickle.cache_info().misses == 1


def test_networks_of_very_many_prefixes_are_told_apart_in_no_time():
    keys = [f"{number}.encoder.0.fc1.bias" for number in range(20_000)]
    others = [f"{number}.x" for number in range(20_000)]
    start = time.process_time()
    with pytest.raises(ValueError, match="holds 20000 networks"):
        find_network(dict.fromkeys([*keys, *others]))
    assert time.process_time() - start < 5
    two = {"a.b.encoder.0.fc1.bias": 0, "a.c.encoder.0.fc1.bias": 1, "a.b.running_mean": 2, "a.x": 3}
    network = find_network(two, "a.b")
    assert (network.known, network.unknown) == ({"encoder.0.fc1.bias": 0}, {"a.b.running_mean": 2})


def test_a_dictionary_that_is_held_a_million_times_is_looked_into_once():
    def holding(inner: int) -> bytes:
        return b"(" + b"".join(text(str(key)) + b"h" + bytes([inner]) for key in range(200)) + b"u"

    levels = [b"}q" + bytes([level]) + (holding(level - 1) if level else b"") for level in range(5)]
    start = time.process_time()
    assert read_checkpoint("a.pt", archive(b"".join(levels))).fault.reason == "missing key"
    assert time.process_time() - start < 1


@pytest.mark.parametrize("is_archive", [True, False])
def test_what_training_checkpoints_hold_is_read(is_archive):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "parameter": model.weight,
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict(),
        "seen": {1, 2},
        "half": torch.ones(2).half()[1:],
        "shape": model.weight.shape,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "random": torch.random.get_rng_state(),
        "bytes": b"\x00\xff",
        "history": [{"epoch": 1, "loss": 0.5, "best": None, "done": False}],
        "large": 2**80,
    }
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=is_archive)
    read = load_torch_file(content.getvalue())
    assert list(read) == list(state)
    assert torch.equal(read["model"]["weight"], model.weight)
    assert [read[key] for key in ("seen", "shape", "bytes", "history", "large")] == [
        state[key] for key in ("seen", "shape", "bytes", "history", "large")
    ]
