"""Measure the memory of a graph encoder's step beside one that keeps a dense tensor of all pairs of nodes.

Both compute the same function with the same parameters: forward and backward pass of `--enc_mode graph`. The dense way
has edges [b, nodes, nodes, numbers] and a mask, as published code for neural graphs has. The table has the peak above
what was there before the step. Gradients of the parameters are among it.

    python scripts/benchmarks/graph_memory.py [--batch_sizes 32] [--out FILE]
"""

import sys

import torch
from large_zoo import MIB
from measuring import begin, markdown, parser, random_zoo, write_measurements
from peak_memory import check_peak_memory, peak_memory
from torch import Tensor
from torch.nn.functional import gelu

from nfn_transformer import NetworkSpec
from nfn_transformer.features.layered_graph import LayeredGraph
from nfn_transformer.layers.bilinear import Nodes, pooled_nodes
from nfn_transformer.layers.layered_graph_layers import LayeredGraphLayer
from nfn_transformer.models.encoders.graph import GraphConfig
from nfn_transformer.models.network_graph_encoder import GraphFeatures, NetworkGraphEncoder

BOUND = 1 / 3
"""Share of the dense way's memory below which ours must be."""
SPECS = {
    "INRs, 2-32-32-1": NetworkSpec((2, 32, 32, 1), (None,) * 3, "sine", 30.0, offset=0.5),
    "CNNs, 1-16-16-16-10": NetworkSpec((1, 16, 16, 16, 10), ((3, 3),) * 3 + (None,)),
}


def main() -> int:
    """Measure both ways and print the table; return 1 if a share is not below the bound."""
    own = parser(__doc__, rounds=0)
    own.add_argument("--batch_sizes", type=int, nargs="+", default=[32], help="networks of a step")
    flags = own.parse_args()
    device = begin(flags)
    check_peak_memory(device)
    rows, measurements = [], []
    for zoo, spec in SPECS.items():
        for batch in flags.batch_sizes:
            torch.manual_seed(0)
            encoder = NetworkGraphEncoder(spec, GraphConfig()).to(device)
            features = encoder.featurize(random_zoo(spec, batch).weights(torch.arange(batch))).to(device)
            ways = {"ours": encoder.from_features, "dense": lambda given, model=encoder: _dense(model, given)}
            torch.testing.assert_close(ways["ours"](features), ways["dense"](features), rtol=1e-3, atol=1e-4)
            found = {name: _peak(encoder, way, features, device) for name, way in ways.items()}
            share = found["ours"] / found["dense"]
            rows.append((zoo, batch, f"{found['dense'] / MIB:.1f}", f"{found['ours'] / MIB:.1f}", f"{share:.2f}"))
            measurements.append({"zoo": zoo, "batch": batch, "bytes": found, "share": share})
    header = ("networks", "batch", "dense, MiB", "ours, MiB", "ours / dense")
    print(markdown(f"Peak memory of a step; the share must be below {BOUND:.2f}.", header, rows))
    write_measurements(flags, device, measurements)
    return int(any(entry["share"] >= BOUND for entry in measurements))


def _peak(encoder: NetworkGraphEncoder, way, features: GraphFeatures, device: torch.device) -> int:
    """Return the bytes of a second step's peak."""

    def step() -> None:
        encoder.zero_grad()
        way(features).square().sum().backward()

    step()
    encoder.zero_grad()
    return peak_memory(step, device)


def _dense(encoder: NetworkGraphEncoder, features: GraphFeatures) -> Tensor:
    """Return the encoder's outputs by layers that read all pairs of nodes; the networks are of one spec."""
    trunk, sizes = encoder.trunk, encoder.spec.sizes
    there = ~features.graph.hidden.isnan()
    count = len(sizes) - 2
    number = torch.arange(1, count + 1, device=there.device)
    is_last = (number == count).to(features.graph.outputs.dtype).expand(len(there), -1)
    first = trunk.first_nodes(features, (number / (count + 1)).expand_as(is_last), is_last)
    nodes = torch.cat([first.inputs, first.hidden.flatten(1, 2), first.outputs], dim=1)
    edges, mask = _dense_edges(encoder, features.graph)
    for layer in trunk.layers:
        nodes, edges = _dense_layer(layer, nodes, edges, mask)
    inputs, hidden, outputs = trunk.norm(nodes).split([sizes[0], sum(sizes[1:-1]), sizes[-1]], dim=1)
    return encoder.head(pooled_nodes(Nodes(inputs, hidden.unflatten(1, (count, -1)), outputs), there, is_last))


def _dense_edges(encoder: NetworkGraphEncoder, graph: LayeredGraph) -> tuple[Tensor, Tensor]:
    """Return edges [b, nodes, nodes, d], and 1 for those that a network has [nodes, nodes, 1]."""
    first, middle, last = (block.edges for block in encoder.trunk.first_blocks(graph))
    sizes = encoder.spec.sizes
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    edges = first.new_zeros(len(first), starts[-1], starts[-1], first.shape[-1])
    mask = edges.new_zeros(starts[-1], starts[-1], 1)
    for layer, block in enumerate([first, *middle.unbind(1), last]):
        into, of = slice(starts[layer + 1], starts[layer + 2]), slice(starts[layer], starts[layer + 1])
        edges[:, into, of], mask[into, of] = block, 1
    return edges, mask


def _dense_layer(layer: LayeredGraphLayer, nodes: Tensor, edges: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and edges after a layer of `layers.layered_graph_layers`."""
    normed = layer.norm(nodes)
    sender, receiver = layer.of_source(normed), layer.of_target(normed)
    hidden = gelu(layer.of_edge(edges) + sender[:, None] + receiver[:, :, None])
    incoming = (hidden * mask * (1 + sender[:, None])).sum(2) / mask.sum(1).clamp(min=1)
    outgoing = (hidden * mask * (1 + receiver[:, :, None])).sum(1) / mask.sum(0).clamp(min=1)
    nodes = nodes + layer.node_update(torch.cat([normed, incoming, outgoing], dim=-1))
    return nodes, edges if layer.edge_update is None else edges + layer.edge_update(hidden)


if __name__ == "__main__":
    sys.exit(main())
