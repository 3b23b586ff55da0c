"""Models of libraries, tiny and random: read from their own files, run as the library does, written back bit by bit."""

import io
import json
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from library_models import NanoGPT, UsersTextClassifier, UsersViT
from safetensors.torch import load
from torch import nn

from nfn_transformer import make_zoo
from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.generation.standard_networks import KINDS
from nfn_transformer.weights.standard_layouts import recognize_transformer
from nfn_transformer.weights.standard_pass import standard_outputs
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import count_parameters, standard_shapes
from nfn_transformer.weights.state_dicts import unflatten_rows
from nfn_transformer.zoo.transformer_checkpoint import read_transformer_checkpoint
from nfn_transformer.zoo.transformer_facts import facts_of_config


@cache
def libraries() -> SimpleNamespace:
    """Import the libraries, when a test asks: each process of pytest collects this file, and one runs it.

    A torchvision that was built for another PyTorch lacks its own operators.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pytest.importorskip("torchvision")
        except RuntimeError:
            missing = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                missing.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        transformers = pytest.importorskip("transformers")
        vision = pytest.importorskip("timm.models.vision_transformer")
        vit_pytorch = pytest.importorskip("vit_pytorch")
        torchvision = pytest.importorskip("torchvision")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return SimpleNamespace(
        transformers=transformers,
        VisionTransformer=vision.VisionTransformer,
        vit_pytorch=vit_pytorch,
        torchvision=torchvision,
    )


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
IMAGES = {"image_size": 12, "patch_size": 4, "num_channels": 3, **SIZES}
WORDS = {"vocab_size": 20, "max_position_embeddings": 12, **SIZES}
DISTILLED = {"vocab_size": 20, "max_position_embeddings": 12, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
GPT = {"vocab_size": 20, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 0}
GPT |= {"eos_token_id": 0, "pad_token_id": 0}
GROUPED = {"num_key_value_heads": 2, "pad_token_id": 0, **WORDS}
TIMM = {
    "img_size": 12,
    "patch_size": 4,
    "num_classes": 7,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 1.5,
}
TORCHVISION = {"image_size": 12, "patch_size": 4, "num_layers": 2, "num_heads": 4, "hidden_dim": 16, "mlp_dim": 24}
TORCHVISION |= {"num_classes": 7}
SIMPLE = {"image_size": 12, "patch_size": 4, "num_classes": 7, "dim": 16, "depth": 2, "heads": 4, "dim_head": 8}
REGISTERS = {"global_pool": "avg", "class_token": False, "reg_tokens": 3, "no_embed_class": True}
HEADS = {"heads": 4}


def hugging_face(kind: str, config: str, **values):
    return lambda: getattr(libraries().transformers, kind)(getattr(libraries().transformers, config)(**values))


MODELS = {
    "ViT": (hugging_face("ViTForImageClassification", "ViTConfig", num_labels=7, **IMAGES), {}),
    "ViT's body": (hugging_face("ViTModel", "ViTConfig", **IMAGES), {}),
    "DeiT": (hugging_face("DeiTForImageClassification", "DeiTConfig", num_labels=7, **IMAGES), {}),
    "BERT": (hugging_face("BertForSequenceClassification", "BertConfig", num_labels=7, **WORDS), {}),
    "BERT's pretraining": (hugging_face("BertForPreTraining", "BertConfig", **WORDS), {}),
    "RoBERTa": (hugging_face("RobertaForSequenceClassification", "RobertaConfig", num_labels=7, **WORDS), {}),
    "RoBERTa's words": (hugging_face("RobertaForMaskedLM", "RobertaConfig", **WORDS), {}),
    "DistilBERT": (
        hugging_face("DistilBertForSequenceClassification", "DistilBertConfig", num_labels=7, **DISTILLED),
        {},
    ),
    "GPT-2": (hugging_face("GPT2LMHeadModel", "GPT2Config", **GPT), {}),
    "GPT-2's classifier": (hugging_face("GPT2ForSequenceClassification", "GPT2Config", num_labels=7, **GPT), {}),
    "Llama": (hugging_face("LlamaForCausalLM", "LlamaConfig", **GROUPED), {}),
    "Mistral": (hugging_face("MistralForCausalLM", "MistralConfig", sliding_window=None, **GROUPED), {}),
    "Qwen2": (hugging_face("Qwen2ForCausalLM", "Qwen2Config", tie_word_embeddings=True, **GROUPED), {}),
    "torchvision": (lambda: libraries().torchvision.models.VisionTransformer(**TORCHVISION), HEADS),
    "timm": (lambda: libraries().VisionTransformer(**TIMM), HEADS),
    "timm with registers": (lambda: libraries().VisionTransformer(**TIMM, **REGISTERS), HEADS),
    "SimpleViT": (lambda: libraries().vit_pytorch.SimpleViT(mlp_dim=24, **SIMPLE), HEADS),
    "vit_pytorch": (lambda: libraries().vit_pytorch.ViT(mlp_dim=24, **SIMPLE), HEADS),
    "nn.TransformerEncoder": (lambda: UsersViT(True), {**HEADS, "placement": "pre", "activation": "gelu"}),
    "post-norm": (lambda: UsersViT(False), {**HEADS, "activation": "gelu"}),
    "texts": (UsersTextClassifier, {**HEADS, "final_norm": "after_pooling"}),
    "nanoGPT": (lambda: NanoGPT(True), HEADS),
    "nanoGPT without biases": (lambda: NanoGPT(False), HEADS),
}
IN_FLOAT32 = ("Llama", "Mistral", "Qwen2")
"""Libraries' models that compute norms and positions in float32."""


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def outputs_of(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        answer = model(inputs)
    for name in ("logits", "prediction_logits", "pooler_output"):
        answer = getattr(answer, name, answer)
    return answer


def states_of(model: nn.Module, folder: Path):
    """Yield name, content and state dict of the files that the model's library and a user write."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        content = (folder / "model.safetensors").read_bytes()
        yield "model.safetensors", content, load(content)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    file = io.BytesIO()
    torch.save({"epoch": 3, "state_dict": state}, file)
    yield "trained.pt", file.getvalue(), state


def read_beside(path: Path) -> bytes:
    if not path.exists():
        raise ValueError("no such file")
    return path.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_models_of_libraries_are_read_run_and_written_back(tmp_path, name):
    model, told = build(name), MODELS[name][1]
    family = FAMILIES[StandardTransformerSpec.family]
    for file, content, original in states_of(model, tmp_path):
        outcome = read_transformer_checkpoint(file, content, None, lambda other: read_beside(tmp_path / other))
        assert outcome.fault is None
        spec = family.spec_from_shapes(dict(outcome.shapes), {**dict(outcome.facts), **told})
        state = unflatten_rows(torch.from_numpy(outcome.row)[None], dict(outcome.shapes))
        written = family.state_dict(family.weights(state, spec))
        left = {key for key in original if key not in written and not key.endswith("attn.bias")}
        assert written.keys() <= original.keys()
        assert left == set(outcome.entries)
        assert all(torch.equal(written[key][0], original[key]) for key in written)

        dtype = torch.float32 if name in IN_FLOAT32 else torch.float64
        inputs = torch.rand(2, 3, 12, 12, dtype=dtype) if spec.inputs == "patches" else torch.randint(2, 20, (2, 9))
        expected = outputs_of(model.to(dtype), inputs)
        outputs = standard_outputs(inputs, family.weights(state, spec).to(dtype))[0]
        assert (outputs - expected).abs().max() < (1e-6 if name in IN_FLOAT32 else 1e-12) * expected.abs().max()
        if name != "texts":  # whose constant positions are no parameters
            own = {id(parameter): parameter.numel() for parameter in model.parameters()}
            assert count_parameters(spec) == sum(own.values()) - sum(original[key].numel() for key in left)
        model.float()


@pytest.mark.parametrize("family", KINDS)
def test_libraries_open_the_networks_of_a_zoo_that_is_made(family, tmp_path):
    sizes = ["--runs", "1", "--epochs", "1", "--embed_dim", "8", "--n_layers", "2", "--batch_size", "8"]
    sizes += ["--train_images", "64", "--test_images", "8", "--jobs", "1"]
    if KINDS[family].task == "texts":
        for name in ("train.csv", "test.csv"):
            (tmp_path / name).write_text("".join(f"{1 + number % 2},word {number}\n" for number in range(64)))
        sizes += ["--texts", str(tmp_path), "--tokens", "7"]
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), "--family", family, *sizes]) == 0
    content, config = ((tmp_path / "zoo/run00000" / name).read_bytes() for name in ("model.safetensors", "config.json"))
    state, facts = load(content), facts_of_config(json.loads(config))
    spec = FAMILIES["transformer"].spec_from_shapes({key: tuple(t.shape) for key, t in state.items()}, facts)
    inputs = torch.rand(5, 1, 8, 8) if spec.inputs == "patches" else torch.arange(35).view(5, 7) % spec.vocabulary
    ours = standard_outputs(inputs, FAMILIES["transformer"].weights({k: t[None] for k, t in state.items()}, spec))[0]
    if family == "simple_vit":
        model = libraries().vit_pytorch.SimpleViT(**json.loads(config)["model_args"])
        model.load_state_dict(state)
    else:
        kind = {"vit": "ImageClassification", "bert": "SequenceClassification"}.get(family, "CausalLM")
        opened = getattr(libraries().transformers, f"AutoModelFor{kind}").from_pretrained
        model, report = opened(tmp_path / "zoo/run00000", output_loading_info=True)
        assert not any(report.values())
    torch.testing.assert_close(ours, outputs_of(model.eval(), inputs), rtol=0, atol=1e-5)


def test_old_names_of_norms_are_read():
    shapes = {name: tuple(tensor.shape) for name, tensor in build("BERT").state_dict().items()}
    old = {key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): shapes[key] for key in shapes}
    recognition = recognize_transformer(old, HEADS)
    assert recognition.unknown == ()
    assert recognition.spec == recognize_transformer(shapes, HEADS).spec
    assert standard_shapes(recognition.spec) == old


REFUSED = {
    "sliding_window": ({"sliding_window": 4, "max_position_embeddings": 12}, "sliding window"),
    "use_parallel_residual": ({"use_parallel_residual": True}, "parallel attention"),
    "alibi": ({"alibi": True}, "ALiBi"),
    "position_embedding_type": ({"position_embedding_type": "relative_key"}, "relative positions"),
    "num_local_experts": ({"num_local_experts": 8}, "mixture of experts"),
    "rope_parameters": ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scaled rotary positions"),
    "hidden_act": ({"hidden_act": "quick_gelu"}, "quick_gelu"),
}


@pytest.mark.parametrize(("config", "what"), REFUSED.values(), ids=REFUSED)
def test_configurations_that_cannot_be_represented_are_named(config, what):
    with pytest.raises(SpecError, match=what):
        facts_of_config(json.loads(json.dumps(config)))
    with pytest.raises(SpecError, match="scaled rotary positions"):
        facts_of_config({"rope_scaling": {"type": "linear", "factor": 2.0}})
    assert facts_of_config({"type": "mine", "nhead": 2, "norm_first": True}) == {"heads": 2, "placement": "pre"}
    assert facts_of_config({"use_sliding_window": False, "sliding_window": 4, "n_head": 4}) == {"heads": 4}


@pytest.mark.parametrize(
    ("key", "what"),
    {
        "blocks.0.attn.q_norm.weight": "QK-norm",
        "encoder.layer.0.attention.self.distance_embedding.weight": "relative positions",
        "blocks.0.mlp.experts.0.up_proj.weight": "mixture of experts",
        "blocks.0.attn.qkv.lora_A.weight": "adapter that is not merged",
        "blocks.0.ls1.gamma": "LayerScale",
    }.items(),
)
def test_tensors_that_cannot_be_represented_are_named(key, what):
    shapes = {name: tuple(tensor.shape) for name, tensor in build("timm").state_dict().items()}
    with pytest.raises(SpecError, match=what):
        recognize_transformer({**shapes, key: (4,)}, HEADS)
    stranger = recognize_transformer({**shapes, "stranger.weight": (4,)}, HEADS)
    assert stranger.unknown == ("stranger.weight",)
    with pytest.raises(SpecError, match="no shape tells the heads"):
        recognize_transformer(shapes, {})
    with pytest.raises(SpecError, match=r"missing key 'blocks\.0\.mlp\.fc1\.weight'"):
        recognize_transformer({name: shape for name, shape in shapes.items() if "mlp.fc1" not in name}, HEADS)
    with pytest.raises(SpecError, match="which 5 heads do not divide"):
        recognize_transformer(shapes, {"heads": 5})
    with pytest.raises(
        SpecError, match=r"'norm\.weight' holds 'final_gain', which networks of this function do not have"
    ):
        recognize_transformer(shapes, {**HEADS, "final_norm": "none"})
    with pytest.raises(SpecError, match="blocks 1, expected 0 to 0"):
        recognize_transformer({name: shape for name, shape in shapes.items() if "0.attn.qkv" not in name}, HEADS)
