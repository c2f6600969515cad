//! Snapshot: what is known of a connection at one moment.

use std::time::Duration;

use crate::info::{End, FiveTuple, TcpState};
use crate::sys::TcpInfo;

/// What is known of a connection at one moment, from
/// [`ClientSocket::snapshot`](crate::ClientSocket::snapshot). `None` is what the
/// system, or this kind of socket, does not tell: for Unix sockets all that is TCP's.
/// Linux tells everything (TCP_INFO of tcp(7), SIOCOUTQ); FreeBSD, macOS
/// (TCP_CONNECTION_INFO) and Windows (SIO_TCP_INFO) a part.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket, TcpState};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let snapshot = client.snapshot()?;
/// println!("{}: round trip {:?}", snapshot.five_tuple, snapshot.rtt);
/// # if cfg!(target_os = "linux") {
/// assert_eq!(snapshot.state, Some(TcpState::Established));
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Protocol, local and remote address.
    pub five_tuple: FiveTuple,
    /// The state, by its name in RFC 9293.
    pub state: Option<TcpState>,
    /// Why the connection ended, if it did.
    pub end: Option<End>,
    /// The smoothed round-trip time (RFC 6298).
    pub rtt: Option<Duration>,
    /// Its mean deviation.
    pub rtt_variation: Option<Duration>,
    /// The shortest round trip that was seen lately.
    pub min_rtt: Option<Duration>,
    /// Segments that were sent again, in the connection's life.
    pub retransmits: Option<u64>,
    /// How long ago data was sent last.
    pub last_sent: Option<Duration>,
    /// How long ago the last segment came, be it data or an ACK.
    pub last_received: Option<Duration>,
    /// Bytes on their way: sent and not acknowledged.
    pub unacknowledged: Option<u64>,
    /// Bytes that were written and wait to be sent.
    pub unsent: Option<u64>,
    /// Bytes that came and wait to be read, those that were
    /// [read ahead](crate::ClientSocket::buffered) included.
    pub unread: Option<u64>,
    /// Data bytes sent, repeated ones included.
    pub bytes_sent: Option<u64>,
    /// Data bytes received; Linux counts the FIN as one.
    pub bytes_received: Option<u64>,
    /// Segments sent, with those that only acknowledge.
    pub segments_sent: Option<u64>,
    /// Segments received, with those that only acknowledge.
    pub segments_received: Option<u64>,
    /// The largest segment that is sent, in bytes.
    pub mss: Option<u32>,
    /// How many segments may be on their way.
    pub congestion_window: Option<u64>,
    /// How many bytes the peer takes; 0: its program does not read.
    pub peer_window: Option<u64>,
    /// The algorithm that minds congestion: `cubic`, `bbr`.
    pub congestion_control: Option<String>,
    /// Heartbeats that this side sent.
    pub heartbeats: u64,
}

impl Snapshot {
    pub(crate) fn new(five_tuple: FiveTuple, tcp: TcpInfo) -> Snapshot {
        Snapshot {
            five_tuple,
            state: tcp.state,
            end: None,
            rtt: tcp.rtt,
            rtt_variation: tcp.rtt_variation,
            min_rtt: tcp.min_rtt,
            retransmits: tcp.retransmits,
            last_sent: tcp.last_sent,
            last_received: tcp.last_received,
            unacknowledged: tcp.unacknowledged,
            unsent: tcp.unsent,
            unread: None,
            bytes_sent: tcp.bytes_sent,
            bytes_received: tcp.bytes_received,
            segments_sent: tcp.segments_sent,
            segments_received: tcp.segments_received,
            mss: tcp.mss,
            congestion_window: tcp.congestion_window,
            peer_window: tcp.peer_window,
            congestion_control: tcp.congestion_control,
            heartbeats: 0,
        }
    }
}
