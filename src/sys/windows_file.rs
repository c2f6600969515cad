//! Sending files on Windows: TransmitFile.

use std::io;
use std::mem;
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Win32::Foundation::{HANDLE, WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_DISK, GetFileSizeEx};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

use super::sendfile::file_type;
use super::{Borrowed, FileRef, MAX_WAIT, poll_ms, shut_down_error};

/// TransmitFile: no call transfers more.
const MOST: u64 = 0x7fff_fffe;

/// Sends from files. It has at most one request in progress, which it cancels when it is dropped. Windows may
/// then reset the connection.
#[derive(Default)]
pub(crate) struct FileSender(Option<Request>);

/// A request in progress. The system writes to `overlapped` until the request has ended.
struct Request {
    socket: ws::SOCKET,
    event: OwnedHandle,
    overlapped: Box<OVERLAPPED>,
}

impl FileSender {
    pub(crate) fn new() -> FileSender {
        FileSender::default()
    }

    /// Sends from the file; returns 0 at the end of the file. "Would block" means that the request is in
    /// progress: the next call, with the same arguments, waits for its end.
    pub(crate) fn send(
        &mut self,
        socket: Borrowed<'_>,
        file: FileRef<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<usize> {
        let request = match self.0.take() {
            Some(request) => request,
            None => match Request::start(socket, file, offset, len)? {
                Some(request) => request,
                None => return Ok(0),
            },
        };
        // SAFETY: no memory is passed.
        let waited =
            unsafe { WaitForSingleObject(request.event.as_raw_handle(), poll_ms(MAX_WAIT) as u32) };
        match waited {
            WAIT_OBJECT_0 => {
                let (sent, result) = request.result();
                result.map(|()| sent).map_err(shut_down_error)
            }
            WAIT_TIMEOUT => {
                self.0 = Some(request);
                Err(io::ErrorKind::WouldBlock.into())
            }
            _ => {
                let error = io::Error::last_os_error();
                request.cancel();
                Err(error)
            }
        }
    }

    /// Ends a request in progress. Returns the number of bytes that it has sent.
    pub(crate) fn stop(&mut self) -> usize {
        self.0.take().map_or(0, Request::cancel)
    }
}

impl Drop for FileSender {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Request {
    /// Starts to send. `None`: there is nothing to send.
    fn start(
        socket: Borrowed<'_>,
        file: FileRef<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<Option<Request>> {
        let mut size = 0i64;
        // SAFETY: the system writes the size.
        if unsafe { GetFileSizeEx(file.as_raw_handle(), &raw mut size) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // A file without a size, such as one below /proc under Wine, may still have bytes.
        if size == 0 || file_type(file) != FILE_TYPE_DISK {
            return Err(io::Error::from_raw_os_error(ws::WSAEOPNOTSUPP));
        }
        // For the system, no bytes are all bytes to the end of the file.
        let count = size.cast_unsigned().saturating_sub(offset).min(len).min(MOST) as u32;
        if count == 0 {
            return Ok(None);
        }
        // SAFETY: no memory is passed.
        let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is new.
        let event = unsafe { OwnedHandle::from_raw_handle(event) };
        let mut overlapped = Box::new(OVERLAPPED::default());
        // The lowest bit keeps the result from a completion port that the program has attached to the socket.
        overlapped.hEvent = event.as_raw_handle().map_addr(|address| address | 1);
        overlapped.Anonymous.Anonymous.Offset = offset as u32;
        overlapped.Anonymous.Anonymous.OffsetHigh = (offset >> 32) as u32;
        let socket = socket.as_raw_socket() as ws::SOCKET;
        let mut request = Request { socket, event, overlapped };
        let (out, file) = (&raw mut *request.overlapped, file.as_raw_handle());
        // SAFETY: the request is kept until the system has ended it, or is leaked. The file is borrowed during
        // the call, and the system keeps it open until the end of the request.
        let called = unsafe { ws::TransmitFile(socket, file, count, 0, out, ptr::null(), 0) };
        if called == 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(ws::WSA_IO_PENDING) {
                return Err(shut_down_error(error));
            }
        }
        Ok(Some(request))
    }

    /// The number of bytes that were sent, and the result. The request has ended.
    fn result(self) -> (usize, io::Result<()>) {
        let (mut sent, mut flags) = (0, 0);
        // SAFETY: the request has ended, and the system writes the two numbers.
        let ended = unsafe {
            let request = &raw const *self.overlapped;
            ws::WSAGetOverlappedResult(self.socket, request, &raw mut sent, 0, &raw mut flags)
        };
        let result = if ended == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        (sent as usize, result)
    }

    /// Cancels the request, waits for its end, and returns the number of bytes that it has sent.
    fn cancel(self) -> usize {
        // SAFETY: the request is not freed. This fails if it has ended in the meantime.
        unsafe { CancelIoEx(self.socket as HANDLE, &raw const *self.overlapped) };
        // SAFETY: no memory is passed.
        let waited = unsafe { WaitForSingleObject(self.event.as_raw_handle(), INFINITE) };
        if waited != WAIT_OBJECT_0 {
            // The system may still write to the request.
            mem::forget(self.overlapped);
            return 0;
        }
        self.result().0
    }
}

#[cfg(test)]
// Clippy permits unwrap in test functions, and not in the functions that they call.
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::windows::fs::OpenOptionsExt;
    use std::os::windows::io::{AsHandle, AsSocket};
    use std::time::{Duration, Instant};

    use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_DELETE_ON_CLOSE;

    use super::super::is_unsupported;
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn file(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("keepsock-{name}-{}", std::process::id()));
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(true);
        let mut file = how.custom_flags(FILE_FLAG_DELETE_ON_CLOSE).open(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// I5: a part is sent as it is, up to the end of the file. Beyond the end there is nothing to send.
    #[test]
    fn send_ends_at_the_end_of_the_file() {
        let (client, mut peer) = pair();
        let file = file("end", b"0123456789");
        let mut sender = FileSender::new();
        let mut send = |offset, len| loop {
            match sender.send(client.as_socket(), file.as_handle(), offset, len) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.unwrap(),
            }
        };
        assert_eq!(send(2, 3), 3);
        assert_eq!(send(7, u64::MAX), 3);
        assert_eq!([send(10, 1), send(11, u64::MAX), send(0, 0)], [0; 3]);
        let mut received = [0; 6];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"234789");
    }

    /// I5: a request that is cancelled reports the bytes that it has sent. Wine keeps the connection.
    #[test]
    fn stop_returns_the_number_of_sent_bytes() {
        let (client, mut peer) = pair();
        let bytes: Vec<u8> = (0..=250).cycle().take(16 << 20).collect();
        let file = file("stop", &bytes);
        let mut sender = FileSender::new();
        for _ in 0..3 {
            // The peer does not read.
            let sent = sender.send(client.as_socket(), file.as_handle(), 0, u64::MAX);
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        let start = Instant::now();
        let sent = sender.stop();
        assert!(start.elapsed() < Duration::from_secs(30), "the request did not end");
        assert!(sent > 0 && sent < bytes.len(), "{sent}");
        assert_eq!(sender.stop(), 0, "no request is left");
        let mut received = vec![0; sent];
        peer.read_exact(&mut received).unwrap();
        assert!(received == bytes[..sent]);
    }

    /// I5: a file without a size is read, and a pipe is rejected when it is read.
    #[test]
    fn send_of_a_pipe_or_an_empty_file_is_not_supported() {
        let (client, _peer) = pair();
        let mut command = std::process::Command::new("cmd");
        command.args(["/c", "exit"]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let mut sender = FileSender::new();
        let empty = file("empty", b"");
        for file in [pipe.as_handle(), empty.as_handle()] {
            let failed = sender.send(client.as_socket(), file, 0, 5).unwrap_err();
            assert!(is_unsupported(&failed), "{failed}");
        }
        child.wait().unwrap();
    }
}
