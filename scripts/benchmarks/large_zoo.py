"""Shared parts of the benchmarks of large zoos: a zoo of the released size, bounds, and a process's memory."""

import io
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path

DATASET = "mnist"
CHECKPOINTS = 12_500

MIB = 2**20


def build(path: Path, checkpoints: int, deflate: bool = False, source: Path | None = None) -> dict[str, float]:
    """Write a zoo's zip of random checkpoints, or of copies of those in the zip `source`; return its figures."""
    import torch

    contents = _copies(source) if source else _random_checkpoints()
    rows = ["n_attention_heads,ckpt_epoch,ckpt_file,test_top1_accuracy"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for index in range(checkpoints):
            name = f"{DATASET}/run{index:06d}_75_{index % 10000:04d}.pt"
            content = next(contents)
            archive.writestr(f"MNIST-Transformers/{name}", content)
            rows.append(f"2,75,{name},{index % 10000 / 10000}")
        archive.writestr(f"MNIST-Transformers/metadata/{DATASET}.csv", "\n".join(rows))
    numbers = sum(tensor.numel() for tensor in torch.load(io.BytesIO(content), weights_only=True).values())
    return {"count": checkpoints, "numbers": numbers, "bytes": path.stat().st_size}


def _random_checkpoints() -> Iterator[bytes]:
    import torch

    from nfn_transformer import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec, state_dict_shapes

    block = BlockSpec(heads=2, width=32, key=16, value=16, hidden=64)
    spec = TransformerSpec((block, block), FeedForwardSpec((32, 32, 10)), EmbeddingSpec(1, 32, (4, 4), 49))
    shapes = state_dict_shapes(spec)
    generator = torch.Generator().manual_seed(0)
    while True:
        buffer = io.BytesIO()
        torch.save({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}, buffer)
        yield buffer.getvalue()


def _copies(source: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive:
        contents = [archive.read(name) for name in archive.namelist() if name.endswith(".pt")]
    return itertools.cycle(contents)


def within(quantity: str, value: float, most: float, unit: str) -> bool:
    """Print a figure beside its bound; return True if it keeps the bound."""
    print(f"{quantity:33s} {value:7.2f} {unit}, at most {most}: {'ok' if value <= most else 'EXCEEDED'}")
    return value <= most


def memory(field: str) -> int:
    """Return a process's bytes on Linux: VmRSS now, VmHWM at most; getrusage would count the parent's peak, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")
