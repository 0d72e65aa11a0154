"""A schema registry in this process: a real HTTP server with what Confluent's answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RegistryServer:
    """Subjects with versions, schemas by id.

    `failing`: it answers 503 to everything; `silent`: to what asks for these ids.
    """

    def __init__(self) -> None:
        self.subjects: dict[str, list[int]] = {}
        self.schemas: dict[int, dict[str, Any]] = {}
        self.failing = False
        self.silent: set[int] = set()
        self.requests: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._answer(self, None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner._answer(self, json.loads(body))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, subject: str, text: str, kind: str = "AVRO", **more: Any) -> int:
        """Registers a schema under the next free id, or finds it under the subject."""
        content = {"schema": text, "schemaType": kind, **more}
        for number in self.subjects.get(subject, []):
            if self.schemas[number] == content:
                return number
        number = len(self.schemas) + 1
        self.schemas[number] = content
        self.subjects.setdefault(subject, []).append(number)
        return number

    def _answer(self, request: BaseHTTPRequestHandler, body: Any) -> None:
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        status, content = 503, dict[str, Any](error_code=50301, message="not now")
        if not self.failing:
            try:
                found = self._content(path.strip("/").split("/"), body)
                if all(found is not self.schemas[n] and found.get("id") != n for n in self.silent):
                    status, content = 200, found
            except (KeyError, IndexError, ValueError):
                status, content = 404, {"error_code": 40403, "message": f"{path} not found"}
        data = json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _content(self, parts: list[str], body: Any) -> dict[str, Any]:
        if parts[:2] == ["schemas", "ids"]:
            return self.schemas[int(parts[2])]
        subject = parts[1]
        if body is not None:
            kind = body.get("schemaType", "AVRO")
            return {"id": self.add(subject, body["schema"], kind)}
        numbers = self.subjects[subject]
        version = len(numbers) if parts[3] == "latest" else int(parts[3])
        number = numbers[version - 1]
        return {"subject": subject, "version": version, "id": number, **self.schemas[number]}


@contextmanager
def serving() -> Iterator[RegistryServer]:
    """A registry that answers while the context lasts."""
    registry = RegistryServer()
    thread = threading.Thread(target=registry.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        registry.server.shutdown()
        thread.join()
        registry.server.server_close()
