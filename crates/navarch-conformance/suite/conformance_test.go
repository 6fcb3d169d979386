// Package conformance runs the suite of the Gateway API. `go test -c` makes it a program, whose flags are the suite's.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
