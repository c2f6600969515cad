//! Fault injection at every system call of the library, by its failpoints. `cargo xtask faults` runs
//! it and prints the matrix.
//!
//! Each scene runs once to learn which sites it reaches, and how often. Then each site fails with
//! each error number of its manual page, at its first, second and last call; calls transfer one byte,
//! are interrupted several times in a row, or are delayed. The machine of tests/abi/faults does the
//! same at the boundary of the process, for the system calls that libc and the standard library make by
//! themselves, and for one thread.
#![cfg(all(keepsock_linux, target_env = "gnu"))]
// Clippy permits unwrap, expect and panic in test functions only, not in the functions they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod scenes;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use keepsock::failpoints::{self, Fault, Plan, Site};
use libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, ECHILD, ECONNABORTED,
    ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EINTR, EINVAL, EIO, EMFILE, EMSGSIZE, ENETDOWN,
    ENETUNREACH, ENFILE, ENOBUFS, ENOENT, ENOLCK, ENOMEM, ENOPROTOOPT, ENOSPC, ENOTCONN, EPERM,
    EPIPE, EPROTO, EPROTONOSUPPORT, EROFS, ESRCH, ETIMEDOUT,
};
use scenes::{Run, SCENES};
use support::Failure;
use support::resources::Resources;

/// The error numbers that the manual page of each system call lists.
const CALLS: &[(&str, &[i32])] = &[
    ("socket", &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT, EPROTONOSUPPORT]),
    ("connect", CONNECT),
    ("accept4", ACCEPT),
    ("bind", &[EACCES, EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOMEM]),
    ("listen", &[EADDRINUSE, ENOMEM]),
    ("recvfrom", RECEIVE),
    ("recv", RECEIVE),
    ("recvmsg", RECEIVE),
    ("recvmmsg", RECEIVE),
    ("sendto", SEND),
    ("sendmsg", SEND),
    ("sendmmsg", SEND),
    ("sendfile", &[EAGAIN, EINTR, EIO, ENOMEM, EPIPE, ECONNRESET]),
    ("pread", &[EINTR, EIO]),
    ("poll", &[EINTR, ENOMEM, EINVAL]),
    ("epoll_wait", &[EINTR]),
    ("epoll_create1", HELPER),
    ("epoll_ctl", &[ENOMEM, ENOSPC]),
    ("eventfd", HELPER),
    ("timerfd_create", HELPER),
    ("timerfd_settime", &[]),
    ("getsockopt", &[ENOPROTOOPT, EINVAL]),
    ("setsockopt", &[ENOPROTOOPT, EINVAL, ENOMEM, ENOBUFS]),
    ("getsockname", &[ENOBUFS]),
    ("getpeername", &[ENOBUFS, ENOTCONN]),
    ("shutdown", &[ENOTCONN]),
    ("close", &[EINTR, EIO]),
    ("fcntl", &[EMFILE, EINVAL]),
    ("ioctl", &[EINVAL]),
    // An eventfd accepts each write of 1, and a read finds its value or EAGAIN (eventfd(2)).
    ("write", &[]),
    ("read", &[EAGAIN]),
    ("socketpair", HELPER),
    ("clone3", &[EAGAIN, ENOMEM]),
    ("fork", &[EAGAIN, ENOMEM]),
    ("waitpid", &[EINTR, ECHILD]),
    ("kill", &[EPERM, ESRCH]),
    ("pidfd_open", HELPER),
    ("fstat", &[ENOMEM]),
    ("fstatfs", &[EIO]),
    ("readlink", &[EACCES, ENOENT]),
    ("statx", &[EACCES, ENOMEM]),
    ("openat", &[EMFILE, ENFILE, ENOMEM, EACCES, ENOENT]),
    ("unlink", &[EACCES, EBUSY, EROFS]),
    ("flock", &[EINTR, ENOLCK]),
    ("chmod", &[EPERM, EROFS]),
    ("fchmod", &[EPERM]),
    ("fchownat", &[EPERM, EROFS]),
    ("getaddrinfo", &[EMFILE, ENOMEM]),
    ("getrlimit", &[]),
    ("sched_setaffinity", &[EINVAL, ESRCH]),
];
const HELPER: &[i32] = &[EMFILE, ENFILE, ENOMEM];
const CONNECT: &[i32] = &[
    EACCES,
    EPERM,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAGAIN,
    ECONNREFUSED,
    ENETUNREACH,
    EHOSTUNREACH,
    ENETDOWN,
    ETIMEDOUT,
    ENOBUFS,
    ENOMEM,
    EINTR,
];
/// All errors of accept(2) except those of a wrong descriptor.
const ACCEPT: &[i32] = &[
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    ECONNABORTED,
    EINTR,
    EPROTO,
    EPERM,
    ENETDOWN,
    EHOSTUNREACH,
    ETIMEDOUT,
];
const RECEIVE: &[i32] = &[EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, ENOMEM, ENOBUFS, EHOSTUNREACH];
const SEND: &[i32] = &[
    EINTR,
    EAGAIN,
    ECONNRESET,
    EPIPE,
    ETIMEDOUT,
    ENOBUFS,
    ENOMEM,
    EPERM,
    EHOSTUNREACH,
    ENETDOWN,
    EMSGSIZE,
];

/// Faults that no kernel causes, with the reason: words of the scene and the file, call, error number.
const IMPOSSIBLE: &[(&str, &str, i32, &str)] = &[
    ("serve/reactor", "recvfrom", EAGAIN, "a socket that epoll reports is not empty"),
    ("serve/reactor", "sendto", EAGAIN, "the kernel then reports the space in the buffer later"),
    ("serve/reactor", "sendmsg", EAGAIN, "the kernel then reports the space in the buffer later"),
    ("", "sendto", EMSGSIZE, "the scenes send no long datagram, and a stream has no limit"),
    ("", "sendmsg", EMSGSIZE, "the scenes send no long datagram, and a stream has no limit"),
    ("socket_file.rs", "connect", EINTR, "a datagram socket connects without a wait"),
    ("datagram/", "connect", EINTR, "a datagram socket connects without a wait"),
    ("datagram/", "connect", EAGAIN, "a datagram socket has no backlog"),
    ("UDP datagram/", "connect", EADDRINUSE, "UDP selects another port"),
    ("UDP datagram/", "connect", ECONNREFUSED, "UDP has no handshake"),
    ("UDP datagram/", "connect", ETIMEDOUT, "UDP has no handshake"),
    ("Unix datagrams datagram/", "connect", EADDRINUSE, "the kernel assigns no address"),
    ("Unix datagrams datagram/", "connect", ETIMEDOUT, "a Unix socket uses no network"),
    ("listener/adopt.rs", "listen", EADDRINUSE, "the socket listens already"),
    ("sys/capture.rs", "bind", EADDRINUSE, "packet sockets share their addresses"),
    ("sys/capture.rs", "bind", EADDRNOTAVAIL, "every interface"),
    ("datagram/", "getpeername", ENOTCONN, "the socket was connected before"),
    ("sys/mod.rs", "connect", EINTR, "a datagram socket connects without a wait"),
    ("activation/handover.rs", "recvfrom", ECONNRESET, "this side of the channel sends nothing"),
    ("activation/handover.rs", "recvfrom", ETIMEDOUT, "a Unix socket uses no network"),
    ("activation/handover.rs", "recvfrom", EHOSTUNREACH, "a Unix socket uses no network"),
    ("reactor/file_part.rs", "statx", EACCES, "the file is open"),
    ("sys/unix.rs", "ioctl", EINVAL, "FIONBIO is supported by each socket"),
    ("sys/capture.rs", "recvmsg", ECONNRESET, "a packet socket has no connection"),
    ("sys/capture.rs", "recvmsg", ETIMEDOUT, "a packet socket has no connection"),
    ("sys/capture.rs", "recvmsg", EHOSTUNREACH, "a packet socket has no connection"),
];

/// Calls that a short transfer applies to.
const TRANSFERS: &[&str] = &[
    "recvfrom", "recv", "recvmsg", "sendto", "sendmsg", "sendfile", "pread", "sendmmsg", "recvmmsg",
];

/// Short transfers that no kernel makes: in event loops a TCP receive returns less than the buffer
/// only if the socket is empty (tcp_recvmsg), except at urgent data. A Unix socket may return less.
const WHOLE: &[(&str, &str)] = &[("serve/reactor/event_loop/io.rs", "recvfrom")];

const DELAY: Duration = Duration::from_millis(20);
/// The number of interrupted calls in a row.
const STORM: u32 = 20;
/// The number of short transfers in a row.
const SHORT: u32 = 40;

/// The number of processes that share the work. They wait most of the time.
const WORKERS: usize = 6;
/// Set in a worker: its number.
const WORKER: &str = "KEEPSOCK_FAULTS_WORKER";
/// Limits a run to scenes and sites whose names contain these texts.
const ONLY: &str = "KEEPSOCK_FAULTS_ONLY";
/// The long form repeats each fault this often.
const ROUNDS: &str = "KEEPSOCK_FAULTS_ROUNDS";
/// A run that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// The faults for one site that is called `count` times in a scene.
fn plans(scene: &str, site: &Site, count: u32, is_gentle_only: bool) -> Vec<Plan> {
    let Some((_, errors)) = CALLS.iter().find(|(name, _)| *name == site.call) else {
        panic!("tests/faults/main.rs: CALLS has no errors of {}", site.call);
    };
    let numbers: BTreeSet<u32> = [1, 2, count].into_iter().filter(|n| *n <= count).collect();
    let place = format!("{scene} {}", site.file);
    let is_of = |part: &str| part.split(' ').all(|word| place.contains(word));
    let mut faults = Vec::new();
    // tests/support creates the token of this scene, and expects success.
    let errors = if scene.starts_with("cancel") && site.call == "eventfd" { &[] } else { *errors };
    for code in errors.iter().copied() {
        let impossible = |(part, call, number, _): &&(&str, &str, i32, &str)| {
            is_of(part) && *call == site.call && *number == code
        };
        if IMPOSSIBLE.iter().find(impossible).is_none() && (!is_gentle_only || code == EINTR) {
            faults.push(Fault::Errno(code));
        }
    }
    faults.extend([Fault::DelayBefore(DELAY), Fault::DelayAfter(DELAY)]);
    let plan = |nth, fault| Plan { site: site.clone(), nth, fault };
    let mut plans: Vec<Plan> =
        faults.iter().flat_map(|fault| numbers.iter().map(move |nth| plan(*nth, *fault))).collect();
    if faults.contains(&Fault::Errno(EINTR)) && site.call != "close" {
        plans.push(plan(1, Fault::Storm(EINTR, STORM)));
    }
    let is_whole = !scene.contains("Unix")
        && WHOLE.iter().any(|(part, call)| is_of(part) && *call == site.call);
    if TRANSFERS.contains(&site.call) && !is_whole {
        plans.push(plan(1, Fault::Short(SHORT)));
    }
    plans
}

/// Whether the library hides the fault: the scene must succeed as it does without a fault.
fn is_hidden(plan: &Plan) -> bool {
    match plan.fault {
        Fault::Errno(code) | Fault::Storm(code, _) => code == EINTR,
        Fault::Short(_) | Fault::DelayBefore(_) | Fault::DelayAfter(_) => true,
    }
}

fn name_of(fault: Fault) -> String {
    match fault {
        Fault::Errno(code) => error_name(code),
        Fault::Storm(code, count) => format!("{count} x {}", error_name(code)),
        Fault::Short(_) => "short".to_owned(),
        Fault::DelayBefore(_) => "delay before".to_owned(),
        Fault::DelayAfter(_) => "delay after".to_owned(),
    }
}

fn error_name(code: i32) -> String {
    let text = std::io::Error::from_raw_os_error(code).to_string();
    text.split(" (os").next().unwrap().to_owned()
}

/// The result of a run.
enum Ended {
    Done,
    Failed(Failure),
    Wrong(String),
}

static PANIC: Mutex<String> = Mutex::new(String::new());

fn run(scene: &scenes::Scene, plan: Option<&Plan>) -> (Ended, failpoints::Report) {
    failpoints::arm(plan.cloned());
    let run = Run::new(plan.is_none_or(is_hidden));
    let ended = catch_unwind(AssertUnwindSafe(|| (scene.run)(&run)));
    let report = run.report();
    let ended = match ended {
        Ok(Ok(())) => Ended::Done,
        Ok(Err(failure)) => Ended::Failed(failure),
        Err(_) => Ended::Wrong(PANIC.lock().unwrap().clone()),
    };
    (ended, report)
}

/// The share of one worker. It prints a line for each result.
fn work(worker: usize) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let rounds = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
        let text = format!("{place}: {text}").replace('\n', " ");
        // A panic of a callback of the C API ends the process.
        println!("> panic\t{text}");
        *PANIC.lock().unwrap() = text;
    }));
    let now = std::sync::Arc::new(Mutex::new((String::new(), Instant::now())));
    let watched = now.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(500));
            let (what, since) = watched.lock().unwrap().clone();
            if since.elapsed() > HANG {
                println!("> wrong\t{what}\thangs");
                std::process::abort();
            }
        }
    });
    let begin = |what: &str| *now.lock().unwrap() = (what.to_owned(), Instant::now());
    for scene in SCENES {
        let (mut seen, mut runs) = (BTreeMap::<Site, u32>::new(), 0);
        begin(&format!("{}\tno fault", scene.name));
        while runs < 3 {
            let (ended, report) = run(scene, None);
            match ended {
                Ended::Done => runs += 1,
                Ended::Failed(failure) => {
                    println!("> wrong\t{}\tno fault\t{failure:?}", scene.name);
                    break;
                }
                Ended::Wrong(text) => {
                    println!("> wrong\t{}\tno fault\t{text}", scene.name);
                    break;
                }
            }
            for (site, count) in report.seen {
                let most = seen.entry(site).or_default();
                *most = (*most).max(count);
            }
        }
        if worker == 0 {
            for (site, count) in &seen {
                println!("> seen\t{}\t{}\t{}\t{count}", site.file, site.line, site.call);
            }
        }
        let mut before = Resources::settled();
        for (site, count) in seen {
            let number = site.line as usize + site.file.len() + scene.name.len();
            let place = format!("{} {}:{} {}", scene.name, site.file, site.line, site.call);
            if number % WORKERS != worker || !only.split(' ').all(|word| place.contains(word)) {
                continue;
            }
            for plan in plans(scene.name, &site, count, scene.is_gentle_only) {
                for _ in 0..rounds {
                    let what = format!("{place} #{}: {}", plan.nth, name_of(plan.fault));
                    begin(&what);
                    try_one(scene, &site, &plan, &what, &mut before);
                }
            }
        }
    }
}

fn try_one(scene: &scenes::Scene, site: &Site, plan: &Plan, what: &str, before: &mut Resources) {
    let started = Instant::now();
    let (ended, report) = run(scene, Some(plan));
    let result = match ended {
        Ended::Wrong(text) => {
            println!("> wrong\t{what}\t{text}");
            "wrong".to_owned()
        }
        _ if report.hits == 0 => "missed".to_owned(),
        Ended::Done => "done".to_owned(),
        Ended::Failed(failure) if is_hidden(plan) => {
            println!("> wrong\t{what}\tfails: {failure:?}");
            "wrong".to_owned()
        }
        Ended::Failed(failure) => {
            // A failure has a status, and the next run finds a library that works.
            if let (Ended::Failed(again), _) = run(scene, None) {
                println!("> wrong\t{what}\t{failure:?}, and without a fault: {again:?}");
            }
            format!("status {}", failure.status)
        }
    };
    if let Some(left) = before.await_again(Duration::from_secs(20)) {
        println!("> wrong\t{what}\tleft {left}");
        *before = Resources::now();
    }
    let fault = name_of(plan.fault);
    let ms = started.elapsed().as_millis();
    println!(
        "> tried\t{}\t{}\t{}\t{fault}\t{result}\t{ms}\t{}",
        site.file, site.line, site.call, scene.name
    );
}

/// A row of the matrix.
#[derive(Default)]
struct Row {
    calls: u32,
    faults: BTreeSet<String>,
    results: BTreeMap<String, u32>,
}

/// E1, E4, L3, I1, I4: after each fault at each system call, a call returns a documented status, no
/// byte is lost, a reset is no end of stream, services continue, and nothing is leaked.
#[test]
#[ignore = "run by `cargo xtask faults`"]
fn library_with_a_fault_at_each_system_call_keeps_its_guarantees() {
    if let Ok(worker) = std::env::var(WORKER) {
        return work(worker.parse().unwrap());
    }
    let name = test_name!("library_with_a_fault_at_each_system_call_keeps_its_guarantees");
    let started = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", &name, "--include-ignored", "--nocapture"]);
            command.env(WORKER, worker.to_string()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let output = BufReader::new(child.stdout.take().unwrap());
            let lines = thread::spawn(move || {
                let lines = output.lines().map_while(Result::ok);
                let said = lines.filter_map(|line| Some(line.split_once("> ")?.1.to_owned()));
                said.collect::<Vec<_>>()
            });
            (child, lines)
        })
        .collect();
    let (mut rows, mut wrong) = (BTreeMap::<sites::Place, Row>::new(), Vec::new());
    for (mut child, lines) in workers {
        let mut last_panic = String::new();
        for line in lines.join().unwrap() {
            let words: Vec<&str> = line.split('\t').collect();
            match words[..] {
                ["seen", file, at, call, count] => {
                    let row = rows.entry(place(file, at, call)).or_default();
                    row.calls = row.calls.max(count.parse().unwrap());
                }
                ["tried", file, at, call, fault, result, ..] => {
                    let row = rows.entry(place(file, at, call)).or_default();
                    row.faults.insert(fault.to_owned());
                    *row.results.entry(result.to_owned()).or_default() += 1;
                }
                ["panic", text] => last_panic = text.to_owned(),
                _ => wrong.push(words.get(1..).unwrap_or_default().join(": ")),
            }
        }
        let status = child.wait().unwrap();
        if !status.success() {
            wrong.push(format!("a worker ended: {status}: {last_panic}"));
        }
    }
    report(&rows, started.elapsed());
    let problems = unexplained(&rows);
    if std::env::var_os(ONLY).is_none() {
        wrong.extend(problems);
    }
    assert!(wrong.is_empty(), "{} findings:\n{}\n", wrong.len(), wrong.join("\n"));
}

fn place(file: &str, line: &str, call: &str) -> sites::Place {
    (file.to_owned(), line.parse().unwrap(), call.to_owned())
}

/// Prints the matrix.
fn report(rows: &BTreeMap<sites::Place, Row>, time: Duration) {
    let sites = sites::sites();
    let mut total = BTreeMap::<String, u32>::new();
    println!("\nsite | function | call | calls | faults | results");
    for (place @ (file, line, call), row) in rows {
        let function = sites.get(place).map_or("?", String::as_str);
        let results: Vec<_> = row.results.iter().map(|(name, n)| format!("{n} {name}")).collect();
        println!(
            "{}:{line} | {function} | {call} | {} | {} | {}",
            file.trim_start_matches("src/"),
            row.calls,
            row.faults.len(),
            results.join(", ")
        );
        for (name, count) in &row.results {
            let name = if name.starts_with("status") { "documented errors" } else { name };
            *total.entry(name.to_owned()).or_default() += count;
        }
    }
    let tried: u32 = total.values().sum();
    let reached = sites.keys().filter(|place| rows.contains_key(*place)).count();
    println!(
        "\n{reached} of {} sites reached, {tried} faults tried in {:.0} s: {total:?}",
        sites.len(),
        time.as_secs_f64()
    );
}

/// The sites that no scene reaches for certain, with the reason: file, function, system call.
const UNREACHED: &[(&str, &str, &str, &str)] = &[
    ("activation/inherited.rs", "ready", "sendto", SUCCESSOR),
    ("activation/item.rs", "is_unconnected_datagram", "getpeername", SUCCESSOR),
    ("activation/item.rs", "address", "getsockname", SUCCESSOR),
    ("activation/item.rs", "is_bound_to", "getsockname", SUCCESSOR),
    ("activation/item.rs", "is_file_of", "getsockname", SUCCESSOR),
    ("sys/process.rs", "check_passed", "fcntl", SUCCESSOR),
    ("sys/process.rs", "keep_from_programs", "fcntl", SUCCESSOR),
    ("sys/process.rs", "own_pidfd_inode", "pidfd_open", SUCCESSOR),
    ("sys/process.rs", "own_pidfd_inode", "fstatfs", SUCCESSOR),
    ("sys/process.rs", "describe_socket", "getsockname", SUCCESSOR),
    ("sys/process.rs", "describe_socket", "getpeername", SUCCESSOR),
    ("sys/process.rs", "describe_socket", "getsockopt", SUCCESSOR),
    ("sys/process.rs", "own_program", "readlink", SUCCESSOR),
    ("sys/process.rs", "own_args", "openat", SUCCESSOR),
    ("connect/attempt.rs", "handshake_result", "getsockopt", SLOW),
    ("connect/attempt.rs", "own_address", "getsockname", SLOW),
    ("connect/attempt.rs", "connect_unix", "getsockopt", OTHER_TYPE),
    ("reactor/detach.rs", "detach", "shutdown", "after shutdown_write: tests/it/detach.rs"),
    ("connect/pending.rs", "find_writable", "poll", SLOW),
    ("sys/poll_set.rs", "remove", "epoll_ctl", SLOW),
    ("datagram/construct.rs", "bind_at", "setsockopt", MULTICAST),
    ("sys/unix.rs", "share_port", "setsockopt", MULTICAST),
    ("sys/unix.rs", "is_bound_to_interface", "getsockopt", MULTICAST),
    ("datagram/construct.rs", "bind_name", "bind", "only a lack of memory leads there"),
    ("datagram/mod.rs", "is_shut_down", "poll", FOREIGN),
    (
        "datagram/mod.rs",
        "may_not_broadcast",
        "getsockopt",
        "without broadcast: tests/it/datagram.rs",
    ),
    ("sys/datagram/option.rs", "is_empty", "recvfrom", FOREIGN),
    ("sys/unix.rs", "wake_receivers", "shutdown", FOREIGN),
    ("sys/unix.rs", "is_hung_up", "poll", "only some orders of threads lead there"),
    ("sys/unix.rs", "is_hung_up_by_poll", "poll", "only some orders of threads lead there"),
    ("sys/tcp.rs", "is_gone", "getsockopt", FOREIGN),
    ("sys/tcp.rs", "ended_without_fin", "getsockopt", FOREIGN),
    ("sys/tcp.rs", "ended_without_fin", "setsockopt", FOREIGN),
    ("sys/tcp.rs", "ended_without_fin", "recvmsg", FOREIGN),
    ("sys/unix.rs", "connection_kind", "getsockname", FOREIGN),
    ("listener/listen.rs", "is_ipv6_missing", "bind", "this machine has IPv6"),
    ("sys/unix.rs", "accept_without_flags", "accept", "without accept4: tests/it/listen.rs"),
    ("sys/unix.rs", "accept_without_flags", "fcntl", "without accept4: tests/it/listen.rs"),
    ("listener/socket.rs", "retry_transient", "accept4", EMERGENCY),
    ("socket_file.rs", "others", "statx", "another process locks the path at the same time"),
    ("reactor/event_loop/deadlines.rs", "run_liveness", "getsockopt", DEAD),
    ("reactor/event_loop/io.rs", "receive", "getsockopt", DEAD),
    ("sys/mod.rs", "pending_error", "getsockopt", DEAD),
    ("stream/liveness/mod.rs", "declare_dead", "getsockopt", DEAD),
    ("stream/liveness/mod.rs", "hard_error", "getsockopt", DEAD),
    ("reactor/file_part.rs", "copy", "sendto", COPIED),
    ("stream/sendfile.rs", "send_range", "sendto", COPIED),
    ("stream/close.rs", "detach_socket", "fcntl", IN_USE),
    ("stream/close.rs", "end_other_calls", "fcntl", IN_USE),
    ("stream/close.rs", "close_or_reset", "shutdown", IN_USE),
    ("stream/close.rs", "end_other_calls_by_reset", "shutdown", IN_USE),
    ("stream/close.rs", "set_draining", "shutdown", IN_USE),
    ("stream/try_send.rs", "try_send", "sendto", "a service in thread mode sends to all"),
    ("stream/write.rs", "send_slices", "sendto", "one buffer is longer than a kernel call"),
    ("sys/capture.rs", "capture", "setsockopt", "the process has no CAP_NET_ADMIN"),
    ("sys/capture.rs", "capture_drops", "getsockopt", "the queue of packets overflows"),
    ("sys/mod.rs", "is_datagram_discarded", "connect", "a route of the machine discards packets"),
    (
        "sys/sendfile.rs",
        "is_character_device",
        "fstat",
        "to the end of a file: tests/it/conn_file.rs",
    ),
    (
        "sys/scm_rights.rs",
        "open_socket_file",
        "openat",
        "root has CAP_NET_ADMIN: tests/it/unix_stream.rs",
    ),
    ("sys/scm_rights.rs", "set_socket_file", "fchmodat2", "the machine has no /proc"),
];
const SUCCESSOR: &str = "in a successor process, or of the own program: tests/it/handover.rs";
const OTHER_TYPE: &str = "a socket of another type is bound to the path: tests/it/unix_stream.rs";
const SLOW: &str = "a handshake that takes time: tests/it/pending_connect.rs, tests/netns";
const MULTICAST: &str = "a socket bound to a multicast group: tests/it/datagram.rs";
const FOREIGN: &str = "a descriptor that other code has changed, or shares: tests/it/ends.rs";
const EMERGENCY: &str = "shedding without descriptors: tests/it/listen.rs";
const DEAD: &str =
    "a peer that vanished, or a throttled connection: tests/netns, tests/it/liveness.rs";
const COPIED: &str = "a file that sendfile(2) does not accept: tests/it/send_file.rs";
const IN_USE: &str = "a descriptor in use by calls or by the program: tests/it/close.rs";

/// Sites that are not reached and not explained. Prints the explanations, and those of sites that some
/// order of the threads has reached.
fn unexplained(rows: &BTreeMap<sites::Place, Row>) -> Vec<String> {
    let mut problems = Vec::new();
    let sites = sites::sites();
    let missing: Vec<_> = sites.iter().filter(|(place, _)| !rows.contains_key(*place)).collect();
    for (place @ (file, line, call), function) in &missing {
        let explained = UNREACHED
            .iter()
            .find(|(part, name, of, _)| file.ends_with(part) && name == function && of == call);
        match explained {
            Some((.., reason)) => {
                println!("not reached: {file}:{line} {function} {call}: {reason}")
            }
            None => problems.push(format!("not reached, not explained: {place:?} in {function}")),
        }
    }
    for (part, name, of, _) in UNREACHED {
        let is_missing = missing.iter().any(|((file, _, call), function)| {
            file.ends_with(part) && name == function && of == call
        });
        if !is_missing {
            println!("reached this time, although UNREACHED lists it: {part} {name} {of}");
        }
    }
    for place in rows.keys().filter(|place| !sites.contains_key(*place)) {
        problems.push(format!("the sources have no such site: {place:?}"));
    }
    problems
}
