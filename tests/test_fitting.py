"""Training from Python: the commands' numbers, predictions of whatever is given, files only where they are wanted."""

import json
from pathlib import Path

import pytest
import torch

import nfn_transformer as nfn
from nfn_transformer import main, predict, xgb
from nfn_transformer.training.run import Run


@pytest.fixture(scope="module")
def fitted(small, tmp_path_factory):
    """A predictor, with its run directory."""
    path = tmp_path_factory.mktemp("fitted") / "run"
    return nfn.fit(small, "inv", seed=1, epochs=2, cls_mode="hnps", progress=False, out_dir=path)


def test_the_commands_numbers_and_files(fitted, small_zoo, tmp_path, capsys):
    flags = ["--enc_mode", "inv", "--seed", "1", "--epochs", "2", "--cls_mode", "hnps", "--out_dir"]
    assert main.main(["--dataset", "digits", "--data_path", str(small_zoo), *flags, str(tmp_path / "run")]) == 0
    ours, theirs = fitted.directory.path, tmp_path / "run"
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    configs = [json.loads((path / "config.json").read_text()) for path in (ours, theirs)]
    assert configs[0].pop("command") == "nfn.fit(zoo, encoder='inv', seed=1, epochs=2, cls_mode='hnps')"
    assert configs[1].pop("command")
    assert configs[0] == configs[1]
    for name in ("split.json", "results.json", "test_predictions.csv", "best.safetensors"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    capsys.readouterr()
    assert predict.main(["--run", str(ours), "--dataset", "digits"]) == 0
    assert f"tau {fitted.results['test']['tau']:.4f}" in capsys.readouterr().out


def test_tree_models_too(small, small_zoo, tmp_path):
    ours = nfn.fit(small, model="gbtree", features="statistics", progress=False)
    flags = ["--dataset", "digits", "--data_path", str(small_zoo), "--features", "statistics"]
    assert xgb.main([*flags, "--out_dir", str(tmp_path / "run")]) == 0
    assert ours.results == json.loads((tmp_path / "run/results.json").read_text())
    assert ours.history[-1]["round"] == 50


def test_networks_are_predicted_in_any_form(fitted, small, small_zoo):
    expected = fitted.predict(small)
    assert expected.shape == (60,)
    assert expected.dtype == torch.float64
    index = torch.tensor([3, 17])
    files = [next(small_zoo.rglob(small.names[i].rsplit("/", 1)[-1])) for i in index.tolist()]
    states = [torch.load(file, weights_only=True) for file in files]
    for networks in (files, [str(file) for file in files], states, [files[0], states[1]], small.weights(index)):
        torch.testing.assert_close(fitted.predict(networks), expected[index], atol=1e-6, rtol=0)
    torch.testing.assert_close(fitted.predict(states[1]), expected[index[1:]], atol=1e-6, rtol=0)
    exact = small.weights(index).to(torch.float64)
    torch.testing.assert_close(fitted.predict(exact), expected[index], atol=1e-6, rtol=0)
    assert len(fitted.predict(small_zoo)) == 60
    for wrong in (torch.zeros(3), [torch.zeros(3)], 5):
        with pytest.raises(TypeError, match="expected paths, state dicts, weights or a zoo"):
            fitted.predict(wrong)
    with pytest.raises(nfn.ZooError, match=r"state dict 0: 'classifier\.fc2\.bias' is missing"):
        fitted.predict({key: value for key, value in states[0].items() if key != "classifier.fc2.bias"})


def test_evaluation_is_on_the_test_split_of_the_own_zoo(fitted, small, bundled_zoo):
    scores = fitted.evaluate(small)
    assert scores.split == "test"
    assert scores.names == json.loads(fitted.directory.split_file.read_text())["test"]
    assert scores.tau == pytest.approx(fitted.results["test"]["tau"])
    assert f"tau {scores.tau:.4f} [{scores.interval.low:.4f}, " in str(scores)
    assert fitted.read_zoo().names == small.names
    assert fitted.evaluate(small, split="all").labels.shape == (60,)
    with pytest.raises(ValueError, match="split 'train', expected auto, test, all or unseen"):
        fitted.evaluate(small, split="train")


def test_without_a_directory_nothing_stays(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    predictor = nfn.fit(small, "statnn", cls_mode="no", emb_mode="no", epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")
    predictor.save("saved")
    with pytest.raises(nfn.RunError, match="saved: is not an empty directory"):
        predictor.save("saved")
    again = nfn.load_predictor("saved")
    assert torch.equal(again.predict(small), predictor.predict(small))
    assert again.results == predictor.results
    assert again.evaluate(small).split == "test"
    del predictor
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    with pytest.raises(nfn.UserError, match=r"--lr -1\.0"):
        nfn.fit(small, epochs=1, lr=-1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_an_interrupted_training_goes_on(small, tmp_path, monkeypatch):
    settings = {"encoder": "statnn", "cls_mode": "no", "emb_mode": "no", "epochs": 3, "progress": False}
    whole = nfn.fit(small, **settings)
    finish = Run.finish_epoch

    def interrupted(run, *arguments):
        finish(run, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps the last error, and the run in its frames
        nfn.fit(small, out_dir=tmp_path / "run", **settings)
    monkeypatch.undo()
    assert kept.traceback
    assert nfn.load_predictor(tmp_path / "run").results == {}
    resumed = nfn.resume(tmp_path / "run", progress=False)
    assert resumed.results == whole.results
    assert len(resumed.history) == 3
    assert nfn.resume(tmp_path / "run").results == whole.results


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 1}, "no setting 'epoch'; expected epochs"),
        ({"classifier_channels": (5,)}, "no setting 'classifier_channels'; expected classifier_nfn_channels"),
        ({"epochs": "3"}, "'epochs' is '3', expected int"),
        ({"model": "gbtree", "epochs": 3}, "no setting 'epochs'; expected "),
        ({"encoder": "spectral"}, "--enc_mode spectral: expected one of no, bilinear, complete, "),
        ({"model": "forest"}, "model 'forest': expected one of transformer_nfn, gbtree"),
        ({"augment_factor": 3}, "--augment_factor 3: requires --augment True"),
        ({"cut_off": 2.0}, "--cut_off 2.0: expected "),
        ({"test_where": "lr"}, "--test_where 'lr': expected COLUMN=VALUE"),
        ({"test_where": "lr=1", "split": "x"}, "--test_where lr=1: cannot be combined with --split"),
        ({"transformers_nfn_channels": (5,)}, "--transformers_nfn_channels 5: not read by --enc_mode complete"),
    ],
)
def test_wrong_settings(small, settings, message):
    with pytest.raises((TypeError, nfn.UserError)) as raised:
        nfn.fit(small, **settings)
    assert message in str(raised.value)


def test_a_path_is_no_zoo():
    with pytest.raises(
        TypeError, match=r"fit: expected a zoo as nfn.read_zoo\(data_path, dataset\) gives it, got a PosixPath"
    ):
        nfn.fit(Path("data"))


def test_a_zoo_prints_its_size(small):
    assert repr(small) == f"Zoo(60 networks, {small.spec})"
    assert repr(nfn.MixedZoo((small, small))) == "MixedZoo(120 networks of 2 sizes)"
