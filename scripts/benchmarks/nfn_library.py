"""Measure NP and HNP layers beside those of the library nfn, on the sizes of public zoos.

Both map 16 channels to 16 for the same networks, in turns in one process. A training step is a forward and a backward
pass from given gradients of the outputs to parameters and inputs. On a CPU processor time is measured, as other
programs may run. The limit is a copy of the fewest bytes that a pass must read and write: inputs, outputs, parameters
and their gradients. Its share says how near to the memory's limit ours is.

    pip install nfn==0.1.2
    python scripts/benchmarks/nfn_library.py
"""

import sys
import time
from collections.abc import Callable

import torch
from measuring import begin, markdown, parser, ratios, seconds_of_one, spread, synchronize, write_measurements
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
                numbers = sum(map(torch.Tensor.numel, weights.tensors()))
                own = sum(parameter.numel() for parameter in ours(spec, CHANNELS, CHANNELS).parameters())
                # Inputs and outputs; backward both gradients and the inputs again, and parameters with their gradients.
                moved = {"forward": 2 * numbers + own, "training step": 5 * numbers + 3 * own}
                for operation, ways in passes.items():
                    ways["copy"] = _copy(moved[operation], device)
                    seconds = _in_turns(ways, flags.rounds, flags.seconds, device)
                    times = [spread(seconds[whose], 1e3) for whose in ("nfn", "ours", "copy")]
                    shares = (ratios(seconds[whose], seconds["ours"]) for whose in ("nfn", "copy"))
                    rows.append((zoo, name, batch, operation, *times, *map(spread, shares)))
                    measurements.append({"zoo": zoo, "layer": name, "batch": batch, "operation": operation, **seconds})
    print(
        markdown(
            "Median (range) over the rounds.",
            ("networks", "layer", "batch", "", "nfn, ms", "ours, ms", "limit, ms", "nfn / ours", "limit / ours"),
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

    def outputs() -> list[Tensor]:
        result = layer(given)
        return [*result.weights, *result.biases]

    gradients = [torch.randn_like(output) for output in outputs()]
    return lambda: torch.autograd.grad(outputs(), inputs, gradients, allow_unused=True)


def _copy(numbers: int, device: torch.device) -> Callable[[], object]:
    """Return a copy that reads and writes so many numbers, half of them either."""
    source, target = torch.randn(2, numbers // 2, device=device)
    return lambda: target.copy_(source)


def _in_turns(
    ways: dict[str, Callable[[], object]], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of one call of each way, one figure a round."""
    counts = {name: max(2, int(seconds / seconds_of_one(call, 1, device))) for name, call in ways.items()}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, call in ways.items():
            synchronize(device)
            start = clock()
            for _ in range(counts[name]):
                call()
            synchronize(device)
            found[name].append((clock() - start) / counts[name])
    return found


if __name__ == "__main__":
    sys.exit(main())
