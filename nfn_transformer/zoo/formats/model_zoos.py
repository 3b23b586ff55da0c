"""ModelZoos (Schuerholt et al. 2022, arXiv 2209.14764): a folder a model, with its hyperparameters and results.

`MODEL/params.json` or `config.json`, `MODEL/result.json` with a JSON object for each epoch, and
`MODEL/checkpoint_EPOCH/checkpoints`, a state dict.
"""

from collections.abc import Mapping
from dataclasses import replace

from nfn_transformer.bounded_text import parse_json
from nfn_transformer.errors import ZooError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.zoo.formats.registry import ZooFormat, register_format
from nfn_transformer.zoo.listed_files import ROOT, ListedFile, files_of, list_files, matching_files
from nfn_transformer.zoo.listing import Listing, ReadRequest
from nfn_transformer.zoo.network_checkpoint import read_network_checkpoint, scalar_text
from nfn_transformer.zoo.network_facts import ACTIVATION_NAMES
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import Source, UnreadableFile

_PATTERN = ROOT + r"(?P<run>[^/]+)/checkpoint_(?P<epoch>\d+)/checkpoints"

_LABELS = ("test_acc", "test_accuracy")

_COLUMNS = {
    "optim::lr": "lr",
    "optim::wd": "l2_regularize",
    "model::dropout": "dropout",
    "optim::optimizer": "optimizer",
}
"""Keys of hyperparameters -> columns of `metadata.encode`."""

_MOST_LINES = 10_000


def _recognize(source: Source, dataset: str) -> bool:
    return bool(matching_files(source, dataset, _PATTERN))


def _list(source: Source, request: ReadRequest) -> Listing:
    """Return the checkpoints of all models; conditions are on hyperparameters and on an epoch's results.

    Raises:
        ZooError: a file of hyperparameters or results is damaged.
    """
    stamps, files, read_stamps = files_of(source), [], []
    folders: dict[str, tuple[dict[str, str], dict[str, dict[str, str]]]] = {}
    assumed: dict[str, str] = {}  # folders that tell no activation that is known, and what they tell
    for match in matching_files(source, request.dataset, _PATTERN):
        folder = f"{match['root']}{match['run']}"
        if folder not in folders:
            names = [f"{folder}/{name}" for name in ("params.json", "config.json", "result.json")]
            there = [name for name in names if name in stamps]
            read_stamps += [(name, stamps[name]) for name in there]
            parameters: dict[str, str] = {}
            results: dict[str, dict[str, str]] = {}
            for name in there:
                if name.endswith("result.json"):
                    results = _results(source, name)
                else:
                    parameters |= _texts(_parse(source, name, _content(source, name)))
            folders[folder] = parameters, results
        parameters, results = folders[folder]
        epoch = canonical_epoch(match["epoch"])
        cells = {**parameters, **results.get(epoch, {})}
        cells |= {column: cells[key] for key, column in _COLUMNS.items() if key in cells}
        labels = (request.columns.label,) if request.columns.label else _LABELS
        label = next((cells[name] for name in labels if name in cells), "")
        activation = cells.get("model::nlin", "")
        if activation.lower() in ACTIVATION_NAMES:
            facts = {"activation": activation.lower()}
        else:
            facts, assumed[folder] = {}, activation
        files.append(ListedFile(match[0], match["run"], folder, epoch, label, cells, facts))
    notes = ["pooling between convolutions is not told by a state dict: drawn or probed outputs leave it out"]
    if assumed and "activation" not in request.facts:
        folder, found = next(iter(assumed.items()))
        first = f"the first is {quoted(folder)}, whose model::nlin is {quoted(found) if found else 'not there'}"
        notes.append(f"{len(assumed)} of {len(folders)} models are taken for relu (--activation): {first}")
    request = replace(request, columns=replace(request.columns, label=None))  # which chose the labels above
    return list_files(source, request, files, read_network_checkpoint, {}, tuple(notes), repr(read_stamps))


def _content(source: Source, name: str) -> str:
    try:
        return source.read(name).decode("utf-8")
    except (UnreadableFile, UnicodeDecodeError) as error:
        raise ZooError(f"{source.path}: {printable(name)}: {printable(str(error))}") from None


def _parse(source: Source, name: str, text: str) -> Mapping:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ZooError(f"{source.path}: {printable(name)}: not JSON: {printable(str(error))}") from None
    if not isinstance(value, dict):
        raise ZooError(f"{source.path}: {printable(name)}: expected a JSON object, got a {type(value).__name__}")
    return value


def _texts(values: Mapping) -> dict[str, str]:
    texts = {key: scalar_text(value) for key, value in values.items()}
    return {key: text for key, text in texts.items() if text is not None}


def _results(source: Source, name: str) -> dict[str, dict[str, str]]:
    """Return epoch -> results of a file with a JSON object in each line."""
    lines = _content(source, name).splitlines()
    if len(lines) > _MOST_LINES:
        raise ZooError(f"{source.path}: {printable(name)}: {len(lines)} lines, expected at most {_MOST_LINES}")
    results = [_texts(_parse(source, name, line)) for line in lines if line.strip()]
    return {canonical_epoch(each.get("training_iteration", "")): each for each in results}


register_format(
    ZooFormat(
        name="ModelZoos",
        files="MODEL/checkpoint_EPOCH/checkpoints beside MODEL/params.json and MODEL/result.json",
        recognize=_recognize,
        list=_list,
    )
)
