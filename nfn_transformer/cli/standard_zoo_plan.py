"""Plan of a zoo of standard transformers by checked flags of make_zoo.py."""

import argparse
from dataclasses import replace
from typing import Any

from nfn_transformer.bundled import RECIPES, find_bundled
from nfn_transformer.cli.command_line import find_device
from nfn_transformer.errors import UserError
from nfn_transformer.generation.ranges import Choice
from nfn_transformer.generation.standard_networks import KINDS
from nfn_transformer.generation.standard_recipe import StandardRecipe, read_standard_recipe
from nfn_transformer.generation.standard_tasks import StandardTask, standard_task
from nfn_transformer.generation.standard_zoo import ON_CPU, StandardZooPlan, most_on_gpu
from nfn_transformer.generation.training_plan import BEST, snapshot_names
from nfn_transformer.generation.work_folder import WorkFolder

_PATCHES = 4
"""Patches along a side of an image where --patch does not tell."""


def standard_plan(options: argparse.Namespace) -> StandardZooPlan:
    """Return the plan that flags describe.

    Raises:
        UserError: a flag does not fit the family, the task or the recipe.
    """
    task = standard_task(KINDS[options.family].task, options)
    if BEST in options.snapshots.split(","):
        raise UserError(f"--snapshots {options.snapshots}: expected whole numbers with --family {options.family}")
    chosen = options.population or WorkFolder(options.out).population_size()
    plan = StandardZooPlan(
        out=options.out,
        family=options.family,
        half=options.half,
        task=task,
        patch=_patch(options, task),
        runs=_recipe(options).draw(options.seed),
        seed=options.seed,
        batch_size=options.batch_size,
        snapshots=snapshot_names(options.snapshots, options.snapshot_unit),
        snapshot_unit=options.snapshot_unit,
        population=chosen or ON_CPU,
    )
    plan.check()
    if chosen or options.launcher == "slurm" or (device := find_device(options.device)).type == "cpu":
        return plan
    return replace(plan, population=most_on_gpu(plan, device, options.jobs or 1))


def _recipe(options: argparse.Namespace) -> StandardRecipe:
    sizes = ("embed_dim", "n_attention_heads", "n_layers", "epochs")
    chosen: dict[str, Any] = {name: Choice(getattr(options, name)) for name in sizes}
    hidden = None if options.hidden is None else Choice(options.hidden)
    recipe = StandardRecipe(runs=options.runs, hidden=hidden, **chosen)
    if options.recipe is None:
        return recipe
    return read_standard_recipe(find_bundled(options.recipe, RECIPES), recipe)


def _patch(options: argparse.Namespace, task: StandardTask) -> int:
    """Return the side of a patch, a quarter of an image's shorter side by default."""
    return options.patch or max(1, min(task.train.inputs.shape[2:], default=1) // _PATCHES)
