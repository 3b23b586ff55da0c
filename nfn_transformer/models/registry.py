"""Registry of the predictor's branches: encoders, classifier heads, embedding branches.

A file in `encoders/`, `heads/` or `embeddings/`, or one that --plugin names, registers its branch. The choices of
flags, the flags themselves, their help, their validation and the files of configurations follow from the registry.
"""

import importlib.util
import pkgutil
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from nfn_transformer import models
from nfn_transformer.configuration import COUNT, setting, setting_of
from nfn_transformer.errors import RunError, UserError
from nfn_transformer.printable import printable
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec
from nfn_transformer.weights.standard_spec import StandardTransformerSpec

if TYPE_CHECKING:  # the flags' help needs no PyTorch
    from nfn_transformer.models.branch import Branch


@dataclass(frozen=True)
class Role:
    """One of the predictor's three branches."""

    name: str
    """Name of the branch: `encoder`, `classifier` or `embedding`."""
    mode: str
    """Flag that chooses the branch."""
    outputs: str
    """Flag for the width of its output."""
    folder: str
    """Folder of `models` with a file for each choice."""


ENCODER = Role("encoder", "enc_mode", "num_out_encoder", "encoders")
CLASSIFIER = Role("classifier", "cls_mode", "num_out_classify", "heads")
EMBEDDING = Role("embedding", "emb_mode", "num_out_embedding", "embeddings")
ROLES = (ENCODER, CLASSIFIER, EMBEDDING)


@dataclass(frozen=True)
class BranchConfig:
    """Configuration of one branch: settings that all branches share; a subclass adds flags of its own."""

    outputs: int = 10
    dropout: float = 0.0
    standardize: bool = False
    log_magnitudes: bool = False
    init_type: str = "xavier_normal"


@dataclass(frozen=True)
class EncoderChannels(BranchConfig):
    """Configuration of an encoder with hidden layers."""

    transformers_nfn_channels: tuple[int, ...] = setting(
        (10,),
        "channels of each layer of the encoder, as in 10,10",
        original=True,
        family=TransformerSpec.family,
        **COUNT,
    )


@dataclass(frozen=True)
class ClassifierChannels(BranchConfig):
    """Configuration of a classifier head with hidden layers."""

    classifier_nfn_channels: tuple[int, ...] = setting(
        (10, 10), "channels of each layer of the classifier head, as in 10,10", original=True, **COUNT
    )


@dataclass(frozen=True)
class NetworkChannels(BranchConfig):
    """Configuration of an encoder of other networks than the zoo's transformers."""

    network_channels: tuple[int, ...] = setting(
        (16, 16, 16),
        "channels of each layer of an encoder of feed-forward networks or standard transformers, as in 16,16",
        family=f"{NetworkSpec.family} {StandardTransformerSpec.family}",
        **COUNT,
    )


@dataclass(frozen=True)
class PlainChannels(EncoderChannels, NetworkChannels):
    """Configuration of an encoder of Linear layers, for networks of any family."""


def refuse_reference_init(mode: str, config: BranchConfig, spec: Any, zoo: str) -> None:
    """Raise UserError for layers that the reference implementation does not have, and so no scales for.

    Args:
        mode: flag and value that choose the layers.
        config, spec, zoo: see `BranchEntry.check`.
    """
    if config.init_type == "reference":
        what = f"{mode}, which the reference implementation does not have"
        raise UserError(f"--init_type reference: cannot be combined with {what}")


SHARED_SETTINGS = tuple(entry.name for entry in fields(BranchConfig) if entry.name != "outputs")
"""Settings that branches share: one flag, which a branch reads if its entry says so."""


@dataclass(frozen=True, eq=False)
class BranchEntry:
    """Declaration of a branch that can be chosen."""

    role: Role
    """Role of the branch in the predictor."""
    name: str
    """Value of --enc_mode, --cls_mode or --emb_mode."""
    help: str
    """Text for --help."""
    build: "Callable[[TransformerSpec, Any], Branch] | str | None" = None
    """Build the module from the sizes of the zoo's transformers and a `config`; or where that is, `module:name`,
    imported when it builds. So --help needs no PyTorch. None: other families are read alone."""
    builds: Mapping[str, str] = field(default_factory=dict)
    """Family of other networks -> `module:name` of what builds the module from their sizes and a `config`."""
    edits: Mapping[str, str] = field(default_factory=dict)
    """Family of networks -> `module:name` of what builds a module from weights to changed weights, from their sizes and
    a `config`."""
    config: type[BranchConfig] = BranchConfig
    """Frozen dataclass; each field beyond those of `BranchConfig` is a flag of the same name."""
    check: Callable[[Any, Any, str], None] | None = None
    """Raise UserError if a `config` is wrong, or does not suit networks of a spec, from the zoo of a name."""
    reads: tuple[str, ...] = ()
    """Names of the shared settings that the branch reads."""
    always: Mapping[str, Any] = field(default_factory=dict)
    """Shared settings with a fixed value, which a flag may repeat."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of other flags with this encoder: of the other modes, ensemble, dropout and so on."""
    symmetry: str = "none"
    """Group that leaves its outputs unchanged."""
    part: str = ""
    """Part of a network that is read, for --help."""
    several_sizes: bool = False
    """True if one model can read networks of several sizes."""
    cuda_graphs: bool = True
    """True if a GPU may record its steps: no step waits for a number on the CPU, as `.item()` and `nonzero` do."""
    one_thread: bool = False
    """True if a step of a small batch of the zoo's transformers takes no longer with one thread of a CPU."""
    plugin: "Plugin | None" = None
    """File outside of the package that registers it."""
    settings: Mapping[str, Field] = field(init=False)
    """Fields of `config` that are flags, by name."""
    readable: frozenset[str] = field(init=False)
    """Names of all settings that the branch reads."""
    families: tuple[str, ...] = field(init=False)
    """Families of networks that the branch reads."""

    def __post_init__(self):
        unknown = {*self.reads, *self.always}.difference(SHARED_SETTINGS)
        if unknown:
            raise ValueError(f"'{min(unknown)}' is no shared setting; expected some of {', '.join(SHARED_SETTINGS)}")
        if self.name == "no":
            raise ValueError("'no' is the choice of no branch; expected another name")
        types = get_type_hints(self.config)
        for entry in fields(self.config):
            entry.type = types[entry.name]  # a plugin's may be text
        own = {e.name: e for e in fields(self.config) if e.name not in ("outputs", *SHARED_SETTINGS)}
        for name, entry in own.items():
            if not setting_of(entry).help:
                raise ValueError(f"'{name}' of {self.config.__name__} has no flag; expected setting(default, help)")
        object.__setattr__(self, "settings", own)
        own_family = () if self.build is None else (TransformerSpec.family,)
        object.__setattr__(self, "families", (*own_family, *self.builds))
        object.__setattr__(self, "readable", frozenset((self.role.outputs, *self.reads, *own)))


@dataclass(frozen=True)
class Plugin:
    """File outside of the package that registers branches."""

    path: str
    """Absolute path."""
    digest: str
    """Checksum of the content."""


_entries: dict[str, dict[str, BranchEntry]] = {role.name: {} for role in ROLES}
_listed: set[str] = set()
_plugins: set[str] = set()


def register(entry: BranchEntry) -> None:
    """Add a branch to the choices.

    Raises:
        ValueError: one of its flags is already a flag of another configuration.
    """
    for others in _entries.values():
        for other in others.values():
            for name in entry.settings.keys() & other.settings.keys():
                is_same = (other.role, other.name) == (entry.role, entry.name)
                if entry.settings[name] is not other.settings[name] and not is_same:
                    raise ValueError(f"--{name} is a flag of {other.config.__name__} already; inherit from that")
    _entries[entry.role.name][entry.name] = entry


def entries(role: Role) -> Mapping[str, BranchEntry]:
    """Return all choices of a role by name."""
    if role.name not in _listed:
        _listed.add(role.name)
        for module in pkgutil.iter_modules([f"{models.__path__[0]}/{role.folder}"]):
            importlib.import_module(f"{models.__name__}.{role.folder}.{module.name}")
    return _entries[role.name]


def load_plugin(path: str) -> None:
    """Run a Python file that registers branches, once.

    Raises:
        UserError: the file is missing, fails, registers nothing, or registers a name of the package.
    """
    path = str(Path(path).resolve())
    if path in _plugins:
        return
    if not Path(path).is_file():
        raise UserError(f"--plugin {path}: no such file")
    before = {role.name: dict(entries(role)) for role in ROLES}
    content = Path(path).read_bytes()
    specification = importlib.util.spec_from_file_location(f"nfn_plugin_{zlib.crc32(path.encode()):08x}", path)
    if specification is None or specification.loader is None:
        raise UserError(f"--plugin {path}: expected a Python file, NAME.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _entries.update(before)
        raise UserError(f"--plugin {path}: cannot be loaded: {type(error).__name__}: {error}") from error
    plugin = Plugin(path, f"{zlib.crc32(content):08x}")
    added = 0
    for role in ROLES:
        for name, entry in _entries[role.name].items():
            earlier = before[role.name].get(name)
            if entry is earlier:
                continue
            if earlier is not None:
                _entries.update(before)
                owner = "the package" if earlier.plugin is None else earlier.plugin.path
                raise UserError(f"--plugin {path}: --{role.mode} {name} is a choice of {owner} already")
            _entries[role.name][name] = replace(entry, plugin=plugin)
            added += 1
    if not added:
        raise UserError(f"--plugin {path}: registers no branch; expected a call of models.registry.register")
    _plugins.add(path)


def load_recorded_plugin(path: str, digest: str | None) -> None:
    """Run the plugin that a run recorded, and say so: data in a run's directory names code here.

    Args:
        path: absolute path.
        digest: checksum of the content when the run began; None if the run recorded none.

    Raises:
        RunError: the file is missing, or no longer the recorded one.
    """
    advice = "; requires --plugin FILE, which uses a file as it is"
    if not Path(path).is_absolute() or not Path(path).is_file():
        raise RunError(f"{path}: no such file, the run's branches are registered there{advice}")
    found = f"{zlib.crc32(Path(path).read_bytes()):08x}"
    if found != digest:
        raise RunError(f"{path}: has changed since the run began, checksum {found}, expected {digest}{advice}")
    if path not in _plugins:
        print(f"running the plugin that the run recorded: {printable(path)}", file=sys.stderr)
    load_plugin(path)
