"""Standard transformers that zoos are made of: their specs, their keys in a library's files, their configurations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nfn_transformer.errors import UserError
from nfn_transformer.generation.standard_tasks import StandardTask
from nfn_transformer.weights.standard_libraries import AUTO, LIBRARIES, rows_of
from nfn_transformer.weights.standard_spec import LayoutEntry, StandardTransformerSpec, block_shapes, rest_shapes


@dataclass(frozen=True)
class StandardSizes:
    """Sizes of a network, under the names of the metadata."""

    embed_dim: int
    """Width D of the residual stream."""
    n_attention_heads: int
    """Heads of each block."""
    n_layers: int
    """Blocks."""
    hidden: int
    """Hidden neurons of each MLP."""
    head_dim: int
    """Width of a head's queries, keys and values."""


@dataclass(frozen=True)
class StandardKind:
    """Kind of standard transformer, one for each family of the command."""

    library: str
    """Name of the convention of its keys in `LIBRARIES`."""
    head: int
    """Number of its head among the convention's."""
    task: str
    """`images`, `texts` or `next_token`."""
    fields: Mapping[str, Any]
    """Fields of its spec beside sizes."""
    config: Callable[[StandardTransformerSpec], dict[str, Any]]
    """Return what its `config.json` says."""


def standard_spec(family: str, sizes: StandardSizes, task: StandardTask, patch: int) -> StandardTransformerSpec:
    """Return the spec of a family's networks, in the layout of its library.

    Args:
        family: a key of KINDS.
        sizes: of the networks.
        task: tells inputs and outputs.
        patch: side of an image's patch in pixels.

    Raises:
        UserError: the family has no networks of these sizes, or patches do not divide the images.
    """
    kind, D = KINDS[family], sizes.embed_dim
    if sizes.n_attention_heads * sizes.head_dim != D and family not in _ANY_HEAD_DIM:
        raise UserError(
            f"--family {family}: {sizes.n_attention_heads} heads of {sizes.head_dim}, expected {D} together"
        )
    fields: dict[str, Any] = {**kind.fields, "width": D, "blocks": sizes.n_layers, "hidden": sizes.hidden}
    fields |= {"heads": sizes.n_attention_heads, "groups": sizes.n_attention_heads, "key": sizes.head_dim}
    head = (D, D, task.outputs) if "head_activations" in kind.fields else (D, task.outputs)
    fields |= {"value": sizes.head_dim, "head_sizes": head}
    tokens = task.tokens
    if kind.task == "images":
        channels, *image = task.train.inputs.shape[1:]
        if any(side % patch for side in image):
            raise UserError(f"--patch {patch}: does not divide the images' {image[0]} x {image[1]} pixels")
        fields |= {"channels": channels, "image": tuple(image), "patch": (patch, patch)}
        tokens = (image[0] // patch) * (image[1] // patch) + sum(kind.fields.get("prefix", ()))
    else:
        fields["vocabulary"] = task.vocabulary
    if kind.fields.get("positions", "learned") == "learned":
        fields["position_rows"] = tokens
    try:
        spec = StandardTransformerSpec(**fields)
    except ValueError as error:
        raise UserError(f"--family {family}: {error}") from None
    return replace(spec, layout=_layout(spec, kind))


def _layout(spec: StandardTransformerSpec, kind: StandardKind) -> tuple[LayoutEntry, ...]:
    """Return the keys of a library's model, with a head, and what they hold."""
    library = next(each for each in LIBRARIES if each.name == kind.library)
    head, inner = library.heads[kind.head], library.prefixes[0] if library.prefixes else ""
    rows = [row._replace(key=inner + row.key) for row in rows_of((*library.rest, *library.blocks, *head.inner))]
    missing = {*rest_shapes(spec), *block_shapes(spec)}
    entries = []
    for row in (*rows, *rows_of(head.rows), *head.tied):
        roles = "prefix.0" if row.roles == "prefix" else row.roles
        if missing.issuperset(roles.split()):
            entries.append(LayoutEntry(row.key, roles, "batched" if row.form == AUTO else row.form))
            missing -= set(roles.split())
    return tuple(entries)


def standard_config(family: str, spec: StandardTransformerSpec, half: bool) -> dict[str, Any]:
    """Return the content of the `config.json` beside a checkpoint."""
    return {**KINDS[family].config(spec), "dtype": "float16" if half else "float32"}


def _labels(spec: StandardTransformerSpec) -> dict[str, Any]:
    # The library reads the number of classes from their names.
    names = {str(number): f"LABEL_{number}" for number in range(spec.head_sizes[-1])}
    return {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}


def _encoder_sizes(spec: StandardTransformerSpec) -> dict[str, Any]:
    return {
        **{"hidden_size": spec.width, "num_hidden_layers": spec.blocks, "num_attention_heads": spec.heads},
        **{"intermediate_size": spec.hidden},
    }


def _image_size(spec: StandardTransformerSpec) -> int | list[int]:
    height, width = spec.image
    return height if height == width else [height, width]


def _vit_config(spec: StandardTransformerSpec) -> dict[str, Any]:
    return {
        **{"architectures": ["ViTForImageClassification"], "model_type": "vit", **_encoder_sizes(spec)},
        **{"hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "qkv_bias": True},
        **{"layer_norm_eps": spec.epsilon, "image_size": _image_size(spec)},
        **{"patch_size": spec.patch[0], "num_channels": spec.channels, **_labels(spec)},
    }


def _simple_vit_config(spec: StandardTransformerSpec) -> dict[str, Any]:
    # Arguments of vit_pytorch.SimpleViT are in `model_args`.
    arguments = {
        **{"image_size": _image_size(spec), "patch_size": spec.patch[0], "num_classes": spec.head_sizes[-1]},
        **{"dim": spec.width, "depth": spec.blocks, "heads": spec.heads, "mlp_dim": spec.hidden},
        **{"channels": spec.channels, "dim_head": spec.key},
    }
    return {"num_attention_heads": spec.heads, "head_dim": spec.key, "model_args": arguments}


def _bert_config(spec: StandardTransformerSpec) -> dict[str, Any]:
    return {
        **{"architectures": ["BertForSequenceClassification"], "model_type": "bert", **_encoder_sizes(spec)},
        **{"hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        **{"layer_norm_eps": spec.epsilon, "vocab_size": spec.vocabulary, "type_vocab_size": spec.token_types},
        **{"max_position_embeddings": spec.position_rows, "pad_token_id": 0, **_labels(spec)},
    }


def _gpt_config(spec: StandardTransformerSpec) -> dict[str, Any]:
    return {
        **{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": spec.width, "n_layer": spec.blocks},
        **{"n_head": spec.heads, "n_inner": spec.hidden, "n_positions": spec.position_rows},
        **{"vocab_size": spec.vocabulary, "activation_function": "gelu_new", "layer_norm_epsilon": spec.epsilon},
        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "tie_word_embeddings": True},
        **{"bos_token_id": None, "eos_token_id": None},
    }


def _llama_config(spec: StandardTransformerSpec) -> dict[str, Any]:
    return {
        **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", **_encoder_sizes(spec)},
        **{"num_key_value_heads": spec.groups, "head_dim": spec.key, "hidden_act": "silu", "attention_bias": False},
        **{"mlp_bias": False, "rms_norm_eps": spec.epsilon, "rope_theta": spec.rope_theta},
        **{"vocab_size": spec.vocabulary, "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None},
    }


_ANY_HEAD_DIM = ("simple_vit", "llama")
"""Families whose heads need not divide D."""

KINDS = {
    "vit": StandardKind(
        "a Hugging Face ViT", 0, "images", {"inputs": "patches", "prefix": (1,), "epsilon": 1e-12}, _vit_config
    ),
    "simple_vit": StandardKind(
        "a ViT of vit_pytorch",
        0,
        "images",
        {
            **{"inputs": "patches", "positions": "sinusoidal_2d", "patch_norm": True, "embedding_norm": True},
            **{"pooling": "mean", "absent": ("b_Q", "b_K", "b_V", "b_O")},
        },
        _simple_vit_config,
    ),
    "bert": StandardKind(
        "a Hugging Face BERT or RoBERTa",
        1,
        "texts",
        {
            **{"inputs": "words", "token_types": 2, "placement": "post", "embedding_norm": True, "epsilon": 1e-12},
            **{"final_norm": "none", "head_activations": ("tanh", "none")},
        },
        _bert_config,
    ),
    "gpt": StandardKind(
        "a Hugging Face GPT-2",
        1,
        "next_token",
        {
            **{"inputs": "words", "causal": True, "activation": "gelu_tanh", "pooling": "none", "tied": True},
            **{"absent": ("head.0.bias",)},
        },
        _gpt_config,
    ),
    "llama": StandardKind(
        "a Llama, Mistral or Qwen2",
        1,
        "next_token",
        {
            **{"inputs": "words", "causal": True, "norm": "rms", "positions": "rope", "activation": "silu"},
            **{"gated": True, "epsilon": 1e-6, "pooling": "none"},
            **{"absent": ("head.0.bias", "b_Q", "b_K", "b_V", "b_O", "b_1", "b_G", "b_2")},
        },
        _llama_config,
    ),
}
"""Family of the command -> its kind."""
