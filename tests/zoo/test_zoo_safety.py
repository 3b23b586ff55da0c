"""Hostile and odd files: members of a zip, archives inside checkpoints, huge claims, and bytes at random."""

import io
import os
import re
import warnings
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_zoo import assert_same, saved, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo import sources
from nfn_transformer.zoo.checkpoint import Outcome, read_checkpoint
from nfn_transformer.zoo.collecting import RowMatrix
from nfn_transformer.zoo.reading import read_zoo

SOUND = saved(state_dict(0))


def only_fault(path, **options):
    (fault,) = read_zoo(path, "mnist", progress=False, **options).report.faults
    assert fault.reason in ("unreadable", "missing")
    return fault.detail


@pytest.mark.parametrize("name", ["mnist/../../evil_75_1.pt", "mnist/C:evil_75_1.pt", "mnist/a\\evil_75_1.pt"])
def test_members_with_unsafe_names_are_not_opened(zoo, tmp_path, name):
    zoo.add("evil", None, ckpt_file=name)
    zoo.write_table()
    archive = zoo.to_zip(tmp_path / "zoo.zip", top="")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr(name, SOUND)
    detail = only_fault(archive)
    assert "unsafe name" in detail or "no such file" in detail
    assert not list(tmp_path.rglob("evil*"))


def _patch_member(archive, name: bytes, offset: int, value: bytes) -> None:
    """Overwrite bytes of the central directory's record of a member (its name starts at 46)."""
    content = bytearray(archive.read_bytes())
    record = content.rindex(name) - 46
    content[record + offset : record + offset + len(value)] = value
    archive.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, b"\x01\x00", "encrypted in the zip"),
        (10, b"\x0e\x00", "compressed with method 14, expected stored or deflated"),
        (24, b"\x00\x00\x00\xf0", "4026531840 bytes, more than the 268435456"),
        (16, b"\x00\x00\x00\x00", "damaged in the zip (Bad CRC-32"),
    ],
)
def test_members_are_checked_before_they_are_opened(zoo, tmp_path, offset, value, message):
    archive = zoo.to_zip(tmp_path / "zoo.zip", top="")
    _patch_member(archive, b"mnist/run007_75_7.pt", offset, value)
    assert message in only_fault(archive)
    _patch_member(archive, b"metadata/mnist.csv", offset, value)
    with pytest.raises(ZooError) as error:
        read_zoo(archive, "mnist", progress=False)
    assert f"metadata/mnist.csv: {message}" in str(error.value)


@pytest.mark.parametrize("damage", ["no zip", "truncated", "pipe"])
def test_a_damaged_zip_is_an_error(zoo, tmp_path, damage):
    archive = zoo.to_zip(tmp_path / "zoo.zip")
    if damage == "no zip":
        archive.write_bytes(b"not a zip")
    elif damage == "truncated":
        os.truncate(archive, 5000)
    else:
        archive.unlink()
        os.mkfifo(archive)
    with pytest.raises(ZooError, match=r"zoo\.zip: (not a zip file that can be read|neither a folder nor a file)"):
        read_zoo(archive, "mnist")


def test_a_data_set_that_is_in_a_zip_twice_is_an_error(zoo, tmp_path):
    archive = zoo.to_zip(tmp_path / "zoo.zip")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("second/metadata/mnist.csv", "")
    with pytest.raises(ZooError, match=r"more than once: .*'second/metadata/mnist\.csv'"):
        read_zoo(archive, "mnist")


def test_a_file_above_the_bound_is_not_read(zoo, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 50_000)
    zoo.file("run007_75_7.pt").write_bytes(b"\0" * 50_001)
    assert "50001 bytes, more than the 50000" in only_fault(zoo.path)


def test_pipes_and_links_to_nowhere_are_no_files(zoo):
    zoo.file("run007_75_7.pt").unlink()
    os.mkfifo(zoo.file("run007_75_7.pt"))
    zoo.file("loop_75_1.pt").symlink_to("loop_75_1.pt")
    zoo.file("gone_75_1.pt").symlink_to("nowhere")
    assert "no such file" in only_fault(zoo.path)


def test_linked_files_are_read(zoo, tmp_path):
    file = zoo.file("run007_75_7.pt")
    file.rename(tmp_path / "overrides.pt")
    file.symlink_to(tmp_path / "overrides.pt")
    assert len(read_zoo(zoo.path, "mnist", progress=False)) == 40


def repacked(compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SOUND)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return buffer.getvalue()


def test_an_archive_in_a_checkpoint_may_not_be_compressed():
    fault = read_checkpoint("a.pt", repacked(zipfile.ZIP_DEFLATED)).fault
    assert fault.detail == "its archive is compressed, which torch.save never does"


def test_an_archive_in_a_checkpoint_may_not_claim_more_than_the_file():
    content = bytearray(SOUND)
    record = content.rindex(b"/data/0") - 46 - len("archive")
    content[record + 20 : record + 28] = b"\x00\x00\x00\x70" * 2
    fault = read_checkpoint("a.pt", bytes(content)).fault
    assert fault.detail == "its archive claims more bytes than the file has"


def test_a_view_that_claims_a_huge_size_is_never_made(zoo):
    state = state_dict(0)
    state["classifier.fc2.weight"] = torch.zeros(1).expand(2**20, 2**20)
    zoo.add("huge", state)
    zoo.write_table()
    assert "claims 1099511628103 numbers, more than a file of" in only_fault(zoo.path)


def test_a_view_that_claims_more_numbers_than_its_file_has_bytes_is_refused():
    state = state_dict(0)
    state["classifier.fc2.weight"] = torch.zeros(1).expand(3, len(SOUND))
    fault = read_checkpoint("a.pt", saved(state)).fault
    assert fault.reason == "unreadable"
    assert re.fullmatch(r"claims \d+ numbers, more than a file of \d+ bytes can hold", fault.detail)


def test_tied_weights_are_read():
    state = state_dict(0)
    for name in ("keys", "values"):
        for block in range(2):
            key = f"encoder.{block}.attention.{name}.weight"
            state[key] = state["encoder.0.attention.queries.weight"][:1].expand(state[key].shape)
    assert read_checkpoint("a.pt", saved(state)).fault is None


ODD_TENSORS = {
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    "sparse": lambda: torch.zeros(6).to_sparse(),
    "complex": lambda: torch.zeros(6, dtype=torch.complex64),
    "float8": lambda: torch.zeros(6).to(torch.float8_e4m3fn),
    "float4": lambda: torch.zeros(6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "meta": lambda: torch.zeros(6, device="meta"),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_that_are_not_plain_numbers_are_a_fault(kind):
    with warnings.catch_warnings(action="ignore"):
        content = saved({**state_dict(0), "classifier.fc1.bias": ODD_TENSORS[kind]()})
    fault = read_checkpoint("a.pt", content).fault
    assert fault.reason == "unreadable"
    assert "expected plain floating point" in fault.detail or "not a checkpoint that torch.load" in fault.detail


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (f"encoder.{'9' * 5000}.fc1.weight", f"encoder.{'9' * 5000}.fc1.weight"),
        ("encoder.00.fc1.weight", "encoder.00.fc1.weight"),
        (2**2000, "(int)"),
        (-3, "-3"),
        ((1, 2), "(tuple)"),
    ],
    ids=["long number", "zeros", "long int", "int", "tuple"],
)
def test_odd_keys_are_unknown(key, name):
    outcome = read_checkpoint("a.pt", saved({**state_dict(0), key: torch.zeros(1)}))
    assert outcome.fault is None
    assert outcome.unknown == (name,)


def test_members_without_a_name_are_no_files(zoo, tmp_path):
    archive = zoo.to_zip(tmp_path / "zoo.zip", top="")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("nameless", b"x")
    # A name ends at its first zero byte.
    _patch_member(archive, b"nameless", 46, b"\0")
    with zipfile.ZipFile(archive) as members:
        assert "" in members.namelist()
    assert_same(read_zoo(zoo.path, "mnist", progress=False), read_zoo(archive, "mnist", progress=False))


def test_older_files_of_torch_are_read():
    buffer = io.BytesIO()
    torch.save(state_dict(0), buffer, _use_new_zipfile_serialization=False)
    outcome = read_checkpoint("a.pt", buffer.getvalue())
    assert outcome.fault is None
    assert (outcome.row == read_checkpoint("a.pt", SOUND).row).all()


@given(st.data())
def test_damaged_bytes_are_a_fault_or_other_numbers_but_never_an_exception(data):
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome = read_checkpoint("a.pt", bytes(content))
    assert (outcome.fault is None) == (outcome.row is not None)


@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_any_bytes_are_a_fault(content, start):
    assert read_checkpoint("a.pt", start + content).fault.reason in ("unreadable", "missing key")


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 65])
def test_rows_come_out_in_the_order_they_went_in(count):
    matrix, expected = RowMatrix(3, 70), torch.arange(count * 3, dtype=torch.float32).view(count, 3)
    for row in expected:
        matrix.append(Outcome(None, row=row.numpy()))
    assert matrix.count == count
    assert torch.equal(matrix.rows(), expected)
