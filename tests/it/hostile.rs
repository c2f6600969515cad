//! V2, V3, V4: the memory and the processor time that hostile clients of an event loop use.

#![allow(unsafe_code)] // mallinfo2(3)

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use keepsock::{CloseReason, Framing, LengthFormat};

use crate::support::{
    Api, Connection, On, Opt, Serve, Server, Service, eventually, limits, process, watch,
};

both_apis![
    connection_with_partial_input_uses_the_memory_of_the_input,
    connection_with_long_partial_input_uses_the_memory_of_one_message,
    flood_from_many_addresses_is_limited_per_address_and_keeps_no_memory,
    slow_clients_use_little_memory_and_processor_time,
];

/// The heap memory in use, including large blocks. A test that uses it has a process of its own.
fn allocated() -> usize {
    // SAFETY: the function takes no argument.
    let used = unsafe { libc::mallinfo2() };
    used.uordblks + used.hblkhd
}

fn clients(endpoint: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let client = |_| {
        let mut client = TcpStream::connect(endpoint).unwrap();
        client.write_all(bytes).unwrap();
        client
    };
    (0..count).map(client).collect()
}

/// A message of up to 16 MiB, after a length of 4 bytes.
const FRAMING: Framing =
    Framing::LengthField { format: LengthFormat::U32Be, offset: 0, adjustment: 0, max: 16 << 20 };

/// V2: a length of 15 MiB reserves no memory, and a byte after a long message does not keep the
/// memory of the message.
fn connection_with_partial_input_uses_the_memory_of_the_input<A: Api>() {
    const COUNT: usize = 64;
    /// The loop keeps some buffers of 64 KiB.
    const SPARE: usize = 2 << 20;
    const EACH: usize = 4 << 10;
    let test = test_name!(A, "connection_with_partial_input_uses_the_memory_of_the_input");
    process::in_process(&test, Duration::from_secs(60), || {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = server.serve_events(&[Serve::Framing(FRAMING)], On::default()).unwrap();
        let long = [&(1u32 << 20).to_be_bytes(), &*vec![b'x'; 1 << 20], b"\0"].concat();
        for input in [b"".as_slice(), b"\0\xf0\0\0x", &long] {
            let (before, received) = (allocated(), service.stats().received);
            let clients = clients(&server.endpoint(), COUNT, input);
            eventually("the input is received", || {
                let there = service.stats().received - received;
                there == (COUNT * input.len()) as i64 && service.connections() == COUNT as u32
            });
            // The loop may still move the last bytes.
            let used = || allocated().saturating_sub(before);
            eventually("the memory is that of the input", || used() < COUNT * EACH + SPARE);
            println!("{} bytes of input: {} bytes in use for each", input.len(), used() / COUNT);
            drop(clients);
            eventually("the connections have ended", || service.connections() == 0);
        }
    });
}

/// V2: the beginning of a message of the maximum length uses no more memory than the message.
fn connection_with_long_partial_input_uses_the_memory_of_one_message<A: Api>() {
    const COUNT: usize = 4;
    const LEN: usize = 16 << 20;
    /// The loop keeps some buffers of 64 KiB, and one read may end in the next message.
    const SPARE: usize = 2 << 20;
    let test = test_name!(A, "connection_with_long_partial_input_uses_the_memory_of_one_message");
    process::in_process(&test, Duration::from_secs(60), || {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let framing = Framing::Prefixed { format: LengthFormat::U32Be, max: LEN };
        let service = server.serve_events(&[Serve::Framing(framing)], On::default()).unwrap();
        let input = [&(LEN as u32).to_be_bytes()[..], &vec![b'x'; LEN - 1]].concat();
        let before = allocated();
        let _clients = clients(&server.endpoint(), COUNT, &input);
        eventually("the input is received", || {
            service.stats().received == (COUNT * input.len()) as i64
        });
        let used = || allocated().saturating_sub(before);
        eventually("the memory is that of the messages", || used() < COUNT * LEN + SPARE);
        println!("{} bytes in use for each", used() / COUNT);
    });
}

/// A connection from an address of 127.0.0.0/8. A server that rejects the connection may reset it
/// before connect(2) returns.
fn connect_from(address: Ipv4Addr, endpoint: &str) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    match socket.connect(&endpoint.parse::<SocketAddr>().unwrap().into()) {
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        connected => connected.unwrap(),
    }
    socket.into()
}

/// V4: clients of a whole network connect as often as they can. Each address gets its limit, the others
/// are rejected and counted, a client of another address is served in the same time, and no memory remains
/// for an address without connections.
fn flood_from_many_addresses_is_limited_per_address_and_keeps_no_memory<A: Api>() {
    const ADDRESSES: u16 = 250;
    const EACH: usize = 6;
    const LIMIT: usize = 2;
    const ROUNDS: u16 = 4;
    let test =
        test_name!(A, "flood_from_many_addresses_is_limited_per_address_and_keeps_no_memory");
    process::in_process(&test, Duration::from_secs(60), || {
        limits::need_descriptors(3_000);
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let on = On {
            data: Some(Box::new(|connection: &A::Connection, bytes: &[u8]| {
                connection.send(bytes).unwrap()
            })),
            ..On::default()
        };
        let serve = [Serve::PerAddress(LIMIT as u32), Serve::Max(1_000), Serve::Reject];
        let service = server.serve_events(&serve, on).unwrap();
        let mut after_round = Vec::new();
        for round in 0..ROUNDS {
            let (before, used) = (allocated(), watch::used_by(LOOP));
            let address = |n: u16| Ipv4Addr::new(127, 1 + round as u8, n as u8, 1);
            let mut clients = Vec::new();
            for _ in 0..EACH {
                clients
                    .extend((0..ADDRESSES).map(|n| connect_from(address(n), &server.endpoint())));
            }
            let rejected = usize::from(ADDRESSES) * (EACH - LIMIT);
            let admitted = usize::from(ADDRESSES) * LIMIT;
            eventually("each address has its limit", || {
                let over = server.stats().over_address_limit;
                over == (usize::from(round + 1) * rejected) as u64
                    && service.connections() == admitted as u32
            });
            let mut friend = TcpStream::connect(server.endpoint()).unwrap();
            friend.write_all(b"hello").unwrap();
            friend.read_exact(&mut [0; 5]).unwrap();
            // The descriptors of the clients are in a list of this test.
            let list = clients.capacity() * size_of::<TcpStream>();
            let each = allocated().saturating_sub(before + list) / admitted;
            let used = (watch::used_by(LOOP) - used).cpu / u32::from(ADDRESSES) / EACH as u32;
            println!("{each} bytes for each admitted client, {used:?} for each client");
            assert!(each < 2 << 10, "{each} bytes");
            drop((clients, friend));
            eventually("the connections have ended", || service.connections() == 0);
            after_round.push(allocated());
        }
        // The first round grows the tables of the service.
        let growth = after_round[ROUNDS as usize - 1].saturating_sub(after_round[0]);
        println!("{growth} bytes more after the last round");
        assert!(growth < 16 << 10, "{after_round:?}");
    });
}

/// The name of the threads of event loops.
const LOOP: &str = "keepsock-events";

/// V4, V6: a thousand clients send a byte per second, or nothing. The first-byte timeout, the timeout of
/// the PROXY header and the limit of a message end them, and until then they use little memory and
/// processor time.
fn slow_clients_use_little_memory_and_processor_time<A: Api>() {
    const COUNT: usize = 1_000;
    /// The heap of a connection with a part of a message, and of the tables of the service.
    const EACH: usize = 2 << 10;
    /// Without optimization, for each byte that arrives alone. Half of it is the system call.
    const PROCESSOR: Duration = Duration::from_micros(400);
    let test = test_name!(A, "slow_clients_use_little_memory_and_processor_time");
    process::in_process(&test, Duration::from_secs(120), || {
        limits::need_descriptors(2 * COUNT as u64 + 100);
        let header = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        let framing = Serve::Framing(Framing::Delimited { delimiter: b'\n', max: 3 });
        type Case<'a, A> = (&'a str, &'a [Opt<'a, A>], &'a [u8], Option<CloseReason>);
        let cases: [Case<'_, A>; 3] = [
            ("silent", &[Opt::FirstByteTimeout(3_000)], b"", Some(CloseReason::IdleTimeout)),
            (
                "message",
                &[Opt::FirstByteTimeout(3_000)],
                b"xxxxx",
                Some(CloseReason::MessageTooLong),
            ),
            ("header", &[Opt::TrustedProxy("127.0.0.0/8"), Opt::ProxyTimeout(3_000)], header, None),
        ];
        for (what, options, bytes, reason) in cases {
            let server = A::listen("127.0.0.1:0", options).unwrap();
            let service =
                server.serve_events(&[framing, Serve::Max(2_000)], On::default()).unwrap();
            let (before, used) = (allocated(), watch::used_by(LOOP));
            let mut clients = clients(&server.endpoint(), COUNT, b"");
            let list = clients.capacity() * size_of::<TcpStream>();
            eventually("all clients are accepted", || server.stats().accepted == COUNT as u64);
            let ended = || match reason {
                Some(reason) => {
                    let ends = service.stats().ends;
                    ends.iter().filter(|(of, _)| *of == reason).map(|(_, n)| *n).sum()
                }
                None => server.stats().proxy_rejected,
            };
            let (mut sent, mut each) = (0, 0);
            let mut next = Instant::now();
            for byte in bytes {
                // A client whose connection was reset fails.
                let write = |client: &mut TcpStream| client.write_all(&[*byte]).is_ok();
                sent += clients.iter_mut().filter_map(|client| write(client).then_some(())).count();
                let memory = allocated().saturating_sub(before + list) / COUNT;
                each = each.max(memory);
                next += Duration::from_secs(1);
                thread::sleep(next.saturating_duration_since(Instant::now()));
                if ended() == COUNT as u64 {
                    break;
                }
            }
            eventually("all clients are ended", || ended() == COUNT as u64);
            eventually("no connection is left", || service.connections() == 0);
            let used = (watch::used_by(LOOP) - used).cpu;
            let for_each = used / (COUNT + sent) as u32;
            println!(
                "{what}: {each} bytes for each client, {used:?} of processor time for {COUNT} \
                 connections and {sent} bytes: {for_each:?} for each"
            );
            assert!(each < EACH, "{what}: {each} bytes");
            assert!(for_each < PROCESSOR, "{what}: {for_each:?}");
        }
    });
}
