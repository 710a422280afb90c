"""A Hub of our own on the loopback interface that keeps models: made, committed to and read.

It keeps data sets too, under names that begin with `datasets/`.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote

import yaml

TOKEN = "hf_only-for-this-test"


class ModelHub:
    """What the server keeps: repositories by name, and every request with its authorization."""

    def __init__(self):
        self.repos: dict[str, dict] = {}
        self.large: dict[str, bytes] = {}
        self.breaks: set[str] = set()  # commits in the middle of whose files the line goes dead
        self.requests: list[tuple[str, str, str | None]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.hub = self
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str, files: dict[str, bytes], *, branch="main", private=False) -> str:
        """Puts files into a repository and returns the commit."""
        repo = self.repos.setdefault(name, {"private": private, "branches": {}, "commits": {}})
        parts = [f"{path} {hashlib.sha1(data).hexdigest()}" for path, data in sorted(files.items())]
        sha = hashlib.sha1("\n".join([str(len(repo["commits"])), *parts]).encode()).hexdigest()
        repo["commits"][sha] = dict(files)
        repo["branches"][branch] = sha
        return sha

    def files(self, name: str, revision: str = "main") -> dict[str, bytes] | None:
        repo = self.repos[name]
        return repo["commits"].get(repo["branches"].get(revision, revision))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    do_HEAD = do_GET

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_PUT = do_POST
    do_DELETE = do_POST

    def answer(self, body: bytes):
        hub = self.server.hub
        path = unquote(self.path.split("?")[0])
        token = self.headers.get("Authorization")
        hub.requests.append((self.command, path, token))
        known = token == f"Bearer {TOKEN}"
        if path == "/":
            return self.send(200, b"hub")
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"].split("---")[1]
            wrong = [] if isinstance(yaml.safe_load(text), dict) else [{"message": "no mapping"}]
            return self.send(200, {"errors": wrong, "warnings": []})
        if stored := re.fullmatch("/large/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == stored[1]
            hub.large[stored[1]] = body
            return self.send(200, {})
        if path == "/api/repos/create":
            if not known:
                return self.send(401, {"error": "Invalid username or password."})
            asked = json.loads(body)
            kept_as = "datasets/" if asked.get("type") == "dataset" else ""
            name = f"{kept_as}{asked['organization']}/{asked['name']}"
            if asked["organization"] == "stranger":
                return self.send(403, {"error": "You don't have the rights"})
            url = {"url": f"{hub.endpoint}/{name}"}
            if name in hub.repos:
                return self.send(409, {**url, "error": "You already created this model repo"})
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
            return self.send(200, url)
        path = path.replace("/api/datasets/", "/api/models/datasets/", 1)
        found = re.fullmatch(
            r"(?:/api/models)?/((?:datasets/)?[\w.-]+/[\w-]+(?:\.[\w-]+)*?)(\.git)?(/.*)?", path
        )
        repo = hub.repos.get(found[1]) if found else None
        if repo is None or (repo["private"] and not known):
            status = 404 if known else 401
            return self.send(status, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
        if self.command in ("POST", "PUT") and "paths-info" not in path and not known:
            return self.send(401, {"error": "Invalid username or password."})
        return self.repository(found[1], found[3] or "", body)

    def repository(self, name: str, path: str, body: bytes):
        hub = self.server.hub
        repo = hub.repos[name]
        if path == "/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.endpoint}/large/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.send(200, {"transfer": "basic", "objects": objects})
        if path.startswith("/branch/"):
            branch = path.removeprefix("/branch/")
            if branch in repo["branches"]:
                return self.send(409, {"error": "Reference already exists"})
            repo["branches"][branch] = repo["branches"]["main"]
            return self.send(200, {})
        if path.startswith("/preupload/"):
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs"
                    if re.search("(safetensors|png|parquet)$", each["path"])
                    else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self.send(200, {"files": modes})
        what, _, rest = path.removeprefix("/").partition("/")
        known = sorted({*repo["branches"], *repo["commits"]}, key=len, reverse=True)
        revision = next((each for each in known if f"{rest}/".startswith(f"{each}/")), None)
        if rest and revision is None:
            return self.send(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        sha = repo["branches"].get(revision or "main", revision)
        files = repo["commits"][sha]
        if what == "commit":
            return self.commit(name, revision, files, body)
        if what == "tree":
            entries = [
                {"type": "file", "path": each, "size": len(data), "oid": "0" * 40}
                for each, data in files.items()
            ]
            return self.send(200, entries)
        if what == "resolve":
            return self.resolve(rest.removeprefix(f"{revision}/"), files, sha)
        siblings = [{"rfilename": each} for each in files]
        info = {"id": name, "sha": sha, "private": repo["private"], "siblings": siblings}
        return self.send(200, {**info, "tags": []})

    def commit(self, name: str, branch: str, files: dict[str, bytes], body: bytes):
        hub, files = self.server.hub, dict(files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        sha = hub.commit(name, files, branch=branch)
        url = f"{hub.endpoint}/{name}/commit/{sha}"
        return self.send(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def resolve(self, path: str, files: dict[str, bytes], sha: str):
        if path not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            return self.send(404, {"error": "no"}, headers)
        data = files[path]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": sha}
        if sha in self.server.hub.breaks and self.command == "GET":
            headers["Connection"] = "close"
            return self.send(200, data, headers, sent=len(data) // 2)
        return self.send(200, data, headers)

    def send(self, status: int, body, headers=None, sent=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *args):
        pass
