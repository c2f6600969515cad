//! Cancelling calls from another thread or from a signal handler.

use std::sync::Arc;

use crate::sys;
use crate::sys::sync::atomic::{AtomicU8, Ordering};
use crate::sys::sync::spin_loop;
use crate::types::error::{Error, ErrorKind, Result};

/// A token that cancels calls of the sockets to which it is attached.
///
/// After [`fire`](CancelToken::fire), which any thread or signal handler may call, connect, accept,
/// read, write and other waiting calls return [`Cancelled`](crate::ErrorKind::Cancelled) within 50
/// ms. The sockets stay usable: [`reset`](CancelToken::reset) the token, or detach it.
///
/// A token stays fired until it is reset, so later calls are cancelled as well. Clones refer to the
/// same token, and one token may be attached to any number of sockets. A socket without a token has
/// no extra cost. With a token each read and each accept needs one more poll.
///
/// # fork(2)
/// A forked child has a copy of the token. Firing or resetting the token in one process does not
/// affect the other. In the child a waiting call polls the token every 25 ms; services and pending
/// connects of the child do not notice it, so create a new token for them.
///
/// ```
/// use keepsock::{CancelToken, ErrorKind, ServerSocket};
/// let token = CancelToken::new()?;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// server.set_cancel(Some(&token))?;
/// let elsewhere = token.clone();
/// let thread = std::thread::spawn(move || elsewhere.fire());
/// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Cancelled);
/// # thread.join().unwrap();
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Token>);

const CLEAR: u8 = 0;
/// The token is fired, and its event is not set yet.
const FIRING: u8 = 1;
const FIRED: u8 = 2;
/// The event is being cleared. A concurrent fire counts as earlier than the reset.
const RESETTING: u8 = 3;

#[derive(Debug)]
struct Token {
    state: AtomicU8,
    event: sys::Event,
    /// The process that created the token, for [`sys::fork`]. A forked child has a copy of the state
    /// and shares the event, so the child neither sets nor clears the event, and does not poll it.
    birth: u32,
}

impl CancelToken {
    /// Creates a token that is not fired. It needs one descriptor on Linux (an eventfd), and two on
    /// other Unix systems (a socket pair).
    ///
    /// # Errors
    /// [`NoDescriptors`](crate::ErrorKind::NoDescriptors), [`NoMemory`](crate::ErrorKind::NoMemory),
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) if a policy of this machine forbids the
    /// call, [`Unsupported`](crate::ErrorKind::Unsupported) if the kernel lacks it, or
    /// [`Os`](crate::ErrorKind::Os) for another error of the system.
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// assert!(!token.is_fired());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn new() -> Result<CancelToken> {
        let event = sys::Event::new().map_err(|e| Error::helper("cancel", &e))?;
        let birth = sys::fork::birth();
        Ok(CancelToken(Arc::new(Token { state: AtomicU8::new(CLEAR), event, birth })))
    }

    /// Fires the token. This function is async-signal-safe. Firing a fired token has no effect.
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// token.fire();
    /// assert!(token.is_fired());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn fire(&self) {
        let state = &self.0.state;
        if state.compare_exchange(CLEAR, FIRING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            if let Some(event) = self.own_event() {
                event.set();
            }
            state.store(FIRED, Ordering::Release);
        }
    }

    /// Resets the token to its initial state. A call that has not yet observed the fired token
    /// continues to wait, so reset the token after the cancelled calls have returned. Not
    /// async-signal-safe.
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// token.fire();
    /// token.reset();
    /// assert!(!token.is_fired());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn reset(&self) {
        let state = &self.0.state;
        loop {
            match state.load(Ordering::Acquire) {
                CLEAR => return,
                // Another thread is between two instructions. If this thread did not wait, the
                // event would stay set.
                FIRING | RESETTING if !self.is_inherited() => spin_loop(),
                fired => {
                    let mine = state.compare_exchange(
                        fired,
                        RESETTING,
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    );
                    if mine.is_ok() {
                        if let Some(event) = self.own_event() {
                            event.clear();
                        }
                        state.store(CLEAR, Ordering::Release);
                        return;
                    }
                }
            }
        }
    }

    /// Whether the token is fired.
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// let elsewhere = token.clone();
    /// elsewhere.fire();
    /// assert!(token.is_fired());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn is_fired(&self) -> bool {
        self.0.state.load(Ordering::Acquire) != CLEAR
    }

    /// Borrows a descriptor that is readable while the token is fired, for poll(2) or an event loop. On
    /// Windows it is a SOCKET, for select and WSAPoll.
    /// [`reset`](CancelToken::reset) makes it unreadable again. Do not read from it. It stays open
    /// while a clone of the token or a socket that has the token exists.
    ///
    /// # Errors
    /// - [`WrongState`](ErrorKind::WrongState): in a forked child, where the parent owns the
    ///   descriptor. Create a token in the child.
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// # #[cfg(unix)] {
    /// use std::os::fd::AsRawFd;
    /// println!("poll descriptor {} for input", token.descriptor()?.as_raw_fd());
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn descriptor(&self) -> Result<sys::Borrowed<'_>> {
        const OPERATION: &str = "descriptor";
        let event = self.own_event().ok_or_else(|| {
            Error::new(ErrorKind::WrongState, OPERATION).detail(
                "the descriptor of the cancel token belongs to the parent process: create a token in the child",
            )
        })?;
        event.descriptor().ok_or_else(|| Error::new(ErrorKind::Unsupported, OPERATION))
    }

    /// Whether this process is a forked child of the process that created the token. The event then
    /// belongs to the parent, so a wait checks the token periodically.
    pub(crate) fn is_inherited(&self) -> bool {
        sys::fork::is_inherited(self.0.birth)
    }

    /// A number that no other token has at the same time, and that is not 0.
    pub(crate) fn number(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The event that is set while the token is fired. Only for a token that is not inherited.
    pub(crate) fn event(&self) -> &sys::Event {
        &self.0.event
    }

    /// The event that is set while the token is fired. `None` in a forked child.
    pub(crate) fn own_event(&self) -> Option<&sys::Event> {
        (!self.is_inherited()).then_some(&self.0.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Whether the event ends a poll of that time.
    fn ends_poll(token: &CancelToken, time: Duration) -> bool {
        let start = Instant::now();
        let _ = sys::poll(None, token.own_event(), Some(time));
        start.elapsed() < time * 3 / 4
    }

    fn is_clear(token: &CancelToken) -> bool {
        !ends_poll(token, Duration::from_millis(20))
    }

    /// T2: a reset waits for a concurrent fire or reset. Otherwise the event of a token that is not
    /// fired would stay set.
    #[test]
    fn reset_waits_for_concurrent_fire_and_reset() {
        for (half_done, finish) in [(FIRING, FIRED), (RESETTING, CLEAR)] {
            let token = CancelToken::new().unwrap();
            token.0.state.store(half_done, Ordering::Release);
            token.fire(); // earlier than the reset in progress, or already fired
            assert!(is_clear(&token));
            let (done, is_done) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    token.reset();
                    done.send(()).unwrap();
                });
                assert!(is_done.recv_timeout(Duration::from_millis(30)).is_err(), "did not wait");
                if finish == FIRED {
                    token.0.event.set();
                }
                token.0.state.store(finish, Ordering::Release);
                is_done.recv_timeout(Duration::from_secs(60)).unwrap();
            });
            assert!(!token.is_fired() && is_clear(&token));
        }
    }

    /// T2: after concurrent fires and resets, the event of a token that is not fired is clear.
    /// Otherwise every later wait would spin.
    #[test]
    fn concurrent_fire_and_reset_leave_event_consistent() {
        let token = CancelToken::new().unwrap();
        for _ in 0..2000 {
            token.fire();
            std::thread::scope(|scope| {
                scope.spawn(|| token.reset());
                scope.spawn(|| token.reset());
                scope.spawn(|| token.fire());
            });
            token.reset();
        }
        assert!(!token.is_fired() && is_clear(&token));
        token.fire();
        assert!(token.is_fired() && ends_poll(&token, Duration::from_secs(20)));
    }
}
