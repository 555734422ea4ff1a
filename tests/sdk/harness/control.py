"""A small HTTP server on loopback through which the tests, whatever their language, handle the world.

    POST /redis/cli        {"args": [...], "payload_base64": "..."?}  ->  {"stdout", "code"}
    POST /redis/stop | /redis/start | /redis/restart
    POST /gateway/restart  SIGTERM, exit code 0 demanded, start
    POST /gateway/crash    SIGKILL, start

An answer of 200 means that it is done: the server is down, or ready again. Anything else is a 500 with the reason.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .world import World


class Control:
    """The server; a context manager. `url` has no slash at the end."""

    def __init__(self, world: World):
        actions = {
            "/redis/cli": lambda body: redis_cli(world, body),
            "/redis/stop": lambda _: world.redis.stop(),
            "/redis/start": lambda _: world.redis.start(),
            "/redis/restart": lambda _: world.restart_redis(),
            "/gateway/restart": lambda _: world.restart_gateway(),
            "/gateway/crash": lambda _: world.crash_gateway(),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    result = actions[self.path](json.loads(body) if body else {})
                    status, answer = 200, result if isinstance(result, dict) else {}
                except Exception as error:  # whatever went wrong, the test that asked shall hear of it
                    status, answer = 500, {"error": f"{self.path}: {error!r}"}
                payload = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                """The suite's own output says enough."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def redis_cli(world: World, body: dict) -> dict:
    """Runs redis-cli with the arguments of a request."""
    payload = base64.b64decode(body["payload_base64"]) if "payload_base64" in body else None
    done = world.redis.cli(body["args"], payload)
    return {"stdout": done.stdout.decode(errors="replace").strip(), "code": done.returncode}
