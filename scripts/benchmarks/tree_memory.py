"""How much memory the tree models take at the size of the released zoo, above what is imported.

Builds a zoo of 12,500 checkpoints in a temporary folder (about 2 GB while it runs), trains each model for some rounds
on it in a fresh process, as its command does, prints the peak beside its bound, and ends with status 1 where one is
exceeded. All the memory of a round is taken in the first ones.

    python scripts/benchmarks/tree_memory.py [--rounds 3] [--folder DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from large_zoo import CHECKPOINTS, DATASET, MIB, build, memory, within

MODELS = ("gbtree", "dart", "gbdt", "rf")
MOST_MEMORY = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS, help="how many (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each model (default %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which (default: all)")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder (default: the system's)")
    parser.add_argument("--zip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.zip:
        print(json.dumps(train(options.models[0], options.zip, options.rounds)))
        return 0
    with tempfile.TemporaryDirectory(prefix="tree_memory_", dir=options.folder) as folder:
        archive = Path(folder) / "MNIST-Transformers.zip"
        built = build(archive, options.checkpoints)
        print(f"{built['count']} checkpoints of {built['numbers']} numbers", flush=True)
        kept = [_measure(model, archive, options.rounds) for model in options.models]
    return 0 if all(kept) else 1


def _measure(model: str, archive: Path, rounds: int) -> bool:
    words = [sys.executable, __file__, "--models", model, "--rounds", str(rounds), "--zip", str(archive)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(archive.parent)}
    found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    flat, peak = found["flattened"], found["peak"]
    print(f"{model}: flattened {flat / MIB:.0f} MiB, peak above the imports {peak / MIB:.0f} MiB")
    return within(f"{model}, peak memory above imports", peak / flat, MOST_MEMORY, "times the flattened data")


def train(model: str, archive: Path, rounds: int) -> dict[str, int]:
    """Bytes of the flattened data, and peak bytes above the imports, of one training with its test."""
    from dataclasses import replace

    import torch
    from tqdm import tqdm  # noqa: F401 - counts as an import

    from nfn_transformer import flatten_networks
    from nfn_transformer.training.report import evaluate_best
    from nfn_transformer.training.run import begin_runs
    from nfn_transformer.training.trained_predictor import load_trained
    from nfn_transformer.trees.config import TREE_MODELS
    from nfn_transformer.trees.libraries import tree_library

    if TREE_MODELS[model].command == "gbm":
        from nfn_transformer import gbm as command
    else:
        from nfn_transformer import xgb as command
    words = ["--model", model, "--dataset", DATASET, "--data_path", str(archive), "--device", "cpu"]
    config = command.run_config(command.build_parser().parse_args(words))
    config = replace(config, training=replace(config.training, rounds=rounds))
    tree_library(config.predictor.library)
    imports = memory("VmRSS")
    (run,) = begin_runs([config], [archive.with_name(f"run-{model}")])
    run.train()
    data = run.data
    evaluate_best(data, run.history, load_trained(run.directory, torch.device("cpu")), run.directory, config.seed)
    peak = memory("VmHWM") - imports
    numbers = flatten_networks(data.zoo.weights(torch.arange(1))).shape[1]
    return {"flattened": len(data.zoo) * numbers * 4, "peak": peak}


if __name__ == "__main__":
    sys.exit(main())
