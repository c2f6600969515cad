//! Taking a connection out of its service.

use std::net::Shutdown;

use crate::sys::SockRef;

use super::conn_table::{
    CLOSE_TIMED_OUT, CLOSED, CLOSING, ConnEntry, FAILED, FIN_SENT, FIN_WANTED, RECEIVED,
    REGISTERED, RESET_PENDING, UNOPENED, WROTE,
};
use super::{Connection, HERE, ReactorService};
use crate::io::memory::joined;
use crate::stream::{ClientSocket, Transfer};
use crate::sys;
use crate::sys::sync::atomic::Ordering;
use crate::types::close_reason::CloseReason;
use crate::types::error::{Error, ErrorKind, Result};

const OPERATION: &str = "detach";

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::WrongState, OPERATION).detail(why)
}

impl Connection {
    /// Takes the connection out of its service, and returns it as a [`ClientSocket`]. Nothing is sent
    /// to the peer. The program continues the connection in its own way, or
    /// [adds](crate::Service::add) it to another service.
    ///
    /// Only the thread of the connection's event loop may call it: in a callback of any connection of
    /// the loop, or in a [posted](Connection::post) function. The last callback is
    /// [`on_close`](crate::Handler::on_close) with [`Detached`](CloseReason::Detached), after the
    /// present callback.
    ///
    /// No received byte is lost. The reads of the client return first `unread`, and then the bytes
    /// that the loop has received and not delivered: the messages that follow the one of the present
    /// `on_data`, and the beginning of a message. Bytes that a callback has received count as read.
    /// To return the end of them to the stream, pass it as `unread`. Before `on_eof`
    /// the service drops an incomplete message at the end of the stream.
    ///
    /// The client is open, in blocking mode, and has no close reason. It keeps the five-tuple, the
    /// options of the kernel, the keepalive, `dead_after`, heartbeat, idle timeout, first-byte timeout
    /// and close timeout. Their times begin again. It has no read timeout, no write timeout and no
    /// cancel token. In `on_close` the five-tuple is still available, and the statistics are those
    /// of the client from now on.
    ///
    /// The connection leaves its groups, and no longer counts for the limits of the service. A
    /// [drain](crate::Service::drain) counts it neither as completed nor as reset. A connection of
    /// [`Service::reconnect`](crate::Service::reconnect) is not connected again.
    ///
    /// # Errors
    /// The connection is unchanged.
    /// - [`WrongState`](ErrorKind::WrongState): called in another thread, before `on_open`, or in a
    ///   forked child.
    /// - [`WouldBlock`](ErrorKind::WouldBlock): the send queue is not empty. Detach in
    ///   [`on_writable`](crate::Handler::on_writable), when it is.
    /// - [`Closed`](ErrorKind::Closed): the connection is closed or closing.
    /// - [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead),
    ///   [`Unreachable`](ErrorKind::Unreachable), [`Stalled`](ErrorKind::Stalled): the connection has
    ///   failed.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the unread bytes.
    /// - [`Os`](ErrorKind::Os): the kernel failed to change the mode of the descriptor.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
    /// # use std::sync::mpsc::channel;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let (workers, work) = channel::<ClientSocket>();
    /// let service = server.serve_events(&ServeOptions::new(), move |c: &Connection, data: &[u8]| {
    ///     if let Some(rest) = data.strip_prefix(b"UPGRADE\n") {
    ///         if let Ok(client) = c.detach(rest) {
    ///             let _ = workers.send(client);      // a thread that reads and writes by calls
    ///         }
    ///     }
    /// })?;
    /// let peer = ClientSocket::connect(server.endpoint())?;
    /// peer.write_all(b"UPGRADE\nhello\n")?;
    /// let client = work.recv().unwrap();
    /// assert_eq!(client.read_line(100)?, "hello");
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn detach(&self, unread: &[u8]) -> Result<ClientSocket> {
        self.service.state.require_own_process(OPERATION)?;
        let detached = self.with(|entry| self.service.detach(entry, self.index, unread));
        let detached = detached.unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, OPERATION)));
        detached.map_err(|e| self.at(e))
    }
}

impl ReactorService {
    fn detach(&self, entry: &mut ConnEntry, index: u32, unread: &[u8]) -> Result<ClientSocket> {
        let worker = usize::from(entry.worker);
        if HERE.get() != (std::ptr::from_ref(self), worker) {
            return Err(wrong(
                "called outside the event loop of the connection: call it in a callback of the \
                 connection, or post a function to the connection",
            ));
        }
        if entry.has(CLOSED | CLOSING | RESET_PENDING) || self.reset_all.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, OPERATION));
        }
        if entry.has(FAILED) {
            let kind = entry.close_reason().map_or(ErrorKind::Reset, CloseReason::kind);
            return Err(Error::new(kind, OPERATION));
        }
        if entry.has(UNOPENED) {
            return Err(wrong("on_open has not been called: detach the connection there or later"));
        }
        if entry.has_queued() {
            let (kind, queued) = (ErrorKind::WouldBlock, entry.queued_bytes());
            let why = format!("{queued} bytes are in the send queue: detach in on_writable");
            return Err(Error::new(kind, OPERATION).detail(why));
        }
        let unread = self.unread_input(entry, index, unread);
        let unread = unread.ok_or_else(|| Error::new(ErrorKind::NoMemory, OPERATION))?;
        let Some(socket) = entry.socket.as_ref().map(sys::borrow) else {
            return Err(Error::new(ErrorKind::Closed, OPERATION));
        };
        let failed = |e| Error::os(OPERATION, &e);
        sys::set_nonblocking(socket, !sys::BLOCKING_CALLS).map_err(failed)?;
        if entry.has(FIN_WANTED) && !entry.has(FIN_SENT) {
            // The loop sends the FIN after the callback. Later calls of the client find an error.
            let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
        }
        let tuple = self.five_tuple(entry);
        if entry.has(REGISTERED) {
            self.loops[worker].registry.remove(socket);
        }
        let Some(socket) = entry.socket.take() else {
            return Err(Error::new(ErrorKind::Closed, OPERATION));
        };
        let config = self.config(entry).clone();
        let transfer = Transfer {
            socket,
            remote: entry.socket_peer(),
            proxied: entry.via().map(|via| (entry.peer(), via.local.clone())),
            liveness: config.liveness.clone(),
            close_timeout: config.close_timeout,
            unread,
            has_received: entry.has(RECEIVED),
            has_written: entry.has(WROTE),
            is_half_closed: entry.has(FIN_WANTED | FIN_SENT),
            is_active_open: entry.cold.as_ref().is_some_and(|cold| cold.is_active_open),
        };
        let cold = entry.cold();
        (cold.detached_local, cold.input) = (Some(tuple.local), None);
        // The loop ends the entry, which no longer has a socket, after the present callback.
        entry.flags |= CLOSING | CLOSE_TIMED_OUT;
        entry.record_close_reason(CloseReason::Detached);
        self.schedule(entry, index);
        Ok(ClientSocket::taken_out(transfer))
    }

    /// The bytes that the client returns first: `unread`, and the bytes that the loop has not delivered.
    fn unread_input(&self, entry: &ConnEntry, index: u32, unread: &[u8]) -> Option<Vec<u8>> {
        let kept = entry.cold.as_ref().and_then(|cold| cold.input.as_ref());
        let kept = kept.map_or(&[][..], |input| &input.bytes);
        let loop_of_entry = &self.loops[usize::from(entry.worker)];
        let is_current = loop_of_entry.current.load(Ordering::Relaxed) == index;
        sys::lent(|rest| {
            // During a callback of another connection, the rest belongs to the other connection.
            let rest = if is_current { rest } else { &[] };
            joined(unread.len() + rest.len() + kept.len(), [unread, rest, kept])
        })
    }
}
