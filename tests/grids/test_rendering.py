"""A table as Markdown, LaTeX, CSV and a picture: numbers, marks of what is missing, and names with any characters."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from table_by_hand import NAN, grid, result, results

from nfn_transformer.atomic_files import write_csv
from nfn_transformer.grids import rendering
from nfn_transformer.grids.figure import save_figure
from nfn_transformer.grids.grid_file import Published
from nfn_transformer.grids.results_table import Table, build_table

TAUS = {
    ("A", "x"): [0.9, 0.8, 0.7],
    ("B", "x"): [0.5, 0.4, None],
    ("C", "x"): [0.25, NAN, 0.25],
    ("A", "y"): [0.125, None, None],
    ("B", "y"): [NAN, NAN, NAN],
}
PUBLISHED = {("A", "x"): Published(0.905, 0.002), ("B", "y"): Published(0.902, None)}


def table(**settings) -> Table:
    return build_table(grid(rows="A B C", columns="x y", **settings), results(TAUS))


def markdown(made: Table, command: str, problems: list[str]) -> str:
    """With `--` for what is absent."""
    return rendering.markdown(made, command, problems).replace(rendering.DASH, "--")


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_markdown():
    text = markdown(table(published=PUBLISHED, reference_row="A"), "python command", [])
    assert text.startswith("# A table\n\nAbout it.\n\n    python command\n\n")
    assert lines_of(text, "|")[:5] == [
        "|  | x | y |",
        "| --- | --- | --- |",
        "| A | **0.800 ± 0.058** (0.905 ± 0.002) | 0.125 [1 of 3 seeds] (--) |",
        "| B | 0.450 ± 0.050 [2 of 3 seeds] (--) | nan [tau undefined in 3] (0.902) |",
        "| C | 0.250 ± 0.000 [tau undefined in 1] (--) | -- [0 of 3 seeds] (--) |",
    ]
    assert "over seeds 1, 2, 3;" in text
    assert "Test networks: x 15, y 15. " in text
    assert "In parentheses: published (a paper); --: no published number is at hand." in text
    assert lines_of(text, "| x |") == [
        "| x | B minus A | -0.400 | -- | -- | 0 of 2 |",
        "| x | C minus A | -0.550 | [-2.069, +0.969] | 0.136 | 0 of 2 |",
    ]
    assert "Nadeau and Bengio" in text
    assert "## Missing" not in text


def test_markdown_without_published_numbers_names_problems():
    found = markdown(table(), "c", ["row 'a|b' failed:\nlast words"])
    assert "| A | **0.800 ± 0.058** | 0.125 [1 of 3 seeds] |" in found
    assert "No published numbers" in found
    assert "Paired comparisons" not in found
    assert found.endswith("## Missing\n\n- row 'a\\|b' failed: last words\n")


def test_trainings_that_ended_early_are_marked():
    found = {("A", "all", 1): result(0.5, status="the loss was not finite")}
    text = markdown(build_table(grid(rows="A", seeds=(1,)), found), "c", [])
    assert "| A | 0.500 [1 stopped early] |" in text


def test_one_seed_has_no_interval():
    taus = {("A", "all"): [0.5], ("B", "all"): [0.75]}
    text = markdown(build_table(grid(seeds=(1,), reference_row="A"), results(taus)), "c", [])
    assert "| B | **0.750** |" in text
    assert "| all | B minus A | +0.250 | -- | -- | 1 of 1 |" in text


def test_costs_of_the_rows():
    costs = {("x", 1): (1200, 0.5), ("x", 2): (1200, 0.25), ("y", 1): (1300, 2.0)}
    found = {
        ("A", column, seed): replace(result(0.5), parameters=count, epoch_seconds=seconds, peak_mib=3000 - count)
        for (column, seed), (count, seconds) in costs.items()
    }
    found["B", "x", 1] = result(0.5)
    found["C", "x", 1] = replace(result(0.5), peak_mib=412.6)  # trees
    text = markdown(build_table(grid(rows="A B C", columns="x y"), found), "c", [])
    assert "| A | 1,200 to 1,300 | 0.25 to 2 | 1,700 to 1,800 |" in text
    assert "| C | -- | -- | 413 |" in text
    unknown = {("A", "x", 1): replace(result(0.5), parameters=1200)}
    assert "| A | 1,200 | -- | -- |" in markdown(build_table(grid(columns="x y"), unknown), "c", [])
    assert not lines_of(text.split("## Costs")[1], "| B")
    assert "## Costs" not in markdown(table(), "c", [])


def test_latex():
    assert rendering.latex(table(published=PUBLISHED)).splitlines() == [
        "% A table: Kendall's tau, mean and standard error over 3 seeds",
        r"% Needs \usepackage{booktabs}.",
        r"\begin{tabular}{lcc}",
        r"\toprule",
        r" & x & y \\",
        r"\midrule",
        r"A & {\boldmath$0.800 \pm 0.058$} ($0.905 \pm 0.002$) & $0.125$ [1 of 3 seeds] (--) \\",
        r"B & $0.450 \pm 0.050$ [2 of 3 seeds] (--) & nan [tau undefined in 3] ($0.902$) \\",
        r"C & $0.250 \pm 0.000$ [tau undefined in 1] (--) & -- [0 of 3 seeds] (--) \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_escapes_names():
    made = build_table(grid(rows=r"a_b&c 50%|$x$ ~^\{}#", columns="e_f", seeds=(1,)), {})
    found = rendering.latex(made).splitlines()
    assert found[4] == r" & e\_f \\"
    assert [line.split(" & ")[0] for line in found[6:9]] == [
        r"a\_b\&c",
        r"50\%|\$x\$",
        r"\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\#",
    ]


def test_markdown_keeps_a_bar_in_a_name_within_its_cell():
    text = markdown(build_table(grid(rows="a|b c%_&d", columns="e|f", seeds=(1,)), {}), "c", [])
    assert lines_of(text, "|") == [
        r"|  | e\|f |",
        "| --- | --- |",
        r"| a\|b | -- [0 of 1 seeds] |",
        "| c%_&d | -- [0 of 1 seeds] |",
    ]


def read_back(header: list[str], rows: list[list], folder: Path) -> list[dict[str, str]]:
    write_csv(folder / "table.csv", header, rows)
    return list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))


def test_csv_of_the_table(tmp_path):
    made = table(published=PUBLISHED)
    found = read_back(rendering.summary_header(made), rendering.summary_rows(made), tmp_path)
    by_place = {(row.pop("row"), row.pop("column")): row for row in found}
    assert list(by_place) == [(row, column) for column in "xy" for row in "ABC"]
    first = by_place["A", "x"]
    assert float(first.pop("tau_mean")) == made.summaries["A", "x"].mean
    assert float(first.pop("tau_standard_error")) == made.summaries["A", "x"].standard_error
    assert first == {
        "seeds": "3", "undefined": "0", "stopped_early": "0", "best": "True",
        "published_mean": "0.905", "published_standard_error": "0.002",
    }  # fmt: skip
    assert by_place["B", "y"] == {
        "tau_mean": "", "tau_standard_error": "", "seeds": "3", "undefined": "3", "stopped_early": "0",
        "best": "False", "published_mean": "0.902", "published_standard_error": "",
    }  # fmt: skip
    assert by_place["C", "y"]["seeds"] == "0"


def test_csv_of_the_cells(tmp_path):
    found = read_back(rendering.cell_header(table()), rendering.cell_rows(table()), tmp_path)
    assert len(found) == 3 + 2 + 3 + 1 + 3
    assert found[0] == {
        "row": "A", "column": "x", "seed": "1", "tau": "0.9", "tau_low": "0.8", "tau_high": "1.0", "r2": "0.5",
        "mae": "0.125", "validation_tau": "0.91", "train_networks": "70", "test_networks": "15", "status": "complete",
        "parameters": "", "epoch_seconds": "", "peak_mib": "",
    }  # fmt: skip
    (undefined,) = [row for row in found if (row["row"], row["column"], row["seed"]) == ("C", "x", "2")]
    assert (undefined["tau"], undefined["mae"]) == ("", "0.125")


def size(made: Table, path: Path) -> tuple[int, int]:
    save_figure(made, path)
    assert {file.name for file in path.parent.iterdir()} == {path.name}
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_the_figure_grows_with_the_rows(tmp_path):
    width, height = size(table(published=PUBLISHED), tmp_path / "figure.png")
    assert width == 7 * 150
    assert 300 <= height <= 600
    many = grid(rows=" ".join(f"row{number}" for number in range(20)), columns="x")
    assert size(build_table(many, {}), tmp_path / "figure.png") > (width, 2 * height)


def drawn(made: Table, path: Path) -> bytes:
    size(made, path)
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_the_figure_shows_results_and_published_numbers(tmp_path):
    pictures = {
        drawn(build_table(grid(columns="x y"), {}), tmp_path / "figure.png"),
        drawn(build_table(grid(columns="x y"), results({("A", "x"): [0.5, 0.6, 0.7]})), tmp_path / "figure.png"),
        drawn(build_table(grid(columns="x y"), results({("A", "y"): [0.5, 0.6, 0.7]})), tmp_path / "figure.png"),
        drawn(build_table(grid(columns="x y"), results({("A", "y"): [0.6, 0.6, 0.6]})), tmp_path / "figure.png"),
        drawn(build_table(grid(columns="x y"), results({("A", "y"): [0.5, None, None]})), tmp_path / "figure.png"),
        drawn(build_table(grid(columns="x y", published=PUBLISHED), {}), tmp_path / "figure.png"),
    }
    assert len(pictures) == 6


@pytest.mark.parametrize("names", [r"50%|a_b&c $\bad{$", r"$a_b$ \frac#~^{}"])
def test_the_figure_takes_any_name(names, tmp_path):
    made = grid(rows=names, columns=names, title=names)
    assert size(build_table(made, {}), tmp_path / "figure.png")[0] == 7 * 150


def curves(taus: dict, sizes: dict[str, int], reference: str | None = None) -> Table:
    """A table whose columns learned from so many networks."""
    names = " ".join(dict.fromkeys(row for row, _ in taus))
    found = {}
    for (row, column), values in taus.items():
        found |= results({(row, column): values}, train=sizes[column])
    return build_table(grid(rows=names, columns=" ".join(sizes), figure="curves", reference_row=reference), found)


def test_learning_curves_lie_over_the_number_of_training_networks(tmp_path):
    taus = {
        ("A", "x"): [0.5, 0.6, 0.7],
        ("A", "y"): [0.7, 0.8, 0.9],
        ("B", "x"): [NAN, NAN, NAN],
        ("B", "y"): [0.4, 0.5, 0.6],
    }
    pictures = [
        drawn(curves(taus, {"x": 100, "y": 400}), tmp_path / "figure.png"),
        drawn(curves(taus, {"x": 50, "y": 400}), tmp_path / "figure.png"),
        drawn(curves(taus, {"x": 100, "y": 400}, reference="A"), tmp_path / "figure.png"),
        drawn(curves(taus | {("B", "y"): [0.4, 0.5, None]}, {"x": 100, "y": 400}), tmp_path / "figure.png"),
        drawn(curves({("A", "x"): [None] * 3}, {"x": 100}), tmp_path / "figure.png"),
    ]
    assert len(set(pictures)) == len(pictures)


def test_learning_curves_of_columns_out_of_order_are_drawn_in_order(tmp_path):
    taus = {("A", "x"): [0.5, 0.6, 0.7], ("A", "y"): [0.7, 0.8, 0.9], ("A", "z"): [0.9, 0.9, 0.8]}
    one = drawn(curves(taus, {"x": 100, "y": 200, "z": 400}), tmp_path / "figure.png")
    assert drawn(curves(taus, {"z": 400, "x": 100, "y": 200}), tmp_path / "figure.png") == one
