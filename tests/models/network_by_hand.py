"""The predictor's forward pass from its named parameters alone, as the design describes the network.

Slow and plain: no module of the predictor runs here, only its parameters are read, by name. Index
letters: b network, d input channel, e output channel, n hidden neuron, p q k l entries.
"""

import torch
from layers import oracle
from torch import Tensor
from torch.nn.functional import layer_norm, linear, relu

from nfn_transformer.models.predictor import SinglePredictor
from nfn_transformer.weights.containers import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights

einsum = torch.einsum


class Parameters:
    """A model's named parameters under one prefix."""

    def __init__(self, model: torch.nn.Module, prefix: str = ""):
        self.model, self.prefix = model, prefix

    def __getitem__(self, name: str) -> Tensor:
        return dict(self.model.named_parameters())[self.prefix + name]

    def within(self, name: str) -> "Parameters":
        return Parameters(self.model, f"{self.prefix}{name}.")

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (x.shape[1],), self[f"{name}.weight"], self[f"{name}.bias"])


def logit(model: SinglePredictor, weights: TransformerWeights) -> Tensor:
    """Encoder, classifier, embedding side by side, then Linear -> 1."""
    P, config, parts = Parameters(model), model.config, []
    blocks = [tensor for block in weights.blocks for tensor in block_tensors(block)]
    classifier = classifier_tensors(weights.classifier)
    if config.enc_mode == "inv":
        parts.append(equivariant_encoder(model, weights.blocks))
    elif config.enc_mode != "no":
        parts.append(
            feature_mlp(P.within("encoder"), config.enc_mode, blocks, config.options["transformers_nfn_channels"])
        )
    if config.cls_mode == "hnps":
        parts.append(
            hnps_classifier(P.within("classifier"), weights.classifier, config.options["classifier_nfn_channels"])
        )
    elif config.cls_mode in ("np", "hnp"):
        parts.append(permuted_classifier(P.within("classifier"), weights.classifier, model))
    elif config.cls_mode != "no":
        parts.append(
            feature_mlp(P.within("classifier"), config.cls_mode, classifier, config.options["classifier_nfn_channels"])
        )
    if config.emb_mode != "no":
        parts.append(P.linear("embedding.linear", side_by_side(embedding_tensors(weights.embedding))))
    return P.linear("output", torch.cat(parts, dim=1))[:, 0]


def block_tensors(U: BlockWeights) -> list[Tensor]:
    return [U.W_Q, U.W_K, U.W_V, U.W_O, U.W_A, U.b_A, U.W_B, U.b_B]


def classifier_tensors(U: FeedForwardWeights) -> list[Tensor]:
    return [*U.weights, *U.biases]


def embedding_tensors(U: EmbeddingWeights) -> list[Tensor]:
    return [U.conv_weight, U.conv_bias]


def side_by_side(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)


def equivariant_encoder(model: SinglePredictor, blocks: tuple[BlockWeights, ...]) -> Tensor:
    """Per block equivariant layers each with a ReLU on A, B and their biases, the invariant layer, a LayerNorm."""
    P, parts = Parameters(model, "encoder."), []
    for L, U in enumerate(blocks):
        for layer in model.encoder.equivariant[L]:
            E = oracle.equivariant(layer, U)
            U = BlockWeights(E.W_Q, E.W_K, E.W_V, E.W_O, relu(E.W_A), relu(E.b_A), relu(E.W_B), relu(E.b_B))
        parts.append(P.layer_norm(f"block_norms.{L}", oracle.invariant(model.encoder.invariant[L], U)))
    return readout(P.within("head"), P.layer_norm("norm", torch.cat(parts, dim=1)))


def readout(P: Parameters, x: Tensor) -> Tensor:
    """Linear to 10, then twice LayerNorm, ReLU, Linear; a ReLU too has an index in the list."""
    x = P.linear("0", x)
    x = P.linear("3", relu(P.layer_norm("1", x)))
    return P.linear("6", relu(P.layer_norm("4", x)))


def feature_mlp(P: Parameters, mode: str, tensors: list[Tensor], hidden: tuple[int, ...]) -> Tensor:
    """Linear + ReLU to each hidden width and to the output, from flattened weights or their statistics."""
    x = side_by_side(tensors) if mode == "mlp" else torch.cat([statistics(tensor) for tensor in tensors], dim=1)
    for index in range(len(hidden) + 1):
        x = relu(P.linear(f"layers.{2 * index}", x))
    return x


def statistics(tensor: Tensor) -> Tensor:
    """Mean, variance, and the 0/25/50/75/100 % quantiles, linear between sorted numbers: [b, 7]."""
    x = tensor.reshape(len(tensor), -1).sort(dim=1).values
    last = x.shape[1] - 1
    mean = x.sum(1) / (last + 1)
    numbers = [mean, ((x - mean[:, None]) ** 2).sum(1) / (last + 1)]
    for quarter in range(5):
        below, rest = divmod(quarter * last, 4)
        numbers.append(x[:, below] + rest / 4 * (x[:, min(below + 1, last)] - x[:, below]))
    return torch.stack(numbers, dim=1)


def hnps_classifier(P: Parameters, U: FeedForwardWeights, channels: tuple[int, ...]) -> Tensor:
    """HNPS layers each with a ReLU on everything, for L = 2; the pooling; the head."""
    (W_1, W_2), (b_1, b_2) = U.weights, U.biases
    for index in range(len(channels)):
        phi = P.within(f"layers.{index}")
        new_W_1 = einsum("bdnq,epdq->benp", W_1, phi["first_weight"])
        new_W_1 = new_W_1 + einsum("bdn,epd->benp", b_1, phi["first_weight_from_bias"])
        new_b_1 = einsum("bdnq,edq->ben", W_1, phi["first_bias_from_weight"])
        new_b_1 = new_b_1 + einsum("bdn,ed->ben", b_1, phi["first_bias"])
        new_W_2 = einsum("ekdl,bdln->bekn", phi["last_weight"], W_2)
        new_b_2 = einsum("ekdl,bdl->bek", phi["last_bias"], b_2) + phi["constant"]
        W_1, b_1, W_2, b_2 = relu(new_W_1), relu(new_b_1), relu(new_W_2), relu(new_b_2)
    pooling = P.within("pooling")
    pooled = [
        scale_free(W_1, pooling, 0).mean(2),  # over the rows of W^(1)
        scale_free(W_2, pooling, 1).mean(3),  # over the columns of W^(2)
        scale_free(b_1, pooling, 2).mean(2),
        b_2,
    ]
    return readout(P.within("head"), side_by_side(pooled))


def permuted_classifier(P: Parameters, U: FeedForwardWeights, model: SinglePredictor) -> Tensor:
    """NP or HNP layers each with a ReLU on everything, the mean over what is permuted, the head.

    Letters: q p x are a target's inputs, hidden neurons and classes, and those of a source that are kept or not free;
    Q P X those of a source that the mean is taken over.
    """
    free = "qpx" if model.config.cls_mode == "np" else "p"
    axes = ("pq", "xp", "p", "x")  # of W^(1), W^(2), b^(1), b^(2)
    sizes = dict(zip("qpx", model.spec.classifier.sizes, strict=True))
    tensors = classifier_tensors(U)
    for index, layer in enumerate(model.classifier.layers):
        new = [0.0] * 4
        for number, term in enumerate(layer.maps):
            target, source = axes[term.target], axes[term.source]
            kept = ["qpx"[axis] for axis in term.kept]
            given = "".join(a if a in kept else a.upper() for a in source)
            summed = [a for a in source if a in free and a not in kept]
            rows = [a for a in target if a not in free]
            columns = [a for a in source if a not in free]
            e, d = layer.out_channels, layer.in_channels
            Phi = P[f"layers.{index}.Phi.{number}"].view(e, *(sizes[a] for a in rows), d, *(sizes[a] for a in columns))
            matrix = f"e{''.join(rows)}d{''.join(columns).upper()}"
            left = "".join(a if a in rows or a in kept else "" for a in target)
            mapped = einsum(f"bd{given},{matrix}->be{left}", tensors[term.source], Phi)
            for position, a in enumerate(target):
                mapped = mapped if a in left else mapped.unsqueeze(2 + position)
            count = 1
            for a in summed:
                count *= sizes[a]
            new[term.target] = new[term.target] + mapped / count
        for number, target in enumerate(axes):
            rows = [a for a in target if a not in free]
            constant = P[f"layers.{index}.constants.{number}"].view(-1, *(sizes[a] for a in rows))
            for position, a in enumerate(target):
                constant = constant if a in rows else constant.unsqueeze(1 + position)
            whole = torch.ones(1, 1, *(sizes[a] for a in target), dtype=constant.dtype)
            new[number] = relu((new[number] + constant) * whole)
        tensors = new
    pooled = []
    for tensor, target in zip(tensors, axes, strict=True):
        over = [2 + position for position, a in enumerate(target) if a in free]
        pooled.append(tensor.mean(over) if over else tensor)
    return readout(P.within("head"), side_by_side(pooled))


def scale_free(tensor: Tensor, pooling: Parameters, index: int) -> Tensor:
    """Each entry over the L2 norm of its channels, zero where that is zero; a weight and bias per channel."""
    norm = (tensor**2).sum(1, keepdim=True).sqrt()
    unit = torch.where(norm > 0, tensor / norm, 0.0)
    scale, shift = pooling["scale"][index], pooling["shift"][index]
    return torch.stack([unit[:, c] * scale[c] + shift[c] for c in range(len(scale))], dim=1)
