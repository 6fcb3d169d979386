//! Test equipment: real Envoy, fake Envoy, demo applications
