//! The calls that only Linux has for several datagrams, and the options that only Linux has, on other
//! systems.

use std::io;

use super::{Buffers, MAX_BATCH, Memory, Reported, Run, recv_datagram, send_datagram};
use crate::sys::{Borrowed, Received, Wait};

/// Whether an interface has this index.
pub(crate) fn has_interface(_socket: Borrowed<'_>, index: u32) -> bool {
    crate::sys::zone_index(&index.to_string()).is_some()
}

/// Sends runs in order, and returns how many were sent. An error is the error of the first run.
pub(crate) fn send_datagrams(
    socket: Borrowed<'_>,
    ipv6: bool,
    runs: &[Run<'_>],
    wait: Wait,
) -> io::Result<usize> {
    for (sent, run) in runs.iter().enumerate() {
        match send_datagram(socket, ipv6, run, wait) {
            Err(_) if sent > 0 => return Ok(sent),
            other => other?,
        }
    }
    Ok(runs.len())
}

/// Receives the waiting datagrams, one per buffer and at most [`MAX_BATCH`], and returns their number.
/// Waits for the first one only. `told` receives each datagram with its index. `control` is the same as
/// in [`recv_datagram`].
pub(crate) fn recv_datagrams<B: Buffers + ?Sized>(
    socket: Borrowed<'_>,
    bufs: &mut B,
    control: usize,
    wait: Wait,
    mut told: impl FnMut(&mut B, usize, &mut Received),
) -> io::Result<usize> {
    let count = bufs.count().min(MAX_BATCH);
    for at in 0..count {
        let wait = if at == 0 { wait } else { Wait::No };
        let mut received = Received::default();
        match recv_datagram(socket, bufs.buffer(at), control, false, wait, &mut received) {
            Ok(()) => told(bufs, at, &mut received),
            Err(_) if at > 0 => return Ok(at),
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// These systems have no error queue.
pub(crate) fn next_reported(_: Borrowed<'_>) -> io::Result<Option<Reported>> {
    Err(io::ErrorKind::WouldBlock.into())
}

pub(crate) fn want_sender(_: Borrowed<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn memory(_: Borrowed<'_>) -> Memory {
    Memory::default()
}
