"""Downloads from a server on loopback: whole, cut short, resumed, wrong, missing, refused; nothing half-written."""

import hashlib
import http.server
import io
import re
import socket
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from fer_tf.card import ModelCard
from fer_tf.data import download as room
from fer_tf.data.download import SOURCES, DownloadError, Source, download

FILE = np.random.default_rng(0).bytes(300_000)
DIGEST = f"sha256:{hashlib.sha256(FILE).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.stop_after` bytes of a body, then hangs up; honours Range if `server.ranges`."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers["Range"]))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(self.headers["Range"][6:-1]) if server.ranges and self.headers["Range"] else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if server.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {"/a.bin": FILE}
        server.requests, server.ranges, server.lengths, server.stop_after = [], True, True, None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def source(server):
    return Source(path="folder/a.bin", urls=(f"{server.url}/a.bin",), digest=DIGEST, terms="none")


def fetch(source, folder, **options):
    return download("a", target=folder / "a.bin", sources={"a": source}, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetches_a_whole_file(source, tmp_path):
    seen = []
    path = fetch(source, tmp_path, progress=lambda *state: seen.append(state))
    assert path.read_bytes() == FILE
    assert names(tmp_path) == ["a.bin"]
    assert seen[-1] == (len(FILE), len(FILE)) and seen == sorted(seen)


def test_its_place_is_below_the_data_folder(source, tmp_path, monkeypatch):
    monkeypatch.setattr(room.paths, "DATA", tmp_path)
    assert download("a", sources={"a": source}) == tmp_path / "folder" / "a.bin"


def test_a_file_that_is_there_is_checked_and_not_fetched(source, server, tmp_path):
    (tmp_path / "a.bin").write_bytes(FILE)
    assert fetch(source, tmp_path) == tmp_path / "a.bin"
    (tmp_path / "a.bin").write_bytes(FILE[:-1])
    with pytest.raises(FileExistsError, match=r"a\.bin has sha256:.*move it away"):
        fetch(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == FILE[:-1]
    assert server.requests == []


def test_a_file_put_there_by_hand_serves_instead(source, server, tmp_path):
    source = replace(source, instead={"b.bin": f"md5:{hashlib.md5(b'other').hexdigest()}"})
    (tmp_path / "b.bin").write_bytes(b"other")
    assert fetch(source, tmp_path) == tmp_path / "b.bin"
    (tmp_path / "b.bin").write_bytes(b"spoilt")
    with pytest.raises(FileExistsError, match=r"b\.bin has md5:"):
        fetch(source, tmp_path)
    assert server.requests == []


@pytest.mark.parametrize("ranges", [True, False], ids=["continues", "starts again"])
def test_a_download_cut_short_is_resumed(ranges, source, server, tmp_path):
    server.ranges, server.stop_after = ranges, 100_000
    with pytest.raises(DownloadError, match=r"broke off after 100,000 of 300,000 bytes.*run this again"):
        fetch(source, tmp_path)
    assert names(tmp_path) == ["a.bin.part"]
    server.stop_after = None
    seen = []
    assert fetch(source, tmp_path, progress=lambda *state: seen.append(state)).read_bytes() == FILE
    assert names(tmp_path) == ["a.bin"]
    assert server.requests == [("/a.bin", None), ("/a.bin", "bytes=100000-")]
    assert seen[0][0] > (100_000 if ranges else 0) and seen[-1] == (300_000, 300_000)


def test_an_interrupted_download_is_resumed(source, server, tmp_path):
    def interrupt(have, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source, tmp_path, progress=interrupt)
    assert names(tmp_path) == ["a.bin.part"]
    assert fetch(source, tmp_path).read_bytes() == FILE
    assert server.requests[1][1] == f"bytes={room.CHUNK}-"


def test_a_part_that_was_whole_is_taken(source, server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(FILE)  # stopped between the last byte and the check
    assert fetch(source, tmp_path).read_bytes() == FILE
    assert names(tmp_path) == ["a.bin"]


def test_a_part_of_another_file_is_deleted(source, server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match="instead of sha256:"):
        fetch(source, tmp_path)
    assert fetch(source, tmp_path).read_bytes() == FILE


@pytest.mark.parametrize("lengths", [True, False], ids=["length", "no length"])
def test_a_wrong_file_is_deleted(lengths, source, server, tmp_path):
    server.files["/a.bin"], server.lengths = b"version https://git-lfs.github.com/spec/v1", lengths
    with pytest.raises(DownloadError, match=rf"a\.bin sent a file with sha256:\w+ instead of {DIGEST}: deleted"):
        fetch(source, tmp_path)
    assert names(tmp_path) == []


def test_a_missing_file_says_so(source, server, tmp_path):
    server.files.clear()
    with pytest.raises(DownloadError, match=r"a\.bin answers 404 Not Found"):
        fetch(source, tmp_path)
    assert names(tmp_path) == []


def test_no_network_says_so_and_how_to_do_it_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:  # bound but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
        source = Source(path="a.bin", urls=(url,), digest=DIGEST, terms="none", by_hand="unpack a.bin from the site")
        words = rf"did not arrive.*refused.*check the network.*by hand: unpack a\.bin.*into {re.escape(str(tmp_path))}"
        with pytest.raises(DownloadError, match=words):
            fetch(source, tmp_path)
    assert names(tmp_path) == []


def test_the_second_url_helps_out(source, server, tmp_path):
    source = replace(source, urls=(f"{server.url}/gone/a.bin", *source.urls))
    assert fetch(source, tmp_path).read_bytes() == FILE
    assert [path for path, _ in server.requests] == ["/gone/a.bin", "/a.bin"]


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (zipped(a_bin=FILE), None),
        (zipped(README_md=b"words", fer__a_bin=FILE), None),
        (zipped(b_bin=FILE), r"holds no a\.bin, only \['b\.bin'\]"),
        (zipped(a_bin=FILE[1:]), "instead of sha256"),
        (zipped(a_bin=FILE)[:-5000], "no whole zip file"),
        (b"<html>log in</html>", "no whole zip file"),
    ],
    ids=["whole", "in a folder", "other member", "wrong member", "cut short", "a web page"],
)
def test_unpacks_a_zip_file(body, words, source, server, tmp_path):
    server.files["/a.bin.zip"] = body
    source = replace(source, urls=(f"{server.url}/a.bin.zip",))
    if words is None:
        assert fetch(source, tmp_path).read_bytes() == FILE
        assert names(tmp_path) == ["a.bin"]
    else:
        with pytest.raises(DownloadError, match=words):
            fetch(source, tmp_path)
        assert names(tmp_path) == []


CARD = ModelCard(name="a", architecture="other", emotions=("happy", "sad"), image_size=64)


def test_a_model_gets_its_card_beside_it(source, server, tmp_path):
    source = replace(source, card=CARD)
    for _ in ("fetched", "there already"):
        fetch(source, tmp_path)
        expected = CARD.with_(files={"a.bin": {"sha256": DIGEST.removeprefix("sha256:"), "bytes": len(FILE)}})
        assert ModelCard.load(tmp_path / "card.json") == expected
        (tmp_path / "card.json").unlink()
    CARD.with_(name="b").save(tmp_path / "card.json")
    with pytest.raises(FileExistsError, match="card of another model: give a a folder of its own"):
        fetch(source, tmp_path)
    assert ModelCard.load(tmp_path / "card.json").name == "b" and len(server.requests) == 1


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'affectnet'; known are fer2013, ferplus, yunet, emotion-ferplus"):
        download("affectnet")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_complete(name):
    source = SOURCES[name]
    assert re.fullmatch("sha256:[0-9a-f]{64}", source.digest)
    assert source.terms
    assert all(url.startswith("https://") for url in source.urls)
    file = source.path.rsplit("/", 1)[1]
    assert all(url.rsplit("/", 1)[1] in (file, f"{file}.zip") for url in source.urls)


def test_the_real_files_have_the_checksums(fer2013_csv, shared_data):
    assert download("fer2013", target=fer2013_csv) == fer2013_csv
    votes = fer2013_csv.with_name("fer2013new.csv")
    assert download("ferplus", target=votes) == votes
    yunet = shared_data / SOURCES["yunet"].path
    assert download("yunet", target=yunet) == yunet
