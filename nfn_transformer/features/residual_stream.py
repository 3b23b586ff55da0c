"""Named invariants of signals in a residual stream: numbers that no symmetry of its network changes.

Symmetries turn the stream's coordinates by one orthogonal matrix, exchange heads, and exchange or scale hidden neurons
(`groups.standard_transformer`). So functions of scalar products of the stream are invariant. So are attention rows,
what a head adds to the stream, and the signs of preactivations, as long as heads and neurons are treated alike.
Where a LayerNorm subtracts the mean over the coordinates, and nothing else reads it, it is subtracted here.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nfn_transformer.features.propagation import NamedNumbers, entropy_of, over_heads, signal_invariants

# Against a division by zero or its logarithm: all that is compared with it is of the order of 1.
_SMALL = 1e-6
_TINY = 1e-12
_LEAST_ROW = 1e-30
EIGENVALUES = (1, 2, 4, 8)
"""Places of the eigenvalues of a Gram matrix that are read."""


def stream_invariants(stream: Float[Tensor, "b n tokens D"], centred: bool) -> NamedNumbers:
    """Return how the tokens of a stream spread, after they are made of one size, and these sizes.

    Args:
        stream: before or after a half block.
        centred: subtract the mean over D.
    """
    stream = stream - stream.mean(-1, keepdim=True) if centred else stream
    size = stream.square().mean(-1).sqrt()  # [b, n, tokens]
    logarithms = torch.log(size + _TINY)
    return {
        **signal_invariants(stream / (size + _TINY)[..., None]),
        "log_size": logarithms.mean((1, 2)),
        "size_deviation": logarithms.flatten(1).std(1, correction=0),
    }


def contribution_invariants(
    added: Float[Tensor, "b n tokens D"], stream: Float[Tensor, "b n tokens D"]
) -> NamedNumbers:
    """Return how large a half block's contribution is beside the stream, where it points, and how it spreads."""
    powers = [signal.square().mean(-1) for signal in (added, stream)]  # [b, n, tokens]
    sizes = [power.sqrt() + _TINY for power in powers]
    cosine = (added * stream).mean(-1) / (sizes[0] * sizes[1])
    of_added, of_stream = (power.mean((1, 2)).sqrt() + _TINY for power in powers)
    return {
        **signal_invariants(added / of_added[:, None, None, None]),
        "log_ratio": torch.log(of_added / of_stream),
        "cosine": cosine.mean((1, 2)),
    }


def attention_invariants(rows: Float[Tensor, "b n h tokens tokens"], causal: bool) -> NamedNumbers:
    """Return how sharp the heads' attention is and where it looks, as mean, least and most over the heads.

    Entropies are shares of the largest possible one. Scores are known from the rows up to a constant of each.
    """
    tokens = rows.shape[-1]
    scores = rows.clamp(min=_LEAST_ROW).log()
    entropy = -(rows * scores).sum(-1)  # [b, n, h, tokens]
    if causal:
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=rows.device).tril()
        counts = seen.sum(-1).to(rows.dtype)
        mean = (scores * seen).sum(-1) / counts
        variance = ((scores - mean[..., None]) * seen).square().sum(-1) / counts
        longest = max(_SMALL, float(counts.log().mean()))
    else:
        variance = scores.var(-1, correction=0)
        longest = max(_SMALL, math.log(tokens))
    own, before = (rows.diagonal(-offset, -2, -1) for offset in (0, min(1, tokens - 1)))
    return {
        **over_heads("attention_entropy", entropy.mean((1, 3)) / longest),
        **over_heads("mean_attention_entropy", entropy_of(rows.mean(1)).mean(2) / longest),
        **over_heads("score_deviation", torch.log(variance.sqrt().mean((1, 3)) + _SMALL)),
        **over_heads("to_itself", own.mean((1, 3))),
        **over_heads("to_the_previous", before.mean((1, 3))),
        **over_heads("to_the_first", rows[..., 0].mean((1, 3))),
    }


def share_invariants(name: str, power: Float[Tensor, "b m"]) -> NamedNumbers:
    """Return the largest share of m parts of a whole, and the logarithm of the share of parts that count in effect."""
    share = power / (power.sum(1, keepdim=True) + _TINY)
    concentration = share.square().sum(1).clamp(min=1 / power.shape[1])
    return {
        f"largest_{name}_share": share.amax(1),
        f"effective_{name}_share": -torch.log(concentration * power.shape[1]),
    }


def spectrum_invariants(vectors: Float[Tensor, "b n D"]) -> NamedNumbers:
    """Return logarithms of the largest eigenvalues' shares in the Gram matrix of n vectors without their mean."""
    centred = vectors - vectors.mean(1, keepdim=True)
    size = centred.square().sum((1, 2), keepdim=True).sqrt() + _TINY
    centred = centred / size
    gram = centred @ centred.transpose(1, 2)
    is_finite = gram.isfinite().all(2).all(1)  # huge weights may overflow, and no solver reads that
    values = torch.linalg.eigvalsh(torch.where(is_finite[:, None, None], gram, 0.0)).flip(1)
    values = torch.nn.functional.pad(values, (0, max(0, EIGENVALUES[-1] - values.shape[1]))).clamp(min=0)
    return {f"eigenvalue{place}": torch.log(values[:, place - 1] + 1e-4) for place in EIGENVALUES}


def next_word_invariants(logits: Float[Tensor, "b n tokens words"], words: Tensor) -> NamedNumbers:
    """Return how surprising the words of texts [n, tokens] are to language models, beside the logarithm of their count.

    The later half of a text may repeat the earlier half; both are told apart.
    """
    surprise = -logits[:, :, :-1].log_softmax(-1)
    target = words[:, 1:].expand(len(logits), -1, -1)[..., None]
    each = surprise.gather(-1, target).squeeze(-1).mean(1) / math.log(max(2, logits.shape[-1]))  # [b, tokens - 1]
    half = max(1, words.shape[1] // 2)
    return {
        "surprise": torch.log(each[:, :half].mean(1) + _SMALL),
        "later_surprise": torch.log(each[:, half:].mean(1) + _SMALL),
    }
