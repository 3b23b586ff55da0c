"""Configuration of a predictor: its branches and all of their settings."""

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nfn_transformer.configuration import (
    COUNT,
    PRIVATE,
    check_values,
    key_values,
    parse_values,
    setting,
    setting_of,
)
from nfn_transformer.errors import UserError
from nfn_transformer.layers.init_types import INIT_TYPES
from nfn_transformer.models.registry import (
    EMBEDDING,
    ENCODER,
    ROLES,
    SHARED_SETTINGS,
    BranchConfig,
    BranchEntry,
    Role,
    entries,
    load_recorded_plugin,
)
from nfn_transformer.weights.spec import NetworkSpec, TransformerSpec

if TYPE_CHECKING:
    from nfn_transformer.families.registry import AnySpec


@dataclass(frozen=True)
class ModelConfig:
    """Modes, widths and settings for small zoos; the defaults are the published ones (arXiv 2410.04209, section 6).

    Raises:
        ValueError: a mode is not registered, or a value is out of its bounds.
    """

    enc_mode: str = "inv"
    cls_mode: str = "mlp"
    emb_mode: str = "mlp"
    num_out_encoder: int = setting(10, "numbers from the encoder", key="always", **COUNT)
    num_out_classify: int = setting(10, "numbers from the classifier head", key="always", **COUNT)
    num_out_embedding: int = setting(10, "numbers from the embedding branch", key="always", **COUNT)
    init_type: str = setting("xavier_normal", "initialisation of weight-space layers", key="always", choices=INIT_TYPES)
    dropout: float = setting(0.0, "share of hidden numbers that is dropped in training", low=0, high=0.99)
    standardize: bool = setting(
        False,
        "scale inputs by the training split: statistics, flattened weights and those of a graph to mean 0 and "
        "deviation 1, cut off at 4, what layers with symmetries read to size 1, each tensor by one number",
    )
    log_magnitudes: bool = setting(
        False, "with --standardize: statistics, flattened weights and those of a graph on a logarithmic scale"
    )
    ensemble: int = setting(
        1, "train K predictors side by side on one split and average their logits", metavar="K", **COUNT
    )
    options: Mapping[str, Any] = field(default_factory=dict, metadata=PRIVATE)
    """Values of the flags that the chosen branches' own configurations declare, by name."""
    plugins: Mapping[str, str] = field(default_factory=dict, metadata=PRIVATE)
    """Files outside of the package that register chosen branches, and checksums of their contents."""
    given: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False, metadata=PRIVATE)
    """Flags that the user gave, by name."""

    def __post_init__(self):
        check_values(fields(self), vars(self))
        known: dict[str, Field] = {}
        read: set[str] = set()
        for role in ROLES:
            for entry in entries(role).values():
                known |= entry.settings
            if role in self.chosen:
                read |= self.chosen[role].settings.keys()
        unknown = self.options.keys() - known.keys()
        if unknown:
            raise ValueError(f"'{min(unknown)}' is no setting of a model")
        check_values(known.values(), self.options)
        # Runs of earlier versions name values that no branch of theirs reads.
        values = {name: self.options.get(name, entry.default) for name, entry in known.items()}
        kept = {name: value for name, value in values.items() if name in read or value != known[name].default}
        object.__setattr__(self, "options", kept)
        plugins = [entry.plugin for entry in self.chosen.values() if entry.plugin is not None]
        object.__setattr__(self, "plugins", {plugin.path: plugin.digest for plugin in plugins})
        if self.log_magnitudes and not self.standardize:
            raise ValueError("--log_magnitudes True: requires --standardize True")

    @property
    def chosen(self) -> dict[Role, BranchEntry]:
        """Entries of the branches that are not `no`, by role."""
        chosen = {}
        for role in ROLES:
            mode, choices = getattr(self, role.mode), entries(role)
            if mode != "no":
                if mode not in choices:
                    raise ValueError(f"--{role.mode} {mode}: expected one of no, {', '.join(choices)}")
                chosen[role] = choices[mode]
        return chosen

    @property
    def readable(self) -> set[str]:
        """Names of the settings that the chosen branches read."""
        return {"ensemble", *(role.mode for role in ROLES)}.union(*(e.readable for e in self.chosen.values()))

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> "ModelConfig":
        """Return the configuration that flags describe; the encoder's own defaults replace absent flags.

        Args:
            flags: values of a command's flags by name; None means absent, and flags of other things have no effect.

        Raises:
            UserError: flags cannot be combined, or no chosen branch reads one.
        """
        own = {entry.name for entry in fields(cls)}
        names = own.union(*(entry.settings for role in ROLES for entry in entries(role).values()))
        given = {name: value for name, value in flags.items() if name in names and value is not None}
        encoder = entries(ENCODER).get(given.get("enc_mode", cls.enc_mode))
        values = {**(encoder.defaults if encoder else {}), **given}
        options = {name: value for name, value in values.items() if name not in own}
        try:
            config = cls(**{name: value for name, value in values.items() if name in own}, options=options)
        except ValueError as error:
            raise UserError(str(error)) from None
        config.check_read(given)
        always = {name for entry in config.chosen.values() for name in entry.always}
        return replace(config, given=given, **{name: getattr(cls, name) for name in always - config.readable})

    def check_read(self, given: Mapping[str, Any]) -> None:
        """Raise UserError if no chosen branch reads one of these settings, name -> value."""
        readable = self.readable
        for name, value in given.items():
            if name in readable:
                continue
            value = ",".join(map(str, value)) if isinstance(value, tuple) else value
            fixed = [(role, entry) for role, entry in self.chosen.items() if name in entry.always]
            for role, entry in fixed:
                if entry.always[name] != value:
                    mode = f"--{role.mode} {entry.name}"
                    raise UserError(f"--{name} {value}: cannot be combined with {mode}, expected {entry.always[name]}")
            if not fixed:
                modes = " ".join(f"--{role.mode} {getattr(self, role.mode)}" for role in ROLES)
                raise UserError(f"--{name} {value}: not read by {modes}; requires {readers_of(name)}")

    @property
    def name(self) -> str:
        """Readable name, as in inv-mlp-mlp."""
        return f"{self.enc_mode}-{self.cls_mode}-{self.emb_mode}"

    @property
    def reads_several_sizes(self) -> bool:
        """True if one such model can read networks of several sizes."""
        return all(entry.several_sizes for entry in self.chosen.values())

    def branch_config(self, role: Role) -> BranchConfig:
        """Return the configuration of a chosen branch."""
        entry = self.chosen[role]
        shared = {name: getattr(self, name) for name in SHARED_SETTINGS}
        own = {name: self.options[name] for name in entry.settings}
        return entry.config(outputs=getattr(self, role.outputs), **shared, **own)

    def without_parts(self) -> "ModelConfig":
        """Return the configuration for networks without a classifier or an embedding of their own: no such branches.

        Modes that the user gave, or that an encoder brings, stay, and `check` refuses them.

        Raises:
            UserError: the user gave a setting that only such a branch reads.
        """
        modes = {role.mode: getattr(self, role.mode) for role in ROLES if role is not ENCODER}
        dropped: dict[str, Any] = {name: "no" for name in modes if name not in self.given and modes[name] == "mlp"}
        config = replace(self, **dropped)
        config.check_read(self.given)
        return config

    def check(self, spec: "AnySpec", zoo: str) -> None:
        """Raise UserError if the branches do not suit the networks of a zoo."""
        for role, entry in self.chosen.items():
            if spec.family not in entry.families:
                own = f"those of zoo '{zoo}' are {_described([spec.family])}"
                readers = [name for name, other in entries(role).items() if spec.family in other.families]
                expected = f"which --{role.mode} {', '.join(readers)} read" if readers else f"use --{role.mode} no"
                raise UserError(f"--{role.mode} {entry.name}: reads {_described(entry.families)}; {own}, {expected}")
        if not self.chosen:
            raise UserError(
                "--enc_mode no --cls_mode no --emb_mode no leaves nothing to read; choose at least one branch"
            )
        wanted = {"dropout": self.dropout, "log_magnitudes": self.log_magnitudes}
        self.check_read({name: value for name, value in wanted.items() if value})
        if EMBEDDING in self.chosen and isinstance(spec, TransformerSpec) and spec.embedding is None:
            mode = f"--emb_mode {self.emb_mode}"
            raise UserError(f"{mode}: the checkpoints of zoo '{zoo}' have no embedding; use --emb_mode no")
        for role, entry in self.chosen.items():
            for name, each in entry.settings.items():
                value, families = self.options[name], setting_of(each).family.split()
                if families and spec.family not in families and value != each.default:
                    listed = ",".join(map(str, value)) if isinstance(value, tuple) else value
                    own = f"those of zoo '{zoo}' are {_described([spec.family])}"
                    raise UserError(f"--{name} {listed}: requires {_described(families)}; {own}")
            if entry.check is not None:
                entry.check(self.branch_config(role), spec, zoo)

    def to_json(self) -> dict[str, Any]:
        """Return the values that the branches read by their flags' names, to be written as JSON.

        Other values, which runs of earlier versions may have, are kept if they differ from their defaults. So are
        those that transformers have no use for.
        """
        read, values = self.readable, dict(self.options)
        for entry in self.chosen.values():
            for name, each in entry.settings.items():
                # Runs on transformers have the files of earlier versions.
                families = setting_of(each).family.split()
                if entry.build and NetworkSpec.family in families and values[name] == each.default:
                    del values[name]
        for own in fields(self):
            value = getattr(self, own.name)
            if setting_of(own).key != "never" and (own.name in read or value != own.default):
                values[own.name] = value
        return {**values, "plugins": dict(self.plugins)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Return the configuration that `to_json` gave, of this or an earlier version; plugins are loaded.

        Raises:
            UserError: a plugin is missing or fails.
            KeyError, TypeError, ValueError: a field is missing, unknown, or has an unexpected value.
        """
        modes = {role: values[role.mode] for role in ROLES}
        if any(mode != "no" and mode not in entries(role) for role, mode in modes.items()):
            plugins = values.get("plugins", {})
            if not isinstance(plugins, dict) or not all(isinstance(path, str) for path in plugins):
                raise TypeError(f"'plugins' is {plugins!r}, expected files and their checksums")
            for path, digest in plugins.items():
                load_recorded_plugin(path, digest)
        options: dict[str, Any] = {}
        for role in ROLES:
            for entry in entries(role).values():
                options |= parse_values(entry.config, values, entry.settings, required=entry.name == modes[role])
        parsed = parse_values(cls, {name: value for name, value in values.items() if name != "options"})
        unknown = set(values) - set(parsed) - set(options)
        if unknown:
            raise TypeError(f"'{min(unknown)}' is no setting of a model")
        config = cls(**parsed, options=options)
        always = {each.name for each in fields(cls) if setting_of(each).key == "always"}
        if missing := (always & config.readable) - values.keys():
            raise KeyError(min(missing))  # files of all versions have them
        return config

    def key_values(self) -> dict[str, Any]:
        """Return the values of a cell's key: modes, widths, original settings, and others that differ from defaults."""
        values = key_values(self)
        for role in ROLES:
            for entry in entries(role).values():
                for name, each in entry.settings.items():
                    value = self.options.get(name, each.default)
                    # A plugin that is loaded and not chosen leaves all keys as they are.
                    is_original = setting_of(each).original and entry.plugin is None
                    if is_original or value != each.default:
                        values[name] = value
        return {**values, "plugins": sorted(set(self.plugins.values()))} if self.plugins else values


def _described(families: Iterable[str]) -> str:
    """Return what networks of families are, as text."""
    from nfn_transformer.families.registry import FAMILIES  # imports PyTorch

    return " and ".join(FAMILIES[name].description for name in families)


def readers_of(name: str) -> str:
    """Return the modes that read a setting, as on a command line."""
    readers = []
    for role in ROLES:
        modes = [entry.name for entry in entries(role).values() if name in entry.readable]
        if modes:
            every = len(modes) == len(entries(role))
            readers.append(f"another --{role.mode} than no" if every else f"--{role.mode} {', '.join(modes)}")
    return " or ".join(readers)


def defaults_of(name: str, default: Any) -> str:
    """Return a setting's default and the encoders' own defaults, for --help."""
    default = ",".join(map(str, default)) if isinstance(default, tuple) else default
    encoders: dict[Any, list[str]] = {}
    for entry in entries(ENCODER).values():
        if name in entry.defaults:
            encoders.setdefault(entry.defaults[name], []).append(entry.name)
    others = [f"; {value} with --enc_mode {', '.join(names)}" for value, names in encoders.items()]
    return f"default: {default}{''.join(others)}"
