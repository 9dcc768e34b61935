//! Links the program to a fixed address: see `docs/decisions/0025-a-program-that-starts-quickly.md`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=cli/link.rs");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" && target("ARCH") == "x86_64" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
