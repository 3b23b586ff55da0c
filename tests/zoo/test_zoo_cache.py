"""The cache: equal to a fresh read, used when it fits, and void as soon as anything differs."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_zoo import QUERIES_BIAS, SmallZoo, assert_same, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo import cache, collecting, reading
from nfn_transformer.zoo.reading import Zoo, read_zoo


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Grows by one number whenever checkpoints are read rather than taken from the cache."""
    seen: list[int] = []
    original = reading.read_outcomes

    def spy(source, files, n_workers, weights_key=None):
        seen.append(len(files))
        return original(source, files, n_workers, weights_key)

    monkeypatch.setattr(reading, "read_outcomes", spy)
    return seen


def read(zoo: SmallZoo, **options) -> Zoo:
    return read_zoo(zoo.path, "mnist", progress=False, **options)


def cache_file(zoo: SmallZoo):
    (path,) = (zoo.path / ".zoo_cache").iterdir()
    return path


def test_a_cached_zoo_is_the_zoo_that_was_read(zoo, reads):
    zoo.add("bad", b"")
    zoo.add("stray", {**state_dict(1), QUERIES_BIAS: torch.zeros(4)})
    zoo.write_table()
    fresh = read(zoo)
    assert_same(fresh, read(zoo))
    assert len(reads) == 1
    assert_same(fresh, read(zoo, load_cache=False))
    assert len(reads) == 2


def test_a_zoo_larger_than_the_memory_is_read_into_a_file_and_used_from_the_cache(zoo, monkeypatch):
    expected = read(zoo)
    cache_file(zoo).unlink()
    monkeypatch.setattr(collecting, "_COMMON", 2)
    monkeypatch.setattr(collecting, "free_bytes", lambda device: 1)
    maps = []
    original = collecting.np.memmap

    def spy(file, *arguments, **settings):
        maps.append(os.fstat(file.fileno()))
        return original(file, *arguments, **settings)

    monkeypatch.setattr(collecting.np, "memmap", spy)
    assert_same(read(zoo), expected)
    assert maps[-1].st_size == expected.rows.numel() * 4
    assert all(seen.st_nlink == 0 for seen in maps), "a kill would leave the file behind"
    assert cache_file(zoo).is_file()
    count = len(maps)
    cached = read(zoo)
    assert len(maps) == count
    assert_same(cached, expected)


def test_cached_rows_are_mapped_and_not_copied(zoo):
    """A change of the rows does not change the file."""
    read(zoo)
    content = cache_file(zoo).read_bytes()
    rows = read(zoo).rows
    mapped = Path("/proc/self/maps").read_text()
    assert str(cache_file(zoo).resolve()) in mapped
    rows += 1
    assert cache_file(zoo).read_bytes() == content


def test_the_cache_is_one_whole_safetensors_file(zoo):
    fresh = read(zoo)
    assert torch.equal(load_file(cache_file(zoo))["rows"], fresh.rows)


def test_flags_apply_after_the_cache(tmp_path, reads):
    zoo = SmallZoo(tmp_path / "zoo", runs=10)
    zoo.add("bad", b"")
    zoo.write_table()
    accepted = read(zoo, allow_faulty=True)
    with pytest.raises(ZooError, match=r"1 of 11 checkpoints .* are faulty"):
        read(zoo)
    with pytest.raises(ZooError, match="--n_heads 4 contradicts 11 of 11"):
        read(zoo, n_heads=4, allow_faulty=True)
    assert_same(accepted, read(zoo, n_heads=2, allow_faulty=True))
    assert len(reads) == 1


def test_heads_of_rows_that_do_not_tell_them_are_part_of_the_cache(zoo):
    zoo.write_table(drop="n_attention_heads")
    assert [read(zoo, n_heads=heads).spec.blocks[0].heads for heads in (1, 2, None, 1)] == [1, 2, 2, 1]


def replace_content(zoo):
    zoo.file("run000_75_0.pt").write_bytes(zoo.file("run001_75_1.pt").read_bytes())


def keep_size_and_time(zoo):
    file = zoo.file("run000_75_0.pt")
    status = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_file(zoo):
    zoo.file("run000_75_0.pt").unlink()


def add_file(zoo):
    zoo.file("new_75_1.pt").write_bytes(b"")


def change_label(zoo):
    zoo.rows[0]["test_top1_accuracy"] = "0.75"
    table = zoo.path / "metadata/mnist.csv"
    status = table.stat()
    zoo.write_table()
    os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(zoo):
    os.truncate(cache_file(zoo), cache_file(zoo).stat().st_size - 5)


def empty(zoo):
    cache_file(zoo).write_bytes(b"")


def no_safetensors(zoo):
    cache_file(zoo).write_bytes(b"not safetensors at all")


def _flip(zoo, position):
    content = bytearray(cache_file(zoo).read_bytes())
    content[position] ^= 1
    cache_file(zoo).write_bytes(content)


def flip_number(zoo):
    _flip(zoo, -3)


def flip_name(zoo):
    _flip(zoo, cache_file(zoo).read_bytes().index(b"run004"))


def flip_header_length(zoo):
    _flip(zoo, 6)


@pytest.mark.parametrize(
    "change",
    [
        *(replace_content, keep_size_and_time, remove_file, add_file, change_label),
        *(truncate, empty, no_safetensors, flip_number, flip_name, flip_header_length),
    ],
)
def test_a_cache_of_other_files_or_damaged_is_not_used(zoo, reads, change):
    read(zoo)
    change(zoo)
    again = read(zoo)
    assert len(reads) == 2
    assert_same(again, read(zoo))
    assert len(reads) == 2


def test_a_change_of_the_zip_makes_its_cache_void(zoo, tmp_path, reads):
    archive = zoo.to_zip(tmp_path / "zoo.zip")
    read_zoo(archive, "mnist", progress=False)
    change_label(zoo)
    zoo.to_zip(archive)
    assert read_zoo(archive, "mnist", progress=False).labels[0] == 0.75
    assert len(reads) == 2
    assert [file.name[:17] for file in (tmp_path / ".zoo_cache").iterdir()] == ["zoo.zip-mnist-75-"]


def test_a_cache_of_another_format_version_is_not_used(zoo, reads, monkeypatch):
    read(zoo)
    monkeypatch.setattr(cache, "CACHE_FORMAT", cache.CACHE_FORMAT + 1)
    read(zoo)
    assert len(reads) == 2


@pytest.mark.parametrize("forgery", ["no checksum", "no content", "other shape", "other content"])
def test_a_cache_that_claims_to_fit_is_checked(zoo, reads, forgery):
    fresh = read(zoo)
    with safe_open(cache_file(zoo), "pt") as file:
        header = file.metadata()
    rows = fresh.rows.clone()
    if forgery == "no checksum":
        header.pop("checksum")
    elif forgery == "no content":
        header.pop("content")
    elif forgery == "other shape":
        rows = rows[:, :-1].contiguous()
    else:
        header["content"] = json.dumps({"names": 3})
    if "checksum" in header:
        header["checksum"] = cache._checksum(header["key"], header.get("content", ""), {"rows": rows})
    save_file({"rows": rows}, cache_file(zoo), header)
    assert_same(fresh, read(zoo))
    assert len(reads) == 2


def test_where_the_zoo_is_read_only_the_users_folder_is_used(zoo, user_cache, reads):
    zoo.path.chmod(0o555)
    fresh = read(zoo)
    zoo.path.chmod(0o755)
    assert not (zoo.path / ".zoo_cache").exists()
    assert len(list(user_cache.glob("nfn_transformer/*/mnist-75-*.safetensors"))) == 1
    assert_same(fresh, read(zoo))
    assert len(reads) == 1


def test_zoos_of_two_places_do_not_meet_in_the_users_folder(zoo, tmp_path, reads):
    shutil.copytree(zoo.path, tmp_path / "copy")
    for path in (zoo.path, tmp_path / "copy"):
        (path / ".zoo_cache").write_text("a file in the way")
    for _ in range(2):
        read(zoo)
        read_zoo(tmp_path / "copy", "mnist", progress=False)
    assert len(reads) == 2


def test_where_no_cache_can_be_written_a_warning_says_so(zoo, user_cache, capsys):
    (zoo.path / ".zoo_cache").write_text("a file in the way")
    user_cache.write_text("another")
    assert len(read(zoo)) == 40
    warning = capsys.readouterr().err
    assert warning.startswith("warning: the zoo's cache could not be written (")
    assert str(zoo.path / ".zoo_cache") in warning
    assert str(user_cache) in warning
    assert warning.count("\n") == 1


def test_a_full_disk_leaves_nothing_half_written(zoo, user_cache, capsys, monkeypatch):
    def full(tensors, path, header):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    assert len(read(zoo)) == 40
    assert "No space left on device" in capsys.readouterr().err
    assert [*(zoo.path / ".zoo_cache").iterdir(), *user_cache.rglob("*.*")] == []


def test_without_a_home_the_cache_beside_the_zoo_still_works(zoo, reads, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    monkeypatch.setattr(cache.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    read(zoo)
    read(zoo)
    assert len(reads) == 1


def test_what_a_killed_process_left_is_removed_once_it_is_old(zoo):
    read(zoo)
    path = cache_file(zoo)
    old, young = path.parent / f".{path.name}.ab12.part", path.parent / f".{path.name}.cd34.part"
    other = path.parent / ".another.safetensors.ef56.part"
    for part in (old, young, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - 86400,) * 2)
    read(zoo, load_cache=False)
    assert sorted(path.parent.iterdir()) == sorted([path, young, other])


def test_leftovers_that_cannot_be_removed_do_no_harm(zoo, capsys):
    read(zoo)
    path = cache_file(zoo)
    folder = path.parent / f".{path.name}.ab12.part"
    folder.mkdir()
    os.utime(folder, (0, 0))
    read(zoo, load_cache=False)
    assert folder.exists()
    assert capsys.readouterr().err == ""
