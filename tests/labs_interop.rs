//! Datagrams to and from programs of other makes: Python and socat, on one host and on two.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod lab;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{AWAITED, Api, Datagrams, Opt, api, bytes, fails, ip, name, system};
use keepsock::ErrorKind;
use lab::{Ip, Network, Program, await_that, in_namespace, join, row};

both_apis![
    python_asks,
    python_answers,
    batches_to_and_from_python,
    socat_asks,
    socat_answers,
    groups_and_python,
    a_group_and_socat,
    broadcasts_and_python,
];

const LIMIT: Duration = Duration::from_secs(25);

/// Nothing, little, and the most that there is over IPv4.
const LENGTHS: [usize; 3] = [0, 1, 65_507];

/// With a limit that is never reached.
fn bind<A: Api>(endpoint: &str) -> A::Datagram {
    A::bind(endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap()
}

fn python(network: &Network, text: &str, words: &[&str]) -> Program {
    let text = format!(
        "import socket, sys, struct\n\
         def udp(host):\n\
         \x20   s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)\n\
         \x20   s.settimeout(10)\n\
         \x20   return s\n\
         def say(*words):\n\
         \x20   print(*words, flush=True)\n\
         def data(n):\n\
         \x20   return bytes(i % 251 for i in range(n))\n\
         {text}"
    );
    Program::start(network, &[&["python3", "-c", &text], words].concat())
}

// ---- on one host (D1, D3) ---------------------------------------------------------------------

/// D1: what Python sends, of any length, is received whole, and its connected socket gets the
/// answer.
fn python_asks<A: Api>() {
    const ASK: &str = "
s = udp(sys.argv[1])
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    sent = data(int(line))
    try:
        s.send(sent)
    except OSError as e:
        say('errno', e.errno)
        continue
    say('same' if s.recv(70000) == sent else 'another')
";
    in_namespace(&name::<A>("python_asks"), LIMIT, || {
        for (family, host) in [(Ip::V4, "127.0.0.1"), (Ip::V6, "::1")] {
            let server = bind::<A>("*:0");
            let mut client = python(&Network::here(), ASK, &[host, &server.port().to_string()]);
            for n in LENGTHS {
                client.tell(&n.to_string());
                let (got, info) = server.recv_info(70_000).unwrap();
                assert!(got.bytes == bytes(n), "{} of {n} bytes", got.bytes.len());
                assert_eq!((got.original_len, got.truncated), (n, false));
                assert_eq!(got.from.ip(), ip(host));
                server.reply(&info, &got.bytes).unwrap();
                assert_eq!(client.hear(), "same");
            }
            let longest = if family == Ip::V4 { 65_507 } else { 65_527 };
            client.tell(&(longest + 1).to_string());
            assert_eq!(client.hear(), format!("errno {}", libc::EMSGSIZE));
            row(
                &format!("D1 Python asks over {family}"),
                &format!("{}: recv, reply", api::<A>()),
                "0, 1, 65507 bytes came, and back",
                &format!("{} bytes: EMSGSIZE in Python", longest + 1),
            );
        }
    });
}

/// D1: what is sent to Python, of any length, comes back.
fn python_answers<A: Api>() {
    const ANSWER: &str = "
s = udp(sys.argv[1])
s.bind((sys.argv[1], 0))
say(s.getsockname()[1])
while True:
    got, who = s.recvfrom(70000)
    say(len(got) if got == data(len(got)) else 'another')
    s.sendto(got, who)
";
    in_namespace(&name::<A>("python_answers"), LIMIT, || {
        for (family, host, at) in [(Ip::V4, "127.0.0.1", "127.0.0.1"), (Ip::V6, "::1", "[::1]")] {
            let server = python(&Network::here(), ANSWER, &[host]);
            let endpoint = format!("{at}:{}", server.hear());
            let to: SocketAddr = endpoint.parse().unwrap();
            let connected = A::connect_datagram(&endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap();
            let bound = bind::<A>("*:0");
            for n in LENGTHS {
                let data = bytes(n);
                connected.send(&data).unwrap();
                assert_eq!(server.hear(), n.to_string());
                assert!(connected.recv(70_000).unwrap().bytes == data);
                bound.send_to(&data, to).unwrap();
                assert_eq!(server.hear(), n.to_string());
                let got = bound.recv(70_000).unwrap();
                assert!(got.bytes == data && got.from == to);
            }
            let longest = if family == Ip::V4 { 65_507 } else { 65_527 };
            fails(connected.send(&bytes(longest + 1)), ErrorKind::TooLong);
            fails(bound.send_to(&bytes(longest + 1), to), ErrorKind::TooLong);
            row(
                &format!("D1 Python answers over {family}"),
                &format!("{}: send, send_to, recv", api::<A>()),
                "0, 1, 65507 bytes came, and back",
                &format!("{} bytes: {}", longest + 1, ErrorKind::TooLong),
            );
        }
    });
}

/// D3: a batch is datagrams for whoever receives it one by one, and what another program had cut by
/// the kernel is received as datagrams.
fn batches_to_and_from_python<A: Api>() {
    const BATCHES: &str = "
UDP_SEGMENT = 103
s = udp('127.0.0.1')
s.bind(('127.0.0.1', 0))
say(s.getsockname()[1])
for line in sys.stdin:
    words = line.split()
    if words[0] == 'count':
        lengths = [len(s.recv(70000)) for _ in range(int(words[1]))]
        say(*lengths)
    else:
        s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, int(words[2]))
        s.sendto(data(int(words[3])), ('127.0.0.1', int(words[1])))
        say('sent')
";
    in_namespace(&name::<A>("batches_to_and_from_python"), LIMIT, || {
        let mut other = python(&Network::here(), BATCHES, &[]);
        let endpoint = format!("127.0.0.1:{}", other.hear());
        let socket = A::connect_datagram(&endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap();
        // Equal ones, which go as one, with a shorter last, and others between.
        let lengths: Vec<usize> = [[100; 20].as_slice(), &[30, 0, 7, 1400, 1400, 9]].concat();
        let data: Vec<Vec<u8>> = lengths.iter().map(|n| bytes(*n)).collect();
        let batch: Vec<_> = data.iter().map(|d| (d.as_slice(), None)).collect();
        assert_eq!(socket.send_batch(&batch).unwrap(), batch.len());
        other.tell(&format!("count {}", batch.len()));
        let told: Vec<String> = lengths.iter().map(ToString::to_string).collect();
        assert_eq!(other.hear(), told.join(" "));

        let coalescing = [Opt::ReadTimeout(AWAITED), Opt::Coalescing(true)];
        for socket in [socket, A::connect_datagram(&endpoint, &coalescing).unwrap()] {
            other.tell(&format!("segments {} 100 2030", socket.port()));
            assert_eq!(other.hear(), "sent");
            let mut came = Vec::new();
            while came.len() < 2030 {
                for got in socket.recv_batch(&[4000; 64]).unwrap() {
                    assert_eq!(got.bytes.len(), 100.min(2030 - came.len()));
                    came.extend(got.bytes);
                }
            }
            assert_eq!(came, bytes(2030));
        }
        // The control: whoever takes what the kernel has as one (UDP_GRO of udp(7)) sees no borders.
        let control = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        control.set_read_timeout(Some(Duration::from_millis(AWAITED as u64))).unwrap();
        system::coalesce(control.as_raw_fd());
        other.tell(&format!("segments {} 100 2030", control.local_addr().unwrap().port()));
        assert_eq!(other.hear(), "sent");
        assert_eq!(control.recv(&mut [0; 4000]).unwrap(), 2030);
        row(
            "D3 batches to Python and segments from it",
            &format!("{}: send_batch, recv_batch, coalescing", api::<A>()),
            format!("{} came one by one; 20 of 100 bytes and one of 30", batch.len()),
            "plain socket with UDP_GRO: 2030 bytes as one",
        );
    });
}

/// Waits until a program has bound a UDP port of that network; it does not say so itself.
fn await_bound(network: &Network, port: u16) {
    let end = format!(":{port:04X}");
    await_that("the port is bound", || {
        network.run(|| {
            ["udp", "udp6"].iter().any(|file| {
                let path = format!("/proc/thread-self/net/{file}");
                let text = std::fs::read_to_string(path).unwrap();
                let mut local = text.lines().filter_map(|line| line.split_whitespace().nth(1));
                local.any(|local| local.ends_with(&end))
            })
        })
    });
}

/// D1: socat sends lines and prints the answers, which come from the address that it asked.
fn socat_asks<A: Api>() {
    in_namespace(&name::<A>("socat_asks"), LIMIT, || {
        for (family, host) in [(Ip::V4, "127.0.0.2"), (Ip::V6, "[::1]")] {
            let server = bind::<A>("*:0");
            let kind = if family == Ip::V4 { "UDP4" } else { "UDP6" };
            // SENDTO takes answers from there only.
            let address = format!("{kind}-SENDTO:{host}:{}", server.port());
            let mut client = Program::start(&Network::here(), &["socat", "-", &address]);
            for line in ["hello from socat", "and again"] {
                client.tell(line);
                let (got, info) = server.recv_info(100).unwrap();
                assert_eq!(got.bytes, format!("{line}\n").as_bytes());
                server.send_to(b"chosen by the system\n", got.from).unwrap();
                server.reply(&info, &got.bytes).unwrap();
                let first = client.hear();
                let loopback = first == "chosen by the system";
                // The system's choice is the only address that IPv6 has here.
                assert_eq!(loopback, family == Ip::V6, "{first}");
                assert_eq!(if loopback { client.hear() } else { first }, line);
            }
            row(
                &format!("D2 socat asks over {family} at {host}"),
                &format!("{}: reply", api::<A>()),
                "two questions answered",
                match family {
                    Ip::V4 => "send_to: socat heard nothing",
                    Ip::V6 => "one address: send_to, too",
                },
            );
        }
    });
}

/// D1: socat answers one datagram, and all of whoever came first.
fn socat_answers<A: Api>() {
    in_namespace(&name::<A>("socat_answers"), LIMIT, || {
        let here = Network::here();
        for (family, host) in [(Ip::V4, "127.0.0.1"), (Ip::V6, "[::1]")] {
            let kind = if family == Ip::V4 { "UDP4" } else { "UDP6" };
            // In a network of its own any port is free.
            for (port, mode, lengths) in
                [(7001, "RECVFROM", &[1000][..]), (7002, "LISTEN", &[1, 1000, 65_507])]
            {
                let options = [Opt::ReadTimeout(AWAITED)];
                let socket = A::connect_datagram(&format!("{host}:{port}"), &options).unwrap();
                socket.send(b"nobody there yet").unwrap();
                let refused = socket.recv_error().unwrap().map(|e| e.status);
                assert_eq!(refused, Some(ErrorKind::Refused.code()));
                let address = format!("{kind}-{mode}:{port},bind={host}");
                let _server = Program::start(&here, &["socat", "-b70000", &address, "PIPE"]);
                await_bound(&here, port);
                for n in lengths {
                    let data = bytes(*n);
                    socket.send(&data).unwrap();
                    assert!(socket.recv(70_000).unwrap().bytes == data, "{n} bytes");
                }
            }
            row(
                &format!("D1 socat answers over {family}"),
                &format!("{}: send, recv", api::<A>()),
                "1, 1000, 65507 bytes came back",
                "before it ran: reported as refused",
            );
        }
    });
}

// ---- on two hosts (D1) ------------------------------------------------------------------------

/// Another host at the interface `here`; its own is called `there`.
fn neighbour() -> Network {
    let there = Network::new();
    join(
        (&Network::here(), "here", &["192.0.2.10/24", "2001:db8:1::10/64"]),
        (&there, "there", &["192.0.2.1/24", "2001:db8:1::1/64"]),
    );
    there
}

/// D1: Python on another host sends to a group that was joined here, and receives what is sent from
/// here to one that it has joined.
fn groups_and_python<A: Api>() {
    const MEMBER: &str = "
group, index = sys.argv[1], socket.if_nametoindex('there')
s = udp(group)
s.bind(('', 0))
if ':' in group:
    join = socket.inet_pton(socket.AF_INET6, group) + struct.pack('@I', index)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, join)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
else:
    there = socket.inet_aton('192.0.2.1')
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + there)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, there)
say(s.getsockname()[1])
for line in sys.stdin:
    words = line.split()
    if words[0] == 'send':
        s.sendto(b'from Python', (words[1], int(words[2])))
    else:
        got, who = s.recvfrom(100)
        say(got.decode(), who[0])
";
    in_namespace(&name::<A>("groups_and_python"), LIMIT, || {
        let there = neighbour();
        for (theirs, ours, from, own) in [
            ("239.83.8.1", "239.83.8.2", "192.0.2.1", "192.0.2.10"),
            ("ff15::83:81", "ff15::83:82", "2001:db8:1::1", "2001:db8:1::10"),
        ] {
            let mut member = python(&there, MEMBER, &[theirs]);
            let port: u16 = member.hear().parse().unwrap();
            let socket = bind::<A>("*:0");
            socket.set_multicast_interface("here").unwrap();
            socket.send_to(b"to Python", SocketAddr::new(ip(theirs), port)).unwrap();
            member.tell("recv");
            let said = member.hear();
            // Of several addresses the system chooses one: of IPv6 there is a link-local one, too.
            let (what, who) = said.rsplit_once(' ').unwrap();
            assert_eq!((what, ip(who)), ("to Python", ip(own)));

            // The control: not joined, nothing comes before what is sent to the host itself.
            let send = |to: &str| format!("send {to} {}", socket.port());
            member.tell(&send(ours));
            member.tell(&send(own));
            let got = socket.recv(100).unwrap();
            assert_eq!(got.to, Some(SocketAddr::new(ip(own), socket.port())));
            socket.join(ip(ours), Some("here"), None).unwrap();
            member.tell(&send(ours));
            let got = socket.recv(100).unwrap();
            assert_eq!(got.bytes, b"from Python");
            assert_eq!(got.to, Some(SocketAddr::new(ip(ours), socket.port())));
            assert_eq!(got.from, SocketAddr::new(ip(from), port));
            row(
                &format!("D1 groups {theirs}, {ours} with Python on another host"),
                &format!("{}: send_to, join, recv", api::<A>()),
                "came there, came here",
                "not joined: nothing came",
            );
        }
    });
}

/// D1: socat on another host receives what is sent to a group from here.
fn a_group_and_socat<A: Api>() {
    in_namespace(&name::<A>("a_group_and_socat"), LIMIT, || {
        let there = neighbour();
        let (group, port) = ("239.83.8.3", 7002);
        let socket = bind::<A>("192.0.2.10:0");
        socket.set_multicast_interface("here").unwrap();
        let to = SocketAddr::new(ip(group), port);
        let address = format!("UDP4-RECV:{port},ip-add-membership={group}:192.0.2.1");
        let member = Program::start(&there, &["socat", "-u", &address, "-"]);
        await_bound(&there, port);
        // /proc/net/igmp has the address as the machine has a number of those bytes.
        let number = u32::from_ne_bytes([239, 83, 8, 3]);
        await_that("socat has joined the group", || {
            there.run(|| {
                let text = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
                text.contains(&format!("{number:08X}"))
            })
        });
        // Another group first, which it did not join.
        socket.send_to(b"not for you\n", SocketAddr::new(ip("239.83.8.4"), port)).unwrap();
        socket.send_to(b"one\n", to).unwrap();
        assert_eq!(socket.send_batch(&[(b"two\n", Some(to)), (b"three\n", Some(to))]).unwrap(), 2);
        assert_eq!([member.hear(), member.hear(), member.hear()], ["one", "two", "three"]);
        row(
            &format!("D1 {group} with socat on another host"),
            &format!("{}: send_to, send_batch", api::<A>()),
            "three came",
            "a group that it did not join: nothing",
        );
    });
}

/// D1: a broadcast of Python's is received and answered, and one from here reaches Python.
fn broadcasts_and_python<A: Api>() {
    const BROADCAST: &str = "
s = udp('')
s.bind(('', 0))
say(s.getsockname()[1])
for line in sys.stdin:
    words = line.split()
    if words[0] == 'allow':
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    elif words[0] == 'send':
        try:
            s.sendto(b'anybody?', ('192.0.2.255', int(words[1])))
        except OSError as e:
            say('errno', e.errno)
    else:
        got, who = s.recvfrom(100)
        say(got.decode(), *who)
";
    in_namespace(&name::<A>("broadcasts_and_python"), LIMIT, || {
        let there = neighbour();
        let mut other = python(&there, BROADCAST, &[]);
        let port: u16 = other.hear().parse().unwrap();
        let socket = bind::<A>("*:0");
        other.tell(&format!("send {}", socket.port()));
        assert_eq!(other.hear(), format!("errno {}", libc::EACCES));
        other.tell("allow");
        other.tell(&format!("send {}", socket.port()));
        let (got, info) = socket.recv_info(100).unwrap();
        assert_eq!(got.bytes, b"anybody?");
        assert_eq!(got.to, Some(SocketAddr::new(ip("192.0.2.255"), socket.port())));
        socket.reply(&info, b"me").unwrap();
        other.tell("recv");
        assert_eq!(other.hear(), format!("me 192.0.2.10 {}", socket.port()));

        let all = SocketAddr::new(ip("192.0.2.255"), port);
        fails(socket.send_to(b"and you?", all), ErrorKind::PermissionDenied);
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"and you?", all).unwrap();
        other.tell("recv");
        assert_eq!(other.hear(), format!("and you? 192.0.2.10 {}", socket.port()));
        row(
            "D1 broadcast with Python on another host",
            &format!("{}: set_broadcast, reply", api::<A>()),
            "came here and was answered, came there",
            "unset: permission denied, EACCES in Python",
        );
    });
}
