"""A folder of anyone's checkpoints and a CSV of files and scores are a zoo."""

import csv

import pytest
import torch
from safetensors.torch import save_file
from small_zoo import DEEP, SPEC, WIDE, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.user_zoo import read_few


def mlp(seed, width=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (width, 2), "0.bias": (width,), "2.weight": (1, width), "2.bias": (1,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture
def user(tmp_path):
    """Writes networks by path, and a table; reads both as a zoo."""

    class User:
        folder, table = tmp_path / "nets", tmp_path / "scores.csv"

        def save(self, path, content):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, self.folder / path)

        def read(self, *lines, **settings):
            with open(self.table, "w", newline="") as file:
                csv.writer(file).writerows(lines)
            return read_zoo(self.folder, "nets", table=self.table, progress=False, **settings)

    return User()


def test_subfolders_mixed_sizes_and_columns_that_are_guessed(user):
    for seed in range(4):
        user.save(f"{'ab'[seed % 2]}/net{seed}.pt", mlp(seed, 3 + seed % 2))
    rows = [[seed, f"/home/me/nets/{'ab'[seed % 2]}/net{seed}.pt", seed / 10] for seed in range(4)]
    with pytest.raises(ZooError, match="--n_heads 2: cannot be combined with networks without attention"):
        user.read(["width", "where it lies", "Accuracy"], *rows, n_heads=2)
    with pytest.raises(ZooError, match="--omega 0: expected a nonzero number"):
        user.read(["width", "where it lies", "Accuracy"], *rows, facts={"activation": "sine", "omega": "0"})
    zoo = user.read(["width", "where it lies", "Accuracy"], *rows)
    assert len(zoo) == 4
    assert sorted(spec.sizes for spec in zoo.specs) == [(2, 3, 1), (2, 4, 1)]
    assert dict(zip(zoo.names, zoo.labels.tolist(), strict=True))["net3.pt"] == pytest.approx(0.3)
    assert zoo.report.notes[0].startswith(
        "columns of scores.csv: files by 'where it lies', labels by 'Accuracy' (guessed; --file_column, --label_column"
    )


def test_transformers_of_several_sizes_with_their_heads(user):
    for seed, spec in enumerate((SPEC, WIDE, DEEP)):
        user.save(f"{seed}.pt", state_dict(seed, spec))
    zoo = user.read(["name", "loss"], *([str(seed), 5.5 * seed] for seed in range(3)), labels="number", n_heads=2)
    assert set(zoo.specs) == {SPEC, WIDE, DEEP}
    assert sorted(zoo.labels.tolist()) == [0, 5.5, 11]
    for part, _ in zip(zoo.parts, range(3), strict=True):
        state = state_dict(int(part.names[0][0]), part.spec)
        assert torch.equal(part.weights(torch.tensor([0])).blocks[0].W_A[0, 0], state["encoder.0.fc1.weight"].T)
    strange = state_dict(3) | {"encoder.0.attention.queries.bias": torch.zeros(4)}
    user.save("3.pt", strange)
    with pytest.raises(ZooError, match="tensors that no predictor reads: "):
        user.read(["name", "loss"], *([str(seed), seed] for seed in range(4)), labels="number")


def test_a_hubs_cache_with_links_of_two_revisions(user):
    for seed, name in enumerate(("one", "two")):
        user.save(f"models--me--{name}/blobs/{seed}", mlp(seed))
        user.save(f"models--me--{name}/blobs/old{seed}", mlp(seed + 10))
        for revision, blob in (("aaa", f"old{seed}"), ("bbb", str(seed))):
            snapshot = user.folder / f"models--me--{name}/snapshots/{revision}"
            snapshot.mkdir(parents=True)
            (snapshot / "model.pt").symlink_to(f"../../blobs/{blob}")
        refs = user.folder / f"models--me--{name}/refs"
        refs.mkdir()
        (refs / "main").write_text("bbb")
    zoo = user.read(["model", "acc"], ["me/one", 0.5], ["me/two", 0.7])
    assert zoo.labels.tolist() == pytest.approx([0.5, 0.7])
    assert torch.equal(zoo.rows[1], torch.cat([tensor.flatten() for tensor in mlp(1).values()]))


def test_a_folder_stands_for_the_network_that_a_library_has_saved_in_it(user):
    for seed, name in enumerate(("one", "two")):
        user.save(f"runs/{name}/optimizer.pt", {"state": {}})
        save_file(mlp(seed), user.folder / f"runs/{name}/model.safetensors")
    zoo = user.read(["folder", "eval_accuracy"], ["/data/runs/one", 0.5], ["runs/two/", 0.7])
    assert zoo.labels.tolist() == pytest.approx([0.5, 0.7])
    assert zoo.names == ["runs/one/model.safetensors", "runs/two/model.safetensors"]  # as predictions name them
    assert len(set(zoo.runs)) == 2


def test_checkpoints_of_one_training_are_one_run(user):
    for seed in range(4):
        user.save(f"run{seed // 2}_epoch{seed}.pt", mlp(seed))
    rows = [[f"run{seed // 2}_epoch{seed}.pt", seed, seed / 10, "xy"[seed % 2]] for seed in range(4)]
    zoo = user.read(["file", "epoch", "acc", "group"], *rows)
    assert sorted(map(tuple, zip(zoo.runs, zoo.epochs, strict=True)))[0] == ("run0_", "0")
    assert len(set(zoo.runs)) == 2
    assert "4 files are of 2 runs, 2 of them with several epochs" in zoo.report.notes[1]
    last = user.read(["file", "epoch", "acc", "group"], *rows, columns=Columns(epoch="epoch"))
    assert last.epochs == ["1", "3"]
    grouped = user.read(["file", "epoch", "acc", "group"], *rows, columns=Columns(run="group"))
    assert sorted(set(grouped.runs)) == ["x", "y"]


def test_the_end_of_several_paths_is_an_error(user):
    for folder in "ab":
        user.save(f"{folder}/net.pt", mlp(0))
    with pytest.raises(ZooError, match=r"'net\.pt' may be 'a/net\.pt' or 'b/net\.pt': expected longer"):
        user.read(["path", "accuracy"], ["net.pt", 0.5])
    assert len(user.read(["path", "accuracy"], ["a/net.pt", 0.5], ["b/net.pt", 0.5])) == 2


@pytest.mark.parametrize(
    ("header", "row", "problem"),
    [
        (["acc", "epochs"], [0.5, 3], "no column names the 1 checkpoints, the first of which is 'net.pt'; there are"),
        (["path", "accuracy", "top1"], ["net.pt", 0.5, 0.6], "labels may be 'accuracy' and 'top1': --label_column"),
        (
            ["path", "depth", "quality"],
            ["net.pt", 0.5, 0.6],
            "no column has a plain name of an accuracy: --label_column ",
        ),
        (["path", "steps", "Loss"], ["net.pt", 5, 0.6], "--label_column names one; --task regress learns 'Loss'"),
        (["path", "accuracy"], ["net.pt", -1], "label -1, expected a number in"),
    ],
)
def test_what_cannot_be_guessed_or_read_is_an_error(user, header, row, problem):
    user.save("net.pt", mlp(0))
    with pytest.raises(ZooError, match=problem):
        user.read(header, row)


def test_columns_of_sizes_hyperparameters_and_facts_are_no_labels(user):
    user.save("net.pt", mlp(0))
    zoo = user.read(["path", "Güte", "n_layers", "lr", "omega"], ["net.pt", 0.5, 2, 0.1, ""])
    assert zoo.labels.tolist() == [0.5]


def test_a_few_known_networks_are_named_where_they_are_not_there(tmp_path):
    table = tmp_path / "few.csv"
    table.write_text(f"path,accuracy\na.pt,1\n{'x' * 300}.pt,0.5\n")  # longer than a file's name may be
    with pytest.raises(ZooError, match=r"few\.csv: 'xxx.*no such network"):
        read_few(table, ["a.pt"], Columns(file="path"), "accuracy", None)
