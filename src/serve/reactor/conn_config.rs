//! The settings of an open connection that may change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use super::conn_table::{
    BUFFERED, CLOSED, CLOSING, ConnConfig, ConnEntry, OWN_CONFIG, READ_PENDING, RESET_PENDING,
};
use crate::io::wait::Cause;
use crate::options::{heartbeat, option_failure};
use crate::serve::OverflowPolicy;
use crate::serve::options::{MessageConfig, check_queue_limit};
use crate::stream::liveness::PeerWatch;
use crate::stream::{keepalive, sockopt};
use crate::sys::{self, Borrowed};
use crate::types::error::{Error, ErrorKind, Result};
use crate::types::framing::Framing;
use crate::types::keepalive::{Keepalive, NO_KEEPALIVE};
use crate::types::liveness::{HEARTBEAT, LivenessConfig};
use crate::types::sockopt::Sockopt;

impl Connection {
    /// Sets an option of the operating system on the open connection, as
    /// [`ClientSocket::set_sockopt`](crate::ClientSocket::set_sockopt) does.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the value is out of range, or the option
    ///   has no effect after the handshake.
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): the process may not set it.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    /// - [`NoMemory`](ErrorKind::NoMemory), [`Os`](ErrorKind::Os): the kernel failed the call for
    ///   another reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, Sockopt};
    /// # struct Bulk;
    /// # impl Handler for Bulk {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_sockopt(Sockopt::Nodelay, 0).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_sockopt(&self, option: Sockopt, value: u32) -> Result<()> {
        self.change_config("sockopt", |entry| {
            check_sockopt(entry, option, Some(value))?;
            let families = sockopt::families_of(&entry.socket_peer());
            let socket = socket_of(entry)?;
            sys::set_option(socket, option, value, families)
                .map_err(|e| from_cause(option_failure(socket, option, value, &e)))
        })
    }

    /// Returns the value of an option that the kernel uses, as
    /// [`ClientSocket::sockopt`](crate::ClientSocket::sockopt) does.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the platform or this kind of socket does not have
    ///   the option.
    /// - [`Closed`](ErrorKind::Closed): the connection has ended.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, Sockopt};
    /// # struct Bulk;
    /// # impl Handler for Bulk {
    /// fn on_open(&self, connection: &Connection) {
    ///     assert_eq!(connection.sockopt(Sockopt::Nodelay).unwrap(), 1);
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn sockopt(&self, option: Sockopt) -> Result<u32> {
        self.configure("sockopt", CLOSED, |entry| {
            check_sockopt(entry, option, None)?;
            let families = sockopt::families_of(&entry.socket_peer());
            let socket = socket_of(entry)?;
            sys::get_option(socket, option, families)
                .map_err(|e| from_cause(sockopt::query_failure(socket, option, e)))
        })
    }

    /// Sets TCP keepalive. `None` turns it off.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): with these values the connection could not
    ///   keep its `dead_after` or its `middlebox_timeout`.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, Keepalive};
    /// # struct Patient;
    /// # impl Handler for Patient {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_keepalive(Keepalive::default()).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_keepalive(&self, keepalive: impl Into<Option<Keepalive>>) -> Result<()> {
        let keepalive = keepalive.into();
        self.change_config("keepalive", |entry| {
            if !entry.is_inet() {
                return Err(Error::new(ErrorKind::Unsupported, "").detail(NO_KEEPALIVE));
            }
            self.service.config(entry).liveness.permits(keepalive)?;
            let socket = socket_of(entry)?;
            let before = sys::keepalive(socket).map_err(|e| Error::os("", &e))?;
            sys::change_keepalive(socket, before, keepalive).map_err(|e| {
                let _ = sys::set_keepalive(socket, before);
                Error::os("", &e)
            })
        })
    }

    /// Returns the keepalive values that the socket has, also while keepalive is off, as
    /// [`ClientSocket::keepalive_values`](crate::ClientSocket::keepalive_values) does.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the connection is a Unix socket.
    /// - [`Closed`](ErrorKind::Closed): the connection has ended.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Curious;
    /// # impl Handler for Curious {
    /// fn on_open(&self, connection: &Connection) {
    ///     println!("{:?}", connection.keepalive_values());
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn keepalive_values(&self) -> Result<Keepalive> {
        self.configure("keepalive", CLOSED, |entry| {
            if !entry.is_inet() {
                return Err(Error::new(ErrorKind::Unsupported, "").detail(NO_KEEPALIVE));
            }
            sys::keepalive_values(socket_of(entry)?).map_err(|e| Error::os("", &e))
        })
    }

    /// Sets `dead_after` of the open connection, as
    /// [`ClientSocket::set_dead_after`](crate::ClientSocket::set_dead_after) does. `None` turns the
    /// detection of a dead peer off.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is not within 2 s to 163,880 s; or
    ///   keepalive is off, or the program has set it to values that detect a dead peer later; or
    ///   `time` is `None` and `fail_on_stall` is set; or the connection is Multipath TCP.
    /// - [`Unsupported`](ErrorKind::Unsupported): on NetBSD, OpenBSD and illumos.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    /// - [`Os`](ErrorKind::Os): the kernel failed the call for another reason.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Strict;
    /// # impl Handler for Strict {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_dead_after(std::time::Duration::from_secs(10)).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_dead_after(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let time = time.into();
        self.change_config("dead_after", |entry| {
            let config = self.service.config(entry).liveness.clone();
            LivenessConfig { dead_after: time, ..config.clone() }.validate("")?;
            if !entry.is_inet() || time == config.dead_after {
                return Ok(());
            }
            let socket = socket_of(entry)?;
            keepalive::refuse_mptcp(socket, time)?;
            let current = sys::keepalive(socket).map_err(|e| Error::os("", &e))?;
            let new = keepalive::adapted(&config, time, current)?;
            keepalive::apply_dead_after(socket, &config, time, (current, new))
                .map_err(from_cause)?;
            self.change_liveness(entry, "", |config| config.dead_after = time)
        })
    }

    /// Sets the idle timeout of the open connection. `None` turns it off. See
    /// [`idle_timeout`](crate::SocketOptions::idle_timeout).
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is zero or not above the heartbeat
    ///   interval; or `time` is `None` and `idle_receive_only` is set.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Login;
    /// # impl Handler for Login {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_idle_timeout(std::time::Duration::from_secs(60)).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_idle_timeout(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let time = time.into();
        self.change_config("idle timeout", |entry| {
            self.change_liveness(entry, "", |config| config.idle_timeout = time)
        })
    }

    /// Sets the heartbeat of the open connection: its bytes and its interval. If `interval` is
    /// `None`, the call turns the heartbeat off and ignores `bytes`. See
    /// [`heartbeat`](crate::SocketOptions::heartbeat).
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `bytes` is empty; or `interval` is zero or
    ///   not below the idle timeout; or `interval` is `None` and the connection has a heartbeat
    ///   timeout.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Pinger;
    /// # impl Handler for Pinger {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_heartbeat(b"PING\r\n", std::time::Duration::from_secs(20)).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_heartbeat(
        &self,
        bytes: impl AsRef<[u8]>,
        interval: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let interval = interval.into();
        let heartbeat = heartbeat(bytes.as_ref(), interval)?;
        self.change_config(HEARTBEAT, |entry| {
            self.change_liveness(entry, HEARTBEAT, |config| config.heartbeat.clone_from(&heartbeat))
        })
    }

    /// Sets the heartbeat timeout of the open connection. `None` turns it off. See
    /// [`heartbeat_timeout`](crate::SocketOptions::heartbeat_timeout).
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `time` is zero, or the connection has no
    ///   heartbeat.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # use std::time::Duration;
    /// # struct Pinger;
    /// # impl Handler for Pinger {
    /// fn on_open(&self, connection: &Connection) {
    ///     connection.set_heartbeat(b"PING\r\n", Duration::from_secs(20)).ok();
    ///     connection.set_heartbeat_timeout(Duration::from_secs(10)).ok();
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_heartbeat_timeout(&self, time: impl Into<Option<Duration>>) -> Result<()> {
        let time = time.into();
        self.change_config("heartbeat timeout", |entry| {
            self.change_liveness(entry, "", |config| config.heartbeat_timeout = time)
        })
    }

    /// Sets the [framing](crate::ServeOptions::framing) of the open connection, for received and for
    /// sent messages: after the upgrade of a protocol, or for a header in lines that is followed by
    /// messages with a length.
    ///
    /// In a callback of the connection and in a function that was [posted](Connection::post) to it, the
    /// new framing applies to the bytes after the message that the callback received, including the
    /// bytes that the event loop has buffered. It delivers these before it reads more. With
    /// [`Framing::Raw`] it delivers them as one message. From another thread, the new framing applies
    /// from the next byte that the event loop has not begun to deliver: the bytes of an incomplete
    /// message also get the new framing.
    ///
    /// Messages that are sent after the call have the new framing. Queued messages stay as they are.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the framing is not valid.
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Framing, Handler, LengthFormat};
    /// # struct Upgrade;
    /// # impl Handler for Upgrade {
    /// fn on_data(&self, connection: &Connection, message: &[u8]) {
    ///     if message == b"BINARY" {
    ///         let binary = Framing::Prefixed { format: LengthFormat::U32Be, max: 65_536 };
    ///         let _ = connection.send(b"OK");             // a line
    ///         let _ = connection.set_framing(binary);     // for all bytes after this line
    ///     }
    /// }
    /// # }
    /// ```
    pub fn set_framing(&self, framing: Framing) -> Result<()> {
        const OPERATION: &str = "framing";
        framing.validate(OPERATION)?;
        self.change_config(OPERATION, |entry| {
            if let Some(input) = entry.cold.as_mut().and_then(|cold| cold.input.as_mut()) {
                input.splitter = None;
            }
            entry.flags |= BUFFERED | READ_PENDING;
            self.change_messages(entry, |messages| messages.framing = framing);
            Ok(())
        })
    }

    /// Sets the [queue limit](crate::ServeOptions::queue_limit) of the open connection, in bytes, and
    /// with it the high-water mark of replies.
    ///
    /// The limit applies at once. If the queued messages exceed it, the service treats them by the
    /// [overflow policy](Connection::set_overflow_policy) of the connection: it resets the connection,
    /// or drops and counts the oldest messages. Replies, and a message that is partly sent, are not
    /// dropped, and replies alone are no reason for a reset.
    ///
    /// # Errors
    /// The connection is unchanged if the call fails with another error than `Stalled`.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `bytes` is not above 88.
    /// - [`Stalled`](ErrorKind::Stalled): the queued messages exceed the limit, and the service resets
    ///   the connection ([`Disconnect`](OverflowPolicy::Disconnect)).
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler};
    /// # struct Feed;
    /// # impl Handler for Feed {
    /// fn on_data(&self, connection: &Connection, request: &[u8]) {
    ///     if request == b"full feed\n" {
    ///         let _ = connection.set_queue_limit(16 * 1024 * 1024);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn set_queue_limit(&self, bytes: usize) -> Result<()> {
        const OPERATION: &str = "queue limit";
        check_queue_limit(bytes, OPERATION)?;
        self.change_config(OPERATION, |entry| {
            self.change_messages(entry, |messages| messages.queue_limit = bytes);
            if self.service.limit_queue(entry, self.index) {
                return Ok(());
            }
            let error = Error::new(ErrorKind::Stalled, OPERATION);
            Err(error.detail("the queued messages exceed the new limit"))
        })
    }

    /// Sets the [overflow policy](crate::ServeOptions::overflow_policy) of the open connection, for
    /// messages that are sent from now on.
    ///
    /// # Errors
    /// - [`Closed`](ErrorKind::Closed): the connection is closing or has ended.
    /// - [`WrongState`](ErrorKind::WrongState): called in a forked child; the service runs in the
    ///   parent.
    ///
    /// ```
    /// # use keepsock::{Connection, Handler, OverflowPolicy};
    /// # struct Ticker;
    /// # impl Handler for Ticker {
    /// fn on_open(&self, connection: &Connection) {
    ///     let _ = connection.set_overflow_policy(OverflowPolicy::DropOldest);
    /// }
    /// # fn on_data(&self, _: &Connection, _: &[u8]) {}
    /// # }
    /// ```
    pub fn set_overflow_policy(&self, overflow_policy: OverflowPolicy) -> Result<()> {
        self.change_config("overflow policy", |entry| {
            self.change_messages(entry, |messages| messages.overflow_policy = overflow_policy);
            Ok(())
        })
    }

    /// Gives the connection a configuration of its own, with a change, and lets its loop set its
    /// timers.
    fn change_liveness(
        &self,
        entry: &mut ConnEntry,
        operation: &'static str,
        change: impl FnOnce(&mut LivenessConfig),
    ) -> Result<()> {
        let before = self.service.config(entry).clone();
        let mut liveness = before.liveness.clone();
        change(&mut liveness);
        liveness.validate(operation)?;
        let config = ConnConfig::new(liveness, before.close_timeout, before.messages);
        let now = self.service.now() as u32;
        // Without limits, the loop does not record these times.
        if !before.liveness.has_limits() {
            entry.received = now;
        }
        if !before.stamps_writes {
            entry.wrote = now;
        }
        (entry.beat, entry.beats) = (now, 0);
        let watched = config.liveness.watched().filter(|_| entry.is_inet());
        let dead_after_changed = config.liveness.dead_after != before.liveness.dead_after;
        if dead_after_changed {
            entry.cold().watch = watched.map(|time| PeerWatch::new(Instant::now(), time));
        }
        self.install(entry, config);
        Ok(())
    }

    /// Gives the connection a configuration of its own, with a change of how it treats messages.
    fn change_messages(&self, entry: &mut ConnEntry, change: impl FnOnce(&mut MessageConfig)) {
        let before = self.service.config(entry);
        let mut messages = before.messages;
        change(&mut messages);
        let config = ConnConfig::new(before.liveness.clone(), before.close_timeout, messages);
        self.install(entry, config);
    }

    /// Gives the connection a configuration of its own, and lets its loop process the entry.
    fn install(&self, entry: &mut ConnEntry, config: ConnConfig) {
        entry.cold().own_config = Some(Arc::new(config));
        entry.flags |= OWN_CONFIG;
        self.service.schedule(entry, self.index);
    }

    /// Changes the connection, unless it is closing, when a change has no effect. A forked child
    /// cannot change the connection of its parent.
    pub(super) fn change_config(
        &self,
        operation: &'static str,
        body: impl FnOnce(&mut ConnEntry) -> Result<()>,
    ) -> Result<()> {
        self.service.state.require_own_process(operation)?;
        self.configure(operation, CLOSING | RESET_PENDING | CLOSED, body)
    }

    /// Calls `body` with the entry of the connection, which is locked, so its socket stays open.
    /// Fails if the entry has one of the flags `ended`.
    fn configure<T>(
        &self,
        operation: &'static str,
        ended: u32,
        body: impl FnOnce(&mut ConnEntry) -> Result<T>,
    ) -> Result<T> {
        let done = self.with(|entry| (!entry.has(ended)).then(|| body(entry)));
        match done.flatten() {
            Some(done) => done.map_err(|e| self.at(e.during(operation))),
            None => Err(self.at(Error::new(ErrorKind::Closed, operation))),
        }
    }
}

fn socket_of(entry: &ConnEntry) -> Result<Borrowed<'_>> {
    let socket = entry.socket.as_ref().map(sys::borrow);
    socket.ok_or_else(|| Error::new(ErrorKind::Closed, ""))
}

/// The error of a cause; the caller adds the operation.
fn from_cause(cause: Cause) -> Error {
    cause.into_error("")
}

fn check_sockopt(entry: &ConnEntry, option: Sockopt, value: Option<u32>) -> Result<()> {
    sockopt::check(option, value, entry.is_inet())
        .map_err(|(kind, what)| Error::new(kind, "").detail(what))
}
