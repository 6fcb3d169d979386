"""A proxyless gRPC client: `grpc_client.py PORT TARGET...`.

GET of /N on PORT makes one call on the channel to the TARGET of that number, the first is 0, and answers {"code",
"body"}, the status of the call and what it gave or why it failed.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc

port, *targets = sys.argv[1:]
channels = [grpc.insecure_channel(target) for target in targets]
calls = [channel.unary_unary("/echo.Echo/Name") for channel in channels]


def outcome(call):
    try:
        return {"code": "OK", "body": call(b"", timeout=5).decode()}
    except grpc.RpcError as error:
        return {"code": error.code().name, "body": error.details()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(outcome(calls[int(self.path[1:])])).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
