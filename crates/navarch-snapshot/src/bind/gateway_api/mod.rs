//! The Gateway API: its objects as listeners and routes.

mod class;
mod conflicts;
mod grants;
mod listeners;
mod namespaces;
mod tls;

pub(crate) use class::{controller_of, serves_controller};
pub(super) use grants::{Reference, Referent, granted};
pub(crate) use listeners::made_name;
pub(super) use listeners::{gateway, listener_set};
