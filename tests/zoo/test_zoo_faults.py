"""Every fault of real zoos: what is left out, why, and what the report says."""

import csv
import io
from pathlib import Path

import pytest
import torch
from small_zoo import BLOCK, QUERIES_BIAS, SPEC, RunsCommand, SmallZoo, saved, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.spec import FeedForwardSpec, TransformerSpec
from nfn_transformer.zoo.reading import read_zoo

SOUND = saved(state_dict(99))


def with_number(key: str, value: float, dtype: torch.dtype = torch.float32) -> dict:
    state = state_dict(1, dtype=dtype)
    state[key].view(-1)[2] = value
    return state


def without(*keys: str) -> dict:
    return {key: value for key, value in state_dict(1).items() if key not in keys}


SEVEN_CLASSES = state_dict(1, TransformerSpec(SPEC.blocks, FeedForwardSpec((4, 6, 7)), SPEC.embedding))
ONE_BLOCK = state_dict(1, TransformerSpec((BLOCK,), SPEC.classifier, SPEC.embedding))
THREE_BLOCKS = state_dict(1, TransformerSpec((BLOCK,) * 3, SPEC.classifier, SPEC.embedding))

CONTENT_FAULTS = {
    "nan": (with_number("encoder.1.fc1.weight", float("nan")), "not finite", "'encoder.1.fc1.weight' holds NaN"),
    "inf": (with_number("classifier.fc2.weight", -float("inf")), "not finite", "'classifier.fc2.weight' holds Inf"),
    "overflow": (with_number("classifier.fc2.bias", 1e300, torch.float64), "not finite", "'classifier.fc2.bias'"),
    "truncated": (SOUND[: len(SOUND) // 2], "unreadable", "truncated or damaged"),
    "empty": (b"", "unreadable", "the file is empty"),
    "text": (b"not a checkpoint\n", "unreadable", "not a checkpoint that torch.load reads"),
    "missing file": (None, "missing", "no such file under 'mnist/'"),
    "missing key": (without("encoder.1.fc2.bias"), "missing key", "'encoder.1.fc2.bias' is missing"),
    "missing keys": (
        without("classifier.fc1.bias", "classifier.fc2.bias"),
        "missing key",
        "fc1.bias' is missing, and 1",
    ),
    "missing block": (without(*(key for key in state_dict(1) if "encoder.0" in key)), "missing key", "encoder.0."),
    "classes": (SEVEN_CLASSES, "shape differs", "'classifier.fc2.weight' has shape (7, 6), expected (3, 6)"),
    "one block": (ONE_BLOCK, "shape differs", "'encoder.1.attention.queries.weight' is absent, expected (4, 4)"),
    "three blocks": (THREE_BLOCKS, "shape differs", "queries.weight' has shape (4, 4), expected no such key"),
    "list": ([torch.zeros(3)], "unreadable", "holds a list, expected a state dict"),
    "no tensor": ({**state_dict(1), "classifier.fc1.bias": 3}, "unreadable", "'classifier.fc1.bias' is a int"),
    "integers": ({**state_dict(1), "classifier.fc1.bias": torch.zeros(6).int()}, "unreadable", "torch.int32"),
    "no keys": ({}, "missing key", "'encoder.0.attention.queries.weight' is missing, and 11 more"),
}


@pytest.mark.parametrize("case", CONTENT_FAULTS)
def test_a_faulty_checkpoint_is_left_out_with_its_reason(zoo, case):
    content, reason, detail = CONTENT_FAULTS[case]
    name = zoo.add("bad", saved(content) if isinstance(content, list) else content)
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    (fault,) = read.report.faults
    assert (fault.name, fault.reason) == (name, reason)
    assert detail in fault.detail
    assert len(read) == 40
    assert name not in read.names
    assert torch.isfinite(read.rows).all()


@pytest.mark.parametrize(
    ("label", "reason", "detail"),
    [
        ("", "label", "no label, expected a number in [0, 1]"),
        ("98.3", "label outside [0, 1]", "label 98.3, expected a number in [0, 1]"),
        ("-0.1", "label outside [0, 1]", "label -0.1, expected a number in [0, 1]"),
        ("nan", "label", "label nan, expected a number in [0, 1]"),
        ("high", "label", "label high, expected a number in [0, 1]"),
    ],
)
def test_a_label_that_is_no_accuracy_is_a_fault(zoo, label, reason, detail):
    name = zoo.add("bad", state_dict(1), label=label)
    zoo.write_table()
    (fault,) = read_zoo(zoo.path, "mnist", progress=False).report.faults
    assert (fault.name, fault.reason, fault.detail) == (name, reason, detail)


def test_a_row_that_stands_twice_is_used_once(zoo):
    zoo.rows.append({**zoo.rows[3], "ckpt_file": f"mnist/model/{zoo.rows[3]['ckpt_file']}"})
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert len(read) == 40
    assert read.report.duplicates == ("run003_75_3.pt",)
    assert read.report.examined == 40
    assert "1 in more than one metadata row, used once" in read.report.summary()


def test_rows_of_one_file_that_contradict_each_other_are_a_fault(zoo):
    zoo.rows.append({**zoo.rows[3], "test_top1_accuracy": "0.75"})
    zoo.rows.append({**zoo.rows[4], "test_top1_accuracy": "0.50"})
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    (fault,) = read.report.faults
    assert (fault.name, fault.reason) == ("run003_75_3.pt", "label")
    assert fault.detail == "its rows contradict each other: labels '0.5' and '0.75'"


@pytest.mark.parametrize("heads", ["two", "0", "1.5"])
def test_heads_that_are_no_number_are_a_fault(zoo, heads):
    name = zoo.add("bad", state_dict(1), n_attention_heads=heads)
    zoo.write_table()
    (fault,) = read_zoo(zoo.path, "mnist", progress=False).report.faults
    assert (fault.name, fault.reason) == (name, "shape differs")
    assert f"n_attention_heads is '{heads}'" in fault.detail


def test_other_heads_are_another_shape(zoo):
    name = zoo.add("bad", state_dict(1), n_attention_heads="4")
    zoo.write_table()
    (fault,) = read_zoo(zoo.path, "mnist", progress=False).report.faults
    assert (fault.name, fault.reason, fault.detail) == (name, "shape differs", "4 heads, expected 2")


def test_a_row_without_a_file_name_is_a_fault(zoo):
    zoo.rows.append({**zoo.rows[0], "ckpt_file": ""})
    zoo.write_table()
    (fault,) = read_zoo(zoo.path, "mnist", progress=False).report.faults
    assert (fault.name, fault.reason, fault.detail) == ("(row 40)", "missing", "the row has no ckpt_file")


def test_a_stray_key_is_left_out_and_counted(zoo):
    name = zoo.add("stray", {**state_dict(7), QUERIES_BIAS: torch.zeros(4), 3: "odd"})
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert name in read.names
    assert QUERIES_BIAS not in read.shapes
    assert (read.report.stray_keys, read.report.entries) == ({name: (QUERIES_BIAS,)}, {name: ("3",)})
    assert read.report.faults == ()
    assert f"1 with unknown keys, which are ignored: '{QUERIES_BIAS}'" in read.report.summary()


def test_a_file_without_a_row_is_left_out_and_counted(zoo):
    zoo.file("other_75_1.pt").write_bytes(SOUND)
    zoo.file("embedding.pt").write_bytes(saved({"weight": torch.zeros(2)}))
    zoo.file("._run000_75_0.pt").write_bytes(b"")
    zoo.file("notes.txt").write_text("no checkpoint")
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert read.report.unlisted == ("other_75_1.pt",)
    assert len(read) == 40


def test_a_pickle_that_would_run_a_command_never_does(zoo, tmp_path):
    trace = tmp_path / "ran"
    bomb = RunsCommand(f"touch '{trace}'")
    zipped, plain = io.BytesIO(), io.BytesIO()
    torch.save({"encoder": bomb}, zipped)
    torch.save({"encoder": bomb}, plain, _use_new_zipfile_serialization=False)
    names = [zoo.add("bad", content.getvalue()) for content in (zipped, plain)]
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert [(fault.name, fault.reason) for fault in read.report.faults] == [(name, "unreadable") for name in names]
    assert all("refused, as loading it would call" in fault.detail for fault in read.report.faults)
    assert not trace.exists()
    # The test is worth nothing where the planted command would not run at all.
    planted, arguments = bomb.__reduce__()
    planted(*arguments)
    assert trace.exists()


def faulty_zoo(path: Path) -> tuple[SmallZoo, list[tuple[str, str]]]:
    """24 rows of which 13 can be used, with the sample zoo's faults in the sample zoo's places."""
    contents = {
        1: "nan",
        2: "inf",
        3: "truncated",
        4: "missing file",
        5: "empty",
        6: "missing key",
        7: "classes",
        13: "text",
    }
    zoo, expected = SmallZoo(path), []
    for row in range(24):
        content, reason, _ = CONTENT_FAULTS[contents[row]] if row in contents else (state_dict(row), None, "")
        label = {8: "", 9: "98.3"}.get(row, "0.5")
        if row == 0:
            content = {**state_dict(0), QUERIES_BIAS: torch.zeros(4)}
        if row == 12:
            content, reason = saved({"encoder": RunsCommand(f"touch '{path}/ran'")}), "unreadable"
        name = zoo.add(f"run{row:03d}", content, label=label)
        if reason or row in (8, 9):
            expected.append((name, reason or ("label" if row == 8 else "label outside [0, 1]")))
    zoo.rows.append(dict(zoo.rows[10]))
    zoo.file("07z00zzz_75_1234.pt").write_bytes(SOUND)
    zoo.write_table()
    return zoo, expected


def test_the_faulty_sample_zoo(tmp_path):
    zoo, expected = faulty_zoo(tmp_path / "faulty")
    read = read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)
    assert [(fault.name, fault.reason) for fault in read.report.faults] == expected
    assert [int(run[3:]) for run in read.runs] == [0, 10, 11, *range(14, 24)]
    assert read.report.summary().splitlines() == [
        "13 of 24 checkpoints can be used",
        "11 left out: 4 unreadable, 1 missing, 1 missing key, 1 shape differs, 2 not finite, 1 label, "
        "1 label outside [0, 1]",
        f"1 with unknown keys, which are ignored: '{QUERIES_BIAS}'",
        "1 in more than one metadata row, used once",
        "1 without a metadata row, left out",
    ]
    with pytest.raises(ZooError) as refusal:
        read_zoo(zoo.path, "mnist", progress=False)
    message = str(refusal.value)
    assert "11 of 24 checkpoints (more than 5 %) are faulty (--allow_faulty uses the others)" in message
    assert [line.strip() for line in message.splitlines() if line.startswith("  ")] == read.report.fault_lines()
    assert not (zoo.path / "ran").exists()


def test_the_report_as_a_table(tmp_path):
    zoo, expected = faulty_zoo(tmp_path / "faulty")
    report = read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False).report
    lines = list(csv.DictReader(io.StringIO(report.csv())))
    assert [(line["file"], line["reason"]) for line in lines[: len(expected)]] == expected
    assert [list(line.values()) for line in lines[len(expected) :]] == [
        ["07z00zzz_75_1234.pt", "no", "no metadata row", ""],
        ["run000_75_0.pt", "yes", "unknown keys", QUERIES_BIAS],
        ["run010_75_10.pt", "yes", "more than one metadata row", ""],
    ]
