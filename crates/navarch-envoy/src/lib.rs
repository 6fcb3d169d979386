//! Envoy and xDS protobuf types, encoded resources and resource sets
