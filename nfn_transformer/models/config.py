"""Which branches a predictor has, and how wide they are."""

from dataclasses import dataclass

from nfn_transformer.errors import UserError
from nfn_transformer.layers.base import INIT_TYPES
from nfn_transformer.weights.spec import TransformerSpec

ENCODER_MODES = ("no", "inv", "complete", "graph", "statnn", "mlp")
CLASSIFIER_MODES = ("no", "np", "hnp", "hnps", "magep", "nft", "statnn", "mlp")
EMBEDDING_MODES = ("no", "mlp")
GRAPH_CONVOLUTIONS = ("gnn", "attention")
GRAPH_HEADS = 4
"""Heads of relational attention."""


@dataclass(frozen=True)
class ModelConfig:
    """Modes, widths, and what helps on small zoos; the defaults are the published ones (arXiv 2410.04209, section 6).

    Fields, besides modes and widths: dropout, the share of hidden numbers dropped in training, in [0, 1); standardize,
    whether inputs are scaled by the training split, statistics, flattened weights and those of a graph to mean 0 and
    deviation 1 and cut off at 4, what layers with symmetries read to size 1 (the complete encoder always does);
    log_magnitudes, whether what is standardised to mean 0 is first taken on a logarithmic scale; ensemble, how many
    predictors are trained side by side and averaged; graph_layers, graph_dim and graph_conv, of the graph encoder (for
    relational attention, graph_dim is a multiple of its heads).
    """

    enc_mode: str = "inv"
    cls_mode: str = "mlp"
    emb_mode: str = "mlp"
    transformers_nfn_channels: tuple[int, ...] = (10,)
    classifier_nfn_channels: tuple[int, ...] = (10, 10)
    num_out_encoder: int = 10
    num_out_classify: int = 10
    num_out_embedding: int = 10
    init_type: str = "xavier_normal"
    dropout: float = 0.0
    standardize: bool = False
    log_magnitudes: bool = False
    ensemble: int = 1
    graph_layers: int = 3
    graph_dim: int = 16
    graph_conv: str = "gnn"

    def __post_init__(self):
        for value, known in (
            (self.enc_mode, ENCODER_MODES),
            (self.cls_mode, CLASSIFIER_MODES),
            (self.emb_mode, EMBEDDING_MODES),
            (self.init_type, INIT_TYPES),
            (self.graph_conv, GRAPH_CONVOLUTIONS),
        ):
            if value not in known:
                raise ValueError(f"'{value}', expected one of {', '.join(known)}")
        widths = (*self.transformers_nfn_channels, *self.classifier_nfn_channels)
        outputs = (self.num_out_encoder, self.num_out_classify, self.num_out_embedding)
        if not (self.transformers_nfn_channels and self.classifier_nfn_channels) or min(*widths, *outputs) < 1:
            raise ValueError(f"a width is missing or below 1 in {self}")
        if not 0 <= self.dropout < 1 or min(self.ensemble, self.graph_layers, self.graph_dim) < 1:
            raise ValueError(f"a number is out of its range in {self}")
        if self.log_magnitudes and not self.standardize:
            raise ValueError("log-magnitudes are taken of inputs that are standardised")

    @property
    def name(self) -> str:
        """A readable name, as in inv-mlp-mlp."""
        return f"{self.enc_mode}-{self.cls_mode}-{self.emb_mode}"

    @property
    def reads_several_sizes(self) -> bool:
        """Whether one such model can read networks of several sizes."""
        return (self.enc_mode, self.cls_mode, self.emb_mode) == ("complete", "no", "no")

    def check(self, spec: TransformerSpec, dataset: str) -> None:
        """Raise UserError where the modes do not fit the zoo's networks."""
        if (self.enc_mode, self.cls_mode, self.emb_mode) == ("no", "no", "no"):
            raise UserError(
                "--enc_mode no --cls_mode no --emb_mode no leaves nothing to read; choose at least one branch"
            )
        if self.cls_mode == "nft" and len(set(self.classifier_nfn_channels)) > 1:
            listed = ",".join(map(str, self.classifier_nfn_channels))
            raise UserError(
                f"--cls_mode nft --classifier_nfn_channels {listed}: its blocks are of one width, as in 10,10"
            )
        if self.dropout and (self.enc_mode, self.cls_mode) == ("no", "no"):
            raise UserError("--dropout: a predictor that reads the embedding alone has no hidden numbers to drop")
        if self.enc_mode == "graph" and self.graph_conv == "attention" and self.graph_dim % GRAPH_HEADS:
            raise UserError(
                f"--graph_conv attention --graph_dim {self.graph_dim}: not a multiple of its {GRAPH_HEADS} heads"
            )
        if self.enc_mode == "complete" and spec.classifier.layers != 2:
            raise UserError(
                f"--enc_mode complete: reads classifiers of two layers, those of zoo '{dataset}' have "
                f"{spec.classifier.layers}"
            )
        if self.emb_mode != "no" and spec.embedding is None:
            raise UserError(
                f"--emb_mode {self.emb_mode}: the checkpoints of zoo '{dataset}' have no embedding; use --emb_mode no"
            )
        if self.log_magnitudes and not {self.enc_mode, self.cls_mode, self.emb_mode} & {"graph", "mlp", "statnn"}:
            raise UserError(
                "--log_magnitudes True: no branch reads flattened weights, statistics or a graph; a logarithm of "
                "anything else would break its symmetry"
            )
