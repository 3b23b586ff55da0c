"""From the shapes of a state dict to the standard transformer in it: library, layout and spec."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from nfn_transformer.errors import SpecError
from nfn_transformer.printable import quoted
from nfn_transformer.weights.containers import Shape
from nfn_transformer.weights.standard_libraries import AUTO, LIBRARIES, REFUSED_KEYS, Library, Row, rows_of
from nfn_transformer.weights.standard_spec import LayoutEntry, StandardTransformerSpec, block_shapes, rest_shapes
from nfn_transformer.weights.standard_state_dicts import FORMS, standard_shapes
from nfn_transformer.weights.standard_surroundings import find_surroundings

TRANSFORMER_FACTS = (
    *("heads", "groups", "key", "epsilon", "activation", "placement", "causal", "pooling", "final_norm"),
    *("positions", "position_offset", "positions_on_prefix", "rope_theta", "channels", "patch", "image", "tied"),
    "model_type",
)
"""Facts that shapes do not tell: fields of a spec, and a configuration's `model_type`.

`tied` says that an output embedding with a key of its own equals the words' embedding; without a key it always does.
"""


@dataclass(frozen=True)
class Recognition:
    """Standard transformer in a state dict."""

    spec: StandardTransformerSpec
    """Spec, whose layout covers the keys that were understood."""
    library: Library
    """Convention of its keys."""
    prefix: str
    """Text before the library's own keys."""
    left_out: tuple[str, ...] = ()
    """Keys of heads beside the network's, which are not read."""
    unknown: tuple[str, ...] = ()
    """Keys that were not understood."""
    guessed: tuple[str, ...] = ()
    """Fields of the spec that neither keys nor facts tell."""


def find_library(keys: Iterable[str]) -> Library | None:
    """Return the first library with one of the keys; None where there is none."""
    keys = list(keys)
    return next((library for library in LIBRARIES if any(_anchor(library).fullmatch(key) for key in keys)), None)


@lru_cache(maxsize=64)
def _anchor(library: Library) -> re.Pattern[str]:
    """Return the pattern of a library's anchor, with groups `base` and `block`."""
    key = re.escape(library.anchor).replace(r"\{\}", r"(?P<block>0|[1-9]\d{0,3})")
    return re.compile(rf"(?P<base>(?:.*\.)?){key}", re.ASCII)


def recognize_transformer(shapes: Mapping[str, Shape], facts: Mapping[str, Any]) -> Recognition:
    """Return the standard transformer whose state dict has these shapes.

    Args:
        shapes: state dict key -> shape.
        facts: those of TRANSFORMER_FACTS that are told, by a configuration or by the user; `heads` 0 stands for any
            count that is possible.

    Raises:
        SpecError: the keys are of no library, the network cannot be represented exactly, or a fact is missing.
    """
    return _recognize(tuple((key, tuple(shape)) for key, shape in shapes.items()), tuple(sorted(facts.items())))


@lru_cache(maxsize=64)
def _recognize(items: tuple[tuple[str, Shape], ...], facts: tuple[tuple[str, Any], ...]) -> Recognition:
    shapes, told = dict(items), dict(facts)
    for key in shapes:
        for pattern, what in REFUSED_KEYS:
            if re.search(pattern, key):
                raise SpecError(f"{quoted(key)}: {what}, which cannot be represented exactly")
    for library in LIBRARIES:
        matches = [match for key in shapes if (match := _anchor(library).fullmatch(key))]
        bases = sorted({match["base"] for match in matches})
        if len(bases) > 1:
            raise SpecError(f"{len(bases)} transformers, under {' and '.join(map(quoted, bases[:3]))}")
        if matches and _fits(library, bases[0], shapes):
            blocks = sorted(int(match["block"]) for match in matches)
            if blocks != list(range(len(blocks))):
                raise SpecError(f"blocks {', '.join(map(str, blocks[:9]))}, expected 0 to {len(blocks) - 1}")
            return _Reader(library, bases[0], shapes, told, len(blocks)).read()
    raise SpecError("its keys are those of no library whose transformers are read")


def _fits(library: Library, base: str, shapes: Mapping[str, Shape]) -> bool:
    """Return whether the first matrix reads as many numbers as the first norm has, stored as it is or transposed."""
    rows = [row._replace(key=f"{base}{row.key}".replace("{}", "0")) for row in rows_of(library.blocks)]
    width = FORMS[rows[0].form].flat(shapes.get(rows[0].key, ()))[:1]
    return not width or width == next(
        (shapes[row.key] for row in rows if row.roles == "gain_1" and row.key in shapes), width
    )


@dataclass
class _Reader:
    """Reading of one state dict by one library's convention."""

    library: Library
    base: str
    """Text before the library's own keys."""
    shapes: Mapping[str, Shape]
    facts: dict[str, Any]
    blocks: int
    entries: list[LayoutEntry] = field(default_factory=list)
    """Layout that is found."""
    flat: dict[str, Shape] = field(default_factory=dict)
    """Roles of an entry -> shape of the network's tensors."""
    known: set[str] = field(default_factory=set)
    """Keys of the layout."""

    def read(self) -> Recognition:
        """Return what the state dict holds."""
        library, model_type = self.library, self.facts.pop("model_type", None)
        if model_type is not None and library.model_types and model_type not in library.model_types:
            expected = ", ".join(library.model_types)
            raise SpecError(f"model_type {quoted(str(model_type))}, expected {expected} with keys of {library.name}")
        inner = next((each for each in library.prefixes if self.base.endswith(each)), "")
        outer = self.base.removesuffix(inner)
        fields = dict(library.fields)
        fields |= library.fields_of_prefix.get(inner.removesuffix(".") or str(model_type), {})
        for row in rows_of(library.blocks):
            self._take(row, self.base)
        for row in rows_of(library.rest):
            self._take(row, self.base)
        if library.heads:
            fields |= self._take_head(outer, is_whole=bool(inner) or not library.prefixes)
        elif "W_Q W_K W_V" in self.flat:
            rows, own = find_surroundings(self.shapes, self.known, self.base, self.flat["W_Q W_K W_V"][0])
            for row in rows:
                self._take(row, "")
            fields |= own
        rest = [key for key, shape in self.shapes.items() if key not in self.known and 0 not in shape]
        if library.buffers:
            rest = [key for key in rest if not key.endswith(library.buffers)]
        others = tuple(f"{outer}{other}" for other in library.others)
        for head in library.heads:
            others += tuple(f"{outer}{row.key}" for row in rows_of((*head.rows, *head.tied)))
            others += tuple(f"{self.base}{row.key}" for row in rows_of(head.inner))
        left_out = tuple(key for key in rest if others and key.startswith(others))
        places = {key: place for place, key in enumerate(self.shapes)}
        self.entries.sort(key=lambda entry: places[entry.key.replace("{}", "0")])
        spec = self._spec(fields)
        uncertain = (*library.guessed, *(("final_norm",) if _is_norm_uncertain(spec, library) else ()))
        guessed = tuple(name for name in uncertain if name not in self.facts)
        unknown = tuple(key for key in rest if key not in left_out)
        return Recognition(spec, library, self.base, left_out, unknown, guessed)

    def _take(self, row: Row, base: str) -> bool:
        """Add a row to the layout if its key is there."""
        key = f"{base}{row.key}"
        numbers = range(self.blocks) if "{}" in row.key else range(1)
        present = [each for block in numbers if (each := key.replace("{}", str(block))) in self.shapes]
        if not present or math.prod(self.shapes[present[0]]) == 0:
            return False
        if len(present) < len(numbers) or len({self.shapes[each] for each in present}) > 1:
            missing = [each for block in numbers if (each := key.replace("{}", str(block))) not in self.shapes]
            raise SpecError(f"missing key {quoted(missing[0])}" if missing else f"{quoted(key)} differs among blocks")
        shape = self.shapes[present[0]]
        form = row.form
        if form == AUTO:
            form = next((name for name in ("batched", "middle", "single", "plain") if FORMS[name].flat(shape)), "plain")
        flat = FORMS[form].flat(shape)
        if not flat or (form == "plain" and len(flat) > 2):
            raise SpecError(f"{quoted(present[0])} has shape {shape}, expected that of {row.roles} ({form})")
        if row.roles == "prefix":
            count = sum(role.startswith("prefix.") for role in self.flat)
            row = row._replace(roles=f"prefix.{count}")
        if row.roles not in self.flat or self.flat[row.roles] == flat:
            self.entries.append(LayoutEntry(key, row.roles, form))
            self.flat[row.roles] = flat
            self.known.update(present)
            if form == "convolution":
                self.facts.update(channels=shape[1], patch=shape[2:])
        return True

    def _take_head(self, outer: str, is_whole: bool) -> dict[str, Any]:
        """Add the first head that is there to the layout, and return its fields."""
        for head in self.library.heads:
            needed = [f"{outer}{row.key}" for row in rows_of(head.rows) if row.form == "transposed"]
            needed += [f"{self.base}{row.key}" for row in rows_of(head.inner) if row.form == "transposed"]
            tied = [row for row in head.tied if f"{outer}{row.key}" in self.shapes]
            if head.tied and not needed and not tied and not is_whole:
                continue
            if not all(key in self.shapes for key in needed):
                continue
            for row in rows_of(head.rows):
                self._take(row, outer)
            for row in rows_of(head.inner):
                self._take(row, self.base)
            is_tied = bool(head.tied) and (not tied or bool(self.facts.get("tied")))
            for row in tied:
                self._take(Row(row.key, "words") if is_tied else row, outer)
            return {**head.fields, "tied": is_tied}
        return {}

    def _spec(self, fields: dict[str, Any]) -> StandardTransformerSpec:
        """Return the spec from the shapes, the library's fields and the facts.

        Raises:
            SpecError: a tensor is missing, or shapes or facts contradict each other.
        """
        flat = {role: shape for roles, shape in self.flat.items() for role in roles.split() if " " not in roles}
        sizes = {**self._attention_sizes(), **self._inputs(flat, fields)}
        for role in ("W_O", "W_1", "W_2"):
            if role not in flat:
                key = next((row.key for row in rows_of(self.library.blocks) if row.roles == role), role)
                raise SpecError(f"missing key '{self.base}{key.replace('{}', '0')}'")
        D, hidden = flat["W_1"]
        head = [flat[f"head.{s}.weight"] for s in range(9) if f"head.{s}.weight" in flat]
        if fields.get("tied"):
            head.append((D, sizes.get("vocabulary", 0)))
        final_norm = "after_pooling" if f"{self.base}fc_norm.weight" in self.shapes else "before_pooling"
        if "final_gain" not in flat and "final_shift" not in flat:
            final_norm = "none"
        given = {name: value for name, value in self.facts.items() if name in TRANSFORMER_FACTS and name != "tied"}
        values = {
            **{"width": D, "blocks": self.blocks, "hidden": hidden, "gated": "W_G" in flat},
            "final_norm": final_norm,
            **fields,
            **sizes,
            **{"head_sizes": (D, *(outputs for _, outputs in head)) if head else ()},
            "layout": tuple(self.entries),
        }
        values |= {name: value for name, value in given.items() if name not in ("heads", "groups", "key")}
        if values["inputs"] != "patches":
            values |= {"image": (0, 0), "patch": (0, 0), "channels": 0}
        try:
            full = StandardTransformerSpec(**values)
            roles = {role for roles in self.flat for role in roles.split()}
            absent = [role for role in (*rest_shapes(full), *block_shapes(full)) if role not in roles]
            spec = StandardTransformerSpec(**{**values, "absent": tuple(absent)})
        except ValueError as error:
            raise SpecError(str(error)) from None
        for key, shape in standard_shapes(spec).items():
            if self.shapes[key] != shape:
                raise SpecError(f"{quoted(key)} has shape {self.shapes[key]}, expected {shape}")
        return spec

    def _attention_sizes(self) -> dict[str, int]:
        """Return heads, groups, D_k and D_v, from shapes and facts."""
        heads, groups, key = (self.facts.get(name) for name in ("heads", "groups", "key"))
        if heads is None:
            raise SpecError("no shape tells the heads; expected config.json, --n_heads or n_attention_heads")
        if heads == 0:
            each = self.flat["W_Q"][1] if "W_Q" in self.flat else 1
            heads = each // math.gcd(each, self.flat.get("W_K", (0, each))[1])
        if "W_Q W_K W_V" in self.flat:
            together = self.flat["W_Q W_K W_V"][1]
            groups = groups or heads
            key = value = key or together // (heads + 2 * groups)
            if (heads + 2 * groups) * key != together:
                raise SpecError(f"{together} queries, keys and values, which {heads} heads do not divide")
        else:
            missing = next((name for name in ("W_Q", "W_K", "W_V") if name not in self.flat), None)
            if missing:
                raise SpecError(f"no key holds '{missing}' of the blocks")
            queries, keys, values = (self.flat[f"W_{name}"][1] for name in "QKV")
            key = key or queries // heads
            groups = groups or keys // max(key, 1)
            value = values // max(groups, 1)
            if (heads * key, groups * key, groups * value) != (queries, keys, values) or not key:
                raise SpecError(
                    f"{queries} queries, {keys} keys and {values} values, which {heads} heads do not divide"
                )
        return {"heads": heads, "groups": groups, "key": key, "value": value}

    def _inputs(self, flat: Mapping[str, Shape], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a spec that tell its inputs, prefix tokens and positions."""
        prefix = tuple(flat[role][0] for role in sorted(flat) if role.startswith("prefix."))
        found: dict[str, Any] = {
            "prefix": prefix,
            "embedding_norm": "embedding_gain" in flat or "embedding_shift" in flat,
        }
        found["patch_norm"] = "patch_gain" in flat
        if "words" in flat:
            found |= {"inputs": "words", "vocabulary": flat["words"][0]}
            found["token_types"] = flat["token_types"][0] if "token_types" in flat else 0
        elif "W_E" not in flat:
            found["inputs"] = "stream"
        elif "channels" in self.facts or self.library.fields.get("patch_norm"):
            numbers = flat["W_E"][0]
            likely = (count for count in (3, 1, 4, 2) if _root(numbers // count) ** 2 * count == numbers)
            channels = self.facts.get("channels") or next(likely, 1)
            side = _root(numbers // channels)
            found |= {"inputs": "patches", "channels": channels, "patch": self.facts.get("patch", (side, side))}
        else:
            found |= {"inputs": "vectors", "features": flat["W_E"][0]}
        found |= self._positions(flat, found)
        if not found["position_rows"] and fields.get("positions", "learned") == "learned":
            found["positions"] = "none"
        if "pooling" not in fields:
            found["pooling"] = "first" if prefix and f"{self.base}fc_norm.weight" not in self.shapes else "mean"
        return found

    def _positions(self, flat: Mapping[str, Shape], found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a spec that tell learned positions, and the images' size where their count tells it."""
        rows = flat["positions"][0] if "positions" in flat else 0
        if not rows or found["inputs"] != "patches":
            return {"position_rows": rows, **({"positions": "learned"} if rows else {})}
        (height, width), count = found["patch"], rows - sum(found["prefix"])
        if "image" in self.facts:
            image = self.facts["image"]
            on_prefix = rows != (image[0] // height) * (image[1] // width)
        else:
            on_prefix = _root(count) ** 2 == count
            side = _root(count if on_prefix else rows)
            image = (side * height, side * width) if side**2 in (count, rows) else (0, 0)
        return {"position_rows": rows, "positions": "learned", "positions_on_prefix": on_prefix, "image": image}


def _is_norm_uncertain(spec: StandardTransformerSpec, library: Library) -> bool:
    """Return whether a mean is taken before or after a norm that a user's own module has."""
    return not library.heads and spec.pooling == "mean" and spec.final_norm != "none"


def _root(number: int) -> int:
    return math.isqrt(max(number, 0))
