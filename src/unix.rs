//! The file of a Unix socket: who may take it, and who removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef};

use crate::sys::{self, Borrowed};

/// How long a listen waits for another process that is reclaiming a path of the
/// same directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

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
/// just starting looks stale. The lock on the directory, held until `listen` has
/// been called, keeps two servers from seeing each other so.
pub(crate) fn bind_and_listen(
    socket: Borrowed<'_>,
    name: &SockAddr,
    path: &Path,
    listen: impl FnOnce() -> io::Result<()>,
) -> io::Result<SocketFile> {
    let lock = lock(parent(path))?;
    match SockRef::from(&socket).bind(name) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_stale(name, path)? => {
            fs::remove_file(path)?;
            SockRef::from(&socket).bind(name)?;
        }
        other => other?,
    }
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    listen()?;
    drop(lock);
    Ok(file)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock(dir: &Path) -> io::Result<fs::File> {
    let until = Instant::now() + LOCK_PATIENCE;
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
    let probe = sys::stream_socket(Domain::UNIX)?;
    // ECONNREFUSED is the only answer of a dead socket. EAGAIN is that of a live
    // one with a full queue, EPROTOTYPE of a live one of another type.
    match sys::connect(sys::borrow(&probe), name) {
        Err(e) => Ok(e.kind() == io::ErrorKind::ConnectionRefused),
        Ok(_) => Ok(false),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without the lock (its directory may be gone) the file stays: a stale
        // file is reclaimed by the next server, a stolen one by nobody.
        let Ok(_lock) = lock(parent(&self.path)) else {
            return;
        };
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // It may have been removed by hand meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}
