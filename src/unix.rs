//! The file of a Unix socket: who may take it, and who removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef};

use crate::options::UnixFile;
use crate::sys::{self, Borrowed};

/// How long a listen that found a stale path waits for another process that is at
/// work in the same directory.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// The time in which a server that has bound its path has long begun to listen.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// How long a close waits for the lock before it leaves the file behind.
const CLOSE_PATIENCE: Duration = Duration::from_millis(20);

/// The file of a listening Unix socket, removed when this is dropped, unless
/// somebody has put another file in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<Identity>,
}

/// What tells a file from another of the same name.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<Identity> {
    None
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

#[cfg(not(unix))]
fn is_socket(_path: &Path) -> bool {
    false
}

/// Binds to a path. A socket file whose server is gone is replaced; one with a
/// live server, and any other file, is left alone: `AddrInUse`.
///
/// bind(2) makes the file before listen(2) answers on it, so a server that is
/// just starting looks stale. Two things keep it from being taken for that: the
/// lock on the directory, which a starting server holds if it can be had, and a
/// second look after a while.
///
/// The file has its mode and owner before `listen` is called. Linux makes it with the mode that
/// the socket has, less the umask: so it never allows more than it is to, not even to those who
/// send datagrams, which are taken from bind(2) on.
pub(crate) fn bind_and_listen(
    socket: Borrowed<'_>,
    name: &SockAddr,
    path: &Path,
    wanted: UnixFile,
    listen: impl FnOnce() -> io::Result<()>,
) -> io::Result<SocketFile> {
    let changes_owner = wanted.uid.is_some() || wanted.gid.is_some();
    if let Some(mode) = wanted.mode {
        // Nobody of a group that it is not to have.
        sys::narrow_socket(socket, if changes_owner { 0 } else { mode });
    }
    // A free path needs no lock: its directory may be one that only lets us
    // write, and anybody who can read it can hold the lock.
    let mut lock = sys::lock_directory(parent(path)).ok().flatten();
    match SockRef::from(&socket).bind(name) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_stale(name, path)? => {
            if lock.is_none() {
                lock = Some(wait_for_lock(parent(path), RECLAIM_PATIENCE)?);
            }
            let found = identity(path);
            std::thread::sleep(SECOND_LOOK);
            if !is_stale(name, path)? || identity(path) != found {
                return Err(e);
            }
            fs::remove_file(path)?;
            SockRef::from(&socket).bind(name)?;
        }
        other => other?,
    }
    // The program may change its directory before it closes.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = SocketFile { path: absolute, identity: identity(path) };
    let listening = sys::set_socket_file(path, wanted).and_then(|()| listen());
    // Before the file may be removed again, which takes the lock too.
    drop(lock);
    listening.map(|()| file)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn wait_for_lock(dir: &Path, patience: Duration) -> io::Result<fs::File> {
    let until = Instant::now() + patience;
    loop {
        match sys::lock_directory(dir)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= until => return Err(io::ErrorKind::AddrInUse.into()),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Whether the path is a socket that nobody answers.
fn is_stale(name: &SockAddr, path: &Path) -> io::Result<bool> {
    if !is_socket(path) {
        return Ok(false);
    }
    let probe = sys::stream_socket(Domain::UNIX, false)?;
    // ECONNREFUSED is the only answer of a dead socket. EAGAIN is that of a live
    // one with a full queue, EPROTOTYPE of a live one of another type.
    match sys::connect(sys::borrow(&probe), name) {
        Err(e) => Ok(e.kind() == io::ErrorKind::ConnectionRefused),
        Ok(_) => Ok(false),
    }
}

impl SocketFile {
    /// Leaves the file to whoever has the socket now.
    pub(crate) fn keep(mut self) {
        self.identity = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_none() {
            return;
        }
        // Without the lock the file stays: a stale file is reclaimed by the next
        // server, one that was removed under a new server by nobody.
        // A directory that cannot be opened is locked by nobody.
        let dir = parent(&self.path);
        let _lock = match sys::lock_directory(dir) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => match wait_for_lock(dir, CLOSE_PATIENCE) {
                Ok(lock) => Some(lock),
                Err(_) => return,
            },
            Err(_) => None,
        };
        if identity(&self.path) == self.identity {
            // It may have been removed by hand meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}
