//! The states of a TCP socket.

/// The state of a TCP socket, with its name in RFC 9293 section 3.3.2. The numbers are those of
/// Linux (include/net/tcp_states.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
#[repr(i32)]
pub enum TcpState {
    /// The connection is established in both directions.
    #[error("ESTABLISHED")]
    Established = 1,
    /// This side has sent SYN and waits for the peer's.
    #[error("SYN-SENT")]
    SynSent = 2,
    /// Both sides have sent SYN; this side waits for the peer's ACK.
    #[error("SYN-RECEIVED")]
    SynReceived = 3,
    /// This side has sent FIN and waits for its ACK or for the peer's FIN.
    #[error("FIN-WAIT-1")]
    FinWait1 = 4,
    /// The peer has acknowledged this side's FIN and has not sent its own.
    #[error("FIN-WAIT-2")]
    FinWait2 = 5,
    /// Both sides have closed. The socket waits until old segments have left the network.
    #[error("TIME-WAIT")]
    TimeWait = 6,
    /// There is no connection.
    #[error("CLOSED")]
    Closed = 7,
    /// The peer has sent FIN. This side has not, and may still send.
    #[error("CLOSE-WAIT")]
    CloseWait = 8,
    /// Both sides have sent FIN, the peer first. This side waits for the ACK of its FIN.
    #[error("LAST-ACK")]
    LastAck = 9,
    /// The socket listens.
    #[error("LISTEN")]
    Listen = 10,
    /// Both sides have sent FIN at the same time. This side waits for the ACK of its FIN.
    #[error("CLOSING")]
    Closing = 11,
}

impl TcpState {
    /// Converts a number of include/net/tcp_states.h. 12, a request that is not accepted yet, is
    /// SYN-RECEIVED in RFC 9293.
    #[cfg(keepsock_linux)]
    pub(crate) fn from_linux(number: u8) -> Option<TcpState> {
        use TcpState::*;
        Some(match number {
            1 => Established,
            2 => SynSent,
            3 | 12 => SynReceived,
            4 => FinWait1,
            5 => FinWait2,
            6 => TimeWait,
            7 => Closed,
            8 => CloseWait,
            9 => LastAck,
            10 => Listen,
            11 => Closing,
            _ => return None,
        })
    }

    /// Converts a number of netinet/tcp_fsm.h.
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    pub(crate) fn from_bsd(number: u8) -> Option<TcpState> {
        use TcpState::*;
        let all = [
            Closed,
            Listen,
            SynSent,
            SynReceived,
            Established,
            CloseWait,
            FinWait1,
            Closing,
            LastAck,
            FinWait2,
            TimeWait,
        ];
        all.get(usize::from(number)).copied()
    }
}

#[cfg(all(test, keepsock_linux))]
mod tests {
    use super::*;

    /// S5: the numbers of linux/tcp_states.h.
    #[test]
    fn from_linux_returns_the_state_of_each_number() {
        use TcpState::*;
        let expected = [
            Established,
            SynSent,
            SynReceived,
            FinWait1,
            FinWait2,
            TimeWait,
            Closed,
            CloseWait,
            LastAck,
            Listen,
            Closing,
            SynReceived,
        ];
        let states: Vec<_> = (1..=12).map_while(TcpState::from_linux).collect();
        assert_eq!(states, expected);
        assert!(TcpState::from_linux(0).is_none() && TcpState::from_linux(13).is_none());
    }
}
