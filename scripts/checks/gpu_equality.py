"""Whether a GPU gives the numbers of the CPU in the ways of training that one GPU has; for machines that have one.

Trains Transformer-NFN for some epochs on the bundled zoo: on the CPU, on the GPU, there with CUDA graphs, compiled, and
with several seeds at once; prints by how much the losses of each way differ from the CPU's, and seconds per epoch.
Ends with status 1 where a difference is larger than the tolerance.

    python scripts/checks/gpu_equality.py [--epochs 5] [--tolerance 1e-3]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from nfn_transformer.experiments.config import DataConfig, TrainingConfig
from nfn_transformer.experiments.data import draw_split, load_zoo, prepare
from nfn_transformer.experiments.run_directory import RunDirectory
from nfn_transformer.experiments.trainer import Trainer
from nfn_transformer.experiments.training import Feeding, train
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import build_predictor
from nfn_transformer.zoo.reading import Zoo

DATA = DataConfig("digits", str(Path(__file__).parents[2] / "data/digits_transformers.zip"))

BATCH_SIZE = 48
"""1,120 networks are no whole number of batches, so that steps that fit whole batches only take turns with others."""

CPU = "on the CPU"
WAYS: dict[str, tuple[str, tuple[int, ...], dict, bool]] = {
    CPU: ("cpu", (1,), {}, False),
    "on the GPU": ("cuda", (1,), {}, False),
    "on the GPU, streamed": ("cuda", (1,), {}, True),
    "CUDA graphs": ("cuda", (1,), {"cuda_graphs": True}, False),
    "streamed, CUDA graphs": ("cuda", (1,), {"cuda_graphs": True}, True),
    "compiled": ("cuda", (1,), {"compile": True}, False),
    "compiled, CUDA graphs": ("cuda", (1,), {"compile": True, "cuda_graphs": True}, False),
    "five seeds at once": ("cuda", (1, 2, 3, 4, 5), {}, False),
    "five seeds at once, compiled": ("cuda", (1, 2, 3, 4, 5), {"compile": True}, False),
    "five seeds at once, CUDA graphs": ("cuda", (1, 2, 3, 4, 5), {"cuda_graphs": True}, False),
}
"""What is compared -> device, seeds, the first of which is compared, settings of the training, whether it streams."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="of each way (default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="on relative differences of losses (default: %(default)s)"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this machine has no GPU that PyTorch can use", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    zoo, worst, expected = load_zoo(DATA), 0.0, None
    for name in WAYS:
        losses, seconds = _run(zoo, name, options.epochs)
        expected = losses if expected is None else expected
        difference = max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True))
        worst = max(worst, difference)
        print(f"{name:34}  largest relative difference {difference:.1e}  {seconds:.3f} s per epoch", flush=True)
    return int(worst > options.tolerance)


def _run(zoo: Zoo, name: str, epochs: int) -> tuple[list[float], float]:
    """Training and validation losses of the first seed, and seconds of the fastest epoch."""
    device, seeds, settings, stream = WAYS[name]
    config = TrainingConfig(epochs=epochs, warmup_epochs=1, batch_size=BATCH_SIZE, **settings)
    with tempfile.TemporaryDirectory() as folder:
        trainers = []
        for seed in seeds:
            run = RunDirectory(Path(folder) / str(seed))
            run.path.mkdir()
            model = build_predictor(zoo.spec, ModelConfig(), seed).to(device)
            data = prepare(zoo, draw_split(zoo, DATA, seed))
            trainers.append(Trainer(model, data, config, seed, run, lambda record: None))
        history = train(trainers, Feeding(stream, n_workers=2))[0].history
    losses = [loss for entry in history for loss in (entry.train_loss, entry.validation.loss)]
    return losses, min(entry.seconds for entry in history)


if __name__ == "__main__":
    sys.exit(main())
