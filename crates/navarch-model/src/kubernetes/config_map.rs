//! ConfigMap: plain data; the mesh configuration is one.

use std::collections::BTreeMap;

use crate::yaml::message;

message! {
    pub struct ConfigMap {
        data: BTreeMap<String, String>,
    }
}
