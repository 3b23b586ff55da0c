"""Where zoos lie by convention."""

from pathlib import Path

from nfn_transformer.errors import UserError


def existing_zoo(data_path: str) -> str:
    """The path, or, where nothing is there, the zip of that name: `data/mnist_transformer` finds
    `data/mnist_transformer.zip`, so that a downloaded archive need not be unpacked for the published commands."""
    zipped = f"{data_path}.zip"
    return zipped if not Path(data_path).exists() and Path(zipped).is_file() else data_path


def default_data_path(dataset: str) -> str:
    """Where a zoo lies by convention.

    Raises:
        UserError: nowhere of these.
    """
    places = [f"data/{dataset}_transformer", f"data/{dataset}_transformer.zip", f"data/{dataset}_transformers.zip"]
    for place in places:
        if Path(place).exists():
            return place
    raise UserError(f"no zoo for --dataset {dataset}: looked for {', '.join(places)}; name it by --data_path")
