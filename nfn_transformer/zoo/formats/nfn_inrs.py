"""INRs of NFN (Zhou et al. 2023, arXiv 2302.14040): MNIST, Fashion-MNIST and CIFAR-10 as SIRENs, with copies.

Pictures in [-1, 1] are h <- sin(30 (W h + b)) twice, then W h + b. `randinit_smaller_LABELs/netID.pth` is the first fit
of image ID, and `randinit_smaller_augK_LABELs/netID.pth` are further ones.
"""

from nfn_transformer.zoo.formats.registry import ZooFormat, register_format
from nfn_transformer.zoo.listed_files import ROOT, ListedFile, list_files, matching_files
from nfn_transformer.zoo.listing import Listing, ReadRequest
from nfn_transformer.zoo.network_checkpoint import read_network_checkpoint
from nfn_transformer.zoo.sources import Source

_PATTERN = ROOT + r"randinit_smaller(?:_aug(?P<copy>\d+))?_(?P<label>\w+?)s/net(?P<id>\d+)\.pth"

_FACTS = {"activation": "sine", "omega": "30"}


def _recognize(source: Source, dataset: str) -> bool:
    return bool(matching_files(source, dataset, _PATTERN))


def _list(source: Source, request: ReadRequest) -> Listing:
    """Return the INRs of a data set; the fits of an image are of one run."""
    files = []
    for match in matching_files(source, request.dataset, _PATTERN):
        copy = "0" if match["copy"] is None else str(int(match["copy"]) + 1)
        cells = {"copy": copy, "label": match["label"], "id": match["id"]}
        files.append(ListedFile(match[0], f"image{match['id']}", label=match["label"], cells=cells))
    return list_files(source, request, files, read_network_checkpoint, _FACTS)


register_format(
    ZooFormat(
        name="INRs of NFN",
        files="randinit_smaller_LABELs/netID.pth and randinit_smaller_augK_LABELs/netID.pth",
        recognize=_recognize,
        list=_list,
    )
)
