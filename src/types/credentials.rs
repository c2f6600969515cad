//! The credentials of a peer, and the attributes of a Unix socket's file.

/// The process at the other end of a Unix socket, as the kernel recorded it.
///
/// For an accepted connection it is the process that called connect(2), for a connecting socket the
/// process that called listen(2), each at the time of that call. That process may have passed the
/// socket to another process since then (unix(7), SO_PEERCRED).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use keepsock::{ClientSocket, ServerSocket};
/// let server = ServerSocket::listen("unix:@keepsock-credentials-example")?;
/// let client = ClientSocket::connect(server.endpoint())?;
/// let peer = server.accept()?.peer_credentials()?;
/// assert_eq!(peer.pid, Some(std::process::id()));
/// println!("user {} of group {}", peer.uid, peer.gid);
/// # }
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process ID. `None` where the system does not report it (FreeBSD before 13, DragonFly), and
    /// for a process in a PID namespace that this process cannot see.
    pub pid: Option<u32>,
    /// The effective user ID.
    pub uid: u32,
    /// The effective group ID.
    pub gid: u32,
}

/// The mode and owner that the file of a Unix socket gets. `None`: the system's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnixFile {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}
