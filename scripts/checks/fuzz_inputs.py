"""Fuzzing of all files that the project reads: whatever ends otherwise than by success or a short message is a failure.

Each case changes one sound file by its seed, and reads it in a child process with limits of time and memory. The child
is forked, so that PyTorch is imported once. A case may end with status 0, or with status 2 and a bounded message.

    python scripts/checks/fuzz_inputs.py --minutes 30
    python scripts/checks/fuzz_inputs.py --case tree 1234     # one case again
"""

import argparse
import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from safetensors.torch import save_file

from nfn_transformer import Columns, UserError, inspect_checkpoint, predict, read_zoo, runs
from nfn_transformer import main as training
from nfn_transformer.cli.command_line import run_command
from nfn_transformer.generation.idx_files import read_idx
from nfn_transformer.generation.npz_files import read_npz
from nfn_transformer.generation.ranges import Choice
from nfn_transformer.generation.recipe import read_recipe
from nfn_transformer.generation.standard_recipe import StandardRecipe, read_standard_recipe
from nfn_transformer.generation.texts import read_texts
from nfn_transformer.grids.grid_file import read_grid
from nfn_transformer.training.report import read_summary
from nfn_transformer.training.run_directory import RunDirectory
from nfn_transformer.trees.blend import Blend
from nfn_transformer.trees.extra_trees import ExtraTrees
from nfn_transformer.trees.fitting import TreeModel
from nfn_transformer.trees.lightgbm_trees import LightGBMTrees
from nfn_transformer.trees.xgboost_trees import XGBoostTrees
from nfn_transformer.zoo import sources
from nfn_transformer.zoo.published_split import checksum_of, read_published_split
from nfn_transformer.zoo.user_zoo import read_few

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_SECONDS = 20
MOST_MEMORY = 2 * 2**30
MOST_LINES, MOST_CHARACTERS = 31, 4100
NETWORKS = 40

ODD_WORDS = (
    "", "-1", "0", "1", "2", "7", "0.5", "1e999", "-1e-400", "nan", "Infinity", "null", "true", "9" * 25, "9" * 5000,
    "2147483648", "18446744073709551616", "[" * 3000, "{" * 100, "]", "}", ",", ":", "\n", "\t", "\"", "'", "&a [*a]",
    "*a", "!!python/name:os.system", "- ", "\x1b]0;x\x07", "\u202e", "\ud800", "x" * 100_000, "../..", "/dev/zero",
    "__class__", "encoder.0.fc1.weight", "=", "best", "all", "adam", "{}", "[]", "\0",
)  # fmt: skip
ODD_VALUES = (None, True, -1, 0, 1, 2**31, 2**63, 10**19, 0.5, 1e308, "", "x", "\x1b[2J", [], {}, [[]], {"a": 1})
OPCODES = b"\x80(N\x88\x89JKM\x8aGXU)\x85\x86\x87t]ae}suhjqrcRbQ.0IVp"


class Sound:
    """Sound files of every kind, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        torch.set_num_threads(1)
        with zipfile.ZipFile(REPOSITORY / "data/digits_transformers.zip") as archive:
            table = archive.read("digits_transformers/metadata/digits.csv").decode().splitlines()[: NETWORKS + 1]
            column = table[0].split(",").index("ckpt_file")
            (folder / "zoo/metadata").mkdir(parents=True)
            (folder / "zoo/digits").mkdir()
            (folder / "zoo/metadata/digits.csv").write_text("\n".join(table) + "\n")
            for line in table[1:]:
                name = line.split(",")[column]
                (folder / "zoo" / name).write_bytes(archive.read(f"digits_transformers/{name}"))
        self.checkpoint = next(iter(sorted((folder / "zoo/digits").iterdir())))
        self.run = folder / "run"
        flags = ["--dataset", "digits", "--data_path", str(folder / "zoo"), "--enc_mode", "no", "--epochs", "1"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            training.main([*flags, "--device", "cpu", "--out_dir", str(self.run)])
        state = {"model": {"x": torch.zeros(2)}, "best": {}, "optimizer": {"state": {}}, "history": [{"epoch": 1}]}
        torch.save(state, folder / "state.pt")
        self.state = torch.load(self.checkpoint, weights_only=True)
        self.trees = _trees()
        images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
        names = ("train_images", "train_labels", "test_images", "test_labels")
        np.savez_compressed(folder / "images.npz", **dict(zip(names, (images, labels) * 2, strict=True)))
        write_public_zoos(folder / "public")
        write_standard_zoo(folder / "standard")
        (folder / "images.idx").write_bytes(struct.pack(">IIII", 0x803, 2, 2, 2) + bytes(8))


def _trees() -> dict[Callable[[bytes], TreeModel], bytes]:
    """Return the parser of each tree library, and a sound file."""
    import lightgbm
    import xgboost
    from safetensors.numpy import save
    from sklearn.ensemble import ExtraTreesRegressor

    from nfn_transformer.trees.extra_trees import _arrays
    from nfn_transformer.trees.gaussian_process import fit_process, fit_scales, scaled

    draw = np.random.default_rng(1)
    inputs, labels = draw.random((60, 5), np.float32), draw.random(60, np.float32)
    options = {"objective": "reg:squarederror", "booster": "dart", "max_depth": 3, "nthread": 1}
    boosted = xgboost.train(options, xgboost.QuantileDMatrix(inputs, labels, nthread=1), 3)
    options = {"objective": "regression", "num_leaves": 4, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    light = lightgbm.train(options, lightgbm.Dataset(inputs, labels), 3)
    forest = save(_arrays(ExtraTreesRegressor(3, max_depth=3, random_state=1).fit(inputs, labels).estimators_))
    scales = fit_scales(inputs)
    process = fit_process(scaled(inputs[:9], scales), labels[:9], seed=1)
    parts = {"scales": scales, "scaled": process, "ranked": process}
    arrays = {f"{part}.{name}": array for part, own in parts.items() for name, array in own.items()}
    arrays |= {"forest": np.frombuffer(forest, np.uint8), "of_logits": np.ones(1, np.uint8)}
    return {
        XGBoostTrees: bytes(boosted.save_raw("json")),
        LightGBMTrees: light.model_to_string().encode(),
        ExtraTrees: forest,
        Blend.parse: save(arrays),
    }


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return bytes after a few flips, cuts, copies and insertions."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        if not content:
            break
        start = draw.randrange(len(content))
        # Headers and directories are at the ends.
        start = draw.choice((start, start % 200, max(0, len(content) - 1 - start % 400)))
        length = draw.choice((1, 4, 8, draw.randrange(1, 300)))
        kind = draw.randrange(7)
        if kind < 3:
            content[start % len(content)] ^= 1 << draw.randrange(8)
        elif kind == 3:
            del content[start : len(content) if draw.random() < 0.3 else start + length]
        elif kind == 4:
            content[start:start] = content[start : start + length]
        elif kind == 5:
            content[start : start + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        else:
            content[start:start] = draw.choice(ODD_WORDS).encode("utf-8", "surrogatepass")[:1000]
    return bytes(content)


def changed_text(text: str, draw: random.Random) -> str:
    """Return a text with some of its words and lines replaced, removed or repeated."""
    parts = re.split(r"([\s,:;=\[\]{}\"]+)", text)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(parts))
        kind = draw.randrange(4)
        if kind < 2:
            parts[place] = draw.choice(ODD_WORDS)
        elif kind == 2:
            del parts[place : place + draw.choice((1, 2, 20))]
            parts = parts or [""]
        else:
            end = place + draw.choice((1, 2, 20))
            parts[place:place] = parts[place:end] * draw.choice((1, 2, 100))
    return "".join(parts)


def changed_json(text: str, draw: random.Random) -> str:
    """Return a JSON text with some values replaced, removed or added."""
    value = json.loads(text)
    for _ in range(draw.choice((1, 1, 2, 4))):
        inner = value
        while isinstance(inner, dict | list) and inner:
            key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
            if draw.random() < 0.3 or not isinstance(inner[key], dict | list) or not inner[key]:
                kind = draw.randrange(4)
                if kind < 2:
                    inner[key] = copy.deepcopy(draw.choice(ODD_VALUES))
                elif kind == 2:
                    del inner[key]
                elif isinstance(inner, list):
                    inner[key:key] = copy.deepcopy(inner[key : key + 1]) * draw.choice((1, 50))
                else:
                    inner[draw.choice(ODD_WORDS)[:50]] = copy.deepcopy(inner[key])
                break
            inner = inner[key]
    return json.dumps(value)


def changed(content: bytes, draw: random.Random) -> bytes:
    """Return the content of a JSON or text file, changed by its structure or its bytes."""
    text = content.decode()
    way = draw.randrange(3)
    if way == 0 and text.startswith(("{", "[")) and "\n{" not in text:
        return changed_json(text, draw).encode("utf-8", "surrogatepass")
    return changed_bytes(content, draw) if way == 1 else changed_text(text, draw).encode("utf-8", "surrogatepass")


def changed_archive(content: bytes, draw: random.Random) -> bytes:
    """Return a file of `torch.save` whose pickle is changed, with sound checksums."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            part = old.read(member)
            if member.filename.endswith("data.pkl"):
                part = changed_pickle(part, draw)
            elif draw.random() < 0.05:
                continue
            with warnings.catch_warnings(action="ignore"):  # of a name that stands there already
                new.writestr(member.filename if draw.random() > 0.01 else "a/b", part)
    return result.getvalue()


def changed_pickle(pickle: bytes, draw: random.Random) -> bytes:
    """Return a pickle with opcodes replaced or inserted, or one of random opcodes."""
    if draw.random() < 0.2:
        body = bytes(draw.choice(OPCODES) for _ in range(draw.randrange(60)))
        return b"\x80\x02" + body + b"."
    pickle = bytearray(pickle)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(2, len(pickle))
        if draw.random() < 0.5:
            pickle[place] = draw.choice(OPCODES) if draw.random() < 0.5 else draw.randrange(256)
        else:
            pickle[place:place] = bytes(draw.choice(OPCODES) for _ in range(draw.choice((1, 2, 5))))
    return bytes(pickle)


def checkpoint_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Predict the accuracy of a changed checkpoint: bytes, opcodes, safetensors, a zip of checkpoints."""
    kind, content = draw.randrange(4), sound.checkpoint.read_bytes()
    path = folder / f"network_{draw.randrange(9)}.pt"
    if kind == 0:
        path.write_bytes(changed_bytes(content, draw))
    elif kind == 1:
        path.write_bytes(changed_archive(content, draw))
    elif kind == 2:
        path = path.with_suffix(".safetensors")
        path.write_bytes(changed_bytes(save_safetensors(sound.state), draw))
    else:
        old = io.BytesIO()
        torch.save(sound.state, old, _use_new_zipfile_serialization=False)
        path.write_bytes(changed_bytes(old.getvalue(), draw))
    predict.main(["--run", str(sound.run), "--device", "cpu", str(path)])


def zoo_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Read a zoo with a changed table, checkpoint, archive or cache."""
    zoo = folder / "zoo"
    shutil.copytree(sound.folder / "zoo", zoo, ignore=shutil.ignore_patterns("*.pt"))
    for file in (sound.folder / "zoo/digits").iterdir():
        os.link(file, zoo / "digits" / file.name)
    table = zoo / "metadata/digits.csv"
    kind = draw.randrange(4)
    if kind < 2:
        table.write_bytes(changed(table.read_bytes(), draw))
    elif kind == 2:
        caches = sorted((zoo / ".zoo_cache").iterdir())
        for cache in caches:
            cache.write_bytes(changed_bytes(cache.read_bytes(), draw))
    else:
        packed = shutil.make_archive(str(folder / "packed"), "zip", zoo)
        zoo = Path(packed)
        zoo.write_bytes(changed_bytes(zoo.read_bytes(), draw))
    read_zoo(zoo, "digits", allow_faulty=draw.random() < 0.5, progress=False)


def run_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Use a run with a changed file: configuration, split, results, weights, state."""
    run = folder / "run"
    shutil.copytree(sound.run, run)
    shutil.copy(sound.folder / "state.pt", run / "state.pt")
    name = draw.choice(("config.json", "split.json", "results.json", "best.safetensors", "state.pt"))
    content = (run / name).read_bytes()
    if name == "state.pt":
        (run / name).write_bytes(draw.choice((changed_bytes, changed_archive))(content, draw))
        RunDirectory.open(run).read_state()
        return
    if name == "best.safetensors":
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        inner = json.loads(header["__metadata__"]["predictor"])
        inner.pop("checksum", None)
        header["__metadata__"]["predictor"] = changed_json(json.dumps(inner), draw)
        text = json.dumps(header).encode()
        whole = len(text).to_bytes(8, "little") + text + content[8 + length :]
        (run / name).write_bytes(whole if draw.random() < 0.7 else changed_bytes(content, draw))
    else:
        (run / name).write_bytes(changed(content, draw))
    if name.endswith(".json") and draw.random() < 0.4:
        runs.main([str(folder)])
    elif name == "results.json":
        print("\n".join(read_summary(RunDirectory.open(run))))
    elif name == "split.json":
        place = ["--dataset", "digits", "--data_path", str(sound.folder / "zoo"), "--split", "test"]
        predict.main(["--run", str(run), "--device", "cpu", *place])
    else:
        predict.main(["--run", str(run), "--device", "cpu", str(sound.checkpoint)])


def tree_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Predict by a changed file of trees."""
    kind = draw.choice(list(sound.trees))
    content = sound.trees[kind]
    content = changed_bytes(content, draw) if kind in (ExtraTrees, Blend.parse) else changed(content, draw)
    try:
        kind(content).predict(np.random.default_rng(2).random((7, 5), np.float32))
    except ValueError as error:  # as `load_trained` does
        raise UserError(str(error)) from None


def settings_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Read a changed grid or recipe."""
    kind = draw.choice(("tables", "zoos"))
    source = draw.choice(sorted((REPOSITORY / f"scripts/{kind}").glob("*.yaml")))
    shutil.copy(REPOSITORY / "scripts/tables/models.yaml", folder / "models.yaml")
    path = folder / source.name
    path.write_bytes(changed(source.read_bytes(), draw))
    if kind == "tables":
        read_grid(path)
        return
    if source.name == "simple_vits.yaml":
        replace(read_standard_recipe(path, StandardRecipe(9, *[Choice((8,))] * 4)), runs=9).draw(1)
        return
    sizes = {"epochs": (1,), "embed_dim": (16,), "n_attention_heads": (2,), "n_layers": (1,)}
    recipe = read_recipe(path, {"runs": 1, "hidden": 8, **sizes})
    if recipe.runs < 1000:
        recipe.draw(1)


def task_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Read changed images or texts."""
    kind = draw.choice(("images.npz", "images.idx", "texts"))
    if kind == "texts":
        text = b'Class Index,Title,Description\n"1","a b","c d"\n"2","e","f"\n' * draw.choice((1, 20))
        for name in ("train.csv", "test.csv"):
            (folder / name).write_bytes(changed(text, draw) if name == "train.csv" or draw.random() < 0.5 else text)
        read_texts(folder)
        return
    path = folder / kind
    path.write_bytes(changed_bytes((sound.folder / kind).read_bytes(), draw))
    if kind == "images.npz":
        read_npz(path)
    else:
        read_idx(path, 3)


def write_public_zoos(folder: Path) -> None:
    """Write small zoos in the formats of others, and a split of each."""
    layers = {"conv2d": (3, 3, 1, 2), "dense": (8, 3)}
    lines, width = ["varname,start_idx,end_idx,shape"], 0
    for layer, shape in layers.items():
        for name, size in (("bias:0", shape[-1:]), ("kernel:0", shape)):
            end = width + int(np.prod(size))
            lines.append(f'sequential/{layer}/{name},{width},{end},"{size}"')
            width = end
    arrays = folder / "arrays"
    arrays.mkdir(parents=True)
    np.save(arrays / "weights.npy", np.random.default_rng(1).random((30, width), np.float32))
    (arrays / "layout.csv").write_text("\n".join(lines))
    rows = [f"{row % 3},{row / 30},{('relu', 'tanh')[row % 2]},2,valid" for row in range(30)]
    header = "step,test_accuracy,config.activation,config.stride,config.padding"
    (arrays / "metrics.csv").write_text("\n".join([header, *rows]))
    (arrays / "split").write_text("\n".join(map(str, [0, *range(30)])))
    state = {"seq.0.weight": torch.ones(4, 2), "seq.0.bias": torch.ones(4), "seq.1.weight": torch.ones(1, 4)}
    state["seq.1.bias"] = torch.ones(1)
    config = {"stride": [1], "padding": [0], "residual": [-1], "activation": "relu", "n_layers": 1}
    cnn = {"layers.0.weight": torch.ones(4, 3, 3, 3), "layers.0.bias": torch.ones(4)}
    cnn |= {"fc.weight": torch.ones(2, 4), "fc.bias": torch.ones(2)}
    paths: dict[str, list[str]] = {"inrs": [], "park": [], "models": []}
    for run in range(12):
        park = {"model": cnn, "config": config, "iteration": 3, "last_result": {"test/acc": run / 12}}
        files = {
            "inrs": (f"mnist_png_training_{run % 2}_{run}/checkpoints/model_final.pth", state),
            "park": (f"run{run}/checkpoint_000003/checkpoint.pt", park),
            "models": (f"run{run}/checkpoint_000003/checkpoints", state),
        }
        for zoo, (path, content) in files.items():
            (folder / zoo / path).parent.mkdir(parents=True)
            torch.save(content, folder / zoo / path)
            paths[zoo].append(path)
        (folder / f"models/run{run}/params.json").write_text('{"model::nlin": "tanh", "optim::lr": 0.1}')
        (folder / f"models/run{run}/result.json").write_text('{"training_iteration": 3, "test_acc": 0.5}\n' * 2)
    for zoo, each in paths.items():
        split = {"train": {"path": each[:6]}, "val": {"path": each[6:9]}, "test": {"path": each[9:]}}
        (folder / zoo / "split").write_text(json.dumps(split))


def public_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Read a public zoo with a changed file or split, from a folder, a zip or an archive."""
    zoo, name = folder / "zoo", draw.choice(("arrays", "inrs", "park", "models"))
    shutil.copytree(sound.folder / "public" / name, zoo, ignore=shutil.ignore_patterns(".zoo_cache"))
    files = sorted(file for file in zoo.rglob("*") if file.is_file())
    tables = [file for file in files if not zipfile.is_zipfile(file)]
    file = draw.choice(tables if tables and draw.random() < 0.5 else files)
    content, path = file.read_bytes(), zoo
    kind = draw.randrange(8)
    if kind == 0:
        path = Path(shutil.make_archive(str(folder / "packed"), draw.choice(("zip", "xztar", "tar")), zoo))
        path.write_bytes(changed_bytes(path.read_bytes(), draw))
    elif zipfile.is_zipfile(file):
        file.write_bytes((changed_archive if kind < 5 else changed_bytes)(content, draw))
    elif file.suffix == ".npy":
        start = 130 if kind < 5 else len(content)  # of the header, or of all
        file.write_bytes(changed_bytes(content[:start], draw) + content[start:])
    else:
        file.write_bytes(changed(content, draw))
    labels = draw.choice(("accuracy", "class", "number"))
    read = read_zoo(path, "mnist", draw.choice(("75", "all", "best")), None, True, labels=labels, progress=False)
    if (path / "split").is_file():
        read_published_split(path / "split", checksum_of(path / "split"), read.names)


def write_standard_zoo(folder: Path) -> None:
    """Write small transformers of three libraries, one as shares with an index, their configurations and a table."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).state_dict()
    own = {"embed.weight": torch.randn(8, 3), "embed.bias": torch.randn(8), **encoder, "head.weight": torch.ones(2, 8)}
    block, square = "model.layers.0.", torch.randn(8, 8)
    llama = {f"{block}self_attn.{name}_proj.weight": square.clone() for name in "qkvo"}
    llama |= {f"{block}mlp.{name}_proj.weight": torch.randn(12, 8) for name in ("gate", "up")}
    llama |= {f"{block}mlp.down_proj.weight": torch.randn(8, 12), "model.embed_tokens.weight": torch.randn(9, 8)}
    norms = (f"{block}input_layernorm", f"{block}post_attention_layernorm", "model.norm")
    llama |= {f"{norm}.weight": torch.ones(8) for norm in norms} | {"lm_head.weight": torch.randn(9, 8)}
    nano = {"transformer.wte.weight": torch.randn(9, 8), "transformer.wpe.weight": torch.randn(5, 8)}
    sizes = {"attn.c_attn": (24, 8), "attn.c_proj": (8, 8), "mlp.c_fc": (12, 8), "mlp.c_proj": (8, 12), "ln_1": (8,)}
    nano |= {f"transformer.h.0.{name}.weight": torch.randn(size) for name, size in {**sizes, "ln_2": (8,)}.items()}
    nano["transformer.ln_f.weight"] = torch.ones(8)
    config = {"num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6}
    configs = {"own": {"nhead": 2, "norm_first": False}, "llama": {"model_type": "llama", **config}}
    configs["shares"] = {**configs["llama"], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    for name, values in {**configs, "nano": {"n_head": 2, "block_size": 5}}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(values))
    torch.save({"epoch": 1, "state_dict": own}, folder / "own/model.pt")
    torch.save({"model": nano, "model_args": {"n_head": 2}, "iter_num": 3}, folder / "nano/ckpt.pt")
    save_file(llama, folder / "llama/model.safetensors")
    shares = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(llama)}
    for share in set(shares.values()):
        save_file({key: llama[key] for key in llama if shares[key] == share}, folder / "shares" / share)
    (folder / "shares/model.safetensors.index.json").write_text(json.dumps({"weight_map": shares}))
    rows = ["file,accuracy,heads", "own/model.pt,0.5,2", "nano,0.75,", "llama,0.25,2", "shares,0.3,2"]
    (folder / "scores.csv").write_text("\n".join(rows))


def standard_case(sound: Sound, folder: Path, draw: random.Random) -> None:
    """Read, describe or calibrate to transformers of libraries with a changed file, as small or as large files."""
    zoo = folder / "zoo"
    shutil.copytree(sound.folder / "standard", zoo, ignore=shutil.ignore_patterns(".zoo_cache"))
    file = draw.choice([*sorted(zoo.glob("*/*")), zoo / "scores.csv"])
    content, kind = file.read_bytes(), draw.randrange(4)
    if zipfile.is_zipfile(file):
        file.write_bytes((changed_archive if kind < 3 else changed_bytes)(content, draw))
    elif file.suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header = changed_json(content[8 : 8 + length].decode(), draw).encode()
        whole = len(header).to_bytes(8, "little") + header + content[8 + length :]
        file.write_bytes(whole if kind < 3 else changed_bytes(content, draw))
    else:
        file.write_bytes(changed(content, draw))
    if draw.random() < 0.5:
        sources.MAX_FILE_BYTES = 1500
    way = draw.randrange(3)
    if way == 0 and file.parent != zoo:
        inspect_checkpoint.main([str(file.parent), *draw.choice(([], ["--n_heads", "2"]))])
    elif way == 1:
        read_few(zoo / "scores.csv", ["own/model.pt", "nano/ckpt.pt"], Columns(), "accuracy", zoo)
    else:
        labels = draw.choice(("accuracy", "class", "number"))
        read_zoo(zoo, "zoo", "all", None, True, labels=labels, table=zoo / "scores.csv", progress=False)


CASES: dict[str, Callable[[Sound, Path, random.Random], None]] = {
    "checkpoint": checkpoint_case,
    "zoo": zoo_case,
    "run": run_case,
    "tree": tree_case,
    "settings": settings_case,
    "task": task_case,
    "public": public_case,
    "standard": standard_case,
}


def failure(sound: Sound, kind: str, seed: int) -> str | None:
    """Return how a case ends wrongly; None where it ends rightly."""
    with tempfile.TemporaryDirectory(dir=sound.folder) as name:
        output = Path(name) / "output"
        with warnings.catch_warnings(action="ignore"):  # of threads, which take no lock here
            child = os.fork()
        if child == 0:
            _child(sound, kind, seed, Path(name), output)
        _, status = os.waitpid(child, 0)
        text = output.read_text(errors="backslashreplace")
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM or code == -signal.SIGXCPU:
        return f"takes more than {MOST_SECONDS} s"
    if code not in (0, 2):
        return f"ends with status {code}: {text[-1500:]}"
    if text.count("\n") > MOST_LINES or len(text) > MOST_CHARACTERS:
        return f"prints {len(text)} characters in {text.count(chr(10))} lines: {text[:500]!r}"
    if not text.replace("\n", "").isprintable():
        return f"prints control characters: {text[:500]!r}"
    return None


def _child(sound: Sound, kind: str, seed: int, folder: Path, output: Path) -> None:
    """Run a case in this process, and end it."""
    status = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = os.fdopen(file, "w", buffering=1, errors="backslashreplace")
        with open("/proc/self/statm") as numbers:
            used = int(numbers.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY,) * 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(MOST_SECONDS)
        work = folder / "work"
        work.mkdir()
        try:
            run_command(lambda arguments: CASES[kind](sound, work, random.Random(seed)) or 0, [])
        except SystemExit as end:
            status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="time to try cases (default %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first case (default: the time)")
    parser.add_argument("--kinds", default=",".join(CASES), help="kinds of files (default %(default)s)")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "SEED"), help="run one case again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz_inputs_") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        sound = Sound(Path(folder))
        if options.case:
            kind, seed = options.case
            print(failure(sound, kind, int(seed)) or "ends rightly")
            return 0
        end, seed, counts, failures = time.monotonic() + 60 * options.minutes, options.seed, Counter(), 0
        kinds = options.kinds.split(",")
        while time.monotonic() < end:
            kind, seed = kinds[seed % len(kinds)], seed + 1
            problem = failure(sound, kind, seed)
            counts[kind] += 1
            if problem:
                failures += 1
                print(f"--case {kind} {seed}: {problem}", flush=True)
    print(f"{sum(counts.values())} cases, {failures} failures; {dict(counts)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
