"""A proxyless gRPC client: `grpc_client.py TARGET... PORT`.

GET of /N on PORT makes one call on the one channel to TARGET N, counted from 0, and answers {"code", "body"}, the status of the
call and what it gave or why it failed. Anything else is 0.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc

*targets, port = sys.argv[1:]
channels = [grpc.insecure_channel(target) for target in targets]
calls = [channel.unary_unary("/echo.Echo/Name") for channel in channels]


def outcome(path):
    number = path.removeprefix("/")
    call = calls[int(number) if number.isdigit() else 0]
    try:
        return {"code": "OK", "body": call(b"", timeout=5).decode()}
    except grpc.RpcError as error:
        return {"code": error.code().name, "body": error.details()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(outcome(self.path)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
