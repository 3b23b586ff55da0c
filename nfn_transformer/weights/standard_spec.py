"""Sizes and function of a standard transformer: one with a residual stream, as ViT, BERT, GPT-2 and Llama."""

import itertools
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

STANDARD_ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
"""Activations of a standard transformer's MLPs."""

CHOICES = {
    "norm": ("layer", "rms"),
    "placement": ("pre", "post"),
    "activation": STANDARD_ACTIVATIONS,
    "inputs": ("patches", "words", "vectors", "stream"),
    "positions": ("none", "learned", "sinusoidal", "sinusoidal_2d", "rope"),
    "final_norm": ("none", "before_pooling", "after_pooling"),
    "pooling": ("none", "mean", "first", "last"),
}
"""Field of `StandardTransformerSpec` -> its choices."""

HEAD_ACTIVATIONS = ("none", "tanh", *STANDARD_ACTIVATIONS)
"""Activations after a layer of the head; `none` is the identity."""


class LayoutEntry(NamedTuple):
    """Tensor of a state dict, and how it holds tensors of the network."""

    key: str
    """Key; `{}` stands for the number of a block."""
    roles: str
    """Names of the tensors in it, side by side along their outputs: "W_Q W_K W_V". See `tensor_shapes`."""
    form: str
    """Form of its numbers, one of `standard_state_dicts.FORMS`."""


@dataclass(frozen=True)
class StandardTransformerSpec:
    """Sizes and function of a standard transformer.

    All blocks are alike. Pre-norm: x += attention(norm(x)), x += MLP(norm(x)). Post-norm: x = norm(x + attention(x)),
    x = norm(x + MLP(x)). The head reads the pooled stream.

    Raises:
        ValueError: a choice is unknown, or sizes contradict each other.
    """

    family: ClassVar[str] = "transformer"
    """Name of its `families.registry.Family`."""
    width: int
    """D, width of the residual stream."""
    blocks: int
    """B."""
    heads: int
    """h, heads of queries."""
    groups: int
    """g, heads of keys and values; h / g queries share each."""
    key: int
    """D_k."""
    value: int
    """D_v."""
    hidden: int
    """Hidden neurons of each MLP."""
    norm: str = "layer"
    """`layer` or `rms`: LayerNorm or RMSNorm."""
    placement: str = "pre"
    """`pre` or `post`: norms read the stream before a half block, or stand in it."""
    epsilon: float = 1e-5
    """Number that every norm adds to the variance."""
    activation: str = "gelu"
    """One of STANDARD_ACTIVATIONS."""
    gated: bool = False
    """True for MLPs activation(x W_G) * (x W_1)."""
    causal: bool = False
    """True where a token sees no later one."""
    inputs: str = "patches"
    """`patches` of images, `words`, `vectors` (tokens [f], mapped to D), or the `stream` itself."""
    channels: int = 0
    """Channels of images."""
    patch: tuple[int, int] = (0, 0)
    """Height and width of a patch."""
    image: tuple[int, int] = (0, 0)
    """Height and width of images; (0, 0): any."""
    vocabulary: int = 0
    """Count of words."""
    token_types: int = 0
    """Rows of the embedding of token types; every token is of type 0."""
    features: int = 0
    """f, numbers of a token where the inputs are vectors."""
    prefix: tuple[int, ...] = ()
    """Counts of trained tokens in front of all others: class token, distillation token, register tokens."""
    positions: str = "learned"
    """`none`, `learned`, `sinusoidal` (in words' order), `sinusoidal_2d` (of patches) or `rope`."""
    position_rows: int = 0
    """Rows of learned positions."""
    position_offset: int = 0
    """Row of the first token's learned position."""
    positions_on_prefix: bool = True
    """True where positions are added to prefix tokens, too."""
    rope_theta: float = 10_000.0
    """Base of the rotations' frequencies."""
    patch_norm: bool = False
    """True for a LayerNorm on patches or vectors, before they are mapped to D."""
    embedding_norm: bool = False
    """True for a norm after the embedding: of patches (before positions) or of words (after)."""
    embedding_mix: bool = False
    """True where a matrix [D, D] stands in place of the embedding norm's gain. No library's model has it."""
    final_norm: str = "before_pooling"
    """`none`, `before_pooling` or `after_pooling`."""
    pooling: str = "first"
    """`none` (outputs for every token), `mean` (over all but prefix tokens), `first` or `last` token."""
    head_sizes: tuple[int, ...] = ()
    """(D, ..., outputs) of the head's linear layers; empty: the stream is the output."""
    head_activations: tuple[str, ...] = ()
    """Activation after each layer of the head; empty: none. BERT's pooler is a first layer with `tanh`."""
    head_norm: bool = False
    """True for a LayerNorm before the head's last layer."""
    tied: bool = False
    """True where the head's last matrix is the transpose of the words' embedding."""
    absent: tuple[str, ...] = ()
    """Roles of tensors that the networks lack: biases and shifts are 0 there, gains 1."""
    layout: tuple[LayoutEntry, ...] = field(default=(), compare=False, repr=False)
    """Tensors of a state dict; empty: keys `blocks.0.W_Q`, ... of the network's own tensors."""

    @property
    def kind(self) -> str:
        """Return the kind of the network as text."""
        return f"{'causal ' * self.causal}standard transformer of {self.inputs}"

    @property
    def description(self) -> str:
        """Return kind, blocks and width as text."""
        return f"{self.kind}, {self.blocks} blocks, width {self.width}"

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if (value := vars(self)[name]) not in choices:
                raise ValueError(f"{name} '{value}', expected one of {', '.join(choices)}")
        sizes = ("width", "heads", "groups", "key", "value", "hidden", "blocks")
        for name in (*sizes, *_NEEDED[self.inputs]):
            value = vars(self)[name]
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"{name} {value}, expected at least 1")
        if self.heads % self.groups:
            raise ValueError(f"{self.heads} heads, expected a multiple of {self.groups} groups of keys and values")
        if self.positions == "rope" and self.key % 2:
            raise ValueError(f"key {self.key}, expected an even number with rotary positions")
        if self.positions == "sinusoidal_2d" and (self.inputs != "patches" or self.width % 4 or self.width < 8):
            raise ValueError(f"positions sinusoidal_2d of width {self.width}, expected patches, and 4 to divide it")
        if self.inputs != "patches" and (self.image, self.patch, self.channels) != ((0, 0), (0, 0), 0):
            raise ValueError(f"image {self.image} of networks that read {self.inputs}")
        if self.image != (0, 0) and any(side < 1 or side % p for side, p in zip(self.image, self.patch, strict=True)):
            raise ValueError(f"image {self.image}, expected multiples of the patch {self.patch}")
        if (self.positions == "learned") != (self.position_rows > 0):
            raise ValueError(f"{self.position_rows} rows of positions '{self.positions}'")
        if self.embedding_mix and not self.embedding_norm:
            raise ValueError("embedding_mix requires embedding_norm")
        self._check_head()
        if unknown := set(self.absent).difference(_MAY_BE_ABSENT):
            raise ValueError(f"absent '{min(unknown)}', expected some of {', '.join(_MAY_BE_ABSENT)}")

    def _check_head(self) -> None:
        sizes, activations = self.head_sizes, self.head_activations
        if sizes and (sizes[0] != self.width or len(sizes) < 2 or min(sizes) < 1):
            raise ValueError(f"head_sizes {sizes}, expected {self.width} inputs")
        if activations and len(activations) != len(sizes) - 1:
            raise ValueError(f"{len(activations)} head_activations of {max(len(sizes) - 1, 0)} layers")
        if unknown := set(activations).difference(HEAD_ACTIVATIONS):
            raise ValueError(f"head activation '{min(unknown)}', expected one of {', '.join(HEAD_ACTIVATIONS)}")
        if self.head_norm and len(sizes) < 3:
            raise ValueError("head_norm requires two layers of the head")
        if self.tied and (not sizes or sizes[-2:] != (self.width, self.vocabulary)):
            raise ValueError(f"tied head {sizes}, expected ({self.width}, {self.vocabulary}) last")

    @property
    def token_inputs(self) -> int:
        """Return the numbers of a patch or of a vector."""
        return self.features if self.inputs == "vectors" else self.channels * self.patch[0] * self.patch[1]

    @property
    def activations(self) -> tuple[str, ...]:
        """Return the activation after each layer of the head."""
        return self.head_activations or ("none",) * max(len(self.head_sizes) - 1, 0)

    @property
    def prefix_tokens(self) -> int:
        """Return the count of prefix tokens."""
        return sum(self.prefix)


_NEEDED = {
    "patches": ("channels", "patch"),
    "words": ("vocabulary",),
    "vectors": ("features",),
    "stream": (),
}
_MAY_BE_ABSENT = (
    *("gain_1", "shift_1", "b_Q", "b_K", "b_V", "b_O", "gain_2", "shift_2", "b_1", "b_G", "b_2"),
    *("b_E", "patch_gain", "patch_shift", "embedding_gain", "embedding_shift", "final_gain", "final_shift"),
    *("head_gain", "head_shift", *(f"head.{layer}.bias" for layer in range(16))),
)


def block_shapes(spec: StandardTransformerSpec) -> dict[str, tuple[int, ...]]:
    """Return role -> shape of the tensors of a block, those that are absent left out. Matrices multiply from the right.

    All heads of a projection are one matrix: W_Q is [D, h D_k].
    """
    D, hidden, queries, keys = spec.width, spec.hidden, spec.heads * spec.key, spec.groups * spec.key
    values, mixed = spec.groups * spec.value, spec.heads * spec.value
    shapes: dict[str, tuple[int, ...]] = {
        **{"gain_1": (D,), "shift_1": (D,), "W_Q": (D, queries), "b_Q": (queries,), "W_K": (D, keys), "b_K": (keys,)},
        **{"W_V": (D, values), "b_V": (values,), "W_O": (mixed, D), "b_O": (D,), "gain_2": (D,), "shift_2": (D,)},
        **{"W_1": (D, hidden), "b_1": (hidden,), "W_G": (D, hidden), "b_G": (hidden,), "W_2": (hidden, D), "b_2": (D,)},
    }
    return _without(spec, shapes, () if spec.gated else ("W_G", "b_G"))


def rest_shapes(spec: StandardTransformerSpec) -> dict[str, tuple[int, ...]]:
    """Return role -> shape of the tensors outside of the blocks, those that are absent left out."""
    D, shapes = spec.width, dict[str, tuple[int, ...]]()
    if spec.inputs == "words":
        shapes["words"] = (spec.vocabulary, D)
        if spec.token_types:
            shapes["token_types"] = (spec.token_types, D)
    elif spec.inputs != "stream":
        if spec.patch_norm:
            shapes |= {"patch_gain": (spec.token_inputs,), "patch_shift": (spec.token_inputs,)}
        shapes |= {"W_E": (spec.token_inputs, D), "b_E": (D,)}
    shapes |= {f"prefix.{index}": (count, D) for index, count in enumerate(spec.prefix)}
    if spec.position_rows:
        shapes["positions"] = (spec.position_rows, D)
    if spec.embedding_norm:
        shapes |= {"embedding_gain": (D,), "embedding_shift": (D,)}
    if spec.embedding_mix:
        shapes["embedding_gain"] = (D, D)
    if spec.final_norm != "none":
        shapes |= {"final_gain": (D,), "final_shift": (D,)}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(spec.head_sizes)):
        shapes |= {f"head.{layer}.weight": (inputs, outputs), f"head.{layer}.bias": (outputs,)}
    if spec.tied:
        del shapes[f"head.{len(spec.head_sizes) - 2}.weight"]
    if spec.head_norm:
        shapes |= {"head_gain": (spec.head_sizes[-2],), "head_shift": (spec.head_sizes[-2],)}
    return _without(spec, shapes)


def _without(
    spec: StandardTransformerSpec, shapes: dict[str, tuple[int, ...]], others: tuple[str, ...] = ()
) -> dict[str, tuple[int, ...]]:
    # An RMSNorm has no shift. The head's norm and the patches' are LayerNorms.
    rms = ("shift_1", "shift_2", "embedding_shift", "final_shift") if spec.norm == "rms" else ()
    return {role: shape for role, shape in shapes.items() if role not in (*spec.absent, *rms, *others)}
