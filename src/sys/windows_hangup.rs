//! Waiting for the end of a connection on Windows.
//!
//! WSAPoll reports a reset, but a FIN only together with readable data. The driver of sockets (AFD), on which
//! WSAPoll and select are built, reports a FIN by itself. libuv and mio use this request of the driver as well.

use std::io;
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle};
use std::ptr;
use std::time::Duration;

use windows_sys::Wdk::System::IO::NtDeviceIoControlFile;
use windows_sys::Win32::Foundation::{
    HANDLE, NTSTATUS, RtlNtStatusToDosError, STATUS_PENDING, WAIT_OBJECT_0,
};
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

use super::{Borrowed, Ready, check};

const IOCTL_AFD_POLL: u32 = 0x0001_2024;
const AFD_POLL_RECEIVE: u32 = 1;
/// The peer has sent FIN.
const AFD_POLL_DISCONNECT: u32 = 8;
/// The connection was reset, or the retries of the system have ended.
const AFD_POLL_ABORT: u32 = 0x10;
const AFD_POLL_LOCAL_CLOSE: u32 = 0x20;

/// AFD_POLL_HANDLE_INFO
#[repr(C)]
#[derive(Clone, Copy)]
struct PolledSocket {
    handle: usize,
    events: u32,
    status: NTSTATUS,
}

/// AFD_POLL_INFO
#[repr(C)]
struct PollRequest {
    /// In units of 100 ns. A negative number is a time from now.
    timeout: i64,
    count: u32,
    exclusive: u32,
    sockets: [PolledSocket; 2],
}

/// Waits until the connection has ended, in either direction of the peer, or `also` is readable.
pub(super) fn poll_hangup(
    socket: Borrowed<'_>,
    also: Option<Borrowed<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let polled = |socket, events| {
        io::Result::Ok(PolledSocket { handle: base_socket(socket)?, events, status: 0 })
    };
    let first = polled(socket, AFD_POLL_DISCONNECT | AFD_POLL_ABORT | AFD_POLL_LOCAL_CLOSE)?;
    let second = also.map(|also| polled(also, AFD_POLL_RECEIVE)).transpose()?;
    let units = |time: Duration| i64::try_from(time.as_nanos().div_ceil(100)).unwrap_or(i64::MAX);
    // The driver writes to both until it has completed the request. If the wait below fails, they are leaked.
    let mut pending = Box::new((
        PollRequest {
            timeout: timeout.map_or(i64::MAX, |time| -units(time)),
            count: 1 + u32::from(second.is_some()),
            exclusive: 0,
            sockets: [first, second.unwrap_or(first)],
        },
        IO_STATUS_BLOCK::default(),
    ));
    // SAFETY: no pointer is passed.
    let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is new.
    let event = unsafe { OwnedHandle::from_raw_handle(event) };
    let (out, size) = ((&raw mut pending.0).cast(), size_of::<PollRequest>() as u32);
    // SAFETY: the request and the status live until the driver has completed the request, or are leaked. The
    // driver reads and writes at most `size` bytes.
    let called = unsafe {
        NtDeviceIoControlFile(
            first.handle as HANDLE,
            event.as_raw_handle(),
            None,
            ptr::null(),
            &raw mut pending.1,
            IOCTL_AFD_POLL,
            out,
            size,
            out,
            size,
        )
    };
    let code = if called == STATUS_PENDING {
        // SAFETY: no pointer is passed.
        let waited = unsafe { WaitForSingleObject(event.as_raw_handle(), INFINITE) };
        if waited != WAIT_OBJECT_0 {
            let error = io::Error::last_os_error();
            Box::leak(pending);
            return Err(error);
        }
        // SAFETY: the driver has completed the request, so the union holds its status.
        unsafe { pending.1.Anonymous.Status }
    } else {
        called
    };
    if code < 0 {
        // SAFETY: no pointer is passed.
        let error = unsafe { RtlNtStatusToDosError(code) };
        return Err(io::Error::from_raw_os_error(error.cast_signed()));
    }
    let request = &pending.0;
    let reported = &request.sockets[..(request.count as usize).min(request.sockets.len())];
    let events = reported.iter().filter(|one| one.handle == first.handle);
    let events = events.fold(0, |events, one| events | one.events);
    Ok(Ready { socket: events != 0, error: events & AFD_POLL_ABORT != 0 })
}

/// The socket of the driver below a socket that another program has layered (SIO_BASE_HANDLE).
fn base_socket(socket: Borrowed<'_>) -> io::Result<usize> {
    let mut base: ws::SOCKET = 0;
    let mut returned = 0;
    // SAFETY: the system writes one SOCKET.
    check(unsafe {
        ws::WSAIoctl(
            socket.as_raw_socket() as ws::SOCKET,
            ws::SIO_BASE_HANDLE,
            ptr::null(),
            0,
            (&raw mut base).cast(),
            size_of::<ws::SOCKET>() as u32,
            &raw mut returned,
            ptr::null_mut(),
            None,
        )
    })?;
    Ok(base)
}

#[cfg(test)]
// Clippy permits unwrap in test functions, and not in the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::windows::io::AsSocket;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn polled(socket: &TcpStream, ms: u64) -> (bool, bool) {
        let ready = poll_hangup(socket.as_socket(), None, Some(Duration::from_millis(ms))).unwrap();
        (ready.socket, ready.error)
    }

    /// I4: data is no hang-up. FIN and RST are, and are distinguished. Wine reports a FIN after the data
    /// before it was read.
    #[test]
    fn poll_hangup_distinguishes_data_fin_and_reset() {
        let (mut client, mut peer) = pair();
        assert_eq!(polled(&client, 0), (false, false));
        peer.write_all(b"data").unwrap();
        assert_eq!(polled(&client, 30), (false, false));
        client.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(polled(&client, 0), (false, false));
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(polled(&client, 10_000), (true, false));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);

        let (client, peer) = pair();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(polled(&client, 10_000), (true, true));
    }

    /// T2: another socket ends the wait.
    #[test]
    fn poll_hangup_ends_when_the_other_socket_is_readable() {
        let (client, _peer) = pair();
        let event = UdpSocket::bind("127.0.0.1:0").unwrap();
        let setter = UdpSocket::bind("127.0.0.1:0").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                setter.send_to(b"x", event.local_addr().unwrap()).unwrap();
            });
            let waited = poll_hangup(client.as_socket(), Some(event.as_socket()), None).unwrap();
            assert!(!waited.socket && !waited.error);
        });
    }
}
