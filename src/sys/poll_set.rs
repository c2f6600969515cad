//! One descriptor for many: readable when one of several sockets is ready, an event is set, or
//! a time has come. Linux: an epoll(7) that contains a timerfd(2). macOS and BSD: a
//! [`kqueue`](super::kqueue). It reports readiness and runs no loop.

#[cfg(keepsock_linux)]
mod platform {
    use std::io;
    use std::mem;
    use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
    use std::time::Duration;

    use super::super::errno::check_int;
    use super::super::{Borrowed, Event};
    use crate::sys::kernel;

    #[derive(Debug)]
    pub(crate) struct Wakeup {
        epoll: OwnedFd,
        timer: OwnedFd,
    }

    impl Wakeup {
        pub(crate) fn new() -> io::Result<Wakeup> {
            let clock = libc::CLOCK_MONOTONIC;
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            // SAFETY: both calls take no pointer, and return new descriptors that only this function
            // owns.
            let (epoll, timer) = unsafe {
                let epoll =
                    OwnedFd::from_raw_fd(check_int(kernel::epoll_create1(libc::EPOLL_CLOEXEC))?);
                (epoll, OwnedFd::from_raw_fd(check_int(kernel::timerfd_create(clock, flags))?))
            };
            let wakeup = Wakeup { epoll, timer };
            wakeup.add(wakeup.timer.as_fd(), libc::EPOLLIN)?;
            Ok(wakeup)
        }

        fn add(&self, what: Borrowed<'_>, events: libc::c_int) -> io::Result<()> {
            let mut event = libc::epoll_event { events: events as u32, u64: 0 };
            let (epoll, what) = (self.epoll.as_raw_fd(), what.as_raw_fd());
            // SAFETY: the kernel reads one epoll_event.
            let added = check_int(unsafe {
                kernel::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, what, &raw mut event)
            });
            match added {
                // Already registered.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                other => other.map(drop),
            }
        }

        pub(crate) fn add_writable(&self, socket: Borrowed<'_>) -> io::Result<()> {
            self.add(socket, libc::EPOLLOUT)
        }

        pub(crate) fn add_event(&self, event: &Event) -> io::Result<()> {
            self.add(event.reader(), libc::EPOLLIN)
        }

        pub(crate) fn remove_event(&self, event: &Event) {
            self.remove(event.reader());
        }

        /// Removes a socket before it is closed. The close alone does not remove it while a forked
        /// child has a copy.
        pub(crate) fn remove(&self, what: Borrowed<'_>) {
            let (epoll, what) = (self.epoll.as_raw_fd(), what.as_raw_fd());
            // Fails if the socket was not registered.
            // SAFETY: EPOLL_CTL_DEL reads no event.
            unsafe { kernel::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, what, std::ptr::null_mut()) };
        }

        /// Becomes readable after this time; `None` disarms the timer.
        pub(crate) fn set_timer(&self, time: Option<Duration>) -> io::Result<()> {
            // SAFETY: itimerspec consists of integers; all zeros disarm the timer.
            let mut spec: libc::itimerspec = unsafe { mem::zeroed() };
            if let Some(time) = time {
                spec.it_value.tv_sec = time.as_secs().try_into().unwrap_or(i32::MAX.into());
                // A time of zero would disarm the timer.
                // Fits in 32 bits, which is what c_long has on 32-bit systems.
                spec.it_value.tv_nsec = time.subsec_nanos().max(1) as libc::c_long;
            }
            let timer = self.timer.as_raw_fd();
            // SAFETY: the kernel reads one itimerspec.
            check_int(unsafe {
                kernel::timerfd_settime(timer, 0, &raw const spec, std::ptr::null_mut())
            })?;
            Ok(())
        }

        pub(crate) fn descriptor(&self) -> Borrowed<'_> {
            self.epoll.as_fd()
        }
    }
}

#[cfg(not(any(keepsock_linux, keepsock_kqueue)))]
mod platform {
    use std::io;
    use std::time::Duration;

    use super::super::{Borrowed, Event};

    /// Not supported on this platform.
    #[derive(Debug)]
    pub(crate) enum Wakeup {}

    impl Wakeup {
        pub(crate) fn new() -> io::Result<Wakeup> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn add_writable(&self, _socket: Borrowed<'_>) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn add_event(&self, _event: &Event) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn remove_event(&self, _event: &Event) {
            match *self {}
        }

        pub(crate) fn remove(&self, _socket: Borrowed<'_>) {
            match *self {}
        }

        pub(crate) fn set_timer(&self, _time: Option<Duration>) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn descriptor(&self) -> Borrowed<'_> {
            match *self {}
        }
    }
}

#[cfg(keepsock_kqueue)]
pub(crate) use super::kqueue::Wakeup;
#[cfg(not(keepsock_kqueue))]
pub(crate) use platform::Wakeup;
