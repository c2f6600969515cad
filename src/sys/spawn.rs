//! What a process gives to one that it starts: descriptors from 3 on, and who they are for.
//!
//! Not by the standard library's Command: LISTEN_PID is the number of the new process, which is
//! known only after fork(2), and the descriptors have to be 3, 4 and so on, where Command may have
//! a pipe of its own.

/// SD_LISTEN_FDS_START of sd_listen_fds(3).
pub(crate) const FIRST_INHERITED: u32 = 3;

#[cfg(unix)]
mod platform {
    use std::ffi::{CString, OsStr, OsString, c_char};
    use std::io::{self, Read};
    use std::mem;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::ExitStatus;
    use std::ptr;

    use libc::c_int;
    use socket2::{Domain, SockRef, Type};

    use super::super::unix::{check_int, forbid_sigpipe};
    use super::super::{Borrowed, Owned, connection_kind};
    use super::FIRST_INHERITED;

    /// Takes the descriptors of these numbers, which nobody in this process has yet, and keeps
    /// them from programs that it will start. All or none: the number of one that is not open
    /// comes with the error.
    pub(crate) fn take_inherited(first: u32, count: u32) -> Result<Vec<Owned>, (u32, io::Error)> {
        let numbers = || (first..first + count).map(|n| (n, n as RawFd));
        for (number, fd) in numbers() {
            // SAFETY: no memory is passed; a number that is not open is an error.
            check_int(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })
                .map_err(|e| (number, e))?;
        }
        // SAFETY: they are open, and whoever started this process has left them to it. The
        // caller sees to it that they are taken once.
        Ok(numbers().map(|(_, fd)| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
    }

    /// What tells a file, or a socket, from all others.
    pub(crate) fn identity(fd: Borrowed<'_>) -> io::Result<(u64, u64)> {
        status(fd.as_raw_fd()).map(|stat| of(&stat))
    }

    /// That of a number, if it is open.
    pub(crate) fn identity_of(number: u32) -> Option<(u64, u64)> {
        status(RawFd::try_from(number).ok()?).ok().map(|stat| of(&stat))
    }

    fn of(stat: &libc::stat) -> (u64, u64) {
        // Their types differ from system to system.
        #[allow(clippy::unnecessary_cast)]
        (stat.st_dev as u64, stat.st_ino as u64)
    }

    /// What tells this process from all others that there are or were, by a descriptor of it
    /// (pidfd_open(2)); `None` before Linux 6.9, where all of those have the same.
    #[cfg(target_os = "linux")]
    pub(crate) fn own_pidfd_inode() -> Option<u64> {
        const PIDFS_MAGIC: u32 = 0x5049_4446; // linux/magic.h; not in libc
        // SAFETY: no memory is passed, the descriptor is new and ours, and an all-zero statfs is
        // valid, which the kernel fills in.
        let (fd, kind) = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
            let fd = OwnedFd::from_raw_fd(check_int(c_int::try_from(fd).ok()?).ok()?);
            let mut kind: libc::statfs = mem::zeroed();
            check_int(libc::fstatfs(fd.as_raw_fd(), &raw mut kind)).ok()?;
            (fd, kind)
        };
        // Its type differs from system to system.
        #[allow(clippy::unnecessary_cast)]
        let is_one = kind.f_type as u32 == PIDFS_MAGIC;
        if is_one { identity(fd.as_fd()).ok().map(|(_, inode)| inode) } else { None }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn own_pidfd_inode() -> Option<u64> {
        None
    }

    fn status(fd: RawFd) -> io::Result<libc::stat> {
        // SAFETY: an all-zero stat is valid, and the kernel fills it in.
        unsafe {
            let mut stat: libc::stat = mem::zeroed();
            check_int(libc::fstat(fd, &raw mut stat))?;
            Ok(stat)
        }
    }

    /// What a descriptor is, in words.
    pub(crate) fn describe(fd: Borrowed<'_>) -> String {
        let mode = status(fd.as_raw_fd()).map_or(0, |stat| stat.st_mode);
        let what = match mode & libc::S_IFMT {
            libc::S_IFSOCK => return describe_socket(fd),
            libc::S_IFREG => "a file",
            libc::S_IFDIR => "a directory",
            libc::S_IFIFO => "a pipe",
            libc::S_IFCHR => "a character device",
            libc::S_IFBLK => "a block device",
            _ => "no socket",
        };
        what.to_owned()
    }

    fn describe_socket(fd: Borrowed<'_>) -> String {
        let socket = SockRef::from(&fd);
        let name = socket.local_addr();
        let domain = name.as_ref().map_or(Domain::UNIX, |name| name.domain());
        let family = match domain {
            Domain::IPV4 | Domain::IPV6 => "",
            Domain::UNIX => "Unix ",
            _ => return "a socket of another family".to_owned(),
        };
        let inet = family.is_empty();
        if let Ok(Some(kind)) = connection_kind(fd) {
            let protocol = match (inet, kind.packets) {
                (true, _) => "TCP ",
                (false, true) => "Unix packet ",
                (false, false) => family,
            };
            return match () {
                () if kind.listens => format!("a listening {protocol}socket"),
                () if socket.peer_addr().is_ok() => format!("a connected {protocol}socket"),
                () => format!("a {protocol}socket that does not listen"),
            };
        }
        match socket.r#type() {
            Ok(Type::DGRAM) if inet => "a UDP socket".to_owned(),
            Ok(Type::DGRAM) => format!("a {family}datagram socket"),
            _ => format!("a {family}socket of another type"),
        }
    }

    /// Two ends, for one word from a successor to the process that started it. Sockets and not
    /// a pipe: writing to a pipe that nobody reads is a SIGPIPE.
    pub(crate) fn channel() -> io::Result<(Owned, Owned)> {
        let (mine, theirs) = UnixStream::pair()?;
        // Now: macOS refuses it when the other end is gone.
        forbid_sigpipe(mine.as_fd())?;
        forbid_sigpipe(theirs.as_fd())?;
        Ok((mine.into(), theirs.into()))
    }

    /// The file of this process's program, as it is now: one that was replaced is found by its
    /// name.
    pub(crate) fn own_program() -> io::Result<PathBuf> {
        let path = std::env::current_exe()?;
        // proc(5): the link's text has " (deleted)" at its end when the file is another one.
        let bytes = path.as_os_str().as_bytes();
        if let Some(before) = bytes.strip_suffix(b" (deleted)") {
            let replaced = Path::new(OsStr::from_bytes(before));
            if !path.exists() && replaced.exists() {
                return Ok(replaced.to_owned());
            }
        }
        Ok(path)
    }

    /// The arguments of this process, its program's name first.
    pub(crate) fn own_args() -> io::Result<Vec<OsString>> {
        let args: Vec<_> = std::env::args_os().collect();
        if !args.is_empty() {
            return Ok(args);
        }
        // In a C program the standard library does not know them everywhere.
        let text = std::fs::read("/proc/self/cmdline")
            .map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let text = text.strip_suffix(&[0]).unwrap_or(&text);
        Ok(text.split(|b| *b == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect())
    }

    /// Where execvp(3) looks without PATH.
    const DEFAULT_PATH: &str = "/bin:/usr/bin";

    /// The file that execvp(3) would find for a name, if PATH is this. An empty directory in it is
    /// the working directory.
    fn find(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
        if program.as_bytes().contains(&b'/') {
            return Ok(program.into());
        }
        let mut code = libc::ENOENT;
        if program.is_empty() {
            return Err(io::Error::from_raw_os_error(code));
        }
        for dir in std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
            let file = dir.join(program);
            match std::fs::metadata(&file) {
                Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => return Ok(file),
                // What is there may not be run; a better one may come.
                Ok(_) => code = libc::EACCES,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => code = libc::EACCES,
                Err(_) => {}
            }
        }
        Err(io::Error::from_raw_os_error(code))
    }

    /// A process that was started here.
    #[derive(Debug)]
    pub(crate) struct Process(libc::pid_t);

    /// How a process ended; `None`: somebody else has asked, and was told.
    pub(crate) struct Ended(Option<ExitStatus>);

    impl std::fmt::Display for Ended {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self.0 {
                Some(status) => status.fmt(f),
                None => f.write_str("exit status unknown"),
            }
        }
    }

    impl Process {
        pub(crate) fn id(&self) -> u32 {
            self.0.unsigned_abs()
        }

        fn wait(&self, flags: c_int) -> Option<Ended> {
            let mut status = 0;
            loop {
                // SAFETY: the kernel writes one int.
                match unsafe { libc::waitpid(self.0, &raw mut status, flags) } {
                    0 => return None,
                    -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                    // ECHILD: SIGCHLD is ignored, or a handler of the program's has waited.
                    -1 => return Some(Ended(None)),
                    _ => return Some(Ended(Some(ExitStatus::from_raw(status)))),
                }
            }
        }

        /// How it ended, if it has. Not to be asked again then.
        pub(crate) fn ended(&self) -> Option<Ended> {
            self.wait(libc::WNOHANG)
        }

        /// Ends it, and waits until it has. `None`: it has become another user's process, and goes
        /// on.
        pub(crate) fn end(self) -> Option<Ended> {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            // SAFETY: no memory is passed. It was there a moment ago and nobody has waited for
            // it, so the number is still its own.
            if unsafe { libc::kill(self.0, libc::SIGKILL) } == -1 {
                return self.ended();
            }
            self.wait(0)
        }
    }

    /// Starts a program with these descriptors from 3 on, and the environment, to which its
    /// LISTEN_PID is added. The second of what it returns is readable when the program has begun,
    /// or cannot: [`read_report`].
    pub(crate) fn spawn(
        program: &OsStr,
        args: &[OsString],
        environment: Vec<OsString>,
        descriptors: &[Borrowed<'_>],
    ) -> io::Result<(Process, Owned)> {
        // All that may need memory is done before the fork: in the child of a process with
        // threads another one may have held the allocator's lock.
        let string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let file = find(program, std::env::var_os("PATH").as_deref())?;
        let path = string(file.as_os_str())?;
        let args = args.iter().map(|arg| string(arg)).collect::<io::Result<Vec<_>>>()?;
        let environment =
            environment.iter().map(|text| string(text)).collect::<io::Result<Vec<_>>>()?;
        // Room for the digits, which the child puts behind.
        let mut own = *b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
        let room = own.len() - 11;
        let own = (&raw mut own).cast::<u8>();
        // SAFETY: the digits begin within the text.
        let digits = ptr::slice_from_raw_parts_mut(unsafe { own.add(11) }, room);
        let pointers = |texts: &[CString], more: *const c_char| {
            let texts = texts.iter().map(|text| text.as_ptr());
            let more = (!more.is_null()).then_some(more);
            texts.chain(more).chain([ptr::null()]).collect::<Vec<_>>()
        };
        let argv = pointers(&args, ptr::null());
        let envp = pointers(&environment, own.cast());
        // Numbers above all those that are about to be given, so that none overwrites another.
        let above = FIRST_INHERITED as RawFd + descriptors.len() as RawFd;
        let lift = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            // SAFETY: no memory is passed, and the descriptor is new and ours.
            unsafe {
                let fd = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above);
                Ok(OwnedFd::from_raw_fd(check_int(fd)?))
            }
        };
        let lifted = descriptors.iter().map(|fd| lift(*fd)).collect::<io::Result<Vec<_>>>()?;
        let numbers: Vec<RawFd> = lifted.iter().map(AsRawFd::as_raw_fd).collect();
        // It closes by itself when the program begins; before, the child writes why it does not.
        let (mine, theirs) = channel()?;
        let report = lift(theirs.as_fd())?;
        drop(theirs);

        // A handler of ours must not run in the child, where it would act on what is shared.
        let mask = block_signals();
        // SAFETY: fork(2) itself is sound; what the child does is in `become_program`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the strings end with NUL and the arrays with null, and it is the child of
            // a fork.
            unsafe {
                become_program(&path, &argv, &envp, digits, &numbers, report.as_raw_fd());
            }
        }
        let forked = check_int(child);
        restore_signals(&mask);
        Ok((Process(forked?), mine))
    }

    /// Why the child did not become the program, if it did not. Waits until that is known.
    pub(crate) fn read_report(mine: Owned) -> Option<io::Error> {
        let mut code = [0; 4];
        UnixStream::from(mine).read_exact(&mut code).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
    }

    fn block_signals() -> libc::sigset_t {
        // SAFETY: an all-zero set is memory enough for one, and both calls fill theirs.
        unsafe {
            let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        }
    }

    fn restore_signals(mask: &libc::sigset_t) {
        // SAFETY: the mask is one that the system gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
    }

    /// The child's part, of async-signal-safe calls only (signal-safety(7)).
    ///
    /// # Safety
    /// In the child of a fork only. `argv` and `envp` end with null.
    unsafe fn become_program(
        path: &CString,
        argv: &[*const c_char],
        envp: &[*const c_char],
        digits: *mut [u8],
        numbers: &[RawFd],
        report: RawFd,
    ) -> ! {
        // SAFETY: `digits` is room that only this process has now, and that envp points into; the
        // rest passes memory that was there before the fork, or is on the stack.
        unsafe {
            write_digits(&mut *digits, libc::getpid().unsigned_abs());
            let mut moved = true;
            for (target, number) in (FIRST_INHERITED as RawFd..).zip(numbers) {
                // It is not close-on-exec any more then.
                moved &= libc::dup2(*number, target) >= 0;
            }
            if moved {
                reset_signals();
                libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            // It allocates nothing.
            let code = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
            libc::write(report, code.as_ptr().cast(), code.len());
            libc::_exit(127)
        }
    }

    /// Handlers would be those of a program that is gone; execve(2) does the same, but a signal
    /// may come before it. Programs of Rust ignore SIGPIPE, which others do not expect.
    ///
    /// # Safety
    /// In the child of a fork only.
    unsafe fn reset_signals() {
        // SAFETY: all-zero is a valid sigaction and a valid set.
        unsafe {
            let mut default: libc::sigaction = mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            for signal in 1..=64 {
                let mut now: libc::sigaction = mem::zeroed();
                // Those that there are not, and that cannot be set, fail.
                let known = libc::sigaction(signal, ptr::null(), &raw mut now) == 0;
                if known && (signal == libc::SIGPIPE || now.sa_sigaction != libc::SIG_IGN) {
                    libc::sigaction(signal, &raw const default, ptr::null_mut());
                }
            }
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        }
    }

    /// As decimal text, into room that is zeroed and large enough.
    fn write_digits(room: &mut [u8], mut number: u32) {
        let mut len = 1;
        let mut rest = number;
        while rest >= 10 {
            rest /= 10;
            len += 1;
        }
        for place in room.iter_mut().take(len).rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// L7: a program is looked for as execvp(3) does.
        #[test]
        fn programs_are_found_in_path() {
            let dir = std::env::temp_dir().join(format!("keepsock-path-{}", std::process::id()));
            let make = |file: &str, mode| {
                let file = dir.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, "").unwrap();
                std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            };
            make("first/tool", 0o644);
            make("second/tool", 0o755);
            make("second/notes", 0o644);
            std::fs::create_dir_all(dir.join("second/folder")).unwrap();
            let path = format!("{0}/none:{0}/first:{0}/second", dir.display());
            let find_in = |program: &str, path: Option<&str>| {
                let found = find(OsStr::new(program), path.map(OsStr::new));
                found.map_err(|e| e.raw_os_error().unwrap())
            };
            assert_eq!(find_in("tool", Some(&path)), Ok(dir.join("second/tool")));
            for (program, code) in [
                ("notes", libc::EACCES),
                ("folder", libc::EACCES),
                ("nothing", libc::ENOENT),
                ("", libc::ENOENT),
            ] {
                assert_eq!(find_in(program, Some(&path)), Err(code), "{program}");
            }
            // A path is looked for nowhere, and the working directory is searched if PATH says so.
            assert_eq!(find_in("a/b", Some(&path)), Ok("a/b".into()));
            assert_eq!(find_in("sh", None), Ok("/bin/sh".into()));
            assert_eq!(find_in("Cargo.toml", Some("")), Err(libc::EACCES));
            assert_eq!(find_in("Cargo.toml", Some("/none:")), Err(libc::EACCES));
            assert_eq!(find_in("Cargo.toml", Some("/none")), Err(libc::ENOENT));
            std::fs::remove_dir_all(&dir).unwrap();
        }

        #[test]
        fn digits_are_written_in_order() {
            for number in [0, 7, 10, 4_194_304, u32::MAX] {
                let mut room = [0; 12];
                write_digits(&mut room, number);
                let text = room.split(|b| *b == 0).next().unwrap();
                assert_eq!(text, number.to_string().as_bytes());
            }
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::ffi::{OsStr, OsString};
    use std::io;
    use std::path::PathBuf;

    use super::super::{Borrowed, Owned};

    /// Not offered here.
    #[derive(Debug)]
    pub(crate) enum Process {}

    pub(crate) type Ended = &'static str;

    impl Process {
        pub(crate) fn id(&self) -> u32 {
            match *self {}
        }

        pub(crate) fn ended(&self) -> Option<Ended> {
            match *self {}
        }

        pub(crate) fn end(self) -> Option<Ended> {
            match self {}
        }
    }

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn take_inherited(first: u32, _: u32) -> Result<Vec<Owned>, (u32, io::Error)> {
        Err((first, io::ErrorKind::Unsupported.into()))
    }

    pub(crate) fn identity(_: Borrowed<'_>) -> io::Result<(u64, u64)> {
        unsupported()
    }

    pub(crate) fn own_pidfd_inode() -> Option<u64> {
        None
    }

    pub(crate) fn identity_of(_: u32) -> Option<(u64, u64)> {
        None
    }

    pub(crate) fn describe(_: Borrowed<'_>) -> String {
        "a socket".to_owned()
    }

    pub(crate) fn channel() -> io::Result<(Owned, Owned)> {
        unsupported()
    }

    pub(crate) fn own_program() -> io::Result<PathBuf> {
        unsupported()
    }

    pub(crate) fn own_args() -> io::Result<Vec<OsString>> {
        unsupported()
    }

    pub(crate) fn spawn(
        _: &OsStr,
        _: &[OsString],
        _: Vec<OsString>,
        _: &[Borrowed<'_>],
    ) -> io::Result<(Process, Owned)> {
        unsupported()
    }

    pub(crate) fn read_report(_: Owned) -> Option<io::Error> {
        None
    }
}

pub(crate) use platform::*;
