//! Less than the system would give, or as much as it does.

/// So many descriptors for this process, or the lab is skipped.
pub fn need_descriptors(needed: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    if limit.rlim_max < needed {
        let most = limit.rlim_max;
        super::cannot(&format!("{needed} descriptors are needed, {most} is the hard limit"));
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// At most this many descriptors for this process from now on.
pub fn limit_descriptors(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// From now on this system call (with this first argument, if one is given)
/// fails with this error in this thread and those that it starts.
pub fn forbid(call: libc::c_long, first: Option<libc::c_int>, errno: libc::c_int) {
    // seccomp(2): struct seccomp_data begins with the number of the call; its
    // arguments, of 64 bits each, begin at 16.
    const NUMBER: u32 = 0;
    const FIRST: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    // Jumps over `steps` if the value is another one.
    let equals = |value, steps| libc::sock_filter {
        jf: steps,
        ..step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let end = |result| step(libc::BPF_RET | libc::BPF_K, result);
    let fail = end(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    let number = u32::try_from(call).unwrap();
    let mut filter = match first {
        None => vec![load(NUMBER), equals(number, 1), fail],
        Some(value) => {
            vec![load(NUMBER), equals(number, 3), load(FIRST), equals(value as u32, 1), fail]
        }
    };
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let len = u16::try_from(filter.len()).unwrap();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies a program of `len` steps.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// This thread may no longer do what only root may.
pub fn give_up_all_capabilities() {
    // capset(2): version 3, this thread; effective, permitted and inheritable, twice 32 bits.
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header and two sets, which these are.
    let code = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}
