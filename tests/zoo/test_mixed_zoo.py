"""Zoos with networks of several sizes: read size by size, used as one, trained and tested by one model."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from small_zoo import DEEP, SPEC, WIDE, SmallZoo, assert_same, zoo_of_three_sizes

from nfn_transformer.errors import ZooError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.batches import StoredFeatures
from nfn_transformer.training.batches import read_features as read_batches
from nfn_transformer.training.config import DataConfig
from nfn_transformer.training.data import RunData, Split, draw_split, recorded_split, split_record
from nfn_transformer.training.trained_predictor import predict_outputs
from nfn_transformer.trees.features import features_of_checkpoints
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.several_sizes import MixedZoo, read_all_sizes

CPU = torch.device("cpu")
COMPLETE = ModelConfig("complete", "no", "no", ensemble=2, dropout=0.2)


@pytest.fixture
def written(tmp_path) -> SmallZoo:
    return zoo_of_three_sizes(tmp_path / "zoo")


@pytest.fixture
def mixed(written) -> MixedZoo:
    return read_all_sizes(written.path, "mnist", progress=False)


def test_each_size_is_the_zoo_that_a_condition_reads(written, mixed):
    conditions = ("embed_dim=4,n_layers=2", "embed_dim=4,n_layers=3", "embed_dim=6")
    for part, condition in zip(mixed.parts, conditions, strict=True):
        alone = read_zoo(written.path, "mnist", where=condition, progress=False)
        assert_same(replace(part, report=alone.report), alone)
    assert mixed.specs == (SPEC, DEEP, WIDE)
    assert len(mixed) == len(mixed.names) == len(set(mixed.runs)) == 30
    assert mixed.report.examined == 30
    assert not mixed.report.faults
    assert mixed.hyperparameters[:, 0].tolist() == [float(run[-3:]) for run in mixed.runs]
    (columns,) = {len(mixed.labels), len(mixed.hyperparameters)}
    assert columns == 30


def test_an_index_is_taken_apart_and_put_together(mixed):
    index = torch.randperm(30, generator=torch.Generator().manual_seed(0))[:20]
    seen = []
    for positions, rows, part in mixed.by_size(index):
        for position, row in zip(positions.tolist(), rows, strict=True):
            original = part.names.index(mixed.names[index[position]])
            assert torch.equal(row, part.rows[original])
            seen.append(position)
    assert sorted(seen) == list(range(20))
    for weights, part in zip(mixed.one_of_each_size(index), mixed.parts, strict=True):
        first = next(mixed.names[i] for i in index.tolist() if mixed.names[i] in part.names)
        original = part.weights(torch.tensor([part.names.index(first)]))
        assert all(map(torch.equal, weights.tensors(), original.tensors()))
    (last,) = mixed.one_of_each_size(torch.tensor([29, 28]))
    assert last.spec == mixed.parts[-1].spec
    whole = read_features(mixed)
    assert torch.equal(whole[index], features_of_checkpoints("hyperparameters", mixed, index))


def read_features(zoo):
    return features_of_checkpoints("hyperparameters", zoo, torch.arange(len(zoo)))


def test_one_size_is_a_zoo_as_any_other(written):
    zoo = read_all_sizes(written.path, "mnist", where="n_layers=1", progress=False)
    assert_same(zoo, read_zoo(written.path, "mnist", where="n_layers=1,embed_dim=6", progress=False))
    (part,) = list(zoo.by_size(torch.tensor([3, 1])))
    assert torch.equal(part[1], zoo.rows[[3, 1]])


def test_a_fault_of_one_size_is_told(written):
    written.file(written.rows[4]["ckpt_file"].rsplit("/", 1)[1]).write_bytes(b"")
    with pytest.raises(ZooError, match=r"1 of 10 checkpoints \(more than 5 %\) are faulty"):
        read_all_sizes(written.path, "mnist", progress=False)
    zoo = read_all_sizes(written.path, "mnist", allow_faulty=True, progress=False)
    assert (len(zoo), len(zoo.report.faults), zoo.report.examined) == (29, 1, 30)
    with pytest.raises(ZooError, match="no row where n_layers=9"):
        read_all_sizes(written.path, "mnist", where="n_layers=9", progress=False)
    with pytest.raises(ZooError, match="no checkpoints of epoch '50'"):
        read_all_sizes(written.path, "mnist", ckpt_epoch="50", progress=False)


def test_features_of_a_network_do_not_depend_on_its_company(mixed):
    """Those of shallow ones are filled up, and what is filled up counts for nothing."""
    model = build_predictor(mixed.spec, COMPLETE, seed=1)
    everyone = torch.arange(30)
    store = StoredFeatures(model.featurize, mixed, everyone, CPU)
    features, labels = store.batch(everyone)
    assert features.encoder.blocks.shape[:2] == (30, 3)
    assert torch.equal(labels, mixed.labels)
    model.fit_normalization([features])
    model.eval()
    logits = model.from_features(features)
    expected = torch.empty(30)
    for positions, rows, part in mixed.by_size(everyone):
        expected[positions] = model(part.weights_of(rows)).detach()
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(predict_outputs(model, mixed, everyone), expected, atol=1e-5)
    (block, _) = model.members[0].encoder.block_scale.mean, None
    blocks = torch.cat([features.encoder.blocks[i, : (2, 3, 1)[i // 10]] for i in range(30)])
    assert torch.allclose(block, blocks.mean(0), atol=1e-5)
    split = Split(everyone[:10], everyone[10:20], everyone[20:])
    run = Mock(model=model, data=RunData(mixed, split, {}))
    assert isinstance(read_batches([run])[run], StoredFeatures)


def test_what_is_filled_up_has_no_gradient(mixed):
    model = build_predictor(mixed.spec, replace(COMPLETE, ensemble=1), seed=1)
    features, _ = StoredFeatures(model.featurize, mixed, torch.arange(30), CPU).batch(torch.arange(30))
    model.fit_normalization([features])
    model.from_features(features).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_splits_are_recorded_with_their_data(mixed, tmp_path):
    config = DataConfig("mnist", str(tmp_path))
    split = draw_split(mixed, config, seed=1)
    record = split_record(mixed, split)
    again = recorded_split(mixed, record, tmp_path)
    assert torch.equal(again.train, split.train)
    mixed.parts[1].rows[2, 3] += 1
    assert split_record(mixed, split)["digest"] != record["digest"]


def test_a_column_that_is_not_always_told_tells_nothing_apart(written):
    for number, row in enumerate(written.rows):
        row["hidden"] = "" if number == 4 else "5"
    written.write_table()
    assert read_all_sizes(written.path, "mnist", progress=False).specs == (SPEC, DEEP, WIDE)
    written.rows[4]["n_layers"] = ""
    written.write_table()
    with pytest.raises(ZooError, match="more than one shape"):
        read_all_sizes(written.path, "mnist", progress=False)
