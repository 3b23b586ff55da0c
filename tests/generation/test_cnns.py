"""CNNs: trained alone as in company, and the zoo that the command writes in the Small CNN Zoo's layout."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from array_zoos import read_arrays, read_as_printed

from nfn_transformer import make_zoo
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED, run_command
from nfn_transformer.generation.cnn_population import CnnPlan, CnnPopulation, train_cnns
from nfn_transformer.generation.cnn_recipe import SMALL_CNN_ZOO, CnnSettings, draw_settings
from nfn_transformer.generation.cnn_zoo import CnnZooPlan
from nfn_transformer.generation.dropout import PopulationDropout
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.samples import LabelledSamples

PLAN = CnnPlan(maps=(1, 4, 4), classes=10, batch_size=8, seed=0, snapshots=(1, 2), half=False)
RELU = CnnSettings("relu", "he_normal", 0.1, 1e-3, 0.3, 1.0, "adam", 0.01)
TINY = [
    *("--family", "cnn", "--n_layers", "2", "--hidden", "4", "--epochs", "2", "--batch_size", "8", "--jobs", "1"),
    *("--train_images", "80", "--test_images", "100", "--population", "3", "--runs", "10"),
]


def _train(settings: list[CnnSettings], numbers: list[int], train: LabelledSamples):
    train = LabelledSamples(train.inputs.double(), train.labels)
    return train_cnns(CnnPopulation(PLAN, numbers, settings, train, train))


def test_a_network_in_company_is_the_network_alone():
    settings = [replace(RELU, train_fraction=0.5), RELU, replace(RELU, optimizer="sgd", w_init="orthogonal")]
    train = digits().train.first(40)
    together = _train(settings, [0, 1, 2], train)
    for index in range(3):
        alone = _train([settings[index]], [index], train)
        assert torch.allclose(alone.rows[0], together.rows[index], rtol=0, atol=1e-6)  # stored in single precision
        assert alone.correct[0].tolist() == together.correct[index].tolist()
    assert (together.rows[:, 0] - together.rows[:, 1]).abs().amax(1).min() > 1e-4


def test_dropout_keeps_the_mean_and_drops_its_share():
    dropout = PopulationDropout([0.0, 0.25, 0.7], 0, [4, 5, 6], torch.device("cpu"))
    kept = dropout.kept(50, 400)  # [50, 3, 400]
    assert kept.mean((0, 2)).tolist() == pytest.approx([1, 0.75, 0.3], abs=0.01)
    assert (kept * dropout.scale[:, None]).mean((0, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.03)
    again = PopulationDropout([0.7], 0, [6], torch.device("cpu")).kept(50, 400)
    assert torch.equal(again[:, 0], kept[:, 2])
    assert not torch.equal(dropout.kept(50, 400), kept)


def test_ranges_are_those_of_the_small_cnn_zoo():
    drawn = [draw_settings(SMALL_CNN_ZOO, 3, number) for number in range(400)]
    assert {one.activation for one in drawn} == {"relu", "tanh"}
    assert {one.optimizer for one in drawn} == {"adam", "sgd", "rmsprop"}
    for name, low, high in (("learning_rate", 5e-4, 5e-2), ("l2reg", 1e-8, 1e-2), ("init_std", 1e-3, 0.5)):
        values = sorted(getattr(one, name) for one in drawn)
        assert low <= values[0]
        assert values[-1] <= high
        assert values[200] == pytest.approx((low * high) ** 0.5, rel=0.6)  # even in the logarithm
    assert sorted(one.dropout for one in drawn)[200] == pytest.approx(0.35, abs=0.06)


@pytest.mark.parametrize("half", [False, True])
def test_written_accuracies_are_those_of_the_written_networks(tmp_path, half, capsys):
    """The zoo is read and run by this test's own formula, in TensorFlow's order of axes."""
    flags = [*TINY, "--snapshots", "50,100", "--half", str(half), "--dataset", "shapes"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *flags]) == 0
    variables, table = read_arrays(tmp_path / "zoo/shapes")
    assert [(row["run"], row["step"]) for row in table] == [(str(run), step) for run in range(10) for step in "12"]
    tensors = {name: torch.from_numpy(array).float() for name, array in variables.items()}
    test = digits().test.first(100)
    for index, row in enumerate(table):
        h = test.inputs
        for layer in ("conv2d", "conv2d_1"):
            kernel = tensors[f"{layer}/kernel:0"][index].permute(3, 2, 0, 1)
            h = F.conv2d(h, kernel, tensors[f"{layer}/bias:0"][index], stride=2)
            h = h.relu() if row["config.activation"] == "relu" else h.tanh()
        logits = h.mean((2, 3)) @ tensors["dense/kernel:0"][index] + tensors["dense/bias:0"][index]
        assert (logits.argmax(1) == test.labels).sum().item() == pytest.approx(float(row["test_accuracy"]) * 100)
        assert row["test_images"] == "100"
    assert variables["dense/kernel:0"].dtype == ("float16" if half else "float32")
    assert len({row["config.learning_rate"] for row in table}) == 10
    assert len(read_as_printed(capsys.readouterr().out)) == 10


def test_the_depth_follows_from_the_images(tmp_path, capsys):
    flags = ["--family", "cnn", "--runs", "2", "--epochs", "1", "--dry_run", "True", "--out", str(tmp_path / "zoo")]
    assert make_zoo.main(flags) == 0
    assert " 1 -> 16 -> 16 -> 10 (2 convolutions, as 8 x 8 pixels have no room for more), " in capsys.readouterr().out


def test_an_interrupted_command_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.zip", tmp_path / "broken.zip"
    assert make_zoo.main(["--out", str(whole), *TINY]) == 0
    with monkeypatch.context() as patch:
        train, calls = CnnZooPlan.train, []

        def interrupted(*given):
            calls.append(0)
            if len(calls) > 2:
                raise KeyboardInterrupt
            return train(*given)

        patch.setattr(CnnZooPlan, "train", interrupted)
        assert make_zoo.main(["--out", str(broken), *TINY]) == EXIT_INTERRUPTED
    assert make_zoo.main(["--out", str(broken), *TINY]) == 0
    assert broken.read_bytes() == whole.read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"broken.zip", "broken_accuracies.png", "whole.zip", "whole_accuracies.png"}


def test_a_diverged_network_is_left_out_and_spoils_no_other(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("optimizer: sgd\nw_init: he_normal\nlearning_rate: [0.01, 1e30]\nactivation: relu\n")
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *TINY, "--recipe", str(recipe)]) == 0
    _, table = read_arrays(tmp_path / "zoo/digits")
    assert {row["config.learning_rate"] for row in table} == {"0.01"}
    assert 0 < len(table) < 10
    assert f"; {10 - len(table)} more have diverged and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n_layers", "3"], "--n_layers 3: too many convolutions for 8 x 8 pixels, expected at most 2"),
        (["--snapshots", "best"], "--snapshots best: expected whole numbers with --family cnn"),
        (["--batch_size", "9"], "--batch_size 9: a network has only 8 train images"),
        (["--copies", "1"], "--copies requires --family siren"),
        (["--recipe", "digit_sirens.yaml"], "digit_sirens.yaml: unknown key 'hidden', expected activation, "),
    ],
)
def test_bad_flags_are_named(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), *TINY, *flags])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dropout: {even: [0, 2]}", "expected numbers from 0, at most 0.95, or {log: [low, high]} or {even: "),
        ("learning_rate: 0", "learning_rate has '0', expected numbers above 0"),
        ("init_std: {log: [0.1]}", "init_std has {'log': ['0.1']}, expected numbers above 0"),
        ("init_std: {log: [0.1, 1], even: [0.1, 1]}", "init_std has {'log': "),
        ("optimizer: lion", "optimizer has 'lion', expected some of sgd, sgd_momentum, adam, rmsprop"),
    ],
)
def test_bad_recipes_are_named(tmp_path, capsys, line, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line + "\n")
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), *TINY, "--recipe", str(recipe)])
    assert message in capsys.readouterr().err
