"""nfn_transformer.bundled: the zoo, grids and recipes of the package are found from every folder."""

from pathlib import Path

import pytest

import nfn_transformer as nfn
from nfn_transformer.bundled import RECIPES, TABLES, find_bundled
from nfn_transformer.errors import ZooError
from nfn_transformer.generation.recipe import read_recipe
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.zoo.sources import find_zoo

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("data_path", [None, "data/digits_transformers.zip", "data/digits_transformers"])
def test_the_bundled_zoo_is_found(data_path, bundled_zoo):
    assert Path(find_zoo("digits", data_path)).samefile(bundled_zoo)


def test_a_zoo_in_the_folder_goes_first(tmp_path):
    (tmp_path / "data/digits_transformer").mkdir(parents=True)
    assert find_zoo("digits") == "data/digits_transformer"


@pytest.mark.parametrize("name", ["smoke.yaml", "scripts/tables/smoke.yaml"])
def test_a_bundled_grid_is_found_by_its_name(name, tmp_path):
    path = find_bundled(Path(name), TABLES)
    assert path.samefile(ROOT / "scripts/tables/smoke.yaml")
    assert read_grid(path).path.parent.joinpath("models.yaml").is_file()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert find_bundled(Path(name), TABLES) == Path(name)


def test_a_bundled_recipe_is_found_by_its_name():
    sizes = dict.fromkeys(("epochs", "embed_dim", "n_attention_heads", "n_layers"), (1,))
    path = find_bundled(Path("mnist_600.yaml"), RECIPES)
    assert read_recipe(path, {"hidden": 1, **sizes}).runs == 600


def test_other_paths_stay(tmp_path):
    for path in (Path("absent.yaml"), Path("absent/smoke.yaml"), tmp_path / "smoke.yaml"):
        assert find_bundled(path, TABLES) == path


def test_read_zoo_finds_the_bundled_zoo():
    for read in (nfn.read_zoo, nfn.read_all_sizes):
        with pytest.raises(ZooError, match="no checkpoints of epoch 'none'; there are '75'"):
            read("data/digits_transformers.zip", "digits", ckpt_epoch="none")
