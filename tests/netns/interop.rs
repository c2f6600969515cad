//! Datagrams to and from other programs: Python and socat, on one host and on two hosts.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support::netns::{Ip, Network, in_namespace, join, row};
use crate::support::process::Program;
use crate::support::watch::await_that;
use crate::support::{AWAITED, Api, Datagrams, Opt, api, bytes, fails, ip, system};
use keepsock::ErrorKind;

both_apis![
    python_request_is_received_and_answered,
    python_echoes_datagrams_of_any_length,
    batch_to_and_from_python_arrives_singly,
    socat_request_is_answered_from_the_same_address,
    socat_reply_is_received,
    multicast_with_python_works_in_both_directions,
    multicast_to_socat_is_received,
    broadcast_with_python_works_in_both_directions,
];

const LIMIT: Duration = Duration::from_secs(25);

/// An empty, a short, and the longest IPv4 datagram.
const LENGTHS: [usize; 3] = [0, 1, 65_507];

/// Binds a socket with a read timeout that is never reached.
fn bind<A: Api>(endpoint: &str) -> A::Datagram {
    A::Datagram::bind(endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap()
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

/// D1: datagrams of any length from Python are received whole, and its connected socket gets the
/// reply.
fn python_request_is_received_and_answered<A: Api>() {
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
    in_namespace(&test_name!(A, "python_request_is_received_and_answered"), LIMIT, || {
        for (family, host) in [(Ip::V4, "127.0.0.1"), (Ip::V6, "::1")] {
            let server = bind::<A>("*:0");
            let mut client = python(&Network::here(), ASK, &[host, &server.port().to_string()]);
            for n in LENGTHS {
                client.send_line(&n.to_string());
                let (got, info) = server.recv_info(70_000).unwrap();
                assert!(got.bytes == bytes(n), "{} of {n} bytes", got.bytes.len());
                assert_eq!((got.original_len, got.truncated), (n, false));
                assert_eq!(got.from.ip(), ip(host));
                server.reply(&info, &got.bytes).unwrap();
                assert_eq!(client.next_line(), "same");
            }
            let longest = if family == Ip::V4 { 65_507 } else { 65_527 };
            client.send_line(&(longest + 1).to_string());
            assert_eq!(client.next_line(), format!("errno {}", libc::EMSGSIZE));
            row(
                &format!("D1 Python sends a request over {family}"),
                &format!("{}: recv, reply", api::<A>()),
                "0, 1, 65507 bytes came, and back",
                &format!("{} bytes: EMSGSIZE in Python", longest + 1),
            );
        }
    });
}

/// D1: datagrams of any length to Python are echoed.
fn python_echoes_datagrams_of_any_length<A: Api>() {
    const ANSWER: &str = "
s = udp(sys.argv[1])
s.bind((sys.argv[1], 0))
say(s.getsockname()[1])
while True:
    got, who = s.recvfrom(70000)
    say(len(got) if got == data(len(got)) else 'another')
    s.sendto(got, who)
";
    in_namespace(&test_name!(A, "python_echoes_datagrams_of_any_length"), LIMIT, || {
        for (family, host, at) in [(Ip::V4, "127.0.0.1", "127.0.0.1"), (Ip::V6, "::1", "[::1]")] {
            let server = python(&Network::here(), ANSWER, &[host]);
            let endpoint = format!("{at}:{}", server.next_line());
            let to: SocketAddr = endpoint.parse().unwrap();
            let connected = A::Datagram::connect(&endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap();
            let bound = bind::<A>("*:0");
            for n in LENGTHS {
                let data = bytes(n);
                connected.send(&data).unwrap();
                assert_eq!(server.next_line(), n.to_string());
                assert!(connected.recv(70_000).unwrap().bytes == data);
                bound.send_to(&data, to).unwrap();
                assert_eq!(server.next_line(), n.to_string());
                let got = bound.recv(70_000).unwrap();
                assert!(got.bytes == data && got.from == to);
            }
            let longest = if family == Ip::V4 { 65_507 } else { 65_527 };
            fails(connected.send(&bytes(longest + 1)), ErrorKind::TooLong);
            fails(bound.send_to(&bytes(longest + 1), to), ErrorKind::TooLong);
            row(
                &format!("D1 Python echoes over {family}"),
                &format!("{}: send, send_to, recv", api::<A>()),
                "0, 1, 65507 bytes came, and back",
                &format!("{} bytes: {}", longest + 1, ErrorKind::TooLong),
            );
        }
    });
}

/// D3: a program without GRO receives the single datagrams of a batch, and datagrams that another
/// program sends with GSO are received singly.
fn batch_to_and_from_python_arrives_singly<A: Api>() {
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
    in_namespace(&test_name!(A, "batch_to_and_from_python_arrives_singly"), LIMIT, || {
        let mut other = python(&Network::here(), BATCHES, &[]);
        let endpoint = format!("127.0.0.1:{}", other.next_line());
        let socket = A::Datagram::connect(&endpoint, &[Opt::ReadTimeout(AWAITED)]).unwrap();
        // Datagrams of equal length, which GSO combines, a shorter last one, and others between.
        let lengths: Vec<usize> = [[100; 20].as_slice(), &[30, 0, 7, 1400, 1400, 9]].concat();
        let data: Vec<Vec<u8>> = lengths.iter().map(|n| bytes(*n)).collect();
        let batch: Vec<_> = data.iter().map(|d| (d.as_slice(), None)).collect();
        assert_eq!(socket.send_batch(&batch).unwrap(), batch.len());
        other.send_line(&format!("count {}", batch.len()));
        let told: Vec<String> = lengths.iter().map(ToString::to_string).collect();
        assert_eq!(other.next_line(), told.join(" "));

        let udp_gro = [Opt::ReadTimeout(AWAITED), Opt::UdpGro(true)];
        for socket in [socket, A::Datagram::connect(&endpoint, &udp_gro).unwrap()] {
            other.send_line(&format!("segments {} 100 2030", socket.port()));
            assert_eq!(other.next_line(), "sent");
            let mut came = Vec::new();
            while came.len() < 2030 {
                for got in socket.recv_batch(&[4000; 64]).unwrap() {
                    assert_eq!(got.bytes.len(), 100.min(2030 - came.len()));
                    came.extend(got.bytes);
                }
            }
            assert_eq!(came, bytes(2030));
        }
        // The control case: a socket with UDP_GRO (udp(7)) sees no boundaries.
        let control = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        control.set_read_timeout(Some(Duration::from_millis(AWAITED as u64))).unwrap();
        system::coalesce(control.as_raw_fd());
        other.send_line(&format!("segments {} 100 2030", control.local_addr().unwrap().port()));
        assert_eq!(other.next_line(), "sent");
        assert_eq!(control.recv(&mut [0; 4000]).unwrap(), 2030);
        row(
            "D3 batches to Python and segments from it",
            &format!("{}: send_batch, recv_batch, udp_gro", api::<A>()),
            format!("{} received singly; 20 of 100 bytes and one of 30", batch.len()),
            "plain socket with UDP_GRO: 2030 bytes as one",
        );
    });
}

/// Waits until a program has bound a UDP port of that network, because the program does not report
/// it.
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

/// D1: socat sends lines and prints the replies, which come from the requested address.
fn socat_request_is_answered_from_the_same_address<A: Api>() {
    in_namespace(&test_name!(A, "socat_request_is_answered_from_the_same_address"), LIMIT, || {
        for (family, host) in [(Ip::V4, "127.0.0.2"), (Ip::V6, "[::1]")] {
            let server = bind::<A>("*:0");
            let kind = if family == Ip::V4 { "UDP4" } else { "UDP6" };
            // SENDTO accepts replies from that address only.
            let address = format!("{kind}-SENDTO:{host}:{}", server.port());
            let mut client = Program::start(&Network::here(), &["socat", "-", &address]);
            for line in ["hello from socat", "and again"] {
                client.send_line(line);
                let (got, info) = server.recv_info(100).unwrap();
                assert_eq!(got.bytes, format!("{line}\n").as_bytes());
                server.send_to(b"chosen by the system\n", got.from).unwrap();
                server.reply(&info, &got.bytes).unwrap();
                let first = client.next_line();
                let loopback = first == "chosen by the system";
                // The only IPv6 address of this network is the system's choice.
                assert_eq!(loopback, family == Ip::V6, "{first}");
                assert_eq!(if loopback { client.next_line() } else { first }, line);
            }
            row(
                &format!("D2 socat sends a request over {family} at {host}"),
                &format!("{}: reply", api::<A>()),
                "two replies received",
                match family {
                    Ip::V4 => "send_to: socat received no reply",
                    Ip::V6 => "one address: send_to, too",
                },
            );
        }
    });
}

/// D1: socat replies to one datagram, and to all datagrams of its first client.
fn socat_reply_is_received<A: Api>() {
    in_namespace(&test_name!(A, "socat_reply_is_received"), LIMIT, || {
        let here = Network::here();
        for (family, host) in [(Ip::V4, "127.0.0.1"), (Ip::V6, "[::1]")] {
            let kind = if family == Ip::V4 { "UDP4" } else { "UDP6" };
            // In a separate network any port is free.
            for (port, mode, lengths) in
                [(7001, "RECVFROM", &[1000][..]), (7002, "LISTEN", &[1, 1000, 65_507])]
            {
                let options = [Opt::ReadTimeout(AWAITED)];
                let socket = A::Datagram::connect(&format!("{host}:{port}"), &options).unwrap();
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
                &format!("D1 socat replies over {family}"),
                &format!("{}: send, recv", api::<A>()),
                "1, 1000, 65507 bytes echoed",
                "before it runs: reported as refused",
            );
        }
    });
}

// ---- on two hosts (D1) ------------------------------------------------------------------------

/// Creates another host at the interface `here`. The interface of that host is `there`.
fn neighbour() -> Network {
    let there = Network::new();
    join(
        (&Network::here(), "here", &["192.0.2.10/24", "2001:db8:1::10/64"]),
        (&there, "there", &["192.0.2.1/24", "2001:db8:1::1/64"]),
    );
    there
}

/// D1: Python on another host sends to a group that was joined here, and receives datagrams from
/// here to its own group.
fn multicast_with_python_works_in_both_directions<A: Api>() {
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
    in_namespace(&test_name!(A, "multicast_with_python_works_in_both_directions"), LIMIT, || {
        let there = neighbour();
        for (theirs, ours, from, own) in [
            ("239.83.8.1", "239.83.8.2", "192.0.2.1", "192.0.2.10"),
            ("ff15::83:81", "ff15::83:82", "2001:db8:1::1", "2001:db8:1::10"),
        ] {
            let mut member = python(&there, MEMBER, &[theirs]);
            let port: u16 = member.next_line().parse().unwrap();
            let socket = bind::<A>("*:0");
            socket.set_multicast_interface("here").unwrap();
            socket.send_to(b"to Python", SocketAddr::new(ip(theirs), port)).unwrap();
            member.send_line("recv");
            let said = member.next_line();
            // The system selects one of several addresses: IPv6 also has a link-local one.
            let (what, who) = said.rsplit_once(' ').unwrap();
            assert_eq!((what, ip(who)), ("to Python", ip(own)));

            // The control case: without a join, no datagram arrives before the one to the host
            // itself.
            let send = |to: &str| format!("send {to} {}", socket.port());
            member.send_line(&send(ours));
            member.send_line(&send(own));
            let got = socket.recv(100).unwrap();
            assert_eq!(got.to, Some(SocketAddr::new(ip(own), socket.port())));
            socket.join(ip(ours), Some("here"), None).unwrap();
            member.send_line(&send(ours));
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

/// D1: socat on another host receives datagrams to a group from here.
fn multicast_to_socat_is_received<A: Api>() {
    in_namespace(&test_name!(A, "multicast_to_socat_is_received"), LIMIT, || {
        let there = neighbour();
        let (group, port) = ("239.83.8.3", 7002);
        let socket = bind::<A>("192.0.2.10:0");
        socket.set_multicast_interface("here").unwrap();
        let to = SocketAddr::new(ip(group), port);
        let address = format!("UDP4-RECV:{port},ip-add-membership={group}:192.0.2.1");
        let member = Program::start(&there, &["socat", "-u", &address, "-"]);
        await_bound(&there, port);
        // /proc/net/igmp has the address as a number in the byte order of the machine.
        let number = u32::from_ne_bytes([239, 83, 8, 3]);
        await_that("socat has joined the group", || {
            there.run(|| {
                let text = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
                text.contains(&format!("{number:08X}"))
            })
        });
        // A datagram to another group, which socat did not join.
        socket.send_to(b"not for you\n", SocketAddr::new(ip("239.83.8.4"), port)).unwrap();
        socket.send_to(b"one\n", to).unwrap();
        assert_eq!(socket.send_batch(&[(b"two\n", Some(to)), (b"three\n", Some(to))]).unwrap(), 2);
        assert_eq!(
            [member.next_line(), member.next_line(), member.next_line()],
            ["one", "two", "three"]
        );
        row(
            &format!("D1 {group} with socat on another host"),
            &format!("{}: send_to, send_batch", api::<A>()),
            "three came",
            "a group that it did not join: no datagram",
        );
    });
}

/// D1: a broadcast from Python is received and gets a reply, and one from here reaches Python.
fn broadcast_with_python_works_in_both_directions<A: Api>() {
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
    in_namespace(&test_name!(A, "broadcast_with_python_works_in_both_directions"), LIMIT, || {
        let there = neighbour();
        let mut other = python(&there, BROADCAST, &[]);
        let port: u16 = other.next_line().parse().unwrap();
        let socket = bind::<A>("*:0");
        other.send_line(&format!("send {}", socket.port()));
        assert_eq!(other.next_line(), format!("errno {}", libc::EACCES));
        other.send_line("allow");
        other.send_line(&format!("send {}", socket.port()));
        let (got, info) = socket.recv_info(100).unwrap();
        assert_eq!(got.bytes, b"anybody?");
        assert_eq!(got.to, Some(SocketAddr::new(ip("192.0.2.255"), socket.port())));
        socket.reply(&info, b"me").unwrap();
        other.send_line("recv");
        assert_eq!(other.next_line(), format!("me 192.0.2.10 {}", socket.port()));

        let all = SocketAddr::new(ip("192.0.2.255"), port);
        fails(socket.send_to(b"and you?", all), ErrorKind::PermissionDenied);
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"and you?", all).unwrap();
        other.send_line("recv");
        assert_eq!(other.next_line(), format!("and you? 192.0.2.10 {}", socket.port()));
        row(
            "D1 broadcast with Python on another host",
            &format!("{}: set_broadcast, reply", api::<A>()),
            "received here with a reply, received there",
            "unset: permission denied, EACCES in Python",
        );
    });
}
