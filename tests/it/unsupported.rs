//! O1: a function that the library does not have on Windows fails with `Unsupported`, and changes nothing.

use crate::support::*;
use keepsock::ErrorKind;

both_apis![
    unix_endpoint_is_unsupported,
    #[cfg(feature = "activation")]
    {
        handover_is_unsupported
    }
];

/// L1, O1: neither a listener nor a connect, and no file is left.
fn unix_endpoint_is_unsupported<A: Api>() {
    const FILE: &str = "keepsock-unsupported.sock";
    let endpoint = format!("unix:{FILE}");
    let failed = [
        fails(A::listen(&endpoint, &[]).map(drop), ErrorKind::Unsupported),
        fails(A::connect(&endpoint, &[]).map(drop), ErrorKind::Unsupported),
    ];
    for failure in failed {
        assert!(failure.message.contains(&endpoint), "{failure:?}");
    }
    assert!(!std::path::Path::new(FILE).exists());
}

/// L7, O1: the predecessor continues.
#[cfg(feature = "activation")]
fn handover_is_unsupported<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[Opt::Handover(true)]).unwrap();
    let handed = [("http", Handed::Server(&server))];
    let failure = fails(A::Activation::handover(None, &handed, 1000, None), ErrorKind::Unsupported);
    assert!(failure.message.contains("hand over"), "{failure:?}");
    let client = A::connect(&server.endpoint(), &[]).unwrap();
    let accepted = server.accept().unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
    // No socket was passed to this process.
    assert!(A::Activation::from_env().unwrap().names().is_empty());
}
