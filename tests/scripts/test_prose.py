"""scripts/checks/prose.py: faults of docstrings, names and pages are reported; package and pages have none."""

from pathlib import Path

import prose
import pytest

LONG = "Each of these words is one of many " * 4


@pytest.fixture
def package(tmp_path) -> Path:
    (tmp_path / "package").mkdir()
    return tmp_path / "package"


def faults_of(package: Path, **modules: str) -> tuple[list[str], list[str]]:
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    faults, long_sentences = prose.find_faults(package)
    return [str(fault) for fault in faults], [str(fault) for fault in long_sentences]


def test_the_package_has_no_faults(capsys):
    status = prose.main()
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("opening", ["What", "Whether", "Of"])
def test_an_opening_is_a_fault_wherever_a_docstring_is(package, opening):
    text = f'"""{opening} it is."""\nA = 1\n"""{opening} it is."""\n'
    text += f'class B:\n    """{opening} it is."""\n    c: int\n    """{opening} it is."""\n'
    text += f'    def d(self):\n        """{opening} it is."""\n        x = """{opening} it is."""\n'
    faults, _ = faults_of(package, module=text)
    assert [fault.split(": ")[:2] for fault in faults] == [
        [f"package/module.py:{line}", "opening"] for line in (1, 3, 5, 7, 9)
    ]


def test_a_public_name_of_two_modules_is_a_fault(package):
    one = "from x import f\ndef a(): ...\n_b = 1\nc, d = 1, 2\ne: int = 1\n"
    other = "def f(): ...\nclass a: ...\n_b = 2\nc = 3\nmain = 1\nclass G:\n    d = 1\n    def e(self): ...\n"
    faults, _ = faults_of(package, one=one, other=other, third="main = 2\n")
    assert faults == [
        "package/one.py:2: name: a is defined in package/other.py:2 too",
        "package/one.py:4: name: c is defined in package/other.py:4 too",
    ]


def test_a_long_sentence_is_told_with_its_words(package):
    _, long_sentences = faults_of(package, module=f'"""Short.\n\n{LONG}\n"""\n')
    assert long_sentences == [f"package/module.py:1: sentence: 32 words: {LONG.strip()}"]


@pytest.mark.parametrize(
    "text",
    [
        "Each of these words is one of many. " * 8,
        f"An example:\n\n    {LONG}\n",
        f"A table:\n\nname     {LONG}\n",
        f"Return it.\n\nArgs:\n    first: {'many words ' * 10}\n    second: {'many words ' * 10}\n",
        f"`{LONG}` is code.",
        "A sum: a + b + c + d + e + f + g + h + i + j + k + l + m + n.",
    ],
)
def test_code_tables_arguments_and_symbols_make_no_sentence_long(package, text):
    assert faults_of(package, module=f'"""{text}"""\n') == ([], [])


def page_faults(folder: Path, text: str, name: str = "page.md") -> list[str]:
    (folder / name).write_text(text)
    return [fault.rule for fault in prose.find_page_faults(folder / name)]


def test_faults_of_a_page(tmp_path):
    sixteen = "Here each sentence has sixteen words and that is one more than a median may be. "
    assert page_faults(tmp_path, sixteen * 3) == ["median"]
    assert page_faults(tmp_path, "Short it is; short. " + "Short it is. " * 18) == ["semicolons"]
    assert page_faults(tmp_path, "Short it is; short. " + "Short it is. " * 20) == []
    assert page_faults(tmp_path, f"Short it is. It is. {LONG}.") == ["sentence"]


def test_code_tables_headings_and_commands_are_no_sentences_of_a_page(tmp_path):
    text = f"# A; {LONG}\n\n```\n; {LONG}\n```\n\n    ; {LONG}\n\n| ; {LONG} |\n\nShort `a; b`, [c](d;e).\n"
    assert page_faults(tmp_path, text) == []
    assert page_faults(tmp_path, f"- A; b {LONG}\n    and on.\n") == ["median", "sentence", "semicolons"]


def test_a_number_ends_a_sentence():
    page = "- Tau is 0.931. On fewer **networks** it is - of 5 - lower.\n1. It is 3. That is all.\n"
    expected = ["Tau is 0.931.", "On fewer **networks** it is - of 5 - lower.", "It is 3.", "That is all."]
    assert prose.split_page(page) == expected


def test_a_notebooks_markdown_is_a_page(tmp_path):
    cells = [{"cell_type": "code", "source": ["a; b"]}, {"cell_type": "markdown", "source": ["A is; ", "so."]}]
    assert page_faults(tmp_path, prose.json.dumps({"cells": cells}), "page.ipynb") == ["semicolons"]


def test_readme_and_all_pages_are_read():
    names = {path.name for path in prose.pages(prose.ROOT)}
    assert {"README.md", "results.md", "extending.md", "performance_gpu.md"} <= names
