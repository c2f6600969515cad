//! Readiness of many sockets, for event-driven serving: mio behind our names.
//!
//! Why mio: a wait is one system call. The polling crate, which was measured beside it, makes
//! five of one (it sets a timerfd and renews two registrations each time). mio is
//! edge-triggered only, which costs a listener one accept4 more for each wake-up, to find that
//! nobody else waits; so on Linux listeners are put into mio's epoll(7) by hand,
//! level-triggered.

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::super::{Borrowed, Event};
    use super::Occurred;

    /// A loop's own half: it waits.
    pub(crate) struct Poller {
        poll: Poll,
        events: Events,
    }

    /// What any thread may use of it.
    pub(crate) struct Registry {
        registry: mio::Registry,
        waker: mio::Waker,
    }

    const WAKER: Token = Token(usize::MAX);
    /// What is taken of the kernel at a time.
    const EVENTS: usize = 256;

    impl Poller {
        pub(crate) fn new() -> io::Result<(Poller, Registry)> {
            let poll = Poll::new()?;
            let registry = poll.registry().try_clone()?;
            let waker = mio::Waker::new(&registry, WAKER)?;
            let poller = Poller { poll, events: Events::with_capacity(EVENTS) };
            Ok((poller, Registry { registry, waker }))
        }

        /// Waits until something occurs, or for so long.
        #[inline]
        pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            match self.poll.poll(&mut self.events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    self.events.clear();
                    Ok(())
                }
                other => other,
            }
        }

        /// What occurred; none for a wake-up.
        #[inline]
        pub(crate) fn occurred(&self) -> impl Iterator<Item = Occurred> {
            self.events.iter().filter(|e| e.token() != WAKER).map(|e| Occurred {
                key: e.token().0,
                readable: e.is_readable() || e.is_error(),
                writable: e.is_writable(),
                ended: e.is_read_closed() || e.is_error(),
            })
        }
    }

    impl Registry {
        /// Ends a wait from any thread, or the next one.
        pub(crate) fn wake(&self) {
            // It fails only when the system lacks memory; the loop then looks later.
            let _ = self.waker.wake();
        }

        /// Tells once when something comes, and once when there is room again after there
        /// was none. Closing the socket takes it out.
        pub(crate) fn add(
            &self,
            socket: Borrowed<'_>,
            key: usize,
            writable: bool,
        ) -> io::Result<()> {
            let socket = socket.as_raw_fd();
            self.registry.register(&mut SourceFd(&socket), Token(key), interest(writable))
        }

        /// From now on tells of room, too.
        pub(crate) fn add_writable(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            let socket = socket.as_raw_fd();
            self.registry.reregister(&mut SourceFd(&socket), Token(key), interest(true))
        }

        /// Tells for as long as somebody waits (Linux), or once when somebody comes.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub(crate) fn add_listener(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_ADD, libc::EPOLLIN, socket, key)
        }

        /// No longer tells of those that wait, or does again. Linux still tells when it is
        /// closed.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub(crate) fn listen(&self, socket: Borrowed<'_>, key: usize, on: bool) -> io::Result<()> {
            let events = if on { libc::EPOLLIN } else { 0 };
            self.control(libc::EPOLL_CTL_MOD, events, socket, key)
        }

        #[cfg(any(target_os = "linux", target_os = "android"))]
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
            // SAFETY: the kernel reads one epoll_event. mio takes the number in it for a token,
            // which is what it is.
            let done = unsafe { libc::epoll_ctl(epoll, what, socket, &raw mut event) };
            super::super::unix::check_int(done).map(drop)
        }

        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        pub(crate) fn add_listener(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
            self.add(socket, key, false)
        }

        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        pub(crate) fn listen(&self, socket: Borrowed<'_>, key: usize, on: bool) -> io::Result<()> {
            if on {
                return self.add(socket, key, false);
            }
            self.remove(socket);
            Ok(())
        }

        pub(crate) fn add_event(&self, event: &Event, key: usize) -> io::Result<()> {
            self.add(event.reader(), key, false)
        }

        pub(crate) fn remove(&self, socket: Borrowed<'_>) {
            let socket = socket.as_raw_fd();
            // It fails if it is not there, which is what is wanted.
            let _ = self.registry.deregister(&mut SourceFd(&socket));
        }
    }

    fn interest(writable: bool) -> Interest {
        if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;
    use std::time::Duration;

    use super::super::{Borrowed, Event};
    use super::Occurred;

    pub(crate) enum Poller {}
    pub(crate) enum Registry {}

    impl Poller {
        pub(crate) fn new() -> io::Result<(Poller, Registry)> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn occurred(&self) -> std::iter::Empty<Occurred> {
            match *self {}
        }
    }

    impl Registry {
        pub(crate) fn wake(&self) {
            match *self {}
        }

        pub(crate) fn add(&self, _: Borrowed<'_>, _: usize, _: bool) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn add_writable(&self, _: Borrowed<'_>, _: usize) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn add_listener(&self, _: Borrowed<'_>, _: usize) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn listen(&self, _: Borrowed<'_>, _: usize, _: bool) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn add_event(&self, _: &Event, _: usize) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn remove(&self, _: Borrowed<'_>) {
            match *self {}
        }
    }
}

pub(crate) use platform::{Poller, Registry};

/// A listener is told of for as long as somebody waits, so that not all need be accepted at once.
pub(crate) const LISTENERS_STAY_READY: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What a wait found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occurred {
    /// What the socket was added with.
    pub key: usize,
    pub readable: bool,
    pub writable: bool,
    /// The peer has ended its side, or the connection is over: it is to be read to the end.
    pub ended: bool,
}
