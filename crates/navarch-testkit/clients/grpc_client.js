// A proxyless gRPC client, as grpc_client.py: `grpc_client.js PORT TARGET...`.
const http = require("node:http");
const grpc = require("@grpc/grpc-js");
require("@grpc/grpc-js-xds").register();

const [port, ...targets] = process.argv.slice(2);
const clients = targets.map((target) => new grpc.Client(target, grpc.credentials.createInsecure()));
const same = (bytes) => bytes;

http
  .createServer((request, response) => {
    const answer = (code, body) => response.end(JSON.stringify({ code, body }));
    const deadline = { deadline: Date.now() + 5000 };
    clients[Number(request.url.slice(1))].makeUnaryRequest("/echo.Echo/Name", same, same, Buffer.alloc(0), deadline, (error, body) =>
      error ? answer(grpc.status[error.code], error.details) : answer("OK", body.toString()),
    );
  })
  .listen(Number(port), "127.0.0.1");
