// Command client stands for the client in the image echo-advanced, which the suite runs in pods: it makes requests over HTTP
// or gRPC, and prints what came back in the form that the suite reads.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"navarch/conformance/echo/wire"
)

func main() {
	method := pflag.String("method", "GET", "the method of HTTP")
	count := pflag.Int("count", 1, "how many requests")
	headers := pflag.StringArrayP("header", "H", nil, "a header, name:value; may be repeated")
	pflag.Parse()
	target, err := url.Parse(pflag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	request := overHTTP(target, *method, *headers)
	if target.Scheme == "grpc" {
		request = overGRPC(target, *headers)
	}
	for number := range *count {
		answer, err := request()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("[%d] %s\n\n", number, strings.ReplaceAll(strings.TrimSpace(answer), "\n", fmt.Sprintf("\n[%d] ", number)))
	}
	os.Exit(0)
}

// each takes headers apart.
func each(headers []string, do func(name, value string)) {
	for _, header := range headers {
		if name, value, ok := strings.Cut(header, ":"); ok {
			do(name, strings.TrimSpace(value))
		}
	}
}

// overHTTP makes requests that follow no redirect.
func overHTTP(target *url.URL, method string, headers []string) func() (string, error) {
	client := http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func() (string, error) {
		request, err := http.NewRequest(method, target.String(), nil)
		if err != nil {
			return "", err
		}
		each(headers, func(name, value string) {
			if strings.EqualFold(name, "host") {
				request.Host = value
			} else {
				request.Header.Add(name, value)
			}
		})
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		text := fmt.Sprintf("StatusCode=%d\n", response.StatusCode)
		for name, values := range response.Header {
			text += fmt.Sprintf("ResponseHeader=%s:%s\n", name, strings.Join(values, ","))
		}
		return text + string(body), err
	}
}

func overGRPC(target *url.URL, headers []string) func() (string, error) {
	connection, err := grpc.NewClient(target.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		each(headers, func(name, value string) {
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
		})
		answer := new(wrapperspb.StringValue)
		if err := connection.Invoke(ctx, wire.Method, wrapperspb.String("echo"), answer); err != nil {
			return "", err
		}
		// The suite reads the status of HTTP here too.
		return "StatusCode=200\n" + answer.GetValue(), nil
	}
}
