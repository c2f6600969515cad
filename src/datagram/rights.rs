//! Descriptors beside datagrams, and whose these are: Unix sockets only.

use std::io::IoSlice;
use std::sync::atomic::Ordering;

use super::receive::{Destination, RECEIVE};
use super::send::SEND;
use super::{Datagram, DatagramSocket, Outgoing, Side, Unix};
use crate::client::Received;
use crate::error::{ErrorKind, Result};
use crate::info::Address;
use crate::sys::{self, Borrowed, Passed, RIGHTS_MAX};

impl Unix {
    /// Whether a sender is one of the users that may send here.
    pub(super) fn may_send(&self, uid: Option<u32>) -> bool {
        // Who cannot be told is nobody that is allowed.
        self.users.is_empty() || uid.is_some_and(|uid| self.users.contains(&uid))
    }
}

impl DatagramSocket {
    /// Sends one datagram, as [`send_to`](DatagramSocket::send_to) does, or to the peer of a
    /// connected socket (`None`), and with it descriptors: files, sockets
    /// ([`borrow`](crate::ServerSocket::borrow)), pipes. The receiver gets descriptors of its own
    /// for them, and this process keeps its own. Unix sockets only.
    ///
    /// # Errors
    /// Those of [`send_to`](DatagramSocket::send_to);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for more than 253 descriptors (unix(7),
    /// SCM_MAX_FD); [`NoDescriptors`](ErrorKind::NoDescriptors): too many are on their way already;
    /// [`Unsupported`](ErrorKind::Unsupported) for UDP, and on Windows.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::DatagramSocket;
    /// # use std::os::fd::AsFd;
    /// let worker = DatagramSocket::bind("unix:@keepsock-send-rights-example")?;
    /// let client = DatagramSocket::connect(worker.endpoint())?;
    /// let file = std::fs::File::open("/dev/null").unwrap();
    /// client.send_with_descriptors(b"read it", None, &[file.as_fd()])?;
    /// let (datagram, received) = worker.recv_with_descriptors(&mut [0; 64], 1)?;
    /// assert_eq!((datagram.len, received.descriptors.len(), received.lost), (7, 1, false));
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn send_with_descriptors(
        &self,
        bytes: &[u8],
        to: Option<&Address>,
        descriptors: &[Borrowed<'_>],
    ) -> Result<()> {
        let failed = |cause| self.failed(SEND, cause, to);
        let io = self.enter(SEND)?;
        self.is_unix(SEND)?;
        if descriptors.len() > RIGHTS_MAX {
            let count = descriptors.len();
            let what = format!("{count} descriptors, and {RIGHTS_MAX} may go at once");
            return Err(failed(ErrorKind::InvalidArgument.into()).detail(what));
        }
        let one = Outgoing { to: to.cloned(), ..Outgoing::new(bytes) };
        let name = self.run(&one, &[IoSlice::new(bytes)])?.to;
        let call = |wait| {
            let name = name.as_ref();
            sys::send_with_rights(io.socket(), bytes, name, descriptors, wait).map(drop)
        };
        self.send_step(&io, self.deadline(&self.0.write_timeout), call).map_err(failed)
    }

    /// Receives one datagram, as [`recv`](DatagramSocket::recv) does, and at most `max` of the
    /// descriptors that came with it. They are close-on-exec, and are this process's own; others
    /// are closed, and told by [`lost`](Received::lost). Whoever receives without taking
    /// descriptors has them closed, so a sender cannot fill this process with those that it does
    /// not want. Unix sockets only.
    ///
    /// # Errors
    /// Those of [`recv`](DatagramSocket::recv);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a `max` above 253;
    /// [`Unsupported`](ErrorKind::Unsupported) for UDP, and on Windows.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use keepsock::{ClientSocket, DatagramSocket, ServerSocket, SocketOptions};
    /// # use std::os::fd::AsFd;
    /// # let worker = DatagramSocket::bind("unix:@keepsock-recv-rights-example")?;
    /// # let dispatcher = DatagramSocket::connect(worker.endpoint())?;
    /// # let server = ServerSocket::listen("127.0.0.1:0")?;
    /// # let visitor = ClientSocket::connect(server.endpoint())?;
    /// # dispatcher.send_with_descriptors(b"serve it", None, &[server.accept()?.borrow()?.as_fd()])?;
    /// let mut order = [0; 512];
    /// let (datagram, mut received) = worker.recv_with_descriptors(&mut order, 1)?;
    /// if let Some(socket) = received.descriptors.pop() {
    ///     let client = ClientSocket::from_owned(socket, &SocketOptions::new()).map_err(|(_, e)| e)?;
    ///     client.write_all(b"hello\n")?;
    /// }
    /// # }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn recv_with_descriptors(
        &self,
        buf: &mut [u8],
        max: usize,
    ) -> Result<(Datagram, Received)> {
        let failed = |cause| self.failed(RECEIVE, cause, None);
        let io = self.enter(RECEIVE)?;
        self.is_unix(RECEIVE)?;
        if max > RIGHTS_MAX {
            let what = format!("{max} descriptors, and {RIGHTS_MAX} may come at once");
            return Err(failed(ErrorKind::InvalidArgument.into()).detail(what));
        }
        let patience = self.patience(self.deadline(&self.0.read_timeout));
        let details = self.0.control.load(Ordering::Relaxed);
        loop {
            let mut passed = Passed::default();
            let call = |wait| {
                passed = sys::recv_with_rights(io.socket(), buf, max, details, wait)?;
                Ok(())
            };
            self.recv_step(&io, &patience, call).map_err(failed)?;
            let Passed { received, descriptors, lost } = passed;
            if self.is_over(&io, &received) {
                return Err(failed(ErrorKind::Closed.into()));
            }
            if let Some(facts) = self.facts(&received, &mut Destination::default()) {
                return Ok((facts.datagram(), Received { len: received.len, descriptors, lost }));
            }
            if patience.deadline.has_passed() {
                return Err(failed(ErrorKind::TimedOut.into()));
            }
        }
    }

    fn is_unix(&self, operation: &'static str) -> Result<()> {
        match &self.0.side {
            Side::Unix(_) => Ok(()),
            Side::Inet(_) => {
                let error = self.failed(operation, ErrorKind::Unsupported.into(), None);
                Err(error.detail("for Unix sockets only"))
            }
        }
    }
}
