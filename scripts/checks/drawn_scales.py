"""Rank the test networks of finished runs, as they are and with drawn scales of their hidden neurons.

    python scripts/checks/drawn_scales.py runs/cells/mnist-*-seed1-*/

Each hidden neuron of a ReLU network gets a positive factor, of a tanh or sine network a sign, and what reads it gets
the inverse. Neurons are permuted besides. The networks' functions stay. Factors are uniform in the logarithm from
1 / SCALE to SCALE. Networks and predictors are in float64. A method that knows these symmetries keeps its tau.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from nfn_transformer import NetworkElement, NetworkWeights, UserError, kendall_tau, load_predictor, make_generator
from nfn_transformer.cli.command_line import number_in, run_command


def main(arguments: Sequence[str]) -> int:
    """Print tau before and after, and how far predictions move, of each run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs on feed-forward networks")
    parser.add_argument("--scale", type=number_in(float, 1), default=1e4, help="largest factor (default: %(default)s)")
    parser.add_argument("--seed", type=number_in(int, 0), default=0, help="of the draws (default: %(default)s)")
    flags = parser.parse_args(arguments)
    for path in flags.runs:
        if not (path / "results.json").is_file():
            continue
        predictor = load_predictor(path, "cpu")
        if isinstance(predictor.model, torch.nn.Module):
            predictor.model.double()
        zoo = predictor.read_zoo()
        test = predictor.test_split(zoo)
        before, after = torch.empty(2, len(test), dtype=torch.float64)
        generator = make_generator(flags.seed, "drawn scales", predictor.config.seed)
        for positions, rows, of_size in zoo.by_size(test):
            weights = of_size.weights_of(rows.double())
            if not isinstance(weights, NetworkWeights):
                raise UserError(f"{path}: expected networks of family feed_forward, got {of_size.spec.family}")
            first, *others = [
                NetworkElement.sample(of_size.spec, generator, largest_scale=flags.scale).act(
                    weights[index : index + 1]
                )
                for index in range(weights.batch)
            ]
            scaled = first.map(lambda *tensors: torch.cat(tensors), *others)
            before[positions] = predictor.predict(weights).double()
            after[positions] = predictor.predict(scaled).double()
        taus = [kendall_tau(side, zoo.labels[test].double()) for side in (before, after)]
        moved = (after - before).abs().max().item()
        print(f"{path.name}: tau {taus[0]:.4f}, with drawn scales {taus[1]:.4f}; predictions move by {moved:.1e}")
    return 0


if __name__ == "__main__":
    run_command(main)
