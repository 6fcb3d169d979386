// Command kubelet is what an API server asks of a node: what containers have logged, and programs run beside them.
//
// Whoever runs the containers keeps DIR/<namespace>/<pod>/<container>.pid and .log for each of them.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

var dir = flag.String("dir", "", "where the containers are written down")

func main() {
	address := flag.String("address", "", "host and port to listen on")
	cert := flag.String("cert", "", "file with the certificate")
	key := flag.String("key", "", "file with its key")
	flag.Parse()
	http.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", logs)
	http.HandleFunc("/exec/{namespace}/{pod}/{container}", execute)
	// SPDY is an upgrade of HTTP/1.1.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := http.Server{Addr: *address, Protocols: &protocols}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

// of gives the path of what is kept of the container that a request is about.
func of(r *http.Request, extension string) string {
	parts := []string{*dir}
	for _, name := range []string{"namespace", "pod", "container"} {
		parts = append(parts, filepath.Base(r.PathValue(name)))
	}
	return filepath.Join(parts...) + extension
}

// logs answers with all that a container has written, whenever it was.
func logs(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, of(r, ".log"))
}

// execute runs a program where a container runs, with its streams over the connection.
func execute(w http.ResponseWriter, r *http.Request) {
	pid, err := os.ReadFile(of(r, ".pid"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	query := r.URL.Query()
	wanted := 1
	for _, name := range []string{"input", "output", "error"} {
		if query.Get(name) == "1" {
			wanted++
		}
	}
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return
	}
	arrived := make(chan httpstream.Stream, wanted)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		arrived <- stream
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	streams := map[string]httpstream.Stream{}
	for len(streams) < wanted {
		select {
		case stream := <-arrived:
			streams[stream.Headers().Get("streamType")] = stream
		case <-time.After(30 * time.Second):
			return
		}
	}
	command := exec.Command("nsenter", append([]string{"--target", strings.TrimSpace(string(pid)), "--net", "--mount", "--"}, query["command"]...)...)
	for name, place := range map[string]*io.Writer{"stdout": &command.Stdout, "stderr": &command.Stderr} {
		if stream, ok := streams[name]; ok {
			*place = stream
		}
	}
	status := statusOf(command.Run())
	for _, name := range []string{"stdout", "stderr"} {
		if stream, ok := streams[name]; ok {
			stream.Close()
		}
	}
	_ = json.NewEncoder(streams["error"]).Encode(status)
	streams["error"].Close()
	// Whoever has asked closes the connection when everything has arrived.
	select {
	case <-connection.CloseChan():
	case <-time.After(30 * time.Second):
	}
}

// statusOf is how the end of a program is told in version 4 of the protocol.
func statusOf(err error) metav1.Status {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &exit):
		cause := metav1.StatusCause{Type: remotecommand.ExitCodeCauseType, Message: fmt.Sprint(exit.ExitCode())}
		return metav1.Status{
			Status:  metav1.StatusFailure,
			Reason:  remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{cause}},
			Message: err.Error(),
		}
	default:
		return metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	}
}
