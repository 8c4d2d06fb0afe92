# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by Hub id, from a small Hub on loopback: at one commit or not at all, with the licence shown."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from small_backbones import publish, sizes

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model import hub

pytest.importorskip("huggingface_hub")

CHECKPOINT = Path(__file__).parent / "data" / "flux2_tiny" / "checkpoint.pt"
COMMIT, OTHER = "c0ffee" + "0" * 34, "f" * 40
KEYS = ("global_min", "global_max", "global_mean", "global_std", "global_q01", "global_q99")
STATISTICS = {name: {"default": {key: [0.5] * 14 for key in KEYS}} for name in ("state", "action")}
CONFIG = """
data:
  num_frames: 17
  context_len: 128
  robotwin_camera_layout: compact_288x256
  concat_multi_camera: robotwin
  shape_meta: {action: [{key: default, raw_shape: 14, shape: 14}]}
  processor: {norm_default_mode: z-score}
"""
CARD = "---\nlicense: other\nlicense_name: flux-non-commercial-license\n---\n# A checkpoint\n"


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that a download uses: what is at a revision, its tree, its files."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        url = urlparse(self.path)
        self.server.asked.append(f"{self.command} {url.path}")
        parts = unquote(url.path).strip("/").split("/")
        if parts[:3] == ["api", "models", "owner"]:
            self.api(parts, body)
        elif len(parts) > 4 and parts[0] == "owner" and parts[2:4] == ["resolve", COMMIT]:
            content = self.server.repositories[parts[1]].get("/".join(parts[4:]))
            self.send(content, body) if content is not None else self.refuse(404, "EntryNotFound")
        else:
            self.refuse(404, "RepoNotFound")

    def api(self, parts, body):
        if parts[3] == "gated":
            self.refuse(403, "GatedRepo")
        elif parts[3] not in self.server.repositories:
            self.refuse(404, "RepoNotFound")
        elif parts[5] != COMMIT:
            self.refuse(404, "RevisionNotFound")
        else:
            name, files = f"owner/{parts[3]}", self.server.repositories[parts[3]].items()
            tree = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files]
            siblings = [{"rfilename": name} for name, _ in files]
            about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
            self.send(json.dumps(tree if parts[4] == "tree" else about).encode(), body, "application/json")

    def send(self, content, body, kind="application/octet-stream"):
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", len(content)),
            ("ETag", f'"{hashlib.sha1(content).hexdigest()}"'),
            ("X-Repo-Commit", COMMIT),
        ):
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    tiny = {
        "model.pt": CHECKPOINT.read_bytes(),
        "dataset_stats.json": json.dumps(STATISTICS).encode(),
        "config.yaml": CONFIG.encode(),
        "README.md": CARD.encode(),
        "optimizer.pt": b"not asked for",
    }
    server.repositories = {"tiny": tiny}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.fixture
def run(server, tmp_path):
    """Run Python in a process of its own, against that Hub: its address is read on import."""

    def start(*words, **environment):
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        settings = {**os.environ, **settings, **environment}
        return subprocess.run([sys.executable, *words], env=settings, capture_output=True, text=True, timeout=120)

    return start


REFUSED = """
import sys
from imagewam_ros.core.errors import ImageWamError
from imagewam_ros.model import hub
for hub_id in sys.argv[1:]:
    try:
        print("fetched", hub.download(hub_id))
    except ImageWamError as error:
        print(type(error).__name__, error)
"""


IMPORTS = """
import sys
from imagewam_ros.cli import main
first = sys.argv.index("then")
sys.exit(main(sys.argv[1:first]) or main(sys.argv[first + 1:]))
"""


def test_pinned_weights_are_fetched_imported_and_their_licence_shown(run, server, tmp_path):
    """A checkpoint, then an image editor without its single file: the same weights again, gigabytes of them."""
    source = publish("flux2_9b", tmp_path / "published")
    editor = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    server.repositories["editor"] = {**editor, "flux-2.safetensors": b"not asked for"}
    rows = ("--period-ms", "50", "--first-row-offset", "1")
    cell = ("--backbone", str(sizes("flux2_9b", tmp_path)), "--robot", "sim_cell", "--layout", "compact_288x256")
    imports = ("import", f"owner/tiny@{COMMIT}", str(tmp_path / "policy"), *rows, "then")
    done = run("-c", IMPORTS, *imports, "import", f"owner/editor@{COMMIT}", str(tmp_path / "base"), *cell, *rows)
    assert done.returncode == 0, done.stderr
    assert "flux2, 14 action dims" in done.stdout
    assert "licence that their page states: other, flux-non-commercial-license" in done.stdout
    assert "licence that their page states: other, small-licence" in done.stdout
    assert (tmp_path / "policy" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "base" / "config.json").read_text())["untrained"] is True
    fetched = {line.rsplit("/", 1)[-1] for line in server.asked if line.startswith("GET /owner/tiny/resolve/")}
    assert fetched == {"model.pt", "dataset_stats.json", "config.yaml", "README.md"}
    assert f"GET /owner/editor/resolve/{COMMIT}/README.md" in server.asked
    assert f"GET /owner/editor/resolve/{COMMIT}/flux-2.safetensors" not in server.asked
    assert [line for line in server.asked if "owner" in line and COMMIT not in line] == []
    server.asked.clear()
    again = run("-c", REFUSED, f"owner/tiny@{COMMIT}", HF_HUB_OFFLINE="1")
    assert again.stdout.startswith("fetched") and server.asked == []


def test_what_cannot_be_fetched_is_refused_in_words(run, server):
    unpinned = run("-c", REFUSED, "owner/tiny@main", "owner/tiny").stdout.splitlines()
    assert all("names no pinned revision; add @ and the 40 hex digits of a commit" in line for line in unpinned)
    assert len(unpinned) == 2 and server.asked == []
    asked = {
        f"owner/tiny@{OTHER}": f"CheckpointError the Hub refused owner/tiny@{OTHER}",
        f"owner/other@{COMMIT}": "check name and revision",
        f"owner/gated@{COMMIT}": "CheckpointError owner/gated is gated; accept its licence on its page and log in",
        f"a/b/c@{COMMIT}": "ConfigError 'a/b/c' is no Hub id",
    }
    found = run("-c", REFUSED, *asked)
    for line, words in zip(found.stdout.splitlines(), asked.values(), strict=True):
        assert words in line


def test_another_repository_is_named_as_such(run, server):
    del server.repositories["tiny"]["config.yaml"], server.repositories["tiny"]["dataset_stats.json"]
    found = run("-c", REFUSED, f"owner/tiny@{COMMIT}").stdout
    assert "lacks dataset_stats.json, config.yaml; it is no official ImageWAM checkpoint" in found


def test_a_hub_out_of_reach_is_named(run, server):
    found = run("-c", REFUSED, f"owner/tiny@{COMMIT}", HF_HUB_OFFLINE="1").stdout
    assert server.asked == []
    assert "the Hub does not answer; check the network" in found


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (CARD, "other, flux-non-commercial-license"),
        ("# no front matter", ""),
        ("---\n[\n---\n", ""),
        ("---\n- 1\n---\n", ""),
    ],
)
def test_licence_of_a_page(tmp_path, text, stated):
    (tmp_path / "README.md").write_text(text)
    assert hub.stated_licence(tmp_path) == stated


def test_a_folder_without_a_page_states_nothing(tmp_path):
    assert hub.stated_licence(tmp_path) == ""
    with pytest.raises(ConfigError, match="names no pinned revision"):
        hub.download("owner/name@v1.0")
