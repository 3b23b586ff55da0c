"""Editing INRs: known edits of pictures, a training end to end, and the changed INRs as checkpoints."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import nfn_transformer as nfn
from nfn_transformer import predict
from nfn_transformer.errors import RunError, SpecError, UserError
from nfn_transformer.families.feed_forward import network_shapes, network_weights
from nfn_transformer.grids.recorded_runs import read_run
from nfn_transformer.models import registry
from nfn_transformer.models.editor import EditPredictor
from nfn_transformer.training.edit_task import EditTask
from nfn_transformer.training.fitted_predictor import FittedPredictor
from nfn_transformer.training.task import task_from_json
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.feed_forward_pass import draw_pictures, pixel_grid
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.reading import Zoo, ZooOrigin

SPEC = NetworkSpec((2, 6, 1), (None, None), "sine", omega=3.0, offset=0.5)
DOT = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


class LastBias(nn.Module):
    """Adds one learned number to the last bias of each INR: a darker or a lighter picture."""

    needs_normalization = False

    def __init__(self, spec: NetworkSpec, config: registry.BranchConfig):
        super().__init__()
        self.change = nn.Parameter(torch.zeros(1))

    def forward(self, weights: NetworkWeights) -> NetworkWeights:
        return replace(weights, biases=(*weights.biases[:-1], weights.biases[-1] + self.change))


@pytest.fixture
def last_bias(monkeypatch):
    entries = dict(registry.entries(registry.ENCODER))
    entry = registry.BranchEntry(
        role=registry.ENCODER,
        name="last_bias",
        help="a test",
        builds={"feed_forward": f"{__name__}:LastBias"},
        edits={"feed_forward": f"{__name__}:LastBias"},
        defaults={"cls_mode": "no", "emb_mode": "no"},
    )
    monkeypatch.setitem(registry._entries, registry.ENCODER.name, {**entries, "last_bias": entry})


@pytest.fixture(scope="module")
def sirens() -> Zoo:
    """40 random INRs that draw pictures between 0.3 and 0.7."""
    shapes = network_shapes(SPEC)
    rows = torch.randn(40, sum(math.prod(shape) for shape in shapes.values()), generator=torch.manual_seed(1)) / 10
    names = [f"inr{index:02d}" for index in range(40)]
    origin = ZooOrigin("nowhere", "sirens", labels="none")
    return Zoo(SPEC, shapes, rows, torch.zeros(40), names, names, FaultReport(40), torch.zeros(40, 1), origin=origin)


@pytest.mark.parametrize(
    ("edit", "bright"), [("dilate", 9), ("erode", 0), ("gradient", 9), ("contrast", 1)], ids=lambda value: str(value)
)
def test_edits_of_a_dot(edit, bright, monkeypatch):
    pictures = torch.stack([DOT, 1 - DOT])[:, None]
    monkeypatch.setattr("nfn_transformer.training.edit_task.draw_pictures", lambda weights, side: pictures)
    zoo = replace(no_networks(), names=["dot", "hole"])
    wanted, unedited = EditTask(edit=edit, side=4).labels_of(zoo).unbind(1)
    assert torch.equal(unedited, pictures.flatten(1))
    assert (wanted[0] == 1).sum() == bright
    if edit == "dilate":
        assert torch.equal(wanted[0].view(4, 4)[:3, :3], torch.ones(3, 3))
        assert wanted[1].min() == 1
    halves = EditTask(edit=edit, side=4, black=-1.0)
    pictures = 2 * pictures - 1  # of INRs without an offset
    assert torch.allclose(halves.labels_of(zoo)[:, 0], 2 * wanted - 1)


def no_networks() -> Zoo:
    shapes = network_shapes(SPEC)
    rows = torch.zeros(2, sum(math.prod(shape) for shape in shapes.values()))
    return Zoo(SPEC, shapes, rows, torch.zeros(2), [], [], FaultReport(2), torch.zeros(2, 1))


def test_pictures_are_drawn_on_the_grid(sirens):
    pictures = draw_pictures(sirens.weights(torch.arange(3)), 5)
    assert pictures.shape == (3, 1, 5, 5)
    W, v = (weight[1] for weight in sirens.weights(torch.arange(3)).weights)
    b, c = (bias[1] for bias in sirens.weights(torch.arange(3)).biases)
    x = torch.tensor([1.0, -0.5])  # the last column of the second row
    expected = v @ torch.sin(3 * (W @ x + b)) + c + 0.5
    torch.testing.assert_close(pictures[1, :, 1, 4], expected)
    assert pixel_grid(5, 5)[:, 9].tolist() == [1, -0.5]


def test_a_training_and_the_changed_networks(sirens, last_bias, tmp_path, monkeypatch, capsys):
    settings = {"task": "edit", "edit": "erode", "edit_side": 6, "epochs": 6, "lr": 0.02, "batch_size": 4}
    path = tmp_path / "run"
    fitted = nfn.fit(sirens, "last_bias", progress=False, out_dir=path, seed=1, **settings)
    results = fitted.results
    assert results["task"] == "edit"
    assert results["test"]["left"] < 0.8  # darker pictures are nearer to eroded ones
    unedited = results["test_references"]["mean_squared_error_of_unedited_pictures"]
    assert results["test"]["loss"] == pytest.approx(results["test"]["left"] * unedited)
    assert results["validation"]["loss"] == min(row["validation_loss"] for row in fitted.history)
    assert (path / "edited.png").is_file()
    recorded = read_run(path).result
    assert recorded is not None
    assert (recorded.task, recorded.score) == ("edit", results["test"]["loss"])
    assert fitted.evaluate(sirens).metrics.loss == pytest.approx(results["test"]["loss"], rel=1e-6)
    changed = fitted.edit(sirens)
    torch.testing.assert_close(draw_pictures(changed, 6), fitted.predict(sirens))
    torch.testing.assert_close(fitted.model.predict(sirens.weights(torch.arange(2))), fitted.predict(sirens)[:2])

    monkeypatch.setattr("nfn_transformer.cli.predict_command.load_zoo", lambda data: sirens)
    monkeypatch.setattr("nfn_transformer.cli.predict_command.find_zoo", lambda dataset, path: tmp_path)
    assert predict.main(["--run", str(path), "--split", "test", "--edited", str(tmp_path / "edited")]) == 0
    assert "mean squared error" in capsys.readouterr().out
    files = sorted((tmp_path / "edited").iterdir())
    assert len(files) == results["networks"]["test"]
    state = torch.load(files[0], weights_only=True)
    place = sirens.names.index(files[0].stem)
    drawn = draw_pictures(network_weights({key: tensor[None] for key, tensor in state.items()}, SPEC), 6)
    torch.testing.assert_close(drawn[0], draw_pictures(changed, 6)[place])
    read, reads = FittedPredictor.read_checkpoints, []
    monkeypatch.setattr(FittedPredictor, "read_checkpoints", lambda *given: reads.append(1) or read(*given))
    assert predict.main(["--run", str(path), str(files[0]), "--edited", str(tmp_path / "twice")]) == 0
    assert len(reads) == 1
    with pytest.raises(UserError, match=r"--edited .*/twice: already exists; choose another path or delete it"):
        predict.main(["--run", str(path), str(files[0]), "--edited", str(tmp_path / "twice")])
    with pytest.raises(SpecError, match="expected NetworkSpec"):
        fitted.edit(replace(changed, spec=replace(changed.spec, omega=4.0)))
    (file,) = (tmp_path / "twice").iterdir()
    again = torch.load(file, weights_only=True)
    torch.testing.assert_close(again[list(again)[-1]], state[list(state)[-1]] + fitted.model.editor.change.detach())
    both = {"ema": state, "state_dict": again}
    torch.testing.assert_close(fitted.edit([both], "ema").biases[-1][0], again[list(again)[-1]])
    torch.save(state, tmp_path / f"{files[0].stem}.pth")
    torch.save(state, tmp_path / files[0].name)
    same = [str(tmp_path / f"{files[0].stem}{suffix}") for suffix in (".pt", ".pth")]
    with pytest.raises(UserError, match="expected networks of different names"):
        predict.main(["--run", str(path), *same, "--edited", str(tmp_path / "same")])


def test_members_of_an_ensemble_learn_as_alone(sirens, last_bias):
    settings = {"task": "edit", "edit": "dilate", "edit_side": 4, "epochs": 2, "progress": False}
    several = nfn.fit(sirens, "last_bias", ensemble=2, **settings)
    alone = nfn.fit(sirens, "last_bias", **settings)
    torch.testing.assert_close(several.model.members[1].editor.change, alone.model.editor.change)
    with pytest.raises(RunError, match="no INR draws the mean"):
        several.edit(sirens)


def test_an_edit_as_json():
    task = EditTask(edit="gradient", side=8, colours=3, black=-1.0)
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task
    with pytest.raises(ValueError, match="no such edit"):
        task_from_json({"name": "edit", "edit": "blur"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "edit"}, "--task edit: requires --edit, one of dilate, erode, gradient, contrast"),
        ({"task": "edit", "edit": "blur"}, "--edit blur: expected one of dilate"),
        ({"task": "edit", "edit_side": 8}, "--edit_side 8: requires --edit"),
        (
            {"task": "edit", "edit": "erode", "encoder": "statnn"},
            "--task edit: --enc_mode statnn changes no such networks, ",
        ),
        ({"task": "edit", "edit": "erode", "model": "gbtree"}, "--task edit: not learned by --model gbtree"),
    ],
)
def test_what_cannot_be_combined(sirens, last_bias, settings, message):
    with pytest.raises(UserError, match=message):
        nfn.fit(sirens, **{"encoder": "last_bias", **settings})


def test_an_edit_needs_the_task(small):
    with pytest.raises(UserError, match="--edit erode: requires --task edit, got accuracy"):
        nfn.fit(small, "statnn", edit="erode")


def test_the_outputs_are_the_pixels(sirens, last_bias):
    config = nfn.ModelConfig.from_flags({"enc_mode": "last_bias"})
    model = nfn.build_predictor(SPEC, config, seed=1, outputs=9, kind=EditPredictor)
    assert model(sirens.weights(torch.arange(4))).shape == (4, 9)
    assert isinstance(model.edit(sirens.weights(torch.arange(4))).weights[0], Tensor)
