//! The server against real clients: a stock Envoy, and gRPC in two implementations. Scenarios that only a
//! client can show. Those of Envoy have the number of the end-to-end check, and run over delta and over
//! state-of-the-world xDS.
//!
//! Subscriptions inside resources have an `initial_fetch_timeout` of zero, that is, none: where Envoy would
//! otherwise stall for fifteen seconds and go on, it waits here forever, and the test fails.

mod load;
mod proxy;
mod resources;
mod rig;

/// `name` for each protocol, as tests `name::delta` and `name::sotw` that end in bounded time.
macro_rules! both {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[tokio::test]
            async fn delta() -> anyhow::Result<()> {
                $crate::rig::bounded(super::$name($crate::rig::Protocol::Delta)).await
            }

            #[tokio::test]
            async fn sotw() -> anyhow::Result<()> {
                $crate::rig::bounded(super::$name($crate::rig::Protocol::Sotw)).await
            }
        }
    )* };
}

mod contents;
mod example;
mod grpc;
mod hosts;
mod listeners;
mod loads;
mod ondemand;
mod push;
mod reconnect;
mod rejection;
mod replicas;
mod scale;
mod startup;
mod transport;
