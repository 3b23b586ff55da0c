"""Responses of networks to inputs, one by one: outputs, and numbers of hidden activity that no symmetry changes.

Nothing here is fixed: gradients reach the inputs, so that inputs can be learned. `features.propagation` and
`features.network_invariants` have the reasons of the invariances; their numbers are means over inputs, and have steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfn_transformer.families.registry import AnySpec
from nfn_transformer.features.answers import probe_inputs
from nfn_transformer.features.network_invariants import is_field, signals
from nfn_transformer.features.standard_probes import standard_probes
from nfn_transformer.features.transformer_answers import TINY_EPSILON, tokens_of, transformer_answers
from nfn_transformer.groups.network import canonical_form
from nfn_transformer.groups.standard_form import reads_no_mean, standard_canonical_form
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import BlockWeights, NetworkWeights, TensorTree, TransformerWeights
from nfn_transformer.weights.feed_forward_pass import network_responses
from nfn_transformer.weights.spec import ACTIVATIONS, NetworkSpec
from nfn_transformer.weights.standard_containers import StandardTransformerWeights
from nfn_transformer.weights.standard_pass import HalfBlock, embed, half_blocks, outputs_of
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

_SMALL = 1e-6
# Share of the word itself in a soft word at first.
_WORD_LOGIT = 3.0
# Networks are tried on so many inputs, and none of their answers is larger.
_TRIED, _LARGEST = 8, 1e4


@dataclass(frozen=True)
class AskedNetworks(TensorTree):
    """Networks b that are to be asked, with what no input changes."""

    weights: Weights
    """Weights; of networks whose answers overflow they are zero."""
    sizes: tuple[Float[Tensor, "*m b _"], ...] = ()
    """Factors [b, n_s] that free responses of hidden feed-forward neurons of scales; empty of other families."""
    activation: Float[Tensor, "*m b activations"] | None = None
    """1 for the activation of feed-forward networks among ACTIVATIONS; None of other families."""


@dataclass(frozen=True)
class Responses(TensorTree):
    """Responses of b networks to n inputs."""

    outputs: Float[Tensor, "b n outputs"]
    """Logits, or values of an INR."""
    hidden: Float[Tensor, "b n numbers"]
    """Numbers of hidden activity; none where they are not wanted."""


def example_inputs(spec: AnySpec, device: torch.device | None = None) -> Tensor:
    """Return synthetic inputs [n, ...] for networks of a spec, made of no data; `as_inputs` makes words differentiable.

    They are on the CPU without a device.

    Raises:
        SpecError: no image has the size that flattened maps need.
    """
    if isinstance(spec, StandardTransformerSpec):
        families = list(standard_probes(spec).values())
    elif isinstance(spec, NetworkSpec) and is_field(spec):
        families = [signals(spec)[0]]
    else:
        families = list(probe_inputs(spec).families)
    return torch.cat([family if device is None else family.to(device) for family in families])


def as_inputs(examples: Tensor, spec: AnySpec, like: Tensor | None = None) -> Float[Tensor, "n ..."]:
    """Return some of `example_inputs` as `respond` takes them: words [n, t] as logits [n, t, vocabulary].

    With `like` they have its type and device.
    """
    if isinstance(spec, StandardTransformerSpec) and spec.inputs == "words":
        logits = torch.zeros(*examples.shape, spec.vocabulary, device=examples.device)
        examples = logits.scatter_(-1, examples[..., None], _WORD_LOGIT + math.log(spec.vocabulary))
    return examples if like is None else examples.to(like)


@torch.no_grad()
def ask(weights: Weights) -> AskedNetworks:
    """Return networks as `respond` takes them; standard transformers in their canonical form."""
    weights = standard_canonical_form(weights) if isinstance(weights, StandardTransformerWeights) else weights
    activation = None
    if isinstance(weights, NetworkWeights):
        activation = torch.zeros(weights.batch, len(ACTIVATIONS)).to(weights.biases[0])
        activation[:, ACTIVATIONS.index(weights.spec.activation)] = 1
    like = weights.tensors()[0]
    examples = example_inputs(weights.spec, like.device)
    some = as_inputs(examples[:: max(1, len(examples) // _TRIED)], weights.spec, like)
    outputs = respond(some, AskedNetworks(weights, (), activation), hidden=False).outputs
    fits = (outputs.abs() < _LARGEST).flatten(1).all(1)  # gradients of one that overflows would spoil all inputs
    weights = weights.map(lambda tensor: torch.where(fits.view(-1, *[1] * (tensor.ndim - 1)), tensor, 0.0))
    if not isinstance(weights, NetworkWeights):
        return AskedNetworks(weights)
    form = canonical_form(weights, scales=True)
    read_by = [matrix.transpose(1, 2).flatten(2).norm(dim=2) for matrix in form.weights.weights[1:]]
    sizes = tuple(row.abs() * norm for row, norm in zip(form.rows, read_by, strict=True))
    return AskedNetworks(weights, sizes, activation)


def respond(inputs: Float[Tensor, "n ..."], asked: AskedNetworks, hidden: bool) -> Responses:
    """Return the responses of b networks to inputs, images, tokens, coordinates or logits of words.

    Args:
        inputs: as `as_inputs` returns them.
        asked: networks.
        hidden: read hidden activity too.
    """
    weights = asked.weights
    if isinstance(weights, TransformerWeights):
        return _transformer(inputs, weights, hidden)
    if isinstance(weights, StandardTransformerWeights):
        return _standard(inputs, weights, hidden)
    *layers, outputs = network_responses(inputs, weights, _activation_of(asked))
    outputs = outputs if outputs.ndim == 3 else outputs.mean((-2, -1))
    if not hidden:
        return Responses(outputs, outputs[..., :0])
    numbers = []
    for layer, size in zip(layers, asked.sizes, strict=True):
        signal = layer.flatten(3) if layer.ndim > 3 else layer[..., None]  # [b, n, neurons, positions]
        numbers += _activity(signal.transpose(2, 3) * size[:, None, None])
    return Responses(outputs, torch.stack(numbers, dim=2))


def _activation_of(asked: AskedNetworks) -> Callable[[Tensor], Tensor] | None:
    """Return the activation of networks that may differ in it; None for that of their spec.

    All but sine are one of three functions with factors: max(x, slope x), p + q tanh(r x), and gelu.
    """
    assert asked.activation is not None
    assert isinstance(asked.weights, NetworkWeights)
    if asked.weights.spec.activation == "sine":
        return None
    of = dict(zip(ACTIVATIONS, asked.activation.unbind(-1), strict=True))
    factors = torch.stack(
        [
            of["relu"] + of["leaky_relu"] + of["none"],
            0.01 * of["leaky_relu"] + of["none"],
            of["tanh"] + 0.5 * of["sigmoid"],
            of["tanh"] + 0.5 * of["sigmoid"],
            0.5 * of["sigmoid"],
            of["gelu"],
        ]
    )

    def activation(numbers: Tensor) -> Tensor:
        linear, slope, bent, rate, shift, gelu = factors.view(len(factors), -1, *[1] * (numbers.ndim - 1))
        piecewise = linear * torch.maximum(numbers, slope * numbers)
        return piecewise + bent * torch.tanh(rate * numbers) + shift + gelu * functional.gelu(numbers)

    return activation


def _activity(signal: Float[Tensor, "b n positions neurons"]) -> list[Float[Tensor, "b n"]]:
    """Return numbers of a layer's signal, even in each neuron: size, how many neurons count, how evenly, and where."""
    power = signal.square()
    of_neurons, of_positions = power.mean(2), power.sum(3)  # [b, n, neurons], [b, n, positions]
    total = of_neurons.sum(2)
    evenness = signal.abs().mean((2, 3)).square() / (power.mean((2, 3)) + _SMALL**2)
    return [
        torch.log(total + _SMALL),
        _concentration(of_neurons),
        torch.log(evenness + 1e-3),
        _concentration(of_positions),
    ]


def _concentration(parts: Float[Tensor, "*n m"]) -> Float[Tensor, " *n"]:
    """Return the logarithm of the share of m parts of a whole that count in effect, negated: 0 if all are alike."""
    share = parts / (parts.sum(-1, keepdim=True) + _SMALL**2)
    return torch.log(share.square().sum(-1) * parts.shape[-1] + 1e-3)


def _transformer(inputs: Tensor, weights: TransformerWeights, hidden: bool) -> Responses:
    """Return the responses of the zoo's transformers to images, or to tokens that are embedded."""
    if not hidden:
        outputs = transformer_answers(inputs, weights)
        return Responses(outputs, outputs[..., :0])
    tokens = tokens_of(inputs, weights)
    numbers: list[Tensor] = []
    signal = _normalize(tokens.expand(weights.batch, *tokens.shape[1:]))
    for block in weights.blocks:
        signal, of_block = _through_block(signal, block)
        numbers += of_block
    signal = signal.mean(2)
    layers = list(zip(weights.classifier.weights, weights.classifier.biases, strict=True))
    for index, (W, bias) in enumerate(layers):
        signal = torch.baddbmm(bias, signal, W.squeeze(1).transpose(1, 2))
        if index < len(layers) - 1:
            signal = signal.relu()
            size = layers[index + 1][0].squeeze(1).norm(dim=1)  # [b, neurons]
            numbers += _activity((signal * size[:, None])[:, :, None])[:3]
    return Responses(signal, torch.stack(numbers, dim=2))


def _normalize(signal: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    return functional.layer_norm(signal, signal.shape[-1:], eps=TINY_EPSILON)


def _through_block(signal: Float[Tensor, "b n t D"], block: BlockWeights) -> tuple[Tensor, list[Float[Tensor, "b n"]]]:
    """Return the normalised signal after a block, and numbers of the block's attention, neurons and signals."""
    W_Q, W_K, W_V, W_O = (W.squeeze(1) for W in (block.W_Q, block.W_K, block.W_V, block.W_O))
    queries, keys, values = (torch.einsum("bntd,bhdk->bnhtk", signal, W) for W in (W_Q, W_K, W_V))
    rows = (queries @ keys.transpose(-1, -2) * W_Q.shape[-1] ** -0.5).softmax(-1)
    attended = _normalize(torch.einsum("bnhtk,bhkd->bntd", rows @ values, W_O))
    preactivations = torch.einsum("bntd,bda->bnta", attended, block.W_A.squeeze(1)) + block.b_A[:, :, None]
    W_B, activity = block.W_B.squeeze(1), preactivations.relu()
    after = _normalize(torch.einsum("bnta,bad->bntd", activity, W_B) + block.b_B[:, :, None])
    writes = (W_B - W_B.mean(-1, keepdim=True)).norm(dim=2)  # [b, D_A]
    # The block's output has any scale: the neurons' is a size in vain.
    of_neurons = _activity(activity * writes[:, None, None])[1:]
    return after, [*_attention(rows), _common(attended), *of_neurons, _common(after)]


def _attention(rows: Float[Tensor, "b n h t t"]) -> list[Float[Tensor, "b n"]]:
    """Return the entropy of attention, as mean, least and most over the heads, a share of the largest possible one."""
    entropy = -(rows * rows.clamp(min=1e-12).log()).sum(-1).mean(-1) / math.log(max(2, rows.shape[-1]))
    return [entropy.mean(2), entropy.amin(2), entropy.amax(2)]


def _common(signal: Float[Tensor, "b n t D"]) -> Float[Tensor, "b n"]:
    """Return the logarithm of the share of a signal's energy that its tokens have in common."""
    energy = signal.square().sum(-1).mean(2)
    return torch.log(signal.mean(2).square().sum(-1) / (energy + _SMALL**2) + 1e-3)


def _standard(inputs: Tensor, weights: StandardTransformerWeights, hidden: bool) -> Responses:
    """Return the responses of standard transformers; outputs of every token are those of the last one."""
    spec = weights.spec
    numbers: list[Tensor] = []
    stream = embed(inputs.softmax(-1) if spec.inputs == "words" else inputs, weights)
    for half in half_blocks(stream, weights):
        stream = half.after
        numbers += _half_block(half, spec) if hidden else []
    outputs = outputs_of(stream, weights)
    outputs = outputs if outputs.ndim == 3 else outputs[:, :, -1]
    return Responses(outputs, torch.stack(numbers, dim=2) if hidden else outputs[..., :0])


def _half_block(half: HalfBlock, spec: StandardTransformerSpec) -> list[Float[Tensor, "b n"]]:
    """Return numbers of a half block: as `features.standard_invariants`, what is no function's is left out."""
    centred = reads_no_mean(spec)
    is_added_centred = centred or (spec.norm == "layer" and spec.placement == "post")
    added = half.contribution - half.contribution.mean(-1, keepdim=True) if is_added_centred else half.contribution
    before, after = (each - each.mean(-1, keepdim=True) if centred else each for each in (half.before, half.after))
    sizes = [each.square().mean((2, 3)) + _SMALL**2 for each in (added, before)]
    own = [torch.log(sizes[0] / sizes[1]) / 2, _common(added), _common(after)]
    if half.rows is not None:
        return [*_attention(half.rows), *own]
    assert half.activity is not None
    W_2 = half.block.W_2
    writes = (W_2 - W_2.mean(-1, keepdim=True) if is_added_centred else W_2).norm(dim=2)  # [b, hidden]
    return [*_activity(half.activity * writes[:, None, None])[1:], *own]
