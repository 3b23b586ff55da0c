"""Standard transformers, with a residual stream: ViT, BERT, GPT-2, Llama and their like."""

from collections.abc import Mapping
from typing import Any

from nfn_transformer.errors import SpecError
from nfn_transformer.families.registry import FAMILIES, Family
from nfn_transformer.printable import quoted
from nfn_transformer.weights.standard_layouts import recognize_transformer
from nfn_transformer.weights.standard_spec import LayoutEntry, StandardTransformerSpec
from nfn_transformer.weights.standard_state_dicts import standard_shapes, standard_state_dict, standard_weights
from nfn_transformer.weights.state_dicts import Shape


def _spec_from_shapes(shapes: Mapping[str, Shape], facts: Mapping[str, Any]) -> StandardTransformerSpec:
    recognition = recognize_transformer(shapes, facts)
    if recognition.unknown:
        raise SpecError(f"{quoted(recognition.unknown[0])} is no key of {recognition.library.name}")
    return recognition.spec


def _spec_from_json(values: Mapping[str, Any]) -> StandardTransformerSpec:
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
    layout = tuple(LayoutEntry(*entry) for entry in values["layout"])
    return StandardTransformerSpec(**{**values, **lists, "layout": layout})


FAMILIES.update(
    transformer=Family(
        name=StandardTransformerSpec.family,
        description="standard transformers (ViT, BERT, GPT-2, Llama and their like)",
        spec_from_shapes=_spec_from_shapes,
        shapes=standard_shapes,
        weights=standard_weights,
        state_dict=standard_state_dict,
        spec_from_json=_spec_from_json,
        listed_facts=("heads", "activation", "placement", "causal", "epsilon", "pooling", "final_norm", "positions"),
        probe_inputs="nfn_transformer.features.standard_answers:standard_probe_inputs",
        logits="nfn_transformer.features.standard_answers:standard_answers",
    )
)
