//! The file of a Unix socket: replacing a stale file, and removing the file with the socket.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::SockRef;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::io::random::random;
#[cfg(feature = "activation")]
use crate::sys::Descriptor;
use crate::sys::sync::{Mutex, sleep};
use crate::sys::{self, Borrowed, Owned};
use crate::types::credentials::UnixFile;
use crate::types::error::Error;
use crate::types::escape::escaped;

/// The time for which a listen that found a stale file waits for another process that is replacing
/// the same file. A process does not wait while it holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time between two attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The file of a bound Unix socket. Dropping the value removes the file, unless another file has
/// replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<Identity>,
    /// Set if the socket was inherited: whether this process owns the file.
    ownership: Option<Arc<FileOwnership>>,
}

/// Whether this process owns the files of the sockets that a predecessor handed over, and removes
/// them. Until this process is ready, the predecessor may continue and owns them.
#[derive(Debug, Default)]
pub(crate) struct FileOwnership(Mutex<OwnershipState>);

#[derive(Debug, Default)]
struct OwnershipState {
    is_owner: bool,
    /// The files of sockets that this process closed before it owned the files.
    closed: Vec<(PathBuf, Identity)>,
}

impl FileOwnership {
    /// Whether the caller must remove a file now. Otherwise the file is recorded, and
    /// [`remove_closed`](FileOwnership::remove_closed) removes it.
    fn must_remove(&self, path: &Path, identity: Identity) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_owner {
            state.closed.push((path.to_owned(), identity));
        }
        state.is_owner
    }

    /// Sets whether this process owns the files.
    #[cfg(feature = "activation")]
    pub(crate) fn set_owner(&self, is_owner: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_owner = is_owner;
    }

    /// Removes the files that [`must_remove`](FileOwnership::must_remove) recorded.
    #[cfg(feature = "activation")]
    pub(crate) fn remove_closed(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::take(&mut state.closed);
        drop(state);
        for (path, identity) in closed {
            drop(SocketFile { path, identity: Some(identity), ownership: None });
        }
    }
}

/// The device and inode number of a file, which distinguish it from another file of the same name.
pub(crate) type Identity = (u64, u64);

#[cfg(unix)]
fn identity_of(metadata: &fs::Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(unix)]
fn owner_of(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

/// Whether only the owner of a file, the owner of the directory and root can remove the file.
#[cfg(unix)]
fn is_sticky(directory: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(directory) & 0o1000 != 0
}

#[cfg(not(unix))]
fn owner_of(_metadata: &fs::Metadata) -> u32 {
    0
}

#[cfg(not(unix))]
fn is_sticky(_directory: &fs::Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn identity_of(_metadata: &fs::Metadata) -> Option<Identity> {
    None
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = sys::call("statx", || fs::symlink_metadata(path));
    metadata.ok().and_then(|metadata| identity_of(&metadata))
}

#[cfg(unix)]
pub(crate) fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    sys::call("statx", || fs::symlink_metadata(path)).is_ok_and(|m| m.file_type().is_socket())
}

#[cfg(not(unix))]
pub(crate) fn is_socket(_path: &Path) -> bool {
    false
}

/// The error of binding to a path.
#[derive(Debug)]
pub(crate) struct NotBound {
    cause: io::Error,
    /// The reason, if it concerns the lock file or the file of the socket.
    detail: Option<String>,
}

impl NotBound {
    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let error = Error::os(operation, &self.cause);
        self.detail.into_iter().fold(error, Error::detail)
    }
}

impl From<io::Error> for NotBound {
    fn from(cause: io::Error) -> NotBound {
        NotBound { cause, detail: None }
    }
}

/// A lock for replacing the socket file of one path: a locked file `PATH.lock.NUMBER`, which only
/// its owner can open. It is removed with the lock. Other processes remove it if its process has
/// crashed.
///
/// Other users can create files of any name in a world-writable directory. So the number is random,
/// and in a sticky directory the lock files of users that could not replace the socket file are
/// ignored. Each process first locks its own file and then searches for others, so of two processes
/// at least one finds the other. A process that finds another lock file starts again. If the
/// directory cannot be listed, the lock file is `PATH.lock`.
struct Lock {
    path: PathBuf,
    file: fs::File,
}

/// A lock, or the path of a lock file that another process holds.
type Attempt = std::result::Result<std::result::Result<Lock, PathBuf>, NotBound>;

fn not_locked(path: &Path, cause: io::Error, what: &str) -> NotBound {
    NotBound { cause, detail: Some(format!("the lock file {} {what}", escaped(path))) }
}

impl Lock {
    fn take(socket: &Path) -> std::result::Result<Lock, NotBound> {
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            let held = match Lock::attempt(socket)? {
                Ok(lock) => return Ok(lock),
                Err(held) => held,
            };
            if Instant::now() >= until {
                let in_use = io::ErrorKind::AddrInUse.into();
                return Err(not_locked(&held, in_use, "is locked by another process"));
            }
            // The random delay lets one of several processes proceed.
            sleep(LOCK_RETRY.mul_f64(random() as f64 / u64::MAX as f64));
        }
    }

    fn attempt(socket: &Path) -> Attempt {
        let named = |rest: String| {
            let mut path = socket.as_os_str().to_owned();
            path.push(rest);
            PathBuf::from(path)
        };
        let own = named(format!(".lock.{:016x}", random()));
        let lock = match Lock::on(own, fs::OpenOptions::new().create_new(true))? {
            Ok(lock) => lock,
            Err(held) => return Ok(Err(held)),
        };
        match lock.others(socket) {
            Ok(None) => Ok(Ok(lock)),
            Ok(Some(held)) => Ok(Err(held)),
            Err(NotBound { cause, detail: None })
                if cause.kind() == io::ErrorKind::PermissionDenied =>
            {
                Lock::on(named(".lock".to_owned()), fs::OpenOptions::new().create(true))
            }
            Err(other) => Err(other),
        }
    }

    /// Locks one file.
    fn on(path: PathBuf, how: &mut fs::OpenOptions) -> Attempt {
        match sys::lock_file(&path, how) {
            // The previous holder of the lock may have removed this file.
            Ok(Some(file))
                if identity_of(&sys::call("statx", || file.metadata())?) == identity(&path) =>
            {
                Ok(Ok(Lock { path, file }))
            }
            Ok(_) => Ok(Err(path)),
            Err(e) if identity(&path).is_none() => Err(not_locked(&path, e, "cannot be created")),
            Err(e) => Err(not_locked(&path, e, "cannot be opened: remove it")),
        }
    }

    /// Returns the path of a lock file that another process holds, if that process may replace the
    /// socket file. Removes the lock files of processes that have crashed.
    fn others(&self, socket: &Path) -> std::result::Result<Option<PathBuf>, NotBound> {
        let dir = match socket.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut prefix = socket.file_name().unwrap_or_default().to_owned();
        prefix.push(".lock");
        let directory = sys::call("statx", || fs::metadata(dir))?;
        // The socket file is absent while another process replaces it.
        let stale = sys::call("statx", || fs::symlink_metadata(socket)).ok();
        let own = sys::call("statx", || self.file.metadata())?;
        let users = [0, owner_of(&directory), owner_of(&own)];
        let counts = |owner: u32| {
            !is_sticky(&directory)
                || users.contains(&owner)
                || stale.as_ref().is_some_and(|stale| owner_of(stale) == owner)
        };
        for entry in sys::call("openat", || fs::read_dir(dir))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = dir.join(&name);
            if !name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
                || Some(name.as_os_str()) == self.path.file_name()
            {
                continue;
            }
            match sys::call("statx", || fs::symlink_metadata(&path)) {
                Ok(found) if found.is_file() && counts(owner_of(&found)) => {}
                _ => continue,
            }
            match sys::lock_file(&path, &mut fs::OpenOptions::new()) {
                // The process that held the lock has crashed.
                Ok(Some(file)) => drop(Lock { path, file }),
                Ok(None) => return Ok(Some(path)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(not_locked(&path, e, "cannot be opened: remove it")),
            }
        }
        Ok(None)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A user may have removed the file. The lock is released with the descriptor, after this.
        let own = sys::call("statx", || self.file.metadata());
        if own.is_ok_and(|file| identity_of(&file) == identity(&self.path)) {
            let _ = sys::call("unlink", || fs::remove_file(&self.path));
        }
    }
}

/// Binds to a path. A stale socket file, to which no socket is bound, is replaced. Any other file
/// is kept, and the error is `AddrInUse`.
///
/// The file has its mode and owner before `listen` is called. Linux creates the file with the mode
/// of the socket, minus the umask. So the file never permits more than the final mode, which also
/// matters for datagrams: they are received as soon as bind(2) returns.
pub(crate) fn bind_and_listen(
    socket: Borrowed<'_>,
    name: &SockAddr,
    path: &Path,
    wanted: UnixFile,
    listen: impl FnOnce() -> io::Result<()>,
) -> std::result::Result<SocketFile, NotBound> {
    let changes_owner = wanted.uid.is_some() || wanted.gid.is_some();
    if let Some(mode) = wanted.mode {
        // Members of the initial group get no access.
        sys::narrow_socket(socket, if changes_owner { 0 } else { mode });
    }
    // bind(2) creates the file, and only a descriptor of the file identifies it for its removal.
    // Without a free descriptor the call fails before it creates the file.
    let reserve = sys::call("fcntl", || socket.try_clone_to_owned())?;
    // A free path needs no lock: bind(2) creates the file or fails.
    match SockRef::from(&socket).bind(name) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_stale(name, path)? => {
            let _lock = Lock::take(path)?;
            replace_stale(socket, name, path)?;
        }
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && is_other_file(path) => {
            let detail = "the path is a file that is not a socket: remove it, or use another path";
            return Err(NotBound { cause, detail: Some(detail.to_owned()) });
        }
        other => other?,
    }
    // The program may change its working directory before it closes the socket.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    drop(reserve);
    let own = match sys::socket_file_identity(socket, path) {
        // Another thread has taken the reserved descriptor. The file is stale, so that the next
        // socket of this path replaces it.
        Err(e) if sys::is_out_of_descriptors(&e) || sys::is_out_of_memory(&e) => {
            return Err(e.into());
        }
        known => known.ok(),
    };
    let file = SocketFile { path: absolute, identity: own, ownership: None };
    sys::set_socket_file(socket, path, wanted).map_err(|cause| {
        let detail = "unix_mode and unix_owner cannot be set on the file".to_owned();
        NotBound { cause, detail: Some(detail) }
    })?;
    listen()?;
    Ok(file)
}

/// Whether the path is a file of another kind.
fn is_other_file(path: &Path) -> bool {
    cfg!(unix) && sys::call("statx", || fs::symlink_metadata(path)).is_ok() && !is_socket(path)
}

/// Binds to a path whose socket file is stale, after checking that again. The caller holds the
/// [`Lock`].
///
/// Linux creates the file and connects it with its socket under the lock of the directory, which
/// each bind(2) acquires. So after a bind(2) has failed, a file that existed before it either
/// belongs to a socket or is stale.
fn replace_stale(socket: Borrowed<'_>, name: &SockAddr, path: &Path) -> io::Result<()> {
    let found = identity(path);
    match SockRef::from(&socket).bind(name) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if found.is_none() || !is_stale(name, path)? || identity(path) != found {
                return Err(e);
            }
            sys::call("unlink", || fs::remove_file(path))?;
            SockRef::from(&socket).bind(name)
        }
        other => other,
    }
}

/// Whether the path is a socket file to which no socket is bound.
fn is_stale(name: &SockAddr, path: &Path) -> io::Result<bool> {
    if !is_socket(path) {
        return Ok(false);
    }
    // A probe with a stream socket would report a server that does not listen yet as stale, and a
    // listening server would accept it. For a datagram socket the kernel reports a different socket
    // type (EPROTOTYPE) before it checks whether the other socket listens. ECONNREFUSED means that
    // no socket is bound.
    let probe = sys::call("socket", || Socket::new(Domain::UNIX, Type::DGRAM, None))?;
    Ok(SockRef::from(&probe)
        .connect(name)
        .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused))
}

/// Whether two paths lead to the same file.
#[cfg(feature = "activation")]
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    a == b
        || absolute(a).is_some_and(|a| Some(a) == absolute(b))
        || identity(a).is_some_and(|a| Some(a) == identity(b))
}

impl SocketFile {
    /// The file of a socket that a predecessor has handed over.
    #[cfg(feature = "activation")]
    pub(crate) fn inherited(
        path: PathBuf,
        identity: Identity,
        ownership: Arc<FileOwnership>,
    ) -> Self {
        SocketFile { path, identity: Some(identity), ownership: Some(ownership) }
    }

    /// The path and identity of the file, for the note to a successor.
    #[cfg(feature = "activation")]
    pub(crate) fn known(&self) -> Option<(&Path, Identity)> {
        self.identity.map(|identity| (self.path.as_path(), identity))
    }

    /// Whether the path leads to this file, and not to another file that has replaced it.
    #[cfg(feature = "activation")]
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && identity(path) == self.identity
    }

    /// Keeps the file, because another process has the socket.
    pub(crate) fn keep(mut self) {
        self.identity = None;
    }
}

/// A socket that another process or another part of the program created, and its file.
#[derive(Debug)]
pub(crate) struct InheritedSocket {
    /// Dropped first: a client that finds the file must find a listener.
    pub file: Option<SocketFile>,
    pub socket: Owned,
    /// The socket was created with port 0.
    pub ephemeral_port: bool,
}

/// The file of a Unix socket during a handover. The file is returned to its socket unless the
/// successor keeps it.
#[cfg(feature = "activation")]
pub(crate) struct SharedFile<'a> {
    place: &'a Mutex<Option<SocketFile>>,
    descriptor: &'a Descriptor,
    file: Option<SocketFile>,
}

#[cfg(feature = "activation")]
impl<'a> SharedFile<'a> {
    pub(crate) fn new(place: &'a Mutex<Option<SocketFile>>, descriptor: &'a Descriptor) -> Self {
        let file = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        SharedFile { place, descriptor, file }
    }

    pub(crate) fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }

    /// The successor owns the file from now on.
    pub(crate) fn keep(mut self) {
        if let Some(file) = self.file.take() {
            file.keep();
        }
    }
}

#[cfg(feature = "activation")]
impl Drop for SharedFile<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let own = || self.place.lock().unwrap_or_else(PoisonError::into_inner);
            *own() = Some(file);
            // If the socket was closed during the handover, the file must be removed.
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
        if self.ownership.as_ref().is_some_and(|owner| !owner.must_remove(&self.path, known)) {
            return;
        }
        // Its socket is still bound, so no server replaces the file now, and the file system does
        // not give its inode to another file.
        if identity(&self.path) == Some(known) {
            // A user may have removed the file.
            let _ = sys::call("unlink", || fs::remove_file(&self.path));
        }
    }
}
