//! The flags of a [`ClientSocket`](super::ClientSocket), bits of one atomic integer.

/// Calls wait in poll(2) and not in the system call itself, because the socket has a cancel token
/// or liveness timers, or because the platform has no other way.
pub(super) const USES_POLL: u32 = 1;
/// Calls do not wait.
pub(super) const NONBLOCKING: u32 = 1 << 1;
/// A call has read the peer's FIN. No more data can arrive, so closing loses no data.
pub(super) const RECV_EOF: u32 = 1 << 2;
/// The kernel has not yet accepted data, so closing loses no data. A set bit means "nothing was
/// written", so that the test for slow writes also finds the first write, which clears the bit.
pub(super) const UNWRITTEN: u32 = 1 << 3;
/// This side has shut down sending.
pub(super) const HALF_CLOSED: u32 = 1 << 4;
/// The server that accepted the connection is draining.
pub(super) const DRAINING: u32 = 1 << 5;
/// The read buffer contains bytes.
pub(super) const BUFFERED: u32 = 1 << 6;
/// The socket has a read timeout.
pub(super) const READ_TIMEOUT: u32 = 1 << 7;
/// The socket has a write timeout.
pub(super) const WRITE_TIMEOUT: u32 = 1 << 8;
/// Closing has started. No call may start, and calls of other threads end.
pub(super) const CLOSING: u32 = 1 << 9;
/// The socket keeps the statistics of the kernel after it is closed.
pub(super) const KEEP_STATS: u32 = 1 << 10;
/// The kernel has accepted a part of a heartbeat. The rest is sent before the next write.
pub(super) const HEARTBEAT_PARTIAL: u32 = 1 << 11;
/// The abnormal end of the connection was logged.
pub(super) const END_LOGGED: u32 = 1 << 12;
/// The descriptor still has O_NONBLOCK from connecting. O_NONBLOCK is cleared before the first call
/// that waits in the kernel, and before the program gets the descriptor.
pub(super) const NONBLOCK_PENDING: u32 = 1 << 13;
/// Data was written after a call had read the peer's FIN. The peer may reject the data.
pub(super) const WROTE_AFTER_EOF: u32 = 1 << 14;
/// The kernel accepted only a part of the data of the last write call. The caller has the rest.
pub(super) const MESSAGE_PARTIAL: u32 = 1 << 15;
/// A Unix socket of type SOCK_SEQPACKET.
pub(super) const SEQPACKET: u32 = 1 << 16;
/// A call is in progress that needs a non-blocking descriptor.
pub(super) const NONBLOCK_PINNED: u32 = 1 << 17;
/// The socket was connected with TCP Fast Open: the first write may send the SYN, and may report
/// that the peer refused the connection.
pub(super) const FAST_OPEN: u32 = 1 << 18;
/// The program has had the descriptor, so another user of the descriptor may consume an error that
/// the kernel reports once. A forked child may also consume the error.
pub(super) const FD_SHARED: u32 = 1 << 19;
/// Closing ended a write of another thread after the kernel had accepted a part of its data.
pub(super) const WRITE_INTERRUPTED: u32 = 1 << 20;
/// The connection may have a user timeout (TCP_USER_TIMEOUT) or use Multipath TCP: an option
/// requested it, or the program had the descriptor before this object, or the socket was accepted
/// and inherited them from its listener.
pub(super) const TCP_OPTIONS: u32 = 1 << 21;
/// This program has reset the connection.
pub(super) const RESET: u32 = 1 << 22;
/// The peer reset the connection after its FIN. Reads still report the FIN.
pub(super) const FIN_BEFORE_RESET: u32 = 1 << 23;
/// The PROXY header was not received yet. It comes before all data.
pub(super) const PROXY_PENDING: u32 = 1 << 24;
/// A call of `write_message` sent a part of its message. A later call continues it, and no other
/// write may start before.
pub(super) const MESSAGE_UNFINISHED: u32 = 1 << 25;
/// The library has turned TCP_NODELAY off, or left it off.
pub(super) const NODELAY_OFF: u32 = 1 << 26;
/// The read timeout is below [`CallTimeout::SHORT`](crate::io::timeout::CallTimeout::SHORT).
pub(super) const SHORT_READ_TIMEOUT: u32 = 1 << 28;
/// The write timeout is below [`CallTimeout::SHORT`](crate::io::timeout::CallTimeout::SHORT).
pub(super) const SHORT_WRITE_TIMEOUT: u32 = 1 << 29;
/// This side sent the SYN: the socket was made by connect.
pub(super) const ACTIVE_OPEN: u32 = 1 << 31;

/// A read needs more than one system call.
pub(super) const SLOW_READ: u32 = SHORT_READ_TIMEOUT
    | USES_POLL
    | NONBLOCKING
    | BUFFERED
    | DRAINING
    | CLOSING
    | NONBLOCK_PENDING
    | PROXY_PENDING
    | SEQPACKET;

/// A write needs more than one system call, changes the flags, or must not start.
pub(super) const SLOW_WRITE: u32 = SHORT_WRITE_TIMEOUT
    | MESSAGE_UNFINISHED
    | USES_POLL
    | NONBLOCKING
    | CLOSING
    | NONBLOCK_PENDING
    | RECV_EOF
    | SEQPACKET
    | UNWRITTEN;

#[cfg(test)]
mod tests {
    /// I4: no two flags are the same bit.
    #[test]
    fn flags_are_distinct_bits() {
        let bits = include_str!("flags.rs").lines().filter_map(|line| {
            let value = line.strip_prefix("pub(super) const ")?.split_once(": u32 = ")?.1;
            match value.trim_end_matches(';') {
                "1" => Some(0),
                shifted => shifted.strip_prefix("1 << ")?.parse().ok(),
            }
        });
        let bits: Vec<u32> = bits.collect();
        assert!(bits.len() > 20, "{bits:?}");
        let all = bits.iter().fold(0_u32, |all, bit| all | 1 << bit);
        assert_eq!(all.count_ones() as usize, bits.len(), "{bits:?}");
    }
}
