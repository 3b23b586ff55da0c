"""Zoos of standard transformers: trained alone as in company, written and read; libraries open them in another test."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from standard_networks import STANDARD_SPECS, inputs_of, random_standard

import nfn_transformer as nfn
from nfn_transformer import make_zoo
from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import EXIT_INTERRUPTED, run_command
from nfn_transformer.errors import UserError
from nfn_transformer.generation import standard_forward
from nfn_transformer.generation.images import digits
from nfn_transformer.generation.ranges import Choice
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.standard_forward import training_outputs
from nfn_transformer.generation.standard_networks import KINDS, StandardSizes, standard_config, standard_spec
from nfn_transformer.generation.standard_population import StandardPopulation, StandardTraining, train_standard
from nfn_transformer.generation.standard_recipe import (
    StandardRecipe,
    StandardRun,
    StandardSettings,
    read_standard_recipe,
)
from nfn_transformer.generation.standard_tasks import StandardTask
from nfn_transformer.generation.standard_zoo import StandardZooPlan, most_on_gpu
from nfn_transformer.resources import free_bytes
from nfn_transformer.weights.standard_layouts import recognize_transformer
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.weights.standard_state_dicts import standard_shapes
from nfn_transformer.zoo.transformer_facts import facts_of_config

TINY = [
    *("--runs", "4", "--epochs", "1", "--embed_dim", "8", "--n_attention_heads", "2", "--n_layers", "1"),
    *("--batch_size", "8", "--train_images", "80", "--test_images", "30", "--population", "3", "--jobs", "1"),
]
VIT = ["--family", "vit", *TINY]
SIZES = StandardSizes(8, 2, 2, 12, 4)
ADAM = StandardSettings("adam", 0.01, "cosine", 0.2, 1e-3, 0.2, 1.0, 2)


def _samples(inputs: torch.Tensor) -> LabelledSamples:
    return LabelledSamples(inputs, torch.arange(len(inputs)) % 3)


def _task(kind: str) -> StandardTask:
    if kind == "images":
        inputs = digits().train.inputs[:24].double()
        return StandardTask(*[_samples(inputs)] * 2, _samples(inputs[:0]), 3)
    samples = _samples(torch.randint(11, (24, 7), generator=torch.Generator().manual_seed(0)))
    is_next = kind == "next_token"
    return StandardTask(*[samples] * 3, 11 if is_next else 3, 6 if is_next else 7, 11, is_next)


def _rows(out: Path) -> list[dict[str, str]]:
    with open(out.with_name(f"{out.stem}_table.csv") if out.suffix else out / "table.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", STANDARD_SPECS)
def test_the_training_pass_is_the_networks_function(name, generator):
    spec = STANDARD_SPECS[name]
    weights, inputs = random_standard(spec, 2, generator), inputs_of(spec)
    ours = training_outputs(inputs, weights, lambda numbers: numbers)
    torch.testing.assert_close(ours, standard_outputs(inputs, weights), rtol=0, atol=1e-12)


def test_no_kernel_of_fused_attention_reads_more_samples_than_a_grid_has_blocks(monkeypatch, generator):
    counts, attention = [], standard_forward.scaled_dot_product_attention

    def counted(queries, *rest, **settings):
        counts.append(len(queries))
        return attention(queries, *rest, **settings)

    monkeypatch.setattr(standard_forward, "scaled_dot_product_attention", counted)
    spec = replace(STANDARD_SPECS["rms post-norm"], blocks=1, heads=1, groups=1)
    weights = random_standard(spec, 2, generator)
    inputs = torch.randint(spec.vocabulary, (40_000, 2), generator=generator)
    outputs = training_outputs(inputs, weights, lambda numbers: numbers)
    assert counts == [65_535, 80_000 - 65_535]
    torch.testing.assert_close(outputs[:, ::500], standard_outputs(inputs[::500], weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("share", "processes", "least", "most"), [(0.01, 2, 20, 30), (1, 1, 1, 1), (0, 1, 1024, 1024)])
def test_a_gpu_trains_what_half_of_its_memory_holds(monkeypatch, share, processes, least, most):
    """The GPU's counts are made up: scoring a network takes a share of the free memory, training it nothing."""
    before, peaks = 1000, iter([0.0, 8 * share * free_bytes(torch.device("cpu"))])
    for name, answer in {
        "reset_peak_memory_stats": lambda device: None,
        "memory_allocated": lambda device: before,
        "max_memory_allocated": lambda device: before + next(peaks),
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    shared = {"seed": 0, "batch_size": 4, "snapshots": ("100",), "snapshot_unit": "percent"}
    plan = StandardZooPlan(Path("zoo"), "vit", False, _task("images"), 2, [StandardRun(ADAM, SIZES)], **shared)
    assert least <= most_on_gpu(plan, torch.device("cpu"), processes) <= most


@pytest.mark.parametrize("family", KINDS)
def test_written_networks_are_recognised_as_what_was_trained(family):
    spec = standard_spec(family, SIZES, _task(KINDS[family].task), 2)
    found = recognize_transformer(standard_shapes(spec), facts_of_config(standard_config(family, spec, half=False)))
    assert found.spec == spec
    assert not found.unknown


def test_a_network_in_company_is_the_network_alone():
    task = _task("images")
    spec = standard_spec("vit", SIZES, task, 4)
    training = StandardTraining(spec, 4, 0, ("50", "100"), "percent", half=False)
    settings = [ADAM, replace(ADAM, schedule="constant", train_fraction=0.5), replace(ADAM, optimizer="sgd", epochs=0)]

    def train(chosen: list[int]):
        part = train_standard(
            StandardPopulation(training, chosen, [settings[n] for n in chosen], task), lambda ended: 0
        )
        return {(int(n), int(e)): row for n, e, row in zip(part["numbers"], part["epochs"], part["rows"], strict=True)}

    together = train([0, 1, 2])
    assert together.keys() == {(0, 1), (0, 2), (1, 1), (1, 2), (2, 0)}
    for number in range(3):
        for key, row in train([number]).items():
            torch.testing.assert_close(together[key], row, rtol=0, atol=1e-6)
    assert (together[0, 2] - together[0, 1]).abs().max() > 1e-3


def test_scores_are_those_of_the_written_networks(tmp_path, capsys):
    flags = ["--snapshots", "50,100", "--epochs", "2,3", "--embed_dim", "8,12", "--n_layers", "1,2"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *VIT, *flags]) == 0
    table = _rows(tmp_path / "zoo")
    assert len({(row["embed_dim"], row["n_layers"]) for row in table}) > 2
    zoo = nfn.read_zoo(tmp_path / "zoo", "", "all", table=tmp_path / "zoo/table.csv", progress=False)
    assert len(zoo) == len(table) == 8
    scores = [torch.tensor([float(row[f"{part}_accuracy"]) for row in table]) for part in ("test", "fresh")]
    assert f"tau with the same on fresh samples {nfn.kendall_tau(*scores):.4f}\n" in capsys.readouterr().out
    test = digits().test
    for part in zoo.parts:
        for index, name in enumerate(part.names):
            logits = standard_outputs(test.inputs[:60], part.weights_of(part.rows[index : index + 1]))[0]
            right = logits.argmax(1) == test.labels[:60]
            (row,) = [row for row in table if row["file"].endswith(name)]
            assert right[:30].double().mean().item() == pytest.approx(float(row["test_accuracy"]), abs=1e-6)
            assert right[30:].double().mean().item() == pytest.approx(float(row["fresh_accuracy"]), abs=1e-6)
            assert float(part.labels[index]) == pytest.approx(float(row["test_accuracy"]), abs=1e-6)


def test_next_tokens_of_a_text_are_learned(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 400)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("lr: {adam: 0.02}\nw_init_std: 0.1\ndropout: 0\nepochs: {cycle: [0, 4]}\ntrain_fraction: 1\n")
    flags = ["--text", str(text), "--tokens", "9", "--recipe", str(recipe), "--half", "True"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo.zip"), "--family", "gpt", *TINY, *flags]) == 0
    table = _rows(tmp_path / "zoo.zip")
    assert [row["epoch"] for row in table] == ["0", "4", "0", "4"]
    assert [float(row["test_loss"]) < 1.0 for row in table] == [False, True] * 2
    assert "--task regress --label_column test_loss --enc_mode complete --zoo " in capsys.readouterr().out
    path, table_path = tmp_path / "zoo.zip", tmp_path / "zoo_table.csv"
    zoo = nfn.read_zoo(path, "", table=table_path, labels="number", progress=False)
    assert zoo.labels.tolist() == pytest.approx([float(row["test_loss"]) for row in table], abs=1e-5)


def test_an_interrupted_command_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.zip", tmp_path / "broken.zip"
    own = tmp_path / "whole_table.csv"
    own.write_text("a user's own")
    with pytest.raises(UserError, match=r"whole.zip: .*whole_table.csv already exists; choose another"):
        make_zoo.main(["--out", str(whole), *VIT])
    assert own.read_text() == "a user's own"
    own.unlink()
    assert make_zoo.main(["--out", str(whole), *VIT]) == 0
    with monkeypatch.context() as patch:
        train, calls = StandardZooPlan.train, []

        def interrupted(*given):
            calls.append(0)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return train(*given)

        patch.setattr(StandardZooPlan, "train", interrupted)
        assert make_zoo.main(["--out", str(broken), *VIT]) == EXIT_INTERRUPTED
    (tmp_path / "broken_table.csv").touch()  # as a kill leaves it that comes just before the zip
    assert make_zoo.main(["--out", str(broken), *VIT]) == 0
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken.zip.parts").exists()


def test_the_bundled_recipe_stops_networks_in_turn_and_an_untrained_one_measures_no_memory():
    defaults = StandardRecipe(9, *[Choice((8,))] * 4)
    recipe = read_standard_recipe(find_bundled(Path("simple_vits.yaml"), RECIPES), defaults)
    runs = replace(recipe, runs=9).draw(0)
    assert [run.settings.epochs for run in runs] == [0, 1, 2, 3, 5, 10, 13, 18, 23]
    assert {run.sizes for run in runs} == {StandardSizes(32, 4, 2, 64, 16)}
    runs[5] = replace(runs[5], sizes=StandardSizes(64, 4, 2, 64, 16))
    shared = {"seed": 0, "batch_size": 4, "snapshots": ("100",), "snapshot_unit": "percent"}
    path, task = Path("zoo"), _task("images")
    assert StandardZooPlan(path, "simple_vit", False, task, 4, runs[:5], **shared).largest() == 4
    assert StandardZooPlan(path, "simple_vit", False, task, 4, runs, **shared).largest() == 5


@pytest.mark.parametrize("runs", ["[5, 10]", "{cycle: [5]}"])
def test_a_recipe_has_one_count_of_networks(tmp_path, runs):
    (tmp_path / "recipe.yaml").write_text(f"runs: {runs}\n")
    with pytest.raises(UserError, match=r"runs has .*, expected one whole number"):
        read_standard_recipe(tmp_path / "recipe.yaml", StandardRecipe(9, *[Choice((8,))] * 4))


def test_the_command_and_its_plans_know_the_same_families():
    assert KINDS.keys() == set(make_zoo._STANDARD)
    assert [name for name, kind in KINDS.items() if kind.task == "texts"] == [*make_zoo._REQUIRED["texts"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--family", "vit", "--patch", "3"], "--patch 3: does not divide the images' 8 x 8 pixels"),
        (["--family", "vit", "--embed_dim", "8,9"], "--n_attention_heads 2: does not divide embed_dim 9"),
        (["--family", "vit", "--text", "x"], "--text requires --family gpt or llama"),
        (["--family", "bert"], "--family bert requires --texts"),
        (["--family", "gpt", "--images", "x"], "--images requires --family transformer or siren or cnn or vit or "),
        (["--family", "transformer", "--n_layers", "1,2"], "--n_layers 1,2: expected one number with --family trans"),
        (["--family", "llama", "--snapshots", "best"], "--snapshots best: expected whole numbers with --family llama"),
        (["--family", "gpt", "--text", "no"], "--text no: no such file"),
    ],
)
def test_bad_flags_are_named(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), *TINY, *flags])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
