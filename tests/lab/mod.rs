//! Labs: tests that need a network, or a process, of their own.
//!
//! A test calls [`in_namespace`] (or [`in_process`]) with its own name and a
//! body. The test program is started again for that one test, inside fresh
//! network and mount namespaces; there the body runs. What it does to
//! interfaces, routes and files under /etc ends with that process, however it
//! ends: it has a time limit, and it does not outlive the test that started it.
//!
//! Where namespaces cannot be had the test prints `skipped: reason`; with
//! CI=true it fails instead.

// It makes system calls that the standard library does not have.
#![allow(unsafe_code)]
// Each test program uses a part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Set in the process that a lab starts: the name of the test.
const INSIDE: &str = "KEEPSOCK_LAB";
/// Set in a [`Helper`]: its part.
const ROLE: &str = "KEEPSOCK_LAB_ROLE";
const DONE: &str = "lab: done";
const SKIP: &str = "lab: skip: ";

/// What a call may take beyond its deadline (C1), and a cancel to take hold (T2).
pub const GRACE: Duration = Duration::from_millis(50);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

// ---- running ---------------------------------------------------------------------------

/// Runs `body` in a process with a network and mount namespace of its own, in
/// which the loopback interface is up.
pub fn in_namespace(test: &str, limit: Duration, body: impl FnOnce()) {
    let unshare = match std::env::var_os(INSIDE) {
        Some(_) => vec![],
        None => match unshare() {
            Ok(words) => words,
            Err(reason) => return skip(test, &reason),
        },
    };
    run(test, limit, &unshare, || {
        ip("link set lo up");
        body();
    });
}

/// Runs `body` in a process of its own, for what holds for a whole process.
pub fn in_process(test: &str, limit: Duration, body: impl FnOnce()) {
    run(test, limit, &[], body);
}

fn run(test: &str, limit: Duration, prefix: &[&str], body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        end_with_parent(limit);
        body();
        println!("{DONE}");
        return;
    }
    let mut command = again(test, prefix);
    command.env(INSIDE, test).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (send, output) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for mut stream in streams {
        let send = send.clone();
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    // Both streams end when the child does.
    let until = Instant::now() + limit;
    let mut text = String::new();
    for _ in 0..2 {
        match output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(more) => text.push_str(&more),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                // Killed, it has closed its streams; what it printed tells how far it came.
                text.extend(output.recv_timeout(ms(1000)));
                panic!("{test}: the lab was not done after {limit:?}\n{text}");
            }
        }
    }
    let status = child.wait().unwrap();
    if let Some((_, reason)) = text.split_once(SKIP) {
        return skip(test, reason.lines().next().unwrap_or(""));
    }
    assert!(status.success(), "{test}: the lab failed: {status}\n{text}");
    print!("{text}");
    assert!(text.contains(DONE), "{test}: the lab ran nothing: is the name right?\n{text}");
}

/// This test program once more, for one test.
fn again(test: &str, prefix: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match prefix.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// The process is killed when the thread that started it ends, and by an alarm
/// if that should not happen.
fn end_with_parent(limit: Duration) {
    // SAFETY: neither call passes memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(u32::try_from(limit.as_secs()).unwrap() + 5);
    }
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: skipped: {reason}");
    println!("{test}: skipped: {reason}");
}

/// Ends the lab: this machine cannot show it.
fn cannot(reason: &str) -> ! {
    println!("{SKIP}{reason}");
    std::process::exit(0);
}

/// The command that gives namespaces: root's way, or an ordinary user's.
fn unshare() -> Result<Vec<&'static str>, String> {
    let mut last = String::new();
    for words in [vec!["unshare", "-n", "-m"], vec!["unshare", "-U", "-r", "-n", "-m"]] {
        let tried = Command::new(words[0]).args(&words[1..]).args(["ip", "link"]).output();
        match tried {
            Ok(output) if output.status.success() => return Ok(words),
            Ok(output) => last = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(e) => last = format!("unshare: {e}"),
        }
    }
    Err(format!("no network namespaces: {last}"))
}

// ---- a second process --------------------------------------------------------------------

/// This test program once more, in the same test, as somebody else: its lines
/// and ours are how the two talk. Killed when dropped.
pub struct Helper {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

/// The part that this process plays, if it is a [`Helper`].
pub fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok();
    if role.is_some() {
        end_with_parent(Duration::from_secs(60));
    }
    role
}

/// A helper's answer to the process that started it.
pub fn tell(line: &str) {
    println!("> {line}");
}

/// A helper waits for what it is to do next; `None`: nothing more.
pub fn told() -> Option<String> {
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line).unwrap();
    (n > 0).then(|| line.trim_end().to_owned())
}

impl Helper {
    pub fn start(test: &str, role: &str) -> Helper {
        let mut command = again(test, &[]);
        command.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || forward(output, &send));
        Helper { input: child.stdin.take().unwrap(), child, lines }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn hear(&self) -> String {
        match self.lines.recv_timeout(Duration::from_secs(10)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the helper said nothing for 10 s"),
            Err(RecvTimeoutError::Disconnected) => panic!("the helper ended"),
        }
    }

    /// SIGKILL: it has no chance to tidy up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what the helper says, not what the test harness prints around it.
fn forward(output: ChildStdout, send: &mpsc::Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        // The harness leaves its "test name ... " unended before the first one.
        if let Some((_, said)) = line.split_once("> ") {
            let _ = send.send(said.to_owned());
        }
    }
}

// ---- building the network ------------------------------------------------------------------

/// Runs ip(8); a machine on which that fails cannot show the lab.
pub fn ip(words: &str) {
    run_tool(Command::new("ip").args(words.split_whitespace()));
}

fn run_tool(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            cannot(&format!("{command:?}: {why}"));
        }
        Err(e) => cannot(&format!("{command:?}: {e}")),
    }
}

pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    if let Err(e) = std::fs::write(&path, value) {
        cannot(&format!("{path}: {e}"));
    }
}

/// Puts `text` in the place of a file under /etc, for this mount namespace.
pub fn replace_file(path: &str, text: &str) {
    let dir = std::env::temp_dir();
    let name = path.replace('/', "-");
    let made = dir.join(format!("keepsock-lab-{}{name}", std::process::id()));
    std::fs::write(&made, text).unwrap();
    run_tool(Command::new("mount").arg("--bind").arg(&made).arg(path));
    // The mount keeps it.
    std::fs::remove_file(&made).unwrap();
}

/// Names come from this hosts file, and from nowhere else.
pub fn names(hosts: &str) {
    replace_file("/etc/nsswitch.conf", "hosts: files\n");
    replace_file("/etc/hosts", hosts);
}

/// Names are asked of a server that never answers.
pub fn silent_resolver(options: &str) {
    blackhole();
    replace_file("/etc/nsswitch.conf", "hosts: dns\n");
    replace_file("/etc/resolv.conf", &format!("nameserver 192.0.2.53\noptions {options}\n"));
}

/// An address that swallows whatever is sent to it. Others in 192.0.2.0/24 and
/// 2001:db8::/64 do, too, and with `default route` all that are not local.
pub const HOLE: &str = "192.0.2.77";
pub const HOLE6: &str = "2001:db8::77";

/// Makes the interface `hole`, whose packets nobody takes: without ARP they are
/// sent without asking for the receiver first, so that no answer isn't noticed.
pub fn blackhole() {
    ip("link add hole type veth peer name hole-end");
    ip("link set hole arp off");
    ip("link set hole up");
    ip("link set hole-end up");
    ip("addr add 192.0.2.1/24 dev hole");
    ip("-6 addr add 2001:db8::1/64 dev hole nodad");
}

/// Moves this thread, and the processes that it starts, into a network
/// namespace of its own. The rest of the process stays where it is.
pub fn leave_network() {
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        cannot(&format!("unshare: {}", std::io::Error::last_os_error()));
    }
}

pub fn thread_id() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { libc::gettid() }
}

// ---- watching ---------------------------------------------------------------------------------

/// Waits until `there` is true; the kernel tells no event for what is awaited here.
pub fn await_that(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !there() {
        assert!(Instant::now() < until, "not seen within 10 s: {what}");
        thread::sleep(ms(1));
    }
}

/// How many TCP sockets of this network wait for an answer to their SYN.
pub fn count_syn_sent() -> usize {
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| {
            let states = text.lines().map(|line| line.split_whitespace().nth(3) == Some("02"));
            states.collect::<Vec<_>>()
        })
        .filter(|waits| *waits)
        .count()
}

/// How many threads of this process have that name.
pub fn count_threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = |path: &Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.filter(|task| named(&task.path())).count()
}

pub fn count_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processor time that this process has used.
pub fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid, and the kernel writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs())
            + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
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

/// Runs until a run takes no longer than `most`, at most three times: a busy
/// machine makes a call late now and then, a defect makes it late each time.
pub fn assert_within(most: Duration, mut run: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    for _ in 0..3 {
        let time = run();
        println!("{time:?}, at most {most:?}");
        if time <= most {
            return;
        }
        times.push(time);
    }
    panic!("{times:?}, at most {most:?}");
}

/// A call with this deadline is back when it is over: not before, and not more
/// than [`GRACE`] later.
pub fn assert_on_time(deadline: Duration, mut run: impl FnMut() -> Duration) {
    assert_within(deadline + GRACE, || {
        let time = run();
        assert!(time >= deadline, "{time:?} is before the deadline, {deadline:?}");
        time
    });
}
