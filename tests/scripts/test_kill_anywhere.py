"""scripts/checks/kill_anywhere.py notices half-written files, and finds nothing lost at a few moments."""

import subprocess
import sys
from pathlib import Path

import killed_commands
import pytest

SCRIPT = Path(killed_commands.__file__).with_name("kill_anywhere.py")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"a": 1'),
        ("metrics.csv", b"epoch,loss\n1,0.5\n2,0."),
        ("best.safetensors", b"\x10"),
        ("state.pt", b"PK"),
        ("zoo.zip", b"PK"),
        ("picture.png", b"\x89PNG"),
    ],
)
def test_a_half_written_file_is_noticed_unless_its_name_says_so(tmp_path, name, content):
    (tmp_path / f".{name}.x.part").write_bytes(content)
    killed_commands.check_whole(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(killed_commands.Lost, match=f"{name}: is not whole"):
        killed_commands.check_whole(tmp_path)


def test_costs_and_places_do_not_count(tmp_path):
    contents = []
    for number in (1, 2):
        folder = tmp_path / f"moment_{number}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"epoch,seconds,peak_mib\n1,0.{number},{number}\n")
        (folder / "table.md").write_text(f"in {folder}/table\n\n## Costs\n\n{number} s\n\n## Missing\n")
        contents.append([killed_commands.content_of(path) for path in killed_commands.visible_files(folder)])
    assert contents[0] == contents[1]


def test_predictions_survive_kills():
    flags = ("--moments", "1", "--file_moments", "0", "--only", "prediction")
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 faults", done.stdout + done.stderr
