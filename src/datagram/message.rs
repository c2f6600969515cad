//! Datagrams: one that is sent, and one that was received.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::client::Credentials;
use crate::info::Address;

/// What [`DatagramSocket::recv`](crate::DatagramSocket::recv) received, but for the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// How many bytes were put into the buffer.
    pub len: usize,
    /// How many bytes the datagram had. Systems other than Linux do not tell: there it is `len`.
    pub original_len: usize,
    /// Whether the buffer was too short, so that the rest of it is lost.
    pub truncated: bool,
    /// Who sent it. A Unix socket that is not bound has no name, and cannot be answered.
    pub from: Address,
    /// The address that it was sent to, which may be a group's or a broadcast address. UDP only,
    /// as are local, interface, ttl and tos.
    pub to: Option<SocketAddr>,
    /// The address of this machine that a [`reply`](crate::DatagramSocket::reply) leaves from.
    pub local: Option<SocketAddr>,
    /// The index of the interface by which it came, for a socket that is bound to a wildcard or
    /// to a group, or with [details](crate::DatagramSocket::set_details), where the system tells.
    pub interface: Option<u32>,
    /// How many routers it might still have passed (TTL, hop limit), with
    /// [details](crate::DatagramSocket::set_details).
    pub ttl: Option<u8>,
    /// Its TOS byte (IPv4), or traffic class (IPv6), with
    /// [details](crate::DatagramSocket::set_details): DSCP in the upper six bits (RFC 2474), ECN in
    /// the lower two (RFC 3168).
    pub tos: Option<u8>,
    /// When the kernel took it, by the clock of the day, with
    /// [details](crate::DatagramSocket::set_details); of Unix sockets, too.
    pub received_at: Option<SystemTime>,
    /// The process that sent it, its user and its group, by what the kernel knows, with
    /// [details](crate::DatagramSocket::set_details) or
    /// [`allow_user`](crate::SocketOptions::allow_user); Unix sockets on Linux.
    pub credentials: Option<Credentials>,
}

/// One datagram of [`DatagramSocket::send_batch`](crate::DatagramSocket::send_batch).
///
/// ```
/// use keepsock::Outgoing;
/// # use std::net::SocketAddr;
/// let one = Outgoing::to(b"hello", SocketAddr::from(([127, 0, 0, 1], 7788)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// What is sent.
    pub bytes: &'a [u8],
    /// To whom; `None`: to the peer of a connected socket.
    pub to: Option<Address>,
    /// From which address of this machine; `None`: the system chooses. For UDP sockets that are
    /// bound to a wildcard; others have one address.
    pub local: Option<SocketAddr>,
    /// By which interface, where the addresses need one: link-local and group addresses.
    pub interface: Option<u32>,
}

impl<'a> Outgoing<'a> {
    /// To the peer of a connected socket.
    ///
    /// ```
    /// let one = keepsock::Outgoing::new(b"hello");
    /// ```
    pub fn new(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        Outgoing { bytes: bytes.as_ref(), to: None, local: None, interface: None }
    }

    /// To an address.
    ///
    /// ```
    /// # use keepsock::{Address, Outgoing};
    /// let one = Outgoing::to(b"hello", Address::UnixPath("/run/app.sock".into()));
    /// ```
    pub fn to(bytes: &'a (impl AsRef<[u8]> + ?Sized), to: impl Into<Address>) -> Outgoing<'a> {
        Outgoing { to: Some(to.into()), ..Outgoing::new(bytes) }
    }

    /// An answer, as [`DatagramSocket::reply`](crate::DatagramSocket::reply) sends one.
    ///
    /// ```
    /// # use keepsock::{DatagramSocket, Outgoing};
    /// # if cfg!(windows) { return Ok(()) }
    /// # let server = DatagramSocket::bind("127.0.0.1:0")?;
    /// # let client = DatagramSocket::connect(server.endpoint())?;
    /// # client.send(b"question")?;
    /// let question = server.recv(&mut [0; 1500])?;
    /// server.send_batch(&[Outgoing::reply(&question, b"one"), Outgoing::reply(&question, b"two")])?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn reply(question: &Datagram, bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Outgoing<'a> {
        let (local, interface) = (question.local, question.interface);
        Outgoing { local, interface, ..Outgoing::to(bytes, question.from.clone()) }
    }
}

/// A buffer for [`DatagramSocket::recv_batch`](crate::DatagramSocket::recv_batch), and what was
/// received into it.
///
/// ```
/// let mut buf = [0; 1500];
/// let incoming = keepsock::Incoming::new(&mut buf);
/// assert!(incoming.datagram().is_none());
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) datagram: Option<Datagram>,
}

impl<'a> Incoming<'a> {
    /// A buffer for one datagram.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// let incoming = keepsock::Incoming::new(&mut buf);
    /// ```
    pub fn new(buf: &'a mut [u8]) -> Incoming<'a> {
        Incoming { buf, datagram: None }
    }

    /// What was received last; `None`: nothing yet.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).datagram().is_none());
    /// ```
    pub fn datagram(&self) -> Option<&Datagram> {
        self.datagram.as_ref()
    }

    /// Its bytes.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert!(keepsock::Incoming::new(&mut buf).bytes().is_empty());
    /// ```
    pub fn bytes(&self) -> &[u8] {
        self.datagram().and_then(|d| self.buf.get(..d.len)).unwrap_or_default()
    }

    /// The buffer as a whole.
    ///
    /// ```
    /// let mut buf = [0; 1500];
    /// assert_eq!(keepsock::Incoming::new(&mut buf).buffer().len(), 1500);
    /// ```
    pub fn buffer(&mut self) -> &mut [u8] {
        self.buf
    }
}
