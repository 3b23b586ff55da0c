"""Refusal of a zoo: the allowed share of faults, of other shapes and of unknown keys, and the message."""

import pytest
import torch
from small_zoo import QUERIES_BIAS, SPEC, SmallZoo, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.spec import FeedForwardSpec, TransformerSpec
from nfn_transformer.zoo.reading import read_zoo

SEVEN_CLASSES = TransformerSpec(SPEC.blocks, FeedForwardSpec((4, 6, 7)), SPEC.embedding)
LAYER_NORM = "encoder.0.norm1.weight"


def zoo_of(path, sound: int, others: int, other) -> SmallZoo:
    zoo = SmallZoo(path / "zoo", runs=sound)
    for index in range(others):
        zoo.add(f"other{index:02d}", other(index))
    zoo.write_table()
    return zoo


OTHERS = {
    "faulty": lambda index: b"",
    "shape": lambda index: state_dict(index, SEVEN_CLASSES),
    "stray": lambda index: {**state_dict(index), LAYER_NORM: torch.ones(4)},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_five_per_cent_are_allowed_and_more_are_not(tmp_path, kind):
    allowed = zoo_of(tmp_path / "allowed", 38, 2, OTHERS[kind])
    read = read_zoo(allowed.path, "mnist", progress=False)
    assert (len(read.report.faults), len(read.report.stray_keys)) == ((0, 2) if kind == "stray" else (2, 0))
    refused = zoo_of(tmp_path / "refused", 37, 2, OTHERS[kind])
    with pytest.raises(ZooError, match=r"2 of 39|more than one shape"):
        read_zoo(refused.path, "mnist", progress=False)


def test_duplicates_and_files_without_a_row_do_not_count(tmp_path):
    zoo = zoo_of(tmp_path, 37, 2, OTHERS["faulty"])
    zoo.rows += [dict(zoo.rows[0])] * 10
    zoo.write_table()
    for index in range(10):
        zoo.file(f"extra_75_{index}.pt").write_bytes(b"")
    with pytest.raises(ZooError, match="2 of 39 checkpoints"):
        read_zoo(zoo.path, "mnist", progress=False)


@pytest.mark.parametrize("allow_faulty", [False, True])
def test_unknown_keys_in_many_are_another_architecture(tmp_path, allow_faulty):
    def with_keys(index):
        keys = [LAYER_NORM, QUERIES_BIAS] if index else [LAYER_NORM]
        return {**state_dict(index), **dict.fromkeys(keys, torch.ones(4))}

    zoo = zoo_of(tmp_path, 30, 5, with_keys)
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist", allow_faulty=allow_faulty, progress=False)
    first = str(error.value).splitlines()[0]
    assert "another architecture: 5 of 35 checkpoints (more than 5 %) carry unknown keys" in first
    assert first.endswith(f"'{LAYER_NORM}' (5), '{QUERIES_BIAS}' (4)")


def test_unknown_keys_count_in_faulty_checkpoints_too(tmp_path):
    zoo = zoo_of(tmp_path, 2, 5, lambda index: {"layers.0.weight": torch.ones(2)})
    with pytest.raises(ZooError, match=r"another architecture: 5 of 7 .* 'layers\.0\.weight' \(5\)"):
        read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)


def test_a_second_shape_in_many_is_an_error_that_lists_the_shapes(tmp_path):
    zoo = zoo_of(tmp_path, 20, 10, OTHERS["shape"])
    zoo.add("heads", state_dict(1), n_attention_heads="1")
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist", progress=False)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("data set 'mnist': more than one shape:")
    assert lines[1:4] == [
        "  20 checkpoints: 2 heads, 'classifier.fc2.weight' (3, 6), 'classifier.fc2.bias' (3,)",
        "  10 checkpoints: 2 heads, 'classifier.fc2.weight' (7, 6), 'classifier.fc2.bias' (7,)",
        "  1 checkpoints: 1 heads, 'classifier.fc2.weight' (3, 6), 'classifier.fc2.bias' (3,); "
        "11 of 31 checkpoints (more than 5 %) are faulty "
        "(--where COLUMN=VALUE,... reads a part by its metadata, --allow_faulty the most common shape, "
        "--all_sizes True all of them for --enc_mode complete)",
    ]
    read = read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)
    assert (read.spec, len(read)) == (SPEC, 20)


def test_the_most_common_shape_need_not_come_first(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for index in range(30):
        zoo.add(f"run{index:02d}", state_dict(index, SEVEN_CLASSES if index == 0 else SPEC))
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert read.spec == SPEC
    assert read.report.faults[0].detail == "'classifier.fc2.weight' has shape (7, 6), expected (3, 6)"


def test_a_zoo_without_one_sound_checkpoint_is_an_error(tmp_path):
    zoo = zoo_of(tmp_path, 0, 3, OTHERS["faulty"])
    with pytest.raises(ZooError, match="none of the 3 checkpoints can be used"):
        read_zoo(zoo.path, "mnist", allow_faulty=True, progress=False)


def test_a_refused_zoo_leaves_no_cache_behind(tmp_path, user_cache):
    zoo = zoo_of(tmp_path, 5, 3, OTHERS["faulty"])
    with pytest.raises(ZooError):
        read_zoo(zoo.path, "mnist", progress=False)
    assert not (zoo.path / ".zoo_cache").exists()
    assert not user_cache.exists()


def test_a_network_whose_shapes_do_not_fit_each_other_is_an_error(tmp_path):
    def odd(index):
        return {**state_dict(index), "encoder.1.fc2.bias": torch.zeros(9)}

    zoo = zoo_of(tmp_path, 0, 3, odd)
    with pytest.raises(ZooError, match=r"do not fit each other: 'encoder.1.fc2.bias' has shape \(9,\), exp"):
        read_zoo(zoo.path, "mnist", progress=False)
