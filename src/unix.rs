//! The file of a Unix socket: who may take it, and who removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef};

use crate::options::UnixFile;
use crate::sys::{self, Borrowed, Descriptor, Owned};

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
    /// Of one that was inherited: whether it is this process's yet.
    ours: Option<Arc<Ours>>,
}

/// Whether the files of sockets that a predecessor has handed over are this process's to remove.
/// Until it has said that it is ready, the predecessor may go on.
#[derive(Debug, Default)]
pub(crate) struct Ours(Mutex<Claim>);

#[derive(Debug, Default)]
struct Claim {
    ours: bool,
    /// Those of sockets that this process has closed before the files were its own.
    closed: Vec<(PathBuf, Identity)>,
}

impl Ours {
    /// Whether a file is to be removed now; if not, it is remembered.
    fn removes(&self, path: &Path, identity: Identity) -> bool {
        let mut claim = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !claim.ours {
            claim.closed.push((path.to_owned(), identity));
        }
        claim.ours
    }

    /// They are, or after all they are not.
    pub(crate) fn set(&self, ours: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ours = ours;
    }

    /// Removes those that were remembered.
    pub(crate) fn remove_closed(&self) {
        let mut claim = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::take(&mut claim.closed);
        drop(claim);
        for (path, identity) in closed {
            drop(SocketFile { path, identity: Some(identity), ours: None });
        }
    }
}

/// What tells a file from another of the same name.
pub(crate) type Identity = (u64, u64);

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
pub(crate) fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

#[cfg(not(unix))]
pub(crate) fn is_socket(_path: &Path) -> bool {
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
    let file = SocketFile { path: absolute, identity: identity(path), ours: None };
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

/// Whether two paths are the same file.
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    a == b
        || absolute(a).is_some_and(|a| Some(a) == absolute(b))
        || identity(a).is_some_and(|a| Some(a) == identity(b))
}

impl SocketFile {
    /// The file of a socket that a predecessor has handed over.
    pub(crate) fn inherited(path: PathBuf, identity: Identity, ours: Arc<Ours>) -> Self {
        SocketFile { path, identity: Some(identity), ours: Some(ours) }
    }

    /// What a successor has to know of it.
    pub(crate) fn known(&self) -> Option<(&Path, Identity)> {
        self.identity.map(|identity| (self.path.as_path(), identity))
    }

    /// Whether the path leads to it, and not to another file that has its name now.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && identity(path) == self.identity
    }

    /// Leaves the file to whoever has the socket now.
    pub(crate) fn keep(mut self) {
        self.identity = None;
    }
}

/// A socket that somebody else made, and the file that goes with it.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// Dropped first: who finds the file must find somebody there.
    pub file: Option<SocketFile>,
    pub socket: Owned,
    /// It was asked for with port 0.
    pub any_port: bool,
}

/// The file of a Unix socket while the socket is handed over: given back unless it was kept.
pub(crate) struct Lent<'a> {
    place: &'a Mutex<Option<SocketFile>>,
    descriptor: &'a Descriptor,
    file: Option<SocketFile>,
}

impl<'a> Lent<'a> {
    pub(crate) fn new(place: &'a Mutex<Option<SocketFile>>, descriptor: &'a Descriptor) -> Self {
        let file = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        Lent { place, descriptor, file }
    }

    pub(crate) fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }

    /// It is somebody else's from now on.
    pub(crate) fn keep(mut self) {
        if let Some(file) = self.file.take() {
            file.keep();
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let own = || self.place.lock().unwrap_or_else(PoisonError::into_inner);
            *own() = Some(file);
            // Closed meanwhile: then it was to be removed.
            if self.descriptor.is_closed() {
                let file = own().take();
                drop(file);
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Some(known) = self.identity else {
            return;
        };
        if self.ours.as_ref().is_some_and(|ours| !ours.removes(&self.path, known)) {
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
        if identity(&self.path) == Some(known) {
            // It may have been removed by hand meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}
