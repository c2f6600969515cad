//! Sizes that both the options and the event loops use.

/// The maximum memory of a queued message in addition to its bytes: its chunk, twice because the
/// queue's capacity may be twice its length, the reference count, and the allocator's share. It
/// counts against the queue limit, so that many small messages do not exceed it.
pub(in crate::serve) const MESSAGE_OVERHEAD: usize = 88;

/// The number of connection entries in addition to the maximum number of connections. They replace
/// exhausted entries.
pub(in crate::serve) const SPARE_ENTRIES: u32 = 16_384;
