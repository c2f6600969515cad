//! The process around the library: fork, exec, signals, the ways in which a process ends, the limits and
//! the missing system calls of a process, jumps of the clock, and suspend. Threads that are cancelled are
//! in tests/abi/cancellation.rs, which replaces a function of libc and concerns C only. dlclose(3) is in
//! c_examples/tests/ends.c.

use std::time::Duration;

/// Makes each generic function a test of both APIs, in its own process, because the test changes
/// or copies the state of its process. A forked child also inherits the locks that the threads of other
/// tests hold.
macro_rules! both_apis_alone {
    ($($name:ident),* $(,)? $(#[$cfg:meta] { $($gated:ident),* $(,)? })*) => {
        mod rust {
            $(both_apis_alone!(@ $name, RustApi);)*
            $($(#[$cfg] both_apis_alone!(@ $gated, RustApi);)*)*
        }
        #[cfg(feature = "capi")]
        mod c {
            $(both_apis_alone!(@ $name, CApi);)*
            $($(#[$cfg] both_apis_alone!(@ $gated, CApi);)*)*
        }
    };
    (@ $name:ident, $api:ident) => {
        #[test] fn $name() {
            if crate::support::portable::skips(module_path!(), stringify!($name)) {
                return;
            }
            let name = test_name!(stringify!($name));
            let body = super::$name::<crate::support::$api>;
            crate::support::process::in_process(&name, crate::process::LIMIT, body);
        }
    };
}

#[cfg(all(feature = "serve", feature = "datagram", target_env = "gnu"))]
mod clock;
#[cfg(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag"))]
mod everything;
#[cfg(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag"))]
mod exec;
#[cfg(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag"))]
mod exit;
mod fork;
#[cfg(all(feature = "serve", feature = "datagram", feature = "activation", feature = "diag"))]
mod limits;
mod signals;
#[cfg(all(feature = "serve", feature = "datagram"))]
mod suspend;

/// The time limit of each test.
const LIMIT: Duration = Duration::from_secs(30);
