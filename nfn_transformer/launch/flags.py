"""The flags of commands that start others: how many at once, by which launcher, and where each of them runs."""

import argparse
import os

import torch

from nfn_transformer.cli.arguments import positive_int
from nfn_transformer.errors import UserError
from nfn_transformer.launch.launchers import LAUNCHERS


def add_launcher_flags(parser: argparse._ActionsContainer, what: str, most: str) -> None:
    """Declare `--jobs`, `--launcher` and `--slurm`; `what` says in the plural what is started, `most` how many of
    them a cluster starts by default."""
    parser.add_argument(
        "--jobs",
        type=positive_int,
        help=f"{what} at once: on this machine 1 by default, on its GPUs in turn; with --launcher slurm {most} "
        "by default",
    )
    parser.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="processes",
        help="processes of this machine, or jobs of submitit, on this machine (local) or in a cluster (slurm)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        metavar="NAME=VALUE",
        help="a parameter of the jobs as submitit names it, once for each: --slurm timeout_min=600 --slurm "
        "cpus_per_task=4 --slurm gpus_per_node=1 --slurm slurm_partition=NAME (timeout_min: 24 hours "
        "unless given)",
    )


def environments(jobs: int, device: str) -> list[dict[str, str]]:
    """What each of the processes that run at once on this machine adds to its environment: a GPU, and its cores."""
    threads = {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        # Threads of several processes on one core wait for each other, which can take many times longer.
        threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
    if device == "cpu" or not torch.cuda.is_available():
        return [threads] * jobs
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    if device not in ("auto", "cuda"):  # one GPU by its number, which counts those that are visible
        return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}] * jobs
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(jobs)]


def launcher_parameters(flags: argparse.Namespace) -> dict[str, str]:
    """What `--slurm NAME=VALUE` says.

    Raises:
        UserError: a word is no such pair, or the launcher has no parameters.
    """
    words, parameters = flags.slurm or [], {}
    if words and flags.launcher == "processes":
        raise UserError(f"--slurm {words[0]}: needs --launcher slurm (or local)")
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UserError(f"--slurm {word}: expected NAME=VALUE, as in timeout_min=600")
        parameters[name] = value
    return parameters
