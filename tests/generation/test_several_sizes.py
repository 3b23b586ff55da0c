"""A zoo of several sizes, from its making to the training of a predictor on one of them."""

import pytest

from nfn_transformer import main, make_zoo, predict
from nfn_transformer.errors import RunError, ZooError
from nfn_transformer.zoo.reading import read_zoo

RECIPE = """
draw: grid
runs: 15
lr: {adam: [0.01, 0.03]}
w_init_std: [0.3]
l2_regularize: [0]
train_fraction: [1.0]
dropout: [0.1]
embed_dim: [4, 8]
n_attention_heads: [2]
n_layers: [1]
mlp_factor: [2]
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "sizes.yaml").write_text(RECIPE)
    flags = ["--recipe", str(folder / "sizes.yaml"), "--patch", "4", "--epochs", "2", "--train_images", "64"]
    assert make_zoo.main(["--out", str(folder / "zoo"), *flags, "--test_images", "90"]) == 0
    return folder / "zoo"


def test_a_model_needs_one_size_and_where_says_which(zoo, tmp_path, capsys):
    with pytest.raises(ZooError, match=r"more than one shape:(?s:.*)30 checkpoints: 2 heads(?s:.*)--where"):
        read_zoo(zoo, "digits", progress=False)
    flags = ["--dataset", "digits", "--data_path", str(zoo), "--epochs", "1"]
    widths = {}
    for width in (4, 8):
        run = tmp_path / f"run_{width}"
        assert main.main([*flags, "--where", f"embed_dim={width}", "--out_dir", str(run)]) == 0
        widths[width] = read_zoo(zoo, "digits", where=f"embed_dim={width}", progress=False).spec.blocks[0].width
        capsys.readouterr()
        assert predict.main(["--run", str(run), "--data_path", str(zoo)]) == 0
        assert "the run's own test split" in capsys.readouterr().out
        scored = ["--run", str(run), "--data_path", str(zoo), "--where"]
        with pytest.raises(RunError, match=f"none of the run's test split is there where embed_dim={12 - width}"):
            predict.main([*scored, f"embed_dim={12 - width}"])
        with pytest.raises(RunError, match="other sizes than the run's"):
            predict.main([*scored, f"embed_dim={12 - width}", "--split", "all"])
    assert widths == {4: 4, 8: 8}


def test_a_wrong_condition_is_named_before_anything_is_written(zoo, tmp_path):
    with pytest.raises(ZooError, match="expected COLUMN=VALUE"):
        main.main(["--dataset", "digits", "--data_path", str(zoo), "--where", "8", "--out_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
