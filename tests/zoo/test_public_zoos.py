"""Zoos of the field in their own formats: small files made in exactly these, with random numbers."""

import json
from pathlib import Path

import pytest
import torch
from public_zoos import write_array_zoo
from small_zoo import SmallZoo
from small_zoo import state_dict as transformer_state
from torch import Tensor, nn
from torch.nn import functional

import nfn_transformer as nfn
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.run import check_predictor
from nfn_transformer.weights.feed_forward_pass import network_outputs
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.metadata import Columns
from nfn_transformer.zoo.network_checkpoint import network_outcome
from nfn_transformer.zoo.reading import read_zoo
from nfn_transformer.zoo.several_sizes import MixedZoo


def save(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def siren_state(seed: int, keys: tuple[str, str, str], sizes: tuple[int, ...] = (2, 8, 8, 1)) -> dict[str, Tensor]:
    """A state dict with these names of layers."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, inputs, outputs in zip(keys, sizes, sizes[1:], strict=False):
        state |= {f"{key}.weight": torch.randn(outputs, inputs, generator=generator) / 10}
        state |= {f"{key}.bias": torch.randn(outputs, generator=generator) / 10}
    return state


def drawn(state: dict[str, Tensor], offset: float) -> Tensor:
    """The values at 5 coordinates, as the zoos' own code computes them."""
    numbers, (*hidden, last) = grid(), list(zip(*[iter(tensor.double() for tensor in state.values())] * 2, strict=True))
    for W, b in hidden:
        numbers = torch.sin(30 * functional.linear(numbers, W, b))
    return functional.linear(numbers, *last) + offset


def grid() -> Tensor:
    return torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)


def outputs(zoo, name: str, inputs: Tensor) -> Tensor:
    """The outputs of a network of a zoo, by its name."""
    index = torch.tensor([zoo.names.index(name)])
    ((_, rows, part),) = zoo.by_size(index)
    return network_outputs(inputs, part.weights_of(rows.double()))[0]


DWS = ("seq.0", "seq.1", "seq.2")


@pytest.fixture
def dwsnets(tmp_path) -> Path:
    """MNIST and Fashion-MNIST of DWSNets: 6 images each; one of MNIST has two augmented copies."""
    root = tmp_path / "inrs"
    for image in range(6):
        side = "training" if image < 4 else "testing"
        for copy in ("_augmented_0", "_augmented_1") if image == 5 else ("",):
            folder = root / f"mnist-inrs/mnist_png_{side}_{image % 3}_{image}{copy}"
            save(folder / "checkpoints/model_final.pth", siren_state(image, DWS))
        side = "train" if image < 4 else "test"
        save(root / f"fmnist_inrs/{side}/model_{image}.pth", {**siren_state(image, DWS), "label": image % 4})
    return root


def test_inrs_of_dwsnets(dwsnets):
    zoo = read_zoo(dwsnets, "mnist", labels="class")
    assert len(zoo) == 7
    assert len(set(zoo.runs)) == 6
    assert zoo.classes == ("0", "1", "2")
    assert (zoo.spec.activation, zoo.spec.omega, zoo.spec.offset) == ("sine", 30.0, 0.5)
    name = "mnist-inrs/mnist_png_training_1_1/checkpoints/model_final.pth"
    torch.testing.assert_close(outputs(zoo, name, grid()), drawn(siren_state(1, DWS), 0.5))
    fashion = read_zoo(dwsnets, "fmnist", labels="class")
    name = "fmnist_inrs/train/model_3.pth"
    assert len(fashion) == 6
    assert fashion.labels[fashion.names.index(name)] == 3
    torch.testing.assert_close(outputs(fashion, name, grid()), drawn(siren_state(3, DWS), 0.5))
    assert len(read_zoo(dwsnets, "mnist", labels="class", where="side=testing")) == 3
    with pytest.raises(
        ZooError, match="data set 'cifar': expected one folder with it, got 'fmnist_inrs/', 'mnist-inrs/'"
    ):
        read_zoo(dwsnets, "cifar", labels="class")


NFN = ("net.0.linear", "net.1.linear", "net.2")


def test_inrs_of_nfn_and_their_copies(tmp_path):
    for image in range(4):
        for copy in ("", "aug0_", "aug1_"):
            path = tmp_path / f"siren_cifar_wts/randinit_smaller_{copy}{image}s/net{image * 1000}.pth"
            save(path, siren_state(image, NFN, (2, 8, 8, 3)))
    zoo = read_zoo(tmp_path, "cifar", labels="class")
    assert len(zoo) == 12
    assert len(set(zoo.runs)) == 4
    assert zoo.spec.sizes == (2, 8, 8, 3)
    for name in ("randinit_smaller_2s/net2000.pth", "randinit_smaller_aug1_2s/net2000.pth"):
        torch.testing.assert_close(
            outputs(zoo, f"siren_cifar_wts/{name}", grid()), drawn(siren_state(2, NFN, (2, 8, 8, 3)), 0)
        )
    assert len(read_zoo(tmp_path / "siren_cifar_wts", "cifar", labels="class", where="copy=0")) == 4


class ParkCNN(nn.Module):
    """A CNN of the park: `residual` names the layer whose output is added to the shared channels."""

    def __init__(self, channels: list[int], residual: list[int], activation: str):
        super().__init__()
        sides = zip([3, *channels], channels, strict=False)
        self.layers = nn.ModuleList([nn.Conv2d(i, o, 3, 1 + (s == 0), 1) for s, (i, o) in enumerate(sides)])
        self.fc = nn.Linear(channels[-1], 10)
        self.residual, self.activation = residual, {"relu": torch.relu, "gelu": functional.gelu}[activation]
        self.config = {
            "n_layers": len(channels),
            "n_classes": 10,
            "channels": channels,
            "kernel_size": [3] * len(channels),
            "stride": [2] + [1] * (len(channels) - 1),
            "padding": [1] * len(channels),
            "residual": residual,
            "activation": activation,
        }

    def forward(self, maps):
        seen = []
        for layer, other in zip(self.layers, self.residual, strict=True):
            maps = layer(maps)
            if other >= 0:
                shared = min(maps.shape[1], seen[other].shape[1])
                maps = maps.clone()
                maps[:, :shared] += seen[other][:, :shared]
            maps = self.activation(maps)
            seen.append(maps)
        return self.fc(maps.mean((2, 3)))


@pytest.fixture
def park(tmp_path) -> tuple[Path, ParkCNN]:
    """Five runs with two checkpoints each, of two architectures; and the CNN of the last checkpoint of run 1."""
    torch.manual_seed(0)
    kept = None
    for run in range(5):
        for epoch in (10, 50):
            cnn = ParkCNN([4, 6, 5], [-1, -1, 0], "relu") if run % 2 else ParkCNN([8, 4], [-1, -1], "gelu")
            content = {"model": cnn.state_dict(), "config": cnn.config, "iteration": epoch}
            content["last_result"] = {"test/acc": run / 10 + epoch / 1000, "time": 1.5, "config": {"lr": 0.1}}
            save(tmp_path / f"park/NetTrainer_{run:05d}/checkpoint_{epoch:06d}/checkpoint.pt", content)
            kept = cnn if (run, epoch) == (1, 50) else kept
    return tmp_path / "park", kept


def test_wild_park_has_several_sizes_and_residual_connections(park):
    root, cnn = park
    zoo = read_zoo(root, "park")
    assert isinstance(zoo, MixedZoo)
    assert len(zoo) == 5
    assert set(zoo.epochs) == {"50"}
    assert {spec.sizes for spec in zoo.specs} == {(3, 4, 6, 5, 10), (3, 8, 4, 10)}
    name = "NetTrainer_00001/checkpoint_000050/checkpoint.pt"
    assert zoo.labels[zoo.names.index(name)] == pytest.approx(0.15)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(outputs(zoo, name, images), cnn.double()(images).detach())
    assert len(read_zoo(root, "park", "all")) == 10
    names, groups = read_loose_checkpoints([root], zoo.spec, supports=lambda spec: True)
    assert len(names) == 10
    assert {group.weights.spec for group in groups} == set(zoo.specs)
    relu = read_zoo(root, "park", where="activation=relu")
    assert len(relu) == 2
    assert relu.spec.activation == "relu"
    assert relu.report.examined == 2
    assert len(read_zoo(root, "park", where="activation=relu", facts={"padding": "1"})) == 2  # of every convolution
    with pytest.raises(ZooError, match="--stride 2: contradicts 'NetTrainer_00001"):
        read_zoo(root, "park", where="activation=relu", facts={"stride": "2"})
    with pytest.raises(ZooError, match="--activation gelu: contradicts 'NetTrainer_00001"):
        read_zoo(root, "park", where="activation=relu", facts={"activation": "gelu"})


def test_faults_of_public_zoos_are_reported_file_by_file(park):
    root, cnn = park
    broken = {"model": cnn.state_dict(), "config": {**cnn.config, "stride": "2"}, "last_result": {"test/acc": 0.5}}
    contents = [
        (b"junk", "unreadable: not a checkpoint"),
        (broken, "unreadable: config: 'stride' is a str, expected a list with a number a layer"),
        ({**broken, "config": {**cnn.config, "residual": [2, -1, 0]}}, "shape differs: residuals (2, -1, 0)"),
        ({**broken, "config": cnn.config, "model": transformer_state(0)}, "missing key: holds encoder blocks"),
        ({**broken, "config": cnn.config, "last_result": {}}, "label: no label, expected a number in [0, 1]"),
    ]
    for number, (content, _) in enumerate(contents):
        file = root / f"Faulty_{number}/checkpoint_000050/checkpoint.pt"
        save(file, content)
        if isinstance(content, bytes):
            file.write_bytes(content)
    zoo = read_zoo(root, "park", allow_faulty=True)
    assert len(zoo) == 5
    assert zoo.report.examined == 10
    for line, (_, expected) in zip(zoo.report.fault_lines(), contents, strict=True):
        assert expected in line
    with pytest.raises(ZooError, match=r"5 of 10 checkpoints .* are faulty"):
        read_zoo(root, "park")


def test_model_zoos(tmp_path):
    for model in range(5):
        folder = tmp_path / f"mnist/NN_tune_trainable_{model}"
        torch.manual_seed(model)
        cnn = nn.ModuleDict(
            {"0": nn.Conv2d(1, 3, 5), "3": nn.Conv2d(3, 4, 5), "6": nn.Linear(4 * 4 * 4, 6), "9": nn.Linear(6, 10)}
        )
        for epoch in (0, 5):
            save(folder / f"checkpoint_{epoch:06d}/checkpoints", nn.ModuleDict({"module_list": cnn}).state_dict())
        (folder / "params.json").write_text(json.dumps({"model::nlin": "tanh", "optim::lr": 3e-4, "seed": model}))
        lines = [{"training_iteration": epoch, "test_acc": model / 10 + epoch / 100} for epoch in range(6)]
        (folder / "result.json").write_text("\n".join(map(json.dumps, lines)))
    zoo = read_zoo(tmp_path, "mnist")
    assert len(zoo) == 5
    assert zoo.spec.flattened == 16
    assert zoo.spec.activation == "tanh"
    assert zoo.labels.tolist() == pytest.approx([model / 10 + 0.05 for model in range(5)])
    assert zoo.hyperparameters[0, 0] == pytest.approx(3e-4)
    assert len(read_zoo(tmp_path, "mnist", "0", where="seed=3")) == 1
    assert "relu" not in zoo.report.summary()
    (folder / "params.json").write_text("{}")
    assert "1 of 5 models are taken for relu (--activation): the first is " in (
        read_zoo(tmp_path, "mnist").report.summary()
    )
    assert "relu" not in read_zoo(tmp_path, "mnist", facts={"activation": "tanh"}).report.summary()
    (folder / "result.json").write_text('{"training_iteration": NaN}')
    with pytest.raises(ZooError, match=r"NN_tune_trainable_4/result.json: not JSON: NaN, expected a finite number$"):
        read_zoo(tmp_path, "mnist")


def test_a_folder_of_no_format_lists_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ZooError) as error:
        read_zoo(tmp_path, "mnist")
    assert "\n" not in str(error.value)
    for part in ("metadata/mnist.csv", "weights.npy", "model_final.pth", "checkpoint.pt", "the zoo holds 'pictures'"):
        assert part in str(error.value)


@pytest.fixture
def plain(tmp_path) -> SmallZoo:
    """Twelve CNNs in our own layout, with batch norm behind the first convolution, and a column `activation`."""
    zoo = SmallZoo(tmp_path / "plain")
    for run in range(12):
        zoo.add(f"run{run}", plain_network(run).state_dict(), activation="tanh", stride="2")
    zoo.write_table()
    return zoo


def plain_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(4)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2)
    layers = (nn.Conv2d(1, 4, 3, 2, bias=False), norm, nn.Tanh(), nn.Conv2d(4, 5, 3, 2), nn.Tanh())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 4, 3)).eval()


def test_state_dicts_in_our_own_layout_with_batch_norm_folded(plain):
    zoo = read_zoo(plain.path, "mnist")
    assert len(zoo) == 12
    assert (zoo.spec.activation, zoo.spec.strides, zoo.spec.flattened) == ("tanh", (2, 2), 4)
    images = torch.randn(3, 1, 11, 11, dtype=torch.float64)
    for index, name in enumerate(zoo.names):
        expected = plain_network(int(name.split("_")[0].removeprefix("run"))).double()(images).detach()
        weights = zoo.weights(torch.tensor([index])).to(torch.float64)
        torch.testing.assert_close(network_outputs(images, weights)[0], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ZooError, match="--activation relu: contradicts the table, whose column activation is 'tanh'"):
        read_zoo(plain.path, "mnist", facts={"activation": "relu"})


def test_what_the_table_does_not_tell_is_told_by_flags_or_said(plain):
    plain.write_table(drop="activation")
    zoo = read_zoo(plain.path, "mnist")
    assert zoo.spec.activation == "relu"
    assert "no column tells the activation: taken for relu (--activation)" in zoo.report.summary()
    assert read_zoo(plain.path, "mnist", facts={"activation": "sin", "omega": "30"}).spec.omega == 30


@pytest.mark.parametrize("order", ["CNNs first", "transformers first"])
def test_a_mixed_folder_names_the_first_of_each(tmp_path, order):
    zoo = SmallZoo(tmp_path / "zoo")
    states = [plain_network(0).state_dict(), transformer_state(0)]
    for run in range(10):
        zoo.add(f"run{run}", states[(run % 2) ^ (order == "transformers first")])
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist")
    kind = "a transformer of the zoo" if order == "CNNs first" else "a CNN"
    expected = f"5 files look like {kind}, the first is 'run1_75_1.pt', the first of the others is 'run0_75_0.pt'"
    assert expected in str(error.value)


def test_layers_without_a_bias_have_zeros(tmp_path):
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU()]
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 5, bias=False), nn.ReLU(), nn.Linear(5, 2))
    zoo = SmallZoo(tmp_path / "zoo")
    zoo.add("run0", network.state_dict())
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist")
    assert "1 read with zero biases in layers that have none" in read.report.summary()
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(network_outputs(images, read.weights(torch.tensor([0])))[0], network(images))


def test_batch_norm_that_cannot_be_folded_is_named():
    after_activation = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()
    outcome = network_outcome("a.pt", after_activation, 10_000)
    assert "batch norm '2' does not stand directly after a linear layer" in outcome.fault.detail
    resnet = {"conv1.weight": torch.ones(4, 1, 3, 3), "bn1.running_mean": torch.zeros(5)}
    outcome = network_outcome("a.pt", {**resnet, "bn1.running_var": torch.ones(5)}, 10_000)
    assert outcome.fault.detail == "'bn1.running_mean' has shape (5,), expected (4,) as 'conv1'"
    sound = {
        "conv1.weight": torch.ones(4, 1, 3, 3),
        "bn1.running_mean": torch.zeros(4),
        "bn1.running_var": torch.ones(4),
    }
    outcome = network_outcome("a.pt", {**sound, "conv1.bias": torch.ones(1)}, 10_000)  # which would be repeated
    assert outcome.fault.detail == "'conv1.bias' has shape (1,), expected (4,) as 'conv1'"
    outcome = network_outcome("a.pt", dict.fromkeys(["conv1.weight", *sound], torch.tensor(1.0)), 10_000)
    assert outcome.fault.detail == "'bn1.running_mean' has shape (), expected () as 'conv1'"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"0.weight": torch.ones(1).expand(30_000, 30_000), "0.bias": torch.ones(30_000)}, "claims 900030000 numbers"),
        ({"0.weight": torch.ones(0, 3), "0.bias": torch.ones(0)}, "'0.weight' has shape (0, 3), expected numbers"),
        ({"0.weight": torch.ones(2, 3), "0.bias": "x"}, "'0.weight' has no '0.bias' beside it; expected both"),
        ({"0.weight": torch.ones(2, 3).to_sparse(), "0.bias": torch.ones(2)}, "is a torch.sparse_coo tensor"),
        ({"0.weight": torch.full((2, 3), torch.nan), "0.bias": torch.ones(2)}, "'0.weight' holds NaN"),
        ({}, "the state dict is empty"),
    ],
)
def test_hostile_state_dicts_are_faults(state, message):
    assert message in network_outcome("a.pt", state, 10_000).fault.detail


@pytest.mark.parametrize("encoder", ["np", "bilinear"])
def test_an_mlp_among_cnns_is_named(tmp_path, encoder):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(8):
        network = plain_network(run) if run % 4 else nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
        zoo.add(f"run{run}", network.state_dict(), activation="tanh")
    zoo.write_table()
    config = {"cls_mode": "no", "emb_mode": "no", "epochs": 1}
    with pytest.raises(UserError) as error:
        nfn.fit(read_zoo(zoo.path, "mnist"), encoder, **config)
    for part in ("MLP 6 -> 4 -> 3 with tanh ('run0_75_0.pt')", "CNN 1 -> 4 -> 5 -> 3 with tanh ('run1_75_1.pt')"):
        assert part in str(error.value)


def test_branches_of_transformers_that_are_asked_for_are_refused(tmp_path):
    write_array_zoo(tmp_path / "cifar10")
    zoo = read_zoo(tmp_path, "cifar10")
    for settings, expected in (
        ({"cls_mode": "mlp"}, "zoo 'cifar10' are feed-forward networks .*, use --cls_mode no"),
        ({"num_out_embedding": 5}, "--num_out_embedding 5: not read by --enc_mode np --cls_mode no --emb_mode no"),
    ):
        with pytest.raises(UserError, match=expected):
            nfn.fit(zoo, "np", epochs=1, **settings)


def test_zoos_of_two_activations_are_read_as_a_whole_and_those_of_two_sizes_are_not(tmp_path, park):
    write_array_zoo(tmp_path / "cifar10")
    config = RunConfig(1, NETWORK, DataConfig("any"), ModelConfig("np", "no", "no"), TrainingConfig())
    check_predictor(config, read_zoo(tmp_path, "cifar10"))
    with pytest.raises(UserError, match=r"has networks of 2 sizes, which only --enc_mode .*complete"):
        check_predictor(config, read_zoo(park[0], "park"))


def test_loose_checkpoints_of_other_names_and_depths_have_the_function_of_the_zoo(dwsnets):
    zoo = read_zoo(dwsnets, "mnist", labels="class")
    states = [siren_state(1, ("a", "b", "c")), siren_state(2, ("0", "1", "2", "3"), (2, 8, 8, 8, 1))]
    names, groups = read_loose_checkpoints([dwsnets / "mnist-inrs", *states], zoo.spec, supports=lambda spec: True)
    assert len(names) == 9
    assert sorted(position for group in groups for position in group.positions) == list(range(9))
    for position, state in ((7, states[0]), (8, states[1])):
        (group,) = (group for group in groups if position in group.positions)
        index = list(group.positions).index(position)
        got = network_outputs(grid(), group.weights.to(torch.float64))[index]
        torch.testing.assert_close(got, drawn(state, 0.5))
    with pytest.raises(ZooError, match=r"has sizes \(2, 8, 8, 8, 1\), sine, .*expected sizes \(2, 8, 8, 1\)"):
        read_loose_checkpoints(states, zoo.spec)
    with pytest.raises(ZooError, match="holds encoder blocks, expected a feed-forward network"):
        read_loose_checkpoints([transformer_state(0)], zoo.spec)


def test_a_family_that_is_not_recognised_lists_what_was_looked_for(tmp_path):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(10):
        zoo.add(f"run{run}", {"lstm.weight_ih_l0": torch.ones(8, 3), "lstm.weight_hh_l0": torch.ones(8, 2)})
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist")
    assert "10 files look like a network of no family that is read, the first is 'run0_75_0.pt'" in str(error.value)
    assert "encoder.0.attention.queries.weight, ..., classifier.fc2.bias" in str(error.value)
    assert "LAYER.weight and LAYER.bias in turn" in str(error.value)


def test_flags_without_a_use_are_errors_and_labels_may_be_any_cell(dwsnets, tmp_path):
    zoo = read_zoo(dwsnets, "mnist", labels="number", columns=Columns(label="id"))
    assert sorted(zoo.labels.tolist()) == [0, 1, 2, 3, 4, 5, 5]
    write_array_zoo(tmp_path / "cifar10")
    for path, settings, expected in (
        (dwsnets, {"columns": Columns(label="x")}, "--label_column x: no such column; there are 'id', 'label', 'side'"),
        (dwsnets, {"columns": Columns(run="x")}, "--run_column x: cannot be combined with a zoo whose paths tell"),
        (dwsnets, {"n_heads": 2, "labels": "class"}, "--n_heads 2: cannot be combined with networks without attention"),
        (tmp_path / "cifar10", {"weights_key": "ema"}, "--weights_key ema: cannot be combined with a zoo of arrays"),
    ):
        with pytest.raises(ZooError, match=expected):
            read_zoo(path, "mnist", **settings)


def test_facts_of_feed_forward_networks_are_refused_for_transformers():
    with pytest.raises(ZooError, match=r"^--omega 3: cannot be combined with transformers"):
        read_zoo("data/digits_transformers.zip", "digits", facts={"omega": "3"})
