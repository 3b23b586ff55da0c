"""Whether a zoo is sound enough to be used: few faults, one architecture, one shape."""

from collections.abc import Sequence

from nfn_transformer.errors import ZooError
from nfn_transformer.zoo.collecting import Signature
from nfn_transformer.zoo.faults import FaultReport
from nfn_transformer.zoo.printing import quoted

# In per cent, so that the comparison is exact.
ALLOWED_SHARE = 5

_MOST_LISTED = 20


def check_acceptable(
    report: FaultReport, signatures: Sequence[tuple[Signature, int]], where: str, allow_faulty: bool
) -> None:
    """Do nothing where the zoo may be used.

    Args:
        report: what was found.
        signatures: the shapes that are there and their counts, the most common first.
        where: the zoo, for messages.
        allow_faulty: use the sound checkpoints, however few they are.

    Raises:
        ZooError: more than 5 % carry unknown keys, have another shape, or are faulty (the last two
            unless `allow_faulty`), or none is sound; the message lists each fault.
    """
    problems = []
    if _too_many(len(report.stray_keys), report):
        keys = [f"{quoted(key)} ({count})" for key, count in report.stray_key_counts().items()]
        more = f" and {len(keys) - _MOST_LISTED} more" if len(keys) > _MOST_LISTED else ""
        problems.append(
            f"another architecture: {_share(len(report.stray_keys), report)} carry unknown keys: "
            f"{', '.join(keys[:_MOST_LISTED])}{more}"
        )
    several = len(signatures) > 1 and _too_many(signatures[1][1], report)
    if several and not allow_faulty:
        problems.append("\n  ".join(["more than one shape:", *_shape_lines(signatures)]))
    if not allow_faulty and _too_many(len(report.faults), report):
        problems.append(f"{_share(len(report.faults), report)} are faulty")
    if not report.used:
        problems.append(f"none of the {report.examined} checkpoints can be used")
    if not problems:
        return
    if _too_many(len(report.stray_keys), report) or not report.used:
        hint = ""
    elif several:
        hint = (
            " (--where COLUMN=VALUE,... reads a part by its metadata, --allow_faulty the most common shape, "
            "--all_sizes True all of them for --enc_mode complete)"
        )
    else:
        hint = " (--allow_faulty uses the others)"
    lines = [f"{where}: {'; '.join(problems)}{hint}", *(f"  {line}" for line in report.fault_lines())]
    raise ZooError("\n".join([*lines, *report.summary().splitlines()]))


def _too_many(count: int, report: FaultReport) -> bool:
    return 100 * count > ALLOWED_SHARE * report.examined


def _share(count: int, report: FaultReport) -> str:
    return f"{count} of {report.examined} checkpoints (more than {ALLOWED_SHARE} %)"


def _shape_lines(signatures: Sequence[tuple[Signature, int]]) -> list[str]:
    """A line for each shape: its count, and the sizes that are not the same in all of them."""
    listed = [(dict(signature.shapes), signature.heads, count) for signature, count in signatures]
    keys = list(dict.fromkeys(key for shapes, _, _ in listed for key in shapes))
    varying = [key for key in keys if len({shapes.get(key) for shapes, _, _ in listed}) > 1]
    lines = []
    for shapes, heads, count in listed[:_MOST_LISTED]:
        sizes = [f"'{key}' {shapes.get(key, 'not there')}" for key in varying[:_MOST_LISTED]]
        lines.append(f"{count} checkpoints: {', '.join([f'{heads} heads', *sizes])}")
    more = len(listed) - _MOST_LISTED
    return [*lines, f"and {more} more shapes"] if more > 0 else lines
