//! The methods of [`Connection`].

use std::any::Any;
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use super::conn_table::{
    CLOSED, CLOSING, ConnEntry, FIN_SENT, FIN_WANTED, PAUSED, READ_PENDING, RESET_PENDING,
};
use super::file_part::{FileFailure, FilePart};
use super::send::SendOutcome;
use super::send_queue::Body;
use super::send_queue::MAX_FILES;
use super::service_timers::CENTURY;
use super::tasks::{append, task};
use super::{Connection, Data};
use crate::stream::stats::ConnectionStats;
use crate::sys::{self, TcpInfo};
use crate::types::address::{Address, FiveTuple};
use crate::types::close_reason::CloseReason;
use crate::types::credentials::Credentials;
use crate::types::error::{Error, ErrorKind, Result, SHUT_DOWN};
use crate::types::keepalive::NO_KEEPALIVE;

impl PartialEq for Connection {
    fn eq(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.service, &other.service) && self.id() == other.id()
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with(|entry| self.service.five_tuple(entry)) {
            Some(tuple) => write!(f, "Connection({tuple})"),
            None => f.write_str("Connection(closed)"),
        }
    }
}

impl Connection {
    /// Returns an id for the program's own tables. No other live connection of the service has it,
    /// and it is not reused for a long time.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, CloseReason};
    /// # use std::{collections::HashMap, sync::Mutex};
    /// struct Names(Mutex<HashMap<u64, String>>);
    /// impl Handler for Names {
    ///     fn on_data(&self, connection: &Connection, name: &[u8]) {
    ///         let name = String::from_utf8_lossy(name).into_owned();
    ///         self.0.lock().unwrap().insert(connection.id(), name);
    ///     }
    ///     fn on_close(&self, connection: &Connection, _: CloseReason) {
    ///         self.0.lock().unwrap().remove(&connection.id());
    ///     }
    /// }
    /// ```
    pub fn id(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[cfg(feature = "capi")]
    pub(crate) fn slot_index(&self) -> usize {
        self.index as usize
    }

    /// The id that the handler has for the connection, or 0.
    #[cfg(feature = "capi")]
    pub(crate) fn id_of_handler(&self) -> u64 {
        self.service.handler.id(self)
    }

    /// Sends a message in the service's [framing](crate::ServeOptions::framing). Bytes that the
    /// kernel does not accept immediately are queued. Messages are delivered in the order in which
    /// they were sent.
    ///
    /// Replies are messages that the connection's own `on_open`, `on_data`, `on_writable` or
    /// `on_eof` callback sends to it. They are always queued, whatever their size. Other messages
    /// are subject to the [`queue_limit`](crate::ServeOptions::queue_limit).
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the connection is closed or closing.
    /// - [`Stalled`](ErrorKind::Stalled): the queue limit is exceeded, and the service resets the
    ///   connection. With [`DropOldest`](crate::OverflowPolicy::DropOldest) it drops and counts
    ///   messages instead. Not for replies. Or the kernel accepted a part of the message, and the
    ///   process has no memory to queue the rest; then the service resets the connection.
    /// - [`NoMemory`](ErrorKind::NoMemory): the kernel accepts no byte now, and the process has no
    ///   memory to queue the message. Nothing was sent.
    /// - [`TooLong`](ErrorKind::TooLong): the message alone exceeds the queue limit. It was not
    ///   sent. Not for replies.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the peer would not receive the message
    ///   unchanged ([`Framing`](crate::Framing)).
    /// - [`Reset`](ErrorKind::Reset), [`Dead`](ErrorKind::Dead),
    ///   [`Unreachable`](ErrorKind::Unreachable): the connection has failed.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Hello;
    /// # impl Handler for Hello {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_open(&self, connection: &Connection) {
    ///     let _ = connection.send(b"hello\n");
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn send(&self, message: &[u8]) -> Result<()> {
        let service = &*self.service;
        service.state.require_own_process("send")?;
        self.sent(service.send_whole(self.index, self.generation, message))
    }

    /// Sends one message whose bytes are in several slices, in the service's framing, as
    /// [`send`](Connection::send) does. The bytes are copied only if they must be queued.
    ///
    /// # Errors
    /// The errors of [`send`](Connection::send).
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::io::IoSlice;
    /// # struct Reply;
    /// # impl Handler for Reply {
    /// fn on_data(&self, connection: &Connection, body: &[u8]) {
    ///     let header = format!("length {}\n", body.len());
    ///     let _ = connection.send_slices(&[IoSlice::new(header.as_bytes()), IoSlice::new(body)]);
    /// }
    /// # }
    /// ```
    pub fn send_slices(&self, slices: &[IoSlice<'_>]) -> Result<()> {
        self.service.state.require_own_process("send")?;
        self.sent(self.service.send(self.index, self.generation, Body::Parts(slices)))
    }

    /// Sends `len` bytes of `file` from `offset`, after the queued messages, and returns without
    /// waiting for the peer. `u64::MAX` means up to the present end of the file.
    ///
    /// On Linux, macOS and FreeBSD the bytes do not pass through this process (sendfile(2)). For a
    /// file that sendfile does not support, and on other systems, the library reads chunks of 64 KiB
    /// and sends them. The kernel may wait for the disk. After 1 MiB the loop serves other connections.
    ///
    /// The library duplicates the descriptor, so the program may close its own at once. The position
    /// of the file is neither used nor changed. The bytes are sent as they are: without the marks of
    /// the [framing](crate::ServeOptions::framing), and without heartbeats between them.
    ///
    /// A queued file holds a descriptor until it is sent, so at most 16 files wait for one connection.
    /// If a service of many clients sends files, its limit of descriptors must cover that. The
    /// [`queue_limit`](crate::ServeOptions::queue_limit) counts 88 bytes for a queued file, regardless
    /// of its length, because its bytes need no memory. [`queued`](Connection::queued) includes its
    /// bytes.
    ///
    /// The loop does not read from a connection while a file that its own callback has sent is queued,
    /// so with a [framing](crate::ServeOptions::framing) a client that does not read has one queued
    /// file. If one `on_data` answers several requests, continue in
    /// [`on_writable`](crate::Handler::on_writable) after `NoDescriptors`.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the file does not have the bytes; it is a
    ///   directory, a pipe or a socket, which have no offsets; it is not open for reading; or `len` is
    ///   `u64::MAX` and the size of the file is not known.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): the process or the system has no free descriptor;
    ///   or 16 files, or files of 2^63 bytes, wait for this connection. Nothing was sent.
    /// - [`Os`](ErrorKind::Os): the file cannot be read.
    /// - The errors of [`send`](Connection::send).
    ///
    /// If the file becomes shorter or cannot be read after a part of the file was sent, the service resets
    /// the connection with [`FileFailed`](crate::CloseReason::FileFailed), because the peer expects the
    /// rest. If that happens during the call, the error is `Closed`, and
    /// [`Error::transferred`](crate::Error::transferred) returns the length of the part. Bytes that
    /// another program appends later are not sent.
    ///
    /// Linux does not know the size of a file of `/proc` or `/sys`. The library rejects `u64::MAX` for
    /// such a file, and a `len` above its content.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Page;
    /// # impl Handler for Page {
    /// fn on_data(&self, connection: &Connection, _request: &[u8]) {
    ///     if let Ok(file) = std::fs::File::open("index.html") {
    ///         let _ = connection.send_file(&file, 0, u64::MAX);
    ///     }
    ///     connection.close();
    /// }
    /// # }
    /// ```
    pub fn send_file(&self, file: impl sys::AsFile, offset: u64, len: u64) -> Result<()> {
        const OPERATION: &str = "send file";
        self.service.state.require_own_process(OPERATION)?;
        let part = FilePart::new(sys::file_of(&file), offset, len, OPERATION);
        let part = part.map_err(|e| self.at(e))?;
        match self.service.send_file(self.index, self.generation, part) {
            Ok(SendOutcome::Accepted | SendOutcome::Dropped) => Ok(()),
            Ok(other) => Err(self.send_error(other).during(OPERATION)),
            Err(FileFailure { sent, cause }) => {
                let error = match cause {
                    _ if sent > 0 => Error::new(ErrorKind::Closed, OPERATION)
                        .with_os_error(cause.and_then(|e| e.raw_os_error()))
                        .detail(
                            "the file ended or could not be read after a part of the file was sent",
                        ),
                    None => Error::new(ErrorKind::InvalidArgument, OPERATION)
                        .detail("the file has become shorter"),
                    Some(e) => Error::os(OPERATION, &e).detail("the file cannot be read"),
                };
                Err(self.at(error).after_bytes(sent))
            }
        }
    }

    #[inline]
    fn sent(&self, outcome: Result<SendOutcome>) -> Result<()> {
        match outcome {
            Ok(SendOutcome::Accepted | SendOutcome::Dropped) => Ok(()),
            Ok(other) => Err(self.send_error(other)),
            Err(e) => Err(self.at(e)),
        }
    }

    #[cold]
    fn send_error(&self, outcome: SendOutcome) -> Error {
        let kind = match outcome {
            SendOutcome::Failed(reason) => reason.kind(),
            SendOutcome::SlowConsumer => ErrorKind::Stalled,
            SendOutcome::NoMemory => ErrorKind::NoMemory,
            SendOutcome::TooManyFiles => ErrorKind::NoDescriptors,
            _ => ErrorKind::Closed,
        };
        let error = Error::new(kind, "send");
        let is_shut_down = |entry: &mut ConnEntry| {
            entry.close_reason().is_none() && entry.has(FIN_WANTED | FIN_SENT)
        };
        let error = match (outcome, self.with(is_shut_down)) {
            (SendOutcome::SlowConsumer, _) => error.detail("the queue_limit is exceeded"),
            (SendOutcome::Closed, Some(true)) => error.detail(SHUT_DOWN),
            (SendOutcome::TooManyFiles, _) => error.detail(format!(
                "the send queue has no room for another file, at most {MAX_FILES}"
            )),
            _ => error,
        };
        self.at(error)
    }

    pub(super) fn at(&self, error: Error) -> Error {
        match self.with(|entry| self.service.five_tuple(entry)) {
            Some(tuple) => error.on(tuple),
            None => error,
        }
    }

    /// Closes the connection gracefully, and returns immediately. The event loop sends the queued
    /// bytes and a FIN, discards what the peer still sends, and waits for the peer's FIN. All this
    /// takes at most the [`close_timeout`](crate::SocketOptions::close_timeout) of the connection.
    /// The last callback is [`on_close`](crate::Handler::on_close). Further calls do nothing.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Once;
    /// # impl Handler for Once {
    /// fn on_data(&self, connection: &Connection, question: &[u8]) {
    ///     let _ = connection.send(question);
    ///     connection.close();
    /// }
    /// # }
    /// ```
    pub fn close(&self) {
        self.service.close(self.index, self.generation);
    }

    /// Resets the connection (RST). Bytes that the peer has not received are lost.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Strict;
    /// # impl Handler for Strict {
    /// fn on_data(&self, connection: &Connection, data: &[u8]) {
    ///     if !data.is_ascii() {
    ///         connection.abort();
    ///     }
    /// }
    /// # }
    /// ```
    pub fn abort(&self) {
        self.service.abort(self.index, self.generation);
    }

    /// Shuts down the sending side (FIN) once the queued bytes are sent. The peer can still send.
    /// Use it for protocols in which the end of the stream marks the end of a message.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Reply;
    /// # impl Handler for Reply {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_open(&self, connection: &Connection) {
    ///     let _ = connection.send(b"all there is");
    ///     connection.shutdown_write();
    /// }
    /// # }
    /// ```
    pub fn shutdown_write(&self) {
        self.change(|entry| entry.flags |= FIN_WANTED);
    }

    /// Stops reading until [`resume`](Connection::resume). Received bytes stay in the kernel, which
    /// then slows down the peer. Use it for back-pressure, for example in a proxy whose other side
    /// is slow. The idle timeout does not apply while the connection is paused.
    ///
    /// If the connection fails during the pause, for example because the peer resets it, sends return
    /// its error, and [`close_reason`](Connection::close_reason) the reason. After
    /// [`resume`](Connection::resume) the event loop delivers the bytes that arrived before, and then
    /// calls `on_close`. Without `resume`, it calls `on_close` after [`close`](Connection::close),
    /// [`abort`](Connection::abort), at the deadline of a drain, or once the idle timeout or `dead_after`
    /// has passed since the failure.
    ///
    /// A pause because of replies to the same connection is not necessary: the event loop stops
    /// reading while [too many replies are queued](crate::ServeOptions::queue_limit).
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Relay { other: Connection }
    /// # impl Handler for Relay {
    /// fn on_data(&self, from: &Connection, data: &[u8]) {
    ///     let _ = self.other.send(data);
    ///     if self.other.queued() > 0 {
    ///         from.pause();        // and resume it when `other` is writable
    ///     }
    /// }
    /// # }
    /// ```
    pub fn pause(&self) {
        self.change(|entry| entry.flags |= PAUSED);
    }

    /// Starts reading again after [`pause`](Connection::pause).
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Relay { other: Connection }
    /// # impl Handler for Relay {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_writable(&self, _: &Connection) {
    ///     self.other.resume();
    /// }
    /// # }
    /// ```
    pub fn resume(&self) {
        self.change(|entry| {
            if entry.has(PAUSED) {
                entry.flags = entry.flags & !PAUSED | READ_PENDING;
                // The idle timeout does not count the time of the pause.
                entry.received = self.service.now() as u32;
            }
        });
    }

    /// Returns the number of bytes in the send queue, with the unsent bytes of files. Returns 0 when the connection has ended.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// fn on_data(&self, connection: &Connection, data: &[u8]) {
    ///     if connection.queued() == 0 {
    ///         let _ = connection.send(data);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn queued(&self) -> usize {
        let bytes = self.with(|entry| entry.queued_bytes()).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Sets the timer of the connection: [`on_timer`](crate::Handler::on_timer) runs once after
    /// `time`. It does not run early. If the loop is idle, it runs about 1 ms late. `None` cancels the
    /// timer. A connection has one timer, and a new time replaces the old one. A connection that is
    /// closing has no timer: [`close`](Connection::close) stops it. The close timeout limits the time
    /// until `on_close`.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::time::Duration;
    /// # struct Ticker;
    /// # impl Handler for Ticker {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_open(&self, connection: &Connection) {
    ///     let _ = connection.set_timer(Duration::from_secs(1));
    /// }
    /// fn on_timer(&self, connection: &Connection) {
    ///     let _ = connection.send(b"tick\n");
    ///     let _ = connection.set_timer(Duration::from_secs(1));
    /// }
    /// # }
    /// ```
    pub fn set_timer(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let at = time.into().map(|time| self.service.elapsed().saturating_add(time.min(CENTURY)));
        self.change_config("timer", |entry| {
            entry.cold().timer = at;
            self.service.schedule(entry, self.index);
            Ok(())
        })
    }

    /// Joins a group, to which [`broadcast_to`](crate::Service::broadcast_to) sends. A connection
    /// may be in any number of groups. It leaves them when it ends.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the connection has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for another member.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Rooms;
    /// # impl Handler for Rooms {
    /// fn on_data(&self, connection: &Connection, room: &[u8]) {
    ///     let _ = connection.join(&String::from_utf8_lossy(room));
    /// }
    /// # }
    /// ```
    pub fn join(&self, group: &str) -> Result<()> {
        self.service.state.require_own_process("join")?;
        let joined = self.service.groups.join(group, (self.index, self.generation), |name| {
            let join = |entry: &mut ConnEntry| {
                if entry.has(CLOSED) {
                    return Err(ErrorKind::Closed);
                }
                let groups = &mut entry.cold().groups;
                groups.try_reserve(1).map_err(|_| ErrorKind::NoMemory)?;
                groups.insert(name.clone());
                Ok(())
            };
            self.with(join).unwrap_or(Err(ErrorKind::Closed))
        });
        joined.map_err(|kind| Error::new(kind, "join"))
    }

    /// Leaves a group. Does nothing if the connection is not in it.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Rooms;
    /// # impl Handler for Rooms {
    /// fn on_data(&self, connection: &Connection, room: &[u8]) {
    ///     connection.leave(&String::from_utf8_lossy(room));
    /// }
    /// # }
    /// ```
    pub fn leave(&self, group: &str) {
        self.service.groups.leave((self.index, self.generation), || {
            self.with(|entry| entry.cold.as_mut()?.groups.take(group)).flatten()
        });
    }

    /// Calls a function in the thread of the connection's event loop, where the callbacks of the
    /// connection run. Returns immediately. The functions of a connection are called in the order in
    /// which they were posted, after [`on_open`](crate::Handler::on_open) and not during a callback of
    /// the connection. Any thread may post, also inside callbacks and posted functions.
    ///
    /// Each function whose post succeeded is called exactly once. If the connection ends before that,
    /// the function is called before [`on_close`](crate::Handler::on_close), and methods that change
    /// the connection return [`Closed`](ErrorKind::Closed) or do nothing. After an error the function
    /// is not called. If it panics, the service resets the connection.
    ///
    /// The loop calls at most 64 functions of a connection before it handles other events. Messages
    /// that the function sends to its connection are subject to the
    /// [`queue_limit`](crate::ServeOptions::queue_limit).
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the connection has ended.
    /// - [`NoMemory`](ErrorKind::NoMemory): the process has no memory for the function.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// # use keepsock::{ClientSocket, Connection, ServeOptions, ServerSocket};
    /// # use std::sync::mpsc::channel;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let (kept, all) = channel::<Connection>();
    /// let service = server.serve_events(&ServeOptions::new(), move |c: &Connection, _: &[u8]| {
    ///     let _ = kept.send(c.clone());
    /// })?;
    /// let client = ClientSocket::connect(server.endpoint())?;
    /// client.write_all(b"compute\n")?;
    /// let connection = all.recv().unwrap();
    /// let answer = 6 * 7;                    // in a thread of the program
    /// connection.post(move |connection| {
    ///     let _ = connection.send(format!("{answer}\n").as_bytes());
    /// })?;
    /// assert_eq!(client.read_line(100)?, "42");
    /// # drop(client);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn post(&self, function: impl FnOnce(&Connection) + Send + 'static) -> Result<()> {
        let service = &*self.service;
        service.state.require_own_process("post")?;
        let mut task = task(function);
        let posted = match &task {
            None => Err(ErrorKind::NoMemory),
            Some(_) => self
                .with(|entry| {
                    if entry.has(CLOSED) {
                        return Err(ErrorKind::Closed);
                    }
                    append(&mut entry.cold().tasks, &mut task)?;
                    service.schedule(entry, self.index);
                    Ok(())
                })
                .unwrap_or(Err(ErrorKind::Closed)),
        };
        posted.map_err(|kind| self.at(Error::new(kind, "post")))
    }

    /// Stores a value of the program with the connection, until the connection ends. It replaces
    /// the previous value.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::sync::Arc;
    /// # struct Named;
    /// # impl Handler for Named {
    /// fn on_data(&self, connection: &Connection, data: &[u8]) {
    ///     match connection.data::<String>() {
    ///         None => connection.set_data(Arc::new(String::from_utf8_lossy(data).into_owned())),
    ///         Some(name) => println!("{name} says {data:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn set_data(&self, data: Data) {
        // Dropping the previous value may run any code of the program, so it is dropped after the
        // lock is released.
        let mut old = Some(data);
        self.with(|entry| std::mem::swap(&mut entry.cold().data, &mut old));
    }

    /// Returns the value stored by [`set_data`](Connection::set_data), or `None` if there is none
    /// of this type.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, CloseReason};
    /// # struct Named;
    /// # impl Handler for Named {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_close(&self, connection: &Connection, reason: CloseReason) {
    ///     if let Some(name) = connection.data::<String>() {
    ///         println!("{name} has left: {reason}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn data<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.any_data().and_then(|data| data.downcast().ok())
    }

    fn any_data(&self) -> Option<Data> {
        self.with(|entry| entry.cold.as_ref().and_then(|cold| cold.data.clone())).flatten()
    }

    /// Returns the protocol, the local address and the remote address. Also available in
    /// `on_close`.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_open(&self, connection: &Connection) {
    ///     if let Ok(tuple) = connection.five_tuple() {
    ///         println!("{tuple}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn five_tuple(&self) -> Result<FiveTuple> {
        let tuple = self.with(|entry| self.service.five_tuple(entry));
        tuple.ok_or_else(|| Error::new(ErrorKind::Closed, "five-tuple"))
    }

    /// Returns the address of the proxy that the peer has connected through, if a
    /// [`trusted_proxy`](crate::SocketOptions::trusted_proxy) has sent the addresses of a client. The
    /// five-tuple then has the addresses of the client. Returns `None` after `on_close`.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// #   fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// fn on_open(&self, connection: &Connection) {
    ///     assert_eq!(connection.proxy_address(), None);
    /// }
    /// # }
    /// ```
    pub fn proxy_address(&self) -> Option<Address> {
        self.with(|entry| entry.via().map(|via| via.proxy.clone())).flatten()
    }

    /// Returns why the connection ended. Returns `None` while the connection is open, if the reason
    /// is not known, and after `on_close`, which receives the reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_data(&self, connection: &Connection, _: &[u8]) {
    ///     assert_eq!(connection.close_reason(), None);
    /// }
    /// # }
    /// ```
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.with(|entry| entry.close_reason()).flatten()
    }

    /// Returns whether the program can still send to the connection.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_data(&self, connection: &Connection, _: &[u8]) {
    ///     connection.close();
    ///     assert!(!connection.is_open());
    /// }
    /// # }
    /// ```
    pub fn is_open(&self) -> bool {
        self.with(|entry| !entry.has(CLOSING | RESET_PENDING | CLOSED)).unwrap_or(false)
    }

    /// Returns the number of the connection's descriptor, for getsockopt(2), setsockopt(2) and
    /// ioctl(2). Also available in `on_close`.
    ///
    /// The service closes the descriptor after `on_close`, and the number may then refer to another
    /// file. So only callbacks of this connection may use the number: they run before that. A
    /// program must not read from the descriptor, write to it, shut it down, close it, change
    /// O_NONBLOCK, or wait for it: these are operations of the event loop. SO_ERROR of a Unix socket must not
    /// be read, because the kernel reports a reset once.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_open(&self, connection: &Connection) {
    ///     println!("descriptor {}", connection.raw_fd().unwrap());
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    #[cfg(unix)]
    pub fn raw_fd(&self) -> Result<std::os::fd::RawFd> {
        use std::os::fd::AsRawFd;
        let number = |entry: &mut ConnEntry| entry.socket.as_ref().map(AsRawFd::as_raw_fd);
        self.with(number).flatten().ok_or_else(|| Error::new(ErrorKind::Closed, "descriptor"))
    }

    /// Returns the SOCKET of the connection, for getsockopt, setsockopt and ioctlsocket. Also available
    /// in `on_close`.
    ///
    /// The service closes the socket after `on_close`, and the number may then refer to another socket.
    /// So only callbacks of this connection may use the number: they run before that. A program must
    /// not read from the socket, write to it, shut it down, close it, change its mode (FIONBIO), or wait
    /// for it: these are operations of the event loop.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_open(&self, connection: &Connection) {
    ///     println!("socket {}", connection.raw_socket().unwrap());
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    #[cfg(windows)]
    pub fn raw_socket(&self) -> Result<std::os::windows::io::RawSocket> {
        use std::os::windows::io::AsRawSocket;
        let number = |entry: &mut ConnEntry| entry.socket.as_ref().map(AsRawSocket::as_raw_socket);
        self.with(number).flatten().ok_or_else(|| Error::new(ErrorKind::Closed, "descriptor"))
    }

    /// Returns a snapshot of the connection's statistics: TCP state, times, bytes in flight,
    /// counters.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    /// - [`Os`](ErrorKind::Os): getsockopt(2) failed, for example because a sandbox forbids it.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_data(&self, connection: &Connection, _: &[u8]) {
    ///     if let Ok(snapshot) = connection.stats() {
    ///         println!("round trip {:?}", snapshot.rtt);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn stats(&self) -> Result<ConnectionStats> {
        let look = |entry: &mut ConnEntry| {
            let socket = entry.socket.as_ref().map(sys::borrow);
            let tcp = match socket.filter(|_| entry.is_inet()) {
                Some(socket) => sys::tcp_info(socket)?,
                None => TcpInfo::default(),
            };
            let mut snapshot = ConnectionStats::new(self.service.five_tuple(entry), tcp);
            if let Some(socket) = socket.filter(|_| entry.is_inet()) {
                snapshot.read_tcp_options(socket);
            }
            snapshot.close_reason = entry.close_reason();
            snapshot.unread = socket.and_then(sys::unread);
            Ok(snapshot)
        };
        match self.with(look) {
            Some(found) => found.map_err(|e: std::io::Error| Error::os("statistics", &e)),
            None => Err(Error::new(ErrorKind::Closed, "statistics")),
        }
    }

    /// Returns the keepalive settings in effect, or `None` if keepalive is off.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    /// - [`Os`](ErrorKind::Os): getsockopt(2) failed.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, Keepalive};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_data(&self, connection: &Connection, _: &[u8]) {
    ///     assert_eq!(connection.keepalive().unwrap(), Some(Keepalive::default()));
    /// }
    /// # }
    /// ```
    pub fn keepalive(&self) -> Result<Option<crate::Keepalive>> {
        const OPERATION: &str = "keepalive";
        let look = |entry: &mut ConnEntry| {
            let socket = entry.socket.as_ref().map(sys::borrow)?;
            Some(entry.is_inet().then(|| sys::keepalive(socket)))
        };
        match self.with(look).flatten() {
            Some(Some(found)) => found.map_err(|e| self.at(Error::os(OPERATION, &e))),
            Some(None) => {
                Err(self.at(Error::new(ErrorKind::Unsupported, OPERATION).detail(NO_KEEPALIVE)))
            }
            None => Err(Error::new(ErrorKind::Closed, OPERATION)),
        }
    }

    /// Returns the credentials of the peer of a Unix socket, as
    /// [`ClientSocket::peer_credentials`](crate::ClientSocket::peer_credentials) does.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a TCP connection.
    /// - [`Closed`](ErrorKind::Closed): `on_close` has returned.
    /// - [`Os`](ErrorKind::Os): getsockopt(2) failed.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Greeter;
    /// # impl Handler for Greeter {
    /// fn on_data(&self, connection: &Connection, _: &[u8]) {
    ///     let is_root = connection.peer_credentials().is_ok_and(|peer| peer.uid == 0);
    /// }
    /// # }
    /// ```
    pub fn peer_credentials(&self) -> Result<Credentials> {
        const OPERATION: &str = "peer credentials";
        let look = |entry: &mut ConnEntry| {
            let socket = entry.socket.as_ref().map(sys::borrow)?;
            Some((!entry.is_inet()).then(|| sys::peer_credentials(socket)))
        };
        match self.with(look).flatten() {
            Some(Some(found)) => found.map_err(|e| self.at(Error::os(OPERATION, &e))),
            Some(None) => Err(self.at(Error::new(ErrorKind::Unsupported, OPERATION))),
            None => Err(Error::new(ErrorKind::Closed, OPERATION)),
        }
    }

    /// Whether a listener accepted the connection. The program added it otherwise.
    #[cfg(feature = "capi")]
    pub(crate) fn is_accepted(&self) -> bool {
        self.with(|entry| entry.is_accepted()).unwrap_or(false)
    }

    /// Accesses the entry under its lock. Returns `None` if the connection has ended; or in a forked
    /// child, if a thread of the parent held the lock.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut ConnEntry) -> T) -> Option<T> {
        let entry = match self.service.state.threads.is_inherited() {
            true => self.service.table.lock_inherited(self.index),
            false => self.service.table.lock(self.index),
        };
        match entry {
            Some(mut entry) if entry.generation == self.generation => Some(look(&mut entry)),
            _ => None,
        }
    }

    /// Fails if a change of the connection can have no effect: in a forked child, and once `on_close`
    /// has been called.
    #[cfg(feature = "capi")]
    pub(crate) fn require_live(&self, operation: &'static str) -> Result<()> {
        self.service.state.require_own_process(operation)?;
        match self.with(|entry| entry.has(CLOSED)) {
            Some(false) => Ok(()),
            _ => Err(self.at(Error::new(ErrorKind::Closed, operation))),
        }
    }

    fn change(&self, change: impl FnOnce(&mut ConnEntry)) {
        self.service.change(self.index, self.generation, change);
    }
}
