"""Check the package's docstrings and public names, README and the pages of docs/ by the rules of the house.

    python scripts/checks/prose.py

It prints one line per fault, `PATH:LINE: RULE: TEXT`, and ends with status 1 where there is any.

opening: no docstring begins with one of OPENINGS.
name: no public name is defined by two modules, unless SHARED_NAMES gives a reason.
sentence: no sentence of a page, and at most LONG_SENTENCES of docstrings, have more than MAX_WORDS words.
median: a page's sentences have a median of at most MAX_MEDIAN words.
semicolons: less than MAX_SEMICOLONS of a page's sentences have one.

Pages are README.md, and the Markdown files and notebooks of docs/. Their code, commands, tables and headings are no
sentences.
"""

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nfn_transformer"

OPENINGS = ("What", "Whether", "Of")
MAX_WORDS = 25

MAX_MEDIAN = 15
MAX_SEMICOLONS = 0.05

LONG_SENTENCES = 0
"""Number of longer sentences that are tolerated. It is only ever lowered."""

SHARED_NAMES = {
    **dict.fromkeys(("main", "build_parser", "run_config", "COMMAND"), "every command's program has its own"),
    "LIBRARY": "every module of a tree library has its own, which `trees.libraries` looks up",
}
"""Public names that several modules define, and the reason."""

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|References|Shapes?):$")
_TABLE = re.compile(r"\S {3,}\S")
_LIST_ITEM = re.compile(r"^(?:[-*]|\d+\.)\s")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\[(\d])")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Fault:
    """Breach of a rule."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def iterate_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and unindented text of every docstring, those under assignments included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            previous: ast.stmt | None = None
            for statement in node.body:
                documents = previous is None or isinstance(previous, ast.Assign | ast.AnnAssign)
                if documents and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    text = statement.value.value
                    if isinstance(text, str):
                        margin = "\n" + " " * statement.col_offset
                        yield statement.lineno, text.replace(margin, "\n")
                previous = statement


def split_sentences(docstring: str) -> list[str]:
    """Return the sentences of a docstring's prose, without its code, tables and headings of sections."""
    paragraphs: list[list[str]] = [[]]
    in_section, after_blank = False, False
    for line in _FENCED.sub("", docstring).splitlines():
        indent, words = len(line) - len(line.lstrip()), line.strip()
        is_code = not in_section and indent >= 4 and (after_blank or not paragraphs[-1])
        starts = not words or words.startswith(("- ", "* ")) or (in_section and indent <= 4)
        if starts or is_code or _TABLE.search(words) or _SECTION.match(words):
            paragraphs.append([])
        if _SECTION.match(words):
            in_section = True
        elif words and not is_code and not _TABLE.search(words):
            in_section = in_section and indent > 0
            paragraphs[-1].append(words)
        after_blank = not words or is_code
    return [sentence for lines in paragraphs for sentence in _SENTENCE_END.split(" ".join(lines)) if sentence]


def count_words(sentence: str) -> int:
    """Return the number of words; symbols alone are none, and a formula in backticks is one."""
    return len([word for word in re.sub(r"`[^`]*`", "code", sentence).split() if re.search(r"\w", word)])


def public_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of every public class, function and constant of a module."""
    for statement in tree.body:
        names: list[str] = []
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        yield from ((statement.lineno, name) for name in names if not name.startswith("_"))


def find_faults(package: Path) -> tuple[list[Fault], list[Fault]]:
    """Return the faults of a package's openings and names, and its long sentences."""
    faults, long_sentences = [], []
    definitions = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        tree, short = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(package.parent)
        for line, text in iterate_docstrings(tree):
            words = text.split()
            if words and words[0] in OPENINGS:
                faults.append(Fault(short, line, "opening", " ".join(words[:8])))
            for sentence in split_sentences(text):
                if (count := count_words(sentence)) > MAX_WORDS:
                    long_sentences.append(Fault(short, line, "sentence", f"{count} words: {sentence}"))
        for line, name in public_names(tree):
            definitions[name].append((short, line))
    for name, modules in definitions.items():
        if name not in SHARED_NAMES and len({path for path, _ in modules}) > 1:
            listed = ", ".join(f"{path}:{line}" for path, line in modules[1:])
            faults.append(Fault(*modules[0], "name", f"{name} is defined in {listed} too"))
    return faults, long_sentences


def read_page(path: Path) -> str:
    """Return the Markdown of a page; of a notebook, that of its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def split_page(markdown: str) -> list[str]:
    """Return the sentences of Markdown, without its code, commands, tables, pictures and headings."""
    paragraphs: list[list[str]] = [[]]
    is_fenced, in_list = False, False
    for line in markdown.splitlines():
        words = line.strip()
        if words.startswith("```"):
            is_fenced = not is_fenced
        indent = len(line) - len(line.lstrip())
        is_code = is_fenced or words.startswith("```") or (indent >= 4 and not paragraphs[-1] and not in_list)
        if is_code or not words or words.startswith(("#", "|", "![", ":::")) or _LIST_ITEM.match(words):
            paragraphs.append([])
        if _LIST_ITEM.match(words):
            in_list = True
        elif words and indent == 0:
            in_list = in_list and bool(paragraphs[-1])
        if not is_code and not words.startswith(("#", "|", "![", ":::")) and words:
            paragraphs[-1].append(_LIST_ITEM.sub("", words, count=1))
    joined = [re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "`code`", " ".join(lines))) for lines in paragraphs]
    return [sentence for text in joined for sentence in _SENTENCE_END.split(text) if count_words(sentence)]


def find_page_faults(path: Path) -> list[Fault]:
    """Return the faults of a page's sentences."""
    sentences, faults = split_page(read_page(path)), []
    if not sentences:
        return []
    words = median(map(count_words, sentences))
    if words > MAX_MEDIAN:
        faults.append(Fault(path, 1, "median", f"{words:g} words a sentence, expected at most {MAX_MEDIAN}"))
    for sentence in sentences:
        if (count := count_words(sentence)) > MAX_WORDS:
            faults.append(Fault(path, 1, "sentence", f"{count} words: {sentence}"))
    broken = [sentence for sentence in sentences if ";" in sentence]
    if len(broken) >= MAX_SEMICOLONS * len(sentences):
        listed = " | ".join(broken)
        faults.append(Fault(path, 1, "semicolons", f"in {len(broken)} of {len(sentences)} sentences: {listed}"))
    return faults


def pages(root: Path) -> list[Path]:
    """Return the paths of README.md and of the pages below docs/."""
    found = [path for suffix in ("md", "ipynb") for path in (root / "docs").rglob(f"*.{suffix}")]
    return [root / "README.md", *sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)]


def main() -> int:
    """Print the faults; return 1 where there is any."""
    faults, long_sentences = find_faults(PACKAGE)
    if len(long_sentences) > LONG_SENTENCES:
        faults += long_sentences
    faults += [fault for path in pages(ROOT) for fault in find_page_faults(path)]
    print(*faults, f"{len(long_sentences)} long sentences, of {LONG_SENTENCES} that are tolerated", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
