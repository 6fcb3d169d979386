//! The server side of the xDS protocol
