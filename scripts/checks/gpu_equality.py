"""Compare every way of training on a device with the CPU's plain training: losses must be equal within bounds.

Each way trains for some epochs on part of the bundled zoo: every encoder and head, standardised, with dropout, as an
ensemble, streamed, compiled, with CUDA graphs, in bfloat16, and several seeds at once. Float32 ways must agree with
the CPU within --tolerance (relative differences of losses), bfloat16 within --amp_tolerance. Ways that need a GPU are
left out on a CPU. A way that fails is reported, and the others go on.

    python scripts/checks/gpu_equality.py [--device cuda] [--epochs 3] [--tolerance 1e-3] [--out FILE]
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nfn_transformer import ModelConfig, Zoo, build_predictor
from nfn_transformer import main as training
from nfn_transformer.cli.command_line import find_device, positive_int
from nfn_transformer.training.config import NETWORK, DataConfig, RunConfig, TrainingConfig
from nfn_transformer.training.data import draw_split, load_zoo, prepare
from nfn_transformer.training.loop import train
from nfn_transformer.training.run import Run
from nfn_transformer.training.run_directory import RunDirectory, write_json
from nfn_transformer.training.step import build_optimizer

DATA = DataConfig("digits", str(Path(__file__).parents[2] / "data/digits_transformers.zip"), train_networks=200)

BATCH_SIZE = 48
"""Training sides are no whole number of batches, so that prepared steps take turns with others."""


@dataclass(frozen=True)
class Way:
    """A way of training: the model's flags, settings of the training, how many seeds at once, whether it streams."""

    name: str
    flags: str = ""
    settings: dict[str, bool] = field(default_factory=dict)
    seeds: int = 1
    stream: bool = False

    @property
    def needs_gpu(self) -> bool:
        """Return whether a CPU cannot train this way, or takes minutes to prepare it."""
        return bool(self.settings.get("cuda_graphs") or self.settings.get("compile"))


ALONE = "--cls_mode no --emb_mode no --enc_mode"
HEAD = "--enc_mode no --emb_mode no --cls_mode"
GRAPHS, COMPILED, AMP = {"cuda_graphs": True}, {"compile": True}, {"amp": True}
COMPLETE = "--enc_mode complete"

WAYS = (
    Way("inv"),
    Way("inv, CUDA graphs", settings=GRAPHS),
    Way("complete, ensemble of 5, dropout", COMPLETE),
    Way("complete, CUDA graphs", COMPLETE, GRAPHS),
    Way("inv, five seeds at once", seeds=5),
    Way("inv, five seeds at once, CUDA graphs", settings=GRAPHS, seeds=5),
    Way("inv, streamed", stream=True),
    Way("inv, streamed, CUDA graphs", settings=GRAPHS, stream=True),
    Way("inv, standardised", "--standardize True"),
    Way("inv, dropout", "--dropout 0.3"),
    Way("inv, dropout, CUDA graphs", "--dropout 0.3", GRAPHS),
    Way("inv, ensemble of 3", "--ensemble 3"),
    Way("inv, bfloat16", settings=AMP),
    Way("complete, bfloat16", COMPLETE, AMP),
    *(Way(f"encoder {name}", f"{ALONE} {name}") for name in ("statnn", "mlp", "graph", "graph --graph_conv attention")),
    *(Way(f"head {name}", f"{HEAD} {name}") for name in ("np", "hnp", "hnps", "magep", "nft", "statnn", "mlp")),
    Way("head nft, CUDA graphs", f"{HEAD} nft", GRAPHS),
    Way("encoder graph, CUDA graphs", f"{ALONE} graph", GRAPHS),
    Way("statnn, log-magnitudes", f"{ALONE} statnn --standardize True --log_magnitudes True"),
    Way("complete, compiled", COMPLETE + " --ensemble 1", COMPILED),
    Way("inv, compiled", settings=COMPILED),
    Way("inv, compiled, CUDA graphs", settings=COMPILED | GRAPHS),
    Way("inv, five seeds at once, compiled", settings=COMPILED, seeds=5),
)


def main(arguments: list[str]) -> int:
    """Train all ways and print a line for each; return 1 where one failed or lies outside its bound."""
    flags = _parser().parse_args(arguments)
    device, start = find_device(flags.device), time.perf_counter()
    print(f"{_name(device)}, PyTorch {torch.__version__}")
    zoo, expected, results = load_zoo(DATA), {}, []
    for way in WAYS:
        if (way.needs_gpu and device.type == "cpu") or time.perf_counter() - start > flags.limit:
            continue
        try:
            if (way.flags, way.stream) not in expected:
                expected[way.flags, way.stream], _ = _losses(zoo, Way("", way.flags), torch.device("cpu"), flags.epochs)
            losses, seconds = _losses(zoo, way, device, flags.epochs)
        except Exception as error:  # another way is worth measuring all the same
            results.append({"way": way.name, "error": f"{type(error).__name__}: {error}"[:2000]})
            print(f"{way.name:40}  FAILED  {str(error).strip().splitlines()[:1]}", flush=True)
            continue
        difference = max(abs(a / b - 1) for a, b in zip(losses, expected[way.flags, way.stream], strict=True))
        bound = flags.amp_tolerance if way.settings.get("amp") else flags.tolerance
        results.append({"way": way.name, "difference": difference, "bound": bound, "seconds": seconds})
        verdict = "equal" if difference <= bound else f"DIFFERS, the bound is {bound:g}"
        print(f"{way.name:40}  {difference:.1e}  {seconds:.3f} s per epoch  {verdict}", flush=True)
        if flags.out is not None:
            write_json(flags.out, {"device": _name(device), "torch": torch.__version__, "ways": results})
    return int(any("error" in result or not result["difference"] <= result["bound"] for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--epochs", type=positive_int, default=3, help="of each way (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of float32 losses (default: %(default)s)")
    parser.add_argument("--amp_tolerance", type=float, default=3e-2, help="of bfloat16 losses (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which no way begins")
    parser.add_argument("--out", type=Path, help="a JSON file for all differences")
    return parser


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _losses(zoo: Zoo, way: Way, device: torch.device, epochs: int) -> tuple[list[float], float]:
    """Return the first seed's training and validation losses, and seconds of the fastest epoch."""
    config = TrainingConfig(epochs=epochs, warmup_epochs=1, batch_size=BATCH_SIZE, **way.settings)
    model_config = ModelConfig.from_flags(vars(training.build_parser().parse_args(way.flags.split())))
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in range(1, 1 + way.seeds):
            model = build_predictor(zoo.spec, model_config, seed).to(device)
            data = prepare(zoo, draw_split(zoo, DATA, seed))
            settings = RunConfig(seed, NETWORK, DATA, model_config, config, str(device))
            runs.append(Run(settings, data, model, build_optimizer(config, model.parameters())))
            runs[-1].directory = RunDirectory(Path(folder) / str(seed))
            runs[-1].directory.path.mkdir()
        train(runs, stream=way.stream, n_workers=2)
        records = runs[0].history.records
    losses = [loss for entry in records for loss in (entry.train_loss, entry.validation.loss)]
    return losses, min(entry.seconds for entry in records)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
