//! Every option in every mode: it works, or it is rejected. The tables are the source of
//! docs/options.md: `KEEPSOCK_BLESS=1 cargo test --all-features --test it options` writes it.

use crate::support::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use crate::support::os::{AsRawFd, OwnedFd, RawFd};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::timing::undisturbed;
use crate::support::{
    Api, Client, Connection, Datagrams, Failure, INFINITE, On, OnDrop, Opt, Outcome, Pair,
    Reconnect, Serve, Server, Service, TRANSPORTS, TempDir, Transport, eventually, fails, ip, pair,
    process, system, timed,
};
use keepsock::{ErrorKind, Family, Framing, Sockopt};

both_apis![
    notsent_lowat_of_mptcp_is_kept_without_a_multipath_peer,
    messages_of_rejected_options_name_the_way,
    every_option_works_or_is_rejected_in_every_mode,
    every_serve_option_works_or_is_rejected_in_every_mode,
    serve_options_that_limit_clients_apply_in_every_mode,
    options_of_connections_have_their_effect_in_every_mode,
    timeouts_of_calls_have_their_effect_in_every_mode,
    options_of_connects_have_their_effect,
    options_of_sockets_have_their_effect,
    sockopts_of_sockets_have_their_effect,
    defer_accept_waits_for_the_first_byte,
    unix_connections_have_the_send_buffer,
    rejected_sockopt_is_named_with_its_requirement,
    preferred_family_is_tried_first,
    options_set_back_to_their_defaults_have_no_effect,
    switches_that_are_off_are_accepted_in_every_mode,
    keepalive_set_to_its_default_is_adapted_to_dead_after,
    options_with_values_above_zero_are_set_back_by_zero,
    sockopt_changes_on_an_open_connection,
    flow_label_is_in_the_packets_of_a_connect,
    flow_label_applies_to_ipv6_only,
    flow_label_of_another_program_is_named,
    sockopt_changes_on_an_open_datagram_socket,
    datagram_sockets_share_a_port_and_each_gets_the_group,
    cork_holds_back_small_writes,
    oob_inline_leaves_the_urgent_byte_in_the_stream,
    listen_all_accepts_tcp_options_when_one_socket_is_tcp,
];

/// The object that gets an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Connect,
    ConnectUnix,
    Listen,
    ListenUnix,
    ServeEvents,
    ServiceConnect,
    AdoptClient,
    AdoptServer,
    Bind,
    ConnectDatagram,
    AdoptDatagram,
    AdoptClientUnix,
    AdoptServerUnix,
    AdoptDatagramUnix,
    ServiceAdd,
    BindUnix,
    ConnectDatagramUnix,
}

use Mode::{
    AdoptClient, AdoptClientUnix, AdoptDatagram, AdoptDatagramUnix, AdoptServer, AdoptServerUnix,
    Bind, BindUnix, Connect, ConnectDatagram, ConnectDatagramUnix, ConnectUnix, Listen, ListenUnix,
    ServeEvents, ServiceAdd, ServiceConnect,
};

const MODES: [(Mode, &str); 17] = [
    (Connect, "connect TCP"),
    (ConnectUnix, "connect Unix"),
    (Listen, "listen TCP"),
    (ListenUnix, "listen Unix"),
    (ServeEvents, "serve events"),
    (ServiceConnect, "service connect"),
    (AdoptClient, "client from_fd TCP"),
    (AdoptServer, "server from_fd TCP"),
    (Bind, "bind UDP"),
    (ConnectDatagram, "connect UDP"),
    (AdoptDatagram, "datagram from_fd UDP"),
    (AdoptClientUnix, "client from_fd Unix"),
    (AdoptServerUnix, "server from_fd Unix"),
    (AdoptDatagramUnix, "datagram from_fd Unix"),
    (ServiceAdd, "connect TCP, service add"),
    (BindUnix, "bind Unix datagram"),
    (ConnectDatagramUnix, "connect Unix datagram"),
];

/// The option of `keepsock_options_NAME()`, and a letter for each mode, in their order:
///
/// - `W`: it works.
/// - `M`: accepted and always fulfilled: the mode cannot be without its effect.
/// - `C`: accepted: it limits the calls that the program makes before it adds the connection.
/// - `R`: rejected.
const TABLE: [(&str, &str); 56] = [
    ("set_keepalive", "WRWRWWWWRRRRRRWRR"),
    ("set_keepalive (off)", "WMWMWWWWMMMMMMWMM"),
    ("set_dead_after", "WMWMWWWWRRRMMRWRR"),
    ("set_fail_on_stall", "WRWRWWWWRRRRRRWRR"),
    ("set_middlebox_timeout", "WRWRWWWWRRRRRRWRR"),
    ("set_heartbeat", "WWWWWWWWRRRWWRWRR"),
    ("set_heartbeat_timeout", "WWWWWWWWRRRWWRWRR"),
    ("set_idle_timeout", "WWWWWWWWRRRWWRWRR"),
    ("set_idle_receive_only", "WWWWWWWWRRRWWRWRR"),
    ("set_first_byte_timeout", "WWWWWWWWRRRWWRWRR"),
    ("set_keep_stats", "WMWMRRWWWWWMMWRWW"),
    ("set_nodelay", "WRWRWWWWRRRRRRWRR"),
    ("set_connect_timeout", "WWWMWWRRWWRRRRWMM"),
    ("set_attempt_delay", "WRRRRWRRRRRRRRWRR"),
    ("set_read_timeout", "WWWWRRWWWWWWWWCWW"),
    ("set_write_timeout", "WWWWRRWWWWWWWWCWW"),
    ("set_close_timeout", "WWWWWWWWRRRWWRWRR"),
    ("set_family", "WRWRWWRRWWRRRRWRR"),
    ("set_preferred_family", "WRWRWWRRWWRRRRWRR"),
    ("set_sockopt (send_buffer)", "WWWWWWWWWWWWWWWWW"),
    ("set_sockopt (recv_buffer)", "WRWRWWWWWWWRRRWRR"),
    ("set_sockopt (tos)", "WRWRWWWWWWWRRRWRR"),
    ("set_sockopt (reuse_port)", "WRWRWWRRWWRRRRWRR"),
    ("set_sockopt (notsent_lowat)", "WRWRWWWWRRRRRRWRR"),
    ("set_sockopt (defer_accept)", "RRWRWRRWRRRRRRRRR"),
    ("set_sockopt (mark)", "WRWRWWWWWWWRRRWRR"),
    ("set_sockopt (priority)", "WRWRWWWWWWWRRRWRR"),
    ("set_sockopt (transparent)", "WRWRWWRRWWRRRRWRR"),
    ("set_sockopt (freebind)", "WRWRWWRRWWRRRRWRR"),
    ("set_sockopt (oob_inline)", "WRWRWWWWRRRRRRWRR"),
    ("set_sockopt (max_segment)", "WRWRWWRWRRRRRRWRR"),
    ("set_sockopt (flow_label)", "WRRRRWRRRRRRRRWRR"),
    ("set_sockopt (nodelay)", "WRWRWWWWRRRRRRWRR"),
    ("set_sockopt (cork)", "RRRRRRRRRRRRRRRRR"),
    ("set_sockopt (reuse_address)", "RRRRRRRRWWRRRRRRR"),
    ("set_congestion_control", "WRWRWWWWRRRRRRWRR"),
    ("set_raw_sockopt", "WWWWWWWWWWWWWWWWW"),
    ("set_local_endpoint", "WRRRRWRRRWRRRRWRW"),
    ("set_interface", "WRWRWWWWWWRRRRWRR"),
    ("add_remote_address", "WRRRRWRRRWRRRRWRR"),
    ("set_backlog", "RRWWWRRWRRRRWRRRR"),
    ("set_fast_open", "WRWRWWRWRRRRRRWRR"),
    ("set_mptcp", "WRWRWWRRRRRRRRWRR"),
    ("set_save_syn", "RRWRRRRWRRRRRRRRR"),
    ("set_udp_gro", "RRRRRRRRWWWRRRRRR"),
    ("set_handover", "RRWWWRRMWWMRMMRWW"),
    ("set_unix_mode", "RRRWRRRRRRRRRRRWR"),
    ("set_unix_owner", "RRRWRRRRRRRRRRRWR"),
    ("add_allowed_uid", "RRRWRRRRRRRRWWRWR"),
    ("set_seqpacket", "RWRWRRRRRRRWWRRRR"),
    ("set_cancel", "WWWWWWWWWWWWWWWWW"),
    ("add_trusted_proxy", "RRWRWRRWRRRRRRRRR"),
    ("set_proxy_timeout", "RRWRWRRWRRRRRRRRR"),
    ("set_proxy_header", "WWRRRWRRRRRRRRWRR"),
    ("new", ""),
    ("free", ""),
];

/// SO_MAX_PACING_RATE, which every socket has, and which the kernel copies on accept.
const PACING: (i32, i32) = (libc::SOL_SOCKET, 47);
const PACING_RATE: &[u8] = &[0x44, 0x33, 0x22, 0x44];

fn given<'a, A: Api>(
    name: &str,
    token: &'a A::Token,
    address: std::net::SocketAddr,
    mode: Mode,
) -> Vec<Opt<'a, A>> {
    // An option for the local address needs one.
    let with_local = |option, value| {
        let connects = matches!(mode, Connect | ConnectDatagram | ServiceConnect | ServiceAdd);
        let local = connects.then_some(Opt::Local("127.0.0.1:0"));
        local.into_iter().chain([Opt::Sockopt(option, value)]).collect()
    };
    // The group of this process may own the file.
    let group = std::fs::metadata("/proc/self").unwrap().gid();
    match name {
        "set_keepalive" => vec![Opt::Keepalive(9000, 3000, 3)],
        "set_keepalive (off)" => vec![Opt::NoKeepalive],
        "set_dead_after" => vec![Opt::DeadAfter(8000)],
        "set_fail_on_stall" => vec![Opt::DeadAfter(8000), Opt::FailOnStall(true)],
        "set_middlebox_timeout" => vec![Opt::MiddleboxTimeout(8000)],
        "set_heartbeat" => vec![Opt::Heartbeat(b"PING", 60_000)],
        "set_heartbeat_timeout" => {
            vec![Opt::Heartbeat(b"PING", 60_000), Opt::HeartbeatTimeout(60_000)]
        }
        "set_idle_timeout" => vec![Opt::IdleTimeout(60_000)],
        "set_idle_receive_only" => vec![Opt::IdleTimeout(60_000), Opt::IdleReceiveOnly(true)],
        "set_first_byte_timeout" => vec![Opt::FirstByteTimeout(60_000)],
        "set_keep_stats" => vec![Opt::KeepStats(true)],
        "set_nodelay" => vec![Opt::Nodelay(false)],
        "set_connect_timeout" => vec![Opt::ConnectTimeout(9000)],
        "set_attempt_delay" => vec![Opt::AttemptDelay(100)],
        "set_read_timeout" => vec![Opt::ReadTimeout(9000)],
        "set_write_timeout" => vec![Opt::WriteTimeout(9000)],
        "set_close_timeout" => vec![Opt::CloseTimeout(0)],
        "set_family" => vec![Opt::Family(Family::Ipv4)],
        "set_preferred_family" => vec![Opt::PreferredFamily(Family::Ipv4)],
        "set_sockopt (send_buffer)" => vec![Opt::Sockopt(Sockopt::SendBuffer, 30_000)],
        "set_sockopt (recv_buffer)" => vec![Opt::Sockopt(Sockopt::RecvBuffer, 30_000)],
        "set_sockopt (tos)" => vec![Opt::Sockopt(Sockopt::Tos, 0xb8)],
        "set_sockopt (reuse_port)" => with_local(Sockopt::ReusePort, 1),
        "set_sockopt (notsent_lowat)" => vec![Opt::Sockopt(Sockopt::NotsentLowat, 16_384)],
        "set_sockopt (defer_accept)" => vec![Opt::Sockopt(Sockopt::DeferAccept, 1500)],
        "set_sockopt (mark)" => vec![Opt::Sockopt(Sockopt::Mark, 77)],
        "set_sockopt (priority)" => vec![Opt::Sockopt(Sockopt::Priority, 5)],
        "set_sockopt (transparent)" => with_local(Sockopt::Transparent, 1),
        "set_sockopt (freebind)" => with_local(Sockopt::Freebind, 1),
        "set_sockopt (oob_inline)" => vec![Opt::Sockopt(Sockopt::OobInline, 1)],
        "set_sockopt (max_segment)" => vec![Opt::Sockopt(Sockopt::MaxSegment, 1000)],
        "set_sockopt (flow_label)" => vec![Opt::Sockopt(Sockopt::FlowLabel, FLOW_LABEL)],
        "set_sockopt (nodelay)" => vec![Opt::Sockopt(Sockopt::Nodelay, 0)],
        "set_sockopt (cork)" => vec![Opt::Sockopt(Sockopt::Cork, 1)],
        "set_sockopt (reuse_address)" => with_local(Sockopt::ReuseAddress, 1),
        "set_congestion_control" => vec![Opt::CongestionControl("reno")],
        "set_raw_sockopt" => vec![Opt::RawSockopt(PACING.0, PACING.1, PACING_RATE)],
        "set_local_endpoint" if mode == ConnectDatagramUnix => match A::NUMBER {
            1 => vec![Opt::Local("unix:@keepsock-test-options-1")],
            _ => vec![Opt::Local("unix:@keepsock-test-options-2")],
        },
        "set_local_endpoint" => vec![Opt::Local("127.0.0.1:0")],
        "set_interface" => vec![Opt::Interface("lo")],
        "add_remote_address" => vec![Opt::Address(address)],
        "set_backlog" => vec![Opt::Backlog(8)],
        "set_fast_open" => vec![Opt::FastOpen(true)],
        "set_mptcp" => vec![Opt::Mptcp(true)],
        "set_save_syn" => vec![Opt::SaveSyn(true)],
        "set_udp_gro" => vec![Opt::UdpGro(true)],
        "set_handover" => vec![Opt::Handover(true)],
        "set_unix_mode" => vec![Opt::UnixMode(0o600)],
        "set_unix_owner" => vec![Opt::UnixOwner(None, Some(group))],
        "add_allowed_uid" => vec![Opt::AllowUid(0)],
        "add_trusted_proxy" => vec![Opt::TrustedProxy("127.0.0.1")],
        "set_proxy_timeout" if matches!(mode, Listen | ServeEvents | AdoptServer) => {
            vec![Opt::TrustedProxy("127.0.0.1"), Opt::ProxyTimeout(9000)]
        }
        "set_proxy_timeout" => vec![Opt::ProxyTimeout(9000)],
        "set_proxy_header" => vec![Opt::ProxyHeader(1, None)],
        "set_seqpacket" => vec![Opt::Seqpacket(true)],
        "set_cancel" => vec![Opt::Cancel(token)],
        other => panic!("{other}: say how it is given"),
    }
}

/// A label of programs that share it.
const FLOW_LABEL: u32 = 0x1_2345;

/// Peers for all modes.
struct Peers<A: Api> {
    tcp: TcpListener,
    tcp_ipv6: TcpListener,
    udp: UdpSocket,
    dir: TempDir,
    service: A::Service,
    _server: A::Server,
}

impl<A: Api> Peers<A> {
    fn new() -> Peers<A> {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp_ipv6 = TcpListener::bind("[::1]:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        tcp_ipv6.set_nonblocking(true).unwrap();
        Peers {
            tcp,
            tcp_ipv6,
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            dir: TempDir::new(),
            service: server.serve_events(&[], On::default()).unwrap(),
            _server: server,
        }
    }
}

fn attempt<A: Api>(mode: Mode, options: &[Opt<'_, A>], peers: &Peers<A>) -> Outcome<()> {
    let ipv6 = options.iter().any(|o| matches!(o, Opt::Sockopt(Sockopt::FlowLabel, _)));
    let tcp = if ipv6 { &peers.tcp_ipv6 } else { &peers.tcp };
    let tcp = tcp.local_addr().unwrap().to_string();
    let udp = peers.udp.local_addr().unwrap().to_string();
    let seqpacket = options.iter().any(|option| matches!(option, Opt::Seqpacket(true)));
    match mode {
        Connect => {
            A::connect(&tcp, options)?;
            // Each attempt is a connect.
            A::reconnect(&tcp, options)?.connect().map(drop)
        }
        ConnectUnix => {
            let kind = if seqpacket { vec![Opt::Seqpacket(true)] } else { vec![] };
            let server = A::listen(&peers.dir.endpoint("c"), &kind).unwrap();
            A::connect(&server.endpoint(), options).map(drop)
        }
        Listen => {
            // In a service with threads each handler has a client, as from accept.
            let server = A::listen("127.0.0.1:0", options)?;
            server.serve(&[], Box::new(|_| ())).map(drop)
        }
        ListenUnix => A::listen(&peers.dir.endpoint("l"), options).map(drop),
        ServeEvents => {
            let server = A::listen("127.0.0.1:0", options)?;
            server.serve_events(&[], On::default()).map(drop)
        }
        ServiceConnect => peers.service.connect(&tcp, options, 1),
        ServiceAdd => {
            let client = A::connect(&tcp, options)?;
            peers.service.add(client, 1).map(drop).map_err(|(_, failure)| failure)
        }
        AdoptClient => {
            let stream = TcpStream::connect(peers.tcp.local_addr().unwrap()).unwrap();
            A::adopt_client(stream.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
        AdoptServer => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            A::adopt_server(listener.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
        Bind => A::Datagram::bind("127.0.0.1:0", options).map(|socket| socket.close()),
        ConnectDatagram => A::Datagram::connect(&udp, options).map(|socket| socket.close()),
        AdoptDatagram => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            A::Datagram::adopt(socket.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
        AdoptClientUnix => {
            let kind = if seqpacket { socket2::Type::SEQPACKET } else { socket2::Type::STREAM };
            let (socket, _peer) = Peer::pair(socket2::Domain::UNIX, kind, None).unwrap();
            A::adopt_client(socket.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
        AdoptServerUnix => {
            let kind = if seqpacket { socket2::Type::SEQPACKET } else { socket2::Type::STREAM };
            let socket = Peer::new(socket2::Domain::UNIX, kind, None).unwrap();
            let dir = TempDir::new();
            socket.bind(&socket2::SockAddr::unix(dir.path("a")).unwrap()).unwrap();
            socket.listen(8).unwrap();
            A::adopt_server(socket.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
        BindUnix => {
            A::Datagram::bind(&peers.dir.endpoint("b"), options).map(|socket| socket.close())
        }
        ConnectDatagramUnix => {
            let dir = TempDir::new();
            let _peer = UnixDatagram::bind(dir.path("d")).unwrap();
            A::Datagram::connect(&dir.endpoint("d"), options).map(|socket| socket.close())
        }
        AdoptDatagramUnix => {
            let dir = TempDir::new();
            let socket = UnixDatagram::bind(dir.path("d")).unwrap();
            A::Datagram::adopt(socket.into(), options).map(drop).map_err(|(_, failure)| failure)
        }
    }
}

/// K8: a switch that is off, as it is by default, is accepted in every mode.
fn switches_that_are_off_are_accepted_in_every_mode<A: Api>() {
    use Sockopt as O;
    let switches = [O::ReusePort, O::Transparent, O::Freebind, O::OobInline, O::Cork];
    let peers = Peers::<A>::new();
    for option in switches.into_iter().chain([O::DeferAccept, O::ReuseAddress]) {
        for (mode, words) in MODES {
            let outcome = attempt::<A>(mode, &[Opt::Sockopt(option, 0)], &peers);
            while peers.tcp.accept().is_ok() {}
            match outcome {
                Err(failure) if failure.is(ErrorKind::Unsupported) => {}
                outcome => outcome.unwrap_or_else(|e| panic!("{option:?}, {words}: {e:?}")),
            }
        }
    }
}

/// L8: 0 sets an option back whose values begin above 0: it is rejected in no mode, and has no effect.
fn options_with_values_above_zero_are_set_back_by_zero<A: Api>() {
    use Sockopt as O;
    let peers = Peers::<A>::new();
    let set = [(O::SendBuffer, 30_000), (O::RecvBuffer, 30_000), (O::MaxSegment, 500)];
    let set = set.into_iter().chain([(O::FlowLabel, FLOW_LABEL)]);
    let options: Vec<Opt<A>> = set
        .flat_map(|(option, value)| [Opt::Sockopt(option, value), Opt::Sockopt(option, 0)])
        .collect();
    for (mode, words) in MODES {
        let outcome = attempt::<A>(mode, &options, &peers);
        while peers.tcp.accept().is_ok() {}
        outcome.unwrap_or_else(|e| panic!("{words}: {e:?}"));
    }
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let [with, without] = [&options[..], &[]].map(|o| A::connect(&server.endpoint(), o).unwrap());
    let size = |client: &A::Client| client.sockopt(O::SendBuffer).unwrap();
    assert_eq!(size(&with), size(&without));
}

/// L1: the default values of keepalive are adapted to dead_after, also if the program sets them.
fn keepalive_set_to_its_default_is_adapted_to_dead_after<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let default = Opt::Keepalive(45_000, 15_000, 5);
    let client = A::connect(&server.endpoint(), &[default, Opt::DeadAfter(10_000)]).unwrap();
    let (idle, interval, count) = client.keepalive().unwrap().unwrap();
    assert!(idle + interval * i64::from(count) <= 10_000, "{idle} {interval} {count}");
    let dir = TempDir::new();
    A::listen(&dir.endpoint("k"), &[Opt::Keepalive(45_000, 15_000, 5)]).unwrap();
}

/// K8: no option is ignored: each cell of the table equals the behavior of the library.
fn every_option_works_or_is_rejected_in_every_mode<A: Api>() {
    let peers = Peers::<A>::new();
    let token = A::token();
    let mut wrong = String::new();
    for (name, cells) in TABLE.iter().filter(|(_, cells)| !cells.is_empty()) {
        assert_eq!(cells.len(), MODES.len(), "{name}");
        for ((mode, words), cell) in MODES.iter().zip(cells.chars()) {
            let address = match mode {
                ConnectDatagram => peers.udp.local_addr().unwrap(),
                _ => peers.tcp.local_addr().unwrap(),
            };
            let options = given::<A>(name, &token, address, *mode);
            let outcome = attempt::<A>(*mode, &options, &peers);
            // The queue of the listener must not become full.
            while peers.tcp.accept().is_ok() || peers.tcp_ipv6.accept().is_ok() {}
            let fits = match (&outcome, cell) {
                (Ok(()), 'W' | 'M' | 'C') => true,
                // A kernel without the feature reports that, and a process without the right.
                (Err(failure), 'W') => {
                    let needs_right = ["(mark)", "(transparent)"].iter().any(|o| name.contains(o));
                    let denied = needs_right && !system::is_root();
                    failure.is(ErrorKind::Unsupported)
                        || denied && failure.is(ErrorKind::PermissionDenied)
                }
                (Err(failure), 'R') => is_rejection(failure, name),
                _ => false,
            };
            if !fits {
                writeln!(wrong, "{name}, {words}: {cell} in the table, but {outcome:?}").unwrap();
            }
        }
    }
    peers.service.wait_stopped(0).unwrap_err();
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whether the error reports an option without effect, and names the option.
fn is_rejection(failure: &Failure, name: &str) -> bool {
    let kinds = [ErrorKind::InvalidArgument, ErrorKind::WrongState, ErrorKind::Unsupported];
    let word = ["set_", "add_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let word = word.strip_prefix("sockopt (").map_or(word, |word| word.trim_end_matches(')'));
    let message = failure.message.replace([' ', '-'], "_");
    kinds.iter().any(|kind| failure.is(*kind)) && message.contains(word)
}

/// The serving mode of a server or a datagram socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Threads,
    Pool,
    Events,
    ThreadsUnix,
    PoolUnix,
    EventsUnix,
    Datagrams,
    DatagramsUnix,
}

const HOWS: [(How, &str); 8] = [
    (How::Threads, "serve TCP"),
    (How::Pool, "pool TCP"),
    (How::Events, "events TCP"),
    (How::ThreadsUnix, "serve Unix"),
    (How::PoolUnix, "pool Unix"),
    (How::EventsUnix, "events Unix"),
    (How::Datagrams, "datagrams UDP"),
    (How::DatagramsUnix, "datagrams Unix"),
];

/// The option of `keepsock_serve_options_NAME()`, and a letter for each serving mode, as in
/// [`TABLE`].
const SERVE_TABLE: [(&str, &str); 13] = [
    ("set_max_connections", "WWWWWWRR"),
    ("set_accept_policy", "WWWWWWRR"),
    ("set_max_per_address", "WWWRRRRR"),
    ("add_allowed_network", "WWWRRRRR"),
    ("add_denied_network", "WWWRRRRR"),
    ("set_threads", "WWWWWWWW"),
    ("set_cpus", "RWWRWWWW"),
    ("set_framing", "RRWRRWRR"),
    ("set_queue_limit", "RRWRRWRR"),
    ("set_overflow_policy", "RRWRRWRR"),
    ("set_stack_size", "WWWWWWWW"),
    ("new", ""),
    ("free", ""),
];

fn given_to_serve(name: &str) -> Serve {
    match name {
        "set_max_connections" => Serve::Max(8),
        "set_accept_policy" => Serve::Reject,
        "set_max_per_address" => Serve::PerAddress(8),
        "add_allowed_network" => Serve::Allow("127.0.0.0/8"),
        "add_denied_network" => Serve::Deny("192.0.2.0/24"),
        "set_threads" => Serve::Threads(2),
        "set_cpus" => Serve::Cpus(&[0]),
        "set_framing" => Serve::Framing(Framing::Lines { max: 64 }),
        "set_queue_limit" => Serve::QueueLimit(64 << 10),
        "set_overflow_policy" => Serve::DropOldest,
        "set_stack_size" => Serve::Stack(256 << 10),
        other => panic!("{other}: say how it is given"),
    }
}

fn listen_for<A: Api>(how: How, dir: &TempDir) -> A::Server {
    match how {
        How::Threads | How::Pool | How::Events => A::listen("127.0.0.1:0", &[]).unwrap(),
        _ => A::listen(&dir.endpoint("s"), &[]).unwrap(),
    }
}

/// Each served client gets a byte, and stays until it closes.
fn serve<A: Api>(how: How, server: &A::Server, options: &[Serve]) -> Outcome<A::Service> {
    let mut options = options.to_vec();
    let handler = Box::new(|client: &A::Client| {
        client.write_all(b"x").unwrap();
        let _ = client.read(&mut [0; 8]);
    });
    let open = Box::new(|connection: &A::Connection| connection.send(b"x").unwrap());
    match how {
        How::Events | How::EventsUnix => {
            server.serve_events(&options, On { open: Some(open), ..On::default() })
        }
        How::Pool | How::PoolUnix => {
            options.insert(0, Serve::Threads(2));
            server.serve(&options, handler)
        }
        _ => server.serve(&options, handler),
    }
}

/// S: no serving option is ignored: each cell of the table equals the behavior of the library.
/// service.rs and serve_events.rs test the effect of stack sizes, framing and queue limits.
fn every_serve_option_works_or_is_rejected_in_every_mode<A: Api>() {
    let mut wrong = String::new();
    for (name, cells) in SERVE_TABLE.iter().filter(|(_, cells)| !cells.is_empty()) {
        assert_eq!(cells.len(), HOWS.len(), "{name}");
        for ((how, words), cell) in HOWS.iter().zip(cells.chars()) {
            let (option, dir) = (given_to_serve(name), TempDir::new());
            let datagrams = |endpoint: &str| {
                let socket = A::Datagram::bind(endpoint, &[]).unwrap();
                socket.serve_with(&[option], Box::new(|_, _| ())).map(drop)
            };
            let outcome = match how {
                How::Datagrams => datagrams("127.0.0.1:0"),
                How::DatagramsUnix => datagrams(&dir.endpoint("d")),
                _ => serve::<A>(*how, &listen_for::<A>(*how, &dir), &[option]).map(drop),
            };
            let fits = match (&outcome, cell) {
                (Ok(()), 'W') => true,
                (Err(failure), 'R') => is_rejection(failure, name),
                (Err(failure), 'W') if *name == "set_cpus" && !cfg!(keepsock_linux) => {
                    failure.is(ErrorKind::Unsupported)
                }
                _ => false,
            };
            if !fits {
                writeln!(wrong, "{name}, {words}: {cell} in the table, but {outcome:?}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Returns how many of three clients are served and stay.
fn served<A: Api>(how: How, options: &[Serve]) -> usize {
    let dir = TempDir::new();
    let server = listen_for::<A>(how, &dir);
    let _service = serve::<A>(how, &server, options).unwrap();
    let path = dir.path("s");
    let connect = || -> std::io::Result<OwnedFd> {
        Ok(match server.port() {
            0 => UnixStream::connect(&path)?.into(),
            port => TcpStream::connect(("127.0.0.1", port))?.into(),
        })
    };
    // The RST for a rejected client may arrive before connect(2) returns.
    let connect = || match connect() {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
        connected => Some(peer(connected.unwrap())),
    };
    let clients: Vec<Peer> = (0..3).filter_map(|_| connect()).collect();
    let is_served = |client: &Peer| matches!((&*client).read(&mut [0]), Ok(1));
    clients.iter().filter(|client| is_served(client)).count()
}

/// V1, V4: the limits on clients apply in each serving mode.
fn serve_options_that_limit_clients_apply_in_every_mode<A: Api>() {
    for (how, words) in &HOWS[..6] {
        let tcp = matches!(how, How::Threads | How::Pool | How::Events);
        let events = matches!(how, How::Events | How::EventsUnix);
        let pool = matches!(how, How::Pool | How::PoolUnix);
        // A pool has two threads, and its other clients wait.
        let all = if pool { 2 } else { 3 };
        let mut cases = vec![
            (vec![Serve::Max(1), Serve::Reject], 1),
            (vec![Serve::Threads(1), Serve::Reject], if events { 3 } else { 1 }),
            (vec![Serve::Reject], all),
        ];
        if tcp {
            cases.extend([
                (vec![Serve::PerAddress(1), Serve::Reject], 1),
                (vec![Serve::Deny("127.0.0.1"), Serve::Reject], 0),
                (vec![Serve::Allow("192.0.2.1"), Serve::Reject], 0),
                (vec![Serve::Allow("127.0.0.0/8"), Serve::Reject], all),
            ]);
        }
        for (number, (options, expected)) in cases.iter().enumerate() {
            assert_eq!(served::<A>(*how, options), *expected, "{words}, case {number}");
        }
    }
}

/// The far side of a connection: a socket of the standard library.
type Peer = socket2::Socket;

fn peer(socket: OwnedFd) -> Peer {
    let socket = Peer::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// The origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Connected,
    ConnectedUnix,
    Adopted,
    Accepted,
    AcceptedUnix,
    AcceptedByAdopted,
    Handled,
    EventAccepted,
    EventAcceptedUnix,
    EventAdded,
    EventConnected,
}

/// Each origin, and the mode whose options apply.
const WAYS: [(Way, Mode); 11] = [
    (Way::Connected, Connect),
    (Way::ConnectedUnix, ConnectUnix),
    (Way::Adopted, AdoptClient),
    (Way::Accepted, Listen),
    (Way::AcceptedUnix, ListenUnix),
    (Way::AcceptedByAdopted, AdoptServer),
    (Way::Handled, Listen),
    (Way::EventAccepted, ServeEvents),
    (Way::EventAcceptedUnix, ListenUnix),
    (Way::EventAdded, Connect),
    (Way::EventConnected, ServiceConnect),
];

fn works(name: &str, mode: Mode) -> bool {
    let column = MODES.iter().position(|(of, _)| *of == mode).unwrap();
    let (_, cells) = TABLE.iter().find(|(of, _)| *of == name).unwrap();
    cells.as_bytes()[column] == b'W'
}

/// Makes a connection that a [`Client`] owns. None: for this origin a service owns it.
fn with_client<A: Api>(
    way: Way,
    options: &[Opt<'_, A>],
    body: impl FnOnce(&A::Client, Peer),
) -> Option<()> {
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (client, peer_of) = match way {
        Way::Connected => {
            (A::connect(&to.to_string(), options).unwrap(), listener.accept().unwrap().0.into())
        }
        Way::ConnectedUnix => {
            let listener = UnixListener::bind(dir.path("s")).unwrap();
            let client = A::connect(&dir.endpoint("s"), options).unwrap();
            (client, listener.accept().unwrap().0.into())
        }
        Way::Adopted => {
            let stream = TcpStream::connect(to).unwrap();
            let client = A::adopt_client(stream.into(), options).map_err(|(_, e)| e).unwrap();
            (client, listener.accept().unwrap().0.into())
        }
        Way::Accepted => {
            let server = A::listen("127.0.0.1:0", options).unwrap();
            let peer = TcpStream::connect(server.endpoint()).unwrap();
            (server.accept().unwrap(), peer.into())
        }
        Way::AcceptedUnix => {
            let server = A::listen(&dir.endpoint("s"), options).unwrap();
            let peer = UnixStream::connect(dir.path("s")).unwrap();
            (server.accept().unwrap(), peer.into())
        }
        Way::AcceptedByAdopted => {
            let server = A::adopt_server(listener.into(), options).map_err(|(_, e)| e).unwrap();
            let peer = TcpStream::connect(to).unwrap();
            (server.accept().unwrap(), peer.into())
        }
        _ => return None,
    };
    body(&client, peer(peer_of));
    client.abort();
    Some(())
}

/// Makes a connection that is read, and probes its far side.
fn with_connection<A: Api>(way: Way, options: &[Opt<'_, A>], probe: &dyn Fn(&Peer)) {
    let read = |client: &A::Client| {
        while client.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
        client.abort();
    };
    let read_while_probed = |client: &A::Client, peer: Peer| {
        thread::scope(|scope| {
            scope.spawn(|| read(client));
            let _ends = OnDrop(|| client.abort());
            probe(&peer);
        });
    };
    if with_client::<A>(way, options, read_while_probed).is_some() {
        return;
    }
    let dir = TempDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let plain = A::listen("127.0.0.1:0", &[]).unwrap();
    match way {
        Way::Handled => {
            let server = A::listen("127.0.0.1:0", options).unwrap();
            let _service = server.serve(&[], Box::new(read)).unwrap();
            probe(&peer(TcpStream::connect(server.endpoint()).unwrap().into()));
        }
        Way::EventAccepted => {
            let server = A::listen("127.0.0.1:0", options).unwrap();
            let _service = server.serve_events(&[], On::default()).unwrap();
            probe(&peer(TcpStream::connect(server.endpoint()).unwrap().into()));
        }
        Way::EventAcceptedUnix => {
            let server = A::listen(&dir.endpoint("s"), options).unwrap();
            let _service = server.serve_events(&[], On::default()).unwrap();
            probe(&peer(UnixStream::connect(dir.path("s")).unwrap().into()));
        }
        Way::EventAdded => {
            let service = plain.serve_events(&[], On::default()).unwrap();
            let client = A::connect(&to, options).unwrap();
            service.add(client, 1).map_err(|(_, e)| e).unwrap();
            probe(&peer(listener.accept().unwrap().0.into()));
        }
        Way::EventConnected => {
            let service = plain.serve_events(&[], On::default()).unwrap();
            service.connect(&to, options, 1).unwrap();
            probe(&peer(listener.accept().unwrap().0.into()));
        }
        other => panic!("{other:?}: say how it is made"),
    }
}

/// The socket of this process at the other end of the connection, whatever object owns it.
fn socket_of(peer: &Peer) -> RawFd {
    let (ours, theirs) = (peer.peer_addr().unwrap(), peer.local_addr().unwrap());
    let find = || system::socket_between(ours.as_socket().unwrap(), theirs.as_socket().unwrap());
    eventually("the connection is accepted", || find().is_some());
    find().unwrap()
}

fn tcp(peer: &Peer, name: i32) -> i32 {
    system::option(socket_of(peer), libc::IPPROTO_TCP, name)
}

fn socket(peer: &Peer, name: i32) -> i32 {
    system::option(socket_of(peer), libc::SOL_SOCKET, name)
}

/// Reads all data until the connection ends, which it must.
fn until_end(peer: &Peer) -> Vec<u8> {
    let (mut stream, mut got) = (peer, Vec::new());
    match stream.read_to_end(&mut got) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("it goes on: {e}"),
        _ => got,
    }
}

/// A probe of the far side, with the options that it needs.
type Probe<A> = (Vec<Opt<'static, A>>, fn(&Peer));

fn probe<A: Api>(name: &str) -> Option<Probe<A>> {
    const LIMIT_MS: i64 = 200;
    fn ends_silently(peer: &Peer) {
        let (got, took) = timed(|| until_end(peer));
        assert_eq!(got, b"");
        assert!(took >= Duration::from_millis(LIMIT_MS as u64 / 2), "{took:?}");
    }
    Some(match name {
        "set_keepalive" => (vec![Opt::Keepalive(9000, 3000, 3)], |peer| {
            assert_eq!(system::keepalive(socket_of(peer)), (true, 9, 3, 3));
        }),
        "set_keepalive (off)" => (vec![Opt::NoKeepalive], |peer| {
            assert!(!system::keepalive(socket_of(peer)).0);
        }),
        "set_dead_after" => (vec![Opt::DeadAfter(8000)], |peer| {
            let (on, idle, interval, count) = system::keepalive(socket_of(peer));
            assert_eq!((on, idle + interval * count), (true, 8));
        }),
        "set_fail_on_stall" => (vec![Opt::DeadAfter(8000), Opt::FailOnStall(true)], |peer| {
            assert_eq!(tcp(peer, libc::TCP_USER_TIMEOUT), 8000);
        }),
        "set_middlebox_timeout" => (vec![Opt::MiddleboxTimeout(8000)], |peer| {
            let (on, idle, ..) = system::keepalive(socket_of(peer));
            assert_eq!((on, idle), (true, 4));
        }),
        "set_nodelay" => (vec![Opt::Nodelay(false)], |peer| {
            assert_eq!(tcp(peer, libc::TCP_NODELAY), 0);
        }),
        "set_sockopt (send_buffer)" => (vec![Opt::Sockopt(Sockopt::SendBuffer, 30_000)], |peer| {
            // A Unix connection has no address: `unix_connections_have_the_send_buffer` checks it.
            if peer.local_addr().unwrap().is_ipv4() {
                assert_eq!(socket(peer, libc::SO_SNDBUF), 60_000);
            }
        }),
        "set_sockopt (recv_buffer)" => (vec![Opt::Sockopt(Sockopt::RecvBuffer, 30_000)], |peer| {
            assert_eq!(socket(peer, libc::SO_RCVBUF), 60_000);
        }),
        "set_sockopt (tos)" => (vec![Opt::Sockopt(Sockopt::Tos, 0xb8)], |peer| {
            let tos = system::option(socket_of(peer), libc::IPPROTO_IP, libc::IP_TOS);
            assert_eq!(tos, 0xb8);
        }),
        "set_sockopt (notsent_lowat)" => {
            (vec![Opt::Sockopt(Sockopt::NotsentLowat, 16_384)], |peer| {
                assert_eq!(tcp(peer, libc::TCP_NOTSENT_LOWAT), 16_384);
            })
        }
        "set_sockopt (mark)" if system::is_root() => {
            (vec![Opt::Sockopt(Sockopt::Mark, 77)], |peer| {
                assert_eq!(socket(peer, libc::SO_MARK), 77);
            })
        }
        "set_sockopt (priority)" => (
            // TOS sets the priority as well, and comes first.
            vec![Opt::Sockopt(Sockopt::Priority, 5), Opt::Sockopt(Sockopt::Tos, 0x20)],
            |peer| assert_eq!(socket(peer, libc::SO_PRIORITY), 5),
        ),
        "set_sockopt (oob_inline)" => (vec![Opt::Sockopt(Sockopt::OobInline, 1)], |peer| {
            assert_eq!(socket(peer, libc::SO_OOBINLINE), 1);
        }),
        "set_sockopt (max_segment)" => (vec![Opt::Sockopt(Sockopt::MaxSegment, 1000)], |peer| {
            assert!((900..=1000).contains(&tcp(peer, libc::TCP_MAXSEG)));
        }),
        "set_sockopt (nodelay)" => (vec![Opt::Sockopt(Sockopt::Nodelay, 0)], |peer| {
            assert_eq!(tcp(peer, libc::TCP_NODELAY), 0);
        }),
        "set_congestion_control" => (vec![Opt::CongestionControl("reno")], |peer| {
            assert_eq!(system::congestion_control(socket_of(peer)), "reno");
        }),
        "set_raw_sockopt" => (vec![Opt::RawSockopt(PACING.0, PACING.1, PACING_RATE)], |peer| {
            if peer.local_addr().unwrap().is_ipv4() {
                assert_eq!(socket(peer, PACING.1).to_ne_bytes(), PACING_RATE);
            }
        }),
        "set_interface" => (vec![Opt::Interface("lo")], |peer| {
            assert_eq!(system::interface(socket_of(peer)), "lo");
        }),
        "set_heartbeat" => (vec![Opt::Heartbeat(b"PING", 50)], |peer| {
            let (mut stream, mut got) = (peer, [0; 8]);
            stream.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"PINGPING");
        }),
        "set_heartbeat_timeout" => {
            (vec![Opt::Heartbeat(b"PING", 50), Opt::HeartbeatTimeout(LIMIT_MS)], |peer| {
                let got = until_end(peer);
                assert!(got.starts_with(b"PING"), "{got:?}");
            })
        }
        "set_idle_timeout" => (vec![Opt::IdleTimeout(LIMIT_MS)], ends_silently),
        "set_first_byte_timeout" => (vec![Opt::FirstByteTimeout(LIMIT_MS)], ends_silently),
        _ => return None,
    })
}

/// K1, K3, K5, K6, L6, L8, V4: an option for connections that works in a mode has its effect: the kernel
/// has its value, or the far side observes it.
fn options_of_connections_have_their_effect_in_every_mode<A: Api>() {
    thread::scope(|scope| {
        for (way, mode) in WAYS {
            scope.spawn(move || {
                let mut probed = 0;
                for (name, _) in
                    TABLE.iter().filter(|(name, cells)| !cells.is_empty() && works(name, mode))
                {
                    if let Some((options, probe)) = probe::<A>(name) {
                        println!("{way:?}: {name}");
                        undisturbed(|| with_connection::<A>(way, &options, &probe));
                        probed += 1;
                    }
                }
                assert!(probed >= 4, "{way:?}");
            });
        }
    });
}

/// I1: the timeouts of calls apply to each connection that has calls.
fn timeouts_of_calls_have_their_effect_in_every_mode<A: Api>() {
    for (way, _) in WAYS {
        with_client::<A>(way, &[Opt::ReadTimeout(30), Opt::WriteTimeout(30)], |client, _peer| {
            fails(client.read(&mut [0]), ErrorKind::TimedOut);
            let much = vec![0; 1 << 20];
            let until = Instant::now() + Duration::from_secs(10);
            while let Ok(()) = client.write_all(&much) {
                assert!(Instant::now() < until, "{way:?}: writing goes on");
            }
            fails(client.write_all(&much), ErrorKind::TimedOut);
        });
    }
}

/// C5: the options for the local and remote address of a connect have their effect.
fn options_of_connects_have_their_effect<A: Api>() {
    const OWN: &str = "127.0.0.9";
    let (own, local) = (ip(OWN), format!("{OWN}:0"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (to, nowhere) = (address.to_string(), format!("keepsock.invalid:{}", address.port()));
    let comes_from = |listener: &TcpListener| -> IpAddr { listener.accept().unwrap().1.ip() };
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();

    let _first = A::connect(&to, &[Opt::Local(&local)]).unwrap();
    assert_eq!(comes_from(&listener), own);
    service.connect(&to, &[Opt::Local(&local)], 1).unwrap();
    assert_eq!(comes_from(&listener), own);
    let _second = A::connect(&nowhere, &[Opt::Address(address)]).unwrap();
    assert_eq!(comes_from(&listener), ip("127.0.0.1"));
    service.connect(&nowhere, &[Opt::Address(address)], 1).unwrap();
    assert_eq!(comes_from(&listener), ip("127.0.0.1"));

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let address = udp.local_addr().unwrap();
    let from = |socket: A::Datagram| -> SocketAddr {
        socket.send(b"x").unwrap();
        udp.recv_from(&mut [0; 8]).unwrap().1
    };
    let local = [Opt::Local(&local)];
    assert_eq!(from(A::Datagram::connect(&address.to_string(), &local).unwrap()).ip(), own);
    from(A::Datagram::connect("keepsock.invalid:1", &[Opt::Address(address)]).unwrap());
    // No address has that family.
    assert!(A::connect(&to, &[Opt::Family(Family::Ipv6)]).is_err());
    assert!(A::Datagram::connect(&address.to_string(), &[Opt::Family(Family::Ipv6)]).is_err());
}

/// L8: options of the operating system have their effect on listeners and datagram sockets.
fn sockopts_of_sockets_have_their_effect<A: Api>() {
    use Sockopt::{DeferAccept, Freebind, Mark, MaxSegment, ReusePort, Tos, Transparent};
    let fd = |server: &A::Server| server.fd().unwrap();
    let of_tcp = |server: &A::Server, name| system::option(fd(server), libc::IPPROTO_TCP, name);
    let listen = |options: &[Opt<'_, A>]| A::listen("127.0.0.1:0", options).unwrap();
    let adopt = |options: &[Opt<'_, A>]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        A::adopt_server(listener.into(), options).map_err(|(_, e)| e).unwrap()
    };
    for make in [&listen as &dyn Fn(&[Opt<'_, A>]) -> A::Server, &adopt] {
        // Whole seconds, rounded up.
        let server = make(&[Opt::Sockopt(DeferAccept, 1500)]);
        assert!(of_tcp(&server, libc::TCP_DEFER_ACCEPT) >= 2);
        assert_eq!(of_tcp(&make(&[Opt::Sockopt(MaxSegment, 1000)]), libc::TCP_MAXSEG), 1000);
    }

    // Two sockets share a port only if both have the option.
    let shared = [Opt::Sockopt(ReusePort, 1)];
    let first = A::listen("127.0.0.1:0", &shared).unwrap();
    A::listen(&first.endpoint(), &shared).unwrap();
    fails(A::listen(&first.endpoint(), &[]), ErrorKind::AddressInUse);
    let first = A::Datagram::bind("127.0.0.1:0", &shared).unwrap();
    A::Datagram::bind(&first.endpoint(), &shared).unwrap();
    fails(A::Datagram::bind(&first.endpoint(), &[]), ErrorKind::AddressInUse);

    // TEST-NET-1, which no machine has (RFC 5737).
    let foreign = "192.0.2.1:0";
    fails(A::listen(foreign, &[]), ErrorKind::AddressNotAvailable);
    A::listen(foreign, &[Opt::Sockopt(Freebind, 1)]).unwrap();
    A::Datagram::bind(foreign, &[Opt::Sockopt(Freebind, 1)]).unwrap();
    A::listen("[2001:db8::1]:0", &[Opt::Sockopt(Freebind, 1)]).unwrap();
    if system::is_root() {
        A::listen(foreign, &[Opt::Sockopt(Transparent, 1)]).unwrap();
        A::Datagram::bind(foreign, &[Opt::Sockopt(Transparent, 1)]).unwrap();
        A::listen("[2001:db8::1]:0", &[Opt::Sockopt(Transparent, 1)]).unwrap();
        let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::Sockopt(Mark, 9)]).unwrap();
        let mark = system::option(socket.fd().unwrap(), libc::SOL_SOCKET, libc::SO_MARK);
        assert_eq!(mark, 9);
    }

    // A listener of both families has the TOS of both.
    let server = A::listen("*:0", &[Opt::Sockopt(Tos, 0x28)]).unwrap();
    let tos = |level, name| system::option(fd(&server), level, name);
    assert_eq!(tos(libc::IPPROTO_IPV6, libc::IPV6_TCLASS), 0x28);
    assert_eq!(tos(libc::IPPROTO_IP, libc::IP_TOS), 0x28);
    // ECN belongs to the kernel for TCP.
    fails(A::listen("127.0.0.1:0", &[Opt::Sockopt(Tos, 1)]), ErrorKind::InvalidArgument);
    let socket = A::Datagram::bind("*:0", &[Opt::Sockopt(Tos, 0x29)]).unwrap();
    let tos = |level, name| system::option(socket.fd().unwrap(), level, name);
    assert_eq!(tos(libc::IPPROTO_IPV6, libc::IPV6_TCLASS), 0x29);
    assert_eq!(tos(libc::IPPROTO_IP, libc::IP_TOS), 0x29);

    // Datagram sockets of each origin.
    let buffers =
        [Opt::Sockopt(Sockopt::SendBuffer, 30_000), Opt::Sockopt(Sockopt::RecvBuffer, 40_000)];
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    for socket in [
        A::Datagram::bind("127.0.0.1:0", &buffers).unwrap(),
        A::Datagram::connect(&address, &buffers).unwrap(),
        A::Datagram::adopt(udp.into(), &buffers).map_err(|(_, e)| e).unwrap(),
    ] {
        let size = |name| system::option(socket.fd().unwrap(), libc::SOL_SOCKET, name);
        assert_eq!((size(libc::SO_SNDBUF), size(libc::SO_RCVBUF)), (60_000, 80_000));
    }
}

/// L8: a listener with TCP_DEFER_ACCEPT accepts a connection when its first byte has arrived.
fn defer_accept_waits_for_the_first_byte<A: Api>() {
    let options = [Opt::Sockopt(Sockopt::DeferAccept, 20_000)];
    let server = A::listen("127.0.0.1:0", &options).unwrap();
    server.set_nonblocking(true).unwrap();
    let client = TcpStream::connect(server.endpoint()).unwrap();
    fails(server.accept(), ErrorKind::WouldBlock);
    (&client).write_all(b"x").unwrap();
    eventually("the connection is accepted", || server.accept().is_ok());
}

/// L8: the send buffer is set on Unix connections of each origin. The kernel does not copy it from
/// the listener.
fn unix_connections_have_the_send_buffer<A: Api>() {
    let options = [
        Opt::Sockopt(Sockopt::SendBuffer, 30_000),
        Opt::RawSockopt(PACING.0, PACING.1, PACING_RATE),
    ];
    let size = |fd: RawFd| system::option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF);
    for way in [Way::ConnectedUnix, Way::AcceptedUnix] {
        let done = with_client::<A>(way, &options, |client, _peer| {
            let fd = client.fd().unwrap();
            assert_eq!(size(fd), 60_000, "{way:?}");
            let has_rate = system::option(fd, PACING.0, PACING.1).to_ne_bytes() == PACING_RATE;
            assert_eq!(has_rate, way == Way::ConnectedUnix);
        });
        done.unwrap();
    }
    let (socket, _peer) = UnixStream::pair().unwrap();
    let client = A::adopt_client(socket.into(), &options).map_err(|(_, e)| e).unwrap();
    assert_eq!(size(client.fd().unwrap()), 60_000);

    let dir = TempDir::new();
    let server = A::listen(&dir.endpoint("s"), &options).unwrap();
    let (send, opened) = std::sync::mpsc::channel();
    let send = std::sync::Mutex::new(send);
    let open = Box::new(move |connection: &A::Connection| {
        send.lock().unwrap().send(connection.sockopt(Sockopt::SendBuffer)).unwrap();
    });
    let _service = server.serve_events(&[], On { open: Some(open), ..On::default() }).unwrap();
    let _client = UnixStream::connect(dir.path("s")).unwrap();
    let size = opened.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(size.unwrap(), 60_000);
}

/// L8: the error of an option that the kernel rejects names the option and what it requires.
fn rejected_sockopt_is_named_with_its_requirement<A: Api>() {
    use Sockopt::{Mark, Priority, Transparent};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let missing = [Opt::CongestionControl("no-such")];
    let outcomes =
        [A::connect(&to, &missing).map(drop), A::listen("127.0.0.1:0", &missing).map(drop)];
    for outcome in outcomes {
        let failure = fails(outcome, ErrorKind::Unsupported);
        assert_eq!((&*failure.stage, failure.os_error), ("options", libc::ENOENT));
        let why =
            "options: not supported: congestion_control \"no-such\": the kernel does not have it";
        assert!(failure.message.contains(why), "{failure:?}");
    }
    let unknown = [Opt::RawSockopt(libc::SOL_SOCKET, 9999, &[0; 4])];
    let failure = fails(A::listen("127.0.0.1:0", &unknown), ErrorKind::Unsupported);
    assert!(failure.message.contains("raw_sockopt (level 1, name 9999)"), "{failure:?}");
    for level_and_name in
        [(libc::SOL_SOCKET, libc::SO_LINGER), (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE)]
    {
        let (level, name) = level_and_name;
        let own = [Opt::RawSockopt(level, name, &[0; 8])];
        fails(A::listen("127.0.0.1:0", &own), ErrorKind::InvalidArgument);
    }

    let test = test_name!(A, "rejected_sockopt_is_named_with_its_requirement");
    process::in_process(&test, Duration::from_secs(20), || {
        system::drop_privileges();
        for (option, value) in [(Mark, 1), (Transparent, 1), (Priority, 7)] {
            let options = [Opt::Sockopt(option, value)];
            let failure = fails(A::listen("127.0.0.1:0", &options), ErrorKind::PermissionDenied);
            let why = "permission denied: ";
            assert!(failure.message.contains(why), "{failure:?}");
            assert!(
                failure.message.contains("requires CAP_NET_ADMIN or CAP_NET_RAW"),
                "{failure:?}"
            );
        }
        let failure = A::connect(&to, &[Opt::Sockopt(Mark, 1)]).err().unwrap();
        let why = "options: permission denied: mark 1 requires CAP_NET_ADMIN or CAP_NET_RAW";
        assert!(failure.message.contains(why), "{failure:?}");
        // Without CAP_NET_ADMIN this is permitted.
        A::listen("127.0.0.1:0", &[Opt::Sockopt(Priority, 6)]).unwrap();
    });
}

/// L8: an option changes on an open connection if it has an effect there. Any other is rejected.
fn sockopt_changes_on_an_open_connection<A: Api>() {
    use Sockopt::{
        Cork, DeferAccept, FlowLabel, Freebind, Mark, MaxSegment, Nodelay, NotsentLowat, OobInline,
        Priority, RecvBuffer, ReusePort, SendBuffer, Tos, Transparent,
    };
    let changes = [
        (SendBuffer, 20_000, 40_000),
        (RecvBuffer, 20_000, 40_000),
        (Tos, 0x28, 0x28),
        (NotsentLowat, 1000, 1000),
        (Priority, 4, 4),
        (OobInline, 1, 1),
        (Nodelay, 0, 0),
        (Cork, 1, 1),
    ];
    let fixed = [ReusePort, DeferAccept, Transparent, Freebind, MaxSegment, FlowLabel];
    type Set<'a> = &'a dyn Fn(Sockopt, u32) -> Outcome<()>;
    type Get<'a> = &'a dyn Fn(Sockopt) -> Outcome<u32>;
    let check = |set: Set<'_>, get: Get<'_>, unix: bool| {
        let open = |option| option == SendBuffer || !unix;
        for (option, value, expected) in changes {
            if open(option) {
                set(option, value).unwrap();
                assert_eq!(get(option).unwrap(), expected, "{option:?}");
            } else {
                fails(set(option, value), ErrorKind::Unsupported);
                fails(get(option), ErrorKind::Unsupported);
            }
        }
        for option in fixed {
            let kind = if unix { ErrorKind::Unsupported } else { ErrorKind::InvalidArgument };
            fails(set(option, 1000), kind);
            fails(set(option, 1), kind);
        }
        let kind = ErrorKind::InvalidArgument;
        fails(set(SendBuffer, 0), kind);
        if !unix {
            fails(set(Tos, 1), kind);
            let marked = set(Mark, 7);
            match system::is_root() {
                true => assert_eq!(get(Mark).unwrap(), 7),
                false => drop(fails(marked, ErrorKind::PermissionDenied)),
            }
        }
    };
    for transport in TRANSPORTS {
        let unix = transport == Transport::Unix;
        let p = pair::<A>(transport);
        for client in [&p.client, &p.accepted] {
            check(&|o, v| client.set_sockopt(o, v), &|o| client.sockopt(o), unix);
        }
        let service = A::listen("127.0.0.1:0", &[]).unwrap();
        let (send, opened) = std::sync::mpsc::channel();
        let send = std::sync::Mutex::new(send);
        let open = Box::new(move |connection: &A::Connection| {
            send.lock().unwrap().send(connection.clone()).unwrap();
        });
        let service = service.serve_events(&[], On { open: Some(open), ..On::default() }).unwrap();
        let Pair { client, accepted, .. } = p;
        service.add(client, 1).map_err(|(_, e)| e).unwrap();
        let connection = opened.recv_timeout(Duration::from_secs(60)).unwrap();
        check(&|o, v| connection.set_sockopt(o, v), &|o| connection.sockopt(o), unix);
        accepted.abort();
        eventually("the connection ends", || connection.set_sockopt(SendBuffer, 9).is_err());
    }
    let p = pair::<A>(Transport::Tcp);
    p.client.close().unwrap();
    fails(p.client.set_sockopt(Nodelay, 1), ErrorKind::Closed);
    fails(p.client.sockopt(Nodelay), ErrorKind::Closed);
}

/// L8: the packets of a connect have the flow label, in every way of connecting, and several connections
/// may have it at once.
fn flow_label_is_in_the_packets_of_a_connect<A: Api>() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let options = [Opt::Sockopt(Sockopt::FlowLabel, FLOW_LABEL)];
    let accepted = || listener.accept().unwrap().0;
    let plain = A::connect(&to, &[]).unwrap();
    assert_ne!(system::received_flow_label(accepted().as_raw_fd()), FLOW_LABEL);
    assert_eq!(plain.sockopt(Sockopt::FlowLabel).unwrap(), 0);
    let first = A::connect(&to, &options).unwrap();
    let of_first = accepted();
    let second = A::reconnect(&to, &options).unwrap().connect().unwrap();
    let of_second = accepted();
    let pending = A::start(&to, &options).unwrap();
    let of_pending = accepted();
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let service = server.serve_events(&[], On::default()).unwrap();
    service.connect(&to, &options, 1).unwrap();
    for peer in [&of_first, &of_second, &of_pending, &accepted()] {
        assert_eq!(system::received_flow_label(peer.as_raw_fd()), FLOW_LABEL);
    }
    for client in [&first, &second] {
        assert_eq!(client.sockopt(Sockopt::FlowLabel).unwrap(), FLOW_LABEL);
        // The label is no part of an address.
        assert_eq!(
            client.five_tuple().remote,
            ("::1".to_owned(), listener.local_addr().unwrap().port())
        );
    }
    drop(pending);
}

/// L8, C1: an attempt to an IPv4 address ignores the flow label. A connect that has no other address is
/// rejected.
fn flow_label_applies_to_ipv6_only<A: Api>() {
    let label = || Opt::Sockopt(Sockopt::FlowLabel, FLOW_LABEL);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let nowhere = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
    let name = format!("keepsock.invalid:{}", address.port());
    // The IPv6 address refuses.
    let both = [label(), Opt::Address(nowhere), Opt::Address(address)];
    let client = A::connect(&name, &both).unwrap();
    assert_eq!(client.sockopt(Sockopt::FlowLabel).unwrap(), 0);
    let ipv6 = "[::1]:9";
    let rejected = [
        (address.to_string(), vec![label()]),
        (format!("[::ffff:127.0.0.1]:{}", address.port()), vec![label()]),
        (name, vec![label(), Opt::Address(address)]),
        ("localhost:9".to_owned(), vec![label(), Opt::Family(Family::Ipv4)]),
        (ipv6.to_owned(), vec![label(), Opt::Mptcp(true)]),
    ];
    for (endpoint, options) in rejected {
        for outcome in
            [A::connect(&endpoint, &options).map(drop), A::start(&endpoint, &options).map(drop)]
        {
            let failure = fails(outcome, ErrorKind::InvalidArgument);
            assert!(failure.message.contains("flow_label"), "{failure:?}");
        }
    }
}

/// E1: the error names a flow label that another program leases exclusively.
fn flow_label_of_another_program_is_named<A: Api>() {
    // The kernel keeps a lease for some seconds, for the whole machine.
    let label = 0x4_0000 + (std::process::id() % 0x1_0000) * 4 + u32::from(A::NUMBER);
    let listener = TcpListener::bind("[::1]:0").unwrap();
    system::lease_flow_label(listener.as_raw_fd(), label);
    let to = listener.local_addr().unwrap().to_string();
    let denied = A::connect(&to, &[Opt::Sockopt(Sockopt::FlowLabel, label)]).map(drop);
    let failure = fails(denied, ErrorKind::PermissionDenied);
    assert!(failure.message.contains("flow_label"), "{failure:?}");
    assert!(failure.message.contains("another program leases it"), "{failure:?}");
}

/// L8: an option changes on an open datagram socket if it has an effect there. Any other is rejected.
fn sockopt_changes_on_an_open_datagram_socket<A: Api>() {
    use Sockopt::{
        Freebind, Mark, Nodelay, Priority, RecvBuffer, ReuseAddress, ReusePort, SendBuffer, Tos,
        Transparent,
    };
    let changes = [
        (SendBuffer, 20_000, 40_000),
        (RecvBuffer, 20_000, 40_000),
        (Tos, 0x29, 0x29),
        (Priority, 4, 4),
    ];
    let bound = A::Datagram::bind("*:0", &[Opt::Sockopt(ReuseAddress, 1)]).unwrap();
    let connected = A::Datagram::connect(&format!("127.0.0.1:{}", bound.port()), &[]).unwrap();
    for socket in [&bound, &connected] {
        for (option, value, expected) in changes {
            socket.set_sockopt(option, value).unwrap();
            assert_eq!(socket.sockopt(option).unwrap(), expected, "{option:?}");
        }
        for option in [ReuseAddress, ReusePort, Transparent, Freebind] {
            let failure = fails(socket.set_sockopt(option, 1), ErrorKind::InvalidArgument);
            assert!(failure.message.contains("has no effect on an existing socket"), "{failure:?}");
        }
        fails(socket.set_sockopt(SendBuffer, 0), ErrorKind::InvalidArgument);
        fails(socket.set_sockopt(Nodelay, 1), ErrorKind::Unsupported);
        fails(socket.sockopt(Nodelay), ErrorKind::Unsupported);
        match (socket.set_sockopt(Mark, 7), system::is_root()) {
            (Ok(()), true) => assert_eq!(socket.sockopt(Mark).unwrap(), 7),
            (denied, _) => drop(fails(denied, ErrorKind::PermissionDenied)),
        }
    }
    assert_eq!(bound.sockopt(ReuseAddress).unwrap(), 1);
    assert_eq!(connected.sockopt(ReuseAddress).unwrap(), 0);
    let stats = bound.stats().unwrap();
    assert_eq!((stats.send_buffer, stats.receive_buffer), (40_000, 40_000));
    let dir = TempDir::new();
    let unix = A::Datagram::bind(&dir.endpoint("u"), &[]).unwrap();
    unix.set_sockopt(SendBuffer, 20_000).unwrap();
    assert_eq!(unix.sockopt(SendBuffer).unwrap(), 40_000);
    for option in [RecvBuffer, Tos, ReuseAddress] {
        fails(unix.set_sockopt(option, 1), ErrorKind::Unsupported);
        fails(unix.sockopt(option), ErrorKind::Unsupported);
    }
    unix.close();
    fails(unix.set_sockopt(SendBuffer, 20_000), ErrorKind::Closed);
    fails(unix.sockopt(SendBuffer), ErrorKind::Closed);
}

/// D1: two sockets with SO_REUSEADDR, or with SO_REUSEADDR and SO_REUSEPORT, share a port as mDNS
/// responders do, and each of them receives the datagrams of the group. A third without is rejected.
fn datagram_sockets_share_a_port_and_each_gets_the_group<A: Api>() {
    let both = [Opt::Sockopt(Sockopt::ReuseAddress, 1), Opt::Sockopt(Sockopt::ReusePort, 1)];
    let group: IpAddr = ip("239.255.53.53");
    for options in [&both[..1], &both] {
        let first = A::Datagram::bind("0.0.0.0:0", options).unwrap();
        let second = A::Datagram::bind(&first.endpoint(), options).unwrap();
        fails(A::Datagram::bind(&first.endpoint(), &[]), ErrorKind::AddressInUse);
        for socket in [&first, &second] {
            socket.join(group, Some("lo"), None).unwrap();
            socket.set_read_timeout(60_000).unwrap();
        }
        let sender = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        sender.set_multicast_interface("lo").unwrap();
        sender.send_to(b"query", SocketAddr::new(group, first.port())).unwrap();
        for socket in [&first, &second] {
            assert_eq!(socket.recv(64).unwrap().bytes, b"query");
        }
    }
}

/// L8: bytes that are held back with TCP_CORK are sent when it is off again, in one segment.
fn cork_holds_back_small_writes<A: Api>() {
    let p = pair::<A>(Transport::Tcp);
    p.client.set_sockopt(Sockopt::Cork, 1).unwrap();
    p.client.write_all(b"head").unwrap();
    p.accepted.set_nonblocking(true).unwrap();
    fails(p.accepted.read(&mut [0; 16]), ErrorKind::WouldBlock);
    p.client.write_all(b"body").unwrap();
    p.client.set_sockopt(Sockopt::Cork, 0).unwrap();
    p.accepted.set_nonblocking(false).unwrap();
    let mut buf = [0; 16];
    assert_eq!(p.accepted.read(&mut buf).unwrap(), 8);
    assert_eq!(&buf[..8], b"headbody");
}

/// L8: the urgent byte stays in the stream with SO_OOBINLINE, and is removed without it.
fn oob_inline_leaves_the_urgent_byte_in_the_stream<A: Api>() {
    for (on, expected) in [(1, &b"a!b"[..]), (0, b"ab")] {
        let server = A::listen("127.0.0.1:0", &[Opt::Sockopt(Sockopt::OobInline, on)]).unwrap();
        let peer = peer(TcpStream::connect(server.endpoint()).unwrap().into());
        let accepted = server.accept().unwrap();
        peer.send(b"a").unwrap();
        peer.send_out_of_band(b"!").unwrap();
        peer.send(b"b").unwrap();
        let mut got = vec![0; expected.len()];
        accepted.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        accepted.abort();
    }
}

/// C2: the addresses of the preferred family come first, and the others are tried as well.
fn preferred_family_is_tried_first<A: Api>() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = v4.local_addr().unwrap().port();
    let Ok(v6) = TcpListener::bind(("::1", port)) else {
        return; // another socket has the port, or the machine has no IPv6
    };
    let name = format!("localhost:{port}");
    let given: Vec<SocketAddr> = vec![v6.local_addr().unwrap(), v4.local_addr().unwrap()];
    let remote = |options: &[Opt<'_, A>]| A::connect(&name, options).unwrap().five_tuple().remote.0;
    assert_eq!(remote(&[Opt::PreferredFamily(Family::Ipv4)]), "127.0.0.1");
    assert_eq!(remote(&[Opt::PreferredFamily(Family::Ipv6)]), "::1");
    let options =
        [Opt::Address(given[0]), Opt::Address(given[1]), Opt::PreferredFamily(Family::Ipv4)];
    assert_eq!(remote(&options), "127.0.0.1");
    let listening = |family| {
        let server = A::listen("localhost:0", &[Opt::PreferredFamily(family)]).unwrap();
        server.endpoint()
    };
    assert!(listening(Family::Ipv4).starts_with("127.0.0.1:"));
    assert!(listening(Family::Ipv6).starts_with("[::1]:"));
    // Not an exclusion: the other family is tried when the preferred one fails.
    drop(v4);
    assert_eq!(remote(&[Opt::PreferredFamily(Family::Ipv4)]), "::1");
    let both = [Opt::Family(Family::Ipv4), Opt::PreferredFamily(Family::Ipv6)];
    fails(A::connect(&name, &both), ErrorKind::InvalidArgument);
}

/// S3, L6, L8, D4: the options for listening and datagram sockets have their effect in the kernel
/// or in the file system.
fn options_of_sockets_have_their_effect<A: Api>() {
    let adopt = |options: &[Opt<'_, A>]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        A::adopt_server(listener.into(), options).map_err(|(_, e)| e).unwrap()
    };
    let listen = |options: &[Opt<'_, A>]| A::listen("127.0.0.1:0", options).unwrap();
    for make in [&listen as &dyn Fn(&[Opt<'_, A>]) -> A::Server, &adopt] {
        let fd = |server: &A::Server| server.fd().unwrap();
        let tcp = |server: &A::Server, name| system::option(fd(server), libc::IPPROTO_TCP, name);
        assert_eq!(system::backlog(fd(&make(&[Opt::Backlog(8)]))), 8);
        assert!(tcp(&make(&[Opt::FastOpen(true)]), libc::TCP_FASTOPEN) > 0);
        assert!(tcp(&make(&[Opt::SaveSyn(true)]), libc::TCP_SAVE_SYN) > 0);
        assert_eq!(system::interface(fd(&make(&[Opt::Interface("lo")]))), "lo");
    }
    let domain = |fd: RawFd| system::option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
    let server = A::listen("*:0", &[Opt::Family(Family::Ipv4)]).unwrap();
    assert_eq!(domain(server.fd().unwrap()), libc::AF_INET);
    let socket = A::Datagram::bind("*:0", &[Opt::Family(Family::Ipv4)]).unwrap();
    assert_eq!(domain(socket.fd().unwrap()), libc::AF_INET);
    let socket = A::Datagram::bind("127.0.0.1:0", &[Opt::Interface("lo")]).unwrap();
    assert_eq!(system::interface(socket.fd().unwrap()), "lo");

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    for socket in [
        A::Datagram::bind("127.0.0.1:0", &[Opt::UdpGro(true)]).unwrap(),
        A::Datagram::connect(&address, &[Opt::UdpGro(true)]).unwrap(),
        A::Datagram::adopt(udp.into(), &[Opt::UdpGro(true)]).map_err(|(_, e)| e).unwrap(),
    ] {
        assert!(system::coalesces(socket.fd().unwrap()));
    }

    let dir = TempDir::new();
    let _server = A::listen(&dir.endpoint("m"), &[Opt::UnixMode(0o640)]).unwrap();
    assert_eq!(std::fs::metadata(dir.path("m")).unwrap().mode() & 0o777, 0o640);
    let user = std::fs::metadata("/proc/self").unwrap().uid();
    for (name, allowed) in [("mine", user), ("other", user + 1)] {
        let server = A::listen(&dir.endpoint(name), &[Opt::AllowUid(allowed)]).unwrap();
        let _service = serve::<A>(How::ThreadsUnix, &server, &[]).unwrap();
        let client = peer(UnixStream::connect(dir.path(name)).unwrap().into());
        let served = matches!((&client).read(&mut [0]), Ok(1));
        assert_eq!(served, allowed == user);
    }
    let server = A::listen(&dir.endpoint("p"), &[Opt::Seqpacket(true)]).unwrap();
    let client = A::connect(&dir.endpoint("p"), &[Opt::Seqpacket(true)]).unwrap();
    for fd in [server.fd().unwrap(), client.fd().unwrap()] {
        let kind = system::option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE);
        assert_eq!(kind, libc::SOCK_SEQPACKET);
    }
}

/// L2: options that a Unix socket rejects apply to the TCP socket of a server with both.
fn listen_all_accepts_tcp_options_when_one_socket_is_tcp<A: Api>() {
    let dir = TempDir::new();
    let unix = dir.endpoint("s");
    let tcp_only: [fn() -> Opt<'static, A>; 3] =
        [|| Opt::Keepalive(9000, 3000, 3), || Opt::MiddleboxTimeout(8000), || Opt::Nodelay(false)];
    for option in tcp_only {
        A::listen_all(&["127.0.0.1:0", &unix], &[option()]).unwrap().close();
        fails(A::listen_all(&[&unix], &[option()]), ErrorKind::InvalidArgument);
    }
}

/// S: each option of the header is in a table.
#[test]
fn tables_have_every_option_of_the_header() {
    let header = crate::support::header::text();
    let tables = [("keepsock_options_", &TABLE[..]), ("keepsock_serve_options_", &SERVE_TABLE)];
    for (prefix, table) in tables {
        let declared: BTreeSet<&str> = header
            .match_indices(prefix)
            .filter(|(at, _)| {
                header[..*at].ends_with("\nint32_t ") || header[..*at].ends_with("\nvoid ")
            })
            .filter_map(|(at, found)| header[at + found.len()..].split('(').next())
            .collect();
        let listed: BTreeSet<&str> =
            table.iter().filter_map(|(name, _)| name.split(' ').next()).collect();
        assert_eq!(declared, listed);
    }
    let options = header.match_indices("    KEEPSOCK_SOCKOPT_").filter_map(|(at, _)| {
        let name = header[at..].trim_start().split(' ').next()?;
        Some(name.trim_start_matches("KEEPSOCK_SOCKOPT_").to_lowercase())
    });
    let rows = TABLE.iter().filter_map(|(name, _)| name.strip_prefix("set_sockopt ("));
    let rows: BTreeSet<_> = rows.map(|name| name.trim_end_matches(')').to_owned()).collect();
    assert_eq!(options.collect::<BTreeSet<_>>(), rows);
}

fn page() -> String {
    let mut page = String::from(
        "# Options and modes\n\n\
         `tests/it/options.rs` generates this page and tests each cell through both APIs.\n\n\
         - **yes**: the option works.\n\
         - **met**: the option is accepted, and the mode always fulfills it: the peer of a Unix \
         socket cannot vanish.\n\
         - **before**: the option is accepted. It limits the calls that the program makes before it \
         adds the connection to the service, and none afterwards.\n\
         - **-**: the call that receives the option fails, with `InvalidArgument` \
         (`KEEPSOCK_ERR_INVALID_ARGUMENT`) unless the descriptor is of another kind.\n\n\
         An option that is off by default is accepted in every mode if it is off, and `nodelay` if \
         it is on.\n\n\
         ## Socket options\n\n\
         `Reconnect` accepts what connecting accepts. Serving by threads accepts what listening \
         accepts: each accepted connection has the options of its listener. `Service::add` keeps \
         keepalive, `dead_after`, heartbeat, idle timeout, first-byte timeout and close timeout \
         of the added client. Where the platform lacks an option, the call fails with \
         `Unsupported`.\n\n",
    );
    table(&mut page, &MODES.map(|(_, words)| words), &TABLE);
    page.push_str(
        "\n## Serve options\n\n\
         In the columns \"serve\" a thread serves each connection. In the columns \"pool\" the number \
         of threads is set. A server that listens on TCP and Unix sockets accepts what a TCP server \
         accepts.\n\n",
    );
    table(&mut page, &HOWS.map(|(_, words)| words), &SERVE_TABLE);
    page
}

fn table(page: &mut String, columns: &[&str], rows: &[(&str, &str)]) {
    writeln!(page, "| option | {} |", columns.join(" | ")).unwrap();
    writeln!(page, "|---|{}", "---|".repeat(columns.len())).unwrap();
    for (name, cells) in rows.iter().filter(|(_, cells)| !cells.is_empty()) {
        let name = name.trim_start_matches("set_");
        let name = name.strip_prefix("sockopt (").map_or(name, |name| name.trim_end_matches(')'));
        let mut row = format!("| `{name}` |");
        for cell in cells.chars() {
            let word = match cell {
                'W' => "yes",
                'M' => "met",
                'C' => "before",
                _ => "-",
            };
            write!(row, " {word} |").unwrap();
        }
        row.push('\n');
        // An option with a setter of its own and set_sockopt has one row.
        if !page.contains(&row) {
            page.push_str(&row);
        }
    }
}

/// S: the page has one row for each option.
#[test]
fn page_has_each_option_once() {
    let page = page();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let rows: Vec<_> = rows.iter().filter_map(|row| row.split('`').next()).collect();
    let unique: BTreeSet<_> = rows.iter().collect();
    assert_eq!(rows.len(), unique.len(), "{rows:?}");
}

/// The page in docs/ equals the tables.
#[test]
fn page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/options.md");
    let page = page();
    if std::env::var_os("KEEPSOCK_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/options.md is out of date: KEEPSOCK_BLESS=1 cargo test --all-features --test it options"
    );
}

/// E2, C5: an option that is set back to its default has no effect: NULL for a text, and the value that
/// stands for the default of the system for a number.
fn options_set_back_to_their_defaults_have_no_effect<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let unusable: Vec<fn() -> Opt<'static, A>> = vec![
        || Opt::Local("192.0.2.1:0"),
        || Opt::Interface("nosuchiface0"),
        || Opt::CongestionControl("no-such-one"),
        || Opt::Backlog(8),
        || Opt::UnixMode(0o600),
        || Opt::UnixOwner(Some(0), None),
    ];
    for option in unusable {
        assert!(A::connect(&server.endpoint(), &[option()]).is_err());
        A::connect(&server.endpoint(), &[option(), Opt::Defaults]).unwrap();
    }
}

/// E1: the message of a rejected option states which other option excludes it, and what to do.
fn messages_of_rejected_options_name_the_way<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let to = server.endpoint();
    let client = A::connect(&to, &[Opt::DeadAfter(10_000)]).unwrap();
    let says = |outcome: Outcome<()>, kind, what: &str| {
        let failure = fails(outcome, kind);
        assert!(failure.message.contains(what), "{failure:?}");
        assert!(!failure.message.contains(" after "), "{failure:?}");
    };
    client.set_heartbeat(b"beat", 1000).unwrap();
    client.set_heartbeat_timeout(1000).unwrap();
    let off = client.set_heartbeat(b"", INFINITE);
    says(off, ErrorKind::InvalidArgument, "turn heartbeat_timeout off first");
    let off = client.disable_keepalive();
    says(off, ErrorKind::InvalidArgument, "need keepalive: turn them off first");
    let reuse = [Opt::Sockopt(Sockopt::ReuseAddress, 1), Opt::Local("127.0.0.1:0")];
    let connect = |options: &[Opt<'_, A>]| A::connect(&to, options).map(drop);
    says(connect(&reuse), ErrorKind::InvalidArgument, "the library sets it");
    let raw = [Opt::RawSockopt(libc::SOL_SOCKET, 9999, &[1, 0, 0, 0])];
    says(connect(&raw), ErrorKind::Unsupported, "raw_sockopt (level 1, name 9999)");
    let mptcp = [Opt::Mptcp(true), Opt::Sockopt(Sockopt::OobInline, 1)];
    if A::connect(&to, &mptcp[..1]).is_ok() {
        says(connect(&mptcp), ErrorKind::Unsupported, "oob_inline does not apply to mptcp");
    }
}

/// L8, S3: a Multipath TCP connect to a peer that has only TCP keeps its options.
fn notsent_lowat_of_mptcp_is_kept_without_a_multipath_peer<A: Api>() {
    let server = A::listen("127.0.0.1:0", &[]).unwrap();
    let options = [Opt::Mptcp(true), Opt::Sockopt(Sockopt::NotsentLowat, 16_384)];
    let Ok(client) = A::connect(&server.endpoint(), &options[..1]) else {
        return; // The kernel has no Multipath TCP.
    };
    drop(client);
    let client = A::connect(&server.endpoint(), &options).unwrap();
    assert_eq!(client.sockopt(Sockopt::NotsentLowat).unwrap(), 16_384);
}
