//! C2, T2: races that are cancelled at any moment leave nothing behind. The test counts resources
//! of the whole process, so it runs in its own process.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)] // mallinfo2(3)

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::watch;
use keepsock::{CancelToken, ClientSocket, ErrorKind, PendingConnect, SocketOptions};

use crate::support::netns::{in_namespace, names, row};
use crate::support::watch::{count_descriptors, count_threads};

const LIMIT: Duration = Duration::from_secs(120);
const RACES: u32 = 10_000;
const AT_ONCE: u32 = 8;

/// Splitmix64. Any sequence is sufficient, but it must be known to repeat a failure.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Addresses that connect, that refuse, and that never reply.
struct Field {
    live: Vec<SocketAddr>,
    refused: SocketAddr,
    silent: Vec<SocketAddr>,
    _sockets: Vec<socket2::Socket>,
}

fn bound() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

fn address(socket: &socket2::Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

impl Field {
    fn new() -> Field {
        let mut field = Field {
            live: vec![],
            refused: ([127, 0, 0, 1], 1).into(),
            silent: vec![],
            _sockets: vec![],
        };
        let refused = bound();
        field.refused = address(&refused);
        field._sockets.push(refused);
        for _ in 0..2 {
            // A full queue: listen(2) queues one more than requested, and then answers no SYN.
            let silent = bound();
            silent.listen(0).unwrap();
            field.silent.push(address(&silent));
            for _ in 0..2 {
                let filler = bound();
                filler.set_nonblocking(true).unwrap();
                let _ = filler.connect(&address(&silent).into());
                field._sockets.push(filler);
            }
            field._sockets.push(silent);
        }
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            field.live.push(listener.local_addr().unwrap());
            thread::spawn(move || while listener.accept().is_ok() {});
        }
        field
    }

    fn any(&self, random: &mut Random) -> SocketAddr {
        match random.below(5) {
            0 => self.live[0],
            1 => self.live[1],
            2 => self.refused,
            n => self.silent[n as usize - 3],
        }
    }
}

/// The number of races of each result.
#[derive(Default)]
struct Ends {
    connected: u32,
    cancelled: u32,
    refused: u32,
    timed_out: u32,
    dropped: u32,
}

fn race(
    field: &Field,
    random: &mut Random,
    ends: &mut Ends,
    fire: &mpsc::Sender<(CancelToken, Duration)>,
) {
    let token = CancelToken::new().unwrap();
    let mut options = SocketOptions::new()
        .attempt_delay(Duration::from_millis(10))
        .connect_timeout(Duration::from_millis(1 + random.below(40)))
        .close_timeout(Duration::ZERO)
        .cancel(&token);
    for _ in 0..=random.below(5) {
        options = options.remote_address(field.any(random));
    }
    // A name uses the resolver, in a thread that may be abandoned.
    let endpoint = if random.below(8) == 0 {
        options = SocketOptions::new().connect_timeout(Duration::from_millis(20)).cancel(&token);
        format!("near.test:{}", field.live[0].port())
    } else {
        "service:80".to_owned()
    };
    if random.below(2) == 0 {
        let after = Duration::from_micros(random.below(12_000));
        fire.send((token.clone(), after)).unwrap();
    }
    let outcome = match random.below(4) {
        0 => match PendingConnect::start(endpoint.as_str(), &options) {
            Ok(mut connecting) => {
                if random.below(2) == 0 {
                    let _ = connecting.descriptor().unwrap();
                }
                for _ in 0..random.below(4) {
                    if matches!(connecting.finish(), Ok(Some(_)) | Err(_)) {
                        break;
                    }
                    thread::sleep(Duration::from_micros(random.below(3000)));
                }
                ends.dropped += 1;
                return;
            }
            Err(e) => Err(e),
        },
        1 => PendingConnect::start(endpoint.as_str(), &options).and_then(|mut c| c.wait()),
        _ => ClientSocket::connect_with(endpoint.as_str(), &options),
    };
    match outcome.map_err(|e| e.kind()) {
        Ok(client) => {
            client.abort();
            ends.connected += 1;
        }
        Err(ErrorKind::Cancelled) => ends.cancelled += 1,
        Err(ErrorKind::Refused) => ends.refused += 1,
        Err(ErrorKind::TimedOut) => ends.timed_out += 1,
        Err(other) => panic!("{other}"),
    }
}

fn many(field: &Field, races: u32, seed: u64) -> Ends {
    let mut all = Ends::default();
    thread::scope(|scope| {
        let (fire, to_fire) = mpsc::channel::<(CancelToken, Duration)>();
        scope.spawn(move || {
            for (token, after) in to_fire {
                thread::sleep(after / AT_ONCE);
                token.fire();
            }
        });
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|i| {
                let fire = fire.clone();
                scope.spawn(move || {
                    let (mut random, mut ends) =
                        (Random(seed ^ u64::from(i) << 32), Ends::default());
                    for _ in 0..races / AT_ONCE {
                        race(field, &mut random, &mut ends, &fire);
                    }
                    ends
                })
            })
            .collect();
        drop(fire);
        for thread in threads {
            let ends = thread.join().unwrap();
            all.connected += ends.connected;
            all.cancelled += ends.cancelled;
            all.refused += ends.refused;
            all.timed_out += ends.timed_out;
            all.dropped += ends.dropped;
        }
    });
    watch::await_that("no lookup is in progress", || count_threads("keepsock-lookup") == 0);
    all
}

/// Allocated bytes in all arenas.
fn allocated() -> usize {
    // SAFETY: no memory is passed.
    unsafe { libc::mallinfo2().uordblks }
}

/// The live threads. A joined thread may still be exiting for a moment (PF_EXITING, among the flags
/// in stat of proc(5)).
fn threads() -> usize {
    const PF_EXITING: u32 = 4;
    let lives = |task: std::io::Result<std::fs::DirEntry>| {
        // The thread may have exited in the meantime.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(") ")?;
        let flags: u32 = after_name.split(' ').nth(6)?.parse().ok()?;
        (flags & PF_EXITING == 0).then_some(())
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(lives).count()
}

/// C2, T2: a race leaves no descriptor, thread or memory, whatever its result.
#[test]
#[ignore = "long: cargo xtask netns"]
fn connect_race_that_is_cancelled_leaves_nothing_behind() {
    in_namespace(
        &test_name!("connect_race_that_is_cancelled_leaves_nothing_behind"),
        LIMIT,
        || {
            names("127.0.0.1 near.test\n");
            let field = Field::new();
            let seed = RandomState::new().build_hasher().finish();
            println!("seed {seed:#x}");
            // Objects that are created once are created here.
            many(&field, 400, seed ^ 1);
            let before = (count_descriptors(), threads(), allocated());
            let ends = many(&field, RACES, seed);
            let after = (count_descriptors(), threads(), allocated());
            assert_eq!((before.0, before.1), (after.0, after.1), "descriptors and threads");
            // A leak of one byte per race would exceed this.
            let grown = after.2.saturating_sub(before.2);
            assert!(grown < RACES as usize, "{grown} bytes more");
            let Ends { connected, cancelled, refused, timed_out, dropped } = ends;
            for n in [connected, cancelled, refused, timed_out, dropped] {
                assert!(n > 0, "each kind of result occurs");
            }
            row(
                "C2 races cancelled at random",
                "10 000 races",
                format!(
                    "0 descriptors, 0 threads, {grown} bytes left ({connected} connected, \
                 {cancelled} cancelled, {refused} refused, {timed_out} timed out, {dropped} dropped)"
                ),
                "counts before",
            );
        },
    );
}
