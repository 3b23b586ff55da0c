"""Small files in the formats of public zoos, with random numbers, for tests."""

import csv
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

CNN_LAYERS = {"conv2d": (3, 3, 1, 4), "conv2d_1": (3, 3, 4, 5), "conv2d_2": (3, 3, 5, 4), "dense": (4, 10)}
STEPS = (0, 1, 2, 3, 4, 20, 40, 60, 86)


def table_text(rows: list[dict]) -> str:
    """A CSV table with the columns of all rows, and pandas' column without a name in front."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["", *names])
    writer.writerows([[index, *(row.get(name, "") for name in names)] for index, row in enumerate(rows)])
    return text.getvalue()


def layout_text(layers: dict[str, tuple[int, ...]], bias_first: bool = True) -> tuple[str, int]:
    """A `layout.csv` and the number of columns; TensorFlow sorts a layer's bias before its kernel."""
    rows, start = [], 0
    for layer, shape in layers.items():
        variables = [("bias:0", shape[-1:]), ("kernel:0", shape)]
        for name, size in variables if bias_first else variables[::-1]:
            end = start + int(np.prod(size))
            written = f"({', '.join(map(str, size))}{',' if len(size) == 1 else ''})"
            rows.append({"varname": f"sequential/{layer}/{name}", "start_idx": start, "end_idx": end, "shape": written})
            start = end
    return table_text(rows), start


def write_array_zoo(
    folder: Path, networks: int = 20, layers: dict[str, tuple[int, ...]] = CNN_LAYERS, dtype: type = np.float32
) -> np.ndarray:
    """Write the files of the Small CNN Zoo, nine checkpoints a network, half of them relu; return the array."""
    folder.mkdir(parents=True)
    layout, width = layout_text(layers)
    numbers = np.random.default_rng(0).standard_normal((networks * len(STEPS), width)).astype(dtype)
    rows = [
        {
            "step": step,
            "test_accuracy": (network * 9 + place) / (9 * networks),
            "config.activation": ("relu", "tanh")[network % 2],
            "config.optimizer": "adam",
            "config.learning_rate": 0.001 * (network + 1),
            "config.l2reg": 1e-4,
        }
        for network in range(networks)
        for place, step in enumerate(STEPS)
    ]
    np.save(folder / "weights.npy", numbers)
    (folder / "layout.csv").write_text(layout)
    (folder / "metrics.csv.gz").write_bytes(gzip.compress(table_text(rows).encode()))
    return numbers


def pack(folder: Path, path: Path) -> Path:
    """Write a folder as a .tar.xz or a .zip that holds it under its own name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    else:
        with tarfile.open(path, "w:xz") as archive:
            archive.add(folder, folder.name)
    return path
