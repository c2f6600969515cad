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
    pub(crate) mod memory;
    #[cfg(test)]
    mod properties;
}
#[cfg(test)]
mod properties;
mod serve {
    mod capacity;
    mod reactor {
        /// The queue sends no file: the event loop does.
        mod file_part {
            use crate::sys::FileRef;

            #[derive(Debug)]
            pub(super) struct FilePart {
                len: u64,
            }

            impl FilePart {
                pub(super) fn new(
                    _: FileRef<'_>,
                    _: u64,
                    len: u64,
                    _: &'static str,
                ) -> crate::types::error::Result<FilePart> {
                    Ok(FilePart { len })
                }

                pub(super) fn len(&self) -> u64 {
                    self.len
                }

                pub(super) fn close_copy(self) {}
            }
        }
        #[cfg(test)]
        mod properties {
            mod send_queue;
            mod timers;
        }
        mod send_queue;
        mod service_timers;
        mod timers;
    }
    mod stats {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(super) struct Dropped {
            pub messages: u64,
            pub bytes: u64,
        }

        impl Dropped {
            pub(super) fn add(&mut self, bytes: u64) {
                self.messages += 1;
                self.bytes = self.bytes.saturating_add(bytes);
            }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum OverflowPolicy {
        Disconnect,
        DropOldest,
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

    pub(crate) use std::os::fd::{AsFd, BorrowedFd as FileRef};

    pub(crate) const SLICE_LEN_MAX: usize = isize::MAX as usize;
    pub(crate) const TELLS_SILENCE: bool = true;

    pub(crate) fn file_of(file: &impl AsFd) -> FileRef<'_> {
        file.as_fd()
    }

    pub(crate) fn total_len(lens: impl Iterator<Item = usize>) -> Option<usize> {
        let total = lens.fold(0usize, usize::saturating_add);
        isize::try_from(total).is_ok().then_some(total)
    }

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
