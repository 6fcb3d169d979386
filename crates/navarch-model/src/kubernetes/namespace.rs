//! Namespace: only its labels and annotations matter, which are metadata.

use crate::yaml::message;

message! {
    pub struct Namespace {}
}
