"""The GPU report goes on past parts that fail or run too long, and writes each result as soon as it is there."""

import json

import gpu_report
import pytest
from gpu_report import Part


def part(name: str, source: str, tmp_path, limit: float = 60) -> Part:
    script = tmp_path / f"{name}.py"
    script.write_text(source)
    return Part(name, name.title(), str(script), "", "", limit)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    written = "import pathlib, sys\npathlib.Path(sys.argv[4]).write_text('[1, 2]')\nprint('| a |')"
    made = (
        part("broken", "print('before')\nraise ValueError('no such number')", tmp_path),
        part("endless", "import time\nprint('begun', flush=True)\ntime.sleep(600)", tmp_path, limit=3),
        part("sound", written, tmp_path),
    )
    monkeypatch.setattr(gpu_report, "PARTS", made)


def test_a_part_that_fails_or_runs_too_long_stops_no_other(parts, tmp_path):
    out = tmp_path / "out"
    assert gpu_report.main(["--out", str(out), "--device", "cpu"]) == 1
    broken, endless, sound = (json.loads(line) for line in (out / "report.jsonl").read_text().splitlines())
    assert broken["status"] == "failed with status 1"
    assert "no such number" in broken["stderr"]
    assert broken["stdout"] == "before\n"
    assert endless["status"] == "stopped after 3 s"
    assert endless["stdout"] == "begun\n"
    assert (sound["status"], sound["figures"]) == ("done", [1, 2])
    page = (out / "report.md").read_text()
    assert all(f"## {title}" in page for title in ("Broken", "Endless", "Sound"))
    assert "no such number" in page


def test_what_does_not_fit_into_the_time_is_left_out(parts, tmp_path):
    out = tmp_path / "out"
    assert gpu_report.main(["--out", str(out), "--device", "cpu", "--limit", "5", "--only", "sound"]) == 1
    (line,) = (out / "report.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "left out: no time"


def test_every_part_has_its_script():
    names = [part.name for part in gpu_report.PARTS]
    assert len(set(names)) == len(names)
    assert all((gpu_report.ROOT / part.script).is_file() for part in gpu_report.PARTS)
