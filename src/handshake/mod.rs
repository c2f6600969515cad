//! TCP's three-way handshake as data and as text. Nothing here does any I/O: packets come
//! from [`Capture`](crate::Capture), from
//! [`ClientSocket::syn`](crate::ClientSocket::syn), or from wherever the caller has them.

mod diagram;
mod matcher;
mod segment;

use std::net::SocketAddr;

use crate::info::{Address, FiveTuple, TcpState};

pub(crate) use matcher::Matcher;
pub use segment::{Segment, TcpFlags, TcpOption};

/// The three packets that open a TCP connection (RFC 9293 section 3.5).
///
/// From [`Capture::handshake`](crate::Capture::handshake), or
/// [`among`](Handshake::among) packets that somebody else captured. (The rare opening from both
/// sides at once has four packets, and is not one.)
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
    /// The client's SYN; of several copies the first.
    pub syn: Segment,
    /// The server's answer, SYN and ACK; of several copies the first.
    pub syn_ack: Segment,
    /// What the client sent on that: an ACK, perhaps with data.
    pub ack: Segment,
    /// How often the SYN was sent again, because no answer came in time.
    pub syn_retransmissions: u32,
    /// How often the answer was sent again.
    pub syn_ack_retransmissions: u32,
}

/// A packet of a handshake, and the state of each side after it has come.
///
/// The states are those of RFC 9293 section 3.3.2 that the packets lead to: they are
/// worked out from the packets, not asked of anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The packet.
    pub segment: &'a Segment,
    /// The state of the side that asked for the connection.
    pub client: TcpState,
    /// The state of the side that listened.
    pub server: TcpState,
}

impl Handshake {
    /// Finds the handshake between two addresses among packets in the order in which they
    /// were captured. Which side is `local` does not matter; packets of other connections may
    /// be among them. If there are several handshakes, as when a port was used again,
    /// it is the latest that is complete. `None`: there is none.
    ///
    /// Each packet must be there once: a copy counts as a retransmission.
    ///
    /// ```
    /// use keepsock::{Capture, FiveTuple, Handshake, Segment};
    /// let of = FiveTuple::tcp("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    /// let packets: Vec<Vec<u8>> = vec![];   // from a file, say
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

    /// The side that asked for the connection.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// println!("{} asked {}", handshake.client(), handshake.server());
    /// # }
    /// ```
    pub fn client(&self) -> SocketAddr {
        self.syn.source
    }

    /// The side that listened.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// println!("{} asked {}", handshake.client(), handshake.server());
    /// # }
    /// ```
    pub fn server(&self) -> SocketAddr {
        self.syn.destination
    }

    /// The three packets with both sides' states after each. Before the first they are CLOSED
    /// and LISTEN.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// for step in handshake.steps() {
    ///     println!("{}: client {}, server {}", step.segment, step.client, step.server);
    /// }
    /// # }
    /// ```
    pub fn steps(&self) -> [Step<'_>; 3] {
        use TcpState::{Established, SynReceived, SynSent};
        let step = |segment, client, server| Step { segment, client, server };
        [
            step(&self.syn, SynSent, SynReceived),
            step(&self.syn_ack, Established, SynReceived),
            step(&self.ack, Established, Established),
        ]
    }

    /// The three packets as `tcpdump -n -S -t` prints them, a line each.
    ///
    /// ```
    /// # fn show(handshake: &keepsock::Handshake) {
    /// handshake.lines().iter().for_each(|line| println!("{line}"));
    /// # }
    /// ```
    pub fn lines(&self) -> [String; 3] {
        self.steps().map(|step| step.segment.to_string())
    }

    /// A sequence diagram in at most 80 columns: the client at the left, the server at the
    /// right, their states beside their lines, and the numbers above the arrows.
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
