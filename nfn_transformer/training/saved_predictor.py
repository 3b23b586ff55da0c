"""A trained predictor as one file: its weights (safetensors), and in the header what rebuilds the model."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nfn_transformer import atomic_files
from nfn_transformer.errors import RunError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.predictor import Predictor, build_predictor
from nfn_transformer.training.config import spec_from_json, spec_to_json

# One entry, as safetensors does not keep the order of several, and one model shall be one sequence of bytes.
_HEADER = "predictor"


def save_predictor(path: Path, model: Predictor, epoch: int) -> None:
    """Write the weights of `model` after `epoch` in one step."""
    header = {"epoch": epoch, "networks": spec_to_json(model.spec), "predictor": model.config.to_json()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})


def load_predictor(path: Path) -> tuple[Predictor, int]:
    """The predictor in a file, on the CPU, and the epoch that it was saved after.

    Raises:
        RunError: the file is missing, damaged, or of another version.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file; a run writes it after its first epoch")
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads(stored.metadata()[_HEADER])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dict
        model = build_predictor(spec_from_json(header["networks"]), ModelConfig.from_json(header["predictor"]), seed=0)
        model.load_state_dict(tensors)
        return model, int(header["epoch"])
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not a predictor of this version: {error}") from None
