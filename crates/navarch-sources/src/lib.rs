//! Where configuration comes from: a watched directory of YAML
