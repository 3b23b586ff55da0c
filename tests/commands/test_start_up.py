"""Help and errors in flags come at once: neither PyTorch nor another library that takes long to import is needed."""

import json
import subprocess
import sys

LATE = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "jaxtyping", "safetensors", "xgboost", "lightgbm")

PROGRAM = """
import contextlib, io, json, sys
import nfn_transformer
from nfn_transformer import gbm, main, make_zoo, predict, reproduce, xgb
from nfn_transformer.errors import UserError

ends = []
for command, *words in (
    *((command, "--help") for command in (gbm, main, make_zoo, predict, reproduce, xgb)),
    *((command, "--no_such_flag") for command in (gbm, main, make_zoo, predict, reproduce, xgb)),
    (main, "--enc_mode", "mlp", "--init_type", "uniform"),
    (main, "--seed", "1", "--seeds", "1,2"),
    (main, "--dataset", "nowhere"),
    (xgb, "--where", "embed_dim"),
    (make_zoo, "--out", "zoo", "--snapshots", "0"),
    (make_zoo, "--out", "zoo", "--images", "nowhere"),
    (make_zoo, "--out", "zoo", "--family", "gpt", "--text", "nowhere.txt"),
    (make_zoo, "--out", "nowhere/zoo"),
    (predict, "--run", "run"),
    (reproduce, "no_such_grid.yaml"),
):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            ends.append(command.main(words))
        except SystemExit as end:
            ends.append(end.code)
        except UserError:
            ends.append(2)
print(json.dumps([ends, sorted(set(sys.modules) & set(sys.argv[1:]))]))
"""


def test_help_and_errors_in_flags_import_no_large_library(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *LATE], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )
    ends, imported = json.loads(run.stdout)
    assert ends == [0] * 6 + [2] * 16
    assert imported == []
