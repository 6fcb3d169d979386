// A proxyless gRPC client, as grpc_client.py: `grpc_client.js TARGET PORT`.
const http = require("node:http");
const grpc = require("@grpc/grpc-js");
require("@grpc/grpc-js-xds").register();

const [target, port] = process.argv.slice(2);
const client = new grpc.Client(target, grpc.credentials.createInsecure());
const same = (bytes) => bytes;

http
  .createServer((_, response) => {
    const answer = (code, body) => response.end(JSON.stringify({ code, body }));
    const deadline = { deadline: Date.now() + 5000 };
    client.makeUnaryRequest("/echo.Echo/Name", same, same, Buffer.alloc(0), deadline, (error, body) =>
      error ? answer(grpc.status[error.code], error.details) : answer("OK", body.toString()),
    );
  })
  .listen(Number(port), "127.0.0.1");
