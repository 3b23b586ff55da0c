"""Fault 14: a folder for each run, and one file name in all of them."""

import torch
from small_zoo import SmallZoo, saved, state_dict

from nfn_transformer.zoo.reading import read_zoo


def test_14_the_tables_path_tells_the_file(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(40):
        zoo.add(f"run{run}", None, ckpt_file=f"runs/mnist/run_{run}/checkpoint.pt", label=str(run / 100))
        zoo.file(f"run_{run}").mkdir()
        zoo.file(f"run_{run}/checkpoint.pt").write_bytes(saved(state_dict(run)))
    zoo.file("run_39/checkpoint.pt").unlink()
    zoo.file("run_x").mkdir()
    zoo.file("run_x/checkpoint.pt").write_bytes(saved(state_dict(99)))
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert len(read) == len(set(read.runs)) == 39
    index = read.names.index("run_7/checkpoint.pt")
    assert read.labels[index] == torch.tensor(0.07)
    assert torch.equal(read.rows[index, :4], state_dict(7)["embedding.conv1.weight"].flatten()[:4])
    # The missing file is not taken from another run's folder.
    (fault,) = read.report.faults
    assert (fault.name, fault.reason) == ("runs/mnist/run_39/checkpoint.pt", "missing")
    assert read.report.unlisted == ("run_x/checkpoint.pt",)
