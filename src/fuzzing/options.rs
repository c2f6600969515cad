//! Options of sockets, before and after they are created.

use std::time::Duration;

use super::{Input, check_printable};
use crate::listener::ServerSocket;
use crate::options::SocketOptions;
use crate::stream::ClientSocket;
use crate::types::address::Family;
use crate::types::error::{Error, ErrorKind};
use crate::types::keepalive::Keepalive;
use crate::types::proxy::ProxyHeader;
use crate::types::sockopt::Sockopt;

const ALL: [Sockopt; 16] = [
    Sockopt::SendBuffer,
    Sockopt::RecvBuffer,
    Sockopt::Tos,
    Sockopt::ReusePort,
    Sockopt::NotsentLowat,
    Sockopt::DeferAccept,
    Sockopt::Mark,
    Sockopt::Priority,
    Sockopt::Transparent,
    Sockopt::Freebind,
    Sockopt::OobInline,
    Sockopt::MaxSegment,
    Sockopt::FlowLabel,
    Sockopt::Nodelay,
    Sockopt::Cork,
    Sockopt::ReuseAddress,
];

/// Any setter with any value is rejected, or has an effect that can be read back from the connection.
/// A failed setter of an open connection changes nothing.
pub fn options(data: &[u8]) {
    let mut input = Input::new(data);
    let endpoint = match input.below(3) {
        0 => "127.0.0.1:0".to_owned(),
        1 => "[::1]:0".to_owned(),
        _ => format!("unix:@keepsock-fuzz-options-{}", std::process::id()),
    };
    let (listening, connecting) = (chosen(&mut input), chosen(&mut input));
    let (server, listening) = match ServerSocket::listen_with(&*endpoint, &listening.options) {
        Ok(server) => (Some(server), Some(listening)),
        Err(error) => {
            check_error(&error, &listening);
            (ServerSocket::listen(&*endpoint).ok(), None)
        }
    };
    // A machine may lack IPv6.
    let Some(server) = server else { return };
    let client = match ClientSocket::connect_with(server.endpoint(), &connecting.options) {
        Ok(client) => {
            connecting.check(&client);
            Some(client)
        }
        Err(error) => {
            check_error(&error, &connecting);
            ClientSocket::connect_with(server.endpoint(), &SocketOptions::new()).ok()
        }
    };
    // The options of the server may not accept this client.
    let Some(client) = client else { return };
    let mut open = vec![client];
    let _ = server.set_nonblocking(true);
    if let Ok(accepted) = server.accept() {
        if let Some(listening) = listening {
            listening.check(&accepted);
        }
        open.push(accepted);
    }
    while !input.is_empty() {
        let client = &open[input.below(open.len())];
        change(client, &mut input);
    }
}

/// Options, and the values that a connection must return.
struct Chosen {
    options: SocketOptions,
    numbers: Vec<(Sockopt, u32)>,
    keepalive: Option<Option<Keepalive>>,
    dead_after: Option<Duration>,
    is_raw: bool,
}

fn duration(input: &mut Input) -> Duration {
    let number = input.number();
    match input.byte() % 3 {
        0 => Duration::from_millis(number),
        1 => Duration::from_secs(number),
        _ => Duration::new(number, 999_999_999),
    }
}

fn optional(input: &mut Input) -> Option<Duration> {
    (input.byte() % 4 > 0).then(|| duration(input))
}

fn keepalive(input: &mut Input) -> Option<Option<Keepalive>> {
    if input.byte() % 8 == 0 {
        return Some(None);
    }
    let (idle, interval) = (duration(input), duration(input));
    let count = input.number() as u32;
    match Keepalive::new(idle, interval, count) {
        Ok(keepalive) => {
            for (given, rounded) in [(idle, keepalive.idle()), (interval, keepalive.interval())] {
                assert!(given <= rounded && rounded - given < Duration::from_secs(1), "{given:?}");
            }
            assert_eq!(keepalive.count(), count);
            Some(Some(keepalive))
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            None
        }
    }
}

fn chosen(input: &mut Input) -> Chosen {
    let mut chosen = Chosen {
        options: SocketOptions::new(),
        numbers: Vec::new(),
        keepalive: None,
        dead_after: None,
        is_raw: false,
    };
    for _ in 0..input.below(6) {
        let options = chosen.options.clone();
        let on = input.byte() % 2 == 0;
        chosen.options = match input.byte() % 40 {
            0 => match keepalive(input) {
                Some(keepalive) => {
                    chosen.keepalive = Some(keepalive);
                    options.keepalive(keepalive)
                }
                None => options,
            },
            1 => {
                chosen.dead_after = optional(input);
                options.dead_after(chosen.dead_after)
            }
            2 => options.fail_on_stall(on),
            3 => options.middlebox_timeout(optional(input)),
            4 => {
                let bytes = input.part();
                options.heartbeat(bytes, optional(input))
            }
            5 => options.heartbeat_timeout(optional(input)),
            6 => options.idle_timeout(optional(input)),
            7 => options.idle_receive_only(on),
            8 => options.first_byte_timeout(optional(input)),
            9 => options.keep_stats(on),
            10 => options.connect_timeout(optional(input)),
            11 => options.attempt_delay(duration(input)),
            12 => options.read_timeout(optional(input)),
            13 => options.write_timeout(optional(input)),
            14 => options.close_timeout(duration(input)),
            15 => options.family(input.one_of(&[Family::Any, Family::Ipv4, Family::Ipv6])),
            16 => {
                options.preferred_family(input.one_of(&[Family::Any, Family::Ipv4, Family::Ipv6]))
            }
            17 => options.congestion_control(Some(input.text().as_str())),
            18 => options.congestion_control(Some(input.one_of(&["reno", "cubic", ""]))),
            19 => {
                // Options of the kernel that change no other socket and cause no wait.
                let (level, name) = input.one_of(&[
                    (libc::SOL_SOCKET, libc::SO_DEBUG),
                    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
                    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
                    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
                    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
                    (-1, -1),
                ]);
                chosen.is_raw = true;
                options.raw_sockopt(level, name, input.part())
            }
            20 => options.local_endpoint(input.one_of(&["127.0.0.5:0", "[::1]:0"]).parse().ok()),
            21 => options.interface(Some(input.one_of(&["lo", "absent", "", "a/b\n"]))),
            22 => options.backlog(Some(input.number() as u32)),
            23 => options.fast_open(on),
            24 => options.mptcp(on),
            #[cfg(feature = "diag")]
            25 => options.save_syn(on),
            #[cfg(feature = "datagram")]
            26 => options.udp_gro(on),
            #[cfg(feature = "activation")]
            27 => options.handover(on),
            28 => options.unix_mode(Some(input.number() as u32)),
            29 => options.unix_owner(Some(input.number() as u32), Some(input.number() as u32)),
            30 => options.allowed_uid(input.number() as u32),
            31 => options.trusted_proxy(input.text()),
            32 => options.proxy_timeout(duration(input)),
            33 => options.proxy_header(ProxyHeader::v2(None)),
            34 => options.seqpacket(on),
            35 => options.nodelay(on),
            _ => {
                let (option, value) = (input.one_of(&ALL), input.number() as u32);
                chosen.numbers.retain(|(other, _)| *other != option);
                chosen.numbers.push((option, value));
                options.sockopt(option, value)
            }
        };
    }
    chosen
}

/// The kinds of errors for options. An error of the operating system means that the library has
/// passed a value to the kernel that it should have rejected.
fn check_error(error: &Error, chosen: &Chosen) {
    check_printable(&error.to_string());
    let is_known = matches!(
        error.kind(),
        ErrorKind::InvalidArgument
            | ErrorKind::InvalidEndpoint
            | ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
            | ErrorKind::AddressNotAvailable
            | ErrorKind::AddressInUse
            | ErrorKind::TimedOut
            | ErrorKind::Unreachable
            // A server of type SOCK_SEQPACKET.
            | ErrorKind::WrongState
            | ErrorKind::Refused
            | ErrorKind::NotFound
    );
    assert!(is_known || chosen.is_raw, "{:?}: {error}: {:?}", error.kind(), chosen.options);
}

/// Whether the kernel may return another value than the one that was set.
fn is_adapted(option: Sockopt) -> bool {
    matches!(option, Sockopt::SendBuffer | Sockopt::RecvBuffer | Sockopt::MaxSegment)
}

impl Chosen {
    fn check(&self, client: &ClientSocket) {
        for (option, value) in &self.numbers {
            let is_read = match client.sockopt(*option) {
                // The kernel does not pass it on to an accepted connection.
                Ok(0) if *option == Sockopt::DeferAccept => true,
                Ok(found) => found == *value || is_adapted(*option) && found > 0,
                // The option has no effect after the handshake.
                Err(error) => error.kind() == ErrorKind::Unsupported,
            };
            let found = client.sockopt(*option);
            assert!(is_read, "{option:?} {value}: {found:?} of {:?}", self.options);
        }
        let Ok(found) = client.keepalive() else {
            return;
        };
        match self.keepalive {
            Some(keepalive) => assert_eq!(found, keepalive, "{:?}", self.options),
            None => assert!(self.is_raw || found.is_some(), "{:?}", self.options),
        }
        if let (Some(found), Some(limit)) = (found, self.dead_after) {
            assert!(found.dead_after() <= limit, "{found}: {:?}", self.options);
        }
    }
}

/// Calls one setter of an open connection.
fn change(client: &ClientSocket, input: &mut Input) {
    let result = match input.byte() % 16 {
        0 => keepalive(input).map_or(Ok(()), |keepalive| {
            let before = client.keepalive().ok();
            let set = client.set_keepalive(keepalive);
            let expected = if set.is_ok() { Some(keepalive) } else { before };
            assert_eq!(client.keepalive().ok(), expected, "{set:?}");
            set
        }),
        1 => client.set_dead_after(optional(input)),
        2 => client.set_idle_timeout(optional(input)),
        3 => {
            let bytes = input.part();
            client.set_heartbeat(bytes, optional(input))
        }
        4 => client.set_heartbeat_timeout(optional(input)),
        5 => client.set_read_timeout(optional(input)),
        6 => client.set_write_timeout(optional(input)),
        7 => client.check_liveness().map(|_| ()),
        8 => client.stats().map(|_| ()),
        _ => {
            let (option, value) = (input.one_of(&ALL), input.number() as u32);
            let before = client.sockopt(option);
            let set = client.set_sockopt(option, value);
            let found = client.sockopt(option);
            match (&set, found) {
                (Ok(()), Ok(found)) => {
                    let is_read = found == value || is_adapted(option) && found > 0;
                    assert!(is_read, "{option:?} {value}: {found}");
                }
                (Ok(()), Err(error)) => panic!("{option:?} {value}: {error}"),
                (Err(_), found) => assert_eq!(found.ok(), before.ok(), "{option:?} {value}"),
            }
            set
        }
    };
    if let Err(error) = result {
        check_printable(&error.to_string());
        let is_known = matches!(
            error.kind(),
            ErrorKind::InvalidArgument
                | ErrorKind::Unsupported
                | ErrorKind::PermissionDenied
                | ErrorKind::Closed
                | ErrorKind::IdleTimeout
                | ErrorKind::HeartbeatTimeout
                | ErrorKind::Reset
        );
        assert!(is_known, "{:?}: {error}", error.kind());
    }
}
