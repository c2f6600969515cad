//! The descriptors that a process passes to a program that it starts: from 3 on, with LISTEN_PID.
//!
//! The standard library's Command cannot do this: LISTEN_PID is the number of the new process, which
//! is known after fork(2) only, and the descriptors must have the numbers 3, 4 and so on, which may
//! be the numbers of Command's own pipes.

/// SD_LISTEN_FDS_START of sd_listen_fds(3).
pub(crate) const FIRST_INHERITED: u32 = 3;

#[cfg(unix)]
mod platform {
    #[cfg(all(keepsock_linux, target_env = "gnu", not(miri)))]
    use std::ffi::CStr;
    use std::ffi::{CString, OsStr, OsString, c_char};
    use std::io::{self, Read};
    use std::mem;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::path::{Path, PathBuf};
    use std::process::ExitStatus;
    use std::ptr;
    use std::sync::OnceLock;

    use crate::sys::SockRef;
    use libc::c_int;
    use socket2::{Domain, Type};

    #[cfg(all(keepsock_linux, not(target_os = "android")))]
    use super::super::errno::check;
    use super::super::errno::check_int;
    use super::super::unix::forbid_sigpipe;
    use super::super::{Borrowed, Owned, connection_kind};
    use super::FIRST_INHERITED;
    use crate::sys::{kernel, large_file};

    /// The kind of a passed descriptor.
    pub(crate) enum StartedWith {
        /// A listening socket or a datagram socket, which this process now owns.
        Taken(Owned),
        /// Any other kind, in words. A connection is described by its five-tuple.
        Left { what: String, connection: Option<(u64, u64)> },
    }

    /// Whether the parent process may have passed this descriptor: it is open, and not
    /// close-on-exec.
    pub(crate) fn check_passed(number: u32) -> io::Result<()> {
        let number = RawFd::try_from(number).unwrap_or(-1);
        // SAFETY: F_GETFD takes no pointer; a closed number is an error.
        let flags = check_int(unsafe { kernel::fcntl(number, libc::F_GETFD, 0) })?;
        if flags & libc::FD_CLOEXEC == 0 {
            return Ok(());
        }
        Err(io::Error::other("it is close-on-exec, so this program has opened it"))
    }

    /// Adopts a passed descriptor if it is a listening socket or a datagram socket. Sets
    /// close-on-exec on a connection, so that programs that this process starts do not inherit it.
    /// Leaves every other descriptor as it is.
    pub(crate) fn look_at_passed(number: u32) -> io::Result<StartedWith> {
        // SAFETY: the parent process passed the open descriptor, and this function does not close
        // it while the borrow lives.
        let fd = unsafe { BorrowedFd::borrow_raw(number as RawFd) };
        let mode = status(fd.as_raw_fd())?.st_mode;
        if mode & libc::S_IFMT != libc::S_IFSOCK {
            return Ok(StartedWith::Left { what: describe(fd), connection: None });
        }
        if matches!(connection_kind(fd), Ok(Some(kind)) if !kind.listens) {
            keep_from_programs(fd)?;
            let connection = Some(identity(fd)?);
            return Ok(StartedWith::Left { what: describe(fd), connection });
        }
        take_inherited(number).map(StartedWith::Taken)
    }

    /// Adopts a passed descriptor that no other part of this process uses, and sets close-on-exec
    /// on it.
    pub(crate) fn take_inherited(number: u32) -> io::Result<Owned> {
        // SAFETY: the parent process passed the open descriptor. The caller guarantees that each
        // descriptor is adopted once.
        let owned = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        keep_from_programs(owned.as_fd())?;
        Ok(owned)
    }

    fn keep_from_programs(fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: F_SETFD takes no pointer.
        check_int(unsafe { kernel::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })
            .map(drop)
    }

    /// Leaves a descriptor open. It belongs to the program.
    pub(crate) fn leave(owned: Owned) {
        let _: RawFd = owned.into_raw_fd();
    }

    /// The identity of a file or socket: its device and inode.
    pub(crate) fn identity(fd: Borrowed<'_>) -> io::Result<(u64, u64)> {
        status(fd.as_raw_fd()).map(|stat| of(&stat))
    }

    /// Returns the identity of an open descriptor.
    pub(crate) fn identity_of(number: u32) -> Option<(u64, u64)> {
        status(RawFd::try_from(number).ok()?).ok().map(|stat| of(&stat))
    }

    fn of(stat: &large_file::stat) -> (u64, u64) {
        // The types of these members differ between systems.
        #[allow(clippy::unnecessary_cast)]
        (stat.st_dev as u64, stat.st_ino as u64)
    }

    /// The identity of this process among all processes of the past and present: the inode of its
    /// pidfd_open(2) descriptor. `None` before Linux 6.9, where all such descriptors have one inode.
    #[cfg(all(keepsock_linux, not(target_os = "android")))]
    pub(crate) fn own_pidfd_inode() -> Option<u64> {
        const PIDFS_MAGIC: u32 = 0x5049_4446; // linux/magic.h; not in libc
        // SAFETY: pidfd_open takes no pointer and returns a new descriptor that only this function
        // owns. statfs consists of integers, and the kernel fills it in.
        let (fd, kind) = unsafe {
            let open = || check(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as isize);
            let fd = kernel::call("pidfd_open", open).ok()?;
            let fd = OwnedFd::from_raw_fd(RawFd::try_from(fd).ok()?);
            let mut kind: large_file::statfs = mem::zeroed();
            check_int(kernel::fstatfs(fd.as_raw_fd(), &raw mut kind)).ok()?;
            (fd, kind)
        };
        // The type of this member differs between systems.
        #[allow(clippy::unnecessary_cast)]
        let is_one = kind.f_type as u32 == PIDFS_MAGIC;
        if is_one { identity(fd.as_fd()).ok().map(|(_, inode)| inode) } else { None }
    }

    #[cfg(not(all(keepsock_linux, not(target_os = "android"))))]
    pub(crate) fn own_pidfd_inode() -> Option<u64> {
        None
    }

    fn status(fd: RawFd) -> io::Result<large_file::stat> {
        // SAFETY: stat consists of integers, and the kernel fills it in.
        unsafe {
            let mut stat: large_file::stat = mem::zeroed();
            check_int(kernel::fstat(fd, &raw mut stat))?;
            Ok(stat)
        }
    }

    /// Describes a descriptor in words.
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

    /// The two ends of the channel through which a successor reports to the process that started
    /// it. Sockets instead of a pipe: a write to a pipe without a reader raises SIGPIPE.
    pub(crate) fn channel() -> io::Result<(Owned, Owned)> {
        let (mine, theirs) = kernel::call("socketpair", UnixStream::pair)?;
        // Before the other end can close: macOS rejects the option afterwards.
        forbid_sigpipe(mine.as_fd())?;
        forbid_sigpipe(theirs.as_fd())?;
        Ok((mine.into(), theirs.into()))
    }

    /// The path of this process's program. If the file was replaced, the path names the new file.
    pub(crate) fn own_program() -> io::Result<PathBuf> {
        let path = kernel::call("readlink", std::env::current_exe)?;
        // proc(5): the kernel appends " (deleted)" to the link if the path names another file now.
        let bytes = path.as_os_str().as_bytes();
        if let Some(before) = bytes.strip_suffix(b" (deleted)") {
            let replaced = Path::new(OsStr::from_bytes(before));
            if !path.exists() && replaced.exists() {
                return Ok(replaced.to_owned());
            }
        }
        Ok(path)
    }

    /// The arguments at the time when this library was loaded. Programs that show a title in ps(1)
    /// (setproctitle) overwrite the originals later, and the standard library keeps only pointers to
    /// the originals.
    static ARGS: OnceLock<Vec<OsString>> = OnceLock::new();

    /// glibc calls this function before main or in dlopen(3), with main's arguments. Other C
    /// libraries pass no arguments, and neither does Miri.
    #[cfg(all(keepsock_linux, target_env = "gnu", not(miri)))]
    #[used]
    #[unsafe(link_section = ".init_array")]
    static SAVE_ARGS: extern "C" fn(c_int, *const *const c_char) = save_args;

    #[cfg(all(keepsock_linux, target_env = "gnu", not(miri)))]
    extern "C" fn save_args(count: c_int, args: *const *const c_char) {
        let arg = |index: usize| {
            // SAFETY: glibc passes an array of `count` strings, the same as to main.
            let text = unsafe { CStr::from_ptr(*args.add(index)) };
            OsStr::from_bytes(text.to_bytes()).to_owned()
        };
        let count = usize::try_from(count).unwrap_or(0);
        if !args.is_null() {
            // This runs once: each copy of the library has a variable of its own.
            let _ = ARGS.set((0..count).map(arg).collect());
        }
    }

    /// The arguments of this process, starting with the program's name.
    pub(crate) fn own_args() -> io::Result<Vec<OsString>> {
        // The linker leaves objects that nothing refers to out of a static library.
        #[cfg(all(keepsock_linux, target_env = "gnu", not(miri)))]
        std::hint::black_box(&SAVE_ARGS);
        if let Some(args) = ARGS.get().filter(|args| !args.is_empty()) {
            return Ok(args.clone());
        }
        let args: Vec<_> = std::env::args_os().collect();
        if !args.is_empty() {
            return Ok(args);
        }
        // The standard library does not know the arguments of a C program on every system.
        let text = kernel::call("openat", || std::fs::read("/proc/self/cmdline"))
            .map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let text = text.strip_suffix(&[0]).unwrap_or(&text);
        Ok(text.split(|b| *b == 0).map(|arg| OsString::from_vec(arg.to_vec())).collect())
    }

    /// The directories that execvp(3) searches if PATH is not set.
    const DEFAULT_PATH: &str = "/bin:/usr/bin";

    /// Returns the file that execvp(3) finds for a name with this PATH. An empty directory in PATH
    /// means the working directory.
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
            match kernel::call("statx", || std::fs::metadata(&file)) {
                Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => return Ok(file),
                // This file is not executable; a later directory may have one that is.
                Ok(_) => code = libc::EACCES,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => code = libc::EACCES,
                Err(_) => {}
            }
        }
        Err(io::Error::from_raw_os_error(code))
    }

    /// A child process that this module started.
    #[derive(Debug)]
    pub(crate) struct Process(libc::pid_t);

    /// The exit status of a process. `None`: another part of the program waited for the process, and
    /// the kernel reports the status once.
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
                match unsafe { kernel::waitpid(self.0, &raw mut status, flags) } {
                    0 => return None,
                    -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                    // ECHILD: SIGCHLD is ignored, or a handler of the program has waited.
                    -1 => return Some(Ended(None)),
                    _ => return Some(Ended(Some(ExitStatus::from_raw(status)))),
                }
            }
        }

        /// The exit status, if the process has ended. After a status the caller must not call this
        /// function again.
        pub(crate) fn ended(&self) -> Option<Ended> {
            self.wait(libc::WNOHANG)
        }

        /// Kills the process, and waits until it has ended. `None`: the process changed its user,
        /// and continues to run.
        pub(crate) fn end(self) -> Option<Ended> {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            // SAFETY: kill takes no pointer. Nothing has waited for the child, so the kernel has
            // not reused its number.
            if unsafe { kernel::kill(self.0, libc::SIGKILL) } == -1 {
                return self.ended();
            }
            self.wait(0)
        }
    }

    /// Starts a program with these descriptors from 3 on, and with this environment plus LISTEN_PID.
    /// The second value returned becomes readable when the program has started or has failed to
    /// start: see [`read_report`].
    pub(crate) fn spawn_process(
        program: &OsStr,
        args: &[OsString],
        environment: Vec<OsString>,
        descriptors: &[Borrowed<'_>],
    ) -> io::Result<(Process, Owned)> {
        // Everything that may allocate is done before the fork: another thread of the parent may
        // have held the allocator's lock.
        let string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let file = find(program, std::env::var_os("PATH").as_deref())?;
        let path = string(file.as_os_str())?;
        let args = args.iter().map(|arg| string(arg)).collect::<io::Result<Vec<_>>>()?;
        let environment =
            environment.iter().map(|text| string(text)).collect::<io::Result<Vec<_>>>()?;
        // Space for the digits, which the child appends.
        let mut own = *b"LISTEN_PID=\0\0\0\0\0\0\0\0\0\0\0\0";
        let room = own.len() - 11;
        let own = (&raw mut own).cast::<u8>();
        // SAFETY: the offset of the digits is inside the text.
        let digits = ptr::slice_from_raw_parts_mut(unsafe { own.add(11) }, room);
        let pointers = |texts: &[CString], more: *const c_char| {
            let texts = texts.iter().map(|text| text.as_ptr());
            let more = (!more.is_null()).then_some(more);
            texts.chain(more).chain([ptr::null()]).collect::<Vec<_>>()
        };
        let argv = pointers(&args, ptr::null());
        let envp = pointers(&environment, own.cast());
        // Numbers above all destinations, so that no copy overwrites a descriptor that is needed.
        let above = FIRST_INHERITED as RawFd + descriptors.len() as RawFd;
        let lift = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            // SAFETY: F_DUPFD_CLOEXEC takes no pointer, and returns a new descriptor that only
            // this function owns.
            unsafe {
                let fd = kernel::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above);
                Ok(OwnedFd::from_raw_fd(check_int(fd)?))
            }
        };
        let lifted = descriptors.iter().map(|fd| lift(*fd)).collect::<io::Result<Vec<_>>>()?;
        let numbers: Vec<RawFd> = lifted.iter().map(AsRawFd::as_raw_fd).collect();
        // The kernel closes it when the program starts. If execve(2) fails, the child writes the
        // reason.
        let (mine, theirs) = channel()?;
        let report = lift(theirs.as_fd())?;
        drop(theirs);

        // A signal handler of this program must not run in the child, which shares its sockets.
        let mask = block_signals();
        // SAFETY: fork takes no pointer; the child calls `become_program` only.
        let child = unsafe { kernel::fork() };
        if child == 0 {
            // SAFETY: this is the child of a fork; the strings end with NUL and the arrays with
            // null.
            unsafe {
                become_program(&path, &argv, &envp, digits, &numbers, report.as_raw_fd());
            }
        }
        let forked = check_int(child);
        restore_signals(&mask);
        Ok((Process(forked?), mine))
    }

    /// Returns why the child could not start the program, if it could not. Waits for the result.
    pub(crate) fn read_report(mine: Owned) -> Option<io::Error> {
        let mut code = [0; 4];
        let mut report = UnixStream::from(mine);
        kernel::call("read", || report.read_exact(&mut code)).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
    }

    fn block_signals() -> libc::sigset_t {
        // SAFETY: sigset_t consists of integers, and both calls fill the set passed to them.
        unsafe {
            let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        }
    }

    fn restore_signals(mask: &libc::sigset_t) {
        // SAFETY: the kernel stored this mask in `block_signals`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
    }

    /// The work of the child: async-signal-safe calls only (signal-safety(7)).
    ///
    /// # Safety
    /// Only for the child of a fork. `argv` and `envp` end with null.
    unsafe fn become_program(
        path: &CString,
        argv: &[*const c_char],
        envp: &[*const c_char],
        digits: *mut [u8],
        numbers: &[RawFd],
        report: RawFd,
    ) -> ! {
        // SAFETY: `digits` points into memory that only this process uses now. All other pointers
        // are to memory that was allocated before the fork, or is on the stack.
        unsafe {
            write_digits(&mut *digits, libc::getpid().unsigned_abs());
            let mut moved = true;
            for (target, number) in (FIRST_INHERITED as RawFd..).zip(numbers) {
                // The copy that dup2(2) makes is not close-on-exec.
                moved &= libc::dup2(*number, target) >= 0;
            }
            if moved {
                reset_signals();
                libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            // This does not allocate.
            let code = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
            libc::write(report, code.as_ptr().cast(), code.len());
            libc::_exit(127)
        }
    }

    /// Resets the signal handlers. execve(2) does that as well, but a signal may arrive before it.
    /// Rust programs ignore SIGPIPE, and other programs do not expect that.
    ///
    /// # Safety
    /// Only for the child of a fork.
    unsafe fn reset_signals() {
        // SAFETY: sigaction and sigset_t consist of integers and nullable pointers.
        unsafe {
            let mut default: libc::sigaction = mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            for signal in 1..=64 {
                let mut now: libc::sigaction = mem::zeroed();
                // Fails for signals that do not exist or cannot be changed.
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

    /// Writes a number as decimal text into zeroed memory of sufficient size.
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

        /// L7: The search for a program follows execvp(3).
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
            // A path is not searched for. The working directory is searched if PATH contains it.
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

    /// Not supported on this platform.
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

    #[expect(dead_code, reason = "no descriptors are passed on this platform")]
    pub(crate) enum StartedWith {
        Taken(Owned),
        Left { what: String, connection: Option<(u64, u64)> },
    }

    pub(crate) fn check_passed(_: u32) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn look_at_passed(_: u32) -> io::Result<StartedWith> {
        unsupported()
    }

    pub(crate) fn take_inherited(_: u32) -> io::Result<Owned> {
        unsupported()
    }

    pub(crate) fn leave(_: Owned) {}

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

    pub(crate) fn spawn_process(
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
