"""Encoder by learned probes: inputs are sent through each network, and its responses are read.

Published settings are those of ProbeGen (Kahana et al. 2024, "Deep Linear Probe Generators for Weight Space Learning",
arXiv 2410.10811): a deep linear generator, outputs alone, all of them side by side. Reading hidden activity too is
HiddenProbe's. The pooled readout is for small zoos. It has one map for all probes, which compares the answer to a probe
with the class that the probe has learned to show. At first that is what the training side's networks vote for.

A probe sees the function alone, and hidden numbers are invariant (`features.responses`). So no symmetry moves outputs.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nfn_transformer.families.registry import AnySpec
from nfn_transformer.features.network_invariants import is_field
from nfn_transformer.features.responses import AskedNetworks, Responses, as_inputs, ask, example_inputs, respond
from nfn_transformer.groups.standard_form import standard_canonical_spec
from nfn_transformer.layers.scaling import Reiterable, Standardize
from nfn_transformer.models.branch import Branch, Chain, dropouts, example_weights
from nfn_transformer.models.complete_encoder import WIDTH
from nfn_transformer.models.encoders.probe import ProbeConfig
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

CODE, GENERATOR_LAYERS = 32, 2
"""Numbers of a probe's code, and hidden linear layers of a generator."""

# Learned numbers move by about the learning rate a step: those of probes and classes count several times.
_PROBE_STEP, _CLASS_STEP, _WEIGHT_STEP = 10.0, 10.0, 10.0
_WEIGHTINGS = 4
_LEAST_LOG, _LEAST_SHARE, _LEAST_DEVIATION, _SMALL = -12.0, 1e-3, 0.01, 1e-6
_LARGEST, _SORTED = 1e4, 3
_NETWORKS_AT_ONCE = 32
# Of inputs; a soft word has one for each word of the vocabulary.
_NUMBERS_AT_ONCE = 1 << 24


class FreeProbes(nn.Module):
    """Probes [n, ...] that are parameters: the changes of synthetic inputs.

    Args:
        spec: of the networks.
        count: n.
    """

    start: Tensor

    def __init__(self, spec: AnySpec, count: int):
        super().__init__()
        examples = example_inputs(spec)
        order = torch.randperm(len(examples), generator=make_generator(0, "probes", "learned"))
        chosen = examples[order.repeat(-(-count // len(order)))[:count]]
        self.register_buffer("start", as_inputs(chosen, spec).clone())
        self.change = nn.Parameter(0.01 * torch.randn(self.start.shape))

    def forward(self) -> Tensor:
        """Return the probes."""
        return self.start + _PROBE_STEP * self.change


class LinearGenerator(nn.Module):
    """Probes [n, ...] that a deep linear network makes of trained codes; that of images ends in two convolutions.

    Args:
        spec: of the networks.
        count: n.
    """

    def __init__(self, spec: AnySpec, count: int):
        super().__init__()
        self.shape = as_inputs(example_inputs(spec)[:1], spec).shape[1:]
        self.codes = nn.Parameter(torch.randn(count, CODE))
        layers: list[nn.Module] = [nn.Linear(CODE, CODE) for _ in range(GENERATOR_LAYERS)]
        if len(self.shape) == 3:
            rows, columns = (-(-side // 4) for side in self.shape[1:])
            layers += [nn.Linear(CODE, CODE * rows * columns), nn.Unflatten(1, (CODE, rows, columns))]
            for d, e in ((CODE, CODE // 2), (CODE // 2, self.shape[0])):
                layers.append(nn.ConvTranspose2d(d, e, 4, stride=2, padding=1))
        else:
            layers += [nn.Linear(CODE, self.shape.numel()), nn.Unflatten(1, tuple(self.shape))]
        self.layers = nn.Sequential(*layers)

    def forward(self) -> Tensor:
        """Return the probes."""
        made = self.layers(self.codes)
        return made[..., : self.shape[-2], : self.shape[-1]] if made.ndim == 4 else made


class ConcatenatedReadout(nn.Module):
    """Map of all responses side by side to [b, outputs], by an MLP.

    Args:
        probes: count of the probes.
        numbers: outputs and hidden numbers of a network for one of them.
        config: number of outputs, and dropout.
    """

    def __init__(self, probes: int, numbers: tuple[int, int], config: ProbeConfig):
        super().__init__()
        self.scale = Standardize([probes * numbers[0], *[probes] * numbers[1]], _LEAST_DEVIATION)
        width = 2 * WIDTH
        layers = [nn.Linear(probes * sum(numbers), width), nn.GELU(), *dropouts(config.dropout)]
        layers += [nn.Linear(width, width), nn.GELU(), *dropouts(config.dropout), nn.Linear(width, config.outputs)]
        self.layers = Chain(*layers)

    def fit(self, responses: Iterable[Responses]) -> None:
        """Fit the scales; all outputs share one, and each hidden number has one."""
        self.scale.fit(Reiterable(lambda: (_flat(part) for part in responses)))

    def forward(self, responses: Responses, keys: Tensor | None) -> Tensor:
        """Return the outputs."""
        return self.layers(self.scale(_flat(responses)), keys)


def _flat(responses: Responses) -> Float[Tensor, "b numbers"]:
    return torch.cat([responses.outputs.flatten(1), responses.hidden.transpose(1, 2).flatten(1)], dim=1)


class PooledReadout(nn.Module):
    """Map of responses to [b, outputs]: one map for every probe, then means over the probes by learned weights.

    Args:
        probes: count of the probes.
        numbers: outputs and hidden numbers of a network for one of them.
        config: number of outputs, and dropout.
    """

    votes: Tensor

    def __init__(self, probes: int, numbers: tuple[int, int], config: ProbeConfig):
        super().__init__()
        classes, hidden = numbers
        count = 6 + min(_SORTED, classes) + hidden
        self.register_buffer("votes", torch.zeros(probes, classes))
        self.classes = nn.Parameter(torch.zeros(probes, classes))
        self.weights = nn.Parameter(0.01 * torch.randn(_WEIGHTINGS, probes))
        self.scale = Standardize([1] * count, _LEAST_DEVIATION)
        self.of_probe = Chain(*dropouts(config.dropout / 2), nn.Linear(count, WIDTH), nn.GELU())
        first, second = nn.Linear((_WEIGHTINGS + 1) * WIDTH, WIDTH), nn.Linear(WIDTH, config.outputs)
        self.head = Chain(*dropouts(config.dropout), first, nn.GELU(), *dropouts(config.dropout), second)

    def fit(self, responses: Iterable[Responses]) -> None:
        """Take the networks' votes on the classes, and fit the scales."""
        total, count = torch.zeros_like(self.votes), 0
        for part in responses:
            total += part.outputs.softmax(-1).sum(0)
            count += len(part.outputs)
        self.votes.copy_((total / count + _LEAST_SHARE).log())
        self.scale.fit(Reiterable(lambda: (self.numbers(part).flatten(0, 1) for part in responses)))

    def numbers(self, responses: Responses) -> Float[Tensor, "b probes numbers"]:
        """Return numbers of each response, in which classes stand for that of the probe alone."""
        logits = responses.outputs
        log_p, wanted = logits.log_softmax(-1), (self.votes + _CLASS_STEP * self.classes).softmax(-1)
        p, log_wanted = log_p.exp(), (wanted + _LEAST_SHARE).log()
        centred, other = (each - each.mean(-1, keepdim=True) for each in (logits, log_wanted))
        size, its = (each.square().mean(-1) + _SMALL for each in (centred, other))
        entropy = -(p * log_p).sum(-1) / math.log(max(2, p.shape[-1]))
        highest = log_p.topk(min(_SORTED, p.shape[-1]), dim=-1).values.clamp(min=_LEAST_LOG)
        named = [
            (wanted * p).sum(-1),
            (wanted * log_p.clamp(min=_LEAST_LOG)).sum(-1),
            (centred * other).mean(-1) / (size * its).sqrt(),
            (p * p).sum(-1),
            entropy,
            size.log(),
        ]
        return torch.cat([torch.stack(named, dim=-1), highest, responses.hidden], dim=-1)

    def forward(self, responses: Responses, keys: Tensor | None) -> Tensor:
        """Return the outputs."""
        of_probes = self.of_probe(self.scale(self.numbers(responses)), keys)  # [b, probes, WIDTH]
        weights = (_WEIGHT_STEP * self.weights).softmax(-1)
        pooled = torch.cat([weights @ of_probes, of_probes.mean(1, keepdim=True)], dim=1)
        return self.head(pooled.flatten(1), keys)


class ProbeEncoder(Branch):
    """Map of networks of one spec to numbers [b, outputs], by their responses to learned probes.

    Feed-forward networks may have another activation than sine each.

    Args:
        spec: of the networks.
        config: count and kind of probes, what is read and how, number of outputs, dropout.

    Raises:
        SpecError: no image has the size that flattened maps need.
    """

    needs_normalization = True

    def __init__(self, spec: AnySpec, config: ProbeConfig):
        super().__init__()
        self.spec, self._hidden = spec, config.probe_reads == "hidden"
        kind = LinearGenerator if config.probe_generator == "linear" else FreeProbes
        self.probes = kind(spec, config.probes)
        with torch.no_grad():
            example = respond(self.probes(), ask(example_weights(spec)), self._hidden)
        numbers = example.outputs.shape[2], example.hidden.shape[2]
        readout = ConcatenatedReadout if _is_concatenated(spec, config) else PooledReadout
        self.readout = readout(config.probes, numbers, config)

    def featurize(self, weights: Weights) -> AskedNetworks:
        """Return the networks as they are asked."""
        return ask(weights)

    def supports(self, spec: AnySpec) -> bool:
        """Return whether feed-forward networks differ in their activation alone, none of them sine.

        Standard transformers have the same canonical form.
        """
        own = self.spec
        if isinstance(own, StandardTransformerSpec) and isinstance(spec, StandardTransformerSpec):
            return standard_canonical_spec(spec) == standard_canonical_spec(own)
        if not (isinstance(own, NetworkSpec) and isinstance(spec, NetworkSpec)) or "sine" in _activations(own, spec):
            return False
        return _but_activation(own) == _but_activation(spec)

    @torch.no_grad()
    def fit_normalization(self, seen: Iterable[AskedNetworks]) -> None:
        """Choose the first probes by the training split's votes, and fit the readout to its responses to them."""
        if isinstance(self.probes, FreeProbes) and isinstance(self.readout, PooledReadout):
            start, total = self.probes.start, torch.zeros(())
            examples = example_inputs(self.spec, start.device)
            parts = examples.split(max(1, _NUMBERS_AT_ONCE // start[0].numel()))
            for asked in (some for part in seen for some in _pieces(part)):
                outputs = [respond(as_inputs(few, self.spec, start), asked, hidden=False).outputs for few in parts]
                logits = torch.cat(outputs, dim=1).nan_to_num(nan=0.0)
                total = total.to(logits) + logits.softmax(-1).sum(0)
            start.copy_(as_inputs(examples[_surest(total, len(start))], self.spec, start))
        # Without changes, so that members of an ensemble have the same scales.
        first = self.probes.start if isinstance(self.probes, FreeProbes) else self.probes()
        self.readout.fit(Reiterable(lambda: (self.respond(some, first) for part in seen for some in _pieces(part))))

    def respond(self, asked: AskedNetworks, probes: Tensor | None = None) -> Responses:
        """Return the responses to probes, finite ones; None stands for the learned ones."""
        responses = respond(self.probes() if probes is None else probes, asked, self._hidden)
        return responses.map(lambda tensor: tensor.nan_to_num(nan=0.0).clamp(-_LARGEST, _LARGEST))

    def from_features(self, features: AskedNetworks, keys: Tensor | None = None) -> Tensor:
        """Map networks to [b, outputs]."""
        return self.readout(self.respond(features), keys)


def _surest(votes: Float[Tensor, "n classes"], count: int) -> Int64[Tensor, " count"]:
    """Return the inputs that have the largest shares of votes for each class in turn, each once if there are enough."""
    shares, chosen = votes / votes.sum(1, keepdim=True), list[int]()
    ranked = shares.argsort(dim=0, descending=True).T.tolist()  # [classes, n]
    for place in range(count):
        of_class = ranked[place % len(ranked)]
        chosen.append(next((index for index in of_class if index not in chosen), of_class[place % len(of_class)]))
    return torch.tensor(chosen, device=votes.device)


def _is_concatenated(spec: AnySpec, config: ProbeConfig) -> bool:
    if config.probe_readout != "auto":
        return config.probe_readout == "concat"
    if isinstance(spec, StandardTransformerSpec):
        return not spec.head_sizes or spec.head_sizes[-1] < 2
    return isinstance(spec, NetworkSpec) and (is_field(spec) or spec.sizes[-1] < 2)


def _activations(*specs: NetworkSpec) -> tuple[str, ...]:
    return tuple(spec.activation for spec in specs)


def _but_activation(spec: NetworkSpec) -> tuple:
    return (spec.sizes, spec.trailing, spec.strides, spec.paddings, spec.residuals, spec.offset)


def _pieces(asked: AskedNetworks) -> Iterable[AskedNetworks]:
    b = asked.weights.batch
    return (asked[start : start + _NETWORKS_AT_ONCE] for start in range(0, b, _NETWORKS_AT_ONCE))
