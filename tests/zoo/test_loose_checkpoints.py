"""Checkpoints outside a zoo: told by their content in files, folders and zips, and every problem named."""

import io
import os
import zipfile

import pytest
import torch
from small_zoo import BLOCK, QUERIES_BIAS, SPEC, RunsCommand, saved, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.weights.state_dicts import state_dict_from_weights
from nfn_transformer.zoo.loose_checkpoints import MAX_LISTED, read_loose_checkpoints

SOUND = saved(state_dict(0))
SEVEN_CLASSES = state_dict(1, TransformerSpec(SPEC.blocks, FeedForwardSpec((4, 6, 7)), SPEC.embedding))
THREE_BLOCKS = state_dict(1, TransformerSpec((BLOCK,) * 3, SPEC.classifier, SPEC.embedding))
ONE_BLOCK = state_dict(1, TransformerSpec((BLOCK,), SPEC.classifier, SPEC.embedding))


def write(path, content=SOUND):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    return path


def zip_of(path, names, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for index, name in enumerate(names):
            archive.writestr(name, saved(state_dict(index)))
    return path


def read(paths) -> tuple[list[str], TransformerWeights]:
    """Names and weights of networks that are all of one size."""
    names, (group,) = read_loose_checkpoints(paths, SPEC)
    assert group.positions == list(range(len(names)))
    return names, group.weights


def message(*paths) -> str:
    with pytest.raises(ZooError) as error:
        read_loose_checkpoints(paths, SPEC)
    return str(error.value)


def legacy(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.pt", "model.pth", "model", "a.ckpt", "a.zip", "a.tar.gz", ".hidden"])
@pytest.mark.parametrize("content", [SOUND, legacy(state_dict(0))], ids=["zip", "legacy"])
def test_a_checkpoint_may_have_any_name(tmp_path, name, content):
    names, weights = read([write(tmp_path / name, content)])
    assert names == [str(tmp_path / name)]
    weights.check(SPEC)
    states = state_dict_from_weights(weights)
    assert all(torch.equal(states[key][0], value) for key, value in state_dict(0).items())


@pytest.mark.parametrize("name", ["zoo.zip", "zoo", "zoo.pt"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_checkpoints_may_have_any_name(tmp_path, name, compression):
    path = zip_of(tmp_path / name, ["b/1.pt", "a.pt", "embedding.pt", "notes.txt", "__MACOSX/a.pt"], compression)
    names, weights = read([path])
    assert names == [f"{path}/a.pt", f"{path}/b/1.pt"]
    bias = state_dict_from_weights(weights)["classifier.fc1.bias"]
    assert torch.equal(bias, torch.stack([state_dict(seed)["classifier.fc1.bias"] for seed in (1, 0)]))


def test_folders_are_searched_and_paths_keep_their_order(tmp_path):
    folder = tmp_path / "folder"
    ignored = ("embedding.pt", "._c.pt", "notes.txt")
    for name in ("deep/er/b.pt", "c.pt", *ignored):
        write(folder / name, b"" if name in ignored else SOUND)
    last = write(tmp_path / "a.pt", {**state_dict(3), QUERIES_BIAS: torch.zeros(4)})
    archive = zip_of(tmp_path / "z.zip", ["z.pt"])
    names, weights = read([archive, folder, last])
    assert names == [f"{archive}/z.pt", f"{folder}/c.pt", f"{folder}/deep/er/b.pt", str(last)]
    assert torch.equal(state_dict_from_weights(weights)["classifier.fc1.bias"][3], state_dict(3)["classifier.fc1.bias"])


def test_paths_that_hold_no_checkpoints_are_errors(tmp_path):
    expected = "no such file or folder; expected a checkpoint, a folder or a zip of checkpoints"
    assert message(tmp_path / "nowhere") == f"{tmp_path}/nowhere: {expected}"
    assert message(tmp_path / ("a" * 300)).endswith(expected)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty/embedding.pt")
    assert (
        message(tmp_path / "empty")
        == f"{tmp_path}/empty: no checkpoints; looked for .pt, .pth, .ckpt, .bin or .safetensors files in it"
    )
    archive = zip_of(tmp_path / "z.zip", ["model.onnx"])
    assert (
        message(archive) == f"{archive}: no checkpoints; looked for .pt, .pth, .ckpt, .bin or .safetensors files in it"
    )
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: neither a folder nor a file" in message(tmp_path / "pipe")


PROBLEMS = {
    "empty": (b"", "the file is empty"),
    "text": (b"text", "not a checkpoint that torch.load reads"),
    "truncated": (SOUND[: len(SOUND) // 2], "truncated or damaged: the end of its archive is not there"),
    "command": ({"encoder": RunsCommand("false")}, "refused, as loading it would call"),
    "nan": ({**state_dict(0), "classifier.fc1.bias": torch.full((6,), torch.nan)}, "'classifier.fc1.bias' holds NaN"),
    "missing key": ({**ONE_BLOCK, "encoder.1.fc1.bias": torch.zeros(5)}, "queries.weight' is missing, and 6 more"),
    "missing block": (ONE_BLOCK, "missing key 'encoder.1.attention.queries.weight'"),
    "shape": (SEVEN_CLASSES, "'classifier.fc2.weight' has shape (7, 6), expected (3, 6)"),
    "more blocks": (THREE_BLOCKS, "'encoder.2.attention.queries.weight' is not expected: these networks have 2 blocks"),
}


@pytest.mark.parametrize("case", PROBLEMS)
@pytest.mark.parametrize("source", ["file", "folder", "zip"])
def test_every_problem_names_its_checkpoint(tmp_path, case, source):
    content, detail = PROBLEMS[case]
    bad = write(tmp_path / "in/bad.pt", content)
    write(tmp_path / "in/good.pt")
    paths, shown = [bad, tmp_path / "in/good.pt"], str(bad)
    if source == "folder":
        paths = [tmp_path / "in"]
    elif source == "zip":
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            for file in (tmp_path / "in").iterdir():
                archive.write(file, file.name)
        paths, shown = [tmp_path / "z.zip"], f"{tmp_path}/z.zip/bad.pt"
    first, *listed = message(*paths).splitlines()
    assert first == "1 checkpoint cannot be used:"
    (line,) = listed
    assert line.startswith(f"  {shown}: ")
    assert detail in line


def test_members_of_a_zip_that_cannot_be_read_are_named(tmp_path):
    path = zip_of(tmp_path / "z.zip", ["a.pt", "C:b.pt"])
    assert f"{path}/C:b.pt: unsafe name 'C:b.pt' in the zip" in message(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x03"))
    assert "z.zip: truncated or damaged" in message(path)


@pytest.mark.parametrize(
    ("count", "last"), [(MAX_LISTED, f"  {MAX_LISTED - 1:02d}.pt"), (MAX_LISTED + 3, "and 3 more")]
)
def test_only_so_many_problems_are_listed(tmp_path, count, last):
    for index in range(count):
        write(tmp_path / f"{index:02d}.pt", b"")
    first, *listed = message(tmp_path).splitlines()
    assert first == f"{count} checkpoints cannot be used:"
    assert len(listed) == min(count, MAX_LISTED + 1)
    assert last.strip() in listed[-1]


def test_odd_names_are_escaped_in_messages(tmp_path):
    folder = tmp_path / "\x1b[31mred\nline"
    write(folder / os.fsdecode(b"bad\xff.pt"), b"")
    text = message(folder)
    assert text.endswith(r"/\x1b[31mred\nline/bad\udcff.pt: the file is empty")
    assert text.count("\n") == 1
    (folder / "bad\udcff.pt").unlink()
    assert r"\x1b[31mred\nline: no checkpoints" in message(folder)


def test_networks_of_other_sizes_come_size_by_size_where_they_can_be_read(tmp_path):
    contents = {"a": SOUND, "b": THREE_BLOCKS, "c": SEVEN_CLASSES, "d": state_dict(5), "e": state_dict(6)}
    paths = [write(tmp_path / f"{name}.pt", content) for name, content in contents.items()]
    names, groups = read_loose_checkpoints(paths, SPEC, supports=lambda spec: True)
    assert names == [str(path) for path in paths]
    assert [each.positions for each in groups] == [[0, 3, 4], [1], [2]]
    for each in groups:
        for position, state in zip(each.positions, range(len(each.positions)), strict=True):
            content = contents["abcde"[position]]
            expected = state_dict(0) if isinstance(content, bytes) else content
            assert torch.equal(
                state_dict_from_weights(each.weights)["encoder.1.fc1.weight"][state], expected["encoder.1.fc1.weight"]
            )
    with pytest.raises(
        ZooError, match=r"b\.pt: 'encoder\.2\.attention.* is not expected: these networks have 2 blocks"
    ):
        read_loose_checkpoints(paths, SPEC, supports=lambda spec: len(spec.blocks) == 2)


def test_heads_are_those_that_are_named(tmp_path):
    spec = TransformerSpec((BlockSpec(2, 4, 2, 4, 5),) * 2, SPEC.classifier, SPEC.embedding)
    path = write(tmp_path / "a.pt", state_dict(0, spec))
    _, (group,) = read_loose_checkpoints([path], spec, supports=lambda spec: True, n_heads=1)
    assert [block.spec for block in group.weights.blocks] == [BlockSpec(1, 4, 4, 8, 5)] * 2
    _, (group,) = read_loose_checkpoints([path], spec, n_heads=2)
    assert group.weights.spec == spec
    with pytest.raises(ZooError, match="with 1 heads, expected 2"):
        read_loose_checkpoints([path], spec, n_heads=1)
    with pytest.raises(ZooError, match="which 3 heads do not divide"):
        read_loose_checkpoints([path], spec, supports=lambda spec: True, n_heads=3)
