//! Ending a call from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};
use crate::sys;

/// Ends the calls of the sockets that carry it: connect, accept, read, write and
/// waiting return [`Cancelled`](crate::ErrorKind::Cancelled) within 50 ms,
/// from whichever thread, or signal handler, it was fired. The sockets stay
/// usable: [`reset`](CancelToken::reset) the token or take it off.
///
/// A token stays fired until it is reset, so calls that begin later end too.
/// Clones are the same token; one token may serve any number of sockets. A
/// socket that carries none pays nothing; one that does pays one poll for each
/// read and accept.
///
/// ```
/// use keepsock::{CancelToken, ErrorKind, ServerSocket};
/// let token = CancelToken::new()?;
/// let server = ServerSocket::listen("127.0.0.1:0")?;
/// server.set_cancel(Some(&token));
/// let elsewhere = token.clone();
/// let thread = std::thread::spawn(move || elsewhere.fire());
/// assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::Cancelled);
/// # thread.join().unwrap();
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Token>);

const CLEAR: u8 = 0;
/// Fired, and its event is about to be set.
const FIRING: u8 = 1;
const FIRED: u8 = 2;
/// Its event is being cleared. A fire that comes now came before the reset.
const RESETTING: u8 = 3;

#[derive(Debug)]
struct Token {
    state: AtomicU8,
    event: sys::Event,
}

impl CancelToken {
    /// A token that has not been fired. On Linux it holds one descriptor (an
    /// eventfd), on other Unix systems two (a socket pair).
    ///
    /// # Errors
    /// [`NoDescriptors`](crate::ErrorKind::NoDescriptors) or
    /// [`NoMemory`](crate::ErrorKind::NoMemory).
    ///
    /// ```
    /// let token = keepsock::CancelToken::new()?;
    /// assert!(!token.is_fired());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn new() -> Result<CancelToken> {
        let event = sys::Event::new().map_err(|e| Error::os("cancel", &e))?;
        Ok(CancelToken(Arc::new(Token { state: AtomicU8::new(CLEAR), event })))
    }

    /// Fires it. Async-signal-safe; firing twice is as good as once.
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
            self.0.event.set();
            state.store(FIRED, Ordering::Release);
        }
    }

    /// Makes it as new. A call that has not noticed yet that the token was fired
    /// goes on waiting, so reset it when the calls to be ended have returned. Not
    /// for signal handlers.
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
                // Two instructions of another thread are all there is to wait for;
                // going ahead of them would leave the event set for good.
                FIRING | RESETTING => std::hint::spin_loop(),
                fired => {
                    let mine = state.compare_exchange(
                        fired,
                        RESETTING,
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    );
                    if mine.is_ok() {
                        self.0.event.clear();
                        state.store(CLEAR, Ordering::Release);
                        return;
                    }
                }
            }
        }
    }

    /// Whether it was fired and not reset since.
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

    pub(crate) fn event(&self) -> &sys::Event {
        &self.0.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Whether a poll that the event should end is ended.
    fn is_set(token: &CancelToken) -> bool {
        let start = Instant::now();
        let _ = sys::poll(None, Some(token.event()), Some(Duration::from_millis(20)));
        start.elapsed() < Duration::from_millis(15)
    }

    /// T2: a reset waits for a fire, or for another reset, that is half done; going
    /// ahead of it would leave the event set on a token that is clear.
    #[test]
    #[cfg(unix)]
    fn a_reset_lets_others_finish() {
        for (half_done, finish) in [(FIRING, FIRED), (RESETTING, CLEAR)] {
            let token = CancelToken::new().unwrap();
            token.0.state.store(half_done, Ordering::Release);
            token.fire(); // belongs to what is being reset, or is fired already
            assert!(!is_set(&token));
            let (done, is_done) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    token.reset();
                    done.send(()).unwrap();
                });
                assert!(is_done.recv_timeout(Duration::from_millis(30)).is_err(), "went ahead");
                if finish == FIRED {
                    token.event().set();
                }
                token.0.state.store(finish, Ordering::Release);
                is_done.recv_timeout(Duration::from_secs(10)).unwrap();
            });
            assert!(!token.is_fired() && !is_set(&token));
        }
    }

    /// T2: however firing and resetting meet, a token that is clear has a clear event;
    /// otherwise every later wait on it would spin.
    #[test]
    #[cfg(unix)]
    fn fire_and_reset_at_once() {
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
        assert!(!token.is_fired() && !is_set(&token));
        token.fire();
        assert!(token.is_fired() && is_set(&token));
    }
}
