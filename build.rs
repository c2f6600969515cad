//! Sets the SONAME of the shared library, and the cfg `keepsock_linux`. Writes nothing into the source
//! tree.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `keepsock_linux` selects the system calls and options that only Linux and Android have. With
    // `--cfg keepsock_portable`, Linux runs the code of the other Unix systems instead, for tests.
    let portable = env::var_os("CARGO_CFG_KEEPSOCK_PORTABLE").is_some();
    let os = env::var("CARGO_CFG_TARGET_OS");
    if matches!(os.as_deref(), Ok("linux" | "android")) && !portable {
        println!("cargo::rustc-cfg=keepsock_linux");
    }
    // Systems with kqueue(2).
    let bsd = [
        "dragonfly",
        "freebsd",
        "ios",
        "macos",
        "netbsd",
        "openbsd",
        "tvos",
        "watchos",
        "visionos",
    ];
    if os.as_deref().is_ok_and(|os| bsd.contains(&os)) {
        println!("cargo::rustc-cfg=keepsock_kqueue");
    }
    // Systems other than Linux whose socket(2) and accept4(2) take SOCK_CLOEXEC and SOCK_NONBLOCK.
    let flags = ["dragonfly", "freebsd", "illumos", "netbsd", "openbsd"];
    if os.as_deref().is_ok_and(|os| flags.contains(&os)) {
        println!("cargo::rustc-cfg=keepsock_accept4");
    }
    // Plain cargo sets no SONAME for a cdylib. A program linked with it would then
    // request the path that the linker found. cargo-c sets a SONAME itself (and the
    // cfg below), and two of them would disagree.
    let capi = env::var_os("CARGO_FEATURE_CAPI").is_some();
    let cargo_c = env::var_os("CARGO_CFG_CARGO_C").is_some();
    let elf = matches!(
        os.as_deref(),
        Ok("linux" | "android" | "freebsd" | "netbsd" | "openbsd" | "dragonfly")
    );
    if capi && elf {
        // Threads of the library, the closer's and the resolver's, run its code after the last
        // call has returned: dlclose(3) must not take it away.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    if capi && !cargo_c && elf {
        let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkeepsock.so.{major}");
    }
}
