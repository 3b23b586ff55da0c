"""Fault 4: a column that stands in the table twice, of which the first is taken."""

import pytest

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.reading import read_zoo


@pytest.mark.parametrize("again", ["test_top1_accuracy", "Test_Top1_Accuracy", "ckpt_file", "n_attention_heads", "lr"])
def test_04_a_column_that_is_read_stands_once(zoo, again):
    path = zoo.path / "metadata/mnist.csv"
    header, *lines = path.read_text().splitlines()
    exact = again.lower() if again != "lr" else "lr"
    header = header if again != "lr" else f"{header},lr"
    path.write_text("\n".join([f"{again},{header}", *(f"1.0,{line},0.1" for line in lines)]))
    if again == "Test_Top1_Accuracy":  # the exact name is the one that is meant
        assert read_zoo(zoo.path, "mnist", progress=False).labels.tolist() == [0.5] * 40
        return
    with pytest.raises(ZooError, match=f"column '{exact}': expected it once, got it 2 times"):
        read_zoo(zoo.path, "mnist", progress=False)
