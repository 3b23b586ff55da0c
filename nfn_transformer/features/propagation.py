"""Named invariants of signals that pass a network: numbers that no element of the complete group changes.

Between two blocks a signal is a tensor [b, n, tokens, D], normalised over D as the networks' LayerNorms do, but without
their epsilon. An element g of the complete group (`groups.complete`) turns its coordinates by the orthogonal R_B, and
does nothing else. The normalisation removes shifts and scales; the matrices M and N cancel within Q K^T and V W^O.
So blocks are equivariant maps of signals, and functions of a signal's scalar products are invariant. So are functions
that treat all heads alike, and all hidden neurons, as the scales c_A change no sign. Classes are treated alike too,
although exchanging them is no symmetry of a network: weights without data do not tell which class is which.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.weights.containers import BlockWeights, FeedForwardWeights

NamedNumbers = dict[str, Float[Tensor, " b"]]
"""Name -> numbers [b] of b networks."""

# Against a division by zero or its logarithm: all that is compared with it is of the order of 1.
_SMALL = 1e-6
# A signal below this is none: the networks' own LayerNorms, with their epsilon of 1e-5, leave 0.0003 of it, and
# dividing by its deviation would make a signal of rounding errors. A neuron that never sees more than this is dead.
_NONE, _DEAD = 1e-6, 1e-12
# Logits beyond this are made as large: their directions stay, and fourth powers fit float32.
_LARGE = 1e3
_DECIMALS = 9
_WIDE = 1024
# Invariants are of the order of 1, or logarithms.
_FARTHEST = 1e3


def normalize(signal: Float[Tensor, " *n D"]) -> Float[Tensor, " *n D"]:
    """Return the signal with mean 0 and mean square 1 along the last dimension; zero if its deviation is below 1e-6.

    Only near that bound do the scales c_O and c_B of the complete group matter, as with the networks' own epsilon.
    """
    return scale_(signal - signal.mean(-1, keepdim=True)).nan_to_num_(nan=0.0)


def scale_(centred: Float[Tensor, " *n D"]) -> Float[Tensor, " *n D"]:
    """Change a signal of mean 0 in place as `normalize` would, and return it; one that has overflown becomes NaN."""
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * centred.shape[-1] ** -0.5
    return centred.mul_(torch.where(deviation > _NONE, 1 / deviation, 0.0))


@dataclass(frozen=True)
class FoldedBlock:
    """Weights of one block of b networks, without what the LayerNorms after them take away.

    What they map a normalised signal to has mean 0 along D.
    """

    heads: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    """W^Q, divided by the root of its width, W^K [b, D, D_k], W^V [b, D, D_v] and W^O [b, D_v, D] of each head."""
    W_A: Float[Tensor, "b D D_A"]
    b_A: Float[Tensor, "b 1 D_A"]
    W_B: Float[Tensor, "b D_A D"]
    b_B: Float[Tensor, "b 1 D"]

    @classmethod
    def of(cls, block: BlockWeights) -> "FoldedBlock":
        """Return the weights of a block of one channel."""
        W_Q, W_K, W_V, W_A = (_without_mean(W.squeeze(1), -2) for W in (block.W_Q, block.W_K, block.W_V, block.W_A))
        W_O, W_B = (_without_mean(W.squeeze(1), -1) for W in (block.W_O, block.W_B))
        of_heads = (W_Q * W_Q.shape[-1] ** -0.5, W_K, W_V, W_O)
        heads = zip(*([W.contiguous() for W in each.unbind(1)] for each in of_heads), strict=True)
        return cls(tuple(heads), W_A, block.b_A, W_B, _without_mean(block.b_B, -1))

    def attend(self, signal: Float[Tensor, "b n tokens D"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield scores [b n, tokens, tokens], values [b n, tokens, D_v] and W^O [b, D_v, D] of each head."""
        b, n, tokens, _ = signal.shape

        def project(W: Tensor) -> Tensor:  # each by itself: products of strided pieces take twice as long
            return torch.bmm(signal.flatten(1, 2), W).view(b * n, tokens, W.shape[-1])

        for W_Q, W_K, W_V, W_O in self.heads:
            yield torch.bmm(project(W_Q), project(W_K).transpose(1, 2)), project(W_V), W_O

    def preactivations(self, attended: Float[Tensor, "b m D"]) -> Float[Tensor, "b m D_A"]:
        """Return what a normalised signal gives the hidden neurons."""
        return torch.bmm(attended, self.W_A).add_(self.b_A)  # baddbmm would copy the bias first

    def output(self, activations: Float[Tensor, "b m D_A"]) -> Float[Tensor, "b m D"]:
        """Return the block's signal from the hidden neurons' activations."""
        return torch.bmm(activations, self.W_B).add_(self.b_B)


def signal_invariants(signal: Float[Tensor, "b n tokens D"]) -> NamedNumbers:
    """Return how a signal [b, n, tokens, D] of the order of 1 spreads.

    All are logarithms. Shares of its energy are common to all inputs and tokens, differ between inputs, between tokens,
    or neither. Directions are effective counts.
    """
    inputs, tokens = signal.mean(2), signal.mean(1)  # [b, n, D], [b, tokens, D]
    mean = inputs.mean(1)  # [b, D]
    between_inputs, between_tokens = inputs - mean[:, None], tokens - mean[:, None]
    centred = signal - mean[:, None, None]
    moments = _moments(centred.flatten(1, 2))
    energy = _energy(mean) + _trace(moments) + _SMALL
    rest = centred.sub_(between_inputs[:, :, None]).sub_(between_tokens[:, None])
    rest_energy = torch.linalg.vector_norm(rest.flatten(1), dim=1).square() / (signal.shape[1] * signal.shape[2])
    return {
        "common_share": torch.log(_energy(mean) / energy + _SMALL),
        "input_share": torch.log(_energy(between_inputs).mean(1) / energy + _SMALL),
        "token_share": torch.log(_energy(between_tokens).mean(1) / energy + _SMALL),
        "other_share": torch.log(rest_energy / energy + _SMALL),
        "directions": torch.log(_directions(moments) + 1e-3),
        "input_directions": torch.log(_directions(_moments(between_inputs)) + 1e-3),
    }


def _energy(signal: Tensor) -> Tensor:
    return signal.square().sum(-1)


def _moments(vectors: Float[Tensor, "b m D"]) -> Float[Tensor, "b k k"]:
    """Return the mean outer product of m vectors, or their Gram matrix, which has the same eigenvalues beside zeros."""
    turned = vectors.transpose(1, 2)
    is_wide = vectors.shape[2] > max(_WIDE, vectors.shape[1])  # of a vocabulary
    return (vectors @ turned if is_wide else turned @ vectors) / vectors.shape[1]


def _trace(matrices: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    return matrices.diagonal(dim1=1, dim2=2).sum(-1)


def _directions(moments: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return the participation ratio (sum of eigenvalues)^2 / sum of their squares."""
    return _trace(moments).square() / (moments.square().sum((1, 2)) + _SMALL**2)


def neuron_invariants(preactivations: Float[Tensor, "b m neurons"]) -> NamedNumbers:
    """Return how often hidden neurons are active, from preactivations [b, m, neurons] of m inputs.

    A neuron's rate is its share of active inputs, its entropy that of being active. `input_deviation` is the deviation
    over inputs of the share of active neurons.
    """
    active = torch.gt(preactivations, _DEAD, out=torch.empty_like(preactivations))  # 0 and 1
    rate = active.mean(1)
    entropy = -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate))
    return {
        "rate_mean": rate.mean(1),
        "rate_deviation": _deviation(rate, 1),
        "never_active": (rate == 0).to(rate.dtype).mean(1),
        "always_active": (rate == 1).to(rate.dtype).mean(1),
        "entropy": entropy.mean(1),
        "input_deviation": _deviation(active.mean(2), 1),
    }


def _deviation(values: Tensor, dim: int) -> Tensor:
    return values.std(dim, correction=0)


def block_invariants(
    signal: Float[Tensor, "b n tokens D"], block: BlockWeights
) -> tuple[Float[Tensor, "b n tokens D"], NamedNumbers]:
    """Return the signal after an encoder block, and the invariants of its way through the block.

    Args:
        signal: normalised, [b, n, tokens, D].
        block: weights of one channel.

    Returns:
        The normalised signal [b, n, tokens, D], and invariants. Of the heads' attention these are its entropy, the
        entropy of its mean over inputs and tokens, and the logarithmic deviation of its scores, each as mean, least
        and most over the heads. Then follow the share of the head that contributes most, and the invariants of the
        signal after the attention, of the neurons, and of the signal after the block.
    """
    folded, b, m = FoldedBlock.of(block), signal.shape[0], signal.shape[1] * signal.shape[2]
    of_heads, powers, attended = [], [], signal.new_zeros(b, m, signal.shape[3])
    for scores, values, W_O in folded.attend(signal):
        of_head, mixed = _mix(scores.view(*signal.shape[:2], *scores.shape[1:]), values)
        by_head = torch.bmm(mixed.view(b, m, W_O.shape[1]), W_O)
        powers.append(torch.linalg.vector_norm(by_head.flatten(1), dim=1).square() / m)
        of_heads.append(of_head)
        attended.add_(by_head)
    attended, power = scale_(attended).nan_to_num_(nan=0.0), torch.stack(powers, dim=1)
    total = power.sum(1)
    preactivations = folded.preactivations(attended)
    neurons = neuron_invariants(preactivations)
    after = scale_(folded.output(preactivations.relu_())).nan_to_num_(nan=0.0).view(signal.shape)
    attention: NamedNumbers = {}
    for name in of_heads[0]:
        attention |= over_heads(name, torch.stack([of_head[name] for of_head in of_heads], dim=1))
    return after, {
        **attention,
        "largest_head_share": torch.where(total > _NONE**2, power.amax(1) / total.clamp(min=_NONE**2), 0.0),
        **prefixed("after_attention", signal_invariants(attended.view(signal.shape))),
        **prefixed("neurons", neurons),
        **prefixed("after_block", signal_invariants(after)),
    }


def _mix(
    scores: Float[Tensor, "b n tokens tokens"], values: Float[Tensor, "bn tokens D_v"]
) -> tuple[NamedNumbers, Float[Tensor, "bn tokens D_v"]]:
    """Return what a head's attention is like, and the values that it has mixed."""
    spread = scores - scores[..., :1]  # deviations of equal scores are 0 to the last bit
    spread.sub_(spread.mean(-1, keepdim=True))
    deviation = torch.linalg.vector_norm(spread, dim=-1) * spread.shape[-1] ** -0.5
    logarithms = spread.log_softmax(-1)
    attention, longest = logarithms.exp(), math.log(max(2, scores.shape[-1]))
    mixed = torch.bmm(attention.flatten(0, 1), values)
    mean_entropy = entropy_of(attention.mean((1, 2)))
    entropy = -logarithms.mul_(attention).sum((2, 3)).mean(1) / scores.shape[2]
    return {
        "attention_entropy": entropy / longest,
        "mean_attention_entropy": mean_entropy / longest,
        "score_deviation": torch.log(deviation.mean((1, 2)) + _SMALL),
    }, mixed


def side_by_side(named: NamedNumbers) -> Float[Tensor, "b numbers"]:
    """Return named numbers side by side, in [-1000, 1000].

    Weights may be finite and their signals not: one such network must not spoil all scales.
    """
    return torch.stack(list(named.values()), dim=1).nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST)


def prefixed(prefix: str, invariants: NamedNumbers) -> NamedNumbers:
    """Return the invariants under the names `prefix.name`."""
    return {f"{prefix}.{name}": numbers for name, numbers in invariants.items()}


def _without_mean(weights: Tensor, dim: int) -> Tensor:
    """Return the canonical form of weights that may be shifted along a coordinate: shifts would leave rounding."""
    return weights - weights.mean(dim, keepdim=True)


def entropy_of(shares: Tensor) -> Tensor:
    """Return the entropy of shares along the last dimension."""
    return -torch.xlogy(shares, shares).sum(-1)


def over_heads(name: str, numbers: Float[Tensor, "b h"]) -> NamedNumbers:
    """Return mean, least and most of numbers [b, h] over the heads."""
    return {f"{name}_mean": numbers.mean(1), f"{name}_min": numbers.amin(1), f"{name}_max": numbers.amax(1)}


def classifier_invariants(signal: Float[Tensor, "b n tokens D"], classifier: FeedForwardWeights) -> NamedNumbers:
    """Return the invariants of a classifier of two layers that reads a signal [b, n, tokens, D].

    Entropies are those of the probabilities, of their mean over the inputs, and of the classes that are answered.
    Deviations of logits are logarithms: over the inputs, as mean, deviation and least over the classes, and of the mean
    logits over the classes. `answered_share` is the share of classes that are ever answered.
    """
    (first, second), (bias, last) = (
        [tensor.squeeze(1) for tensor in tensors] for tensors in (classifier.weights, classifier.biases)
    )
    hidden = signal.mean(2) @ _without_mean(first, -1).transpose(1, 2) + bias[:, None]
    logits = hidden.relu() @ second.transpose(1, 2) + last[:, None]  # [b, n, classes]
    return {**prefixed("neurons", neuron_invariants(hidden)), **answer_invariants(logits)}


def answer_invariants(logits: Float[Tensor, "b n classes"]) -> NamedNumbers:
    """Return what logits for n inputs tell without telling the classes apart, see `classifier_invariants`."""
    probabilities, classes = logits.softmax(-1), logits.shape[-1]
    longest = math.log(max(2, classes))
    entropy, mean_entropy = entropy_of(probabilities).mean(1) / longest, entropy_of(probabilities.mean(1)) / longest
    centred = logits - logits.mean(-1, keepdim=True)
    constant = centred.mean(1)
    moving = centred - constant[:, None]
    deviation, largest_move = _deviation(moving, 1), moving.abs().amax((1, 2), keepdim=True)  # [b, classes], [b, 1, 1]
    largest, answers = probabilities.amax(-1), logits.round(decimals=_DECIMALS).argmax(-1)  # ties are ties
    counts = torch.nn.functional.one_hot(answers, classes).to(logits.dtype).mean(1)
    log_moving, log_constant = torch.log(deviation.mean(1) + _SMALL), torch.log(_deviation(constant, 1) + _SMALL)
    return {
        "entropy": entropy,
        "mean_entropy": mean_entropy,
        "entropy_difference": mean_entropy - entropy,
        "logit_deviation_mean": log_moving,
        "logit_deviation_deviation": torch.log(_deviation(deviation, 1) + _SMALL),
        "logit_deviation_min": torch.log(deviation.amin(1) + _SMALL),
        "logit_directions": _directions(_moments(moving / (largest_move / _LARGE).clamp(min=1))),
        "largest_probability_mean": largest.mean(1),
        "largest_probability_deviation": _deviation(largest, 1),
        "answer_entropy": entropy_of(counts) / longest,
        "answered_share": (counts > 0).to(logits.dtype).mean(1),
        "mean_logit_deviation": log_constant,
        "logit_deviation_ratio": log_moving - log_constant,
    }
