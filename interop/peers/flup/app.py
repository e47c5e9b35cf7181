"""Routes of afcgitest on Python's flup, started by spawn-fcgi: WSGI, with a thread for each connection.

With the argument `multiplexed` it takes several requests at a time on a connection, with a thread for each request, and says so: flup knows
its own capabilities by texts, is asked for them by bytes, and would answer GET_VALUES with nothing.
"""

import sys
import time
from urllib.parse import parse_qsl

from flup.server.fcgi import WSGIServer


def application(environ, start_response):
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    text = [("Content-Type", "text/plain")]
    if path == "/echo":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/env":
        start_response("200 OK", text)
        return ["".join(f"{name}={value}\n" for name, value in environ.items() if isinstance(value, str)).encode("latin-1")]
    if path == "/status":
        start_response(query["code"] + " Some reason", text)
        return [] if query["code"] in ("204", "304") else [query["code"].encode() + b"\n"]
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events(int(query["n"]), int(query["ms"]) / 1000)
    if path == "/delay":
        time.sleep(int(query["ms"]) / 1000)
    if path == "/stderr":
        environ["wsgi.errors"].write("written by /stderr\n")
    start_response("200 OK", text + [("Content-Length", "12")])
    return [b"Hello world\n"]


def events(count, pause):
    for n in range(count):
        if n > 0:
            time.sleep(pause)
        yield f"data: {n}\n\n".encode()


server = WSGIServer(application, multiplexed="multiplexed" in sys.argv, maxSpare=64)
if "multiplexed" in sys.argv:
    server.capability = {name.encode(): value for name, value in server.capability.items()}
server.run()
