"""Names and keys that would steer a terminal, break a line, or are not UTF-8: escaped in all that is printed."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_zoo import SmallZoo, assert_same, saved, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.training.data import Split
from nfn_transformer.zoo.faults import Fault, FaultReport, Reason
from nfn_transformer.zoo.reading import read_zoo

RED = "\x1b[31m"
HOSTILE = f"{RED}red\r\nfake line\u202e\udcff"
ESCAPED = r"\x1b[31mred\r\nfake line\u202e\udcff"


def assert_harmless(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("fake") for line in text.split("\n"))


def test_ordinary_names_stay_as_they_are():
    for name in ("run000_75_0.pt", r"a\b'c\"d", "Zoo größer 模型.pt", ""):
        assert printable(name) == name
    assert (printable(HOSTILE), quoted(HOSTILE)) == (ESCAPED, f"'{ESCAPED}'")


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_what_is_printable_can_be_printed_and_stays_so(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == printable(shown) == shown


def test_a_report_escapes_names_keys_and_details():
    fault = Fault(HOSTILE, Reason.UNREADABLE, f"unsafe {HOSTILE}")
    report = FaultReport(1, (fault,), {HOSTILE: (HOSTILE,)}, (HOSTILE,), (HOSTILE,))
    assert report.fault_lines() == [f"{ESCAPED}: unreadable: unsafe {ESCAPED}"]
    assert f"are ignored: '{ESCAPED}'" in report.summary()
    assert_harmless(report.summary())
    report.csv().encode("utf-8", errors="backslashreplace")


def test_hostile_keys_and_labels_are_escaped(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo", runs=2)
    zoo.add("stray", {**state_dict(1), HOSTILE: torch.zeros(1)})
    zoo.add(f"{RED}run", state_dict(1), label=HOSTILE[:-1])
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist", progress=False)
    message = str(error.value)
    assert f"carry unknown keys: '{ESCAPED}' (1)" in message
    assert r"\x1b[31mrun_75_3.pt: label: label \x1b[31mred" in message
    assert_harmless(message)


@pytest.mark.parametrize("kind", ["names", "tables", "epoch", "column", "no checkpoints", "heads", "damaged"])
def test_hostile_names_in_a_zip_are_escaped(tmp_path, kind):
    zoo = SmallZoo(tmp_path / "zoo", runs=1)
    top, dataset, options = f"{HOSTILE[:-1]}/", "mnist", {}
    if kind == "names":
        (zoo.path / "metadata/mnist.csv").unlink()
    elif kind == "tables":
        (zoo.path / "metadata/mnist.csv").rename(zoo.path / f"metadata/{HOSTILE[:-1]}.csv")
    elif kind == "epoch":
        zoo.add("other", None, epoch=HOSTILE[:-1])
        options = {"ckpt_epoch": HOSTILE}
        zoo.write_table()
    elif kind == "column":
        zoo.rows[0][f"{RED}column"] = ""
        zoo.write_table(drop="ckpt_file")
    elif kind == "no checkpoints":
        zoo.file("run000_75_0.pt").unlink()
    elif kind == "heads":
        zoo.add(HOSTILE[:5], state_dict(1), n_attention_heads="4")
        zoo.rows.pop(0)
        zoo.write_table()
        options = {"n_heads": 2}
    archive = zoo.to_zip(tmp_path / "zoo.zip", top)
    if kind == "damaged":
        content = archive.read_bytes()
        archive.write_bytes(content.replace(b"ckpt_file", b"ckpt_life"))
    with pytest.raises(ZooError) as error:
        read_zoo(archive, dataset, progress=False, **options)
    assert r"\x1b[31m" in str(error.value)
    assert_harmless(str(error.value))


def test_an_unknown_data_set_is_escaped(zoo):
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, HOSTILE)
    assert f"no data set '{ESCAPED}'" in str(error.value)
    assert_harmless(str(error.value))


def test_names_of_a_recorded_split_are_escaped():
    with pytest.raises(ZooError, match=r"not in the zoo: '\\x1b\[31m"):
        Split.from_names({"train": [HOSTILE]}, [])
    with pytest.raises(ZooError, match=r"it has \\x1b\[31m"):
        Split.from_names({HOSTILE: []}, [])


def odd_path(path: Path) -> Path:
    """The path with a last part that is not UTF-8; the test is skipped where the file system refuses such names."""
    odd = Path(os.fsdecode(os.fsencode(path) + b"\xff"))
    try:
        odd.mkdir()
        odd.rmdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return odd


def test_a_zoo_of_names_that_are_not_utf8_is_read_and_cached(tmp_path):
    zoo = SmallZoo(odd_path(tmp_path / "zoo"), os.fsdecode(b"mnist\xff"))
    stray = {f"\ud800{number}": torch.zeros(1) for number in range(3)}
    zoo.add("stray", {**state_dict(1), **stray}, ckpt_file="stray_75_0.pt")
    zoo.write_table()
    zoo.file(os.fsdecode(b"unlisted\xff_75_1.pt")).write_bytes(saved(state_dict(1)))
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, zoo.dataset, progress=False)
    assert r"'\ud8000' (1)" in str(error.value)
    for index in range(20):
        zoo.add(f"more{index}", state_dict(index), ckpt_file=f"more{index}_75_{index + 1}.pt")
    zoo.write_table()
    read = read_zoo(zoo.path, zoo.dataset, progress=False)
    assert len(list((zoo.path / ".zoo_cache").iterdir())) == 1
    assert_same(read, read_zoo(zoo.path, zoo.dataset, progress=False))
    assert read.report.unlisted == ("unlisted\udcff_75_1.pt",)
    read.report.summary().encode()
    read.report.csv().encode("utf-8", errors="backslashreplace")


def test_a_zip_at_a_path_that_is_not_utf8_is_read_and_cached(zoo, tmp_path, user_cache, capsys):
    archive = zoo.to_zip(odd_path(tmp_path / "zoo.zip"))
    first = read_zoo(archive, "mnist", progress=False)
    assert_same(first, read_zoo(archive, "mnist", progress=False))
    (cached,) = (archive.parent / ".zoo_cache").iterdir()
    cached.unlink()
    cached.parent.rmdir()
    for path in (cached.parent, user_cache):
        path.write_text("a file in the way")
    assert_same(first, read_zoo(archive, "mnist", progress=False))
    capsys.readouterr().err.encode()


def test_a_warning_about_the_cache_is_one_printable_line(tmp_path, user_cache, capsys):
    zoo = SmallZoo(tmp_path / HOSTILE[:-1].replace("/", ""), runs=1)
    for path in (zoo.path / ".zoo_cache", user_cache):
        path.write_text("a file in the way")
    read_zoo(zoo.path, "mnist", progress=False)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert_harmless(warning)


def test_an_unsafe_name_of_a_member_is_escaped(zoo, tmp_path):
    name = f"mnist/C:{RED}_75_1.pt"
    zoo.add("evil", None, ckpt_file=name)
    zoo.write_table()
    archive = zoo.to_zip(tmp_path / "zoo.zip", top="")
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr(name, b"")
    (line,) = read_zoo(archive, "mnist", progress=False).report.fault_lines()
    assert "unsafe name" in line
    assert_harmless(line)
