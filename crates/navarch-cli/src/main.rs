//! The one binary, named `navarch`.

fn main() {}
