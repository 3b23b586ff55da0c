"""Task of editing INRs: the pictures that they draw, the wanted ones, and the squared error between them.

A picture is drawn on a square grid in [-1, 1]^2. Edits are computed from it as it is between black and white: values
beyond are cut off. Windows are 3 x 3 pixels and end at the border.

    dilate     the largest value of each window
    erode      the smallest value of each window
    gradient   the difference of both
    contrast   values stretched around the picture's mean by 2, then cut off
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from nfn_transformer.errors import UserError
from nfn_transformer.figures import new_figure, optional_picture, save_png
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.editor import EditPredictor
from nfn_transformer.models.registry import ENCODER, entries
from nfn_transformer.training.config import DataConfig, RunConfig
from nfn_transformer.training.data import Split
from nfn_transformer.training.metrics import Interval, bootstrap_interval
from nfn_transformer.training.task import Task
from nfn_transformer.weights.containers import NetworkWeights
from nfn_transformer.weights.feed_forward_pass import draw_pictures
from nfn_transformer.weights.spec import NetworkSpec
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

SHOWN = 10
"""Networks whose pictures a run draws."""

_AT_ONCE = 256


@dataclass(frozen=True)
class EditMetrics:
    """Measures of drawn pictures."""

    loss: float
    """mean squared error over pixels, in the INR's own units"""
    left: float
    """share of the unedited pictures' error that is left; nan where nothing is to be edited"""

    @property
    def summary(self) -> str:
        """Return the share as text."""
        return f"error left {self.left:.4f}"

    def line(self, interval: Interval | None) -> str:
        """Return the measures as a line for the screen."""
        between = f" [{interval.low:.6f}, {interval.high:.6f}]" if interval is not None else ""
        return f"mean squared error {self.loss:.6f}{between}, {self.left:.4f} of the unedited pictures' error"


@dataclass(frozen=True)
class EditTask(Task):
    """Pictures: outputs are pixels, labels [n, 2, pixels] the wanted and the unedited ones."""

    name: str = "edit"
    measures: ClassVar[Callable[..., EditMetrics]] = EditMetrics
    predictor: ClassVar[type] = EditPredictor
    label_dims: ClassVar[int] = 2
    edit: str = "dilate"
    """one of EDITS"""
    side: int = 28
    """pixels of a picture's side"""
    colours: int = 1
    """numbers of a pixel"""
    black: float = 0.0
    """value of black"""

    def __post_init__(self):
        if self.edit not in _EDITS or self.side < 1 or self.colours < 1:
            raise ValueError(f"no such edit: {self}")

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """Number of pixels times colours."""
        return self.colours * self.side**2

    def labels_of(self, zoo: Zoo | MixedZoo) -> Tensor:
        """Return the wanted and the unedited pictures [n, 2, pixels] of a zoo's INRs."""
        labels = torch.empty(len(zoo), 2, self.outputs)
        for index in torch.arange(len(zoo)).split(_AT_ONCE):
            for positions, rows, of_size in zoo.by_size(index):
                pictures = draw_pictures(cast(NetworkWeights, of_size.weights_of(rows)), self.side)
                white = (pictures - self.black) / (1 - self.black)
                wanted = _EDITS[self.edit](white.clamp(0, 1)) * (1 - self.black) + self.black
                labels[index[positions]] = torch.stack([wanted.flatten(1), pictures.flatten(1)], dim=1)
        return labels

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the squared errors [..., b] of pixels [..., b, pixels]."""
        return (outputs - labels[..., 0, :]).square().mean(-1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the pictures [n, colours, side, side]."""
        return outputs.unflatten(1, (self.colours, self.side, self.side))

    def measure(self, outputs: Tensor, labels: Tensor) -> EditMetrics:
        """Return the error, and its share of the unedited pictures' error."""
        outputs, labels = outputs.double().cpu(), labels.double().cpu()
        error, unedited = self.losses(outputs, labels).mean().item(), self._unedited(labels).mean().item()
        return EditMetrics(error, error / unedited if unedited else float("nan"))

    def is_better(self, candidate: EditMetrics, best: EditMetrics) -> bool:
        """Return whether the error is lower."""
        return candidate.loss < best.loss

    def interval(self, outputs: Tensor, labels: Tensor, runs: Sequence[str], seed: int) -> Interval:
        """Return the interval of the error."""
        errors = self.losses(outputs.double(), labels.double())
        return bootstrap_interval(lambda index: errors[index].mean().item(), runs, seed)

    def columns(self, outputs: Tensor, labels: Tensor | None = None) -> dict[str, list]:
        """Return, where the wanted pictures are known, each INR's `error` and that of the `unedited` picture."""
        if labels is None:
            return {}
        return {"error": self.losses(outputs, labels).tolist(), "unedited": self._unedited(labels).tolist()}

    def lines(self, outputs: Tensor) -> list[str]:
        """Return the mean pixel of each changed picture."""
        return [f"mean pixel {mean:.4f}" for mean in outputs.mean(1).tolist()]

    def references(self, labels: Tensor, train_labels: Tensor) -> dict[str, float]:
        """Return the error of the unedited pictures."""
        return {"mean_squared_error_of_unedited_pictures": self._unedited(labels.double()).mean().item()}

    @optional_picture()
    def draw(self, folder: Path, outputs: Tensor, labels: Tensor, title: str) -> None:
        """Write pictures (PNG) of some test networks: before, wanted and got."""
        rows = {"before": labels[:SHOWN, 1], "wanted": labels[:SHOWN, 0], "got": outputs[:SHOWN]}
        count = len(outputs[:SHOWN])
        figure = new_figure(1 + 0.9 * count, 3.3, layout="constrained")
        axes = figure.subplots(3, count, squeeze=False)
        for row, (name, pixels) in enumerate(rows.items()):
            white = (self.predictions(pixels) - self.black) / (1 - self.black)
            for column, picture in enumerate(white.clamp(0, 1).movedim(1, -1)):
                shown = picture.squeeze(-1) if self.colours == 1 else picture
                axes[row][column].imshow(shown.tolist(), cmap="gray", vmin=0, vmax=1)
                axes[row][column].set(xticks=[], yticks=[])
            axes[row][0].set_ylabel(name)
        figure.suptitle(title, fontsize="medium")
        save_png(figure, folder / "edited.png")

    def _unedited(self, labels: Tensor) -> Tensor:
        return (labels[..., 1, :] - labels[..., 0, :]).square().mean(-1)


def check_editor(config: RunConfig, zoo: Zoo | MixedZoo) -> None:
    """Raise UserError where the encoder changes no networks of a zoo's family."""
    if isinstance(predictor := config.predictor, ModelConfig):
        editors = [name for name, entry in entries(ENCODER).items() if zoo.spec.family in entry.edits]
        if predictor.enc_mode not in editors:
            expected = f"expected one of {', '.join(editors)}" if editors else "and no other encoder does"
            raise UserError(f"--task edit: --enc_mode {predictor.enc_mode} changes no such networks, {expected}")


def fit_pictures(zoo: Zoo | MixedZoo, split: Split, config: DataConfig) -> dict[str, Any]:
    """Return the edit, the side of the pictures, their colours and black.

    Raises:
        UserError: the zoo's networks are no INRs of pictures, or the edit is not told.
    """
    spec = zoo.spec
    if config.edit is None:
        raise UserError(f"--task edit: requires --edit, one of {', '.join(_EDITS)}")
    if not isinstance(zoo, Zoo) or not isinstance(spec, NetworkSpec) or spec.convolutions or spec.sizes[0] != 2:
        raise UserError("--task edit: expected INRs of one size with 2 coordinates as inputs, got other networks")
    # An offset of 0.5 centres the outputs of a new INR in [0, 1]; without one they are centred in [-1, 1].
    black = 0.0 if spec.offset else -1.0
    return {"edit": config.edit, "side": config.edit_side, "colours": spec.sizes[-1], "black": black}


def _dilate(pictures: Tensor) -> Tensor:
    return max_pool2d(pictures, 3, stride=1, padding=1)  # whose padding is -inf


def _erode(pictures: Tensor) -> Tensor:
    return -_dilate(-pictures)


def _contrast(pictures: Tensor) -> Tensor:
    means = pictures.mean((-2, -1), keepdim=True)
    return (means + 2 * (pictures - means)).clamp(0, 1)


_EDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "dilate": _dilate,
    "erode": _erode,
    "gradient": lambda pictures: _dilate(pictures) - _erode(pictures),
    "contrast": _contrast,
}
