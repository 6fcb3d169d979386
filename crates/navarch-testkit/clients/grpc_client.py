"""A proxyless gRPC client: `grpc_client.py TARGET PORT`.

GET of anything on PORT makes one call on the one channel to TARGET and answers {"code", "body"}, the status of the call
and what it gave or why it failed.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc

target, port = sys.argv[1:]
channel = grpc.insecure_channel(target)
call = channel.unary_unary("/echo.Echo/Name")


def outcome():
    try:
        return {"code": "OK", "body": call(b"", timeout=5).decode()}
    except grpc.RpcError as error:
        return {"code": error.code().name, "body": error.details()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(outcome()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
