//! include/keepsock.h is what cbindgen makes of the sources today (A2).
//!
//! `KEEPSOCK_BLESS=1 cargo test --all-features --test header` writes it anew.

#![allow(clippy::unwrap_used)] // a helper of a test is a test

use std::path::Path;

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let bindings =
        cbindgen::Builder::new().with_crate(root).with_config(config).generate().unwrap();
    let mut out = Vec::new();
    bindings.write(&mut out);
    String::from_utf8(out).unwrap()
}

/// A2: the committed header is the generated one.
#[test]
fn the_header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/keepsock.h");
    let generated = generate();
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = generated.lines().zip(committed.lines()).position(|(a, b)| a != b);
    assert!(
        generated == committed,
        "include/keepsock.h is out of date (first difference at line {:?}): \
         KEEPSOCK_BLESS=1 cargo test --all-features --test header",
        differs.map(|n| n + 1)
    );
}
