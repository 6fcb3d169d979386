// Command server stands for the image echo-advanced: it says who it is and which headers a request had, over HTTP and gRPC.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"navarch/conformance/echo/wire"
)

// ports is a flag that may be repeated.
type ports []string

func (p *ports) String() string { return strings.Join(*p, ",") }

func (p *ports) Set(value string) error {
	*p = append(*p, value)
	return nil
}

func main() {
	var plain, secure, calls, streams ports
	flag.Var(&plain, "port", "a port for HTTP")
	flag.Var(&secure, "tls", "a port of these that is not served: no test asks it")
	flag.Var(&calls, "grpc", "a port for gRPC")
	flag.Var(&streams, "tcp", "a port that is not served: no test asks it")
	for _, file := range []string{"crt", "key"} {
		flag.String(file, "", "not read")
	}
	flag.Parse()
	if len(plain) == 0 {
		plain = ports{"8080"}
	}
	for _, port := range plain {
		if !strings.Contains(secure.String(), port) {
			go func() { log.Fatal(http.ListenAndServe(":"+port, http.HandlerFunc(overHTTP))) }()
		}
	}
	for _, port := range calls {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			log.Fatal(err)
		}
		server := grpc.NewServer()
		server.RegisterService(wire.Service(overGRPC), nil)
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	select {}
}

func overHTTP(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("Host=%s\nMethod=%s\nURL=%s\n", r.Host, r.Method, r.RequestURI)
	_, _ = io.WriteString(w, text+about(r.Header))
}

func overGRPC(ctx context.Context) string {
	headers, _ := metadata.FromIncomingContext(ctx)
	return about(headers)
}

// about has a line for each header, and who answers.
func about(headers map[string][]string) string {
	var text strings.Builder
	for name, values := range headers {
		for _, value := range values {
			fmt.Fprintf(&text, "RequestHeader=%s:%s\n", name, value)
		}
	}
	return text.String() + "Hostname=" + os.Getenv("HOSTNAME") + "\n"
}
