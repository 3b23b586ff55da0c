"""Flags of commands that start jobs: how many at once, by which launcher, and on which GPU each of them runs."""

import argparse
import os
from pathlib import Path

from nfn_transformer.cli.command_line import positive_int
from nfn_transformer.errors import UserError
from nfn_transformer.launch.launchers import Launcher, ProcessLauncher
from nfn_transformer.launch.submitit_launcher import SubmititLauncher
from nfn_transformer.resources import limit_threads

_MOST_SLURM_JOBS = 10_000


def add_launcher_flags(parser: argparse._ActionsContainer, jobs: str, slurm_default: str) -> None:
    """Declare `--jobs`, `--launcher` and `--slurm`.

    Args:
        parser: that gets the flags.
        jobs: what is started, in the plural.
        slurm_default: how many of them a cluster starts by default.
    """
    parser.add_argument(
        "--jobs",
        type=positive_int,
        help=f"{jobs} at once: on this machine 1 by default, on its GPUs in turn; with --launcher slurm "
        f"{slurm_default} by default",
    )
    parser.add_argument(
        "--launcher",
        choices=("processes", "local", "slurm"),
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


def launcher_parameters(flags: argparse.Namespace) -> dict[str, str]:
    """Return the parameters of `--slurm NAME=VALUE`.

    Raises:
        UserError: a parameter is no such pair, or the launcher takes no parameters.
    """
    pairs, parameters = flags.slurm or [], {}
    if pairs and flags.launcher == "processes":
        raise UserError(f"--slurm {pairs[0]}: requires --launcher slurm or local")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UserError(f"--slurm {pair}: expected NAME=VALUE, as in timeout_min=600")
        parameters[name] = value
    return parameters


def build_launcher(flags: argparse.Namespace, folder: Path) -> Launcher:
    """Return the launcher that the flags ask for.

    Args:
        flags: jobs (None: one, in a cluster no bound), launcher, slurm and device.
        folder: for submitit's files.

    Raises:
        UserError: submitit or SLURM is missing, or refuses a parameter.
    """
    slots = environments(flags.jobs or 1, flags.device)
    if flags.launcher == "processes":
        return ProcessLauncher(slots)
    jobs = flags.jobs or (1 if flags.launcher == "local" else _MOST_SLURM_JOBS)
    return SubmititLauncher(flags.launcher, jobs, slots, folder, launcher_parameters(flags))


def environments(jobs: int, device: str) -> list[dict[str, str]]:
    """Return additions to the environment of each of `jobs` processes on this machine: its GPU and its threads."""
    import torch  # which takes a second: flags are parsed and checked before

    threads = {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        # Threads of several processes on one core wait for each other, which can take many times longer.
        threads = {"OMP_NUM_THREADS": str(max(1, limit_threads() // jobs))}
    if device == "cpu" or not torch.cuda.is_available():
        return [threads] * jobs
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    if device not in ("auto", "cuda"):  # cuda:N counts the GPUs that are visible
        return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}] * jobs
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(jobs)]
