"""The ceiling of sampling: networks run on labelled images, and its place in a run's results."""

import contextlib
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import nfn_transformer as nfn
from nfn_transformer import gbm
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.training.ceilings import SAMPLING, accuracies_on, fresh_images
from nfn_transformer.training.metrics import kendall_tau, tau_ceiling

PAGE = (Path(__file__).parents[2] / "docs/tasks.md").read_text()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The digits in an .npz, as docs/tasks.md writes it."""
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "digits.npz" in code)
    folder = tmp_path_factory.mktemp("images")
    with contextlib.chdir(folder):
        exec(compile(code, "docs/tasks.md", "exec"), {})
    return folder / "digits.npz"


def test_the_pages_file_of_digits_has_the_test_images_in_the_order_that_it_tells(images):
    test = fresh_images(images, 400)
    order = sorted(range(1797), key=lambda index: hashlib.sha256(f"digits/{index}".encode()).digest())
    expected = load_digits().images[order][1400:]
    assert torch.equal(test.inputs, digits().test.inputs[400:])
    assert ((test.inputs[:, 0] * 8 + 8).numpy() == expected).all()


def test_networks_are_run_as_their_labels_were_measured(small):
    index = torch.tensor([5, 0, 40])
    test = digits().test
    expected = small.labels[index].double()
    assert torch.allclose(accuracies_on(test, small, index, torch.device("cpu")), expected, atol=1e-6)
    exchanged = LabelledSamples(test.inputs, 9 - test.labels)
    assert (accuracies_on(exchanged, small, index, torch.device("cpu")) - expected).abs().max() > 0.1


def test_a_run_reports_its_ceilings(small, small_zoo, images, tmp_path, capsys):
    flags = ["--model", "extra_trees", "--features", "statistics", "--n_estimators", "3", "--wandb", "False"]
    flags += ["--dataset", "digits", "--data_path", str(small_zoo)]
    asked = ["--ceiling_images", str(images), "--ceiling_skip", "700"]
    assert gbm.main([*flags, *asked, "--out_dir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    references = json.loads((tmp_path / "run/results.json").read_text())["test_references"]
    assert f"tau that ties leave: {references['tau_that_ties_leave']:.4f}\n" in printed
    assert f"tau that sampling leaves: {references[SAMPLING]:.4f}\n" in printed
    test = json.loads((tmp_path / "run/split.json").read_text())["test"]
    index = torch.tensor([small.names.index(name) for name in test])
    accuracies = accuracies_on(fresh_images(images, 700), small, index, torch.device("cpu"))
    assert references[SAMPLING] == kendall_tau(accuracies, small.labels[index].double())
    assert 0 < references[SAMPLING] < references["tau_that_ties_leave"] == tau_ceiling(small.labels[index])

    # The run goes on where its images have another place.
    (tmp_path / "run/results.json").unlink()
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["ceiling_images"] = "/elsewhere/digits.npz"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    resume = ["--resume", str(tmp_path / "run"), "--wandb", "False"]
    with pytest.raises(RunError, match=r"^/elsewhere/digits.npz: .*folder of images is no .* by --ceiling_images$"):
        gbm.main(resume)
    with pytest.raises(RunError, match=r"^--ceiling_images none: no such file or folder$"):
        gbm.main([*resume, "--ceiling_images", "none"])
    assert gbm.main([*resume, "--ceiling_images", str(images)]) == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["test_references"] == references

    # So it does from Python, with the images that the run names and with others.
    (tmp_path / "run/results.json").unlink()
    with pytest.raises(RunError, match=r"^/elsewhere/digits.npz: .*folder of images is no "):
        nfn.resume(tmp_path / "run", progress=False)
    with pytest.raises(UserError, match="--ceiling_skip 797: expected less than the 797 test images"):
        nfn.resume(tmp_path / "run", ceiling_images=images, ceiling_skip=797, progress=False)
    resumed = nfn.resume(tmp_path / "run", ceiling_images=str(images), progress=False)
    assert resumed.results["test_references"] == references
    (tmp_path / "run/results.json").unlink()
    (tmp_path / "run/config.json").write_text(json.dumps({**config, "ceiling_images": str(images)}))
    assert nfn.resume(tmp_path / "run", progress=False).results["test_references"] == references

    # A finished run is not measured again, and says so.
    capsys.readouterr()
    assert gbm.main([*resume, "--ceiling_images", str(images)]) == 0
    assert f"warning: --ceiling_images {images}: {tmp_path / 'run'} is tested already\n" in capsys.readouterr().err

    other = tmp_path / "other.npz"
    tiny, classes = np.zeros((4, 4, 4), np.uint8), np.arange(4)
    np.savez(other, train_images=tiny, train_labels=classes, test_images=tiny, test_labels=classes)
    for words, message in (
        (["--ceiling_images", str(other)], r"other\.npz: images of 1 x 4 x 4 pixels in 4 classes, which some networks"),
        (["--ceiling_skip", "5"], "--ceiling_skip 5: requires --ceiling_images"),
        ([*asked[:3], "797"], "--ceiling_skip 797: expected less than the 797 test images"),
        (
            [*asked, "--task", "regress", "--label_column", "test_top1_accuracy"],
            "requires --task accuracy, got regress",
        ),
    ):
        with pytest.raises(UserError, match=message):
            gbm.main([*flags, *words, "--out_dir", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_fold_that_is_resumed_by_itself_has_a_ceiling_of_its_own(small, small_zoo, images, tmp_path):
    flags = ["--model", "extra_trees", "--features", "statistics", "--n_estimators", "3", "--wandb", "False"]
    flags += ["--dataset", "digits", "--data_path", str(small_zoo), "--folds", "2"]
    run = tmp_path / "run"
    assert gbm.main([*flags, "--out_dir", str(run)]) == 0
    for path in (run, run / "fold1", run / "fold2"):
        (path / "results.json").unlink()
    with pytest.raises(RunError, match=rf"^{run}: is a run of folds; resume it by the command's --resume {run}$"):
        nfn.resume(run, progress=False)
    asked = ["--ceiling_images", str(images), "--ceiling_skip", "700", "--wandb", "False"]
    assert gbm.main(["--resume", str(run / "fold1"), *asked]) == 0
    assert gbm.main(["--resume", str(run), *asked]) == 0
    fold, other, whole = (
        json.loads((path / "results.json").read_text())["test_references"]
        for path in (run / "fold1", run / "fold2", run)
    )
    fresh = fresh_images(images, 700)
    for references, names in ((fold, json.loads((run / "fold1/split.json").read_text())["test"]), (whole, small.names)):
        index = torch.tensor([small.names.index(name) for name in names])
        accuracies = accuracies_on(fresh, small, index, torch.device("cpu"))
        assert references[SAMPLING] == kendall_tau(accuracies, small.labels[index].double())
    assert SAMPLING not in other
