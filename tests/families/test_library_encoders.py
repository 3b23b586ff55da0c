"""Encoders on the libraries' own models, tiny and random: finite predictions that the group leaves alone."""

from dataclasses import replace

import pytest
import torch
from test_library_transformers import MODELS, build, read_beside, states_of

from nfn_transformer import ModelConfig, StandardElement, build_predictor
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.features import standard_invariants
from nfn_transformer.features.standard_probes import standard_probes
from nfn_transformer.groups.equivariance_error import relative_error
from nfn_transformer.groups.standard_form import standard_canonical_form
from nfn_transformer.groups.standard_parts import IDENTITY
from nfn_transformer.groups.standard_transformer import stream_symmetries
from nfn_transformer.weights.standard_spec import StandardTransformerSpec
from nfn_transformer.weights.state_dicts import unflatten_rows
from nfn_transformer.zoo.transformer_checkpoint import read_transformer_checkpoint

NAMES = (
    *("ViT", "DeiT", "BERT", "RoBERTa", "DistilBERT", "GPT-2", "Llama", "Mistral", "Qwen2", "timm", "SimpleViT"),
    *("nn.TransformerEncoder", "post-norm", "nanoGPT"),
)


def read(name, folder):
    """Return a library's model, read from its own file, and one whose numbers are halved."""
    file, content, _ = next(iter(states_of(build(name), folder)))
    outcome = read_transformer_checkpoint(file, content, None, lambda other: read_beside(folder / other))
    family = FAMILIES[StandardTransformerSpec.family]
    spec = family.spec_from_shapes(dict(outcome.shapes), {**dict(outcome.facts), **MODELS[name][1]})
    rows = torch.from_numpy(outcome.row).double()
    return family.weights(unflatten_rows(torch.stack([rows, rows / 2]), dict(outcome.shapes)), spec)


def permutation(spec, generator) -> StandardElement:
    """Return an element that permutes the stream, heads and neurons, and does nothing else."""
    g = StandardElement.sample(spec, generator)

    def shuffled(size, kind):
        R = torch.eye(size, dtype=torch.float64)
        return R if kind == IDENTITY else R[torch.randperm(size, generator=generator)]

    stream, embedding = stream_symmetries(spec)
    R = shuffled(spec.width, stream)

    def plain(element):
        ones = {name: torch.eye(vars(element)[name].shape[1]).expand_as(vars(element)[name]).double() for name in "MN"}
        return replace(element, **ones)

    return replace(
        g,
        stream=replace(g.stream, R=R),
        embedding=g.embedding and replace(g.embedding, R=shuffled(spec.width, embedding)),
        heads=tuple(map(plain, g.heads)),
        neurons=tuple(replace(element, c=torch.ones_like(element.c)) for element in g.neurons),
        head=tuple(replace(element, c=torch.ones_like(element.c)) for element in g.head),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_encoder_reads_models_of_libraries_and_keeps_to_its_group(name, tmp_path, generator, monkeypatch):
    few = {}
    monkeypatch.setattr(
        standard_invariants,
        "standard_probes",
        lambda spec: few.setdefault(spec, {name: family[:2] for name, family in standard_probes(spec).items()}),
    )
    U = read(name, tmp_path)
    whole, shuffle = StandardElement.sample(U.spec, generator), permutation(U.spec, generator)
    form = standard_canonical_form(U)
    elements = {"complete": (whole, U), "products": (whole, U), "graph": (shuffle, U), "statnn": (shuffle, form)}
    for encoder, (g, networks) in elements.items():
        config = ModelConfig.from_flags({"enc_mode": encoder, "cls_mode": "no", "emb_mode": "no", "ensemble": 1})
        config.check(networks.spec, "test")
        model = build_predictor(networks.spec, config, seed=1).double().eval()
        with torch.no_grad():
            features = model.featurize(networks)
            model.fit_normalization([features])
            before = model.from_features(features)
            assert before.isfinite().all()
            assert before.std() > 1e-5
            assert relative_error(model(g.act(networks)), before) < 1e-9, encoder
