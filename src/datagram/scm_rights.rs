//! Datagrams with descriptors, and their owners. Unix sockets only.

use std::io::IoSlice;

use super::recv::{Destination, RECEIVE};
use super::send::SEND;
use super::{Datagram, DatagramSocket, Outgoing, Side, Unix};
use crate::stream::Received;
use crate::sys::sync::atomic::Ordering;
use crate::sys::{self, Borrowed, Passed, RIGHTS_MAX};
use crate::types::address::Address;
use crate::types::error::{ErrorKind, Result};

impl Unix {
    /// Whether the sender is one of the allowed users.
    pub(super) fn may_send(&self, uid: Option<u32>) -> bool {
        // A sender without credentials is not allowed.
        self.users.is_empty() || uid.is_some_and(|uid| self.users.contains(&uid))
    }
}

impl DatagramSocket {
    /// Sends one datagram with descriptors: files, sockets ([`borrow`](crate::ServerSocket::borrow)),
    /// pipes. `to` is the destination; `None`: the peer of a connected socket.
    ///
    /// The receiver gets descriptors of its own, and this process keeps its own. Unix sockets only.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): more than 253 descriptors (unix(7),
    ///   SCM_MAX_FD), or a destination without a name
    /// - [`NoDescriptors`](ErrorKind::NoDescriptors): too many descriptors are in flight
    /// - [`Unsupported`](ErrorKind::Unsupported): a UDP socket, or Windows
    ///
    /// Otherwise the errors that [`send_to`](DatagramSocket::send_to) lists.
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
    /// assert_eq!((datagram.len, received.descriptors.len(), received.descriptors_truncated), (7, 1, false));
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
            let what =
                format!("{count} descriptors are too many: a message carries at most {RIGHTS_MAX}");
            return Err(failed(ErrorKind::InvalidArgument.into()).detail(what));
        }
        let one = Outgoing { to: to.cloned(), ..Outgoing::new(bytes) };
        let name = self.run(&one, &[IoSlice::new(bytes)])?.to;
        let call = |wait| {
            let name = name.as_ref();
            sys::send_with_rights(io.socket(), bytes, name, descriptors, wait).map(drop)
        };
        self.send_step(&io, self.0.write_timeout.deadline(), call).map_err(failed)
    }

    /// Receives one datagram, and at most `max` of the descriptors that it carries.
    ///
    /// The descriptors are close-on-exec, and belong to this process. Further descriptors are closed, and
    /// [`descriptors_truncated`](Received::descriptors_truncated) reports that. The other receiving functions close all descriptors, so a
    /// sender cannot fill this process with descriptors that it does not want. Unix sockets only.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `max` is above 253
    /// - [`Unsupported`](ErrorKind::Unsupported): a UDP socket, or Windows
    ///
    /// Otherwise the errors that [`recv`](DatagramSocket::recv) lists.
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
            let what =
                format!("{max} descriptors are too many: a message carries at most {RIGHTS_MAX}");
            return Err(failed(ErrorKind::InvalidArgument.into()).detail(what));
        }
        let mode = self.receive_mode();
        let control = self.0.control.load(Ordering::Relaxed);
        let mut skipped = 0;
        loop {
            let mut passed = Passed::default();
            let call = |wait| {
                passed = sys::recv_with_rights(io.socket(), buf, max, control, wait)?;
                Ok(())
            };
            self.recv_step(&io, &mode, call).map_err(failed)?;
            let Passed { mut received, descriptors, truncated } = passed;
            if self.is_over(&io, &received) {
                return Err(failed(ErrorKind::Closed.into()));
            }
            if let Some(facts) = self.facts(&mut received, &mut Destination::default()) {
                let len = facts.len;
                return Ok((
                    facts.datagram(),
                    Received { len, descriptors, descriptors_truncated: truncated },
                ));
            }
            drop(descriptors);
            mode.skip(&mut skipped, 1).map_err(failed)?;
        }
    }

    fn is_unix(&self, operation: &'static str) -> Result<()> {
        match &self.0.side {
            Side::Unix(_) => Ok(()),
            Side::Inet(_) => {
                let error = self.failed(operation, ErrorKind::Unsupported.into(), None);
                Err(error.detail("only Unix sockets pass descriptors"))
            }
        }
    }
}
