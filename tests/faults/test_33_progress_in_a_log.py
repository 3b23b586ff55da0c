"""Kind 33: where stderr is no terminal, making a zoo draws no bars, and tells its progress once in a while."""

import pytest

from nfn_transformer import make_zoo
from nfn_transformer.generation import progress_bar, workers

TINY = [
    *("--embed_dim", "6", "--hidden", "5", "--patch", "4", "--epochs", "2", "--runs", "6", "--population", "3"),
    *("--train_images", "48", "--test_images", "60", "--device", "cpu"),
]


def test_a_log_holds_no_bars(tmp_path, capsys):
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *TINY]) == 0
    assert capsys.readouterr().err == ""


def test_a_line_now_and_then_tells_the_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.0)
    assert make_zoo.main(["--out", str(tmp_path / "zoo"), *TINY]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["2/6 runs", "3/6 runs", "4/6 runs", "6/6 runs"]
    assert all("networks/s, about 00:0" in line and "\r" not in line for line in lines)


def test_lines_are_a_minute_apart(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    lines = progress_bar.LineNowAndThen()
    for second in range(0, 130, 10):
        now[0] = float(second)
        lines.show(f"at {second}")
    assert capsys.readouterr().err.splitlines() == ["at 60", "at 120"]


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_driver_of_workers_does_the_same(tmp_path, capsys, monkeypatch, seconds):
    class Work:
        path, left = tmp_path, 3

        def unfinished(self, total: int) -> list[int]:
            return list(range(self.left))

    class Worker:
        job = None

        def done(self) -> bool:
            Work.left = max(Work.left - 1, 0)
            return Work.left == 0

    class Launcher:
        def start(self, job, slot):
            Worker.job = job
            return Worker()

    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", seconds)
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0)
    workers.run_workers(["make_zoo.py"], 1, Launcher(), Work(), 3)
    expected = [] if seconds else ["1/3 populations", "2/3 populations"]
    assert capsys.readouterr().err.splitlines() == expected
