"""Asks for a certificate once: `grpc_certificate.py ADDRESS REQUEST`, both as text, the second one as JSON.

REQUEST has `csr`, and may have `roots` (without them the connection is plaintext), `token`, `key` and `chain` (of a client
certificate), `seconds`. Answers {"code", "details", "chain"} on stdout. The two messages are small enough to be written by hand.
"""

import json
import sys

import grpc

address, request = sys.argv[1], json.loads(sys.argv[2])


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def encode(request):
    csr = request["csr"].encode()
    return b"\x0a" + varint(len(csr)) + csr + b"\x18" + varint(request.get("seconds", 0))


def decode(data):
    chain, at = [], 0
    while at < len(data):
        assert data[at] == 0x0A, data[at]
        length, at = read_varint(data, at + 1)
        chain.append(data[at : at + length].decode())
        at += length
    return chain


def channel():
    if "roots" not in request:
        return grpc.insecure_channel(address)
    part = lambda name: request[name].encode() if name in request else None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(part("roots"), part("key"), part("chain")))


metadata = [("authorization", "Bearer " + request["token"])] if "token" in request else []
call = channel().unary_unary("/istio.v1.auth.IstioCertificateService/CreateCertificate", encode, decode)
try:
    answer = {"code": "OK", "chain": call(request, timeout=20, metadata=metadata)}
except grpc.RpcError as error:
    answer = {"code": error.code().name, "details": error.details()}
print(json.dumps(answer))
