"""A flipped bit in a file that holds weights is noticed: every member has a checksum, and it is read."""

import io
import zipfile

import numpy
import pytest
import torch
from small_zoo import saved, state_dict

from nfn_transformer.zoo.checkpoint import read_checkpoint

SOUND = saved(state_dict(3))


def test_no_flipped_bit_gives_other_weights():
    expected, draw, accepted = read_checkpoint("a.pt", SOUND), numpy.random.default_rng(6), 0
    for place in draw.integers(0, 8 * len(SOUND), 400).tolist():
        content = bytearray(SOUND)
        content[place // 8] ^= 1 << place % 8
        outcome = read_checkpoint("a.pt", bytes(content))
        accepted += outcome.fault is None
        assert outcome.fault or (outcome.shapes, outcome.row.tobytes()) == (expected.shapes, expected.row.tobytes())
    assert accepted < 200  # those in the padding before a member are of no account


def test_a_flipped_bit_of_each_members_content_is_named():
    with zipfile.ZipFile(io.BytesIO(SOUND)) as archive:
        for member in archive.infolist():
            content = bytearray(SOUND)
            place = content.index(archive.read(member), member.header_offset)
            content[place] ^= 1
            fault = read_checkpoint("a.pt", bytes(content)).fault
            assert fault.detail == f"damaged: the checksum of its member '{member.filename}' differs"


def test_files_that_were_saved_without_checksums_are_read():
    torch.serialization.set_crc32_options(False)
    try:
        content = saved(state_dict(3))
    finally:
        torch.serialization.set_crc32_options(True)
    assert (read_checkpoint("a.pt", content).row == read_checkpoint("a.pt", SOUND).row).all()


@pytest.mark.parametrize("end", [b"x", SOUND])
def test_nothing_may_follow_an_archive(end):
    assert "the end of its archive is not there" in read_checkpoint("a.pt", SOUND[:-1] + end).fault.detail
