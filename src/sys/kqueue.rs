//! Waits through kqueue(2), which macOS and the BSDs have: one descriptor for many, and the end of a
//! connection.
//!
//! A queue that is polled is readable while it has an event. The functions here make a queue for one
//! purpose; mio has its own for event loops.

use std::ffi::c_int;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::errno::check_int;
use super::{Borrowed, Event};
use crate::sys::{fork, kernel};

/// The flags of a kevent, as wide as each system has them.
const ADD: u32 = libc::EV_ADD as u32;
const DELETE: u32 = libc::EV_DELETE as u32;
const ONESHOT: u32 = libc::EV_ONESHOT as u32;

/// A filter for a descriptor, or for a timer.
fn change(ident: RawFd, filter: i32, flags: u32, data: i32) -> libc::kevent {
    // SAFETY: a kevent consists of integers and a pointer; all zeros are valid.
    let mut change: libc::kevent = unsafe { mem::zeroed() };
    change.ident = ident as _;
    change.filter = filter as _;
    change.flags = flags as _;
    change.data = data as _;
    change
}

const READ: i32 = libc::EVFILT_READ as i32;
const WRITE: i32 = libc::EVFILT_WRITE as i32;
const TIMER: i32 = libc::EVFILT_TIMER as i32;

/// A child of fork(2) does not inherit a queue. The number is free there, or that of another file.
#[derive(Debug)]
struct Queue(ManuallyDrop<OwnedFd>, u32);

impl Drop for Queue {
    fn drop(&mut self) {
        if !fork::is_inherited(self.1) {
            // SAFETY: this process made it, and it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl Queue {
    /// A program that exec(2) starts must not have the queue.
    fn new() -> io::Result<Queue> {
        // SAFETY: the call takes no pointer, and returns a new descriptor that only this function
        // owns.
        let queue = unsafe { OwnedFd::from_raw_fd(check_int(kernel::kqueue())?) };
        // SAFETY: F_SETFD takes no pointer.
        check_int(unsafe { kernel::fcntl(queue.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
        Ok(Queue(ManuallyDrop::new(queue), fork::birth()))
    }

    /// Applies the changes, and then waits for events if there is space for them.
    fn call(
        &self,
        changes: &[libc::kevent],
        events: &mut [libc::kevent],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let time = timeout.map(|time| {
            // SAFETY: timespec consists of integers.
            let mut spec: libc::timespec = unsafe { mem::zeroed() };
            spec.tv_sec = time.as_secs().try_into().unwrap_or(i32::MAX.into());
            spec.tv_nsec = time.subsec_nanos() as _;
            spec
        });
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the slices hold that many kevents, and the time outlives the call.
        let count = check_int(unsafe {
            kernel::kevent(
                self.0.as_raw_fd(),
                changes.as_ptr(),
                changes.len() as _,
                events.as_mut_ptr(),
                events.len() as _,
                time,
            )
        })?;
        Ok(usize::try_from(count).unwrap_or(0).min(events.len()))
    }

    fn change(&self, change: libc::kevent) -> io::Result<()> {
        self.call(&[change], &mut [], Some(Duration::ZERO)).map(drop)
    }

    fn delete(&self, ident: RawFd, filter: i32) {
        // Fails if it was not added.
        let _ = self.change(change(ident, filter, DELETE, 0));
    }

    /// Adds a filter. Deleting it first removes an earlier event from the queue: some systems keep an
    /// event whose cause has passed, and the queue would stay readable.
    fn renew(&self, ident: RawFd, filter: i32, flags: u32, data: i32) -> io::Result<()> {
        self.delete(ident, filter);
        self.change(change(ident, filter, ADD | flags, data))
    }
}

/// One descriptor for many: a queue. The program polls it and takes no event from it.
#[derive(Debug)]
pub(crate) struct Wakeup(Queue);

/// The number of the only timer.
const TIMER_ID: RawFd = 0;

impl Wakeup {
    pub(crate) fn new() -> io::Result<Wakeup> {
        Queue::new().map(Wakeup)
    }

    pub(crate) fn add_writable(&self, socket: Borrowed<'_>) -> io::Result<()> {
        self.0.renew(socket.as_raw_fd(), WRITE, 0, 0)
    }

    pub(crate) fn add_event(&self, event: &Event) -> io::Result<()> {
        self.0.renew(event.reader().as_raw_fd(), READ, 0, 0)
    }

    pub(crate) fn remove_event(&self, event: &Event) {
        self.0.delete(event.reader().as_raw_fd(), READ);
    }

    /// Removes a socket before it is closed.
    pub(crate) fn remove(&self, socket: Borrowed<'_>) {
        self.0.delete(socket.as_raw_fd(), WRITE);
    }

    /// Becomes readable after this time; `None` disarms the timer. The unit of the filter is the
    /// millisecond on every system.
    pub(crate) fn set_timer(&self, time: Option<Duration>) -> io::Result<()> {
        match time {
            None => {
                self.0.delete(TIMER_ID, TIMER);
                Ok(())
            }
            Some(time) => self.0.renew(TIMER_ID, TIMER, ONESHOT, timer_ms(time)),
        }
    }

    pub(crate) fn descriptor(&self) -> Borrowed<'_> {
        self.0.0.as_fd()
    }
}

/// The data of a timer. Some systems reject 0.
fn timer_ms(time: Duration) -> c_int {
    super::poll_ms(Some(time)).max(1)
}

/// The end of a connection, where poll(2) has no event for it. FreeBSD has POLLRDHUP.
#[cfg(not(target_os = "freebsd"))]
pub(super) mod hangup {
    use std::time::Instant;

    use super::*;
    use crate::sys::Ready;

    const CLEAR: u32 = libc::EV_CLEAR as u32;
    const EOF: u32 = libc::EV_EOF as u32;
    const ERROR: u32 = libc::EV_ERROR as u32;

    /// Both filters of a socket, or one filter of a socket and one of an event.
    const EVENTS: usize = 2;

    /// Waits until the connection has ended or holds an error, the event is set, or the time has passed.
    /// The filter reports arriving data as well, once for each arrival (EV_CLEAR), and the wait then
    /// continues.
    pub(in crate::sys) fn wait_hangup(
        socket: Borrowed<'_>,
        event: Option<&Event>,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let left = || until.map(|until| until.saturating_duration_since(Instant::now()));
        let queue = Queue::new()?;
        let (socket, event) = (socket.as_raw_fd(), event.map(|event| event.reader().as_raw_fd()));
        queue.change(change(socket, READ, ADD | CLEAR, 0))?;
        if let Some(event) = event {
            queue.change(change(event, READ, ADD, 0))?;
        }
        loop {
            // SAFETY: a kevent consists of integers and a pointer; all zeros are valid.
            let mut events: [libc::kevent; EVENTS] = unsafe { mem::zeroed() };
            let count = queue.call(&[], &mut events, left())?;
            let found = &events[..count];
            let of = |fd: RawFd| found.iter().find(|found| found.ident as u64 == fd as u64);
            if let Some(found) = of(socket).filter(|found| found.flags as u32 & (EOF | ERROR) != 0)
            {
                // With EV_EOF the system sets fflags to the error of the socket.
                return Ok(Ready { socket: true, error: found.fflags != 0 });
            }
            if count == 0 || event.and_then(of).is_some() {
                return Ok(Ready::default());
            }
        }
    }

    /// Whether a stream has ended in both directions.
    pub(in crate::sys) fn is_hung_up(socket: Borrowed<'_>) -> io::Result<bool> {
        let queue = Queue::new()?;
        for filter in [READ, WRITE] {
            queue.change(change(socket.as_raw_fd(), filter, ADD, 0))?;
        }
        // SAFETY: a kevent consists of integers and a pointer; all zeros are valid.
        let mut events: [libc::kevent; EVENTS] = unsafe { mem::zeroed() };
        let count = queue.call(&[], &mut events, Some(Duration::ZERO))?;
        Ok(count == EVENTS && events.iter().all(|event| event.flags as u32 & EOF != 0))
    }
}
