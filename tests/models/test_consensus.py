"""The consensus of a training side: votes without one's own, exact symmetries, and classes that mean something."""

import csv
from dataclasses import dataclass, replace

import pytest
import torch
from standard_networks import STANDARD_SPECS, random_standard
from symmetry import random_transformer

from nfn_transformer import gbm, load_predictor
from nfn_transformer.errors import RunError, SpecError, UserError
from nfn_transformer.features import answers as inputs_of_families
from nfn_transformer.features import consensus as numbers_of
from nfn_transformer.features.answers import ProbeInputs, probe_inputs, stroke_pictures
from nfn_transformer.features.strokes import MOST_STROKES, Strokes, draw_strokes, random_strokes
from nfn_transformer.groups.complete import CompleteElement
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.standard_transformer import StandardElement
from nfn_transformer.models import consensus as module
from nfn_transformer.models import consensus_tests
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.consensus import Consensus, load_consensus, save_consensus
from nfn_transformer.models.consensus_tests import BENDS, EXCHANGED, labels_of_tests, text_tests
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.training.trained_predictor import load_network, save_predictor
from nfn_transformer.trees.features import check_readable
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec, TransformerSpec
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.zoo.several_sizes import MixedZoo

TRAIN, ONE = torch.arange(24), torch.ones(1, dtype=torch.float64)
_ask = ProbeInputs.ask


@pytest.fixture(scope="module")
def few_pictures():
    """Few pictures that move little."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("OF_A_CLASS", 2), ("_CANDIDATES", 30), ("_STEPS", 3)):
            patch.setattr(consensus_tests, name, value)
        patch.setattr(module, "OF_A_CLASS", 2)
        yield


@pytest.fixture(scope="module")
def fitted(small, few_pictures) -> Consensus:
    """The consensus of 24 networks."""
    consensus = Consensus(small.spec)
    consensus.fit(small, TRAIN, seed=1)
    return consensus


def test_no_network_is_compared_with_its_own_vote(small, fitted):
    """Votes are counted again, once for each network and without it."""
    inputs = torch.cat(probe_inputs(small.spec).families)
    weights, accuracies = small.weights(TRAIN), small.labels[TRAIN].double()
    logits = probe_inputs(small.spec).answer(inputs, weights)
    votes = numbers_of.weights_of_votes(small.labels[TRAIN])
    found = numbers_of.shares(logits, votes, fitted.totals, fitted.weights)
    p = logits.double().softmax(-1)
    for own in (0, 7):
        others = TRAIN[own != TRAIN]
        for place, power in enumerate(numbers_of.POWERS):
            w = accuracies[others] ** power
            expected = torch.einsum("i,inc->nc", w, p[others]) / w.sum()
            assert torch.allclose(found[place, own].double(), expected, atol=1e-6)
    stranger = numbers_of.shares(logits[:1], torch.zeros_like(votes[:, :1]), fitted.totals, fitted.weights)
    assert (stranger - found[:, :1]).abs().max() > 1e-4  # the own vote counts where nobody says whose it is


def test_answers_are_read_faster_and_up_to_rounding_alike(small, generator, monkeypatch):
    inputs = probe_inputs(small.spec)
    images, weights = inputs.families[0], small.weights(torch.arange(9))
    exact = inputs.answer(images, weights.to(torch.float64))
    assert torch.allclose(inputs.read(images, weights.to(torch.float64)), exact, rtol=0, atol=1e-9)  # TINY_EPSILON
    assert (inputs.read(images, weights) - exact).abs().max() < 4 * (inputs.answer(images, weights) - exact).abs().max()
    alone, threads = inputs.read(images, weights), torch.get_num_threads()
    monkeypatch.setattr("nfn_transformer.features.transformer_answers._NUMBERS_AT_ONCE", 1 << 14)
    few = inputs.read(images, weights)
    try:
        torch.set_num_threads(2)
        assert torch.equal(inputs.read(images, weights), few)
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(few, alone, rtol=0, atol=1e-4)
    texts = TransformerSpec((BlockSpec(3, 16, 8, 12, 20), BlockSpec(1, 16, 9, 8, 7)), FeedForwardSpec((16, 8, 4)))
    inputs, weights = probe_inputs(texts), random_transformer(texts, 2, generator)
    exact = inputs.answer(inputs.families[0], weights)
    assert torch.allclose(inputs.read(inputs.families[0], weights), exact, rtol=0, atol=1e-9)
    assert inputs.read(inputs.families[0], weights[:0]).shape == (0, *exact.shape[1:])


def test_those_who_voted_are_asked_once(small, fitted, monkeypatch):
    asked = []
    monkeypatch.setattr(
        ProbeInputs, "ask", lambda self, inputs, weights: asked.append(weights.batch) or _ask(self, inputs, weights)
    )
    some = torch.tensor([30, 3, 31, 5])  # 30 and 31 had no vote
    tests = 2 * len(BENDS)
    numbers = fitted(small.weights(some), some)
    assert asked == [2] * len(fitted.families) + [4] * tests
    monkeypatch.setattr(fitted, "_voted", dict(fitted._voted))
    fitted.forget_answers()
    assert torch.allclose(fitted(small.weights(some), some), numbers, rtol=0, atol=1e-5)


def test_makers_are_graded_by_the_other_half_alone(small, fitted):
    halves = fitted.standing.halves
    assert {half: int((halves == half).sum()) for half in (0, 1)} == {0: 2, 1: 2}
    worst_maker = small.labels[halves >= 0].min()
    assert (small.labels[TRAIN][halves[TRAIN] < 0] <= worst_maker).all()
    maker = (halves == 0).nonzero().flatten()[:1]
    before = fitted(small.weights(maker), maker)
    changed = Consensus(small.spec)
    changed.load_state_dict(fitted.state_dict())
    changed.standing, changed._voted = fitted.standing, fitted._voted
    changed.control[0] *= 0.5  # the set that its own half made
    assert torch.equal(changed(small.weights(maker), maker), before)
    changed.control[1] *= 0.5
    assert not torch.equal(changed(small.weights(maker), maker), before)


def test_a_resumed_run_knows_again_who_voted(small, fitted):
    again = Consensus(small.spec)
    again.load_state_dict(fitted.state_dict())
    weights = small.weights(TRAIN)
    assert not torch.equal(again(weights, TRAIN), fitted(weights, TRAIN))
    again.fit(small, TRAIN, seed=1, are_loaded=True)
    assert torch.equal(again(weights, TRAIN), fitted(weights, TRAIN))


def test_symmetries_move_nothing_and_exchanged_classes_do(small, fitted, generator):
    double = Consensus(small.spec)
    double.load_state_dict(fitted.state_dict())
    double.double()
    U = small.weights(torch.arange(30, 33)).to(torch.float64)
    before = double(U)
    after = double(CompleteElement.sample(small.spec, generator, condition=10.0).act(U))
    assert (after - before).abs().max() < 1e-9
    last = U.classifier.weights[-1].flip(2), U.classifier.biases[-1].flip(2)
    classifier = replace(
        U.classifier, weights=(*U.classifier.weights[:-1], last[0]), biases=(*U.classifier.biases[:-1], last[1])
    )
    agreed = double.count - len(BENDS) * numbers_of.TEST_NUMBERS
    exchanged = double(replace(U, classifier=classifier))
    assert (exchanged - before)[:, :agreed].abs().max() > 0.01


@pytest.mark.parametrize("ensemble", [1, 2])
def test_a_saved_predictor_has_its_consensus(ensemble, small, fitted, tmp_path):
    flags = {"enc_mode": "complete", "consensus": True, "ensemble": ensemble, "dropout": 0.0}
    model = build_predictor(small.spec, ModelConfig.from_flags(flags), seed=1)
    assert model.needs_consensus
    first = model.members[0] if ensemble > 1 else model
    first.branches["encoder"].consensus.load_state_dict(fitted.state_dict())
    model.fit_normalization([model.featurize(small.weights(TRAIN))])
    save_predictor(tmp_path / "best.safetensors", model.eval(), 1)
    loaded, _, _ = load_network(tmp_path / "best.safetensors")
    weights = small.weights(torch.arange(30, 36))
    assert torch.equal(loaded.eval()(weights), model(weights))
    assert sum(".control" in name for name in model.state_dict()) == 1


def test_trees_keep_their_consensus_beside_them(small_zoo, few_pictures, tmp_path):
    run = tmp_path / "run"
    flags = ["--model", "extra_trees", "--n_estimators", "20", "--features", "consensus"]
    flags += ["--dataset", "digits", "--wandb", "False"]
    assert gbm.main([*flags, "--data_path", str(small_zoo), "--out_dir", str(run)]) == 0
    assert (run / "consensus.png").read_bytes().startswith(b"\x89PNG")
    predictor = load_predictor(run, "cpu")
    with (run / "test_predictions.csv").open() as file:
        written = [float(row["predicted"]) for row in csv.DictReader(file)]
    zoo = predictor.read_zoo()
    found = predictor.predict(zoo.weights(predictor.test_split(zoo)))  # networks that nobody names
    assert found.tolist() == pytest.approx(written, abs=1e-6)
    file = run / "consensus.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"consensus\.safetensors: holds no consensus of these networks: damaged"):
        load_predictor(run, "cpu").predict(zoo)
    with pytest.raises(UserError, match=r"at least 12 networks to train, .* got --task accuracy, 9 networks"):
        gbm.main([*flags, "--data_path", str(small_zoo), "--train_networks", "9"])


def test_pictures_are_drawn_once(small, fitted, monkeypatch):
    """They are drawn again only where the strokes have changed."""
    drawn, weights = [], small.weights(torch.arange(30, 31))
    consensus = Consensus(small.spec)
    consensus.load_state_dict(fitted.state_dict())
    before = consensus(weights)
    monkeypatch.setattr(consensus_tests, "draw_strokes", lambda *args: drawn.append(args) or draw_strokes(*args))
    assert torch.equal(consensus(weights), before)
    assert not drawn
    consensus.double()(weights.to(torch.float64))
    assert drawn


@pytest.fixture
def few_strokes(monkeypatch):
    """Few strokes among the inputs, which no other test keeps."""
    probe_inputs.cache_clear()
    stroke_pictures.cache_clear()
    monkeypatch.setattr(inputs_of_families, "STROKE_PICTURES", 24)
    yield
    probe_inputs.cache_clear()
    stroke_pictures.cache_clear()


@dataclass(frozen=True)
class _Part:
    """Zoo of one size, as far as its sizes are checked."""

    names: list[str]
    spec: StandardTransformerSpec


@dataclass(frozen=True)
class _Networks:
    """Zoo in memory, as `Consensus.fit` reads it."""

    labels: torch.Tensor
    networks: StandardTransformerWeights

    def by_size(self, index):
        yield torch.arange(len(index)), index, self

    def weights_of(self, rows):
        return self.networks[rows]

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize(
    ("name", "families", "positions"),
    [("vit", 8, 1), ("bert", 3, 1), ("post-norm of vectors", 2, 1), ("gpt", 3, 9), ("gpt of many words", 3, 1)],
)
def test_standard_transformers_agree(name, families, positions, few_strokes, few_pictures, generator, monkeypatch):
    spec = STANDARD_SPECS[name.removesuffix(" of many words")]
    if name.endswith("words"):
        monkeypatch.setattr("nfn_transformer.features.standard_answers._SHARES", 20 * 11)
    zoo = _Networks(torch.linspace(0.2, 0.9, 14), random_standard(spec, 14, generator))
    consensus, train = Consensus(spec), torch.arange(12)
    consensus.fit(zoo, train, seed=1)
    inputs = consensus.inputs
    assert (len(inputs.families), inputs.answers_each) == (families, positions)
    assert consensus.totals.shape[1:] == (sum(inputs.counts), spec.head_sizes[-1])
    outputs = [
        standard_outputs(family.to(ONE) if family.is_floating_point() else family, zoo.networks)
        for family in inputs.families
    ]
    if spec.pooling == "none":  # what a language model says after each of the last prefixes
        outputs = [each[:, :, -positions:].flatten(1, 2) for each in outputs]
    p = torch.cat(outputs, dim=1).softmax(-1)
    logits = consensus._answers(zoo.networks)
    assert torch.allclose(logits.softmax(-1), p, atol=1e-12)
    # Never one's own vote.
    votes = numbers_of.weights_of_votes(zoo.labels[train])
    found = numbers_of.shares(logits[:12], votes, consensus.totals, consensus.weights)
    w = zoo.labels[1:12].double() ** numbers_of.POWERS[0]
    expected = torch.einsum("i,inc->nc", w, p[1:12]) / w.sum()
    assert torch.allclose(found[0, 0], expected, atol=1e-9)
    # The group moves nothing, other classes do.
    consensus.double()
    others = zoo.networks[12:]
    before = consensus(others)
    moved = StandardElement.sample(spec, generator).act(others)
    assert relative_error(consensus(moved), before) < 1e-9
    if not spec.tied:
        head = (*others.head_weights[:-1], others.head_weights[-1].flip(2))
        assert (consensus(replace(others, head_weights=head)) - before).abs().max() > 0.01


def test_texts_of_shared_word_vectors(generator):
    """Networks without an embedding read the same random vectors, and vote without pictures."""
    block = BlockSpec(2, 6, 3, 2, 5)
    spec = TransformerSpec((block, block), FeedForwardSpec((6, 5, 4)), None)
    zoo = _Networks(torch.linspace(0.2, 0.9, 14), random_transformer(spec, 14, generator))
    consensus = Consensus(spec).double()
    consensus.fit(zoo, torch.arange(12), seed=1)
    assert (consensus.families, consensus.control.numel()) == ([48, 48, 48], 0)
    without = Consensus(spec).double()
    without.fit(zoo, torch.arange(1, 12), seed=1)
    one = zoo.networks[:1]
    assert relative_error(consensus(one, torch.zeros(1, dtype=torch.int64)), without(one)) < 1e-9
    assert relative_error(consensus(one), without(one)) > 1e-4
    others = zoo.networks[12:]
    moved = CompleteElement.sample(spec, generator, condition=10.0).act(others)
    assert relative_error(consensus(moved), consensus(others)) < 1e-9


def test_a_saved_predictor_of_vits_has_its_consensus(few_strokes, few_pictures, generator, tmp_path):
    spec = STANDARD_SPECS["vit"]
    zoo = _Networks(torch.linspace(0.2, 0.9, 12), random_standard(spec, 12, generator).to(torch.float32))
    flags = {"enc_mode": "complete", "consensus": True, "ensemble": 1, "dropout": 0.0}
    model = build_predictor(spec, ModelConfig.from_flags(flags), seed=1)
    assert model.needs_consensus
    model.consensus.fit(zoo, torch.arange(12), seed=1)
    model.fit_normalization([model.featurize(zoo.networks)])
    save_predictor(tmp_path / "best.safetensors", model.eval(), 1)
    loaded, _, _ = load_network(tmp_path / "best.safetensors")
    assert torch.equal(loaded.eval()(zoo.networks), model(zoo.networks))
    assert loaded.supports(replace(spec, blocks=3))
    assert not loaded.supports(replace(spec, head_sizes=(8, 4)))  # other classes
    with pytest.raises(SpecError, match="head of 0 outputs, expected classifiers or language models"):
        Consensus(STANDARD_SPECS["encoder alone"])


def test_strokes_are_drawn_and_move(generator):
    strokes = random_strokes(6, generator)
    assert strokes.count.min() >= 1
    assert strokes.count.max() <= MOST_STROKES
    for size in ((8, 8), (28, 20)):
        drawn = draw_strokes(strokes, 3, size)
        assert drawn.shape == (6, 3, *size)
        assert drawn.abs().max() <= 1
        assert drawn.amax((1, 2, 3)).min() > 0  # a bright stroke in each
    # A straight stroke from left to right lights the middle row and nothing above it.
    line = torch.zeros(1, MOST_STROKES, 4, 2)
    line[..., 0] = torch.linspace(-0.7, 0.7, 4)
    straight = Strokes(line.requires_grad_(), torch.tensor([1]), torch.tensor([0.1]))
    picture = draw_strokes(straight, 1, (29, 29))[0, 0]
    assert picture[14, 14] > 0.8
    assert picture[:10].max() < -0.99
    picture[8].sum().backward()
    assert line.grad[0, 0, :, 1].sum() < 0  # upwards the row gets brighter
    assert torch.equal(line.grad[0, 1:], torch.zeros(3, 4, 2))  # strokes that are not drawn


def test_texts_are_those_that_makers_are_surest_of(few_pictures, generator, tmp_path):
    """Each half is graded by the other's texts, and random words replace more of them from test to test."""
    networks = random_standard(STANDARD_SPECS["bert"], 14, generator)
    consensus = Consensus(networks.spec).double()
    consensus.fit(_Networks(torch.linspace(0.2, 0.9, 14), networks), torch.arange(12), seed=1)
    inputs, labels = consensus.inputs, labels_of_tests(consensus.inputs, torch.device("cpu"))
    halves = consensus.standing.halves
    for half in (0, 1):
        makers = networks[(halves == half).nonzero().flatten()]
        texts, random = consensus.texts[half], inputs.draw_texts(len(labels), generator)
        sure, less = (
            inputs.ask(each, makers).log_softmax(-1).mean(0).gather(1, labels[:, None]).mean()
            for each in (texts, random)
        )
        assert sure > less
        same, *others = text_tests(inputs, texts, generator)
        assert torch.equal(same, texts)
        for share, other in zip(EXCHANGED[1:], others, strict=True):
            assert abs((other != texts).double().mean() - share) < 0.2
    tests, maker = len(EXCHANGED) * numbers_of.TEST_NUMBERS, (halves == 0).nonzero().flatten()[:1]
    before = consensus(networks[maker], maker)
    consensus.texts[0] = consensus.texts[0].flip(0)  # the set that its own half made
    assert torch.equal(consensus(networks[maker], maker), before)
    consensus.texts[1] = consensus.texts[1].flip(0)  # texts of other classes
    after = consensus(networks[maker], maker)
    assert torch.equal(after[:, :-tests], before[:, :-tests])
    assert not torch.equal(after[:, -tests:], before[:, -tests:])
    save_consensus(tmp_path / "consensus.safetensors", consensus)
    loaded = load_consensus(tmp_path / "consensus.safetensors", networks.spec)
    assert torch.equal(loaded.texts, consensus.texts)


@pytest.mark.parametrize("of_other", ["words", "classes"])
def test_networks_of_other_words_or_classes_have_no_consensus_together(of_other):
    spec = STANDARD_SPECS["bert"]
    changed = replace(spec, vocabulary=spec.vocabulary + 1)
    if of_other == "classes":
        changed = replace(spec, head_sizes=(*spec.head_sizes[:-1], spec.head_sizes[-1] + 1))
    both = (_Part(["a.pt"], spec), _Part(["b.pt"], changed))
    for parts in (both, both[::-1]):
        zoo = MixedZoo(parts)
        with pytest.raises(UserError, match=r"same classes and inputs, .* zoo 'berts' differ, the first of each size"):
            check_readable("consensus", zoo, "berts")
    deeper = replace(spec, blocks=spec.blocks + 1)
    check_readable("consensus", MixedZoo((both[0], _Part(["c.pt"], deeper))), "berts")
