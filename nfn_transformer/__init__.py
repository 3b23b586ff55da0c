"""Transformer-NFN: learning on the weights of transformers (ICLR 2025, arXiv 2410.04209).

The public names are imported when they are used, so that importing the package takes neither time nor PyTorch:

    import nfn_transformer as nfn

    zoo = nfn.read_zoo("data/digits_transformers.zip", "digits")
    predictor = nfn.fit(zoo, encoder="complete", seed=1)
    print(predictor.evaluate(zoo))
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PUBLIC = {
    "nfn_transformer.configuration": ("COUNT", "setting"),
    "nfn_transformer.errors": ("RunError", "SpecError", "UserError", "ZooError"),
    "nfn_transformer.families.feed_forward": ("network_spec", "network_state_dict", "network_weights"),
    "nfn_transformer.features.graph": ("ComputationGraph",),
    "nfn_transformer.features.invariants": ("Invariants", "invariant_names", "read_invariants"),
    "nfn_transformer.fitting": ("fit", "load_predictor", "resume"),
    "nfn_transformer.groups.complete": ("CompleteElement",),
    "nfn_transformer.groups.equivariance_error": ("assert_equivariant", "equivariance_error"),
    "nfn_transformer.groups.monomial": ("MonomialElement",),
    "nfn_transformer.groups.network": ("NetworkElement", "canonical_form"),
    "nfn_transformer.groups.permutation": ("PermutationElement",),
    "nfn_transformer.groups.published": ("BlockElement", "GroupElement"),
    "nfn_transformer.groups.random_elements": ("transform_each", "transform_one_by_one"),
    "nfn_transformer.groups.standard_form": ("standard_canonical_form",),
    "nfn_transformer.groups.standard_transformer": ("StandardElement", "symmetry_dimensions"),
    "nfn_transformer.layers.base": ("WeightSpaceLayer", "WeightSpaceModule", "relu"),
    "nfn_transformer.layers.hnps": ("HNPSLayer", "HNPSPooling"),
    "nfn_transformer.layers.magep": ("MAGEPLayer",),
    "nfn_transformer.layers.nft": ("NFTBlock", "NFTEmbedding"),
    "nfn_transformer.layers.permutation": ("HNPLinear", "HNPPooling", "NPLinear", "NPPooling"),
    "nfn_transformer.layers.polynomial": ("EquivariantBlockLayer", "InvariantBlockLayer"),
    "nfn_transformer.layers.stack": ("stack_invariants",),
    "nfn_transformer.models.branch": ("Branch",),
    "nfn_transformer.models.config": ("ModelConfig",),
    "nfn_transformer.models.predictor": ("Predictor", "build_predictor"),
    "nfn_transformer.models.registry": (
        "CLASSIFIER",
        "EMBEDDING",
        "ENCODER",
        "BranchConfig",
        "BranchEntry",
        "load_plugin",
        "register",
    ),
    "nfn_transformer.seeding": ("make_generator",),
    "nfn_transformer.training.evaluation": ("Evaluation",),
    "nfn_transformer.training.fitted_predictor": ("FittedPredictor",),
    "nfn_transformer.training.metrics": ("Interval", "Metrics", "kendall_tau"),
    "nfn_transformer.weights.containers": (
        "BlockWeights",
        "EmbeddingWeights",
        "FeedForwardWeights",
        "NetworkWeights",
        "TransformerWeights",
        "flatten_networks",
    ),
    "nfn_transformer.weights.feed_forward_networks": ("NetworkLayout", "layout_of", "read_networks", "write_networks"),
    "nfn_transformer.weights.feed_forward_pass": (
        "draw_pictures",
        "network_outputs",
        "network_responses",
        "pixel_grid",
    ),
    "nfn_transformer.weights.forward": ("image_logits", "word_logits"),
    "nfn_transformer.weights.spec": ("BlockSpec", "EmbeddingSpec", "FeedForwardSpec", "NetworkSpec", "TransformerSpec"),
    "nfn_transformer.weights.standard_containers": ("StandardTransformerWeights",),
    "nfn_transformer.weights.standard_pass": ("standard_outputs",),
    "nfn_transformer.weights.standard_spec": ("StandardTransformerSpec",),
    "nfn_transformer.weights.standard_state_dicts": ("standard_shapes", "standard_state_dict", "standard_weights"),
    "nfn_transformer.weights.state_dicts": (
        "spec_from_shapes",
        "state_dict_from_weights",
        "state_dict_shapes",
        "weights_from_state_dict",
    ),
    "nfn_transformer.zoo.metadata": ("Columns",),
    "nfn_transformer.zoo.reading": ("Zoo", "read_zoo"),
    "nfn_transformer.zoo.several_sizes": ("MixedZoo", "read_all_sizes"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]

if TYPE_CHECKING:
    from nfn_transformer.configuration import COUNT as COUNT
    from nfn_transformer.configuration import setting as setting
    from nfn_transformer.errors import RunError as RunError
    from nfn_transformer.errors import SpecError as SpecError
    from nfn_transformer.errors import UserError as UserError
    from nfn_transformer.errors import ZooError as ZooError
    from nfn_transformer.families.feed_forward import network_spec as network_spec
    from nfn_transformer.families.feed_forward import network_state_dict as network_state_dict
    from nfn_transformer.families.feed_forward import network_weights as network_weights
    from nfn_transformer.features.graph import ComputationGraph as ComputationGraph
    from nfn_transformer.features.invariants import Invariants as Invariants
    from nfn_transformer.features.invariants import invariant_names as invariant_names
    from nfn_transformer.features.invariants import read_invariants as read_invariants
    from nfn_transformer.fitting import fit as fit
    from nfn_transformer.fitting import load_predictor as load_predictor
    from nfn_transformer.fitting import resume as resume
    from nfn_transformer.groups.complete import CompleteElement as CompleteElement
    from nfn_transformer.groups.equivariance_error import assert_equivariant as assert_equivariant
    from nfn_transformer.groups.equivariance_error import equivariance_error as equivariance_error
    from nfn_transformer.groups.monomial import MonomialElement as MonomialElement
    from nfn_transformer.groups.network import NetworkElement as NetworkElement
    from nfn_transformer.groups.network import canonical_form as canonical_form
    from nfn_transformer.groups.permutation import PermutationElement as PermutationElement
    from nfn_transformer.groups.published import BlockElement as BlockElement
    from nfn_transformer.groups.published import GroupElement as GroupElement
    from nfn_transformer.groups.random_elements import transform_each as transform_each
    from nfn_transformer.groups.random_elements import transform_one_by_one as transform_one_by_one
    from nfn_transformer.groups.standard_form import standard_canonical_form as standard_canonical_form
    from nfn_transformer.groups.standard_transformer import StandardElement as StandardElement
    from nfn_transformer.groups.standard_transformer import symmetry_dimensions as symmetry_dimensions
    from nfn_transformer.layers.base import WeightSpaceLayer as WeightSpaceLayer
    from nfn_transformer.layers.base import WeightSpaceModule as WeightSpaceModule
    from nfn_transformer.layers.base import relu as relu
    from nfn_transformer.layers.hnps import HNPSLayer as HNPSLayer
    from nfn_transformer.layers.hnps import HNPSPooling as HNPSPooling
    from nfn_transformer.layers.magep import MAGEPLayer as MAGEPLayer
    from nfn_transformer.layers.nft import NFTBlock as NFTBlock
    from nfn_transformer.layers.nft import NFTEmbedding as NFTEmbedding
    from nfn_transformer.layers.permutation import HNPLinear as HNPLinear
    from nfn_transformer.layers.permutation import HNPPooling as HNPPooling
    from nfn_transformer.layers.permutation import NPLinear as NPLinear
    from nfn_transformer.layers.permutation import NPPooling as NPPooling
    from nfn_transformer.layers.polynomial import EquivariantBlockLayer as EquivariantBlockLayer
    from nfn_transformer.layers.polynomial import InvariantBlockLayer as InvariantBlockLayer
    from nfn_transformer.layers.stack import stack_invariants as stack_invariants
    from nfn_transformer.models.branch import Branch as Branch
    from nfn_transformer.models.config import ModelConfig as ModelConfig
    from nfn_transformer.models.predictor import Predictor as Predictor
    from nfn_transformer.models.predictor import build_predictor as build_predictor
    from nfn_transformer.models.registry import CLASSIFIER as CLASSIFIER
    from nfn_transformer.models.registry import EMBEDDING as EMBEDDING
    from nfn_transformer.models.registry import ENCODER as ENCODER
    from nfn_transformer.models.registry import BranchConfig as BranchConfig
    from nfn_transformer.models.registry import BranchEntry as BranchEntry
    from nfn_transformer.models.registry import load_plugin as load_plugin
    from nfn_transformer.models.registry import register as register
    from nfn_transformer.seeding import make_generator as make_generator
    from nfn_transformer.training.evaluation import Evaluation as Evaluation
    from nfn_transformer.training.fitted_predictor import FittedPredictor as FittedPredictor
    from nfn_transformer.training.metrics import Interval as Interval
    from nfn_transformer.training.metrics import Metrics as Metrics
    from nfn_transformer.training.metrics import kendall_tau as kendall_tau
    from nfn_transformer.weights.containers import BlockWeights as BlockWeights
    from nfn_transformer.weights.containers import EmbeddingWeights as EmbeddingWeights
    from nfn_transformer.weights.containers import FeedForwardWeights as FeedForwardWeights
    from nfn_transformer.weights.containers import NetworkWeights as NetworkWeights
    from nfn_transformer.weights.containers import TransformerWeights as TransformerWeights
    from nfn_transformer.weights.containers import flatten_networks as flatten_networks
    from nfn_transformer.weights.feed_forward_networks import NetworkLayout as NetworkLayout
    from nfn_transformer.weights.feed_forward_networks import layout_of as layout_of
    from nfn_transformer.weights.feed_forward_networks import read_networks as read_networks
    from nfn_transformer.weights.feed_forward_networks import write_networks as write_networks
    from nfn_transformer.weights.feed_forward_pass import draw_pictures as draw_pictures
    from nfn_transformer.weights.feed_forward_pass import network_outputs as network_outputs
    from nfn_transformer.weights.feed_forward_pass import network_responses as network_responses
    from nfn_transformer.weights.feed_forward_pass import pixel_grid as pixel_grid
    from nfn_transformer.weights.forward import image_logits as image_logits
    from nfn_transformer.weights.forward import word_logits as word_logits
    from nfn_transformer.weights.spec import BlockSpec as BlockSpec
    from nfn_transformer.weights.spec import EmbeddingSpec as EmbeddingSpec
    from nfn_transformer.weights.spec import FeedForwardSpec as FeedForwardSpec
    from nfn_transformer.weights.spec import NetworkSpec as NetworkSpec
    from nfn_transformer.weights.spec import TransformerSpec as TransformerSpec
    from nfn_transformer.weights.standard_containers import StandardTransformerWeights as StandardTransformerWeights
    from nfn_transformer.weights.standard_pass import standard_outputs as standard_outputs
    from nfn_transformer.weights.standard_spec import StandardTransformerSpec as StandardTransformerSpec
    from nfn_transformer.weights.standard_state_dicts import standard_shapes as standard_shapes
    from nfn_transformer.weights.standard_state_dicts import standard_state_dict as standard_state_dict
    from nfn_transformer.weights.standard_state_dicts import standard_weights as standard_weights
    from nfn_transformer.weights.state_dicts import spec_from_shapes as spec_from_shapes
    from nfn_transformer.weights.state_dicts import state_dict_from_weights as state_dict_from_weights
    from nfn_transformer.weights.state_dicts import state_dict_shapes as state_dict_shapes
    from nfn_transformer.weights.state_dicts import weights_from_state_dict as weights_from_state_dict
    from nfn_transformer.zoo.metadata import Columns as Columns
    from nfn_transformer.zoo.reading import Zoo as Zoo
    from nfn_transformer.zoo.reading import read_zoo as read_zoo
    from nfn_transformer.zoo.several_sizes import MixedZoo as MixedZoo
    from nfn_transformer.zoo.several_sizes import read_all_sizes as read_all_sizes

if not TYPE_CHECKING:  # type checkers would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names of the module, those that are not imported yet among them."""
    return sorted({*globals(), *__all__})
