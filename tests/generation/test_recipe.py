"""Recipes: draws that depend on seed and run alone, grids that are complete, and files with mistakes."""

import itertools

import pytest

from nfn_transformer.errors import UserError
from nfn_transformer.generation.recipe import LEARNING_RATES, Recipe, read_recipe

DEFAULTS = {
    "runs": 30, "hidden": 32, "epochs": (4,), "embed_dim": (16,), "n_attention_heads": (2,), "n_layers": (2,),
}  # fmt: skip


def test_runs_depend_on_seed_and_number_alone():
    few, many = Recipe(**{**DEFAULTS, "runs": 5}).draw(1), Recipe(**DEFAULTS).draw(1)
    assert many[:5] == few
    assert Recipe(**DEFAULTS).draw(2)[:5] != few
    assert all(run.settings.lr in LEARNING_RATES[run.settings.optimizer] for run in many)


def test_sizes_may_vary_without_changing_what_was_drawn_before():
    varied = Recipe(**{**DEFAULTS, "embed_dim": (8, 12), "n_layers": (1, 2), "n_attention_heads": (3, 4)}).draw(1)
    assert [run.settings for run in varied] == [run.settings for run in Recipe(**DEFAULTS).draw(1)]
    sizes = {(run.architecture.embed_dim, run.architecture.n_attention_heads) for run in varied}
    assert sizes == {(8, 4), (12, 3), (12, 4)}  # 3 heads do not divide 8


def test_a_grid_has_every_combination(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "draw: grid\nruns: 2\nlr: {sgd: [0.1, 1e-1, 0.2], adam: [1e-3]}\nw_init_std: [0.1, 0.2]\nl2_regularize: 0\n"
        "train_fraction: 1\ndropout: [0]\nmlp_factor: [1, 2]\nembed_dim: [8, 16]\n"
    )
    runs = read_recipe(path, DEFAULTS).draw(1)
    assert [run.number for run in runs] == list(range(2 * 4 * 2 * 2 * 2))
    found = {
        (r.settings.optimizer, r.settings.w_init_std, r.architecture.embed_dim, r.architecture.hidden) for r in runs
    }
    assert found == {
        (optimizer, std, D, factor * D)
        for optimizer, std, D, factor in itertools.product(("sgd", "adam"), (0.1, 0.2), (8, 16), (1, 2))
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: {adagrad: [0.1]}", "lr has 'adagrad', expected optimizers of sgd, sgd_momentum, adam, rmsprop"),
        ("lr: {sgd: [0]}", "lr of sgd has 0, expected a number above 0"),
        ("dropout: [0.5, 1.0]", "dropout has 1.0, expected a number of at least 0 and at most 0.95"),
        ("train_fraction: [1.5]", "train_fraction has 1.5, expected a number above 0 and at most 1"),
        ("w_init_std: [0]", "w_init_std has 0, expected a number above 0"),
        (f"epochs: [1{'0' * 400}]", "expected a whole number from 1 to 1,000,000"),
        ("epochs: [2.5]", "epochs has 2.5, expected a whole number from 1 to 1,000,000"),
        ("w_init_std: [.nan]", "w_init_std has .nan"),
        ("epochs: []", "epochs has no values"),
        ("epoch: [3]", "unknown key 'epoch', expected draw, dropout"),
        ("draw: all", "draw is 'all', expected random or grid"),
        ("[1, 2]", "expected keys with lists of values"),
        ("a: [", "cannot be read"),
        ("embed_dim: [15]", "none divides embed_dim 15"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_recipe(path, DEFAULTS)
    assert message in str(error.value)
