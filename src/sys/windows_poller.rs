//! Readiness of many sockets on Windows, for event-driven serving, on top of the polling crate.
//!
//! Why polling: mio must own its sockets on Windows. The polling crate takes the sockets of the library.
//! It requests events from the socket driver (AFD), which reports them to a completion port. A request
//! is level-triggered and ends with its first report, so the user of the poller
//! [rearms](Registry::rearm) the socket when it has handled the report.

use std::io;
use std::num::NonZeroUsize;
use std::os::windows::io::AsRawSocket;
use std::sync::Arc;
use std::time::Duration;

use polling::{Event as Polled, Events, PollMode};

#[cfg(feature = "serve")]
use super::Event;
use super::sync::atomic::{AtomicBool, Ordering};
use super::{Borrowed, Occurred, kernel};

/// The loop's half: waiting.
pub(crate) struct Poller {
    shared: Arc<Shared>,
    events: Events,
}

/// The half that every thread may use: registration and waking.
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    poller: polling::Poller,
    /// The loop waits, or will look at the changes of registrations before it waits.
    is_waiting: AtomicBool,
}

/// The number of events per wait.
const EVENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

impl Poller {
    pub(crate) fn new() -> io::Result<(Poller, Registry)> {
        let poller = kernel::call("CreateIoCompletionPort", polling::Poller::new)?;
        let shared = Arc::new(Shared { poller, is_waiting: AtomicBool::new(false) });
        let poller = Poller { shared: shared.clone(), events: Events::with_capacity(EVENTS) };
        Ok((poller, Registry(shared)))
    }

    /// Waits for an event, or until the timeout expires.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.events.clear();
        self.shared.is_waiting.store(true, Ordering::SeqCst);
        let (poller, events) = (&self.shared.poller, &mut self.events);
        let waited = kernel::call("GetQueuedCompletionStatusEx", || poller.wait(events, timeout));
        self.shared.is_waiting.store(false, Ordering::SeqCst);
        waited.map(drop)
    }

    /// The events of the last wait. A wake-up adds none.
    pub(crate) fn occurred(&self) -> impl Iterator<Item = Occurred> {
        self.events.iter().map(|e| {
            #[cfg(feature = "serve")]
            let failed = e.is_interrupt() || e.is_err() == Some(true);
            Occurred {
                key: e.key,
                #[cfg(feature = "serve")]
                readable: e.readable || failed,
                #[cfg(feature = "serve")]
                writable: e.writable,
                #[cfg(feature = "serve")]
                ended: failed,
                #[cfg(feature = "serve")]
                failed,
                // AFD reports FIN as readable, and no receive states that it has emptied the socket.
                #[cfg(feature = "serve")]
                short: true,
            }
        })
    }
}

impl Registry {
    /// Wakes the current wait, or the next one, from any thread.
    pub(crate) fn wake(&self) {
        // Fails only when the system lacks memory; the loop then notices at its next wait.
        let _ = kernel::call("PostQueuedCompletionStatus", || self.0.poller.notify());
    }

    fn add_as(&self, socket: Borrowed<'_>, interest: Polled, mode: PollMode) -> io::Result<()> {
        let socket = socket.as_raw_socket();
        // SAFETY: the crate requires that the socket is removed before it is closed: every owner of a
        // registered socket calls `remove` before it closes the socket. The only exceptions are events
        // whose poller is no longer waited for.
        let added = kernel::call("NtDeviceIoControlFile", || unsafe {
            self.0.poller.add_with_mode(socket, interest, mode)
        });
        added.map(|()| self.changed())
    }

    /// Reports once when data arrives; with `writable` also when the send buffer has space. Reports
    /// again after [`rearm`](Registry::rearm). [`remove`](Registry::remove) must precede a close.
    pub(crate) fn add(&self, socket: Borrowed<'_>, key: usize, writable: bool) -> io::Result<()> {
        self.add_as(socket, interest(key, true, writable), PollMode::Oneshot)
    }

    /// Reports once more: when the socket is readable or writable, as requested, or has failed. An
    /// earlier request ends.
    pub(crate) fn rearm(
        &self,
        socket: Borrowed<'_>,
        key: usize,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        self.modify(socket, interest(key, readable, writable), PollMode::Oneshot)
    }

    fn modify(&self, socket: Borrowed<'_>, interest: Polled, mode: PollMode) -> io::Result<()> {
        let modified = kernel::call("NtDeviceIoControlFile", || {
            self.0.poller.modify_with_mode(socket, interest, mode)
        });
        modified.map(|()| self.changed())
    }

    /// Lets a waiting loop apply the change of a registration. The crate applies it at once if it has
    /// seen that the loop waits, and otherwise before the next wait. A loop that begins to wait between
    /// both would not see the change.
    fn changed(&self) {
        if self.0.is_waiting.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Ends the reports of a socket. Must precede a close, because the next socket may get the same
    /// number.
    pub(crate) fn remove(&self, socket: Borrowed<'_>) {
        // Fails if the socket is not registered, which is the desired state.
        let _ = kernel::call("NtCancelIoFileEx", || self.0.poller.delete(socket));
    }
}

#[cfg(feature = "serve")]
impl Registry {
    /// Also reports space in the send buffer, once.
    pub(crate) fn add_writable(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
        self.rearm(socket, key, true, true)
    }

    /// Reports while connections wait.
    pub(crate) fn add_listener(&self, socket: Borrowed<'_>, key: usize) -> io::Result<()> {
        self.add_as(socket, Polled::readable(key), PollMode::Level)
    }

    /// Pauses or resumes the reports of waiting connections.
    pub(crate) fn listen(&self, socket: Borrowed<'_>, key: usize, on: bool) -> io::Result<()> {
        let interest = if on { Polled::readable(key) } else { Polled::none(key) };
        self.modify(socket, interest, PollMode::Level)
    }

    /// Reports once when the event is set.
    pub(crate) fn add_event(&self, event: &Event, key: usize) -> io::Result<()> {
        self.add_as(event.reader(), Polled::readable(key), PollMode::Oneshot)
    }
}

/// A reset or another failure is always reported.
fn interest(key: usize, readable: bool, writable: bool) -> Polled {
    Polled::new(key, readable, writable).with_interrupt()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::windows::io::AsSocket;
    use std::time::Instant;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(20));
    const SHORT: Option<Duration> = Some(Duration::from_millis(30));

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        (accepted, client)
    }

    fn next(poller: &mut Poller, timeout: Option<Duration>) -> Vec<Occurred> {
        poller.wait(timeout).unwrap();
        poller.occurred().collect()
    }

    /// I7: a report ends the request; the next request reports bytes that are still there.
    #[test]
    fn report_ends_request_until_rearm() {
        let (mut poller, registry) = Poller::new().unwrap();
        let (mut a, mut b) = pair();
        registry.add(a.as_socket(), 7, false).unwrap();
        b.write_all(b"x").unwrap();
        let found = next(&mut poller, LONG);
        assert!(matches!(found[..], [Occurred { key: 7, .. }]), "{found:?}");
        assert_eq!(next(&mut poller, SHORT).len(), 0);
        registry.rearm(a.as_socket(), 7, true, false).unwrap();
        assert_eq!(next(&mut poller, LONG).len(), 1, "the byte is still there");
        a.read_exact(&mut [0]).unwrap();
        registry.rearm(a.as_socket(), 7, true, false).unwrap();
        assert_eq!(next(&mut poller, SHORT).len(), 0);
        drop(b);
        assert_eq!(next(&mut poller, LONG).len(), 1, "FIN");
        registry.remove(a.as_socket());
    }

    /// V8: a connection that the loop does not read reports a reset also behind a byte, and no bytes.
    #[cfg(feature = "serve")]
    #[test]
    fn unread_connection_reports_reset_alone() {
        let (mut poller, registry) = Poller::new().unwrap();
        let (a, mut b) = pair();
        registry.add(a.as_socket(), 7, false).unwrap();
        registry.rearm(a.as_socket(), 7, false, false).unwrap();
        b.write_all(b"x").unwrap();
        assert_eq!(next(&mut poller, SHORT).len(), 0);
        socket2::SockRef::from(&b).set_linger(Some(Duration::ZERO)).unwrap();
        drop(b);
        let found = next(&mut poller, LONG);
        assert!(matches!(found[..], [Occurred { key: 7, failed: true, .. }]), "{found:?}");
        registry.remove(a.as_socket());
    }

    /// V2: a request of another thread reaches a loop that waits, or that begins to wait.
    #[cfg(feature = "serve")]
    #[test]
    fn request_of_another_thread_reaches_waiting_loop() {
        let (mut poller, registry) = Poller::new().unwrap();
        let (a, _b) = pair();
        registry.add(a.as_socket(), 7, false).unwrap();
        for _ in 0..300 {
            std::thread::scope(|scope| {
                scope.spawn(|| registry.add_writable(a.as_socket(), 7).unwrap());
                let start = Instant::now();
                while !next(&mut poller, LONG).iter().any(|o| o.key == 7 && o.writable) {
                    assert!(start.elapsed() < Duration::from_secs(20), "not reported");
                }
            });
        }
        registry.remove(a.as_socket());
    }

    #[test]
    fn wake_ends_wait() {
        let (mut poller, registry) = Poller::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| registry.wake());
            let start = Instant::now();
            assert_eq!(next(&mut poller, Some(Duration::from_secs(60))).len(), 0);
            assert!(start.elapsed() < Duration::from_secs(50), "the wait was not ended");
        });
    }

    /// The next socket may get the number of a socket that was removed and closed.
    #[test]
    fn removed_socket_may_be_closed_and_its_number_used_again() {
        let (mut poller, registry) = Poller::new().unwrap();
        for key in 0..50 {
            let (a, mut b) = pair();
            registry.add(a.as_socket(), key, false).unwrap();
            b.write_all(b"x").unwrap();
            let found = next(&mut poller, LONG);
            assert!(found.iter().all(|o| o.key == key) && found.len() == 1, "{key}: {found:?}");
            registry.remove(a.as_socket());
        }
        assert_eq!(next(&mut poller, SHORT).len(), 0);
    }

    #[cfg(feature = "serve")]
    #[test]
    fn listener_is_reported_while_a_connection_waits() {
        let (mut poller, registry) = Poller::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        registry.add_listener(listener.as_socket(), 1).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(next(&mut poller, LONG).len(), 1);
        assert_eq!(next(&mut poller, LONG).len(), 1, "it still waits");
        registry.listen(listener.as_socket(), 1, false).unwrap();
        assert_eq!(next(&mut poller, SHORT).len(), 0, "paused");
        registry.listen(listener.as_socket(), 1, true).unwrap();
        assert_eq!(next(&mut poller, LONG).len(), 1);
        listener.accept().unwrap();
        next(&mut poller, SHORT);
        assert_eq!(next(&mut poller, SHORT).len(), 0);
        registry.remove(listener.as_socket());
    }

    /// T2: an event is reported once each time it is set.
    #[cfg(feature = "serve")]
    #[test]
    fn event_is_reported_when_set() {
        let (mut poller, registry) = Poller::new().unwrap();
        let event = Event::new().unwrap();
        registry.add_event(&event, 3).unwrap();
        assert_eq!(next(&mut poller, SHORT).len(), 0);
        event.set();
        assert_eq!(next(&mut poller, LONG)[0].key, 3);
        registry.remove(event.reader());
    }
}
