"""A gRPC server that answers every call of /echo.Echo/Name with its name: `grpc_backend.py ADDRESS NAME`."""

import sys
from concurrent import futures

import grpc

address, name = sys.argv[1:]
handlers = {"Name": grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
if server.add_insecure_port(address) == 0:
    sys.exit(f"cannot listen on {address}")
server.start()
server.wait_for_termination()
