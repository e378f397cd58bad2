"""The download recipe with the real client of the Materials Project, which asks a server on this machine.

Run by `make test-mp`, in an environment that has mp-api; nothing of matsci_hpc is needed here.
"""

import json
import os
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("mp_api.client", reason="needs mp-api: make test-mp")

from pymatgen.core import Lattice, Structure

RECIPE = Path(__file__).parents[2] / "data_prep/download_mp.py"
CRYSTAL = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
DOCUMENTS = {
    f"mp-{number}": {
        "material_id": f"mp-{number}",
        "structure": CRYSTAL.as_dict(),
        "band_gap": number / 8,
        "is_metal": number == 0,
        "deprecated": number == 7,
    }
    for number in range(30)
}


class Handler(BaseHTTPRequestHandler):
    """Answers as the summary route of the Materials Project does, in pages."""

    def do_GET(self):
        parts = urlsplit(self.path)
        query = {name: value for name, (value,) in parse_qs(parts.query).items()}
        self.server.asked.append((parts.path, query, self.headers["x-api-key"]))
        if parts.path == "/heartbeat":
            version = metadata.version("emmet-core")
            answer = {"version": version, "db_version": "2025.01.01", "access_controlled_batch_ids": []}
        else:
            found = list(DOCUMENTS.values())
            if "material_ids" in query:
                found = [DOCUMENTS[each] for each in query["material_ids"].split(",")]
            if "deprecated" in query:
                found = [each for each in found if str(each["deprecated"]) == query["deprecated"]]
            page = found[int(query.get("_skip", 0)) :][: int(query["_limit"])]
            fields = query["_fields"].split(",")
            answer = {
                "data": [{name: each[name] for name in fields} for each in page],
                "meta": {"total_doc": len(found)},
            }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked = []
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_the_real_client_is_asked_for_what_it_gives(server, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "MP_API_ENDPOINT": f"http://127.0.0.1:{server.server_port}/",
        "MP_API_KEY": "k" * 32,
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
    }
    out = tmp_path / "mp.jsonl"
    command = [sys.executable, RECIPE, out, "--fields", "band_gap", "is_metal", "--per-request", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 29 materials\n"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["material_id"] for each in lines] == sorted(DOCUMENTS.keys() - {"mp-7"})
    for each in lines:
        expected = DOCUMENTS[each["material_id"]]
        assert (each["band_gap"], each["is_metal"]) == (expected["band_gap"], expected["is_metal"])
        assert Structure.from_dict(each["structure"]) == CRYSTAL
    assert {key for *_, key in server.asked if key is not None} == {"k" * 32}
    assert not [each for each in home.rglob("*") if each.suffix == ".parquet"]  # no copy of the whole collection


def test_every_field_that_is_fetched_without_being_named_exists():
    from mp_api.client.routes.materials.summary import SummaryRester

    fields = runpy.run_path(str(RECIPE))["FIELDS"]
    assert {"material_id", "structure", *fields} <= SummaryRester.document_model.model_fields.keys()
