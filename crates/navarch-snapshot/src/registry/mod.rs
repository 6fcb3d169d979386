//! Derivation.
