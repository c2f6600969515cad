//! One object of each kind, with its descriptors and threads.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use crate::handshake::capture;
use crate::support::handshake::Handshakes;
use crate::support::system;
use crate::support::{
    Api, Client, Datagrams, FullQueue, INFINITE, On, Opt, PendingConnect, PendingLookup, Reconnect,
    Server, Service, TempDir, Token, Transport, eventually, pair_with, somewhere,
};

/// The options of connections with every timer of the library.
fn alive<A: Api>() -> [Opt<'static, A>; 5] {
    [
        Opt::CloseTimeout(20_000),
        Opt::DeadAfter(60_000),
        Opt::Heartbeat(b"h", 10),
        Opt::HeartbeatTimeout(60_000),
        Opt::IdleTimeout(60_000),
    ]
}

/// Objects in use. Their threads wait, and never end by themselves.
pub struct Everything<A: Handshakes> {
    _server: A::Server,
    _several: A::Server,
    _file: A::Server,
    _token: A::Token,
    _pending: A::PendingConnect,
    _lookup: A::PendingLookup,
    _reconnect: A::Reconnect,
    pub threads: A::Service,
    pub events: A::Service,
    _clients: [A::Client; 2],
    _passed: Vec<OwnedFd>,
    _datagrams: [A::Datagram; 2],
    _served: A::DatagramService,
    _capture: Option<A::Capture>,
    _queue: FullQueue,
    /// The peer of a connection that the background closer closes.
    _closing: TcpStream,
    _dir: Option<TempDir>,
    _waiting: Vec<JoinHandle<()>>,
}

impl<A: Handshakes> Everything<A> {
    pub fn new() -> Self {
        let queue = FullQueue::new();
        let token = A::token();
        token.fd().unwrap();

        let server = A::listen("*:0", &[Opt::Handover(true)]).unwrap();
        let several = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[]).unwrap();
        let (endpoint, dir) = somewhere(Transport::Unix);
        let file = A::listen(&endpoint, &[]).unwrap();
        let capture = capture::<A>(server.port());
        let to_server = format!("127.0.0.1:{}", server.port());

        // Attempts that race, and their collecting descriptor.
        let addresses = [queue.endpoint(), to_server.clone()];
        let [hangs, accepts] = addresses.map(|text| text.parse().unwrap());
        let race = [Opt::Address(hangs), Opt::Address(accepts), Opt::AttemptDelay(10)];
        let mut pending = A::start("service:80", &race).unwrap();
        pending.fd().unwrap();
        while pending.attempts_in_progress().len() < 2 && pending.finish().unwrap().is_none() {}
        let mut lookup = A::start_lookup("localhost:80", &[]).unwrap();
        lookup.fd().unwrap();
        A::connect("localhost:1", &[]).err().unwrap();
        let mut reconnect = A::reconnect(&queue.endpoint(), &[]).unwrap();
        assert!(reconnect.try_connect().unwrap().is_none());

        let threads = server.serve(&[], Box::new(|c| drop(c.read(&mut [0; 8])))).unwrap();
        let data = |c: &A::Connection, data: &[u8]| drop(crate::support::Connection::send(c, data));
        let on = On::<A> { data: Some(Box::new(data)), ..On::default() };
        let events = several.serve_events(&[], on).unwrap();
        events.add_timer(1, 1, Box::new(|_| ())).unwrap();
        let served = A::connect(&to_server, &alive()).unwrap();
        let echoed = A::connect(&several.endpoint(), &alive()).unwrap();
        events.connect(&to_server, &[], 1).unwrap();
        echoed.write_all(b"x").unwrap();
        echoed.read(&mut [0; 1]).unwrap();

        // Descriptors that a peer passes.
        let p = pair_with::<A>(Transport::Unix, &[Opt::CloseTimeout(0)]);
        p.client.write_fds(b"x", &[p.client.fd().unwrap()]).unwrap();
        let passed = p.accepted.read_fds(8, 4).unwrap().fds;

        let datagrams =
            [0, 1].map(|_| A::Datagram::bind("127.0.0.1:0", &[Opt::ReadTimeout(20)]).unwrap());
        datagrams[1].recv(8).err().unwrap();
        datagrams[1].set_read_timeout(INFINITE).unwrap();
        let served_datagrams = datagrams[0].serve(1, Box::new(|_, _| ())).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let closing = A::connect(&endpoint, &[Opt::CloseTimeout(20_000)]).unwrap();
        closing.write_all(b"x").unwrap();
        drop(closing);
        eventually("the closer runs", || system::has_thread("keepsock-close"));
        let (closing, _) = listener.accept().unwrap();

        let mut waiting = Vec::new();
        let q = pair_with::<A>(Transport::Tcp, &alive());
        let another = q.client.another();
        waiting.push(thread::spawn(move || drop((another.read(&mut [0; 8]), q.server))));
        let (client, accepted) = (q.client, q.accepted);
        waiting.push(thread::spawn(move || drop((accepted.wait_hangup(INFINITE), client))));
        let unserved = A::listen("127.0.0.1:0", &[]).unwrap();
        waiting.push(thread::spawn(move || drop(unserved.accept())));
        let unserved = A::listen_all(&["127.0.0.1:0", "127.0.0.1:0"], &[]).unwrap();
        waiting.push(thread::spawn(move || drop(unserved.accept())));
        let socket = A::Datagram::bind("127.0.0.1:0", &[]).unwrap();
        waiting.push(thread::spawn(move || drop(socket.recv(8))));
        let hangs = queue.endpoint();
        waiting.push(thread::spawn(move || drop(A::connect(&hangs, &[]))));

        Everything {
            _server: server,
            _several: several,
            _file: file,
            _token: token,
            _pending: pending,
            _lookup: lookup,
            _reconnect: reconnect,
            threads,
            events,
            _clients: [served, echoed],
            _passed: passed,
            _datagrams: datagrams,
            _served: served_datagrams,
            _capture: capture,
            _queue: queue,
            _closing: closing,
            _dir: dir,
            _waiting: waiting,
        }
    }
}
