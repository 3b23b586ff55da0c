"""Measure how trained predictors react to changes of weights that change no function.

Takes finished runs, transforms the networks of each run's test side by random elements of the symmetry group, and
prints Kendall's tau on the originals, on the copies, on both together, and how far predictions move; then the means of
each kind of run.

    python scripts/checks/invariance.py runs/cells/*-seed1-*/ [--group complete] [--scale 1.0] [--seed 0]
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import torch

import nfn_transformer as nfn

ONE_BY_ONE = {"permutations": nfn.CompleteElement.sample_permutations, "complete": nfn.CompleteElement.sample}
IN_FLOAT64 = ("with_classifier", *ONE_BY_ONE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        help="run directories; unfinished and enlarged ones, such with --train_networks and those that read no weights "
        "are left out",
    )
    parser.add_argument("--cut_off", type=float, default=0.0, help="only runs with this one (default: %(default)s)")
    parser.add_argument(
        "--group",
        choices=("published", *IN_FLOAT64),
        default="published",
        help="the paper's group, in float32; or, in float64, with permutations and scales of the classifier's hidden "
        "neurons besides (with_classifier), permutations alone, of all that the networks let be permuted, or every "
        "symmetry that they have (complete) (default: %(default)s)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="entries of M and N (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the transformations (default: %(default)s)")
    options = parser.parse_args()
    found = defaultdict(list)
    for path in options.runs:
        if not (path / "results.json").is_file():
            continue
        predictor = nfn.load_predictor(path, "cpu")
        config, data = predictor.config, predictor.config.data
        if data.augment or data.train_networks is not None or data.cut_off != options.cut_off:
            continue
        if getattr(config.predictor, "features", "") == "hyperparameters":
            continue  # of copies as of originals it reads the same
        name = f"{config.data.dataset}, {config.predictor.name}{_settings(config.predictor)}"
        kind = (name, repr((config.predictor, config.training)))  # other settings have a mean of their own
        found[kind].append(_measure(predictor, options))
        print(f"{name}, seed {config.seed}: {_line(found[kind][-1])}", flush=True)
    for (name, _), of_kind in found.items():
        print(f"{name}, mean of {len(of_kind)}: {_line(torch.tensor(of_kind).mean(0).tolist())}")
    return 0


def _settings(predictor: object) -> str:
    """Return a network's settings that differ from those of its modes; the names of trees tell all of theirs."""
    if not isinstance(predictor, nfn.ModelConfig):
        return ""
    plain = nfn.ModelConfig(predictor.enc_mode, predictor.cls_mode, predictor.emb_mode).to_json()
    changed = [f"{name} {value}" for name, value in predictor.to_json().items() if value != plain.get(name)]
    return f" ({', '.join(changed)})" if changed else ""


def _line(numbers: list[float]) -> str:
    original, copies, both, mean, most = numbers
    taus = f"tau {original:.3f}, on copies {copies:.3f}, on both {both:.3f}"
    return f"{taus}; predictions move by {mean:.1e}, at most {most:.1e}"


def _measure(predictor: nfn.FittedPredictor, options: argparse.Namespace) -> list[float]:
    zoo = predictor.read_zoo()
    test = predictor.test_split(zoo)
    originals = zoo.weights(test)
    generator = nfn.make_generator(options.seed, "invariance", predictor.config.seed)
    if options.group in IN_FLOAT64:
        originals = originals.to(torch.float64)
        if isinstance(predictor.model, torch.nn.Module):
            predictor.model.double()
    if options.group in ONE_BY_ONE:
        samples = (ONE_BY_ONE[options.group](zoo.spec, generator) for _ in test)
        copies = nfn.transform_one_by_one(samples, originals)
    else:
        with_classifier = options.group == "with_classifier"
        copies = nfn.transform_each(originals, zoo.spec, options.scale, generator, with_classifier)
    before, after = (predictor.predict(weights) for weights in (originals, copies))
    moved = (after - before).abs()
    labels = zoo.labels[test]
    sides = ((before, labels), (after, labels), (torch.cat([before, after]), labels.repeat(2)))
    return [*(nfn.kendall_tau(*side) for side in sides), moved.mean().item(), moved.max().item()]


if __name__ == "__main__":
    sys.exit(main())
