//! The nouns of the control plane: configuration kinds, services, workloads, findings
