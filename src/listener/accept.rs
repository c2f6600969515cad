//! Accepting a connection, in four steps:
//!
//! 1. wait: [`ServerSocket::wait_ready`] waits until a listener has a pending connection. In
//!    blocking mode with one listener, the kernel waits in accept4(2) instead.
//! 2. accept: [`Listener::retry_transient`] calls accept4(2) and classifies its errors.
//! 3. admit: [`ServerSocket::admit`] rejects peers that the options do not allow.
//! 4. configure: [`ServerSocket::configure_accepted`] sets the options that the kernel does not
//!    copy from the listener, [`ServerSocket::configure`] the timeouts.
//!
//! On Linux, the usual accept is one system call: steps 1 and 4 are done by the kernel, and
//! step 3 has no list to check.

use std::io;
use std::time::Duration;

use super::Rejection;
use super::ServerSocket;
use super::socket::{Accepted, Listener, TryAccept};
use crate::io::backoff::BackOff;
use crate::io::cancel::CancelToken;
use crate::io::deadline::Deadline;
use crate::io::lock::{Guard, POLL_INTERVAL};
use crate::io::wait::{Cause, wait, wait_any};
use crate::log;
use crate::options::SocketOptions;
use crate::stream::ClientSocket;
use crate::sys::sync::atomic::Ordering;
use crate::sys::sync::sleep;
use crate::sys::{self, Families, InUse, Interest, Owned};
use crate::types::address::Address;
use crate::types::error::{ErrorKind, Result};

/// The number of consecutive peers that a non-blocking accept rejects before it returns.
const MAX_CONSECUTIVE_REJECTIONS: u32 = 64;

/// The pauses of an accept after the system ran out of descriptors or memory. They start short,
/// and are always short enough that a freed descriptor is used within 100 ms.
pub(crate) const OUT_OF_DESCRIPTORS: BackOff =
    BackOff::new(Duration::from_millis(5), Duration::from_millis(50));

/// The caller of an accept.
#[derive(Clone, Copy)]
enum Caller<'a> {
    /// The program. Non-blocking mode and the accept timeout apply.
    Program,
    /// A worker thread of a service, which always waits, and uses the token of the service.
    #[cfg_attr(not(feature = "serve"), expect(dead_code, reason = "only services use it"))]
    Service(Option<&'a CancelToken>),
}

impl Caller<'_> {
    fn is_program(self) -> bool {
        matches!(self, Caller::Program)
    }
}

/// An accepted connection before its [`ClientSocket`] exists. A `ClientSocket` is large, so it is
/// constructed where it is stored.
pub(crate) struct AcceptedSocket<'a> {
    socket: Owned,
    peer: Address,
    listener: &'a Listener,
    options: &'a SocketOptions,
    /// The program gets the connection. A service counts connections that it rejects by itself.
    for_program: bool,
}

impl AcceptedSocket<'_> {
    /// The caller must call [`ServerSocket::configure`] on the result.
    #[inline(always)]
    pub(crate) fn into_client(self) -> ClientSocket {
        let AcceptedSocket { socket, peer, listener, options, for_program } = self;
        let rejected = for_program.then_some(&listener.counters.proxy_rejected);
        ClientSocket::accepted(socket, peer, &listener.address, options, rejected)
    }
}

/// A listener that may have a pending connection.
struct Ready<'a> {
    /// The index of the listener.
    index: usize,
    /// Held until accept(2) has returned, if several threads may poll the same listeners.
    polling: Option<Guard<'a>>,
}

impl ServerSocket {
    /// Waits for a confirmed connection and accepts it. On Linux the call costs one system call,
    /// because every option is inherited from the listening socket.
    ///
    /// Transient errors of accept(2) are retried, with backoff if they persist. If the process or
    /// the system runs out of descriptors or memory, the call waits until some are free. It uses
    /// less than 5 % of a processor in that time. [`stats`](ServerSocket::stats) counts both.
    ///
    /// Five errors of accept(2) are fatal: EBADF, EINVAL, ENOTSOCK, EFAULT and EOPNOTSUPP. They
    /// mean that the descriptor is not a listening socket. EINVAL is also returned after another
    /// process has shut the socket down. Every other error is transient.
    ///
    /// Peers that [`allowed_uid`](SocketOptions::allowed_uid) rejects are skipped and do not
    /// extend the accept timeout. In non-blocking mode the call rejects at most 64 peers, then
    /// returns [`WouldBlock`](ErrorKind::WouldBlock), and the listener stays readable. An
    /// edge-triggered event loop must call accept again while
    /// [`denied`](crate::ServerStats::denied) increases.
    ///
    /// Several threads may call accept at the same time. Each connection is returned to one of
    /// them.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): the
    ///   [accept timeout](ServerSocket::set_accept_timeout) expired.
    /// - [`Cancelled`](ErrorKind::Cancelled): the [cancel token](ServerSocket::set_cancel) was
    ///   fired.
    /// - [`Closed`](ErrorKind::Closed): a thread closed the server, before the call or during it.
    /// - [`WouldBlock`](ErrorKind::WouldBlock): in
    ///   [non-blocking mode](ServerSocket::set_nonblocking), no connection is pending, 64 peers
    ///   were rejected, or a transient error persists.
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): in non-blocking mode, the process or the
    ///   system has no descriptor left; in blocking mode, RLIMIT_NOFILE does not permit poll(2).
    /// - [`NoMemory`](ErrorKind::NoMemory): in non-blocking mode, the system has no memory left.
    /// - [`Unsupported`](ErrorKind::Unsupported): accept(2) failed with EOPNOTSUPP, which is fatal.
    /// - [`Os`](ErrorKind::Os): accept(2) failed with another fatal error.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// let accepted = server.accept()?;
    /// println!("{}", accepted.five_tuple());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    #[inline]
    pub fn accept(&self) -> Result<ClientSocket> {
        let client = self.accept_socket()?.into_client();
        self.configure(&client)?;
        Ok(client)
    }

    /// Accepts for a worker thread of a service with the token `cancel`. Non-blocking mode and the
    /// accept timeout do not apply. A connection whose timeouts cannot be set is closed and counted, because the error of
    /// one connection must not end the service.
    #[cfg(feature = "serve")]
    pub(crate) fn accept_for_serve(&self, cancel: Option<&CancelToken>) -> Result<ClientSocket> {
        loop {
            let client = self.accept_by(Caller::Service(cancel))?.into_client();
            match self.configure(&client) {
                Ok(()) => return Ok(client),
                Err(e) => {
                    super::socket::listener_of(self.listeners(), &client).count_unconfigured(&e);
                    client.abort();
                }
            }
        }
    }

    /// Accepts for the program. The caller constructs the [`ClientSocket`] in its place.
    #[inline(always)]
    pub(crate) fn accept_socket(&self) -> Result<AcceptedSocket<'_>> {
        self.accept_by(Caller::Program)
    }

    /// Step 4 for the timeouts: sets the timeouts of the options.
    #[inline]
    pub(crate) fn configure(&self, client: &ClientSocket) -> Result<()> {
        client.apply_timeouts(&self.0.options)
    }

    #[inline(always)]
    fn accept_by(&self, caller: Caller<'_>) -> Result<AcceptedSocket<'_>> {
        let (listener, (socket, peer)) = match self.listeners() {
            [listener] => {
                let Some(io) = listener.hold() else {
                    return Err(listener.accept_error(ErrorKind::Closed.into()));
                };
                match (!listener.uses_poll()).then(|| sys::accept(io.socket())) {
                    Some(Ok(accepted)) if self.keep_accepted(listener, &accepted) => {
                        (listener, accepted)
                    }
                    first => self.accept_slow(std::slice::from_ref(&io), first, caller)?,
                }
            }
            _ => self.accept_from_several(caller)?,
        };
        let (options, for_program) = (&self.0.options, caller.is_program());
        Ok(AcceptedSocket { socket, peer, listener, options, for_program })
    }

    #[cold]
    fn accept_from_several(&self, caller: Caller<'_>) -> Result<(&Listener, Accepted)> {
        let ios = self.listeners().iter().map(Listener::hold);
        match ios.collect::<Option<Vec<_>>>() {
            Some(ios) => self.accept_slow(&ios, None, caller),
            None => Err(self.first().accept_error(ErrorKind::Closed.into())),
        }
    }

    /// Accepts if that takes more than one successful system call. `ios` are the listeners. `first`
    /// is the result of an accept that was already called on the only listener.
    #[cold]
    fn accept_slow<'s>(
        &'s self,
        ios: &[InUse<'_>],
        first: Option<io::Result<Accepted>>,
        caller: Caller<'_>,
    ) -> Result<(&'s Listener, Accepted)> {
        let _disabled = sys::CancellationDisabled::new();
        let failed = |kind: ErrorKind| Err(self.first().accept_error(kind.into()));
        // A connection that was accepted first was rejected. It is closed here.
        let mut first = first.and_then(io::Result::err);
        // One deadline for the call: rejected peers do not extend it.
        let deadline = self.deadline(caller);
        let mut backoff = OUT_OF_DESCRIPTORS;
        let mut rejections = 0;
        loop {
            let nonblocking = self.is_nonblocking(caller);
            let (index, outcome) = match first.take() {
                Some(err) => (0, self.first().retry_transient(&ios[0], Err(err))),
                None if nonblocking => self.try_accept_each(ios),
                None => match self.wait_ready(ios, deadline, caller) {
                    Ok(None) => continue,
                    Ok(Some(Ready { index, polling })) => {
                        let result = sys::accept(ios[index].socket());
                        // The following steps may wait, and emit log events.
                        drop(polling);
                        (index, self.listeners()[index].retry_transient(&ios[index], result))
                    }
                    Err(Cause::Os(err)) if is_transient_poll_error(&err, caller) => {
                        (0, TryAccept::Exhausted(err))
                    }
                    Err(cause) => return Err(self.first().accept_error(cause)),
                },
            };
            let (listener, io) = (&self.listeners()[index], &ios[index]);
            match outcome {
                TryAccept::Accepted(socket, peer) => {
                    let accepted = (socket, peer);
                    if self.keep_accepted(listener, &accepted) {
                        return Ok((listener, accepted));
                    }
                    backoff = OUT_OF_DESCRIPTORS;
                    rejections += 1;
                    if deadline.has_passed() {
                        return Err(listener.accept_error(ErrorKind::TimedOut.into()));
                    }
                    if nonblocking && rejections >= MAX_CONSECUTIVE_REJECTIONS {
                        return Err(listener.accept_error(ErrorKind::WouldBlock.into()));
                    }
                    if io.is_closed() {
                        return failed(ErrorKind::Closed);
                    }
                }
                TryAccept::WouldBlock if nonblocking => return failed(ErrorKind::WouldBlock),
                TryAccept::WouldBlock => {
                    // After poll, another thread or process accepted the connection. Without
                    // poll, the socket has become non-blocking, perhaps through a copy of the
                    // descriptor in another process.
                    listener.mark_polled();
                    // A poll of a readable listener does not check the deadline.
                    if deadline.has_passed() {
                        return failed(ErrorKind::TimedOut);
                    }
                }
                TryAccept::Exhausted(err) if nonblocking => {
                    return Err(listener.accept_error(err.into()));
                }
                TryAccept::Exhausted(err) => {
                    // Linux allocates the descriptor before it looks for a connection. So the
                    // error occurs even if no connection is pending, and poll does not report
                    // when a descriptor is free.
                    listener.count_exhausted(&err);
                    self.pause(io, backoff.next(), deadline, caller)?;
                }
                TryAccept::KeepsFailing(err) if nonblocking => {
                    let cause = Cause::Over(ErrorKind::WouldBlock, err.raw_os_error());
                    return Err(listener.accept_error(cause));
                }
                TryAccept::KeepsFailing(_) => self.pause(io, backoff.next(), deadline, caller)?,
                TryAccept::Closed => return failed(ErrorKind::Closed),
                TryAccept::Fatal(cause) => return Err(listener.accept_error(cause)),
            }
        }
    }

    /// Counts an accepted connection, and does steps 3 and 4 up to the timeouts. Returns false if
    /// the program does not get the connection.
    #[inline]
    fn keep_accepted(&self, listener: &Listener, (socket, peer): &Accepted) -> bool {
        listener.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.admit(listener, socket, peer) && self.configure_accepted(listener, socket, peer)
    }

    /// Step 3: checks the peer's user, and whether it is a trusted proxy. Counts a connection that is
    /// rejected.
    #[inline]
    pub(crate) fn admit(&self, listener: &Listener, socket: &Owned, peer: &Address) -> bool {
        self.0.admits_all || self.admit_peer(listener, socket, peer)
    }

    #[cold]
    fn admit_peer(&self, listener: &Listener, socket: &Owned, peer: &Address) -> bool {
        if let Address::Inet(address) = peer {
            let proxies = &self.0.proxies;
            let is_trusted =
                proxies.is_empty() || proxies.iter().any(|network| network.contains(&address.ip()));
            if !is_trusted {
                listener.count_rejection(Rejection::NotProxy, peer);
            }
            return is_trusted;
        }
        if self.0.options.users.is_empty() {
            return true;
        }
        // A peer whose user is unknown is rejected.
        let uid = sys::peer_credentials(sys::borrow(socket)).ok().map(|peer| peer.uid);
        let is_allowed = uid.is_some_and(|uid| self.0.options.users.contains(&uid));
        if !is_allowed {
            listener.count_rejection(Rejection::User(uid), peer);
        }
        is_allowed
    }

    /// Step 4: sets the options that an accepted connection does not inherit, and logs the
    /// connection. Returns false if the peer has reset it.
    #[inline]
    pub(crate) fn configure_accepted(
        &self,
        listener: &Listener,
        socket: &Owned,
        peer: &Address,
    ) -> bool {
        let applies = !sys::ACCEPT_INHERITS || !self.0.options.kernel.is_empty();
        if applies && self.apply_options(listener, socket, peer).is_err() {
            listener.counters.retried.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if log::logs_each_connection() {
            log::accepted(peer, &listener.endpoint);
        }
        true
    }

    /// Sets the options that an accepted connection does not have from its listener.
    #[cold]
    fn apply_options(
        &self,
        listener: &Listener,
        socket: &Owned,
        peer: &Address,
    ) -> std::result::Result<(), Cause> {
        let (options, fd) = (&self.0.options, sys::borrow(socket));
        let Address::Inet(peer) = peer else {
            return options.apply_accepted(fd, true, Families::None);
        };
        if !sys::ACCEPT_INHERITS {
            let ipv6 = matches!(&listener.address, Address::Inet(a) if a.is_ipv6());
            options.apply_tcp(fd, ipv6)?;
            options.apply_dead_after(fd)?;
        }
        options.apply_accepted(fd, false, Families::of(peer))
    }

    /// Step 1: waits until a listener may have a pending connection. `None`: check the deadline
    /// again, and wait again.
    fn wait_ready(
        &self,
        ios: &[InUse<'_>],
        deadline: Deadline,
        caller: Caller<'_>,
    ) -> std::result::Result<Option<Ready<'_>>, Cause> {
        let listener = self.first();
        let [io] = ios else {
            return self.wait_any_ready(ios, deadline, caller);
        };
        if listener.close_event.is_some() {
            return self.wait_any_ready(ios, deadline, caller);
        }
        let ready = Some(Ready { index: 0, polling: None });
        if !listener.uses_poll() {
            // The kernel waits in accept(2).
            return Ok(ready);
        }
        if listener.descriptor.is_inherited() && !listener.is_polled() {
            listener.start_polling(io)?;
        }
        let cancel = self.cancel_token(caller);
        let socket = Some((io.socket(), Interest::Read));
        match wait(socket, self.next_check(deadline), cancel.as_ref(), || io.is_closed()) {
            Ok(_) => Ok(ready),
            Err(Cause::Kind(ErrorKind::TimedOut)) if !deadline.has_passed() => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Step 1 if the server has several listeners, or an event that ends its polls. One
    /// thread polls, and the other threads wait for the lock. So a connection wakes one thread.
    /// Another process may accept the connection first.
    fn wait_any_ready(
        &self,
        ios: &[InUse<'_>],
        deadline: Deadline,
        caller: Caller<'_>,
    ) -> std::result::Result<Option<Ready<'_>>, Cause> {
        let cancel = self.cancel_token(caller);
        let is_closed = || ios.iter().any(InUse::is_closed);
        let polling = self.0.polling.lock(cancel.as_ref(), || match () {
            () if is_closed() => Err(ErrorKind::Closed),
            () if cancel.as_ref().is_some_and(CancelToken::is_fired) => Err(ErrorKind::Cancelled),
            () if deadline.has_passed() => Err(ErrorKind::TimedOut),
            // A close wakes the thread that polls, which then wakes the next thread.
            () => Ok(deadline.remaining()),
        })?;
        let order = self.poll_order(ios.len());
        let sockets: Vec<_> = (0..ios.len()).map(|i| ios[order(i)].socket()).collect();
        // In a forked child the event is the parent's, and stays set after the parent has closed.
        let inherited = self.first().descriptor.is_inherited();
        let events = (cancel.as_ref(), self.close_event().filter(|_| !inherited));
        let until = self.next_check(deadline);
        match wait_any(&sockets, Interest::Read, until, events, is_closed) {
            Ok(first) => {
                let index = order(first);
                self.0.next.store(index + 1, Ordering::Relaxed);
                Ok(Some(Ready { index, polling: Some(polling) }))
            }
            Err(Cause::Kind(ErrorKind::TimedOut)) if !deadline.has_passed() => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The time at which an accept that polls checks whether the server was closed. In a forked
    /// child no event wakes the poll.
    fn next_check(&self, deadline: Deadline) -> Deadline {
        let interval = self.first().descriptor.is_inherited().then_some(POLL_INTERVAL);
        deadline.earlier(Deadline::after(interval))
    }

    /// Tries each listener once without waiting, until one returns anything except
    /// [`TryAccept::WouldBlock`].
    fn try_accept_each(&self, ios: &[InUse<'_>]) -> (usize, TryAccept) {
        let order = self.poll_order(ios.len());
        for index in (0..ios.len()).map(order) {
            let (listener, io) = (&self.listeners()[index], &ios[index]);
            match listener.retry_transient(io, sys::accept(io.socket())) {
                TryAccept::WouldBlock => {}
                outcome => {
                    self.0.next.store(index + 1, Ordering::Relaxed);
                    return (index, outcome);
                }
            }
        }
        (0, TryAccept::WouldBlock)
    }

    /// The order in which the listeners are polled. It starts after the listener that was ready
    /// last, so that a busy listener does not starve the others.
    fn poll_order(&self, count: usize) -> impl Fn(usize) -> usize + use<> {
        let first = self.0.next.load(Ordering::Relaxed);
        move |i| (first + i) % count
    }

    /// Waits before the next try, but not longer than the accept timeout.
    fn pause(
        &self,
        io: &InUse<'_>,
        time: Duration,
        deadline: Deadline,
        caller: Caller<'_>,
    ) -> Result<()> {
        let until = deadline.earlier(Deadline::after(Some(time)));
        match wait(None, until, self.cancel_token(caller).as_ref(), || io.is_closed()) {
            Ok(_) => {}
            // The kernel has no memory for the poll.
            Err(Cause::Os(_)) => sleep(until.remaining().unwrap_or(time)),
            Err(cause) => return Err(self.first().accept_error(cause)),
        }
        if deadline.has_passed() {
            return Err(self.first().accept_error(ErrorKind::TimedOut.into()));
        }
        Ok(())
    }

    fn is_nonblocking(&self, caller: Caller<'_>) -> bool {
        caller.is_program()
            && self.first().uses_poll()
            && self.0.nonblocking.load(Ordering::Acquire)
    }

    fn cancel_token(&self, caller: Caller<'_>) -> Option<CancelToken> {
        match caller {
            Caller::Program => self.0.cancel.token(),
            Caller::Service(token) => token.cloned(),
        }
    }

    /// The deadline of a call that begins now. The accept timeout has no effect in non-blocking
    /// mode, because the call does not wait.
    fn deadline(&self, caller: Caller<'_>) -> Deadline {
        let waits = caller.is_program() && !self.0.nonblocking.load(Ordering::Acquire);
        if waits { self.0.accept_timeout.deadline() } else { Deadline(None) }
    }
}

/// Whether accept retries after this error of poll(2). The kernel may have no memory for the poll,
/// and RLIMIT_NOFILE may be lower than the number of listeners. Both errors must not end a service.
fn is_transient_poll_error(err: &io::Error, caller: Caller<'_>) -> bool {
    match ErrorKind::of(err) {
        ErrorKind::NoMemory => true,
        ErrorKind::NoDescriptors => !caller.is_program(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L4: at most 20 tries per second, and at most 100 ms between two tries.
    #[test]
    fn backoff_when_out_of_descriptors_stays_under_100_ms() {
        let mut backoff = OUT_OF_DESCRIPTORS;
        let pauses: Vec<_> = (0..10).map(|_| backoff.next()).collect();
        assert_eq!(pauses[0], Duration::from_millis(5));
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses[9], Duration::from_millis(50));
    }

    /// T4: `try_accept` never waits, in any mode of the server.
    #[cfg(feature = "serve")]
    #[test]
    fn try_accept_without_connection_returns_would_block() {
        let listen = || ServerSocket::listen_all(["127.0.0.1:0", "[::1]:0"], &SocketOptions::new());
        for server in [ServerSocket::listen("127.0.0.1:0").unwrap(), listen().unwrap()] {
            for listener in server.listeners() {
                assert!(matches!(listener.try_accept(), TryAccept::WouldBlock));
                let client = ClientSocket::connect(&listener.endpoint).unwrap();
                let TryAccept::Accepted(_socket, peer) = listener.try_accept() else {
                    panic!("a connection is pending");
                };
                assert_eq!(peer, client.five_tuple().local);
                assert!(matches!(listener.try_accept(), TryAccept::WouldBlock));
            }
            assert_eq!(server.stats().accepted, server.listeners().len() as u64);
            server.close();
            for listener in server.listeners() {
                assert!(matches!(listener.try_accept(), TryAccept::Closed));
            }
        }
    }

    /// N4: a rejection is counted and logged for the listener that accepted the connection.
    #[cfg(feature = "serve")]
    #[test]
    fn match_rank_of_several_listeners_selects_the_closest() {
        let inet = |text: &str| Address::Inet(text.parse().unwrap());
        let listeners = ["0.0.0.0:80", "[::]:80", "127.0.0.1:81", "[::]:81"].map(inet);
        for (local, closest) in [
            ("192.0.2.1:80", 0),
            ("[2001:db8::1]:80", 1),
            ("127.0.0.1:81", 2),
            ("127.0.0.2:81", 3),
            ("[::1]:81", 3),
        ] {
            let rank = |i: &usize| super::super::socket::match_rank(&listeners[*i], &inet(local));
            assert_eq!((0..listeners.len()).max_by_key(rank), Some(closest), "{local}");
        }
    }
}
