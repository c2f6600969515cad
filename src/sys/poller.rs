//! Readiness of many sockets, for event-driven serving, on top of mio.
//!
//! Why mio: a wait is one system call. With the polling crate a wait was measured at five system
//! calls (it sets a timerfd and renews two registrations each time). mio is edge-triggered only,
//! which would cost a listener a second accept4(2) per wake-up to find its queue empty. On Linux,
//! listeners are therefore added to mio's epoll(7) directly, level-triggered.

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    #[cfg(feature = "serve")]
    use super::super::Event;
    use super::super::{Borrowed, CancellationDisabled, Occurred, kernel};

    /// The loop's half: waiting.
    pub(crate) struct Poller {
        poll: Poll,
        events: Events,
    }

    /// The half that every thread may use: registration and waking.
    pub(crate) struct Registry {
        registry: mio::Registry,
        waker: mio::Waker,
    }

    const WAKER: Token = Token(usize::MAX);
    /// The number of events per system call.
    const EVENTS: usize = 256;

    impl Poller {
        pub(crate) fn new() -> io::Result<(Poller, Registry)> {
            let poll = kernel::call("epoll_create1", Poll::new)?;
            let registry = kernel::call("fcntl", || poll.registry().try_clone())?;
            let waker = kernel::call("eventfd", || mio::Waker::new(&registry, WAKER))?;
            let poller = Poller { poll, events: Events::with_capacity(EVENTS) };
            Ok((poller, Registry { registry, waker }))
        }

        /// Waits for an event, or until the timeout expires.
        #[inline]
        pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            #[cfg(all(test, keepsock_model))]
            {
                // A loop that does not wait would keep every other thread from running.
                super::super::model::sleep(Duration::from_millis(1));
                super::super::model::wait_until(timeout, || {
                    self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
                    Ok(!self.events.is_empty())
                })
            }
            #[cfg(not(all(test, keepsock_model)))]
            match kernel::call("epoll_wait", || self.poll.poll(&mut self.events, timeout)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    self.events.clear();
                    Ok(())
                }
                other => other,
            }
        }

        /// The events of the last wait. A wake-up adds none.
        #[inline]
        pub(crate) fn occurred(&self) -> impl Iterator<Item = Occurred> {
            self.events.iter().filter(|e| e.token() != WAKER).map(|e| Occurred {
                key: e.token().0,
                #[cfg(feature = "serve")]
                readable: e.is_readable() || e.is_error(),
                #[cfg(feature = "serve")]
                writable: e.is_writable(),
                #[cfg(feature = "serve")]
                ended: e.is_read_closed() || e.is_error(),
                #[cfg(feature = "serve")]
                failed: e.is_error(),
                #[cfg(feature = "serve")]
                short: e.is_priority() || !READS_TO_THE_END,
            })
        }
    }

    impl Registry {
        /// Wakes the current wait, or the next one, from any thread.
        pub(crate) fn wake(&self) {
            let _disabled = CancellationDisabled::new();
            #[cfg(all(test, keepsock_model))]
            super::super::model::system_call();
            // Fails only when the system lacks memory; the loop then notices at its next wait.
            let _ = kernel::call("write", || self.waker.wake());
        }

        /// Reports once when data arrives, and once when the send buffer has space again after it
        /// was full. Closing the socket removes it.
        pub(crate) fn add(
            &self,
            socket: Borrowed<'_>,
            key: usize,
            writable: bool,
        ) -> io::Result<()> {
            let socket = socket.as_raw_fd();
            kernel::call("epoll_ctl", || {
                self.registry.register(&mut SourceFd(&socket), Token(key), interest(writable))
            })
        }

        /// Also reports space in the send buffer from now on.
        #[cfg(feature = "serve")]
        pub(crate) fn add_writable(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            let socket = socket.as_raw_fd();
            kernel::call("epoll_ctl", || {
                self.registry.reregister(&mut SourceFd(&socket), Token(key), interest(true))
            })
        }

        /// Reports while connections wait (Linux), or once when a connection arrives.
        #[cfg(feature = "serve")]
        #[cfg(keepsock_linux)]
        pub(crate) fn add_listener(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_ADD, libc::EPOLLIN, socket, key)
        }

        /// Pauses or resumes the reports of waiting connections. Linux still reports a listener that
        /// was shut down, in every wait: [`remove`](Registry::remove) ends that.
        #[cfg(feature = "serve")]
        #[cfg(keepsock_linux)]
        pub(crate) fn listen(&self, socket: Borrowed<'_>, key: usize, on: bool) -> io::Result<()> {
            let events = if on { libc::EPOLLIN } else { 0 };
            match self.control(libc::EPOLL_CTL_MOD, events, socket, key) {
                // The listener was removed while it was paused.
                Err(e) if on && e.raw_os_error() == Some(libc::ENOENT) => {
                    self.add_listener(socket, key)
                }
                other => other,
            }
        }

        #[cfg(feature = "serve")]
        #[cfg(keepsock_linux)]
        fn control(
            &self,
            what: i32,
            events: i32,
            socket: Borrowed<'_>,
            key: usize,
        ) -> io::Result<()> {
            let events = events as u32;
            let mut event = libc::epoll_event { events, u64: key as u64 };
            let (epoll, socket) = (self.registry.as_raw_fd(), socket.as_raw_fd());
            // SAFETY: the kernel reads one epoll_event. mio uses the number in it as a token.
            let done = unsafe { kernel::epoll_ctl(epoll, what, socket, &raw mut event) };
            super::super::errno::check_int(done).map(drop)
        }

        #[cfg(all(feature = "serve", not(keepsock_linux)))]
        pub(crate) fn add_listener(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            self.add(socket, key, false)
        }

        #[cfg(all(feature = "serve", not(keepsock_linux)))]
        pub(crate) fn listen(&self, socket: Borrowed<'_>, key: usize, on: bool) -> io::Result<()> {
            if on {
                return self.add(socket, key, false);
            }
            self.remove(socket);
            Ok(())
        }

        #[cfg(feature = "serve")]
        pub(crate) fn add_event(&self, event: &Event, key: usize) -> io::Result<()> {
            self.add(event.reader(), key, false)
        }

        pub(crate) fn remove(&self, socket: Borrowed<'_>) {
            let socket = socket.as_raw_fd();
            // Fails if the listener is not registered, which is the desired state.
            let _ = kernel::call("epoll_ctl", || self.registry.deregister(&mut SourceFd(&socket)));
        }

        /// See [`REARMS`](super::REARMS).
        pub(crate) fn rearm(&self, _: Borrowed<'_>, _: usize, _: bool, _: bool) -> io::Result<()> {
            Ok(())
        }
    }

    fn interest(writable: bool) -> Interest {
        // EPOLLPRI reports urgent data, at which the kernel ends a receive early.
        #[cfg(keepsock_linux)]
        let readable = Interest::READABLE | Interest::PRIORITY;
        #[cfg(not(keepsock_linux))]
        let readable = Interest::READABLE;
        if writable { readable | Interest::WRITABLE } else { readable }
    }

    /// On a TCP socket without urgent data, a receive that returns less than the buffer holds has
    /// emptied the socket: Linux (tcp_recvmsg) stops early only at the urgent mark. Bytes
    /// that arrive after the wait raise an event of their own.
    #[cfg(feature = "serve")]
    const READS_TO_THE_END: bool = cfg!(keepsock_linux);
}

#[cfg(windows)]
use super::windows_poller as platform;

pub(crate) use platform::{Poller, Registry};

/// The report of a listener repeats while connections wait, so the loop does not have to accept all at once.
#[cfg(feature = "serve")]
pub(crate) const LISTENERS_STAY_READY: bool = cfg!(any(keepsock_linux, windows));

/// A connection that was reported is not reported again before `Registry::rearm`, and is removed before it
/// is closed. On other systems reports are edge-triggered, and a close removes the connection.
pub(crate) const REARMS: bool = cfg!(windows);
