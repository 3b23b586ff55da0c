"""Dropout, ensembles and early stopping in training: each gives what it would give alone, however it is computed."""

from dataclasses import replace

import pytest
import torch
from trainings import SMALL_MODES, assert_equal, finished_epochs, stop_after

from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.seeding import derive_seed
from nfn_transformer.training import step as training_step
from nfn_transformer.training.loop import train


@pytest.mark.parametrize("model_config", SMALL_MODES, ids=lambda config: config.name)
def test_dropout_is_the_same_streamed_in_pieces_and_resumed(new_run, few, model_config, monkeypatch):
    settings = {"zoo": few, "batch_size": 10}
    plain, streamed, broken, again, pieces = (new_run(2, model_config=model_config, **settings) for _ in range(5))
    train([plain])
    train([streamed], stream=True)
    with pytest.raises(KeyboardInterrupt):
        stop_after(broken, 2)
    again.directory = broken.directory
    again.load_state()
    train([again])
    monkeypatch.setattr(training_step, "NETWORKS_AT_ONCE", 7)
    train([pieces])
    for found in (streamed, again, pieces):
        assert_equal(found, plain)
    without = new_run(2, model_config=replace(model_config, dropout=0.0), **settings)
    train([without])
    assert abs(without.history.records[-1].train_loss - plain.history.records[-1].train_loss) > 1e-5


@pytest.mark.parametrize("model_config", SMALL_MODES, ids=lambda config: config.name)
def test_members_of_an_ensemble_learn_as_the_first_would_alone(new_run, few, model_config):
    """And the loss that is written down is the mean of theirs."""
    both, alone, other = (
        new_run(2, few, model_config=replace(model_config, ensemble=count), batch_size=6, epochs=2)
        for count in (2, 1, 1)
    )
    other.model.load_state_dict(both.model.members[1].state_dict())
    other.model.begin_epoch = lambda key, begin=other.model.begin_epoch: begin(derive_seed(key, "member", 1))
    train([both])
    for place, one in enumerate((alone, other)):
        train([one])
        member = both.model.members[place].state_dict()
        for (name, a), b in zip(member.items(), one.model.state_dict().values(), strict=True):
            assert relative_error(a, b) < 1e-9, name
    for found, *of_members in zip(*(one.history.records for one in (both, alone, other)), strict=True):
        assert found.train_loss == pytest.approx(sum(entry.train_loss for entry in of_members) / 2, rel=1e-9)
    assert alone.history.records[0].train_loss != pytest.approx(other.history.records[0].train_loss, rel=1e-6)


def test_early_stopping_ends_after_so_many_epochs_that_are_not_the_best(new_run):
    def spoil(record):
        if record.number == 2:
            with torch.no_grad():
                early.model.output.weight.neg_()

    plain = new_run(epochs=12, lr=1e-5)
    early = new_run(epochs=12, lr=1e-5, early_stopping=3, report=spoil)
    train([plain])
    train([early])
    best = early.history.best.number
    assert finished_epochs(early) == best + 3 < 12
    assert early.history.diverged is None
    assert best <= 2
    patient = new_run(epochs=12, lr=1e-5, early_stopping=12)
    train([patient])
    assert_equal(patient, plain)
    train([early])
    assert finished_epochs(early) == best + 3, "what is over goes on"


def test_of_seeds_at_once_each_stops_early_by_itself(new_run):
    together = [new_run(seed, epochs=25, early_stopping=3) for seed in (1, 2, 3)]
    train(together)
    assert len({finished_epochs(one) for one in together}) > 1
    for seed, found in zip((1, 2, 3), together, strict=True):
        alone = new_run(seed, epochs=25, early_stopping=3)
        train([alone])
        assert_equal(found, alone)
