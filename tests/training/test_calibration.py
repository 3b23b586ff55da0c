"""Calibration: scale and offset of predictions, on the logit of accuracies, from a few known networks."""

import pytest
import torch

from nfn_transformer.training.calibration import fit_calibration
from nfn_transformer.training.number_tasks import AccuracyTask, RegressTask, TreeTask


@pytest.mark.parametrize(
    "task", [AccuracyTask(), TreeTask("accuracy"), RegressTask(mean=2.0, deviation=3.0), TreeTask("regress")]
)
def test_a_scale_and_an_offset_are_found_again(task, generator):
    logits = torch.randn(30, generator=generator, dtype=torch.float64)
    line = 0.5 * logits - 1
    is_accuracy = task.entry.labels == "accuracy"
    predictions, labels = (logits.sigmoid(), line.sigmoid()) if is_accuracy else (logits, line)
    outputs = task.outputs_of_predictions(predictions)
    found = fit_calibration(task, outputs[:4], labels[:4])
    assert (found.scale, found.offset) == pytest.approx((0.5, -1))
    assert torch.allclose(task.predictions(found.apply(task, outputs)), labels)
    assert str(found).startswith("calibrated to 4 known networks: 0.5 x ")


def test_too_few_or_ranked_the_other_way_fit_the_offset_alone():
    task = RegressTask()
    outputs = torch.tensor([0.0, 1.0, 2.0])
    for labels in (torch.tensor([3.0, 9.0]), torch.tensor([3.0, 2.0, 1.0])):
        found = fit_calibration(task, outputs[: len(labels)], labels)
        assert found.scale == 1
        assert found.offset == pytest.approx((labels.mean() - outputs[: len(labels)].mean()).item())
        assert "the offset alone is fitted" in str(found)
