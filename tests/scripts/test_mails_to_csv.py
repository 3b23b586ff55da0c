"""scripts/zoos/mails_to_csv.py: messages in folders become tables that make_zoo.py reads."""

import subprocess
import sys
from pathlib import Path

import pytest

from nfn_transformer.generation.texts import read_texts

SCRIPT = Path(__file__).parents[2] / "scripts/zoos/mails_to_csv.py"
HTML = (
    b"Subject: Win\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=x\n\n"
    b"--x\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\n"
    b"PGI+V2luIG1vbmV5PC9iPiBub3c8YnI+IQ==\n--x--\n"
)


def _run(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def mails(tmp_path) -> Path:
    for name in ("ham", "spam"):
        (tmp_path / name).mkdir()
    for number in range(12):
        text = f"Subject: Report {number}\nFrom: a@b.c\n\nThe figures, as asked, are ready."
        (tmp_path / "ham" / f"{number}.txt").write_text(text)
    (tmp_path / "ham" / "again.txt").write_text((tmp_path / "ham/3.txt").read_text())
    (tmp_path / "ham" / "short.txt").write_text("Subject: Hi\n\nyes")
    (tmp_path / "ham" / "empty.txt").write_text("")
    for number in range(7):
        text = f"Subject: Buy {number}\n\nCheap, cheap, cheap: click http://x.y now!"
        (tmp_path / "spam" / f"{number}.txt").write_text(text)
    (tmp_path / "spam" / "html").write_bytes(HTML)
    return tmp_path


def test_messages_become_balanced_tables(mails):
    done = _run("--ham", mails / "ham", "--spam", mails / "spam", "--out", mails / "out", "--test_share", "0.25")
    assert done.returncode == 0, done.stderr
    assert "12 texts to train, 4 to test; 12 ham and 8 spam were there" in done.stdout
    train, test = read_texts(mails / "out")
    labels = [*train.labels, *test.labels]
    assert (labels.count(0), labels.count(1)) == (8, 8)
    texts = [" ".join(words) for words in (*train.words, *test.words)]
    assert len(set(texts)) == 16
    assert "win win money now !" in texts
    assert any(text.startswith("report 1") and text.endswith("the figures , as asked , are ready .") for text in texts)
    again = _run("--ham", mails / "ham", "--spam", mails / "spam", "--out", mails / "again", "--test_share", "0.25")
    assert again.returncode == 0
    for name in ("train.csv", "test.csv"):
        assert (mails / "again" / name).read_bytes() == (mails / "out" / name).read_bytes()


def test_mistakes_are_named(mails):
    done = _run("--ham", mails / "ham", "--spam", mails / "none", "--out", mails / "out")
    assert (done.returncode, done.stderr.strip()) == (2, f"error: {mails}/none: no such folder")
    (mails / "out").mkdir()
    done = _run("--ham", mails / "ham", "--spam", mails / "spam", "--out", mails / "out")
    assert (done.returncode, done.stderr.strip()) == (2, f"error: --out {mails}/out: already exists")
