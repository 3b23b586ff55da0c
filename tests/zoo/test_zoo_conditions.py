"""`--where`: reading one part of a zoo by its metadata, as one size of a zoo with several."""

import re

import pytest
from small_zoo import SPEC, SmallZoo, assert_same, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.zoo.metadata import Condition
from nfn_transformer.zoo.reading import Zoo, read_zoo

ONE_BLOCK = TransformerSpec(SPEC.blocks[:1], SPEC.classifier, SPEC.embedding)


@pytest.fixture
def zoo(tmp_path) -> SmallZoo:
    made = SmallZoo(tmp_path / "zoo")
    for index in range(30):
        deep = index % 3 > 0
        columns = {"n_layers": "2" if deep else "1.0", "note": "a b" if index < 9 else "c", "lr": "1e-3"}
        made.add(f"run{index:03d}", state_dict(index, SPEC if deep else ONE_BLOCK), **columns)
    made.write_table()
    return made


def _read(zoo: SmallZoo, where: str, **given) -> Zoo:
    return read_zoo(zoo.path, "mnist", progress=False, where=where, **given)


def test_each_size_of_a_zoo_with_several_can_be_read(zoo):
    with pytest.raises(ZooError, match=r"more than one shape:(?s:.*)\(--where COLUMN"):
        _read(zoo, "")
    deep, flat = _read(zoo, "n_layers=2"), _read(zoo, "n_layers=1")
    assert (deep.spec, len(deep)) == (SPEC, 20)
    assert (flat.spec, len(flat)) == (ONE_BLOCK, 10)
    assert not set(deep.names) & set(flat.names)
    assert not deep.report.faults
    assert not deep.report.unlisted


def test_conditions_are_read_as_numbers_where_they_are_and_all_hold(zoo):
    read = _read(zoo, " note = a b , n_layers=2.0, lr=0.001")
    assert [name[:6] for name in read.names] == ["run001", "run002", "run004", "run005", "run007", "run008"]


def test_the_cache_knows_what_was_chosen(zoo):
    first, other = _read(zoo, "n_layers=2"), _read(zoo, "n_layers=1")
    assert_same(_read(zoo, "n_layers=2"), first)
    assert_same(_read(zoo, "n_layers=1"), other)
    assert_same(_read(zoo, "n_layers=2", load_cache=False), first)
    assert Condition.parse("n_layers=2,lr=1") == Condition.parse("lr=1, n_layers=2")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("n_layers", "expected COLUMN=VALUE"),
        ("n_layers=2,", "expected COLUMN=VALUE"),
        ("=2", "expected COLUMN=VALUE"),
        ("n_layers=", "expected COLUMN=VALUE"),
        ("n_layers=2,n_layers=1", "expected each column once, got 'n_layers' twice"),
        ("width=2", "no column 'width'; there are 'optimizer', 'n_attention_heads'"),
        ("n_layers=3", "no row where n_layers=3; 'n_layers' is '2' (20 rows), '1.0' (10 rows)"),
    ],
)
def test_mistakes_are_named(zoo, where, message):
    with pytest.raises(ZooError, match=re.escape(message)):
        _read(zoo, where)
