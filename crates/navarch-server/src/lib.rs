//! The control plane put together: pipeline, admin HTTP, metrics, shutdown
