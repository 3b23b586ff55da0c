"""Files that come with the package: the zoo of digits, grids and recipes, by the paths that they have in a checkout.

In a checkout they are links to data/ and scripts/; an installed package holds copies.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent

TABLES, RECIPES = "scripts/tables", "scripts/zoos"
"""Folders of the bundled grids and recipes."""


def find_bundled(path: Path, folder: str = "") -> Path:
    """Return the path of a file that the user names, who need not be in a checkout.

    Args:
        path: any path; one that does not exist may be that of a bundled file in a checkout.
        folder: of bundled files that go by their bare names as well.

    Returns:
        `path` where it exists or no bundled file goes by it, else the path of the bundled file.
    """
    if not path.exists():
        for bundled in (_FOLDER / path, _FOLDER / folder / path):
            if bundled.is_file():
                return bundled.resolve()
    return path


def bundled_names(folder: str) -> str:
    """Return the names of the bundled files of a folder, for a message."""
    return ", ".join(sorted(path.name for path in (_FOLDER / folder).glob("*.yaml")))
