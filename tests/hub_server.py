"""A stand-in for the Hugging Face hub on loopback, as far as huggingface_hub needs it for an upload and a download."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Holds repositories: `repositories["orga/name"]["path"]` is a file's content; big files come by LFS, as on the hub."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.objects, self.commits, self.tokens = {}, {}, [], set()


@contextlib.contextmanager
def serve():
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, content=b"", status=200, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body, path = self.body(), self.path.split("?")[0]
        self.server.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            repo = "{organization}/{name}".format(**json.loads(body))
            self.server.repositories.setdefault(repo, {})
            self.answer({"url": f"{self.server.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            modes = {True: "lfs", False: "regular"}
            files = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [preupload(file, modes[file.endswith((".zip", ".mp4"))]) for file in files]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.answer({"transfer": "basic", "objects": [self.upload(entry) for entry in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.answer({"error": path}, status=501)

    def upload(self, entry):
        href = f"{self.server.url}/lfs/{entry['oid']}"
        return {"oid": entry["oid"], "size": entry["size"], "actions": {"upload": {"href": href}}}

    def commit(self, name, lines):
        repository = self.server.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append(value["summary"])
            elif line["key"] == "file":
                repository[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository[value["path"]] = self.server.objects[value["oid"]]
        self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True})

    def do_PUT(self):
        content = self.body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer()

    def do_GET(self):
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", self.path.split("?")[0]):
            if match[1] not in self.server.repositories:
                self.answer({"error": "Repository not found"}, status=404, X_Error_Code="RepoNotFound")
                return
            siblings = [{"rfilename": name, "size": len(held)} for name, held in self.server.repositories[match[1]].items()]
            self.answer({"id": match[1], "sha": "0" * 40, "private": False, "tags": [], "siblings": siblings})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            content = self.server.repositories[match[1]][match[2]]
            etag = hashlib.sha256(content).hexdigest()
            self.answer(content, ETag=f'"{etag}"', X_Repo_Commit="0" * 40)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.+", self.path):
            files = self.server.repositories[match[1]]
            self.answer([{"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40} for path in files])
        else:
            self.answer({"error": self.path}, status=501)

    do_HEAD = do_GET


def preupload(path, mode):
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}
