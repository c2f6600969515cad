//! Compares SYNs and handshakes with the packets that tcpdump captured. Each test has its own
//! network namespace, which no packet leaves.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{limits, netns, watch};
use keepsock::{
    Capture, ClientSocket, ErrorKind, FiveTuple, Handshake, Segment, ServerSocket, SocketOptions,
    TcpFlags,
};

use crate::support::netns::{in_namespace, ip, row};
use crate::support::process::{cannot, in_process};
use crate::support::timing::ms;

const LIMIT: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(10);

// ---- the reference ---------------------------------------------------------------------

/// tcpdump on the loopback interface. It prints each packet of a port, and stores it.
struct Tcpdump {
    child: Child,
    lines: mpsc::Receiver<String>,
    file: PathBuf,
    seen: Vec<String>,
}

impl Tcpdump {
    fn start(port: u16) -> Tcpdump {
        let file =
            std::env::temp_dir().join(format!("keepsock-netns-{}-{port}", std::process::id()));
        let mut command = Command::new("tcpdump");
        // As root, tcpdump would switch to another user, who may not write the file.
        command.args("-Z root -i lo -n -S -t -l -U --print --immediate-mode".split(' '));
        command.arg("-w").arg(&file).arg(format!("tcp port {port}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| cannot(&format!("tcpdump: {e}")));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        // tcpdump prints a line when its capture has started.
        while !said.contains("listening on") {
            if errors.read_line(&mut said).unwrap_or(0) == 0 {
                cannot(said.trim());
            }
        }
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let (send, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Tcpdump { child, lines, file, seen: Vec::new() }
    }

    /// Waits for a line for which `is_it` returns true.
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.seen.iter().find(|line| is_it(line)) {
                return line.clone();
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("tcpdump has not seen {what}, but {:#?}", self.seen),
            }
        }
    }

    /// The number of lines so far with these flags.
    fn count(&self, flags: &str) -> usize {
        let flags = format!("Flags [{flags}]");
        self.seen.iter().filter(|line| line.contains(&flags)).count()
    }

    /// Ends tcpdump, so that its file is complete.
    fn stop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        watch::interrupt(pid);
        self.child.wait().unwrap();
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Reads the packets in tcpdump's file with tshark.
const FIELDS: [&str; 19] = [
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "ip.ttl",
    "ipv6.hlim",
    "ip.dsfield",
    "ipv6.tclass",
    "ip.flags.df",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.window_size_value",
    "tcp.urgent_pointer",
    "tcp.options",
    "tcp.len",
    "frame.time_epoch",
];

/// The fields of a captured segment in the form of tshark, and its time.
fn fields(s: &Segment) -> Vec<String> {
    let four = s.source.is_ipv4();
    let only = |on: bool, value: String| if on { value } else { String::new() };
    let hex: String = s.option_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        only(four, s.source.ip().to_string()),
        only(four, s.destination.ip().to_string()),
        only(!four, s.source.ip().to_string()),
        only(!four, s.destination.ip().to_string()),
        s.source.port().to_string(),
        s.destination.port().to_string(),
        only(four, s.ttl.to_string()),
        only(!four, s.ttl.to_string()),
        only(four, format!("{:#04x}", s.traffic_class)),
        only(!four, format!("{:#010x}", s.traffic_class)),
        only(four, u8::from(s.dont_fragment).to_string()),
        format!("{:#06x}", s.flags.bits()),
        s.seq.to_string(),
        s.ack.to_string(),
        s.window.to_string(),
        s.urgent.to_string(),
        hex,
        s.payload_len.to_string(),
    ]
}

/// Compares segments field by field with tcpdump's packets as tshark reads them, or, without
/// tshark, with tcpdump's output for their IP headers. Returns the name of the reference.
fn compare_fields(tcpdump: &Tcpdump, segments: &[&Segment]) -> &'static str {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&tcpdump.file).args(["-T", "fields", "-E", "separator=|"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let Ok(output) = command.output() else {
        return compare_headers(tcpdump, segments);
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').collect()).collect();
    for segment in segments {
        let ours = fields(segment);
        let row = rows.iter().find(|row| row[..ours.len()] == ours[..]);
        let row = row.unwrap_or_else(|| panic!("tshark has no {ours:#?} in {rows:#?}"));
        if let Some(time) = segment.captured {
            let ours = time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let theirs: f64 = row[FIELDS.len() - 1].parse().unwrap();
            assert!((ours - theirs).abs() < 0.1, "captured at {ours}, for tcpdump at {theirs}");
        }
    }
    "tshark"
}

fn compare_headers(tcpdump: &Tcpdump, segments: &[&Segment]) -> &'static str {
    println!("no tshark: tcpdump -v is used instead");
    let mut command = Command::new("tcpdump");
    command.arg("-r").arg(&tcpdump.file).args(["-n", "-S", "-t", "-v"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // For IPv4 the second part is on its own line.
    let text = text.replace("\n    ", " ");
    for s in segments {
        let (from, to) = (s.source, s.destination);
        let mut parts = vec![
            format!("{}.{} > {}.{}: ", from.ip(), from.port(), to.ip(), to.port()),
            format!("Flags [{}]", s.flags),
            format!("win {}", s.window),
        ];
        if from.is_ipv4() {
            parts.push(format!("tos {:#x}", s.traffic_class));
            parts.push(format!("ttl {},", s.ttl));
            parts.push(format!("flags [{}]", if s.dont_fragment { "DF" } else { "none" }));
        } else {
            parts.push(format!("hlim {},", s.ttl));
        }
        let there = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(there, "no packet with {parts:?} in {text}");
    }
    "tcpdump -v"
}

// ---- one connection and its references -------------------------------------------------------

struct Observed {
    syn: Result<Segment, keepsock::Error>,
    handshake: Handshake,
    tcpdump: Tcpdump,
}

impl Observed {
    /// The lines of tcpdump for the three packets, the first copy of each.
    fn lines(&self) -> [&String; 3] {
        let flags = self.handshake.steps().map(|step| format!("Flags [{}]", step.segment.flags));
        let find = |flags: &str| self.tcpdump.seen.iter().find(|line| line.contains(flags));
        [0, 1, 2].map(|i| find(&flags[i]).unwrap())
    }
}

fn listen(endpoint: &str) -> (ServerSocket, Tcpdump, Capture) {
    let options = SocketOptions::new().save_syn(true).close_timeout(Duration::ZERO);
    let server = ServerSocket::listen_with(endpoint, &options).unwrap();
    let tcpdump = Tcpdump::start(server.port());
    let capture = Capture::on_port(server.port()).unwrap();
    (server, tcpdump, capture)
}

/// Connects to the server at this local address, and returns all views of the handshake.
fn observe(
    (server, mut tcpdump, capture): (ServerSocket, Tcpdump, Capture),
    host: &str,
) -> Observed {
    let client = ClientSocket::connect(format!("{host}:{}", server.port()).as_str()).unwrap();
    let accepted = server.accept().unwrap();
    capture.handshake(&client.five_tuple(), PATIENCE).unwrap();
    let handshake = settled(&mut tcpdump, &capture, &accepted.five_tuple());
    let syn = accepted.saved_syn().cloned();
    client.abort();
    Observed { syn, handshake, tcpdump }
}

/// Returns the handshake when both captures contain the same packets, because copies may arrive after
/// its end. tcpdump has then written all of them.
fn settled(tcpdump: &mut Tcpdump, capture: &Capture, of: &FiveTuple) -> Handshake {
    let mut handshake = capture.handshake(of, PATIENCE).unwrap();
    let last = handshake.lines()[2].clone();
    tcpdump.wait_for(&last, |line| line == last);
    watch::await_that("both captures contain the same packets", || {
        handshake = capture.handshake(of, Duration::ZERO).unwrap();
        tcpdump.seen.extend(tcpdump.lines.try_iter());
        let again = (handshake.syn_retransmissions, handshake.syn_ack_retransmissions);
        let flags = handshake.steps().map(|step| step.segment.flags.to_string());
        let copies = [&flags[0], &flags[1]].map(|flags| tcpdump.count(flags) as u32);
        copies == [again.0 + 1, again.1 + 1]
    });
    tcpdump.stop();
    handshake
}

/// Compares the saved SYN and the captured segments with tcpdump's, field by field (N2, N3).
fn assert_as_seen(name: &str, observed: &Observed) {
    let (handshake, lines) = (&observed.handshake, observed.lines());
    let syn = observed.syn.as_ref().unwrap();
    assert_eq!(handshake.lines().iter().collect::<Vec<_>>(), lines);
    assert_eq!(syn.to_string(), *lines[0]);
    let all = [syn, &handshake.syn, &handshake.syn_ack, &handshake.ack];
    let control = compare_fields(&observed.tcpdump, &all);
    println!("{}\n{}", handshake.lines().join("\n"), handshake.diagram());
    let on_wire = |line: &str, word: &str| -> String {
        let (_, after) = line.split_once(word).unwrap();
        after.chars().take_while(char::is_ascii_digit).collect()
    };
    row(
        &format!("SYN {name}"),
        "seq from the kernel = seq on the wire",
        format!("{} = {}", syn.seq, on_wire(lines[0], "seq ")),
        "tcpdump",
    );
    row(
        &format!("handshake {name}"),
        &format!("three packets, {} fields each, equal to the packets on the wire", FIELDS.len()),
        format!(
            "j {} = {}, k {} = {}",
            handshake.syn.seq,
            on_wire(lines[0], "seq "),
            handshake.syn_ack.seq,
            on_wire(lines[1], "seq ")
        ),
        control,
    );
}

/// N2, N3: IPv4, IPv6, and both on a dual-stack listener are decoded as they were on the wire.
#[test]
fn handshake_fields_equal_the_packets_on_the_wire() {
    in_namespace(&test_name!("handshake_fields_equal_the_packets_on_the_wire"), LIMIT, || {
        for (name, endpoint, host) in [
            ("IPv4", "127.0.0.1:0", "127.0.0.1"),
            ("IPv6", "[::1]:0", "[::1]"),
            ("IPv4 to a dual-stack listener", "*:0", "127.0.0.1"),
            ("IPv6 to a dual-stack listener", "*:0", "[::1]"),
        ] {
            let observed = observe(listen(endpoint), host);
            assert_as_seen(name, &observed);
            assert_eq!(observed.handshake.syn.source.is_ipv4(), name.contains("IPv4"));
            assert_eq!(observed.handshake.syn_retransmissions, 0);
        }
    });
}

/// N2, N3: unusual header fields are decoded: ECN, other options, another TTL.
#[test]
fn handshake_with_unusual_headers_is_decoded() {
    in_namespace(&test_name!("handshake_with_unusual_headers_is_decoded"), LIMIT, || {
        netns::sysctl("net.ipv4.tcp_ecn", "1");
        netns::sysctl("net.ipv4.ip_default_ttl", "33");
        netns::sysctl("net.ipv6.conf.all.hop_limit", "34");
        netns::sysctl("net.ipv6.conf.lo.hop_limit", "34");
        netns::sysctl("net.ipv4.tcp_timestamps", "0");
        ip("link set lo mtu 1400");
        for (name, endpoint, host, ttl) in
            [("IPv4, ECN", "127.0.0.1:0", "127.0.0.1", 33), ("IPv6, ECN", "[::1]:0", "[::1]", 34)]
        {
            let observed = observe(listen(endpoint), host);
            assert_as_seen(name, &observed);
            let syn = &observed.handshake.syn;
            assert_eq!((syn.ttl, syn.timestamps()), (ttl, None));
            assert!(syn.flags.contains(TcpFlags::ECE | TcpFlags::CWR), "{syn}");
            assert!(syn.mss() < Some(1400), "{syn}");
        }
        netns::sysctl("net.ipv4.tcp_sack", "0");
        netns::sysctl("net.ipv4.tcp_window_scaling", "0");
        let observed = observe(listen("127.0.0.1:0"), "127.0.0.1");
        assert_as_seen("without options", &observed);
        let syn = &observed.handshake.syn;
        assert_eq!((syn.sack_permitted(), syn.window_scale()), (false, None));
    });
}

/// Drops the first packet of each connection with these flags and this port.
fn lose_first(flags: &str, port: &str) {
    netns::nft(&format!(
        "table inet lossy {{
  set seen {{
    type inet_service
    size 1024
    flags dynamic
  }}
  chain in {{
    type filter hook input priority 0; policy accept;
    tcp flags & (syn | ack) == {flags} tcp {port} @seen accept
    tcp flags & (syn | ack) == {flags} add @seen {{ tcp {port} }} drop
  }}
}}
"
    ));
}

/// N2, N3: the retransmission of a lost SYN is counted, and the numbers are correct. The kernel
/// saves the copy that arrived.
#[test]
fn lost_syn_is_counted_as_retransmission() {
    in_namespace(&test_name!("lost_syn_is_counted_as_retransmission"), LIMIT, || {
        lose_first("syn", "sport");
        for (name, endpoint, host) in
            [("IPv4", "127.0.0.1:0", "127.0.0.1"), ("IPv6", "[::1]:0", "[::1]")]
        {
            let observed = observe(listen(endpoint), host);
            let (handshake, lines) = (&observed.handshake, observed.lines());
            assert_eq!(handshake.lines().iter().collect::<Vec<_>>(), lines);
            let copies = observed.tcpdump.count("S");
            assert_eq!((handshake.syn_retransmissions, copies), (1, 2));
            assert_eq!(handshake.syn_ack_retransmissions, 0);
            assert!(handshake.diagram().contains("sent 2 times"));
            let syn = observed.syn.as_ref().unwrap();
            assert_eq!(syn.seq, handshake.syn.seq);
            let mut syns = observed.tcpdump.seen.iter().rev();
            let second = syns.find(|line| line.contains("Flags [S]"));
            assert_eq!(second, Some(&syn.to_string()), "the copy that arrived");
            let all = [syn, &handshake.syn, &handshake.syn_ack, &handshake.ack];
            compare_fields(&observed.tcpdump, &all);
            row(
                &format!("lost SYN {name}"),
                "retransmissions counted, numbers right",
                format!("{} retransmitted, {copies} on the wire", handshake.syn_retransmissions),
                "tcpdump",
            );
        }
    });
}

/// N3: a port is reused while its first handshake is stored. The call waits for the second
/// handshake once it has begun. If it fails, the first one is returned.
#[test]
fn handshake_of_reused_port_is_the_latest() {
    in_namespace(&test_name!("handshake_of_reused_port_is_the_latest"), LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let capture = Capture::on_port(server.port()).unwrap();
        let from: keepsock::Endpoint = "127.0.0.1:45678".parse().unwrap();
        let options = SocketOptions::new().local_endpoint(from).connect_timeout(PATIENCE);
        let connect = || {
            let client = ClientSocket::connect_with(server.endpoint(), &options).unwrap();
            let of = client.five_tuple();
            client.abort(); // leaves no TIME-WAIT
            of
        };
        let of = connect();
        let first = capture.handshake(&of, PATIENCE).unwrap();
        lose_first("syn", "sport");
        thread::scope(|scope| {
            let again = scope.spawn(connect);
            watch::await_that("the second SYN is sent", || watch::count_syn_sent() == 1);
            let second = capture.handshake(&of, PATIENCE).unwrap();
            assert_eq!(again.join().unwrap(), of);
            assert_ne!(second.syn.seq, first.syn.seq);
            assert_eq!(second.syn_retransmissions, 1);
            // A lookup without a timeout returns the latest complete handshake.
            assert_eq!(capture.handshake(&of, Duration::ZERO).unwrap().syn, second.syn);
        });
    });
}

/// N3: the retransmission of a lost SYN-ACK is counted.
#[test]
fn lost_syn_ack_is_counted_as_retransmission() {
    in_namespace(&test_name!("lost_syn_ack_is_counted_as_retransmission"), LIMIT, || {
        lose_first("syn | ack", "dport");
        let observed = observe(listen("127.0.0.1:0"), "127.0.0.1");
        let (handshake, lines) = (&observed.handshake, observed.lines());
        assert_eq!(handshake.lines().iter().collect::<Vec<_>>(), lines);
        let (syns, answers) = (observed.tcpdump.count("S"), observed.tcpdump.count("S."));
        let again = (handshake.syn_retransmissions, handshake.syn_ack_retransmissions);
        assert!(answers > 1, "no SYN-ACK was lost: {:#?}", observed.tcpdump.seen);
        assert_eq!((again.0 as usize + 1, again.1 as usize + 1), (syns, answers));
        row(
            "lost SYN+ACK",
            "retransmissions counted, numbers right",
            format!("{} retransmitted, {answers} on the wire", again.1),
            "tcpdump",
        );
    });
}

/// The number of SYN cookies that this network has sent.
fn cookies_sent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "SyncookiesSent").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// N2: a server that replies with SYN cookies saves no SYN, and the error says so. The handshake is
/// captured nevertheless.
#[test]
fn handshake_with_syn_cookies_is_observed() {
    in_namespace(&test_name!("handshake_with_syn_cookies_is_observed"), LIMIT, || {
        for (name, host) in [("IPv4", "127.0.0.1"), ("IPv6", "[::1]")] {
            let endpoint = format!("{host}:0");
            netns::sysctl("net.ipv4.tcp_syncookies", "2");
            let before = cookies_sent();
            let observed = observe(listen(&endpoint), host);
            assert_eq!(cookies_sent(), before + 1, "no cookie was sent");
            let err = observed.syn.as_ref().unwrap_err();
            assert_eq!(err.kind(), ErrorKind::NotFound);
            assert!(err.to_string().contains("not saved"), "{err}");
            assert_eq!(observed.handshake.lines().iter().collect::<Vec<_>>(), observed.lines());
            // Control case: without cookies the kernel saves the SYN.
            netns::sysctl("net.ipv4.tcp_syncookies", "1");
            let control = observe(listen(&endpoint), host);
            assert_eq!(cookies_sent(), before + 1);
            assert_eq!(control.syn.as_ref().unwrap().seq, control.handshake.syn.seq);
            row(
                &format!("SYN cookies {name}"),
                "the error is \"not saved\"",
                err.to_string(),
                "saved without cookies",
            );
        }
    });
}

/// N2, N3: TCP Fast Open: the SYN carries data, which is acknowledged with it.
#[test]
fn handshake_with_data_in_syn_is_decoded() {
    in_namespace(&test_name!("handshake_with_data_in_syn_is_decoded"), LIMIT, || {
        // Both sides may use it without a cookie, and each listener does (ip-sysctl.rst).
        netns::sysctl("net.ipv4.tcp_fastopen", &format!("{}", 0x1 | 0x2 | 0x4 | 0x200 | 0x400));
        let (server, mut tcpdump, capture) = listen("127.0.0.1:0");
        let there = SocketAddr::from(([127, 0, 0, 1], server.port()));
        let client = watch::connect_with_data(there, b"early data");
        let accepted = server.accept().unwrap();
        let mut early = [0; 10];
        accepted.read_exact(&mut early).unwrap();
        assert_eq!(&early, b"early data");
        let handshake = settled(&mut tcpdump, &capture, &accepted.five_tuple());
        println!("{}", handshake.diagram());
        let observed = Observed { syn: accepted.saved_syn().cloned(), handshake, tcpdump };
        assert_as_seen("with data (TFO)", &observed);
        let handshake = &observed.handshake;
        assert_eq!((handshake.syn.payload_len, observed.syn.unwrap().payload_len), (10, 10));
        assert_eq!(handshake.syn_ack.ack, handshake.syn.seq.wrapping_add(11));
        drop(client);
    });
}

/// N3: a packet that passes several interfaces is one packet. A bridge in the third network joins
/// two networks.
#[test]
fn packet_on_several_interfaces_counts_once() {
    in_namespace(&test_name!("packet_on_several_interfaces_counts_once"), LIMIT, || {
        ip("link add bridge type bridge");
        ip("link set bridge up");
        let (left, right) =
            (Elsewhere::start("left", "192.0.2.1/24"), Elsewhere::start("right", "192.0.2.2/24"));
        let port = 7777;
        let capture = Capture::on_port(port).unwrap();
        right.order(Order::Listen(format!("192.0.2.2:{port}")));
        right.said();
        left.order(Order::Connect(format!("192.0.2.2:{port}")));
        let here = left.said();
        let of =
            FiveTuple::tcp(here.parse().unwrap(), format!("192.0.2.2:{port}").parse().unwrap());
        let handshake = capture.handshake(&of, PATIENCE).unwrap();
        println!("{}", handshake.diagram());
        let again = (handshake.syn_retransmissions, handshake.syn_ack_retransmissions);
        assert_eq!(again, (0, 0));
        // The control case: the packets did pass several interfaces.
        let counts = (watch::packets_in("left"), watch::packets_in("right"));
        assert!(counts.0 >= 2 && counts.1 >= 1, "{counts:?}");
        // From one network to the other: the port of the bridge and the bridge itself, in both
        // directions.
        ip("addr add 192.0.2.3/24 dev bridge");
        let server = ServerSocket::listen("192.0.2.3:0").unwrap();
        let capture = Capture::on_port(server.port()).unwrap();
        left.order(Order::Connect(server.endpoint().to_string()));
        let accepted = server.accept().unwrap();
        left.said();
        let to_here = capture.handshake(&accepted.five_tuple(), PATIENCE).unwrap();
        assert_eq!((to_here.syn_retransmissions, to_here.syn_ack_retransmissions), (0, 0));
        assert!(watch::packets_in("bridge") >= 2);
        row(
            "several interfaces",
            "a packet on several interfaces counts once",
            format!("{} retransmissions", again.0 + again.1),
            &format!("{} and {} packets came in at the two ports", counts.0, counts.1),
        );
    });
}

enum Order {
    Listen(String),
    Connect(String),
}

/// A thread in its own network, at a port of the bridge.
struct Elsewhere {
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<String>,
}

impl Elsewhere {
    fn start(name: &str, address: &'static str) -> Elsewhere {
        ip(&format!("link add {name} type veth peer name {name}-end"));
        let (orders, received) = mpsc::channel();
        let (say, answers) = mpsc::channel();
        let (moved, wait_moved) = mpsc::channel();
        let end = format!("{name}-end");
        thread::spawn(move || {
            netns::leave_network();
            say.send(watch::thread_id().to_string()).unwrap();
            wait_moved.recv().unwrap();
            ip(&format!("addr add {address} dev {end}"));
            ip(&format!("link set {end} up"));
            say.send(String::new()).unwrap();
            let mut held = Vec::new();
            for order in received {
                match order {
                    Order::Listen(at) => {
                        let server = ServerSocket::listen(at.as_str()).unwrap();
                        say.send(String::new()).unwrap();
                        held.push(server.accept().unwrap());
                    }
                    Order::Connect(to) => {
                        let client = ClientSocket::connect(to.as_str()).unwrap();
                        say.send(client.five_tuple().local.to_string()).unwrap();
                        held.push(client);
                    }
                }
            }
        });
        let elsewhere = Elsewhere { orders, answers };
        ip(&format!("link set {name}-end netns {}", elsewhere.said()));
        ip(&format!("link set {name} master bridge up"));
        moved.send(()).unwrap();
        elsewhere.said();
        elsewhere
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    fn said(&self) -> String {
        self.answers.recv_timeout(PATIENCE).expect("the other network")
    }
}

/// N3: a full capture queue is reported.
#[test]
fn full_capture_queue_is_reported() {
    in_namespace(&test_name!("full_capture_queue_is_reported"), LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let capture = Capture::on_port(server.port()).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let accepted = server.accept().unwrap();
        let bulk = vec![0; 64 << 20];
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&bulk).unwrap());
            let mut buf = vec![0; 1 << 20];
            let mut left = bulk.len();
            while left > 0 {
                left -= accepted.read(&mut buf).unwrap();
            }
        });
        let late = ClientSocket::connect(server.endpoint()).unwrap();
        let err = capture.handshake(&late.five_tuple(), Duration::ZERO).unwrap_err();
        println!("{err}");
        assert_eq!(err.kind(), ErrorKind::TimedOut);
        let text = err.to_string();
        assert!(text.contains("packets of port") && text.contains("the queue was full"), "{text}");
        // The control case: the queue is empty again, and the next handshake is captured.
        let next = ClientSocket::connect(server.endpoint()).unwrap();
        capture.handshake(&next.five_tuple(), PATIENCE).unwrap();
        // The first handshake was captured before the queue was full.
        capture.handshake(&accepted.five_tuple(), PATIENCE).unwrap();
        row("full queue", "loss is reported", &text, "captured after the queue is empty");
    });
}

/// N3: without CAP_NET_RAW a capture fails, and the error names the missing capability. N2 needs no
/// privilege.
#[test]
fn capture_without_capability_fails() {
    in_process(&test_name!("capture_without_capability_fails"), LIMIT, || {
        limits::give_up_all_capabilities();
        let options = SocketOptions::new().save_syn(true);
        let server = ServerSocket::listen_with("127.0.0.1:0", &options).unwrap();
        let before = watch::count_descriptors();
        let err = Capture::on_port(server.port()).unwrap_err();
        println!("{err}");
        assert_eq!((err.kind(), err.os_error()), (ErrorKind::PermissionDenied, Some(libc::EPERM)));
        for word in ["CAP_NET_RAW", "root", "setcap", "unshare -Urn", &server.port().to_string()] {
            assert!(err.to_string().contains(word), "{word} is not in: {err}");
        }
        assert_eq!(watch::count_descriptors(), before);
        let client = ClientSocket::connect(server.endpoint()).unwrap();
        let accepted = server.accept().unwrap();
        let syn = accepted.saved_syn().unwrap();
        assert_eq!(syn.source.port(), client.five_tuple().local.port());
        row("no CAP_NET_RAW", "N3 names the capability", err.to_string(), "N2 works");
    });
}

/// N3: on a kernel without packet sockets a capture fails with that reason.
#[test]
fn capture_without_packet_sockets_fails() {
    in_process(&test_name!("capture_without_packet_sockets_fails"), LIMIT, || {
        limits::forbid(libc::SYS_socket, Some(libc::AF_PACKET), libc::EAFNOSUPPORT);
        let err = Capture::on_port(443).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unsupported);
        assert!(err.to_string().contains("this system has no packet sockets"), "{err}");
    });
}

/// N3: the packet times are the kernel's receive times, not the times of reading. The kernel begins
/// to record times only a short while after the request.
#[test]
fn packet_times_are_from_the_kernel() {
    in_namespace(&test_name!("packet_times_are_from_the_kernel"), LIMIT, || {
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let capture = Capture::on_port(server.port()).unwrap();
        watch::await_that("times from the kernel", || {
            let before = SystemTime::now();
            let client = ClientSocket::connect(server.endpoint()).unwrap();
            let after = SystemTime::now();
            // No wait for an event: the read must be late.
            thread::sleep(ms(50));
            let handshake = capture.handshake(&client.five_tuple(), PATIENCE).unwrap();
            client.abort();
            let times = handshake.steps().map(|step| step.segment.captured);
            // The times are never wrong. At first they may be missing.
            let known: Vec<_> = times.into_iter().flatten().collect();
            assert!(
                known.is_sorted() && known.iter().all(|t| *t >= before && *t <= after + ms(20))
            );
            known.len() == times.len()
        });
    });
}
