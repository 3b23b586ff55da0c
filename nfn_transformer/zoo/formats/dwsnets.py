"""INRs of DWSNets (Navon et al. 2023, arXiv 2301.12780): MNIST and Fashion-MNIST as SIRENs 2 -> 32 -> 32 -> 1.

Pictures in [0, 1] are h <- sin(30 (W h + b)) twice, then W h + b + 0.5, for coordinates on a grid in [-1, 1]^2.
"""

from collections.abc import Callable
from dataclasses import replace

from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.formats.registry import ZooFormat, register_format
from nfn_transformer.zoo.listed_files import ROOT, ListedFile, list_files, matching_files
from nfn_transformer.zoo.listing import Listing, ReadRequest
from nfn_transformer.zoo.network_checkpoint import find_state_dict, load_mapping, network_outcome, scalar_text
from nfn_transformer.zoo.sources import Source

_MNIST = (
    ROOT + r"(?P<name>[a-z]+_png_(?P<side>training|testing)_(?P<label>\d+)_(?P<id>\d+)\w*)"
    r"/checkpoints/model_final\.pth"
)
_FASHION = ROOT + r"(?P<side>train|test)/model_(?P<id>\d+)\.pth"

_FACTS = {"activation": "sine", "omega": "30", "offset": "0.5"}


def _recognize(source: Source, dataset: str) -> bool:
    return bool(matching_files(source, dataset, _MNIST, _FASHION))


def _list(source: Source, request: ReadRequest) -> Listing:
    """Return the INRs of a data set; copies of an image are of one run."""
    files = []
    for match in matching_files(source, request.dataset, _MNIST, _FASHION):
        groups = match.groupdict()
        cells = {name: text for name, text in groups.items() if name in ("side", "label", "id")}
        run = f"{groups['side']}_{groups['id']}"
        files.append(ListedFile(match[0], run, label=groups.get("label"), cells=cells))
    return list_files(source, request, files, read_inr, _FACTS)


def read_inr(
    name: str, content: bytes, weights_key: str | None = None, read_beside: Callable[[str], bytes] | None = None
) -> Outcome:
    """Return the outcome of reading an INR; those of Fashion-MNIST hold their label under the key `label`."""
    try:
        loaded = load_mapping(content)
        state, form = find_state_dict(loaded, weights_key)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    label = scalar_text(state.get("label", loaded.get("label")))
    outcome = network_outcome(name, {key: value for key, value in state.items() if key != "label"}, len(content))
    return replace(outcome, form=form, label=label)


register_format(
    ZooFormat(
        name="INRs of DWSNets",
        files="mnist_png_{training,testing}_LABEL_ID/checkpoints/model_final.pth, or {train,test}/model_ID.pth",
        recognize=_recognize,
        list=_list,
    )
)
