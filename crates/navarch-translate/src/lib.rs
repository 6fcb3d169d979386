//! Pure translation of Istio and Kubernetes nouns into Envoy resources
