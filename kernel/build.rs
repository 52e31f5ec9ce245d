//! Tells the linker where `link.ld` is; `.cargo/config.toml` names it.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::rustc-link-search={directory}");
    println!("cargo::rerun-if-changed=link.ld");
}
