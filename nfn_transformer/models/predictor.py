"""The predictor of accuracy: branches side by side, concatenated, Linear -> 1 -> sigmoid."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfn_transformer.layers.features import BlockFeatures
from nfn_transformer.layers.network_invariants import Invariants
from nfn_transformer.models.branches import FEATURES, EquivariantEncoder, FeatureBranch, HNPSBranch, LinearBranch
from nfn_transformer.models.complete_encoder import CompleteEncoder
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.seeding import stream_seed
from nfn_transformer.weights.checkpoint_format import state_dict_shapes, weights_from_state_dict
from nfn_transformer.weights.containers import BlockWeights, FeedForwardWeights, TensorFields, TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec


@dataclass(frozen=True)
class Features(TensorFields):
    """What each branch of a predictor sees of b networks, tensors [b, ...]; None where there is no such branch."""

    encoder: tuple[BlockFeatures, ...] | Invariants | Tensor | None
    classifier: FeedForwardWeights | Tensor | None
    embedding: Tensor | None


class AccuracyPredictor(nn.Module):
    """Weights of transformers of one spec to their predicted accuracy (arXiv 2410.04209, section 6).

    Args:
        spec: sizes of the networks that are read.
        config: the branches and their widths.
    """

    def __init__(self, spec: TransformerSpec, config: ModelConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.encoder = self.classifier = self.embedding = None
        outputs = 0
        if config.enc_mode != "no":
            self.encoder = _encoder(spec, config)
            outputs += config.num_out_encoder
        if config.cls_mode != "no":
            self.classifier = _classifier(spec, config)
            outputs += config.num_out_classify
        if config.emb_mode != "no":
            self.embedding = LinearBranch(_example(spec, flat=True)["embedding"], config.num_out_embedding)
            outputs += config.num_out_embedding
        self.output = nn.Linear(outputs, 1)

    def read(self, weights: TransformerWeights) -> Features:
        """What the branches see of the weights, made by no parameter: once for a network, not in every epoch.

        Raises:
            SpecError: the weights do not have the sizes of `spec`.
        """
        weights.check(self.spec)
        return Features(
            encoder=None if self.encoder is None else self.encoder.read(self._seen_by_encoder(weights)),
            classifier=None if self.classifier is None else self.classifier.read((weights.classifier,)),
            embedding=None if self.embedding is None else self.embedding.read((weights.embedding,)),
        )

    def _seen_by_encoder(self, weights: TransformerWeights) -> TransformerWeights | tuple[BlockWeights, ...]:
        return weights if isinstance(self.encoder, CompleteEncoder) else weights.blocks

    @property
    def learns_scales(self) -> bool:
        """Whether `learn_scales` is to be called before the first epoch."""
        return isinstance(self.encoder, CompleteEncoder)

    @property
    def reads_slowly(self) -> bool:
        """Whether `read` takes long, so that its features are better kept than made again."""
        return isinstance(self.encoder, CompleteEncoder)

    def learn_scales(self, seen: Iterable[Features]) -> None:
        """Take the scales of inputs, where this model standardises any, from the training split's networks."""
        if isinstance(self.encoder, CompleteEncoder):
            self.encoder.learn_scales(features.encoder for features in seen)

    def from_features(self, features: Features) -> Tensor:
        """The logit of the predicted accuracy, [b], from what `read` gave for b networks."""
        branches = (
            (self.encoder, features.encoder),
            (self.classifier, features.classifier),
            (self.embedding, features.embedding),
        )
        parts = [branch.from_features(seen) for branch, seen in branches if branch is not None]
        return self.output(torch.cat(parts, dim=1)).squeeze(1)

    def forward(self, weights: TransformerWeights) -> Tensor:
        """The logit of the predicted accuracy, [b].

        Raises:
            SpecError: the weights do not have the sizes of `spec`.
        """
        return self.from_features(self.read(weights))

    def predict(self, weights: TransformerWeights) -> Tensor:
        """The predicted accuracy in (0, 1), [b].

        Raises:
            SpecError: the weights do not have the sizes of `spec`.
        """
        return self(weights).sigmoid()


def build_predictor(spec: TransformerSpec, config: ModelConfig, seed: int) -> AccuracyPredictor:
    """A predictor on the CPU whose initial parameters depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):  # PyTorch's own layers draw from the global stream
        torch.manual_seed(stream_seed(seed, "parameters"))
        return AccuracyPredictor(spec, config)


def _example(spec: TransformerSpec, flat: bool) -> dict[str, int]:
    """Numbers that each branch's features have, measured on an example network of zeros."""
    zeros = {key: torch.zeros(shape) for key, shape in state_dict_shapes(spec).items()}
    weights = weights_from_state_dict(zeros, spec)
    features = FEATURES["mlp" if flat else "statnn"]
    parts = {"encoder": weights.blocks, "classifier": (weights.classifier,)}
    if weights.embedding is not None:
        parts["embedding"] = (weights.embedding,)
    return {name: features(part).shape[1] for name, part in parts.items()}


def _encoder(spec: TransformerSpec, config: ModelConfig) -> nn.Module:
    if config.enc_mode == "complete":
        return CompleteEncoder(spec, config.num_out_encoder)
    if config.enc_mode == "inv":
        return EquivariantEncoder(
            spec.blocks, config.transformers_nfn_channels, config.num_out_encoder, config.init_type
        )
    inputs = _example(spec, flat=config.enc_mode == "mlp")["encoder"]
    return FeatureBranch(FEATURES[config.enc_mode], inputs, config.transformers_nfn_channels, config.num_out_encoder)


def _classifier(spec: TransformerSpec, config: ModelConfig) -> nn.Module:
    if config.cls_mode == "hnps":
        return HNPSBranch(spec.classifier, config.classifier_nfn_channels, config.num_out_classify, config.init_type)
    inputs = _example(spec, flat=config.cls_mode == "mlp")["classifier"]
    return FeatureBranch(FEATURES[config.cls_mode], inputs, config.classifier_nfn_channels, config.num_out_classify)
