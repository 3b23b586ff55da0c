"""Conventions of libraries: the keys of each and the tensors that they hold, as tables.

In a table's keys `{}` stands for the number of a block. Keys of a library's inner model begin with its prefix, as
`vit.` in `ViTForImageClassification`; those of `Head.rows` begin outside of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

AUTO = "auto"
"""Form that follows from the shape: rows of tokens as [T, D], [1, T, D], [T, 1, D] or [D]."""


class Row(NamedTuple):
    """Key of a library and what it holds, see `standard_spec.LayoutEntry`."""

    key: str
    roles: str
    form: str = "plain"


class Linear(NamedTuple):
    """Linear layer of a library: KEY.weight and KEY.bias."""

    key: str
    weight: str
    bias: str
    form: str = "transposed"


class Norm(NamedTuple):
    """Norm of a library: KEY.weight and KEY.bias, or KEY.gamma and KEY.beta of old files."""

    key: str
    gain: str
    shift: str


class HeadLayer(NamedTuple):
    """Linear layer of a head."""

    key: str
    layer: int


TableEntry = Row | Linear | Norm | HeadLayer


@lru_cache(maxsize=512)
def rows_of(entries: tuple[TableEntry, ...]) -> tuple[Row, ...]:
    """Return the keys in entries of a table."""
    rows: list[Row] = []
    for entry in entries:
        key = entry.key
        if isinstance(entry, Row):
            rows.append(entry)
        elif isinstance(entry, Norm):
            rows += [Row(f"{key}.weight", entry.gain), Row(f"{key}.bias", entry.shift)]
            rows += [Row(f"{key}.gamma", entry.gain), Row(f"{key}.beta", entry.shift)]
        else:
            if isinstance(entry, HeadLayer):
                entry = Linear(key, f"head.{entry.layer}.weight", f"head.{entry.layer}.bias")
            rows += [Row(f"{key}.weight", entry.weight, entry.form), Row(f"{key}.bias", entry.bias)]
    return tuple(rows)


@dataclass(frozen=True)
class Head:
    """Head that a library puts on its model."""

    rows: tuple[TableEntry, ...]
    """Keys outside of the inner model; those of `head.0.weight`, ... must be there."""
    fields: Mapping[str, Any]
    """Fields of the spec that it decides."""
    inner: tuple[TableEntry, ...] = ()
    """Keys inside of the inner model that belong to it."""
    tied: tuple[Row, ...] = ()
    """Keys of the output embedding, which may lack where it is tied to the words'."""


@dataclass(frozen=True, eq=False)
class Library:
    """Convention of one kind of model of a library."""

    name: str
    """Name for users."""
    prefixes: tuple[str, ...]
    """Prefixes of the inner model in a model with a head."""
    anchor: str
    """Key of each block that tells the library, and the first one of its `blocks`."""
    blocks: tuple[TableEntry, ...]
    """Keys of the blocks."""
    rest: tuple[TableEntry, ...]
    """Keys outside of the blocks and the head."""
    fields: Mapping[str, Any]
    """Fields of the spec that all such models have, or have where nothing tells others."""
    heads: tuple[Head, ...] = ()
    """Heads; the first one whose keys are there is the network's."""
    buffers: tuple[str, ...] = ()
    """Endings of keys that hold constants, which any model of the library makes anew."""
    others: tuple[str, ...] = ()
    """Beginnings of keys of heads that are never the network's."""
    model_types: tuple[str, ...] = ()
    """`model_type` of their configurations; empty: they have none."""
    guessed: tuple[str, ...] = ()
    """Fields that neither keys nor shapes tell, so that `fields` are a guess."""
    fields_of_prefix: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Prefix or `model_type` -> fields of these models alone."""


_FIRST, _EACH, _LAST = ({"pooling": pooling} for pooling in ("first", "none", "last"))
_TOKEN_HEADS = (Head((HeadLayer("classifier", 0),), _EACH), Head((HeadLayer("qa_outputs", 0),), _EACH))
_VIT_REST = (
    Row("embeddings.cls_token", "prefix", AUTO),
    Row("embeddings.distillation_token", "prefix", AUTO),
    Row("embeddings.position_embeddings", "positions", AUTO),
    Linear("embeddings.patch_embeddings.projection", "W_E", "b_E", "convolution"),
    Norm("layernorm", "final_gain", "final_shift"),
)
_VIT_FIELDS = {"epsilon": 1e-12}
_VIT_HEADS = (
    Head((HeadLayer("classifier", 0),), _FIRST),
    Head((), {**_FIRST, "head_activations": ("tanh",)}, inner=(HeadLayer("pooler.dense", 0),)),
    Head((), _EACH),
)
_BERT_REST = (
    Row("embeddings.word_embeddings.weight", "words"),
    Row("embeddings.token_type_embeddings.weight", "token_types"),
    Row("embeddings.position_embeddings.weight", "positions"),
    Norm("embeddings.LayerNorm", "embedding_gain", "embedding_shift"),
)
_POST = {"placement": "post", "final_norm": "none", "inputs": "words", "embedding_norm": True, "epsilon": 1e-12}
_CAUSAL = {"inputs": "words", "causal": True}
_CAUSAL_HEADS = (
    Head((HeadLayer("score", 0),), _LAST),
    Head((), _EACH, tied=(Row("lm_head.weight", "head.0.weight", "transposed"),)),
    Head((), _EACH),
)
_LLAMA_FIELDS = {**_CAUSAL, "norm": "rms", "positions": "rope", "activation": "silu", "epsilon": 1e-6}
_GPT_REST = (
    Row("wte.weight", "words"),
    Row("wpe.weight", "positions"),
    Norm("ln_f", "final_gain", "final_shift"),
)


_GPT_2_BLOCKS = (
    Linear("h.{}.attn.c_attn", "W_Q W_K W_V", "b_Q b_K b_V", "plain"),
    Linear("h.{}.attn.c_proj", "W_O", "b_O", "plain"),
    Linear("h.{}.mlp.c_fc", "W_1", "b_1", "plain"),
    Linear("h.{}.mlp.c_proj", "W_2", "b_2", "plain"),
    Norm("h.{}.ln_1", "gain_1", "shift_1"),
    Norm("h.{}.ln_2", "gain_2", "shift_2"),
)
_NANO_GPT_BLOCKS = (
    Linear("h.{}.attn.c_attn", "W_Q W_K W_V", "b_Q b_K b_V"),
    Linear("h.{}.attn.c_proj", "W_O", "b_O"),
    Linear("h.{}.mlp.c_fc", "W_1", "b_1"),
    Linear("h.{}.mlp.c_proj", "W_2", "b_2"),
    Norm("h.{}.ln_1", "gain_1", "shift_1"),
    Norm("h.{}.ln_2", "gain_2", "shift_2"),
)

LIBRARIES = (
    Library(
        name="a Hugging Face ViT",
        prefixes=("vit.", "deit."),
        anchor="encoder.layer.{}.attention.attention.query.weight",
        blocks=(
            Linear("encoder.layer.{}.attention.attention.query", "W_Q", "b_Q"),
            Linear("encoder.layer.{}.attention.attention.key", "W_K", "b_K"),
            Linear("encoder.layer.{}.attention.attention.value", "W_V", "b_V"),
            Linear("encoder.layer.{}.attention.output.dense", "W_O", "b_O"),
            Linear("encoder.layer.{}.intermediate.dense", "W_1", "b_1"),
            Linear("encoder.layer.{}.output.dense", "W_2", "b_2"),
            Norm("encoder.layer.{}.layernorm_before", "gain_1", "shift_1"),
            Norm("encoder.layer.{}.layernorm_after", "gain_2", "shift_2"),
        ),
        rest=_VIT_REST,
        fields=_VIT_FIELDS,
        heads=_VIT_HEADS,
        model_types=("vit", "deit"),
    ),
    Library(
        name="a Hugging Face ViT, as transformers 5 has it in memory",
        prefixes=("vit.", "deit."),
        anchor="layers.{}.attention.q_proj.weight",
        blocks=(
            Linear("layers.{}.attention.q_proj", "W_Q", "b_Q"),
            Linear("layers.{}.attention.k_proj", "W_K", "b_K"),
            Linear("layers.{}.attention.v_proj", "W_V", "b_V"),
            Linear("layers.{}.attention.o_proj", "W_O", "b_O"),
            Linear("layers.{}.mlp.fc1", "W_1", "b_1"),
            Linear("layers.{}.mlp.fc2", "W_2", "b_2"),
            Norm("layers.{}.layernorm_before", "gain_1", "shift_1"),
            Norm("layers.{}.layernorm_after", "gain_2", "shift_2"),
        ),
        rest=_VIT_REST,
        fields=_VIT_FIELDS,
        heads=_VIT_HEADS,
        model_types=("vit", "deit"),
    ),
    Library(
        name="a Hugging Face BERT or RoBERTa",
        prefixes=("bert.", "roberta."),
        anchor="encoder.layer.{}.attention.self.query.weight",
        blocks=(
            Linear("encoder.layer.{}.attention.self.query", "W_Q", "b_Q"),
            Linear("encoder.layer.{}.attention.self.key", "W_K", "b_K"),
            Linear("encoder.layer.{}.attention.self.value", "W_V", "b_V"),
            Linear("encoder.layer.{}.attention.output.dense", "W_O", "b_O"),
            Norm("encoder.layer.{}.attention.output.LayerNorm", "gain_1", "shift_1"),
            Linear("encoder.layer.{}.intermediate.dense", "W_1", "b_1"),
            Linear("encoder.layer.{}.output.dense", "W_2", "b_2"),
            Norm("encoder.layer.{}.output.LayerNorm", "gain_2", "shift_2"),
        ),
        rest=_BERT_REST,
        fields=_POST,
        heads=(
            Head(
                (HeadLayer("classifier.dense", 0), HeadLayer("classifier.out_proj", 1)),
                {**_FIRST, "head_activations": ("tanh", "none")},
            ),
            Head(
                (HeadLayer("classifier", 1),),
                {**_FIRST, "head_activations": ("tanh", "none")},
                inner=(HeadLayer("pooler.dense", 0),),
            ),
            Head(
                (
                    HeadLayer("cls.predictions.transform.dense", 0),
                    Norm("cls.predictions.transform.LayerNorm", "head_gain", "head_shift"),
                    Row("cls.predictions.bias", "head.1.bias"),
                    Row("cls.predictions.decoder.bias", "head.1.bias"),
                ),
                {**_EACH, "head_activations": ("gelu", "none"), "head_norm": True},
                tied=(Row("cls.predictions.decoder.weight", "head.1.weight", "transposed"),),
            ),
            Head(
                (
                    HeadLayer("lm_head.dense", 0),
                    Norm("lm_head.layer_norm", "head_gain", "head_shift"),
                    Row("lm_head.bias", "head.1.bias"),
                    Row("lm_head.decoder.bias", "head.1.bias"),
                ),
                {**_EACH, "head_activations": ("gelu", "none"), "head_norm": True},
                tied=(Row("lm_head.decoder.weight", "head.1.weight", "transposed"),),
            ),
            *_TOKEN_HEADS,
            Head((), {**_FIRST, "head_activations": ("tanh",)}, inner=(HeadLayer("pooler.dense", 0),)),
            Head((), _EACH),
        ),
        buffers=("embeddings.position_ids", "embeddings.token_type_ids"),
        others=("cls.seq_relationship.",),
        model_types=("bert", "roberta", "xlm-roberta", "camembert"),
        fields_of_prefix={name: {"position_offset": 2} for name in ("roberta", "xlm-roberta", "camembert")},
    ),
    Library(
        name="a Hugging Face DistilBERT",
        prefixes=("distilbert.",),
        anchor="transformer.layer.{}.attention.q_lin.weight",
        blocks=(
            Linear("transformer.layer.{}.attention.q_lin", "W_Q", "b_Q"),
            Linear("transformer.layer.{}.attention.k_lin", "W_K", "b_K"),
            Linear("transformer.layer.{}.attention.v_lin", "W_V", "b_V"),
            Linear("transformer.layer.{}.attention.out_lin", "W_O", "b_O"),
            Norm("transformer.layer.{}.sa_layer_norm", "gain_1", "shift_1"),
            Linear("transformer.layer.{}.ffn.lin1", "W_1", "b_1"),
            Linear("transformer.layer.{}.ffn.lin2", "W_2", "b_2"),
            Norm("transformer.layer.{}.output_layer_norm", "gain_2", "shift_2"),
        ),
        rest=_BERT_REST,
        fields=_POST,
        heads=(
            Head(
                (HeadLayer("pre_classifier", 0), HeadLayer("classifier", 1)),
                {**_FIRST, "head_activations": ("relu", "none")},
            ),
            Head(
                (
                    HeadLayer("vocab_transform", 0),
                    Norm("vocab_layer_norm", "head_gain", "head_shift"),
                    Row("vocab_projector.bias", "head.1.bias"),
                ),
                {**_EACH, "head_activations": ("gelu", "none"), "head_norm": True},
                tied=(Row("vocab_projector.weight", "head.1.weight", "transposed"),),
            ),
            *_TOKEN_HEADS,
            Head((), _EACH),
        ),
        buffers=("embeddings.position_ids",),
        model_types=("distilbert",),
    ),
    Library(
        name="a Hugging Face GPT-2",
        prefixes=("transformer.",),
        anchor="h.{}.attn.c_attn.weight",
        blocks=_GPT_2_BLOCKS,
        rest=_GPT_REST,
        fields={**_CAUSAL, "activation": "gelu_tanh"},
        heads=_CAUSAL_HEADS,
        buffers=(".attn.bias", ".attn.masked_bias"),
        model_types=("gpt2",),
    ),
    Library(
        name="a nanoGPT",
        prefixes=("transformer.",),
        anchor="h.{}.attn.c_attn.weight",
        blocks=_NANO_GPT_BLOCKS,
        rest=_GPT_REST,
        fields=_CAUSAL,
        heads=_CAUSAL_HEADS,
        buffers=(".attn.bias",),
        guessed=("activation",),
    ),
    Library(
        name="a Llama, Mistral or Qwen2",
        prefixes=("model.",),
        anchor="layers.{}.self_attn.q_proj.weight",
        blocks=(
            Linear("layers.{}.self_attn.q_proj", "W_Q", "b_Q"),
            Linear("layers.{}.self_attn.k_proj", "W_K", "b_K"),
            Linear("layers.{}.self_attn.v_proj", "W_V", "b_V"),
            Linear("layers.{}.self_attn.o_proj", "W_O", "b_O"),
            Linear("layers.{}.mlp.gate_proj", "W_G", "b_G"),
            Linear("layers.{}.mlp.up_proj", "W_1", "b_1"),
            Linear("layers.{}.mlp.down_proj", "W_2", "b_2"),
            Norm("layers.{}.input_layernorm", "gain_1", "shift_1"),
            Norm("layers.{}.post_attention_layernorm", "gain_2", "shift_2"),
        ),
        rest=(Row("embed_tokens.weight", "words"), Norm("norm", "final_gain", "final_shift")),
        fields=_LLAMA_FIELDS,
        heads=_CAUSAL_HEADS,
        buffers=("rotary_emb.inv_freq",),
        model_types=("llama", "mistral", "qwen2"),
        guessed=("rope_theta", "epsilon"),
    ),
    Library(
        name="a timm ViT",
        prefixes=(),
        anchor="blocks.{}.attn.qkv.weight",
        blocks=(
            Linear("blocks.{}.attn.qkv", "W_Q W_K W_V", "b_Q b_K b_V"),
            Linear("blocks.{}.attn.proj", "W_O", "b_O"),
            Linear("blocks.{}.mlp.fc1", "W_1", "b_1"),
            Linear("blocks.{}.mlp.fc2", "W_2", "b_2"),
            Norm("blocks.{}.norm1", "gain_1", "shift_1"),
            Norm("blocks.{}.norm2", "gain_2", "shift_2"),
        ),
        rest=(
            Row("cls_token", "prefix", AUTO),
            Row("reg_token", "prefix", AUTO),
            Row("pos_embed", "positions", AUTO),
            Linear("patch_embed.proj", "W_E", "b_E", "convolution"),
            Norm("norm", "final_gain", "final_shift"),
            Norm("fc_norm", "final_gain", "final_shift"),
        ),
        fields={"epsilon": 1e-6},
        heads=(Head((HeadLayer("head", 0),), {}), Head((), {})),
        guessed=("activation", "epsilon", "pooling"),
    ),
    Library(
        name="a torchvision ViT",
        prefixes=(),
        anchor="encoder.layers.encoder_layer_{}.self_attention.in_proj_weight",
        blocks=(
            Row("encoder.layers.encoder_layer_{}.self_attention.in_proj_weight", "W_Q W_K W_V", "transposed"),
            Row("encoder.layers.encoder_layer_{}.self_attention.in_proj_bias", "b_Q b_K b_V"),
            Linear("encoder.layers.encoder_layer_{}.self_attention.out_proj", "W_O", "b_O"),
            Linear("encoder.layers.encoder_layer_{}.mlp.0", "W_1", "b_1"),
            Linear("encoder.layers.encoder_layer_{}.mlp.3", "W_2", "b_2"),
            Linear("encoder.layers.encoder_layer_{}.mlp.linear_1", "W_1", "b_1"),
            Linear("encoder.layers.encoder_layer_{}.mlp.linear_2", "W_2", "b_2"),
            Norm("encoder.layers.encoder_layer_{}.ln_1", "gain_1", "shift_1"),
            Norm("encoder.layers.encoder_layer_{}.ln_2", "gain_2", "shift_2"),
        ),
        rest=(
            Row("class_token", "prefix", AUTO),
            Row("encoder.pos_embedding", "positions", AUTO),
            Linear("conv_proj", "W_E", "b_E", "convolution"),
            Norm("encoder.ln", "final_gain", "final_shift"),
        ),
        fields={"epsilon": 1e-6},
        heads=(Head((HeadLayer("heads.head", 0),), _FIRST),),
        guessed=("epsilon",),
    ),
    Library(
        name="a ViT of vit_pytorch",
        prefixes=(),
        anchor="transformer.layers.{}.0.to_qkv.weight",
        blocks=(
            Row("transformer.layers.{}.0.to_qkv.weight", "W_Q W_K W_V", "transposed"),
            Linear("transformer.layers.{}.0.to_out", "W_O", "b_O"),
            Linear("transformer.layers.{}.0.to_out.0", "W_O", "b_O"),
            Norm("transformer.layers.{}.0.norm", "gain_1", "shift_1"),
            Norm("transformer.layers.{}.1.net.0", "gain_2", "shift_2"),
            Linear("transformer.layers.{}.1.net.1", "W_1", "b_1"),
            Linear("transformer.layers.{}.1.net.3", "W_2", "b_2"),
            Linear("transformer.layers.{}.1.net.4", "W_2", "b_2"),
        ),
        rest=(
            Row("cls_token", "prefix", AUTO),
            Row("pos_embedding", "positions", AUTO),
            Row("to_patch_embedding.1.weight", "patch_gain", "pixels_last"),
            Row("to_patch_embedding.1.bias", "patch_shift", "pixels_last"),
            Linear("to_patch_embedding.2", "W_E", "b_E", "pixels_last"),
            Norm("to_patch_embedding.3", "embedding_gain", "embedding_shift"),
            Norm("transformer.norm", "final_gain", "final_shift"),
        ),
        fields={"positions": "sinusoidal_2d", "patch_norm": True, "embedding_norm": True},
        heads=(Head((HeadLayer("linear_head", 0),), {}), Head((HeadLayer("mlp_head", 0),), {})),
    ),
    Library(
        name="an nn.TransformerEncoder",
        prefixes=(),
        anchor="{}.self_attn.in_proj_weight",
        blocks=(
            Row("{}.self_attn.in_proj_weight", "W_Q W_K W_V", "transposed"),
            Row("{}.self_attn.in_proj_bias", "b_Q b_K b_V"),
            Linear("{}.self_attn.out_proj", "W_O", "b_O"),
            Linear("{}.linear1", "W_1", "b_1"),
            Linear("{}.linear2", "W_2", "b_2"),
            Norm("{}.norm1", "gain_1", "shift_1"),
            Norm("{}.norm2", "gain_2", "shift_2"),
        ),
        rest=(),  # `standard_surroundings` finds what is around it
        fields={"placement": "post", "activation": "relu"},
        guessed=("placement", "activation", "causal", "epsilon", "pooling"),
    ),
)
"""All libraries that are read, in the order in which they are tried."""

REFUSED_KEYS = (
    (r"\.(q|k|query|key)_?(layer)?norm\.", "QK-norm"),
    (r"relative_attention_bias|relative_position|rel_pos|distance_embedding", "relative positions"),
    (r"alibi", "ALiBi"),
    (r"\.experts\.|\.router\.|block_sparse_moe|\.mlp\.gate\.weight$", "a mixture of experts"),
    (r"lora_|\.adapter|\.base_layer\.", "an adapter that is not merged into the network"),
    (r"\.ls[12]\.gamma$|layer_scale|\.lambda_?[12]$", "LayerScale"),
    (r"crossattention|cross_attn|\.multihead_attn\.", "cross-attention"),
    (r"(^|\.)norm_pre\.", "a norm before the first block"),
    (r"distillation_classifier|head_dist\.", "two classifiers, of which the second reads a distillation token"),
    (r"\.(w12|fc1_g|fc1_x)\.", "a gate in a ViT's MLP"),
    (r"\.bias_[kv]$", "key and value biases of nn.MultiheadAttention"),
)
"""Pattern of a key -> what cannot be represented."""

CONFIG_FACTS = {
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "nhead"), "heads"),
    **{"num_key_value_heads": "groups", "head_dim": "key", "image_size": "image"},
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"), "epsilon"),
    **dict.fromkeys(("hidden_act", "activation_function", "activation"), "activation"),
    **{"rope_theta": "rope_theta", "model_type": "model_type", "norm_first": "placement"},
}
"""Name in a configuration -> fact, see `standard_layouts.FACTS`."""

REFUSED_CONFIG: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("position_embedding_type", (None, "absolute"), "relative positions"),
    ("alibi", (None, False), "ALiBi"),
    ("scale_attn_weights", (None, True), "attention without scale"),
    ("scale_attn_by_inverse_layer_idx", (None, False), "attention scaled by the number of the block"),
    ("add_cross_attention", (None, False), "cross-attention"),
    ("is_decoder", (None, False), "a decoder of BERT's kind"),
    ("num_local_experts", (None, 0, 1), "a mixture of experts"),
    ("num_experts", (None, 0, 1), "a mixture of experts"),
    ("parallel_attn", (None, False), "parallel attention"),
    ("use_parallel_residual", (None, False), "parallel attention"),
    ("use_qk_norm", (None, False), "QK-norm"),
    ("qk_layernorm", (None, False), "QK-norm"),
    ("partial_rotary_factor", (None, 1, 1.0), "rotary positions of a part of each head"),
    ("rope_type", (None, "default"), "scaled rotary positions"),
)
"""Name in a configuration, values that can be represented, and what other values are."""

ACTIVATION_OF = {
    **{"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu", "gelu_tanh": "gelu_tanh"},
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh"),
}
"""Names of activations in configurations and tables -> one of `standard_spec.STANDARD_ACTIVATIONS`."""
