//! Connection: what a program holds of one that is served by events.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::slot::{CLOSING, CUT, FIN_WANTED, OVER, PAUSED, RESUMED, Slot};
use super::{Data, Events, Sent, steps};
use crate::client::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{End, FiveTuple};
use crate::snapshot::Snapshot;
use crate::sys::{self, TcpInfo};

/// A connection of a server that [serves by events](crate::ServerSocket::serve_events). A clone
/// is the same connection, and may be kept, say to push from elsewhere: once the connection is
/// over its methods say so, whoever has its place then.
///
/// Any thread may call any method, callbacks included; none waits.
///
/// ```
/// # #[cfg(unix)] {
/// use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
/// use std::sync::mpsc::channel;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// let (kept, all) = channel::<Connection>();
/// let service = server.serve_events(&ServeOptions::new(), move |c: &Connection, _: &[u8]| {
///     let _ = kept.send(c.clone());
/// })?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// client.write_all(b"subscribe\n")?;
/// let connection = all.recv().unwrap();
/// connection.send(b"news\n")?;           // from this thread, at any moment
/// assert_eq!(client.read_line(100)?, "news");
/// # drop(client);
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Clone)]
pub struct Connection {
    pub(super) events: Arc<Events>,
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl PartialEq for Connection {
    fn eq(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.events, &other.events) && self.id() == other.id()
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with(|slot| self.events.five_tuple(slot)) {
            Some(tuple) => write!(f, "Connection({tuple})"),
            None => f.write_str("Connection(over)"),
        }
    }
}

impl Connection {
    /// A number that no other connection of the service has while this one lives, nor for long
    /// after: for a program's own tables.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, End};
    /// # use std::{collections::HashMap, sync::Mutex};
    /// struct Names(Mutex<HashMap<u64, String>>);
    /// impl Handler for Names {
    ///     fn data(&self, connection: &Connection, name: &[u8]) {
    ///         let name = String::from_utf8_lossy(name).into_owned();
    ///         self.0.lock().unwrap().insert(connection.id(), name);
    ///     }
    ///     fn close(&self, connection: &Connection, _: End) {
    ///         self.0.lock().unwrap().remove(&connection.id());
    ///     }
    /// }
    /// ```
    pub fn id(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[cfg(feature = "capi")]
    pub(crate) fn place(&self) -> usize {
        self.index as usize
    }

    /// Sends a message, in the service's [framing](crate::ServeOptions::framing). What the
    /// kernel does not take now waits in this program; nothing of it is on the way later than
    /// a message that was sent after it.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the connection is over, or closing.
    /// [`Stalled`](ErrorKind::Stalled): more than [`max_queued`](crate::ServeOptions::max_queued)
    /// bytes would wait; it is being reset. (With
    /// [`DropOldest`](crate::WhenSlow::DropOldest) messages are dropped and counted instead.)
    /// [`Reset`](ErrorKind::Reset) and others: it has broken off.
    /// [`TooLong`](ErrorKind::TooLong): a message that alone is more than may wait; nothing was
    /// sent. [`InvalidArgument`](ErrorKind::InvalidArgument): the prefix cannot say its length.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Hello;
    /// # impl Handler for Hello {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn open(&self, connection: &Connection) {
    ///     let _ = connection.send(b"hello\n");
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn send(&self, message: &[u8]) -> Result<()> {
        let message = self.events.message(message, "send")?;
        match self.events.send(self.index, self.generation, &message) {
            Sent::Yes | Sent::Dropped => Ok(()),
            other => Err(self.unsent(other)),
        }
    }

    #[cold]
    fn unsent(&self, sent: Sent) -> Error {
        self.at(Error::new(
            match sent {
                Sent::Broken(end) => end.kind(),
                Sent::Overrun => ErrorKind::Stalled,
                _ => ErrorKind::Closed,
            },
            "send",
        ))
    }

    fn at(&self, error: Error) -> Error {
        match self.with(|slot| self.events.five_tuple(slot)) {
            Some(tuple) => error.at(tuple),
            None => error,
        }
    }

    /// Closes: what was sent is delivered, then this side is ended (FIN), and what comes in is
    /// thrown away until the peer has ended its side, too; for at most the
    /// [`close_timeout`](crate::SocketOptions::close_timeout) that the server listens with, in
    /// all. The close callback is the last one. Returns at once; closing twice is fine.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Once;
    /// # impl Handler for Once {
    /// fn data(&self, connection: &Connection, question: &[u8]) {
    ///     let _ = connection.send(question);
    ///     connection.close();
    /// }
    /// # }
    /// ```
    pub fn close(&self) {
        self.events.close(self.index, self.generation);
    }

    /// Breaks the connection off (RST). What the peer has not received yet is lost.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Strict;
    /// # impl Handler for Strict {
    /// fn data(&self, connection: &Connection, data: &[u8]) {
    ///     if !data.is_ascii() {
    ///         connection.abort();
    ///     }
    /// }
    /// # }
    /// ```
    pub fn abort(&self) {
        self.events.abort(self.index, self.generation);
    }

    /// Ends this side's stream (FIN) once what waits was sent; the peer can still send. For
    /// protocols in which the end of the stream is a message.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Reply;
    /// # impl Handler for Reply {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn open(&self, connection: &Connection) {
    ///     let _ = connection.send(b"all there is");
    ///     connection.shutdown_write();
    /// }
    /// # }
    /// ```
    pub fn shutdown_write(&self) {
        self.change(|slot| slot.flags |= FIN_WANTED);
    }

    /// Reads no more until [`resume`](Connection::resume): what comes waits in the kernel, and
    /// then at the sender. For those who pass on what they read, when it is not taken fast
    /// enough. Limits on idle time do not count meanwhile.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Relay { other: Connection }
    /// # impl Handler for Relay {
    /// fn data(&self, from: &Connection, data: &[u8]) {
    ///     let _ = self.other.send(data);
    ///     if self.other.queued() > 0 {
    ///         from.pause();        // and resume it when `other` is writable
    ///     }
    /// }
    /// # }
    /// ```
    pub fn pause(&self) {
        self.change(|slot| slot.flags |= PAUSED);
    }

    /// Reads on after [`pause`](Connection::pause).
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Relay { other: Connection }
    /// # impl Handler for Relay {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn writable(&self, _: &Connection) {
    ///     self.other.resume();
    /// }
    /// # }
    /// ```
    pub fn resume(&self) {
        self.change(|slot| {
            if slot.has(PAUSED) {
                slot.flags = slot.flags & !PAUSED | RESUMED;
                // Nobody waited for the peer meanwhile.
                slot.received = self.events.now() as u32;
            }
        });
    }

    /// How many bytes wait in this program for the peer.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// fn data(&self, connection: &Connection, data: &[u8]) {
    ///     if connection.queued() == 0 {
    ///         let _ = connection.send(data);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn queued(&self) -> usize {
        let bytes = |slot: &mut Slot| slot.output.as_ref().map_or(0, |output| output.bytes());
        self.with(bytes).unwrap_or(0)
    }

    /// Has the handler's [`timer`](crate::Handler::timer) called once, after `time`, some tens
    /// of milliseconds late at most; `None` takes it back. One timer for each connection: a new
    /// time replaces the old one.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::time::Duration;
    /// # struct Ticker;
    /// # impl Handler for Ticker {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn open(&self, connection: &Connection) {
    ///     connection.set_timer(Duration::from_secs(1));
    /// }
    /// fn timer(&self, connection: &Connection) {
    ///     let _ = connection.send(b"tick\n");
    ///     connection.set_timer(Duration::from_secs(1));
    /// }
    /// # }
    /// ```
    pub fn set_timer(&self, time: impl Into<Option<Duration>>) {
        // The step that is going on does not count.
        let at = time.into().map(|time| self.events.now().saturating_add(steps(time) + 1));
        self.change(|slot| slot.rare().timer = at);
    }

    /// Joins a group, which [`broadcast_to`](crate::Service::broadcast_to) sends to. There is no
    /// limit to how many a connection is in; it leaves them when it is over.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed): the connection is over.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Rooms;
    /// # impl Handler for Rooms {
    /// fn data(&self, connection: &Connection, room: &[u8]) {
    ///     let _ = connection.join(&String::from_utf8_lossy(room));
    /// }
    /// # }
    /// ```
    pub fn join(&self, group: &str) -> Result<()> {
        let joined = self.events.groups.join(group, (self.index, self.generation), |name| {
            let join = |slot: &mut Slot| {
                let lives = !slot.has(OVER);
                if lives && !slot.rare().groups.contains(name) {
                    slot.rare().groups.push(name.clone());
                }
                lives
            };
            self.with(join) == Some(true)
        });
        if joined { Ok(()) } else { Err(Error::new(ErrorKind::Closed, "join")) }
    }

    /// Leaves a group, if it is in it.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Rooms;
    /// # impl Handler for Rooms {
    /// fn data(&self, connection: &Connection, room: &[u8]) {
    ///     connection.leave(&String::from_utf8_lossy(room));
    /// }
    /// # }
    /// ```
    pub fn leave(&self, group: &str) {
        self.events.groups.leave((self.index, self.generation), || {
            let leave = |slot: &mut Slot| match &mut slot.rare {
                Some(rare) => match rare.groups.iter().position(|name| &**name == group) {
                    Some(at) => vec![rare.groups.swap_remove(at)],
                    None => Vec::new(),
                },
                None => Vec::new(),
            };
            self.with(leave).unwrap_or_default()
        });
    }

    /// Keeps something of the program's with the connection, until it is over.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::sync::Arc;
    /// # struct Named;
    /// # impl Handler for Named {
    /// fn data(&self, connection: &Connection, data: &[u8]) {
    ///     match connection.data::<String>() {
    ///         None => connection.set_data(Arc::new(String::from_utf8_lossy(data).into_owned())),
    ///         Some(name) => println!("{name} says {data:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn set_data(&self, data: Data) {
        // What was there before may do anything when it is dropped, so not under the lock.
        let mut old = Some(data);
        self.with(|slot| std::mem::swap(&mut slot.rare().data, &mut old));
    }

    /// What [`set_data`](Connection::set_data) was given, if it is of this type. See there.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, End};
    /// # struct Named;
    /// # impl Handler for Named {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn close(&self, connection: &Connection, end: End) {
    ///     if let Some(name) = connection.data::<String>() {
    ///         println!("{name} has left: {end}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn data<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.any_data().and_then(|data| data.downcast().ok())
    }

    pub(crate) fn any_data(&self) -> Option<Data> {
        self.with(|slot| slot.rare.as_ref().and_then(|rare| rare.data.clone())).flatten()
    }

    /// Protocol, local and remote address; in the close callback, too.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after it.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// #   fn data(&self, _: &Connection, _: &[u8]) {}
    /// fn open(&self, connection: &Connection) {
    ///     if let Ok(tuple) = connection.five_tuple() {
    ///         println!("{tuple}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn five_tuple(&self) -> Result<FiveTuple> {
        let tuple = self.with(|slot| self.events.five_tuple(slot));
        tuple.ok_or_else(|| Error::new(ErrorKind::Closed, "five-tuple"))
    }

    /// Why it ended, as far as that is known; `None` while it lives, and after its close callback,
    /// which is told.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn data(&self, connection: &Connection, _: &[u8]) {
    ///     assert_eq!(connection.end(), None);
    /// }
    /// # }
    /// ```
    pub fn end(&self) -> Option<End> {
        self.with(|slot| slot.end()).flatten()
    }

    /// Whether it can still be sent to.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn data(&self, connection: &Connection, _: &[u8]) {
    ///     connection.close();
    ///     assert!(!connection.is_open());
    /// }
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.with(|slot| !slot.has(CLOSING | CUT | OVER)).unwrap_or(false)
    }

    /// What is known of the connection now: state, times, bytes on their way, counters.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after the close callback; [`Os`](ErrorKind::Os) and others
    /// if the system refuses to tell.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn data(&self, connection: &Connection, _: &[u8]) {
    ///     if let Ok(snapshot) = connection.snapshot() {
    ///         println!("round trip {:?}", snapshot.rtt);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn snapshot(&self) -> Result<Snapshot> {
        let look = |slot: &mut Slot| {
            let socket = slot.socket.as_ref().map(sys::borrow);
            let tcp = match socket.filter(|_| slot.is_inet()) {
                Some(socket) => sys::tcp_info(socket)?,
                None => TcpInfo::default(),
            };
            let mut snapshot = Snapshot::new(self.events.five_tuple(slot), tcp);
            snapshot.end = slot.end();
            snapshot.unread = socket.and_then(sys::unread);
            Ok(snapshot)
        };
        match self.with(look) {
            Some(found) => found.map_err(|e: std::io::Error| Error::os("snapshot", &e)),
            None => Err(Error::new(ErrorKind::Closed, "snapshot")),
        }
    }

    /// The keepalive in force, `None` if it is off.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after the close callback.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, Keepalive};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn data(&self, connection: &Connection, _: &[u8]) {
    ///     assert_eq!(connection.keepalive().unwrap(), Some(Keepalive::default()));
    /// }
    /// # }
    /// ```
    pub fn keepalive(&self) -> Result<Option<crate::Keepalive>> {
        let look = |slot: &mut Slot| slot.socket.as_ref().map(|s| sys::keepalive(sys::borrow(s)));
        match self.with(look).flatten() {
            Some(found) => found.map_err(|e| self.at(Error::os("keepalive", &e))),
            None => Err(Error::new(ErrorKind::Closed, "keepalive")),
        }
    }

    /// Who the peer is, on a Unix socket:
    /// [`ClientSocket::peer_credentials`](crate::ClientSocket::peer_credentials).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for TCP; [`Closed`](ErrorKind::Closed) after the
    /// close callback.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn data(&self, connection: &Connection, _: &[u8]) {
    ///     let is_root = connection.peer_credentials().is_ok_and(|peer| peer.uid == 0);
    /// }
    /// # }
    /// ```
    pub fn peer_credentials(&self) -> Result<Credentials> {
        const OPERATION: &str = "peer credentials";
        let look = |slot: &mut Slot| {
            let socket = slot.socket.as_ref().map(sys::borrow)?;
            Some((!slot.is_inet()).then(|| sys::peer_credentials(socket)))
        };
        match self.with(look).flatten() {
            Some(Some(found)) => found.map_err(|e| self.at(Error::os(OPERATION, &e))),
            Some(None) => Err(self.at(Error::new(ErrorKind::Unsupported, OPERATION))),
            None => Err(Error::new(ErrorKind::Closed, OPERATION)),
        }
    }

    /// Looks at the connection under its lock; `None`: it is over.
    fn with<T>(&self, look: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        match self.events.slots.lock(self.index) {
            Some(mut slot) if slot.generation == self.generation => Some(look(&mut slot)),
            _ => None,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        self.events.change(self.index, self.generation, change);
    }
}
