//! Staying alive: the dead-peer watch, heartbeats, the idle limit, and why a connection
//! ended. What is due is decided in [`crate::liveness`].

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{
    ClientSocket, HALF_CLOSED, HEARTBEAT_CUT, LAST_SNAPSHOT, NONBLOCKING, POLLED, Patience, WROTE,
    WROTE_PART,
};

use crate::cancel::CancelToken;
use crate::error::{ErrorKind, Result};
use crate::info::{Address, End, TcpState};
use crate::liveness::{Asked, Due, Liveness};
use crate::snapshot::Snapshot;
use crate::sys::{self, InUse, Interest, Ready, TcpInfo, Wait};
use crate::turn::Held;
use crate::wait::{Cause, Deadline, wait};

type Step<T> = std::result::Result<T, Cause>;

impl ClientSocket {
    /// Does what is due to keep the connection alive, and says in what time to call again at
    /// the latest; `None`: nothing ever is. For programs that do not wait in keepsock's
    /// calls, in non-blocking mode or with the socket idle: calls that wait do all of this by
    /// themselves.
    ///
    /// A heartbeat is sent, if its time has come and nobody is writing; a peer that is dead
    /// by [`dead_after`](crate::SocketOptions::dead_after), and one that was silent for the
    /// [`idle_limit`](crate::SocketOptions::idle_limit), is reported.
    ///
    /// # Errors
    /// [`Dead`](ErrorKind::Dead), [`Unreachable`](ErrorKind::Unreachable),
    /// [`Stalled`](ErrorKind::Stalled),
    /// [`IdleLimit`](ErrorKind::IdleLimit),
    /// [`HeartbeatMissed`](ErrorKind::HeartbeatMissed),
    /// [`Reset`](ErrorKind::Reset): the connection is over.
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// use keepsock::{ClientSocket, ServerSocket, SocketOptions};
    /// use std::time::Duration;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// let options = SocketOptions::new().heartbeat(*b"PING\r\n", Duration::from_secs(20));
    /// let client = ClientSocket::connect_with(server.endpoint(), &options)?;
    /// client.set_nonblocking(true)?;
    /// if let Some(time) = client.check_alive()? {
    ///     println!("to be called again in {time:?}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn check_alive(&self) -> Result<Option<Duration>> {
        const OPERATION: &str = "check";
        let io = self.enter(OPERATION)?;
        if self.is_over(&io) {
            return Err(self.is_closed(OPERATION));
        }
        // A reset is told to whoever asks first; nobody may be reading.
        if let Some(e) = hard_error(&io) {
            self.ended_by(&io, &e);
        }
        if let Some(cause) = self.known_end(&io) {
            return Err(self.failed(OPERATION, cause, 0));
        }
        let Some(live) = &self.liveness else {
            return Ok(None);
        };
        self.tend(&io, live, true).map_err(|cause| self.failed(OPERATION, cause, 0))?;
        Ok(live.next(Instant::now(), true))
    }

    /// Why the connection ended, as far as calls on this socket have met it; `None` while it
    /// lives. Stays after close.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, End, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert_eq!(client.end(), None);
    /// client.close()?;
    /// assert_eq!(client.end(), Some(End::ClosedHere));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn end(&self) -> Option<End> {
        End::from_number(self.end.load(Ordering::Acquire))
    }

    /// What is known of the connection now: state, times, bytes on their way, counters.
    ///
    /// After the connection ended by an error, and after close if
    /// [`last_snapshot`](crate::SocketOptions::last_snapshot) was asked for, it is
    /// the last copy; otherwise what is known without the kernel: the five-tuple,
    /// [`end`](ClientSocket::end), the state CLOSED.
    ///
    /// # Errors
    /// [`Os`](ErrorKind::Os) and others if the system refuses to tell.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, TcpState};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// println!("{:?} bytes are on their way", client.snapshot()?.unacknowledged);
    /// client.close()?;
    /// assert_eq!(client.snapshot()?.state, Some(TcpState::Closed));
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<Snapshot> {
        let io = self.descriptor.enter();
        let mut unread = None;
        let last = self.rare.get().and_then(|rare| rare.last.get());
        let tcp = match (&io, last) {
            (_, Some(last)) => last.clone(),
            (Some(io), None) => {
                unread = sys::unread(io.socket()).map(|n| n + self.buffered() as u64);
                match self.remote {
                    Address::Inet(_) => {
                        sys::tcp_info(io.socket()).map_err(|e| self.os_failed("snapshot", e))?
                    }
                    _ => TcpInfo::default(),
                }
            }
            (None, None) => TcpInfo::default(),
        };
        let mut snapshot = Snapshot::new(self.five_tuple(), tcp);
        if io.is_none() && matches!(self.remote, Address::Inet(_)) {
            snapshot.state = Some(TcpState::Closed);
        }
        snapshot.end = self.end();
        snapshot.unread = unread;
        snapshot.heartbeats = self.liveness.as_ref().map_or(0, |live| live.heartbeats());
        Ok(snapshot)
    }

    /// The TCP state, by its name in RFC 9293; CLOSED after close.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a Unix socket, and where the system does
    /// not tell.
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket, TcpState};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(client.state()?.to_string(), "ESTABLISHED");
    /// client.shutdown_write()?;
    /// assert!(matches!(client.state()?, TcpState::FinWait1 | TcpState::FinWait2));
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn state(&self) -> Result<TcpState> {
        const OPERATION: &str = "state";
        let unsupported = || self.failed(OPERATION, ErrorKind::Unsupported.into(), 0);
        if !matches!(self.remote, Address::Inet(_)) {
            return Err(unsupported());
        }
        let Some(io) = self.descriptor.enter() else {
            return Ok(TcpState::Closed);
        };
        let info = sys::tcp_info(io.socket()).map_err(|e| self.os_failed(OPERATION, e))?;
        info.state.ok_or_else(unsupported)
    }

    /// The user timeout that the kernel keeps (RFC 9293 section 3.8.3): for how long data
    /// may stay unacknowledged, or not be taken. Set by
    /// [`end_stalled`](crate::SocketOptions::end_stalled); `None`: none.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a Unix socket and on macOS,
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(client.user_timeout()?, None);
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn user_timeout(&self) -> Result<Option<Duration>> {
        const OPERATION: &str = "user timeout";
        let io = self.enter(OPERATION)?;
        if !matches!(self.remote, Address::Inet(_)) {
            return Err(self.failed(OPERATION, ErrorKind::Unsupported.into(), 0));
        }
        sys::user_timeout(io.socket()).map_err(|e| self.os_failed(OPERATION, e))
    }

    /// Whether it is a Multipath TCP connection: both sides knew it, and so did everything on
    /// the way. Linux 5.16 and later can tell; elsewhere no.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # use keepsock::{ClientSocket, ServerSocket};
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let client = ClientSocket::connect(server.endpoint())?;
    /// assert!(!client.is_mptcp()?);
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn is_mptcp(&self) -> Result<bool> {
        let io = self.enter("mptcp")?;
        Ok(matches!(self.remote, Address::Inet(_)) && sys::is_mptcp(io.socket()))
    }

    /// Waits as [`wait`] does, and meanwhile does what is due.
    pub(super) fn wait_alive(
        &self,
        io: &InUse<'_>,
        interest: Interest,
        deadline: Deadline,
        cancel: Option<&CancelToken>,
        ended: impl Fn() -> bool,
    ) -> Step<Ready> {
        let socket = Some((io.socket(), interest));
        let Some(live) = &self.liveness else {
            return wait(socket, deadline, cancel, ended);
        };
        let reads = interest == Interest::Read;
        loop {
            let next = live.next(Instant::now(), reads);
            if next == Some(Duration::ZERO) {
                // Here, too, for those who only look.
                self.tend(io, live, reads)?;
                continue;
            }
            let look = Deadline::after(next);
            match wait(socket, deadline.earlier(look), cancel, &ended) {
                Err(Cause::Kind(ErrorKind::TimedOut)) if !deadline.has_passed() => {
                    self.tend(io, live, reads)?;
                }
                other => return other,
            }
        }
    }

    /// Does what is due now.
    fn tend(&self, io: &InUse<'_>, live: &Liveness, reads: bool) -> Step<()> {
        let now = Instant::now();
        let mut silence = None;
        if live.wants_silence(now) {
            silence = sys::silence(io.socket()).ok();
            if silence.is_none() {
                live.put_off_look(now);
            }
        }
        match live.due(now, silence, reads) {
            Due::Nothing => Ok(()),
            Due::Heartbeat => self.send_heartbeat(io, live, now),
            Due::End(End::Dead) => Err(self.give_up(io)),
            // What has come meanwhile, or what another thread is reading, is no silence.
            Due::End(_) if sys::unread(io.socket()).is_some_and(|n| n > 0) => {
                live.note_received(now);
                Ok(())
            }
            Due::End(end) => {
                self.note_end(end);
                Err(Cause::Over(end.kind(), None))
            }
        }
    }

    /// The peer is dead: nobody waits for it any longer, in any thread.
    fn give_up(&self, io: &InUse<'_>) -> Cause {
        // What a router said while the kernel was trying waits as a soft error.
        // Whatever it was (host, port or network unreachable, prohibited), it is no answer.
        let said = SockRef::from(&io.socket()).take_error().ok().flatten();
        let said = said.filter(sys::is_from_network);
        let err = said.unwrap_or_else(|| io::Error::from_raw_os_error(sys::GIVEN_UP));
        let cause = self.ended_by(io, &err);
        sys::wake(io.socket());
        cause
    }

    /// Sends a heartbeat, if nobody is in the middle of a write; then there is no need.
    fn send_heartbeat(&self, io: &InUse<'_>, live: &Liveness, now: Instant) -> Step<()> {
        // Whatever comes of it, the next try is not before the next one is due.
        live.note_wrote(now);
        let Some(turn) = self.writing.try_take() else {
            return Ok(());
        };
        // A message of which a write call took a part is not finished.
        if self.is_ending() || self.has(HALF_CLOSED | WROTE_PART) {
            return Ok(());
        }
        self.flags.fetch_or(WROTE, Ordering::Relaxed);
        if self.has(HEARTBEAT_CUT) {
            return self.send_rest(io, live, &turn).map(|_| ());
        }
        *live.cut() = 0;
        if self.send_rest(io, live, &turn)? > 0 {
            live.note_heartbeat(now);
        }
        Ok(())
    }

    /// Sends what is left of a heartbeat without waiting, and says how much the kernel took.
    /// What it did not take of one that has begun is sent before the next write.
    pub(super) fn send_rest(
        &self,
        io: &InUse<'_>,
        live: &Liveness,
        _turn: &Held<'_>,
    ) -> Step<usize> {
        let bytes = live.heartbeat_bytes();
        let mut cut = live.cut();
        let mut taken = 0;
        while *cut < bytes.len() {
            match sys::send(io.socket(), &bytes[*cut..], Wait::No) {
                Ok(n) => {
                    *cut += n;
                    taken += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The connection has ended, and whoever reads will find how. Nothing is left to
                // complete: the write that waits for it meets the error itself.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    *cut = 0;
                    break;
                }
                Err(e) => return Err(self.ended_by(io, &e)),
            }
        }
        if *cut > 0 && *cut < bytes.len() {
            self.flags.fetch_or(HEARTBEAT_CUT, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!HEARTBEAT_CUT, Ordering::AcqRel);
        }
        Ok(taken)
    }

    /// Before a write: completes a heartbeat of which the kernel took only a part.
    pub(super) fn finish_heartbeat(
        &self,
        io: &InUse<'_>,
        patience: &mut Patience,
        turn: &Held<'_>,
    ) -> Step<()> {
        while self.has(HEARTBEAT_CUT) {
            let Some(live) = &self.liveness else {
                return Ok(());
            };
            if self.send_rest(io, live, turn)? == 0 {
                if self.has(NONBLOCKING) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.wait_for(io, Interest::Write, patience.deadline())?;
            }
        }
        Ok(())
    }

    /// The kernel told that the connection is over; it tells once. The first reason stays.
    pub(super) fn note_over(&self, io: &InUse<'_>, code: i32) {
        if self.ended.load(Ordering::Acquire) != 0 {
            return;
        }
        let asked = self.liveness.as_ref().map(|live| live.asked());
        let end = end_by_error(io.socket(), code, asked);
        // The reason before the error: who meets the error asks for the reason.
        self.keep_last(io);
        self.note_end(end);
        let _ = self.ended.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The error that the end of the connection is to every call from then on.
    #[cold]
    pub(super) fn over(&self, code: i32) -> Cause {
        match self.end() {
            Some(End::Stalled) => Cause::Over(ErrorKind::Stalled, Some(code)),
            _ => Cause::ended(&io::Error::from_raw_os_error(code)),
        }
    }

    /// The first reason stays, except that a peer which had closed its side, and could
    /// still be written to, may be found dead.
    pub(super) fn note_end(&self, end: End) {
        let dies = matches!(end, End::Dead | End::Unreachable | End::Stalled);
        let _ = self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            let replaced = before == 0 || dies && before == End::ClosedByPeer as i32;
            replaced.then_some(end as i32)
        });
    }

    /// The peer's FIN was met.
    #[inline]
    pub(super) fn note_fin(&self) {
        if self.end.load(Ordering::Acquire) == 0 {
            self.note_end(End::ClosedByPeer);
        }
    }

    /// The connection broke off while it was being closed.
    #[cold]
    pub(super) fn note_broken(&self, kind: ErrorKind) {
        self.note_end(match kind {
            ErrorKind::Dead => End::Dead,
            ErrorKind::Unreachable => End::Unreachable,
            ErrorKind::Stalled => End::Stalled,
            _ => End::ResetByPeer,
        });
    }

    #[inline]
    pub(super) fn note_closed_here(&self) {
        if self.end.load(Ordering::Acquire) != 0 {
            return;
        }
        // Only a polled socket has a token.
        let cancelled =
            self.has(POLLED) && self.cancel_token().is_some_and(|token| token.is_fired());
        self.note_end(if cancelled { End::Cancelled } else { End::ClosedHere });
    }

    /// Keeps what the kernel knows now, for [`snapshot`](ClientSocket::snapshot).
    pub(super) fn keep_last(&self, io: &InUse<'_>) {
        if self.rare().last.get().is_none() && matches!(self.remote, Address::Inet(_)) {
            if let Ok(info) = sys::tcp_info(io.socket()) {
                let _ = self.rare().last.set(info);
            }
        }
    }

    pub(super) fn keep_last_if_asked(&self, io: &InUse<'_>) {
        if self.has(LAST_SNAPSHOT) {
            self.keep_last(io);
        }
    }

    pub(super) fn note_received(&self) {
        if let Some(live) = &self.liveness {
            live.note_received(Instant::now());
        }
    }

    /// A write call took so much of what it was given. Said while it has its turn: a heartbeat
    /// may come right after.
    pub(super) fn note_call(&self, done: usize, of: usize) {
        // Nothing changes nothing: an empty write does not finish a message.
        if done == 0 || self.liveness.is_none() {
            return;
        }
        if done < of {
            self.flags.fetch_or(WROTE_PART, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!WROTE_PART, Ordering::Relaxed);
        }
    }

    pub(super) fn note_wrote(&self) {
        if let Some(live) = &self.liveness {
            live.note_wrote(Instant::now());
        }
    }
}

/// The error that has ended a connection. SO_ERROR also gives what a router said while the kernel
/// goes on trying (a soft error), which is no end: poll(2) has an error for the first alone.
pub(super) fn hard_error(io: &InUse<'_>) -> Option<io::Error> {
    let hangup = Some((io.socket(), Interest::Hangup));
    let broken = || sys::poll(hangup, None, Some(Duration::ZERO)).is_ok_and(|r| r.error);
    if sys::SEES_HANGUP && !broken() {
        return None;
    }
    SockRef::from(&io.socket()).take_error().ok().flatten()
}

/// Why a connection ended that the kernel has failed with this error.
pub(crate) fn end_by_error(socket: sys::Borrowed<'_>, code: i32, asked: Option<&Asked>) -> End {
    match Cause::ended(&io::Error::from_raw_os_error(code)).kind() {
        ErrorKind::Dead if asked.is_some_and(|asked| was_stalled(socket, asked)) => End::Stalled,
        ErrorKind::Dead => End::Dead,
        ErrorKind::Reset => End::ResetByPeer,
        // A router, or the peer's firewall, has said so.
        _ => End::Unreachable,
    }
}

/// Whether the kernel gave up a peer that answered to the end, but took no data.
fn was_stalled(socket: sys::Borrowed<'_>, asked: &Asked) -> bool {
    let Some(timeout) = asked.strict() else {
        return false;
    };
    sys::silence(socket).is_ok_and(|silence| {
        // The kernel's timers are some tenths of a second late.
        silence.heard + Duration::from_millis(500) < timeout
    })
}
