"""Predictor of changed weights: a module that maps an INR's weights to others, and the picture that these draw."""

from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Any

from torch import Tensor

from nfn_transformer.families.registry import AnySpec
from nfn_transformer.layers.scaling import Reiterable
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import Features, Predictor
from nfn_transformer.models.registry import ENCODER
from nfn_transformer.weights.any_weights import Weights
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.feed_forward_pass import draw_pictures
from nfn_transformer.weights.spec import NetworkSpec


class EditPredictor(Predictor):
    """Map of INRs to changed INRs, whose outputs are the pixels that the changed ones draw.

    Args:
        spec: sizes and function of the INRs, from 2 coordinates to colours.
        config: the encoder, whose entry names an editor (`weight_space_editors.Editor`), and its widths.
        outputs: pixels times colours; a picture is a square.
    """

    def __init__(self, spec: NetworkSpec, config: ModelConfig, outputs: int):
        super().__init__()
        self.spec, self.config = spec, config
        self.editor: Any = resolve_name(config.chosen[ENCODER].edits[spec.family])(spec, config.branch_config(ENCODER))
        self.is_slow_to_featurize = False
        self.needs_normalization = self.editor.needs_normalization
        self.side = round((outputs / spec.sizes[-1]) ** 0.5)

    def featurize(self, weights: Weights, networks: Tensor | None = None) -> Features:
        """Return the weights themselves.

        Raises:
            SpecError: the weights have other sizes.
        """
        weights.check(self.spec)
        return Features(weights, None, None)

    def fit_normalization(self, seen: Iterable[Features]) -> None:
        """Fit the editor to the training split's weights."""
        self.editor.fit_normalization(Reiterable(lambda: (features.encoder for features in seen)))

    def supports(self, spec: AnySpec) -> bool:
        """Return whether networks have the very sizes and function of the training split's."""
        return spec == self.spec

    def edit(self, weights: NetworkWeights) -> NetworkWeights:
        """Return the changed INRs."""
        return self.editor(weights)

    def begin_epoch(self, key: int) -> None:
        """Set nothing: an editor drops no numbers."""

    def from_features(self, features: Features) -> Tensor:
        """Return the pixels [b, colours * side * side] that the changed INRs draw."""
        assert isinstance(features.encoder, NetworkWeights), "features are those of `featurize`"
        return draw_pictures(self.edit(features.encoder), self.side).flatten(1)
