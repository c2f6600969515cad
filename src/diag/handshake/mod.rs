//! TCP's three-way handshake as data and as text. This module does no I/O. The packets come from
//! [`Capture`](crate::Capture), from [`ClientSocket::saved_syn`](crate::ClientSocket::saved_syn),
//! or from the caller.

mod diagram;
mod matcher;
mod segment;

use std::net::SocketAddr;

use crate::types::address::{Address, FiveTuple};
use crate::types::tcp_state::TcpState;

pub(crate) use matcher::Matcher;
pub use segment::{Segment, TcpFlags, TcpOption};

/// The three packets that open a TCP connection (RFC 9293 section 3.5).
///
/// [`Capture::handshake`](crate::Capture::handshake) returns it, or [`among`](Handshake::among)
/// finds it among packets that another program has captured. A simultaneous open of both sides,
/// which is rare, has four packets and is not recognized.
///
/// ```
/// use keepsock::{Capture, ClientSocket, ErrorKind, ServerSocket};
/// use std::time::Duration;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let capture = match Capture::on_port(server.port()) {
///     Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
///         println!("{e}");
///         return Ok(());
///     }
///     capture => capture?,
/// };
/// let client = ClientSocket::connect(server.endpoint())?;
/// let handshake = capture.handshake(&client.five_tuple(), Duration::from_secs(5))?;
/// assert_eq!(handshake.syn_ack.ack, handshake.syn.seq.wrapping_add(1));
/// println!("{}", handshake.diagram());
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// The client's SYN. If it was retransmitted, the first copy.
    pub syn: Segment,
    /// The server's SYN+ACK. If it was retransmitted, the first copy.
    pub syn_ack: Segment,
    /// The client's ACK of the SYN+ACK. It may carry data.
    pub ack: Segment,
    /// The number of retransmissions of the SYN.
    pub syn_retransmissions: u32,
    /// The number of retransmissions of the SYN+ACK.
    pub syn_ack_retransmissions: u32,
}

/// A packet of a handshake, and the state of each side after the packet has arrived.
///
/// The states are derived from the packets (RFC 9293 section 3.3.2). They are not read from the
/// kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeStep<'a> {
    /// The packet.
    pub segment: &'a Segment,
    /// The state of the client, which sent the SYN.
    pub client: TcpState,
    /// The state of the server, which listened.
    pub server: TcpState,
}

impl Handshake {
    /// Finds the handshake between two addresses among packets. The packets must be in the order
    /// in which they were captured, and may include packets of other connections. `of` is the
    /// five-tuple of either side. If there are several complete handshakes, because a port was
    /// reused, the result is the latest one. `None`: there is no complete handshake.
    ///
    /// Each packet must be included once, because a copy counts as a retransmission.
    ///
    /// ```
    /// use keepsock::{Capture, FiveTuple, Handshake, Segment};
    /// let of = FiveTuple::tcp("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    /// let packets: Vec<Vec<u8>> = vec![];   // for example from a file
    /// let segments = packets.iter().filter_map(|packet| Segment::parse(packet));
    /// assert!(Handshake::among(segments, &of).is_none());
    /// ```
    pub fn among(segments: impl IntoIterator<Item = Segment>, of: &FiveTuple) -> Option<Handshake> {
        let (Address::Inet(local), Address::Inet(remote)) = (&of.local, &of.remote) else {
            return None;
        };
        let mut matcher = Matcher::default();
        segments.into_iter().for_each(|segment| matcher.put(segment, (0, false)));
        matcher.find(*local, *remote).complete
    }

    /// The address of the client, which sent the SYN.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// println!("{} connected to {}", handshake.client(), handshake.server());
    /// # }
    /// ```
    pub fn client(&self) -> SocketAddr {
        self.syn.source
    }

    /// The address of the server, which listened.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// println!("{} connected to {}", handshake.client(), handshake.server());
    /// # }
    /// ```
    pub fn server(&self) -> SocketAddr {
        self.syn.destination
    }

    /// The three packets, with the states of both sides after each packet. Before the first
    /// packet, the client is in state CLOSED and the server in state LISTEN.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// for step in handshake.steps() {
    ///     println!("{}: client {}, server {}", step.segment, step.client, step.server);
    /// }
    /// # }
    /// ```
    pub fn steps(&self) -> [HandshakeStep<'_>; 3] {
        use TcpState::{Established, SynReceived, SynSent};
        let step = |segment, client, server| HandshakeStep { segment, client, server };
        [
            step(&self.syn, SynSent, SynReceived),
            step(&self.syn_ack, Established, SynReceived),
            step(&self.ack, Established, Established),
        ]
    }

    /// The three packets, each as the line that `tcpdump -n -S -t` prints.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// handshake.lines().iter().for_each(|line| println!("{line}"));
    /// # }
    /// ```
    pub fn lines(&self) -> [String; 3] {
        self.steps().map(|step| step.segment.to_string())
    }

    /// A sequence diagram with at most 80 columns. The client is at the left and the server at the
    /// right. Each state is next to its line, and the sequence numbers are above the arrows.
    ///
    /// ```text
    /// client 127.0.0.1:40000                                     server 127.0.0.1:80
    ///       CLOSED |                                                  | LISTEN
    ///              |                                                  |
    ///              | SYN seq=j (3735928559)                           |
    ///              | win=65495 mss=65495 wscale=7 sackOK TS           |
    ///     SYN-SENT |------------------------------------------------->| SYN-RECEIVED
    ///              |                                                  |
    ///              | SYN, ACK seq=k (20) ack=j+1 (3735928560)         |
    ///              | win=65483 mss=65495 wscale=7 sackOK TS           |
    ///  ESTABLISHED |<-------------------------------------------------| SYN-RECEIVED
    ///              |                                                  |
    ///              | ACK seq=j+1 (3735928560) ack=k+1 (21)            |
    ///  ESTABLISHED |------------------------------------------------->| ESTABLISHED
    ///
    /// j = 3735928559, k = 20: the initial sequence numbers
    /// ```
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// println!("{}", handshake.diagram());
    /// # }
    /// ```
    pub fn diagram(&self) -> String {
        diagram::Diagram(self).to_string()
    }
}

#[cfg(test)]
mod tests;
