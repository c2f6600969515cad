//! The callbacks of the program.

use super::{Connection, Data};
use crate::types::close_reason::CloseReason;
use crate::types::error::Error;

/// The callbacks of a service with event loops
/// ([`ServerSocket::serve_events`](crate::ServerSocket::serve_events)). A closure is a handler that
/// implements [`on_data`](Handler::on_data) only.
///
/// The callbacks of one connection run one at a time: [`on_open`](Handler::on_open) first,
/// [`on_close`](Handler::on_close) last. With more than one
/// [thread](crate::ServeOptions::threads), callbacks of different connections run at the same time.
/// A callback that blocks delays all connections of its event loop.
///
/// No lock is held during a callback. It may call any method of [`Connection`] and
/// [`Service`](crate::Service) on any connection, with three exceptions: it must not drop the
/// service, and [`drain`](crate::Service::drain) and [`wait`](crate::Service::wait)
/// return [`WrongState`](crate::ErrorKind::WrongState). If a callback panics, the service resets
/// its connection.
///
/// ```
/// use keepsock::{Connection, Handler};
///
/// struct Upper;
///
/// impl Handler for Upper {
///     fn on_open(&self, connection: &Connection) {
///         let _ = connection.send(b"hello\n");
///     }
///     fn on_data(&self, connection: &Connection, data: &[u8]) {
///         let _ = connection.send(&data.to_ascii_uppercase());
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// A connection was accepted, [added](crate::Service::add),
    /// [connected](crate::Service::connect) or [connected again](crate::Service::reconnect).
    fn on_open(&self, connection: &Connection) {
        let _ = connection;
    }

    /// Allocates what the handler needs for connections with these numbers. Returns false if the
    /// process has no memory for it. For the C API.
    #[doc(hidden)]
    fn reserve(&self, first: usize, count: usize) -> bool {
        let _ = (first, count);
        true
    }

    /// Returns the id of a connection that the program adds, before it opens. For the C API.
    #[doc(hidden)]
    fn prepare(&self, connection: &Connection, data: Option<&Data>) -> u64 {
        let _ = (connection, data);
        0
    }

    /// The id of an open connection, or 0. For the C API.
    #[doc(hidden)]
    fn id(&self, connection: &Connection) -> u64 {
        let _ = connection;
        0
    }

    /// A message was received. With [`Framing::Raw`](crate::Framing::Raw), `data` is the bytes that
    /// one read returned.
    fn on_data(&self, connection: &Connection, data: &[u8]);

    /// The kernel has accepted all queued bytes.
    fn on_writable(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The peer has shut down its sending side (FIN). No more data follows, but the peer may still
    /// read. The default implementation closes the connection. An implementation that does not
    /// close it can send more; the connection ends after
    /// [`shutdown_write`](Connection::shutdown_write), once all queued bytes are sent.
    fn on_eof(&self, connection: &Connection) {
        connection.close();
    }

    /// The timer set by [`Connection::set_timer`] has expired.
    fn on_timer(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The service [drains](crate::Service::drain). A handler can send a last message and close
    /// the connection. The default implementation closes the connection.
    fn on_drain(&self, connection: &Connection) {
        connection.close();
    }

    /// A [`connect`](crate::Service::connect) with this `data` has failed, and no connection was
    /// opened. Or a [`reconnect`](crate::Service::reconnect) with this `data` has ended, and no
    /// connection follows.
    fn on_connect_failed(&self, error: &Error, data: Option<Data>) {
        let _ = (error, data);
    }

    /// The connection has ended, for the given reason. Its addresses, data and statistics are
    /// available until this callback returns. After a [`detach`](Connection::detach) the client has the
    /// statistics. Sends fail with
    /// [`Closed`](crate::ErrorKind::Closed).
    fn on_close(&self, connection: &Connection, reason: CloseReason) {
        let _ = (connection, reason);
    }
}

impl<F: Fn(&Connection, &[u8]) + Send + Sync + 'static> Handler for F {
    fn on_data(&self, connection: &Connection, data: &[u8]) {
        self(connection, data);
    }
}
