//! Set-up, builds, and thin commands over the libraries.
fn main() {}
