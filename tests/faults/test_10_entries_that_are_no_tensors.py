"""Fault 10: an entry that is no tensor, in every checkpoint, makes a zoo another architecture."""

from small_zoo import SmallZoo, assert_same, state_dict

from nfn_transformer.zoo.reading import read_zoo


def test_10_entries_that_are_no_tensors_are_noted(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(40):
        zoo.add(f"run{run}", {**state_dict(run), "epoch": 75, "optimizer": {"lr": 0.1}})
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert len(read) == 40
    assert "40 with entries that are no tensors, ignored: 'epoch', 'optimizer'" in read.report.summary()
    assert "run7_75_7.pt,yes,entries that are no tensors,epoch optimizer" in read.report.csv()
    assert_same(read, read_zoo(zoo.path, "mnist", progress=False))
