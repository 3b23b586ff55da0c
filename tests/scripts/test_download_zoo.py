"""Downloading a zoo: whole, resumed, complete already, faulty; from a server within this process."""

import hashlib
import io
import random
import re
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the script needs curl")


def make_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("mnist/run_75_9835.pt", random.Random(0).randbytes(100_000))
    return content.getvalue()


class Hub(ThreadingHTTPServer):
    """Answers as the Hub does: a redirect that tells size and checksum, then the file, in parts where asked."""

    def __init__(self, content: bytes):
        self.content = content
        self.sha256: str | None = hashlib.sha256(content).hexdigest()
        self.tells_size = self.knows_ranges = self.answers_head = True
        self.cuts: list[int] = []  # after how many bytes the connection of each of the next answers breaks
        self.refusals: list[int] = []  # the status of each of the next answers
        self.ranges: list[str | None] = []
        self.sent = 0
        super().__init__(("127.0.0.1", 0), HubHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_): ...

    def do_HEAD(self):
        if not self.path.startswith("/storage/"):
            return self.redirect()
        self.send_response(200 if self.server.answers_head else 403)
        if self.server.tells_size:
            self.send_header("Content-Length", str(len(self.server.content)))
        return self.end_headers()

    def do_GET(self):
        if not self.path.startswith("/storage/"):
            return self.redirect()
        hub, wanted = self.server, self.headers["Range"]
        hub.ranges.append(wanted)
        if hub.refusals:
            return self.send_error(hub.refusals.pop(0))
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and hub.knows_ranges else 0
        if start >= len(hub.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
        if hub.tells_size:
            self.send_header("Content-Length", str(len(hub.content) - start))
        self.end_headers()
        part = hub.content[start:][: hub.cuts.pop(0) if hub.cuts else None]
        self.wfile.write(part)
        hub.sent += len(part)
        return None

    def redirect(self):
        if self.path not in ("/MNIST-Transformers.zip", "/AG-News-Transformers.zip"):
            return self.send_error(404)
        self.send_response(302)
        self.send_header("Location", f"/storage{self.path}")
        self.send_header("Content-Length", "0")
        if self.server.sha256 is not None:
            self.send_header("X-Linked-Size", str(len(self.server.content)))
            self.send_header("X-Linked-ETag", f'"{self.server.sha256}"')
        return self.end_headers()


@pytest.fixture
def hub():
    with Hub(make_zip()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(scripts, hub):
    scripts.add_program("sleep", "")
    return lambda *names: scripts.run("download_zoo.sh", *names, ZOO_URL=hub.url)


@pytest.fixture
def zoo(scripts):
    return scripts.root / "data/mnist_transformer.zip"


@pytest.fixture
def part(zoo):
    zoo.parent.mkdir()
    return zoo.with_name("mnist_transformer.zip.part")


def assert_complete(result, zoo, hub):
    assert (result.returncode, result.stderr) == (0, "")
    assert zoo.read_bytes() == hub.content
    assert not zoo.with_name(f"{zoo.name}.part").exists()


def test_both_zoos_by_default(download, zoo, hub):
    assert_complete(download(), zoo, hub)
    assert sorted(path.name for path in zoo.parent.iterdir()) == ["ag_news_transformer.zip", "mnist_transformer.zip"]


def test_one_zoo_by_name(download, scripts, hub):
    assert_complete(download("ag_news"), scripts.root / "data/ag_news_transformer.zip", hub)
    assert len(hub.ranges) == 1


def test_a_cut_part_is_completed(download, zoo, part, hub):
    part.write_bytes(hub.content[:70_000])
    assert_complete(download("mnist"), zoo, hub)
    assert hub.ranges == ["bytes=70000-"]
    assert hub.sent == len(hub.content) - 70_000


def test_a_broken_connection_is_taken_up_where_it_broke(download, zoo, hub):
    hub.cuts = [30_000]
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content
    assert hub.ranges == [None, "bytes=30000-"]


def test_attempts_that_bring_something_are_not_counted(download, zoo, hub):
    hub.cuts = [10_000] * 8
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content
    assert hub.ranges == [None, *(f"bytes={taken}0000-" for taken in range(1, 9))]


def test_attempts_that_bring_nothing_are_counted_anew_after_one_that_does(download, zoo, hub):
    hub.cuts = [0, 0, 0, 0, 10_000, 0, 0, 0, 0]
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content
    assert len(hub.ranges) == 10


def test_five_attempts_that_bring_nothing_are_an_error(download, zoo, part, hub):
    part.write_bytes(hub.content[:70_000])
    hub.cuts = [10_000, 0, 0, 0, 0, 0]
    result = download("mnist")
    assert result.returncode == 1
    message = "5 attempts in a row brought nothing new; the same command goes on from"
    assert f"{hub.url}/MNIST-Transformers.zip: {message} data/{part.name} (80000 bytes)" in result.stderr
    assert len(hub.ranges) == 6
    assert_complete(download("mnist"), zoo, hub)


def test_a_server_that_cannot_resume_and_always_breaks_off_is_an_error(download, hub):
    hub.knows_ranges = False
    hub.cuts = [10_000] * 100
    result = download("mnist")
    assert result.returncode == 1
    assert "5 attempts in a row brought nothing new" in result.stderr


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_an_error_at_once(download, part, hub, status):
    part.write_bytes(hub.content[:70_000])
    hub.refusals = [status] * 5
    result = download("mnist")
    assert result.returncode == 1
    assert f"error: {hub.url}/MNIST-Transformers.zip: expected a zip, found HTTP status {status}\n" in result.stderr
    assert hub.ranges == ["bytes=70000-"]
    assert part.read_bytes() == hub.content[:70_000]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_refusal_that_may_pass_is_asked_again(download, zoo, hub, status):
    hub.refusals = [status] * 4
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content
    assert len(hub.ranges) == 5


def test_a_complete_part_is_not_asked_for(download, zoo, part, hub):
    part.write_bytes(hub.content)
    assert_complete(download("mnist"), zoo, hub)
    assert hub.ranges == []


def test_a_complete_part_of_unknown_size(download, zoo, part, hub):
    hub.sha256, hub.tells_size = None, False
    part.write_bytes(hub.content)
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content
    assert hub.ranges == [f"bytes={len(hub.content)}-"]  # answered by 416


def test_a_server_that_cannot_resume_sends_all(download, zoo, part, hub):
    hub.knows_ranges = False
    part.write_bytes(hub.content[:70_000])
    result = download("mnist")
    assert result.returncode == 0, result.stderr
    assert zoo.read_bytes() == hub.content


def test_storage_that_refuses_the_question_for_headers(download, zoo, hub):
    hub.answers_head = False
    assert_complete(download("mnist"), zoo, hub)


def test_a_wrong_checksum_is_an_error_and_the_next_try_begins_anew(download, zoo, hub):
    right, hub.sha256 = hub.sha256, "0" * 64
    result = download("mnist")
    assert result.returncode == 1
    expected = f"data/mnist_transformer.zip.part: expected SHA-256 {hub.sha256}, found {right}; removed"
    assert expected in result.stderr
    assert list(zoo.parent.iterdir()) == []
    hub.sha256 = right
    assert_complete(download("mnist"), zoo, hub)
    assert hub.ranges == [None, None]


def test_a_part_that_is_too_long(download, zoo, part, hub):
    part.write_bytes(hub.content + b"more")
    result = download("mnist")
    assert result.returncode == 1
    size = len(hub.content)
    assert f"{part.name}: expected {size} bytes, found {size + 4}; removed" in result.stderr
    assert list(zoo.parent.iterdir()) == []


def test_without_a_checksum_it_says_so(download, zoo, hub):
    hub.sha256 = None
    result = download("mnist")
    assert_complete(result, zoo, hub)
    assert "the server tells no SHA-256" in result.stdout


@pytest.mark.parametrize("tells_sha256", [True, False])
def test_what_is_no_zip_is_an_error(download, zoo, hub, tells_sha256):
    hub.content = b"<html>Sign in</html>"
    hub.sha256 = hashlib.sha256(hub.content).hexdigest() if tells_sha256 else None
    result = download("mnist")
    assert result.returncode == 1
    assert "data/mnist_transformer.zip.part: expected a zip" in result.stderr
    assert list(zoo.parent.iterdir()) == []


def test_an_existing_file_is_left_alone(download, zoo, hub):
    zoo.parent.mkdir()
    zoo.write_text("the user's own")
    result = download("mnist")
    assert (result.returncode, result.stdout) == (0, "data/mnist_transformer.zip is there already and left alone\n")
    assert zoo.read_text() == "the user's own"
    assert hub.ranges == []


def test_a_missing_file_is_named(scripts, hub):
    result = scripts.run("download_zoo.sh", "mnist", ZOO_URL=f"{hub.url}/overrides")
    assert result.returncode == 1
    assert f"{hub.url}/overrides/MNIST-Transformers.zip: expected a zip, found HTTP status 404" in result.stderr


def test_an_unknown_zoo_is_a_mistake(download, scripts):
    result = download("mnist", "cifar10")
    assert result.returncode == 2
    assert "no released zoo 'cifar10'" in result.stderr
    assert not (scripts.root / "data").exists()
