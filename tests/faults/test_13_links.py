"""Fault 13: linked folders of checkpoints are not seen, or a loop of links never ends."""

import os

from small_zoo import SPEC, assert_same, saved, state_dict

from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import read_zoo


def test_13_a_linked_folder_is_read_and_loops_end(zoo, tmp_path):
    expected = read_zoo(zoo.path, "mnist", progress=False)
    disk = tmp_path / "disk2"
    disk.mkdir()
    for number in range(20):
        name = f"run{number:03d}_75_{number}.pt"
        os.rename(zoo.file(name), disk / name)
    zoo.file("disk2").symlink_to(disk)
    (disk / "loop").symlink_to(zoo.file(""))
    (disk / "self").symlink_to(disk)
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert_same(expected, read)
    assert read.report.unlisted == ()


def test_13_predictions_of_a_folder_follow_links(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.pt").write_bytes(saved(state_dict(0)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/linked").symlink_to(tmp_path / "files")
    (tmp_path / "files/back").symlink_to(tmp_path / "folder")
    names, _ = read_loose_checkpoints([tmp_path / "folder"], SPEC)
    assert names == [f"{tmp_path}/folder/linked/a.pt"]
