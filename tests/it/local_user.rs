//! Attacks of another local user on the sockets of a server that runs as root (L5, D4). Each test needs
//! root, and starts a process of a user without rights.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "datagram")]
use crate::support::Datagrams;
use crate::support::system::{STRANGER, as_stranger, busy_stranger};
use crate::support::{
    Api, Opt, Outcome, Server, TempDir, eventually, fails, limits, process, promptly, system, timed,
};
use keepsock::ErrorKind;

both_apis![
    socket_in_a_sticky_directory_withstands_another_user,
    files_of_another_user_at_the_path_are_not_followed,
    path_that_another_user_replaces_all_the_time_harms_no_other_file,
    link_above_the_path_replaced_after_bind_changes_no_other_socket,
    file_replaced_after_bind_is_not_changed,
    #[cfg(feature = "datagram")] {
        socket_of_mode_0600_is_closed_to_another_user,
    }
];

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the test in a process of its own, as root.
fn as_root(test: &str, body: impl FnOnce()) {
    process::in_process(test, LIMIT, || {
        if !system::is_root() {
            process::cannot("only root can start a process of another user");
        }
        system::set_umask(0o022);
        body();
    });
}

/// Creates a directory with an owner and a mode.
fn directory(path: &Path, owner: u32, mode: u32) {
    std::fs::create_dir(path).unwrap();
    chown(path, Some(owner), None).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    let file = std::fs::symlink_metadata(path).unwrap();
    (file.mode() & 0o7777, file.uid(), file.gid())
}

fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

/// A server answers a client.
fn answers<A: Api>(server: &A::Server, path: &Path) {
    let _client = UnixStream::connect(path).unwrap();
    server.set_accept_timeout(30_000).unwrap();
    server.accept().unwrap();
}

/// L5: in a sticky directory another user can neither remove nor replace the socket file, live or stale,
/// not with this library either, and the locks of that user delay no server.
fn socket_in_a_sticky_directory_withstands_another_user<A: Api>() {
    as_root(&test_name!(A, "socket_in_a_sticky_directory_withstands_another_user"), || {
        let dir = TempDir::new();
        directory(&dir.path("d"), 0, 0o1777);
        let (path, endpoint) = (dir.path("d/s"), dir.endpoint("d/s"));
        let attack = |expected: ErrorKind| {
            let harmless = as_stranger(|| {
                std::fs::rename(&path, dir.path("d/t")).unwrap_err();
                std::fs::remove_file(&path).unwrap_err();
                symlink("/etc/passwd", &path).unwrap_err();
                UnixListener::bind(&path).unwrap_err();
                fails(A::listen(&endpoint, &[]), expected);
            });
            assert!(harmless);
        };
        let server = A::listen(&endpoint, &[Opt::UnixMode(0o666)]).unwrap();
        attack(ErrorKind::AddressInUse);
        answers::<A>(&server, &path);
        drop(server);
        leave_stale(&path);
        // The user may connect to the stale socket, and cannot remove its file.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        attack(ErrorKind::PermissionDenied);
        let names = || std::fs::read_dir(dir.path("d")).unwrap().count();
        assert_eq!(names(), 1, "no lock file is left");
        // Locks of the user, held by a process of the user.
        let _stranger = busy_stranger(|| {
            let held = ["s.lock", "s.lock.0", "s.lock.ffffffffffffffff"].map(|name| {
                std::fs::write(dir.path("d").join(name), "").unwrap();
                system::flock(&dir.path("d").join(name))
            });
            std::fs::write(dir.path("d/held"), "").unwrap();
            std::thread::sleep(LIMIT);
            drop(held);
        });
        eventually("the locks are held", || dir.path("d/held").exists());
        promptly(Duration::from_millis(900), || {
            let (server, took) = timed(|| A::listen(&endpoint, &[]).unwrap());
            answers::<A>(&server, &path);
            drop(server);
            leave_stale(&path);
            took
        });
    });
}

/// L5: in a directory of another user, a symbolic link at the path is not followed, a live socket of that
/// user is not replaced, and neither FIFOs nor links with the names of lock files delay the server.
fn files_of_another_user_at_the_path_are_not_followed<A: Api>() {
    as_root(&test_name!(A, "files_of_another_user_at_the_path_are_not_followed"), || {
        let dir = TempDir::new();
        directory(&dir.path("foreign"), STRANGER, 0o755);
        directory(&dir.path("own"), 0, 0o700);
        std::fs::write(dir.path("own/file"), "precious").unwrap();
        leave_stale(&dir.path("own/stale"));
        let options = || [Opt::UnixMode(0o666), Opt::UnixOwner(Some(STRANGER), None)];
        let before = ["own/file", "own/stale"].map(|name| mode_and_owner(&dir.path(name)));
        for target in ["own/file", "own/stale", "own/new", "own"] {
            let target = dir.path(target);
            let path = dir.path("foreign/s");
            assert!(as_stranger(|| symlink(&target, &path).unwrap()));
            fails(A::listen(&dir.endpoint("foreign/s"), &options()), ErrorKind::AddressInUse);
            assert_eq!(std::fs::read_link(&path).unwrap(), target);
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(before, ["own/file", "own/stale"].map(|name| mode_and_owner(&dir.path(name))));
        assert!(!dir.path("own/new").exists());
        // A live socket of the other user, and a stale one with names of lock files.
        let live = dir.path("foreign/live");
        let _stranger = busy_stranger(|| {
            let _live = UnixListener::bind(&live).unwrap();
            std::thread::sleep(LIMIT);
        });
        eventually("the other user listens", || live.exists());
        fails(A::listen(&dir.endpoint("foreign/live"), &options()), ErrorKind::AddressInUse);
        assert!(as_stranger(|| {
            leave_stale(&dir.path("foreign/s"));
            system::mkfifo(&dir.path("foreign/s.lock"));
            system::mkfifo(&dir.path("foreign/s.lock.1"));
            symlink(dir.path("own/file"), dir.path("foreign/s.lock.2")).unwrap();
            symlink("/none", dir.path("foreign/s.lock.3")).unwrap();
            std::fs::create_dir(dir.path("foreign/s.lock.4")).unwrap();
        }));
        let server = A::listen(&dir.endpoint("foreign/s"), &options()).unwrap();
        assert_eq!(mode_and_owner(&dir.path("foreign/s")), (0o666, STRANGER, 0));
        answers::<A>(&server, &dir.path("foreign/s"));
        assert_eq!(std::fs::read(dir.path("own/file")).unwrap(), b"precious");
    });
}

/// L5, D4: another user replaces the socket file, the lock files and the links of the path as fast as
/// possible. A listen may fail, but no file in another directory changes.
fn path_that_another_user_replaces_all_the_time_harms_no_other_file<A: Api>() {
    const ROUNDS: u32 = 1_000;
    as_root(
        &test_name!(A, "path_that_another_user_replaces_all_the_time_harms_no_other_file"),
        || {
            let dir = TempDir::new();
            directory(&dir.path("foreign"), STRANGER, 0o755);
            directory(&dir.path("own"), 0, 0o755);
            std::fs::write(dir.path("own/file"), "precious").unwrap();
            let _live = UnixListener::bind(dir.path("own/s")).unwrap();
            leave_stale(&dir.path("own/stale"));
            let victims = ["own/file", "own/s", "own/stale"].map(|name| dir.path(name));
            let before = victims.each_ref().map(|path| mode_and_owner(path));
            let at = |name: &str| dir.path("foreign").join(name);
            let _replaces_the_socket = busy_stranger(|| {
                for victim in &victims {
                    let _ = symlink(victim, at("link"));
                    let _ = std::fs::rename(at("link"), at("s"));
                    let _ = std::fs::remove_file(at("s"));
                }
            });
            let _replaces_the_locks = busy_stranger(|| {
                let _ = UnixListener::bind(at("s"));
                for entry in std::fs::read_dir(at("")).into_iter().flatten().flatten() {
                    if entry.file_name().as_encoded_bytes().starts_with(b"s.lock.") {
                        let _ = symlink(&victims[0], at("other"));
                        let _ = std::fs::rename(at("other"), entry.path());
                    }
                }
            });
            let options = || [Opt::UnixMode(0o666), Opt::UnixOwner(Some(STRANGER), Some(STRANGER))];
            let mut listened = 0;
            for _ in 0..ROUNDS {
                match A::listen(&dir.endpoint("foreign/s"), &options()) {
                    Ok(server) => {
                        listened += 1;
                        drop(server);
                    }
                    Err(failure) => {
                        let expected = [
                            ErrorKind::AddressInUse,
                            ErrorKind::NotFound,
                            ErrorKind::PermissionDenied,
                        ];
                        assert!(expected.iter().any(|kind| failure.is(*kind)), "{failure:?}");
                    }
                }
            }
            println!("{listened} of {ROUNDS} listens succeeded");
            assert_eq!(before, victims.each_ref().map(|path| mode_and_owner(path)));
            assert_eq!(std::fs::read(&victims[0]).unwrap(), b"precious");
            UnixStream::connect(&victims[1]).unwrap();
        },
    );
}

/// Listens in a thread, and renames a file between bind(2) and the next call. The owner of the directory
/// can do so.
fn listen_while_replaced<A: Api>(
    endpoint: &str,
    [from, to]: [PathBuf; 2],
    has_capabilities: bool,
) -> Outcome<A::Server> {
    std::thread::scope(|scope| {
        let listens = scope.spawn(move || {
            let calls = [libc::SYS_bind, libc::SYS_ioctl, libc::SYS_openat, libc::SYS_statx];
            let mut was_bound = false;
            limits::supervise(&calls.map(|call| (call, None)), move |call| {
                if std::mem::replace(&mut was_bound, libc::c_long::from(call.nr) == libc::SYS_bind)
                {
                    std::fs::rename(&from, &to).unwrap();
                }
                None
            });
            if !has_capabilities {
                limits::give_up_all_capabilities();
            }
            A::listen(endpoint, &[Opt::UnixMode(0o666), Opt::UnixOwner(None, Some(STRANGER))])
        });
        listens.join().unwrap()
    })
}

/// L5, D4: another user owns a directory of the path, and replaces a symbolic link in it between bind(2)
/// and the calls that set mode and owner. These apply to the file of the server's own socket, and the
/// close removes no other file.
fn link_above_the_path_replaced_after_bind_changes_no_other_socket<A: Api>() {
    as_root(
        &test_name!(A, "link_above_the_path_replaced_after_bind_changes_no_other_socket"),
        || {
            let dir = TempDir::new();
            directory(&dir.path("foreign"), STRANGER, 0o755);
            directory(&dir.path("decoy"), 0, 0o755);
            directory(&dir.path("own"), 0, 0o755);
            let victim = dir.path("own/s");
            let _live = UnixListener::bind(&victim).unwrap();
            std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
            symlink(dir.path("decoy"), dir.path("foreign/link")).unwrap();
            symlink(dir.path("own"), dir.path("foreign/next")).unwrap();
            let files = ["foreign/next", "foreign/link"].map(|name| dir.path(name));
            let path = dir.endpoint("foreign/link/s");
            let server = listen_while_replaced::<A>(&path, files, true).unwrap();
            assert_eq!(std::fs::read_link(dir.path("foreign/link")).unwrap(), dir.path("own"));
            assert_eq!(mode_and_owner(&victim), (0o600, 0, 0));
            assert_eq!(mode_and_owner(&dir.path("decoy/s")), (0o666, 0, STRANGER));
            answers::<A>(&server, &dir.path("decoy/s"));
            drop(server);
            UnixStream::connect(&victim).unwrap();
        },
    );
}

/// L5, D4: the same for the file itself. A server without capabilities cannot get its file from the
/// kernel: it fails, and changes and removes nothing.
fn file_replaced_after_bind_is_not_changed<A: Api>() {
    as_root(&test_name!(A, "file_replaced_after_bind_is_not_changed"), || {
        for has_capabilities in [true, false] {
            let dir = TempDir::new();
            directory(&dir.path("foreign"), STRANGER, 0o777);
            directory(&dir.path("own"), 0, 0o755);
            let live = UnixListener::bind(dir.path("own/s")).unwrap();
            std::fs::write(dir.path("own/file"), "precious").unwrap();
            for victim in ["own/s", "own/file"].map(|name| dir.path(name)) {
                let before = mode_and_owner(&victim);
                symlink(&victim, dir.path("foreign/next")).unwrap();
                let files = ["foreign/next", "foreign/s"].map(|name| dir.path(name));
                let path = dir.endpoint("foreign/s");
                let outcome = listen_while_replaced::<A>(&path, files, has_capabilities);
                if has_capabilities {
                    drop(outcome.unwrap());
                } else {
                    fails(outcome, ErrorKind::AddressInUse);
                }
                assert_eq!(std::fs::read_link(dir.path("foreign/s")).unwrap(), victim);
                assert_eq!(mode_and_owner(&victim), before);
                std::fs::remove_file(dir.path("foreign/s")).unwrap();
            }
            UnixStream::connect(dir.path("own/s")).unwrap();
            drop(live);
        }
    });
}

/// D4: another user can neither connect nor send to a socket whose mode is 0600, and the mode 0666 is the
/// control case. `allow_uid` rejects a user whom the mode permits to connect.
#[cfg(feature = "datagram")]
fn socket_of_mode_0600_is_closed_to_another_user<A: Api>() {
    as_root(&test_name!(A, "socket_of_mode_0600_is_closed_to_another_user"), || {
        let dir = TempDir::new();
        // The umask permits everything: the option alone restricts the file.
        system::set_umask(0);
        for (mode, expected) in [(0o600, Some(ErrorKind::PermissionDenied)), (0o666, None)] {
            let name = format!("{mode:o}");
            let server = A::listen(&dir.endpoint(&name), &[Opt::UnixMode(mode)]).unwrap();
            let datagrams = format!("{name}-datagrams");
            let socket =
                A::Datagram::bind(&dir.endpoint(&datagrams), &[Opt::UnixMode(mode)]).unwrap();
            assert!(as_stranger(|| {
                let connected = A::connect(&dir.endpoint(&name), &[]).map(drop);
                let to = dir.path(&datagrams);
                let sent = UnixDatagram::unbound().unwrap().send_to(b"x", to);
                match expected {
                    Some(kind) => {
                        fails(connected, kind);
                        assert_eq!(sent.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
                    }
                    None => {
                        connected.unwrap();
                        sent.unwrap();
                    }
                }
            }));
            server.set_nonblocking(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            assert_eq!(server.accept().is_ok(), expected.is_none());
            assert_eq!(socket.recv(8).is_ok(), expected.is_none());
        }
        let options = [Opt::UnixMode(0o666), Opt::AllowUid(0)];
        let server = A::listen(&dir.endpoint("root-only"), &options).unwrap();
        assert!(as_stranger(|| {
            A::connect(&dir.endpoint("root-only"), &[]).unwrap();
        }));
        server.set_nonblocking(true).unwrap();
        fails(server.accept(), ErrorKind::WouldBlock);
        assert_eq!(server.stats().denied, 1);
    });
}
