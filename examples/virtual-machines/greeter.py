"""Greets whoever calls, by the identity that mutual TLS has proven. Plain HTTP on a port of the machine."""

import http.server
import sys


class Greeter(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # The sidecar says who called; what a caller says of itself it takes away.
        certificate = self.headers.get("x-forwarded-client-cert", "URI=nobody")
        uri = [part[4:] for part in certificate.split(";") if part.startswith("URI=")]
        body = f"hello, {uri[0] if uri else 'stranger'}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Greeter).serve_forever()
