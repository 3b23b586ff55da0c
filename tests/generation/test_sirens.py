"""SIRENs: fits that draw their images, alone as in company, and the zoo that the command writes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from array_zoos import read_arrays, read_as_printed

import nfn_transformer as nfn
from nfn_transformer import make_zoo
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED, run_command
from nfn_transformer.generation.siren_fits import SirenPlan, draw, fit_sirens
from nfn_transformer.generation.siren_zoo import SirenZooPlan, digit_pictures
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.feed_forward_pass import network_outputs, pixel_grid

PLAN = SirenPlan((2, 8, 8, 1), steps=400, decibels=30.0)
TINY = ["--family", "siren", "--runs", "5", "--hidden", "6", "--steps", "20", "--population", "4", "--jobs", "1"]


def _pictures(dtype: torch.dtype) -> torch.Tensor:
    return digit_pictures().pixels[:3, :, ::2, ::2].flatten(2).to(dtype)  # [3, 1, 16]


def _fit(plan: SirenPlan, chosen: list[int], dtype: torch.dtype):
    generators = [make_generator(0, index) for index in chosen]
    return fit_sirens(plan, _pictures(dtype)[chosen], pixel_grid(4, 4, dtype), generators)


def test_fits_end_once_their_pictures_are_good_enough():
    fits = _fit(PLAN, [0, 1, 2], torch.float32)
    error = (draw(fits.rows, PLAN, pixel_grid(4, 4)) - _pictures(torch.float32)).square().mean((1, 2))
    assert torch.allclose(-10 * error.log10(), fits.decibels, atol=1e-3)
    assert fits.decibels.min() >= 30
    assert fits.steps.max() < 400
    assert len(set(fits.steps.tolist())) > 1
    before = _fit(SirenPlan(PLAN.sizes, int(fits.steps[0]) - 1), [0], torch.float32)
    assert before.decibels[0] < 30  # it ended at the first such step


def test_the_gradient_is_that_of_autograd_and_the_step_that_of_adam():
    plan, targets = SirenPlan(PLAN.sizes, steps=3), _pictures(torch.float64)[:1]
    row = plan.initial(make_generator(0, 0)).double()[None].requires_grad_()
    adam = torch.optim.Adam([row], lr=plan.lr)
    for _ in range(3):
        x = pixel_grid(4, 4, torch.float64)
        for layer, (weight, bias) in enumerate(zip(plan.tensors(row)[::2], plan.tensors(row)[1::2], strict=True)):
            x = weight @ x + bias
            x = (30 * x).sin() if layer < 2 else x + 0.5
        adam.zero_grad()
        (x - targets).square().mean().backward()
        adam.step()
    assert torch.allclose(_fit(plan, [0], torch.float64).rows, row, rtol=0, atol=1e-12)


def test_a_fit_in_company_is_the_fit_alone():
    together = _fit(PLAN, [0, 1, 2], torch.float64)
    for index in range(3):
        alone = _fit(PLAN, [index], torch.float64)
        assert alone.steps[0] == together.steps[index]
        assert torch.allclose(alone.rows[0], together.rows[index], rtol=0, atol=1e-9)


@pytest.mark.parametrize("half", [False, True])
def test_the_written_networks_draw_the_digits(tmp_path, half, capsys):
    """The zoo is read and drawn by this test's own formula."""
    flags = ["--half", str(half)]
    flags += ["--family", "siren", "--runs", "4", "--hidden", "16", "--copies", "1", "--decibels", "25", "--jobs", "1"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), "--dataset", "shapes", *flags]) == 0
    variables, table = read_arrays(tmp_path / "zoo/shapes")
    assert [(row["run"], row["copy"], row["label"]) for row in table] == [(r, c, r) for r in "0123" for c in "01"]
    variables = {name: array.astype(np.float64) for name, array in variables.items()}
    line = np.linspace(-1, 1, 8)
    h = np.broadcast_to(np.stack(np.meshgrid(line, line), -1), (8, 8, 8, 2))  # [networks, row, column, (x, y)]
    for layer in ("dense", "dense_1", "dense_2"):
        h = np.einsum("nrci,nio->nrco", h, variables[f"{layer}/kernel:0"]) + variables[f"{layer}/bias:0"][:, None, None]
        h = np.sin(float(table[0]["config.omega"]) * h) if layer != "dense_2" else h + float(table[0]["config.offset"])
    wanted = digit_pictures().pixels[[0, 0, 1, 1, 2, 2, 3, 3], 0].numpy()
    decibels = -10 * np.log10(((h[..., 0] - wanted) ** 2).mean((1, 2)))
    assert np.allclose(decibels, [float(row["psnr"]) for row in table], atol=0.02)
    assert decibels.min() >= (24.5 if half else 25)
    assert len(read_as_printed(capsys.readouterr().out)) == 8


def test_an_interrupted_command_goes_on_to_the_same_bytes(tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole.zip", tmp_path / "broken.zip"
    assert make_zoo.main(["--out", str(whole), *TINY]) == 0
    with monkeypatch.context() as patch:
        train, calls = SirenZooPlan.train, []

        def interrupted(*given):
            calls.append(0)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return train(*given)

        patch.setattr(SirenZooPlan, "train", interrupted)
        assert make_zoo.main(["--out", str(broken), *TINY]) == EXIT_INTERRUPTED
    assert not broken.exists()
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(broken), *TINY, "--seed", "2"])
    assert "another configuration (seed was 1, is now 2)" in capsys.readouterr().err
    assert make_zoo.main(["--out", str(broken), *TINY]) == 0
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.zip", "whole.zip"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "3"], "--epochs requires --family transformer or cnn"),
        (["--train_images", "3"], "--train_images requires --images"),
        (["--runs", "1798"], "--runs 1798: expected at most 1797 images"),
        (["--recipe", "mnist_600.yaml"], "--recipe mnist_600.yaml: unknown key 'draw', expected copies, decibels, "),
    ],
)
def test_bad_flags_are_named(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), "--family", "siren", *flags])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_bundled_sirens_draw_all_digits_and_are_those_of_their_recipe():
    """They are read and drawn as any other zoo."""
    bundled_sirens = Path(__file__).parents[2] / "data/digit_sirens.zip"
    assert bundled_sirens.stat().st_size <= 5_000_000
    zoo = nfn.read_zoo(bundled_sirens, "digits", labels="class", load_cache=False, progress=False)
    pictures = digit_pictures()
    assert [zoo.classes[int(label)] for label in zoo.labels] == list(map(str, pictures.labels.tolist()))
    drawn = network_outputs(pixel_grid(8, 8).T, zoo.weights(torch.arange(1797)))[..., 0]  # [1797, 64]
    error = (drawn - pictures.pixels.flatten(1)).square().mean(1)
    assert (-10 * error.log10()).min() >= 39.99
    first = fit_sirens(
        SirenPlan(zoo.spec.sizes),
        pictures.pixels[:1].flatten(2),
        pixel_grid(8, 8),
        [make_generator(1, "image", 0, "copy", 0)],
    )
    assert torch.allclose(
        SirenPlan(zoo.spec.sizes).tensors(first.rows)[0], zoo.weights(torch.arange(1)).weights[0], atol=1e-3
    )
