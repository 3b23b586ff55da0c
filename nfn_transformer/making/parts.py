"""The work folder of a zoo in the making: finished populations, kept so that a killed command can go on.

Every file is whole or not there. The folder knows the configuration that its parts were made from.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from nfn_transformer.atomic_files import replacing, write_text
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.making.population import Snapshot


class WorkFolder:
    """Finished populations of one zoo, each in a file, beside the zoo's place."""

    def __init__(self, out: Path, configuration: Mapping[str, object]):
        """Open the work folder for the zoo at `out`, or begin one.

        Args:
            configuration: all that the networks depend on, as JSON values.

        Raises:
            UserError: the folder holds parts made from another configuration.
        """
        self.path = out.with_name(f"{out.name}.parts")
        self.scratch = self.path / "scratch"  # an empty folder for drafts, on the file system of `out`
        self.path.mkdir(parents=True, exist_ok=True)
        self._clear()
        description = self.path / "configuration.json"
        wanted = json.loads(json.dumps(configuration))
        if description.exists():
            _check_same(description, wanted)
        else:
            write_text(description, json.dumps(wanted, indent=2) + "\n")

    def _clear(self) -> None:
        # A kill in the middle of a write leaves temporary files that nobody else will remove.
        for leftover in self.path.glob(".*.part"):
            leftover.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()

    def _file(self, number: int) -> Path:
        return self.path / f"population_{number:05d}.pt"

    def has(self, number: int) -> bool:
        """Whether a population is finished."""
        return self._file(number).exists()

    def save(self, number: int, snapshots: Mapping[str, Snapshot]) -> None:
        """Keep a finished population: label -> snapshot."""
        content = {label: {"state": one.state, "correct": one.correct} for label, one in snapshots.items()}
        with replacing(self._file(number)) as temporary:
            torch.save(content, temporary)

    def load(self, number: int) -> dict[str, Snapshot]:
        """A finished population: label -> snapshot.

        Raises:
            ZooError: its file is damaged.
        """
        try:
            content = torch.load(self._file(number), weights_only=True)
            return {label: Snapshot(one["state"], one["correct"]) for label, one in content.items()}
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ZooError(f"{self._file(number)}: damaged ({reason}); delete it and run the command again") from None

    def remove(self) -> None:
        """Delete the folder, once the zoo is written."""
        shutil.rmtree(self.path)


def _check_same(description: Path, wanted: Mapping[str, object]) -> None:
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{description}: not JSON ({error}); delete {description.parent} to begin anew") from None
    different = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if different:
        changes = ", ".join(f"{key} was {found.get(key)}, is now {wanted.get(key)}" for key in sorted(different))
        raise UserError(
            f"{description.parent} holds an unfinished zoo of another configuration ({changes}); "
            "run its command again to finish it, or delete the folder to begin anew"
        )
