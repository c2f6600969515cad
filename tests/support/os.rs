//! Sockets and files in the forms that the operating system has for them, by the names of Unix.

#[cfg(unix)]
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
#[cfg(windows)]
pub use windows::*;

#[cfg(unix)]
pub use std::os::unix;

/// The value of a descriptor variable before a call sets it.
#[cfg(unix)]
pub const NO_FD: RawFd = -1;
#[cfg(windows)]
pub const NO_FD: RawFd = usize::MAX;

/// Unix sockets and modes of files. A test that needs them is skipped.
#[cfg(windows)]
pub mod unix {
    pub mod fs {
        pub trait PermissionsExt: Sized {
            fn from_mode(_: u32) -> Self {
                crate::support::skip("files have no modes on Windows")
            }
        }

        impl PermissionsExt for std::fs::Permissions {}
    }

    pub mod net {
        use std::net::{TcpListener, TcpStream, UdpSocket};
        use std::path::Path;

        use crate::support::skip;

        const WHY: &str = "the standard library has no Unix sockets on Windows";

        pub struct UnixListener;
        pub struct UnixStream;

        impl UnixListener {
            pub fn bind(_: impl AsRef<Path>) -> std::io::Result<TcpListener> {
                skip(WHY)
            }
        }

        impl UnixStream {
            pub fn connect(_: impl AsRef<Path>) -> std::io::Result<TcpStream> {
                skip(WHY)
            }

            pub fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
                skip(WHY)
            }
        }

        #[cfg(feature = "datagram")]
        pub struct UnixDatagram;

        #[cfg(feature = "datagram")]
        impl UnixDatagram {
            pub fn unbound() -> std::io::Result<UdpSocket> {
                skip(WHY)
            }

            pub fn pair() -> std::io::Result<(UdpSocket, UdpSocket)> {
                skip(WHY)
            }
        }
    }
}

#[cfg(windows)]
mod windows {
    // A socket from its number.
    #![allow(unsafe_code)]

    use std::os::windows::io::{
        AsRawHandle, AsRawSocket, AsSocket, FromRawSocket, IntoRawSocket, RawSocket,
    };
    pub use std::os::windows::io::{BorrowedSocket as BorrowedFd, OwnedSocket as OwnedFd};

    /// A SOCKET, or the HANDLE of a file: `keepsock_fd`.
    pub type RawFd = usize;

    pub trait AsRawFd {
        fn as_raw_fd(&self) -> RawFd;
    }

    macro_rules! of_sockets {
        ($($socket:ty),*) => {
            $(impl AsRawFd for $socket {
                fn as_raw_fd(&self) -> RawFd {
                    self.as_raw_socket() as RawFd
                }
            })*
        };
    }

    of_sockets!(
        std::net::TcpStream,
        std::net::TcpListener,
        std::net::UdpSocket,
        socket2::Socket,
        OwnedFd,
        BorrowedFd<'_>
    );

    impl AsRawFd for std::fs::File {
        fn as_raw_fd(&self) -> RawFd {
            self.as_raw_handle() as RawFd
        }
    }

    pub trait AsFd {
        fn as_fd(&self) -> BorrowedFd<'_>;
    }

    impl<T: AsSocket> AsFd for T {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.as_socket()
        }
    }

    pub trait FromRawFd {
        /// # Safety
        ///
        /// The socket is open, and the result owns it.
        unsafe fn from_raw_fd(fd: RawFd) -> Self;
    }

    impl<T: FromRawSocket> FromRawFd for T {
        unsafe fn from_raw_fd(fd: RawFd) -> T {
            // SAFETY: as the caller guarantees.
            unsafe { T::from_raw_socket(fd as RawSocket) }
        }
    }

    pub trait IntoRawFd {
        fn into_raw_fd(self) -> RawFd;
    }

    impl<T: IntoRawSocket> IntoRawFd for T {
        fn into_raw_fd(self) -> RawFd {
            self.into_raw_socket() as RawFd
        }
    }
}
