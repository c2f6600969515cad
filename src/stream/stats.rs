//! Statistics of a connection, its TCP state and its close reason.

use std::time::Duration;

use super::ClientSocket;
use super::flags::{CLOSING, FD_SHARED, KEEP_STATS, TCP_OPTIONS};
use super::liveness::hard_error;
use crate::stream::liveness::policy::Liveness;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Borrowed, InUse, TcpInfo};
use crate::types::address::FiveTuple;
use crate::types::close_reason::CloseReason;
use crate::types::error::Result;
use crate::types::tcp_state::TcpState;

/// A snapshot of a connection's statistics, from
/// [`ClientSocket::stats`](crate::ClientSocket::stats).
///
/// A member is `None` if the system does not report it or if it has no meaning for the connection,
/// such as the TCP members for a Unix socket. Linux reports all members (TCP_INFO of tcp(7),
/// SIOCOUTQ). FreeBSD (TCP_INFO), macOS (TCP_CONNECTION_INFO) and Windows (SIO_TCP_INFO) report a
/// part of them.
///
/// ```
/// use keepsock::{ClientSocket, ServerSocket, TcpState};
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let stats = client.stats()?;
/// println!("{}: round trip {:?}", stats.five_tuple, stats.rtt);
/// # if cfg!(target_os = "linux") {
/// assert_eq!(stats.tcp_state, Some(TcpState::Established));
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The protocol, the local address and the remote address.
    pub five_tuple: FiveTuple,
    /// The TCP state.
    pub tcp_state: Option<TcpState>,
    /// Why the connection ended. `None`: no call has observed its end.
    pub close_reason: Option<CloseReason>,
    /// The smoothed round-trip time (RFC 6298).
    pub rtt: Option<Duration>,
    /// The mean deviation of the round-trip time.
    pub rtt_variation: Option<Duration>,
    /// The shortest round-trip time of the last minutes.
    pub min_rtt: Option<Duration>,
    /// The number of retransmitted segments since the connection was made.
    pub retransmits: Option<u64>,
    /// The time since data was last sent.
    pub last_sent: Option<Duration>,
    /// The time since the last segment was received, with data or as an acknowledgment. On FreeBSD it
    /// overflows to zero after 71 minutes.
    pub last_received: Option<Duration>,
    /// The number of bytes that were sent and are not acknowledged.
    pub unacknowledged: Option<u64>,
    /// The number of bytes in the send buffer that were not sent yet.
    pub unsent: Option<u64>,
    /// The number of received bytes that the program has not read, in the kernel and in the
    /// [read buffer](crate::ClientSocket::buffered).
    pub unread: Option<u64>,
    /// The number of data bytes sent, including retransmitted bytes.
    pub bytes_sent: Option<u64>,
    /// The number of data bytes received. Linux counts the FIN as one byte.
    pub bytes_received: Option<u64>,
    /// The number of segments sent, including pure acknowledgments.
    pub segments_sent: Option<u64>,
    /// The number of segments received, including pure acknowledgments.
    pub segments_received: Option<u64>,
    /// The size of the largest segment that is sent, in bytes (MSS).
    pub mss: Option<u32>,
    /// The congestion window: the number of segments that may be in flight.
    pub congestion_window: Option<u64>,
    /// The peer's receive window, in bytes. 0: the peer's program does not read.
    pub peer_window: Option<u64>,
    /// The congestion-control algorithm, such as `cubic` or `bbr`.
    pub congestion_control: Option<String>,
    /// The number of heartbeats that this side has sent. `None` for a connection of an event loop, which
    /// does not count them.
    pub heartbeats: Option<u64>,
    /// The TCP user timeout that the kernel uses (TCP_USER_TIMEOUT, RFC 9293 section 3.8.3): the
    /// time for which data may stay unacknowledged, or in the send buffer because the peer does not
    /// read. [`fail_on_stall`](crate::SocketOptions::fail_on_stall) sets it.
    pub user_timeout: Option<Duration>,
    /// Whether the connection is Multipath TCP (RFC 8684). It is if both kernels and every device
    /// on the path support it. Always `false` after close, before Linux 5.16 and on other systems.
    pub is_mptcp: bool,
}

impl ConnectionStats {
    pub(crate) fn new(five_tuple: FiveTuple, tcp: TcpInfo) -> ConnectionStats {
        ConnectionStats {
            five_tuple,
            tcp_state: tcp.state,
            close_reason: None,
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
            heartbeats: None,
            user_timeout: None,
            is_mptcp: false,
        }
    }

    /// Reads the values that TCP_INFO does not have from an open TCP socket.
    pub(crate) fn read_tcp_options(&mut self, socket: Borrowed<'_>) {
        self.user_timeout = sys::user_timeout(socket).ok().flatten();
        self.is_mptcp = sys::is_mptcp(socket);
    }
}

impl ClientSocket {
    /// Returns why the connection ended. `None`: no call on this socket has observed its end. The reason
    /// stays available after close.
    ///
    /// While a close of an open connection waits for the peer, the reason is already
    /// [`Local`](CloseReason::Local) or [`Cancelled`](CloseReason::Cancelled). A failure that the
    /// close then observes replaces this reason. After the peer has closed its side, a reset replaces
    /// the reason. This call looks for such a reset, and [`close`](ClientSocket::close) does not,
    /// because it would cost a system call: call this method before the close if the difference
    /// matters. `None` means that no call has observed a cause.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, CloseReason, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert_eq!(client.close_reason(), None);
    /// client.close()?;
    /// assert_eq!(client.close_reason(), Some(CloseReason::Local));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn close_reason(&self) -> Option<CloseReason> {
        if self.close_reason.load(Ordering::Acquire) == CloseReason::PeerClosed as i32 {
            self.look_for_reset();
        }
        self.recorded_close_reason()
    }

    /// Records the reset of a peer that had closed its side. A read does not look for it, because its
    /// result is the end of the stream in any case.
    #[cold]
    fn look_for_reset(&self) {
        let Some(io) = self.descriptor.enter().filter(|io| !self.is_closing(io)) else {
            return;
        };
        if let Some(e) = hard_error(&io) {
            self.record_pending_error(&io, &e);
        }
    }

    pub(super) fn recorded_close_reason(&self) -> Option<CloseReason> {
        // A close sets the flag before it records the reason, which it may observe only at its end.
        let is_closed = self.has(CLOSING) || self.descriptor.is_closed();
        let recorded = CloseReason::from_number(self.close_reason.load(Ordering::Acquire));
        recorded.or_else(|| is_closed.then(|| self.local_close_reason()))
    }

    /// Returns a snapshot of the connection's statistics: TCP state, times, counters.
    ///
    /// After the connection ended with an error, and after close if
    /// [`keep_stats`](crate::SocketOptions::keep_stats) is set, the snapshot has the last values of
    /// the kernel. After a close without `keep_stats` it has only the five-tuple, the
    /// [close reason](ClientSocket::close_reason), the state CLOSED and the number of heartbeats.
    ///
    /// # Errors
    /// - [`NoMemory`](crate::ErrorKind::NoMemory), [`Os`](crate::ErrorKind::Os): the kernel failed the
    ///   query.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, TcpState};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// println!("{:?} bytes are in flight", client.stats()?.unacknowledged);
    /// client.close()?;
    /// assert_eq!(client.stats()?.tcp_state, Some(TcpState::Closed));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn stats(&self) -> Result<ConnectionStats> {
        let io = self.descriptor.enter();
        let mut unread = None;
        let kept = self.cold.get().and_then(|cold| cold.final_info.get());
        let tcp = match (&io, kept) {
            (_, Some(kept)) => kept.clone(),
            (Some(io), None) => {
                unread = sys::unread(io.socket()).map(|n| n + self.buffered() as u64);
                if self.is_inet() {
                    sys::tcp_info(io.socket()).map_err(|e| self.os_failed("statistics", e))?
                } else {
                    TcpInfo::default()
                }
            }
            (None, None) => TcpInfo::default(),
        };
        let mut stats = ConnectionStats::new(self.five_tuple(), tcp);
        if self.is_inet() {
            match &io {
                Some(io) if self.may_have_tcp_options() => stats.read_tcp_options(io.socket()),
                Some(_) => {}
                None => stats.tcp_state = Some(TcpState::Closed),
            }
        }
        stats.close_reason = self.close_reason();
        stats.unread = unread;
        stats.heartbeats = Some(self.liveness().map_or(0, Liveness::heartbeats));
        Ok(stats)
    }

    /// Whether the connection may have a user timeout or use Multipath TCP. Otherwise no
    /// query of the kernel is needed.
    fn may_have_tcp_options(&self) -> bool {
        let has_holders = self.descriptor.is_inherited() || sys::fork::has_forked();
        self.has(TCP_OPTIONS | FD_SHARED) || has_holders
    }

    /// Whether the socket keeps its statistics after close.
    #[cfg(feature = "serve")]
    pub(crate) fn keeps_stats(&self) -> bool {
        self.has(KEEP_STATS)
    }

    /// Stores the kernel's report on the connection for [`stats`](ClientSocket::stats).
    pub(super) fn store_final_info(&self, io: &InUse<'_>) {
        if self.cold().final_info.get().is_none() && self.is_inet() {
            if let Ok(info) = sys::tcp_info(io.socket()) {
                let _ = self.cold().final_info.set(info);
            }
        }
    }

    pub(super) fn store_final_info_if_configured(&self, io: &InUse<'_>) {
        if self.has(KEEP_STATS) {
            self.store_final_info(io);
        }
    }
}
