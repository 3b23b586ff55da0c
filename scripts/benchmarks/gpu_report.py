"""Run all checks and measurements that a GPU is needed for, most important first, each with a time limit of its own.

A part that fails or runs too long stops none of the others. Each result is written as soon as its part ends: a line
of OUT/report.jsonl, and the page OUT/report.md. Run it by scripts/gpu_report.sh.

    bash scripts/gpu_report.sh [OUT] [--device cuda|cpu] [--quick] [--limit 460] [--only NAME ...]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS, CHECKS = "scripts/benchmarks", "scripts/checks"


@dataclass(frozen=True)
class Part:
    """A script that is run: its flags on a GPU, small ones for --quick, and its limit in seconds."""

    name: str
    title: str
    script: str
    flags: str
    quick: str
    limit: float


PARTS = (
    Part("machine", "The machine", f"{BENCHMARKS}/gpu_machine.py", "", "", 30),
    Part("equality", "Equality with the CPU", f"{CHECKS}/gpu_equality.py", "--epochs 2 --limit 80", "--epochs 1", 110),
    Part(
        "speed",
        "Training against the published way",
        f"{BENCHMARKS}/training_speed.py",
        "--rounds 3 --seconds 0.3 --networks 1463 --variants graphs",
        "--rounds 1 --seconds 0 --networks 40 --batch_sizes 8 --workers 1",
        100,
    ),
    Part(
        "seeds",
        "Several seeds at once",
        f"{BENCHMARKS}/seeds_at_once.py",
        "--seeds 1 5 --batch_sizes 16 128 --rounds 2 --cuda_graphs True",
        "--seeds 2 --networks 40 --batch_sizes 8 --rounds 1 --epochs 2",
        75,
    ),
    Part(
        "zoos",
        "Making zoos",
        f"{BENCHMARKS}/populations.py",
        "--rounds 2 --sizes 64 512 4096 --alone 2",
        "--sizes 2 --alone 1 --rounds 1 --samples 64 --epochs 1",
        70,
    ),
    Part(
        "memory",
        "Memory of a training step",
        f"{BENCHMARKS}/training_memory.py",
        "--batch_sizes 16 128 1024",
        "--batch_sizes 8",
        40,
    ),
    Part(
        "profile",
        "Profile of a training step",
        f"{BENCHMARKS}/profile_step.py",
        "--seeds 1 5 --batch_sizes 16 128",
        "--seeds 1 2 --batch_sizes 8",
        40,
    ),
    Part(
        "complete",
        "The complete encoder",
        f"{BENCHMARKS}/ensembles_and_reading.py",
        "--members 1 5 --widths 32 128 --networks 512",
        "--members 1 2 --widths 8 --networks 4 --rounds 1 --seconds 0",
        50,
    ),
    Part(
        "compiled",
        "Training, compiled",
        f"{BENCHMARKS}/training_speed.py",
        "--rounds 2 --seconds 0.2 --networks 731 --batch_sizes 16 --variants compiled compiled_graphs",
        "--rounds 1 --seconds 0 --networks 40 --batch_sizes 8 --workers 1",
        140,
    ),
    Part(
        "encoders",
        "Encoders and heads",
        f"{BENCHMARKS}/encoders_and_heads.py",
        "--rounds 1 --widths 32 128 --networks 600 --seconds 0.1",
        "--rounds 1 --widths 4 --networks 20 --seconds 0",
        90,
    ),
    Part(
        "seeds_plain",
        "Several seeds at once, without CUDA graphs",
        f"{BENCHMARKS}/seeds_at_once.py",
        "--seeds 1 5 --batch_sizes 16 --rounds 2 --networks 731 --cuda_graphs False",
        "--seeds 1 2 --networks 40 --batch_sizes 8 --rounds 1 --epochs 2",
        60,
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Run the parts and write the report; return 1 where one failed."""
    flags = _parser().parse_args(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    lines = flags.out / "report.jsonl"
    lines.unlink(missing_ok=True)
    # A busy CPU may take many times as long, where only whether everything runs is asked.
    patience = 8 if flags.quick else 1
    start, results = time.monotonic(), []
    for part in PARTS:
        if flags.only and part.name not in flags.only:
            continue
        left = patience * flags.limit - (time.monotonic() - start)
        result = (
            _run(part, flags, min(left, patience * part.limit))
            if left > 10
            else _result(part, "left out: no time", "", "")
        )
        results.append(result)
        with lines.open("a") as file:
            file.write(json.dumps(result) + "\n")
        (flags.out / "report.md").write_text(_page(results))
        print(f"{part.name}: {result['status']}, {result.get('seconds', 0):.0f} s", flush=True)
    print((flags.out / "report.md").read_text())
    return int(any(result["status"] != "done" for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_report"), help="folder of the report")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether everything runs")
    parser.add_argument(
        "--limit",
        type=float,
        default=460,
        help="seconds of the whole (default: %(default)s; with --quick eight times as many)",
    )
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="only these parts")
    return parser


def _run(part: Part, flags: argparse.Namespace, limit: float) -> dict:
    """Run a part in a process group of its own, which is ended at the limit, and return its result."""
    own = part.quick if flags.quick else part.flags
    figures = flags.out.resolve() / f"{part.name}.json"
    command = [sys.executable, part.script, "--device", flags.device, "--out", str(figures), *own.split()]
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        stdout, stderr = process.communicate(timeout=limit)
        status = "done" if process.returncode == 0 else f"failed with status {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        status = f"stopped after {limit:.0f} s"
    shown = f"python {part.script} --device {flags.device} {own}".strip()
    result = _result(part, status, shown, stdout) | {"seconds": time.monotonic() - start}
    if status != "done":
        result["stderr"] = stderr[-3000:]
    if figures.is_file():
        result["figures"] = json.loads(figures.read_text())
    return result


def _result(part: Part, status: str, command: str, stdout: str) -> dict:
    return {"part": part.name, "title": part.title, "status": status, "command": command, "stdout": stdout}


def _page(results: Sequence[dict]) -> str:
    """Return the report as Markdown."""
    parts = ["# Report of a machine", "", "Made by `bash scripts/gpu_report.sh`."]
    for result in results:
        parts += ["", f"## {result['title']}", "", f"`{result['command']}`: {result['status']}", ""]
        table = "\n| " in result["stdout"]
        parts.append(result["stdout"].strip() if table else f"```\n{result['stdout'].strip()}\n```")
        if result.get("stderr"):
            parts += ["", f"```\n{result['stderr'].strip()}\n```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
