"""Time and memory of reading a large zoo: from its zip, by torch.load alone, and from the cache.

The command builds a zoo of 12,500 checkpoints in a temporary folder (about 3 GB while it runs) and measures each way
of reading in a fresh process. It prints the figures beside their bounds, and ends with status 1 if one is exceeded.

    python scripts/benchmarks/read_zoo.py [--deflate] [--source data/digits_transformers.zip] [--folder DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import large_zoo
from large_zoo import CHECKPOINTS, DATASET, MIB, memory, within

MOST_TIMES_TORCH_LOAD = 2.0
MOST_CACHED_SECONDS = 3.0
MOST_MEMORY = 2.5


def main() -> int:
    options = _parser().parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="read_zoo_", dir=options.folder) as folder:
        return _measure(options, Path(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS, help="how many (default %(default)s)")
    parser.add_argument("--deflate", action="store_true", help="compress the zip's members (default: stored)")
    parser.add_argument("--source", type=Path, help="a zip whose checkpoints are copied (default: random ones)")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (default: the system's)")
    parser.add_argument("--n_workers", type=int, default=0, help="processes that read the zip (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest of so many counts (default %(default)s)")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--zip", type=Path, help=argparse.SUPPRESS)
    return parser


def _measure(options: argparse.Namespace, folder: Path) -> int:
    archive = folder / "MNIST-Transformers.zip"
    os.environ["XDG_CACHE_HOME"] = str(folder)

    def step(name: str) -> dict[str, float]:
        # A process of its own: leftovers of one way of reading must not count for the next.
        command = [sys.executable, __file__, *sys.argv[1:], "--step", name, "--zip", str(archive)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    built = step("build")
    print(f"{built['count']} checkpoints of {built['numbers']} numbers, zip of {built['bytes'] / MIB:.0f} MiB")
    # Turn by turn, so that a busy minute of the machine does not fall on one of them alone.
    rounds = [[step(name) for name in ("load", "read", "cached")] for _ in range(options.rounds)]
    for number, times in enumerate(rounds, 1):
        print(f"round {number}: " + ", ".join(f"{time['seconds']:.2f}" for time in times) + " s")
    alone, fresh, cached = (min(of_one, key=lambda step: step["seconds"]) for of_one in zip(*rounds, strict=True))
    tensors = fresh["tensors"]
    print(f"torch.load alone on each member   {alone['seconds']:7.2f} s")
    print(f"read_zoo from the zip             {fresh['seconds']:7.2f} s  (cache written)")
    print(f"read_zoo from the cache           {cached['seconds']:7.2f} s")
    print(f"tensors                           {tensors / MIB:7.0f} MiB")
    kept = [
        within("zip / torch.load", fresh["seconds"] / alone["seconds"], MOST_TIMES_TORCH_LOAD, "times"),
        within("cached load", cached["seconds"], MOST_CACHED_SECONDS, "s"),
        within("peak memory above imports, zip", fresh["peak"] / tensors, MOST_MEMORY, "times the tensors"),
        within("peak memory above imports, cache", cached["peak"] / tensors, MOST_MEMORY, "times the tensors"),
    ]
    return 0 if all(kept) else 1


def build(options: argparse.Namespace) -> dict[str, float]:
    """Write the zoo's zip; return its figures."""
    return large_zoo.build(options.zip, options.checkpoints, options.deflate, options.source)


def load(options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds in torch.load alone, with each member's bytes already in memory."""
    import io
    import zipfile

    import torch

    seconds = 0.0
    with zipfile.ZipFile(options.zip) as archive:
        for name in archive.namelist():
            if name.endswith(".pt"):
                content = io.BytesIO(archive.read(name))
                start = time.perf_counter()
                torch.load(content, weights_only=True)
                seconds += time.perf_counter() - start
    return {"seconds": seconds}


def read(options: argparse.Namespace, load_cache: bool = False) -> dict[str, float]:
    """Return seconds, bytes of the tensors, and peak bytes above the imports, of one call of read_zoo."""
    from nfn_transformer import read_zoo

    imports = memory("VmRSS")
    start = time.perf_counter()
    workers = 0 if load_cache else options.n_workers
    zoo = read_zoo(options.zip, DATASET, load_cache=load_cache, n_workers=workers, progress=False)
    seconds = time.perf_counter() - start
    tensors = zoo.rows.nbytes + zoo.labels.nbytes
    assert len(zoo) == options.checkpoints
    return {"seconds": seconds, "tensors": tensors, "peak": memory("VmHWM") - imports}


def cached(options: argparse.Namespace) -> dict[str, float]:
    """Return the same of a call that reads the cache of the call before."""
    return read(options, load_cache=True)


STEPS = {"build": build, "load": load, "read": read, "cached": cached}

if __name__ == "__main__":
    sys.exit(main())
