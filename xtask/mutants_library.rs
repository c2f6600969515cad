//! The root of a small library: the state machines that do no I/O, and the modules that they need.
//! `cargo xtask mutants` compiles it instead of src/lib.rs, because it compiles in less than half the time.

mod connect {
    #[cfg(test)]
    mod properties;
    mod race;
}
mod diag {
    mod handshake;
}
#[cfg(test)]
mod fuzzing {
    mod framing_model;
    pub(crate) use framing_model::{End, model, split_pieces};
}
mod io {
    mod backoff;
    #[cfg(test)]
    mod properties;
}
#[cfg(test)]
mod properties;
mod serve {
    mod reactor {
        #[cfg(test)]
        mod properties {
            mod timers;
        }
        mod service_timers;
        mod timers;
    }
}
mod stream {
    mod liveness {
        mod ack_progress;
        mod pauses;
        mod peer_watch;
        mod policy;
        #[cfg(test)]
        mod properties;
        #[cfg(test)]
        mod tests;
        mod timers;
    }
}
/// The tests of the machines do not depend on the numbers of errors.
mod sys {
    mod convert;
    pub(crate) mod sync;

    pub(crate) const TELLS_SILENCE: bool = true;

    pub(crate) fn zone_index(zone: &str) -> Option<u32> {
        zone.parse().ok()
    }

    pub(crate) fn is_from_network(_: &std::io::Error) -> bool {
        false
    }

    pub(crate) fn is_no_interface(_: &std::io::Error) -> bool {
        false
    }

    pub(crate) fn is_out_of_descriptors(_: &std::io::Error) -> bool {
        false
    }

    pub(crate) fn is_out_of_memory(_: &std::io::Error) -> bool {
        false
    }

    pub(crate) fn is_too_long(_: &std::io::Error) -> bool {
        false
    }

    pub(crate) fn is_unsupported(_: &std::io::Error) -> bool {
        false
    }
}
mod types;
