"""Record zoos, runs and keys of grid cells with the checkout that PYTHONPATH names; made with commit f1b1395.

PYTHONPATH=CHECKOUT python tests/data/recorded_runs/record.py CHECKOUT OUT
"""

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

ONE_SIZE = "--dataset digits --data_path zoo --seed 1"
ALL_SIZES = "--dataset shapes --data_path shapes --all_sizes True --seed 1"
TINY = "--transformers_nfn_channels 2 --classifier_nfn_channels 1,1 --num_out_encoder 3 --num_out_classify 2 "
TINY += "--num_out_embedding 2 --epochs 4 --warmup_epochs 1 --lr 0.01 --batch_size 8"
NETWORK = f"main {ONE_SIZE} {TINY} --enc_mode"
HEAD = f"{NETWORK} no --emb_mode no --cls_mode"
AUGMENT = "--augment True --augment_factor 8"

# Name -> command; what is interrupted is kept as it was after so many written states, and resumed.
COMMANDS = {
    "finished/graph_attention": f"{NETWORK} graph --graph_dim 4 --graph_layers 1 --graph_conv attention",
    "finished/np": f"{HEAD} np",
    "finished/hnp": f"{HEAD} hnp --classifier_nfn_channels 1",
    "finished/magep": f"{HEAD} magep --classifier_nfn_channels 1",
    "finished/xgb": f"xgb {ONE_SIZE} {AUGMENT}",
    "finished/xgb_statistics": f"xgb {ONE_SIZE} {AUGMENT} --model dart --features statistics",
    "finished/gbm": f"gbm {ONE_SIZE} {AUGMENT} --model gbdt",
    "finished/gbm_invariants": f"gbm {ONE_SIZE} {AUGMENT} --model rf --features invariants",
    "finished/extra_trees": f"gbm {ONE_SIZE} --model extra_trees --features hyperparameters --train_networks 8",
    "interrupted/inv": f"{NETWORK} inv",
    "interrupted/mlp_small_zoo": f"{NETWORK} mlp --standardize True --dropout 0.2 --ensemble 2 --augment True "
    "--optimizer sgd_momentum --wd 0.001 --early_stopping 3",
    "interrupted/statnn": f"{NETWORK} statnn --cls_mode statnn --standardize True --log_magnitudes True",
    "interrupted/complete": f"main {ALL_SIZES} {TINY} --enc_mode complete --ensemble 1 --optimizer sgd_momentum",
    "interrupted/graph": f"{NETWORK} graph --graph_dim 2 --graph_layers 2",
    "interrupted/hnps": f"{HEAD} hnps",
    "interrupted/nft": f"{HEAD} nft --classifier_nfn_channels 2,2",
}
# A kill after the second state comes before the epoch's other files, one after the first metrics after all of them.
KILLS = dict.fromkeys(("interrupted/statnn", "interrupted/graph", "interrupted/hnps"), ("write_state", 2))
KILLS |= {name: ("write_metrics", 1) for name in COMMANDS if name.startswith("interrupted/") and name not in KILLS}
TWO_SEEDS = f"{HEAD} np".replace("--seed 1", "--seeds 1,2")

COSTS = ("seconds", "peak_mib")

KILLED = """
import os, sys
from nfn_transformer import cli, main
from nfn_transformer.experiments.run_directory import RunDirectory
name, left = sys.argv.pop(1), [int(sys.argv.pop(1))]
write = getattr(RunDirectory, name)
def write_and_die(*given):
    write(*given)
    left[0] -= 1
    if not left[0]:
        os._exit(9)
setattr(RunDirectory, name, write_and_die)
cli.run_command(main.main)
"""


def run(checkout: Path, out: Path, command: str, name: str) -> None:
    program, *flags = command.split()
    words = [sys.executable, f"{checkout}/nfn_transformer/{program}.py", *flags, "--device", "cpu", "--out_dir", name]
    subprocess.run(words, cwd=out, check=True)


def kill(out: Path, command: str, method: str, times: int, name: str) -> None:
    """Kill a training after a method of RunDirectory was called so many times."""
    flags = [*command.split()[1:], "--device", "cpu", "--out_dir", name]
    assert subprocess.run([sys.executable, "-c", KILLED, method, str(times), *flags], cwd=out).returncode == 9


def resume(checkout: Path, out: Path, runs: list[str]) -> dict[str, dict]:
    """Resume copies of runs to their end; run -> results and metrics."""
    copies = [f"resumed/{run}" for run in runs]
    for run, copy in zip(runs, copies, strict=True):
        shutil.copytree(out / run, out / copy)
    words = [sys.executable, f"{checkout}/nfn_transformer/main.py", "--resume", *copies]
    subprocess.run(words, cwd=out, check=True)
    return {run: ended(out / copy) for run, copy in zip(runs, copies, strict=True)}


def ended(run: Path) -> dict:
    """Return what a finished run has written: its results, its metrics but for costs, and its test predictions."""
    with open(run / "metrics.csv", newline="") as file:
        metrics = [{key: float(row[key]) for key in row if key not in COSTS} for row in csv.DictReader(file)]
    predictions = read_predictions(run / "test_predictions.csv")
    return {"results": json.loads((run / "results.json").read_text()), "metrics": metrics, "predictions": predictions}


def read_predictions(path: Path) -> dict[str, float]:
    """Return file -> predicted accuracy."""
    with open(path, newline="") as file:
        return {row["file"]: float(row["predicted"]) for row in csv.DictReader(file)}


def predict(checkout: Path, out: Path, run: str, *arguments: str) -> dict:
    """Return what predict.py gives, by arguments and files."""
    words = [sys.executable, f"{checkout}/nfn_transformer/predict.py", "--run", run, *arguments, "--device", "cpu"]
    subprocess.run([*words, "--out", "predicted.csv"], cwd=out, check=True)
    return {"run": run, "arguments": arguments, "predictions": read_predictions(out / "predicted.csv")}


def make_zoo(checkout: Path, out: Path, name: str, flags: str) -> None:
    """Make a zoo of tiny transformers."""
    words = [sys.executable, f"{checkout}/nfn_transformer/make_zoo.py", "--out", name, "--half", "True", *flags.split()]
    subprocess.run([*words, "--device", "cpu"], cwd=out, check=True)


def write_keys(checkout: Path, out: Path) -> None:
    """Write grid.yaml, all rows of the tables and some more, and keys.json, the key of each of its cells."""
    from nfn_transformer.grids.cells import plan
    from nfn_transformer.grids.grid_file import read_grid
    from nfn_transformer.reproduce import COMMANDS

    rows = {}
    for table in sorted((checkout / "scripts/tables").glob("*.yaml")):
        if table.name != "models.yaml":
            for row in read_grid(table).rows:
                flags = {name: flag for name, flag in row.flags.items() if name not in ("dataset", "data_path")}
                flags.pop("ckpt_epoch", None)
                if (row.command, flags) not in rows.values():
                    rows[f"{table.stem}: {row.name}"] = (row.command, flags)
    more = {
        "kaiming, sgd": "main --init_type kaiming_normal --optimizer sgd --wd 0.01 --lr 0.1 --epochs 20",
        "compiled": "main --compile True --cuda_graphs True --enc_mode inv",
        "bfloat16, stopped early": "main --enc_mode mlp --amp True --early_stopping 5 --batch_size 4",
        "deeper graph": "main --enc_mode graph --graph_dim 8 --graph_layers 2 --cls_mode hnp",
        "complete and heads": "main --enc_mode complete --cls_mode mlp --emb_mode mlp --ensemble 3 --dropout 0.1",
        "dart": "xgb --model dart --features invariants",
        "gbdt": "gbm --model gbdt --features hyperparameters",
    }
    for name, words in more.items():
        command, *flags = words.split()
        rows[name] = (command, {flag[2:]: value for flag, value in zip(flags[::2], flags[1::2], strict=True)})
    columns = {
        "plain": {},
        "cut-off": {"cut_off": "0.09"},
        "enlarged": {"augment": "True", "augment_factor": "3"},
        "ten networks": {"train_networks": "10"},
        "of a condition": {"where": "n_layers=2", "n_heads": "2", "allow_faulty": "True"},
    }
    grid = {
        "title": "Every row of the tables on a recorded zoo",
        "rows": [{"name": name, "command": command, "flags": flags} for name, (command, flags) in rows.items()],
        "columns": [{"name": name, "flags": flags} for name, flags in columns.items()],
        "seeds": ["1"],
        "flags": {"dataset": "digits", "data_path": "zoo"},
    }
    (out / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False, width=120))
    cells, impossible = plan(read_grid(out / "grid.yaml"), COMMANDS, out / "cells", "cpu", str(out / "zoo"))
    assert not impossible
    keys = {f"{cell.row} | {cell.column}": Path(cell.task.directory).name for cell in cells}
    (out / "keys.json").write_text(json.dumps(keys, indent=0) + "\n")


def pack(out: Path) -> None:
    """Pack zoos and runs, without figures, caches and times of files."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return None if entry.name.endswith((".png", ".zoo_cache")) else entry

    with tarfile.open(out / "recorded.tar.xz", "w:xz", preset=9) as archive:
        for name in ("zoo", "shapes", "finished", "interrupted"):
            archive.add(out / name, name, filter=kept)


def main(checkout: Path, out: Path) -> None:
    """Record everything in a new folder."""
    out.mkdir(parents=True)
    make_zoo(checkout, out, "zoo", "--runs 32 --embed_dim 6 --hidden 5 --patch 4 --epochs 2")
    sizes = {"embed_dim": [4, 6], "n_attention_heads": [2], "n_layers": [1]}
    recipe = {"draw": "random", "runs": 16, "epochs": [2], **sizes}
    (out / "shapes.yaml").write_text(yaml.safe_dump(recipe))
    make_zoo(checkout, out, "shapes", "--dataset shapes --patch 4 --recipe shapes.yaml")
    resumed = {}
    for name, command in COMMANDS.items():
        if name not in KILLS:
            run(checkout, out, command, name)
        else:
            kill(out, command, *KILLS[name], name)
            resumed |= resume(checkout, out, [name])
    # The third state is the first seed's second: a kill between two runs of one epoch.
    kill(out, TWO_SEEDS, "write_state", 3, "interrupted/two_seeds")
    resumed |= resume(checkout, out, [f"interrupted/two_seeds/seed{seed}" for seed in (1, 2)])
    predicted = [predict(checkout, out, name, "--split", "test") for name in COMMANDS]
    for name in ("interrupted/inv", "interrupted/complete", "finished/xgb"):
        predicted.append(predict(checkout, out, name, "zoo/digits"))
    (out / "resumed.json").write_text(json.dumps(resumed, indent=0) + "\n")
    (out / "predicted.json").write_text(json.dumps(predicted, indent=0) + "\n")
    write_keys(checkout, out)
    pack(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
