"""Consensus of a zoo's training side: its votes on synthetic inputs, and tests that its good networks agree on.

Votes are those of `features.consensus`. Tests are made through the best networks (`models.consensus_tests`). Half of
the best makes each set, and is tested on the other half's. All is part of the predictor, so that new networks are
compared with the same consensus.
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
from nfn_transformer.features.strokes import MOST_STROKES, Strokes
from nfn_transformer.hashing import tensors_checksum
from nfn_transformer.models.consensus_tests import (
    OF_A_CLASS,
    count_tests,
    labels_of_tests,
    make_strokes,
    make_texts,
    picture_tests,
    pictures_of,
    text_tests,
)
from nfn_transformer.resources import map_in_threads
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

CONSENSUS_FILE = "consensus.safetensors"
"""Name of its file in the directory of a run of trees; a network keeps it among its weights."""

FEWEST_NETWORKS = 12
"""Networks of a training side, below which there is no consensus."""

_CHECKSUM = "checksum"
_HALVES = 2
_BEST_SHARE, _FEWEST_MAKERS, _MOST_MAKERS = 1 / 6, 2, 24
_NETWORKS_AT_ONCE, _SHARES_AT_ONCE = 16, 1 << 24
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
    texts: Tensor

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
        pictures = OF_A_CLASS * self.inputs.classes if self.inputs.picture else 0
        self.register_buffer("control", torch.zeros(_HALVES, pictures, MOST_STROKES, 4, 2))
        self.register_buffer("counts", torch.ones(_HALVES, pictures, dtype=torch.int64))
        self.register_buffer("radius", torch.zeros(_HALVES, pictures))
        if self.inputs.draw_texts:  # no empty buffer otherwise: files of earlier runs have none
            size = (_HALVES, OF_A_CLASS * self.inputs.classes, self.inputs.families[0].shape[1])
            self.register_buffer("texts", torch.zeros(size, dtype=torch.int64))

    @property
    def count(self) -> int:
        """Number of the numbers."""
        return AGREEMENTS * len(POWERS) * len(self.families) + count_tests(self.inputs) * TEST_NUMBERS

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
            labels = labels_of_tests(self.inputs, device)
            first, second = (
                torch.cat([results_of_test(self.inputs.ask(test, weights[some]), labels) for test in tests], dim=1)
                for tests in labelled
            )
            own = halves[some, None]
            tested = torch.where(own == 0, second, torch.where(own == 1, first, (first + second) / 2))
            return torch.cat([agreed, tested], dim=1)

        most = networks_at_once // at_once if device.type == "cpu" else 1
        return torch.cat(map_in_threads(numbers, range(0, weights.batch, at_once), most))

    def fit(self, zoo: Zoo | MixedZoo, train: Int64[Tensor, " m"], seed: int, are_loaded: bool = False) -> None:
        """Take the votes of a training side, and make the tests.

        Args:
            zoo: with accuracies as labels.
            train: indices of the training side, at least FEWEST_NETWORKS.
            seed: of the makers' halves, and of the strokes and texts that they choose among.
            are_loaded: votes and tests are loaded; only who voted, and what, is told again.
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
        if are_loaded or not count_tests(self.inputs):
            return
        device = self.totals.device
        for half, some in enumerate(makers):
            asked = [weights for _, weights in _weights_of(zoo, some[:_MOST_MAKERS].sort().values, device)]
            if self.inputs.draw_texts:
                self.texts[half] = make_texts(self.inputs, asked, generator, device)
            else:
                strokes = make_strokes(self.inputs, asked, generator, device)
                self.control[half], self.counts[half], self.radius[half] = strokes.tensors()

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

    def pictures(self) -> Float[Tensor, "halves m channels height width"]:
        """Return the pictures of each half, equally many of each class, one class after another."""
        strokes = Strokes(self.control.flatten(0, 1), self.counts.flatten(), self.radius.flatten())
        return pictures_of(self.inputs, strokes).unflatten(0, self.radius.shape)

    def _tests(self) -> list[list[Tensor]]:
        """Return the inputs [m, ...] of each half's tests. Drawing takes seconds: it is done once for what was made."""
        if not count_tests(self.inputs):
            return []
        made = (self.texts,) if self.inputs.draw_texts else (self.control, self.counts, self.radius)
        if self._drawn is None or not _are_equal(made, self._drawn[0]):
            generator = make_generator(0, "consensus", "tests")
            if self.inputs.draw_texts:
                halves = [text_tests(self.inputs, texts, generator) for texts in self.texts]
            else:
                halves = [picture_tests(self.inputs, Strokes(*parts), generator) for parts in zip(*made, strict=True)]
            self._drawn = tuple(map(torch.clone, made)), halves
        return self._drawn[1]

    def _answers(self, weights: Weights, networks: Tensor | None = None) -> Float[Tensor, "b n classes"]:
        """Return the answers to all inputs; those of networks that voted, by their index in the zoo, are kept ones."""
        indices = [-1] * weights.batch if networks is None else networks.tolist()
        unknown = [place for place, index in enumerate(indices) if index not in self._voted]
        if len(unknown) == weights.batch:
            return torch.cat([self.inputs.ask(family, weights) for family in self.inputs.families], dim=1)
        asked = iter(self._answers(weights[unknown]) if unknown else ())
        return torch.stack([self._voted[index] if index in self._voted else next(asked) for index in indices])


def save_consensus(path: Path, consensus: Consensus) -> None:
    """Write votes and tests (safetensors) in one step, with a checksum in the header."""
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
        raise RunError(f"{path}: holds no consensus of these networks: {' '.join(str(error).split())}") from None


def _weights_of(zoo: Zoo | MixedZoo, index: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Weights]]:
    """Yield indices [b] and weights of the networks that `index` selects, as many as are asked at once."""
    for some in index.split(_NETWORKS_AT_ONCE):
        for positions, rows, of_size in zoo.by_size(some):
            yield some[positions], of_size.weights_of(rows).to(device)


def _are_equal(tensors: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Return whether tensors are the same numbers, of one type and in one place."""
    pairs = zip(tensors, others, strict=True)
    return all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in pairs)
