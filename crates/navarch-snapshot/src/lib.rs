//! The world: one writer, immutable snapshots, indexes and visibility
