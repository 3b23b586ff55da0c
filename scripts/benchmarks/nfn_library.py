"""Measure NP and HNP layers beside those of the library nfn, on the sizes of public zoos.

Both map 16 channels to 16 for the same networks, in turns in one process. A training step is a forward and a backward
pass to parameters and inputs. Bytes of the inputs, outputs and parameters say how near the memory's limit a pass is.

    pip install nfn==0.1.2
    python scripts/benchmarks/nfn_library.py
"""

import sys
from collections.abc import Callable

import torch
from measuring import begin, markdown, parser, ratios, seconds_of_one, spread, write_measurements
from torch import Tensor, nn

from nfn_transformer import FeedForwardSpec, FeedForwardWeights, HNPLinear, NPLinear
from nfn_transformer.training.step import keep_freed_memory

CHANNELS = 16
ZOOS = {"INRs, 2-32-32-1": (2, 32, 32, 1), "CNNs, 1-16-16-16-10": (1, 16, 16, 16, 10)}


def main() -> int:
    """Measure all and print the table."""
    own = parser(__doc__, rounds=5)
    own.add_argument("--batch_sizes", type=int, nargs="+", default=[32, 256], help="networks of a pass")
    own.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    flags = own.parse_args()
    try:
        from nfn import layers
        from nfn.common import WeightSpaceFeatures, network_spec_from_wsfeat
    except ImportError:
        print("pip install nfn==0.1.2", file=sys.stderr)
        return 1
    device = begin(flags)
    keep_freed_memory()  # as a training does; it helps both
    rows, measurements = [], []
    for zoo, sizes in ZOOS.items():
        spec = FeedForwardSpec(sizes)
        for batch in flags.batch_sizes:
            weights = _random(spec, batch, device)
            theirs_spec = network_spec_from_wsfeat(WeightSpaceFeatures(weights.weights, weights.biases))
            for name, ours, theirs in (("NP", NPLinear, layers.NPLinear), ("HNP", HNPLinear, layers.HNPLinear)):
                passes: dict[str, dict[str, Callable[[], object]]] = {"forward": {}, "training step": {}}
                for whose, layer, kind in (
                    ("ours", ours(spec, CHANNELS, CHANNELS), FeedForwardWeights),
                    ("nfn", theirs(theirs_spec, CHANNELS, CHANNELS), WeightSpaceFeatures),
                ):
                    layer, given = layer.to(device), kind(weights.weights, weights.biases)
                    passes["forward"][whose] = _forward(layer, given)
                    passes["training step"][whose] = _step(layer, given)
                for operation, ways in passes.items():
                    seconds = _in_turns(ways, flags.rounds, flags.seconds, device)
                    times = [spread(seconds[whose], 1e3) for whose in ("nfn", "ours")]
                    rows.append((zoo, name, batch, operation, *times, spread(ratios(seconds["nfn"], seconds["ours"]))))
                    measurements.append({"zoo": zoo, "layer": name, "batch": batch, "operation": operation, **seconds})
    print(
        markdown(
            "Median (range) over the rounds.",
            ("networks", "layer", "batch", "", "nfn, ms", "ours, ms", "nfn / ours"),
            rows,
        )
    )
    write_measurements(flags, device, measurements)
    return 0


def _random(spec: FeedForwardSpec, batch: int, device: torch.device) -> FeedForwardWeights:
    """Return features of networks, normal with standard deviation 1, that ask for a gradient."""
    sides = list(zip(spec.sizes, spec.sizes[1:], strict=False))
    tensors = [torch.randn(batch, CHANNELS, n, m, device=device) for m, n in sides]
    biases = [torch.randn(batch, CHANNELS, n, device=device) for _, n in sides]
    return FeedForwardWeights(tuple(tensors), tuple(biases)).map(lambda tensor: tensor.requires_grad_())


def _forward(layer: nn.Module, given) -> Callable[[], object]:
    def call() -> None:
        with torch.no_grad():
            layer(given)

    return call


def _step(layer: nn.Module, given) -> Callable[[], object]:
    inputs: list[Tensor] = [*given.weights, *given.biases, *layer.parameters()]

    def call() -> None:
        result = layer(given)
        total = torch.stack([tensor.square().mean() for tensor in (*result.weights, *result.biases)]).sum()
        torch.autograd.grad(total, inputs, allow_unused=True)

    return call


def _in_turns(
    ways: dict[str, Callable[[], object]], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of one call of each way, one figure a round."""
    counts = {name: max(2, int(seconds / seconds_of_one(call, 1, device))) for name, call in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            found[name].append(seconds_of_one(call, counts[name], device))
    return found


if __name__ == "__main__":
    sys.exit(main())
