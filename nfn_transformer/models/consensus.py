"""Consensus of a zoo's training side: its votes on synthetic inputs, and pictures that its good networks agree on.

Votes are those of `features.consensus`. The pictures are made through the best networks: strokes that move until these
networks see a class in them (`features.strokes`). Half of the best makes each set, and is tested on the other half's.
All is part of the predictor, so that new networks are compared with the same consensus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nfn_transformer import atomic_files
from nfn_transformer.errors import RunError, SpecError
from nfn_transformer.families.registry import AnySpec
from nfn_transformer.features.answers import probe_inputs
from nfn_transformer.features.consensus import (
    AGREEMENTS,
    POWERS,
    TEST_NUMBERS,
    agreement,
    results_of_test,
    shares,
    weights_of_votes,
)
from nfn_transformer.features.strokes import (
    MOST_STROKES,
    Strokes,
    bend_strokes,
    draw_strokes,
    random_strokes,
    within_bounds,
)
from nfn_transformer.hashing import tensors_checksum
from nfn_transformer.resources import map_in_threads
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

CONSENSUS_FILE = "consensus.safetensors"
"""Name of its file in the directory of a run of trees; a network keeps it among its weights."""

FEWEST_NETWORKS = 12
"""Networks of a training side, below which there is no consensus."""

TESTS = (0.0, 0.05, 0.1, 0.1)
"""Deviations of the random affine maps that bend the strokes of each test.

Bent signs are as different as handwriting is: results on them rank networks better than results on noise do."""

_CHECKSUM = "checksum"
_HALVES = 2
_BEST_SHARE, _FEWEST_MAKERS, _MOST_MAKERS = 1 / 6, 2, 24
# Pictures of a class, and among how many random ones the first are chosen.
_OF_A_CLASS, _CANDIDATES, _STEPS, _STEP = 20, 1500, 40, 0.03
_NETWORKS_AT_ONCE, _INPUTS_AT_ONCE, _SHARES_AT_ONCE = 16, 128, 1 << 24
# Voters' answers are kept up to this count of numbers.
_KEPT = 1 << 26


@dataclass(frozen=True)
class Standing:
    """Places of a zoo's networks in the consensus; others than the training side have none."""

    accuracies: Float[Tensor, " n"]
    """Labels of the training side, NaN for all others."""
    halves: Int64[Tensor, " n"]
    """Half of the makers, 0 or 1, -1 for all others."""


class Consensus(nn.Module):
    """Numbers [b, count] of networks from the consensus of a training side.

    Args:
        spec: of the networks.

    Raises:
        SpecError: the networks are no classifiers.
    """

    totals: Tensor
    weights: Tensor
    control: Tensor
    counts: Tensor
    radius: Tensor

    def __init__(self, spec: AnySpec):
        super().__init__()
        self.spec, self.inputs = spec, probe_inputs(spec)
        self.families = self.inputs.counts
        self.standing: Standing | None = None
        self._voted: dict[int, Tensor] = {}
        self._drawn: tuple[tuple[Tensor, ...], list[list[Tensor]]] | None = None
        double = torch.float64
        self.register_buffer("totals", torch.zeros(len(POWERS), sum(self.families), self.inputs.classes, dtype=double))
        self.register_buffer("weights", torch.zeros(len(POWERS), dtype=double))
        pictures = _OF_A_CLASS * self.inputs.classes if self.inputs.picture else 0
        self.register_buffer("control", torch.zeros(_HALVES, pictures, MOST_STROKES, 4, 2))
        self.register_buffer("counts", torch.ones(_HALVES, pictures, dtype=torch.int64))
        self.register_buffer("radius", torch.zeros(_HALVES, pictures))

    @property
    def count(self) -> int:
        """Number of the numbers."""
        tests = len(TESTS) * TEST_NUMBERS if self.inputs.picture else 0
        return AGREEMENTS * len(POWERS) * len(self.families) + tests

    def supports(self, spec: AnySpec) -> bool:
        """Return whether networks of another spec answer the same inputs by the same classes."""
        try:
            return self.inputs.is_like(probe_inputs(spec))
        except SpecError:
            return False

    @torch.no_grad()
    def forward(self, weights: Weights, networks: Int64[Tensor, " b"] | None = None) -> Float[Tensor, "b count"]:
        """Return the numbers of b networks.

        Args:
            weights: of the networks.
            networks: their indices in the zoo of `fit`, whose own votes are left out; None for networks outside of it.
        """
        accuracies, halves = torch.full((weights.batch,), torch.nan), torch.full((weights.batch,), -1)
        if networks is not None and self.standing is not None:
            accuracies, halves = self.standing.accuracies[networks], self.standing.halves[networks]
        device = self.totals.device
        votes, halves = weights_of_votes(accuracies).to(device), halves.to(device)
        labelled = self._tests()
        networks_at_once = max(1, _SHARES_AT_ONCE // self.totals.numel())
        at_once = min(_NETWORKS_AT_ONCE, networks_at_once)

        def numbers(start: int) -> Tensor:
            some = slice(start, start + at_once)
            logits = self._answers(weights[some], None if networks is None else networks[some])
            others = shares(logits, votes[:, some], self.totals, self.weights)
            agreed = agreement(logits, others, self.families)
            if not labelled:
                return agreed
            first, second = (
                torch.cat([results_of_test(self._asked(test, weights[some]), self._labels) for test in tests], dim=1)
                for tests in labelled
            )
            own = halves[some, None]
            tested = torch.where(own == 0, second, torch.where(own == 1, first, (first + second) / 2))
            return torch.cat([agreed, tested], dim=1)

        most = networks_at_once // at_once if device.type == "cpu" else 1
        return torch.cat(map_in_threads(numbers, range(0, weights.batch, at_once), most))

    def fit(self, zoo: Zoo | MixedZoo, train: Int64[Tensor, " m"], seed: int, are_loaded: bool = False) -> None:
        """Take the votes of a training side, and make the pictures.

        Args:
            zoo: with accuracies as labels.
            train: indices of the training side, at least FEWEST_NETWORKS.
            seed: of the makers' halves and the first strokes.
            are_loaded: votes and pictures are loaded; only who voted, and what, is told again.
        """
        generator = make_generator(seed, "consensus")
        labels = zoo.labels[train]
        best = train[labels.argsort(descending=True, stable=True)]
        best = best[: max(_HALVES * _FEWEST_MAKERS, round(len(train) * _BEST_SHARE))]
        best = best[torch.randperm(len(best), generator=generator)]
        accuracies, halves = torch.full((len(zoo),), torch.nan), torch.full((len(zoo),), -1)
        accuracies[train] = labels
        makers = best.chunk(_HALVES)
        for half, some in enumerate(makers):
            halves[some] = half
        self.standing = Standing(accuracies, halves)
        self._take_votes(zoo, train, are_loaded)
        if are_loaded or self.inputs.picture is None:
            return
        for half, some in enumerate(makers):
            asked = [weights for _, weights in _weights_of(zoo, some[:_MOST_MAKERS].sort().values, self.totals.device)]
            self.control[half], self.counts[half], self.radius[half] = self._make_strokes(asked, generator).tensors()

    @torch.no_grad()
    def _take_votes(self, zoo: Zoo | MixedZoo, train: Tensor, are_loaded: bool) -> None:
        """Ask the training side, sum its votes unless they are loaded, and keep its answers unless they are many.

        A resumed run asks the same networks together, so that it has the same answers to the last bit.
        """
        assert self.standing is not None
        self._voted.clear()
        keeps = len(train) * self.totals[0].numel() <= _KEPT
        if not are_loaded:
            self.totals.zero_()
            self.weights.zero_()
        elif not keeps:
            return
        for index, weights in _weights_of(zoo, train, self.totals.device):
            answers = self._answers(weights)
            if keeps:
                self._voted.update(zip(index.tolist(), answers, strict=True))
            if not are_loaded:
                votes = weights_of_votes(self.standing.accuracies[index]).to(self.totals)
                self.totals += torch.einsum("pb,bnc->pnc", votes, answers.double().softmax(-1))
                self.weights += votes.sum(1)

    def forget_answers(self) -> None:
        """Free the memory of the training side's answers, once its features are computed."""
        self._voted.clear()

    @property
    def _labels(self) -> Tensor:
        return torch.arange(self.inputs.classes, device=self.totals.device).repeat_interleave(_OF_A_CLASS)

    def pictures(self) -> Float[Tensor, "halves m channels height width"]:
        """Return the pictures of each half, equally many of each class, one class after another."""
        strokes = Strokes(self.control.flatten(0, 1), self.counts.flatten(), self.radius.flatten())
        return self._draw(strokes).unflatten(0, self.radius.shape)

    def _draw(self, strokes: Strokes) -> Float[Tensor, "m channels height width"]:
        assert self.inputs.picture is not None, "networks read images"
        channels, *size = self.inputs.picture
        return draw_strokes(strokes, channels, (size[0], size[1]))

    def _tests(self) -> list[list[Tensor]]:
        """Return the pictures [m, ...] of each half's tests. Drawing takes seconds: it is done once for the strokes."""
        if self.inputs.picture is None:
            return []
        strokes = (self.control, self.counts, self.radius)
        if self._drawn is None or not _are_equal(strokes, self._drawn[0]):
            generator = make_generator(0, "consensus", "tests")
            halves = []
            for parameters in zip(*strokes, strict=True):
                halves.append([self._draw(bend_strokes(Strokes(*parameters), bend, generator)) for bend in TESTS])
            self._drawn = tuple(map(torch.clone, strokes)), halves
        return self._drawn[1]

    def _answers(self, weights: Weights, networks: Tensor | None = None) -> Float[Tensor, "b n classes"]:
        """Return the answers to all inputs; those of networks that voted, by their index in the zoo, are kept ones."""
        indices = [-1] * weights.batch if networks is None else networks.tolist()
        unknown = [place for place, index in enumerate(indices) if index not in self._voted]
        if len(unknown) == weights.batch:
            return torch.cat([self._asked(family, weights) for family in self.inputs.families], dim=1)
        asked = iter(self._answers(weights[unknown]) if unknown else ())
        return torch.stack([self._voted[index] if index in self._voted else next(asked) for index in indices])

    def _asked(self, inputs: Tensor, weights: Weights) -> Float[Tensor, "b n classes"]:
        """Return the answers to many inputs [n, ...], without gradients."""
        if self.inputs.read is not None:
            return self.inputs.read(inputs, weights)
        return torch.cat([self.inputs.answer(some, weights) for some in inputs.split(_INPUTS_AT_ONCE)], dim=1)

    def _make_strokes(self, makers: list[Weights], generator: torch.Generator) -> Strokes:
        """Return strokes in which the makers see a class: the best of random ones, moved until they are surer still."""
        device = self.totals.device
        candidates = random_strokes(_CANDIDATES, generator).to(device)
        with torch.no_grad():
            drawn = self._draw(candidates)
            sure = torch.cat([self._asked(drawn, some).log_softmax(-1) for some in makers]).mean(0)  # [n, classes]
        strokes = candidates[sure.topk(_OF_A_CLASS, dim=0).indices.T.flatten()]
        control, radius = (tensor.clone().requires_grad_() for tensor in (strokes.control, strokes.radius))
        optimizer, networks = torch.optim.Adam([control, radius], lr=_STEP), sum(some.batch for some in makers)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            for piece in torch.arange(len(radius), device=device).split(_INPUTS_AT_ONCE):
                drawn = self._draw(Strokes(control[piece], strokes.count[piece], radius[piece]))
                labels = self._labels[piece]
                for some in makers:
                    log_p = self.inputs.answer(drawn, some).log_softmax(-1)
                    right = log_p.gather(-1, labels.expand(some.batch, -1)[..., None])
                    (-right.sum() / networks / len(radius)).backward(retain_graph=some is not makers[-1])
            optimizer.step()
            with torch.no_grad():
                bounded = within_bounds(Strokes(control, strokes.count, radius))
                control.copy_(bounded.control)
                radius.copy_(bounded.radius)
        return Strokes(control.detach(), strokes.count, radius.detach())


def save_consensus(path: Path, consensus: Consensus) -> None:
    """Write votes and pictures (safetensors) in one step, with a checksum in the header."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in consensus.state_dict().items()}
    with atomic_files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_CHECKSUM: tensors_checksum("", tensors)})


def load_consensus(path: Path, spec: AnySpec) -> Consensus:
    """Return the consensus in a file, for networks of a spec.

    Raises:
        RunError: the file is missing, damaged, or of networks of another kind.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dict
            if (stored.metadata() or {}).get(_CHECKSUM) != tensors_checksum("", tensors):
                raise ValueError("damaged: its numbers have another checksum than they were written with")
        consensus = Consensus(spec)
        consensus.load_state_dict(tensors)
        return consensus
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise RunError(f"{path}: holds no consensus of these networks: {error}") from None


def _weights_of(zoo: Zoo | MixedZoo, index: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Weights]]:
    """Yield indices [b] and weights of the networks that `index` selects, as many as are asked at once."""
    for some in index.split(_NETWORKS_AT_ONCE):
        for positions, rows, of_size in zoo.by_size(some):
            yield some[positions], of_size.weights_of(rows).to(device)


def _are_equal(tensors: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Return whether tensors are the same numbers, of one type and in one place."""
    pairs = zip(tensors, others, strict=True)
    return all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in pairs)
