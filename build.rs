//! Link metadata of the shared library. Writes nothing into the source tree.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Plain cargo gives a cdylib no SONAME, and a program linked against it
    // would then ask for whatever path it was linked with. cargo-c sets a name
    // of its own (and the cfg below); two of them would disagree.
    let capi = env::var_os("CARGO_FEATURE_CAPI").is_some();
    let cargo_c = env::var_os("CARGO_CFG_CARGO_C").is_some();
    let elf = matches!(
        env::var("CARGO_CFG_TARGET_OS").as_deref(),
        Ok("linux" | "android" | "freebsd" | "netbsd" | "openbsd" | "dragonfly")
    );
    if capi && !cargo_c && elf {
        // Before 1.0 each minor version may break the ABI, so it is part of the name.
        let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
        let minor = env::var("CARGO_PKG_VERSION_MINOR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkeepsock.so.{major}.{minor}");
    }
}
