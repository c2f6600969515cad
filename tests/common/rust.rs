//! The Rust API as an [`Api`].

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use keepsock::{
    Address, Attempt, CancelToken, ClientSocket, Datagram, DatagramSocket, End, Endpoint, Error,
    Incoming, Keepalive, LengthPrefix, Outgoing, ServeOptions, ServerSocket, SocketOptions,
    WhenFull, WhenSlow,
};

use super::{
    Api, Client, Connecting, Connection, Counters, DatagramService, DatagramStats, Datagrams,
    Failure, Got, Handed, Handler, INFINITE, Inherited, On, OnDatagram, OnRetry, Opt, Outcome,
    Passed, Peer, Reconnect, Reported, Sent, Serve, Server, Service, Snap, Stats, Token, Told,
    Tried, Tuple, system,
};

pub struct RustApi;

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure {
            status: e.kind().code(),
            message: e.to_string(),
            operation: e.operation().to_owned(),
            endpoint: e.endpoint().to_owned(),
            stage: e.failed_stage().map_or(String::new(), |stage| stage.to_string()).into(),
            os_error: e.os_error().unwrap_or(0),
            transferred: e.transferred(),
            attempts: e.attempts().iter().map(tried).collect(),
        }
    }
}

fn tried(a: &Attempt) -> Tried {
    Tried {
        address: a.address.to_string(),
        stage: a.stage.to_string(),
        status: a.kind.code(),
        os_error: a.os_error.unwrap_or(0),
        elapsed_us: i64::try_from(a.elapsed.as_micros()).unwrap(),
    }
}

fn ms(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// For what needs a limit: a negative time cannot even be said in Rust.
fn limit(ms_: i64) -> Duration {
    ms(ms_).unwrap_or(Duration::ZERO)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

fn tuple(t: &keepsock::FiveTuple) -> Tuple {
    Tuple {
        protocol: t.protocol as i32,
        local: (t.local.host(), t.local.port()),
        remote: (t.remote.host(), t.remote.port()),
    }
}

fn snap(s: keepsock::Snapshot) -> Snap {
    let us = |t: Option<Duration>| t.map_or(-1, |t| i64::try_from(t.as_micros()).unwrap());
    let n = |n: Option<u64>| n.map_or(-1, |n| i64::try_from(n).unwrap());
    Snap {
        state: s.state.map_or(0, |state| state as i32),
        end: s.end,
        rtt_us: us(s.rtt),
        rtt_variation_us: us(s.rtt_variation),
        min_rtt_us: us(s.min_rtt),
        last_sent_us: us(s.last_sent),
        last_received_us: us(s.last_received),
        retransmits: n(s.retransmits),
        unacknowledged: n(s.unacknowledged),
        unsent: n(s.unsent),
        unread: n(s.unread),
        bytes_sent: n(s.bytes_sent),
        bytes_received: n(s.bytes_received),
        segments_sent: n(s.segments_sent),
        segments_received: n(s.segments_received),
        mss: n(s.mss.map(u64::from)),
        congestion_window: n(s.congestion_window),
        peer_window: n(s.peer_window),
        heartbeats: n(Some(s.heartbeats)),
        congestion_control: s.congestion_control.unwrap_or_default(),
    }
}

fn options(list: &[Opt<'_, RustApi>]) -> Result<SocketOptions, Error> {
    let mut o = SocketOptions::new();
    for option in list {
        o = match option {
            Opt::Keepalive(idle, interval, count) => {
                o.keepalive(Keepalive::new(limit(*idle), limit(*interval), *count)?)
            }
            Opt::NoKeepalive => o.keepalive(None),
            Opt::Nodelay(on) => o.nodelay(*on),
            Opt::ConnectTimeout(t) => o.connect_timeout(ms(*t)),
            Opt::ReadTimeout(t) => o.read_timeout(ms(*t)),
            Opt::WriteTimeout(t) => o.write_timeout(ms(*t)),
            Opt::CloseTimeout(t) => o.close_timeout(limit(*t)),
            Opt::Family(family) => o.family(*family),
            Opt::Local(local) => o.local(local.parse::<Endpoint>()?),
            Opt::Interface(name) => o.interface(*name),
            Opt::Address(address) => o.address(*address),
            Opt::Backlog(n) => o.backlog(*n),
            Opt::FastOpen(on) => o.fast_open(*on),
            Opt::Mptcp(on) => o.mptcp(*on),
            Opt::Coalescing(on) => o.coalescing(*on),
            Opt::AttemptDelay(t) => o.attempt_delay(limit(*t)),
            Opt::DeadAfter(t) => o.dead_after(ms(*t)),
            Opt::EndStalled(on) => o.end_stalled(*on),
            Opt::SurviveIdle(t) => o.survive_idle(ms(*t)),
            Opt::Heartbeat(bytes, t) => o.heartbeat(bytes, limit(*t)),
            Opt::IdleLimit(t) => o.idle_limit(ms(*t)),
            Opt::FirstByteLimit(t) => o.first_byte_limit(ms(*t)),
            Opt::LastSnapshot(on) => o.last_snapshot(*on),
            Opt::SaveSyn(on) => o.save_syn(*on),
            Opt::HandOver(on) => o.hand_over(*on),
            Opt::Cancel(token) => o.cancel(*token),
            Opt::UnixMode(mode) => o.unix_mode(*mode),
            Opt::UnixOwner(uid, gid) => o.unix_owner(*uid, *gid),
            Opt::AllowUser(uid) => o.allow_user(*uid),
            Opt::Sequenced(on) => o.sequenced(*on),
        };
    }
    Ok(o)
}

impl Api for RustApi {
    type Client = Arc<ClientSocket>;
    type Server = ServerSocket;
    type Token = CancelToken;
    type Connecting = keepsock::Connecting;
    type Service = keepsock::Service;
    type Connection = keepsock::Connection;
    type Reconnect = keepsock::Reconnect;
    type Datagram = DatagramSocket;
    type DatagramService = keepsock::DatagramService;
    type Inherited = keepsock::Inherited;

    const NUMBER: u8 = 1;

    fn connect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Self::Client> {
        Ok(Arc::new(ClientSocket::connect_with(endpoint, &options(list)?)?))
    }

    fn listen(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<ServerSocket> {
        Ok(ServerSocket::listen_with(endpoint, &options(list)?)?)
    }

    fn listen_all(endpoints: &[&str], list: &[Opt<'_, Self>]) -> Outcome<ServerSocket> {
        Ok(ServerSocket::listen_all(endpoints.iter().copied(), &options(list)?)?)
    }

    fn start(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<keepsock::Connecting> {
        Ok(keepsock::Connecting::start(endpoint, &options(list)?)?)
    }

    fn adopt_client(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<Self::Client, (OwnedFd, Failure)> {
        match ClientSocket::from_owned(fd, &options(list).unwrap()) {
            Ok(client) => Ok(Arc::new(client)),
            Err((fd, e)) => Err((fd, e.into())),
        }
    }

    fn adopt_server(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<ServerSocket, (OwnedFd, Failure)> {
        ServerSocket::from_owned(fd, &options(list).unwrap()).map_err(|(fd, e)| (fd, e.into()))
    }

    fn bind(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<DatagramSocket> {
        Ok(DatagramSocket::bind_with(endpoint, &options(list)?)?)
    }

    fn connect_datagram(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<DatagramSocket> {
        Ok(DatagramSocket::connect_with(endpoint, &options(list)?)?)
    }

    fn adopt_datagram(
        fd: OwnedFd,
        list: &[Opt<'_, Self>],
    ) -> Result<DatagramSocket, (OwnedFd, Failure)> {
        DatagramSocket::from_owned(fd, &options(list).unwrap()).map_err(|(fd, e)| (fd, e.into()))
    }

    fn token() -> CancelToken {
        CancelToken::new().unwrap()
    }

    fn reconnect(endpoint: &str, list: &[Opt<'_, Self>]) -> Outcome<Self::Reconnect> {
        Ok(keepsock::Reconnect::new(endpoint, &options(list)?)?)
    }

    fn take_inherited() -> Outcome<keepsock::Inherited> {
        Ok(keepsock::Inherited::take()?)
    }

    fn hand_over(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, Self>)],
        limit_ms: i64,
        token: Option<&CancelToken>,
    ) -> Outcome<i64> {
        let mut hand_over = keepsock::HandOver::new().cancel(token);
        if let Some([program, args @ ..]) = argv {
            hand_over = args.iter().fold(hand_over.program(program), |h, arg| h.arg(arg));
        }
        for (name, what) in handed {
            hand_over = match what {
                Handed::Server(server) => hand_over.server(*name, server),
                Handed::Datagram(socket) => hand_over.datagram(*name, socket),
            };
        }
        Ok(hand_over.start(ms(limit_ms))?.into())
    }
}

impl Connecting<RustApi> for keepsock::Connecting {
    fn finish(&mut self) -> Outcome<Option<Arc<ClientSocket>>> {
        Ok(keepsock::Connecting::finish(self)?.map(Arc::new))
    }

    fn wait(&mut self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::Connecting::wait(self)?))
    }

    fn fd(&mut self) -> Outcome<RawFd> {
        Ok(self.descriptor()?.as_raw_fd())
    }

    fn timeout(&mut self) -> i64 {
        let up = |t: Duration| i64::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap();
        keepsock::Connecting::timeout(self).map_or(INFINITE, up)
    }

    fn attempts(&mut self) -> Vec<Tried> {
        keepsock::Connecting::attempts(self).iter().map(tried).collect()
    }

    fn under_way(&mut self) -> Vec<(String, i32)> {
        let under_way = keepsock::Connecting::under_way(self).into_iter();
        under_way.map(|(a, state)| (a.to_string(), state.map_or(0, |s| s as i32))).collect()
    }
}

impl Client<RustApi> for Arc<ClientSocket> {
    fn read(&self, buf: &mut [u8]) -> Outcome<usize> {
        Ok(ClientSocket::read(self, buf)?)
    }

    fn read_exact(&self, buf: &mut [u8]) -> Outcome<()> {
        Ok(ClientSocket::read_exact(self, buf)?)
    }

    fn read_until(&self, delimiter: u8, max: usize) -> Outcome<Vec<u8>> {
        Ok(ClientSocket::read_until(self, delimiter, max)?)
    }

    fn read_line(&self, max: usize) -> Outcome<String> {
        Ok(ClientSocket::read_line(self, max)?)
    }

    fn read_message(&self, prefix: LengthPrefix, max: usize) -> Outcome<Vec<u8>> {
        Ok(ClientSocket::read_message(self, prefix, max)?)
    }

    fn write_message(&self, prefix: LengthPrefix, message: &[u8]) -> Outcome<()> {
        Ok(ClientSocket::write_message(self, prefix, message)?)
    }

    fn buffered(&self) -> usize {
        ClientSocket::buffered(self)
    }

    fn write(&self, buf: &[u8]) -> Outcome<usize> {
        Ok(ClientSocket::write(self, buf)?)
    }

    fn write_all(&self, buf: &[u8]) -> Outcome<()> {
        Ok(ClientSocket::write_all(self, buf)?)
    }

    fn read_slices(&self, bufs: &mut [&mut [u8]]) -> Outcome<usize> {
        let mut slices: Vec<_> = bufs.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        Ok(ClientSocket::read_slices(self, &mut slices)?)
    }

    fn write_slices(&self, bufs: &[&[u8]]) -> Outcome<()> {
        let mut slices: Vec<_> = bufs.iter().map(|b| IoSlice::new(b)).collect();
        Ok(ClientSocket::write_slices(self, &mut slices)?)
    }

    fn wait_hangup(&self, t: i64) -> Outcome<End> {
        Ok(ClientSocket::wait_hangup(self, ms(t))?)
    }

    fn end(&self) -> Option<End> {
        ClientSocket::end(self)
    }

    fn check_alive(&self) -> Outcome<i64> {
        let next = ClientSocket::check_alive(self)?;
        Ok(next.map_or(INFINITE, |t| i64::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap()))
    }

    fn snapshot(&self) -> Outcome<Snap> {
        Ok(snap(ClientSocket::snapshot(self)?))
    }

    fn state(&self) -> Outcome<i32> {
        Ok(ClientSocket::state(self)? as i32)
    }

    fn is_mptcp(&self) -> bool {
        ClientSocket::is_mptcp(self).is_ok_and(|is| is)
    }

    fn user_timeout(&self) -> Outcome<i64> {
        Ok(ClientSocket::user_timeout(self)?.map_or(INFINITE, millis))
    }

    fn shutdown_write(&self) -> Outcome<()> {
        Ok(ClientSocket::shutdown_write(self)?)
    }

    fn close(&self) -> Outcome<()> {
        Ok(ClientSocket::close(self)?)
    }

    fn abort(&self) {
        ClientSocket::abort(self);
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let now = ClientSocket::keepalive(self)?;
        Ok(now.map(|k| (millis(k.idle()), millis(k.interval()), k.count())))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        let keepalive = Keepalive::new(limit(idle), limit(interval), count)?;
        Ok(ClientSocket::set_keepalive(self, keepalive)?)
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        Ok(ClientSocket::set_keepalive(self, None)?)
    }

    fn set_read_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ClientSocket::set_read_timeout(self, ms(t))?)
    }

    fn set_write_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ClientSocket::set_write_timeout(self, ms(t))?)
    }

    fn set_close_timeout(&self, t: i64) {
        ClientSocket::set_close_timeout(self, limit(t));
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        Ok(ClientSocket::set_nonblocking(self, on)?)
    }

    fn set_cancel(&self, token: Option<&CancelToken>) {
        ClientSocket::set_cancel(self, token);
    }

    fn five_tuple(&self) -> Tuple {
        tuple(&ClientSocket::five_tuple(self))
    }

    fn name(&self) -> String {
        ClientSocket::five_tuple(self).to_string()
    }

    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.borrow()?.as_fd().as_raw_fd())
    }

    fn release(&self) -> Outcome<OwnedFd> {
        Ok(ClientSocket::release(self)?)
    }

    fn another(&self) -> Arc<ClientSocket> {
        self.clone()
    }

    fn write_fds(&self, bytes: &[u8], fds: &[RawFd]) -> Outcome<usize> {
        let fds: Vec<_> = fds.iter().map(|fd| system::borrow(*fd)).collect();
        Ok(self.write_with_descriptors(bytes, &fds)?)
    }

    fn read_fds(&self, cap: usize, max: usize) -> Outcome<Passed> {
        let mut bytes = vec![0; cap];
        let received = self.read_with_descriptors(&mut bytes, max)?;
        bytes.truncate(received.len);
        Ok(Passed { bytes, fds: received.descriptors, lost: received.lost })
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        Ok(peer(ClientSocket::peer_credentials(self)?))
    }

    fn send_file(&self, file: RawFd, offset: u64, len: u64) -> Outcome<u64> {
        Ok(ClientSocket::send_file(self, system::borrow(file), offset, len)?)
    }
}

fn peer(peer: keepsock::Credentials) -> Peer {
    Peer { pid: peer.pid.map_or(-1, i64::from), uid: peer.uid, gid: peer.gid }
}

impl Server<RustApi> for ServerSocket {
    fn accept(&self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(ServerSocket::accept(self)?))
    }

    fn endpoint(&self) -> String {
        ServerSocket::endpoint(self).to_string()
    }

    fn endpoints(&self) -> Vec<String> {
        ServerSocket::endpoints(self).map(ToString::to_string).collect()
    }

    fn state(&self) -> i32 {
        ServerSocket::state(self) as i32
    }

    fn port(&self) -> u16 {
        ServerSocket::port(self)
    }

    fn counters(&self) -> Counters {
        let c = ServerSocket::counters(self);
        Counters {
            accepted: c.accepted,
            retried: c.retried,
            exhausted: c.exhausted,
            refused: c.refused,
            crowded: c.crowded,
            denied: c.denied,
        }
    }

    fn set_accept_timeout(&self, t: i64) -> Outcome<()> {
        Ok(ServerSocket::set_accept_timeout(self, ms(t))?)
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        Ok(ServerSocket::set_nonblocking(self, on)?)
    }

    fn set_cancel(&self, token: Option<&CancelToken>) {
        ServerSocket::set_cancel(self, token);
    }

    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.borrow()?.as_fd().as_raw_fd())
    }

    fn fd_at(&self, index: usize) -> Outcome<RawFd> {
        Ok(self.borrow_at(index)?.as_fd().as_raw_fd())
    }

    fn release(&self) -> Outcome<OwnedFd> {
        Ok(ServerSocket::release(self)?)
    }

    fn close(&self) {
        ServerSocket::close(self);
    }

    fn serve(&self, list: &[Serve], handler: Handler<RustApi>) -> Outcome<keepsock::Service> {
        Ok(self.serve_with(&serve_options(list), handler)?)
    }

    fn serve_events(&self, list: &[Serve], on: On<RustApi>) -> Outcome<keepsock::Service> {
        Ok(ServerSocket::serve_events(self, &serve_options(list), Program(on))?)
    }
}

fn serve_options(list: &[Serve]) -> ServeOptions {
    let mut o = ServeOptions::new();
    for option in list {
        o = match option {
            Serve::Max(n) => o.max_connections(*n),
            Serve::Refuse => o.when_full(WhenFull::Refuse),
            Serve::PerAddress(n) => o.max_per_address(*n),
            Serve::Allow(network) => o.allow(*network),
            Serve::Deny(network) => o.deny(*network),
            Serve::Threads(n) => o.threads(*n),
            Serve::Framing(framing) => o.framing(*framing),
            Serve::MaxQueued(bytes) => o.max_queued(*bytes),
            Serve::DropOldest => o.when_slow(WhenSlow::DropOldest),
        };
    }
    o
}

struct Program(On<RustApi>);

impl keepsock::Handler for Program {
    fn open(&self, c: &keepsock::Connection) {
        if let Some(open) = &self.0.open {
            open(c);
        }
    }

    fn data(&self, c: &keepsock::Connection, data: &[u8]) {
        if let Some(on_data) = &self.0.data {
            on_data(c, data);
        }
    }

    fn writable(&self, c: &keepsock::Connection) {
        if let Some(writable) = &self.0.writable {
            writable(c);
        }
    }

    fn finished(&self, c: &keepsock::Connection) {
        match &self.0.finished {
            Some(finished) => finished(c),
            None => c.close(),
        }
    }

    fn timer(&self, c: &keepsock::Connection) {
        if let Some(timer) = &self.0.timer {
            timer(c);
        }
    }

    fn drain(&self, c: &keepsock::Connection) {
        match &self.0.drain {
            Some(drain) => drain(c),
            None => c.close(),
        }
    }

    fn close(&self, c: &keepsock::Connection, end: End) {
        if let Some(close) = &self.0.close {
            close(c, end);
        }
    }

    fn connect_failed(&self, error: &Error, data: Option<keepsock::Data>) {
        if let Some(failed) = &self.0.connect_failed {
            let data = data.and_then(|data| data.downcast::<usize>().ok());
            failed(error.clone().into(), data.map_or(0, |data| *data));
        }
    }
}

impl Connection for keepsock::Connection {
    fn send(&self, message: &[u8]) -> Outcome<()> {
        Ok(keepsock::Connection::send(self, message)?)
    }

    fn close(&self) {
        keepsock::Connection::close(self);
    }

    fn abort(&self) {
        keepsock::Connection::abort(self);
    }

    fn shutdown_write(&self) {
        keepsock::Connection::shutdown_write(self);
    }

    fn pause(&self) {
        keepsock::Connection::pause(self);
    }

    fn resume(&self) {
        keepsock::Connection::resume(self);
    }

    fn queued(&self) -> usize {
        keepsock::Connection::queued(self)
    }

    fn is_open(&self) -> bool {
        keepsock::Connection::is_open(self)
    }

    fn set_timer(&self, t: i64) -> Outcome<()> {
        keepsock::Connection::set_timer(self, ms(t));
        Ok(())
    }

    fn join(&self, group: &str) -> Outcome<()> {
        Ok(keepsock::Connection::join(self, group)?)
    }

    fn leave(&self, group: &str) {
        keepsock::Connection::leave(self, group);
    }

    fn set_data(&self, data: usize) {
        keepsock::Connection::set_data(self, Arc::new(data));
    }

    fn data(&self) -> usize {
        keepsock::Connection::data::<usize>(self).map_or(0, |data| *data)
    }

    fn id(&self) -> u64 {
        keepsock::Connection::id(self)
    }

    fn end(&self) -> Option<End> {
        keepsock::Connection::end(self)
    }

    fn five_tuple(&self) -> Outcome<Tuple> {
        Ok(tuple(&keepsock::Connection::five_tuple(self)?))
    }

    fn name(&self) -> String {
        keepsock::Connection::five_tuple(self).unwrap().to_string()
    }

    fn snapshot(&self) -> Outcome<Snap> {
        Ok(snap(keepsock::Connection::snapshot(self)?))
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let now = keepsock::Connection::keepalive(self)?;
        Ok(now.map(|k| (millis(k.idle()), millis(k.interval()), k.count())))
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        Ok(peer(keepsock::Connection::peer_credentials(self)?))
    }
}

impl Token for CancelToken {
    fn fire(&self) {
        CancelToken::fire(self);
    }

    fn reset(&self) {
        CancelToken::reset(self);
    }

    fn is_fired(&self) -> bool {
        CancelToken::is_fired(self)
    }
}

impl Service<RustApi> for keepsock::Service {
    fn connections(&self) -> u32 {
        keepsock::Service::connections(self)
    }

    fn broadcast(&self, message: &[u8]) -> (u32, u32) {
        let b = keepsock::Service::broadcast(self, message).unwrap();
        (b.sent, b.cut)
    }

    fn stop(&self) {
        keepsock::Service::stop(self);
    }

    fn wait(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::Service::wait(self, ms(t))?)
    }

    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)> {
        let d = keepsock::Service::drain(self, limit(limit_ms))?;
        Ok((d.finished, d.cut))
    }

    fn finish(&self, limit_ms: i64) -> Outcome<u32> {
        Ok(keepsock::Service::finish(self, limit(limit_ms))?)
    }

    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent> {
        let b = match group {
            None => keepsock::Service::broadcast(self, message)?,
            Some(group) => self.broadcast_to(group, message)?,
        };
        Ok(Sent { sent: b.sent, cut: b.cut, dropped: b.dropped })
    }

    fn add(
        &self,
        client: Arc<ClientSocket>,
        data: usize,
    ) -> Result<(), (Arc<ClientSocket>, Failure)> {
        let client = Arc::into_inner(client).expect("the only owner");
        match keepsock::Service::add(self, client, Some(Arc::new(data))) {
            Ok(_) => Ok(()),
            Err((client, e)) => Err((Arc::new(client), e.into())),
        }
    }

    fn connect(&self, endpoint: &str, list: &[Opt<'_, RustApi>], data: usize) -> Outcome<()> {
        let (options, data) = (options(list)?, Arc::new(data));
        Ok(keepsock::Service::connect(self, endpoint, &options, Some(data))?)
    }

    fn stats(&self) -> Stats {
        let s = keepsock::Service::snapshot(self);
        let moved = |get: fn(&keepsock::Bytes) -> u64| {
            s.bytes.as_ref().map_or(-1, |b| i64::try_from(get(b)).unwrap())
        };
        Stats {
            accepting: s.accepting,
            connections: s.connections,
            opened: s.opened,
            closed: s.closed,
            received: moved(|b| b.received),
            written: moved(|b| b.written),
            sent: moved(|b| b.sent),
            queued: s.queued.map_or(-1, |n| i64::try_from(n).unwrap()),
            dropped: moved(|b| b.dropped),
            dropped_messages: moved(|b| b.dropped_messages),
            ends: s.ends,
        }
    }

    fn dump(&self) -> String {
        keepsock::Service::dump(self)
    }
}

impl Reconnect<RustApi> for keepsock::Reconnect {
    fn set_back_off(&mut self, first: i64, longest: i64) -> Outcome<()> {
        Ok(keepsock::Reconnect::set_back_off(self, limit(first), limit(longest))?)
    }

    fn set_limit(&mut self, t: i64) -> Outcome<()> {
        Ok(keepsock::Reconnect::set_limit(self, ms(t))?)
    }

    fn on_retry(&mut self, mut told: OnRetry) {
        keepsock::Reconnect::on_retry(self, move |retry| {
            let wait_ms = retry.wait.as_nanos().div_ceil(1_000_000);
            told(Told {
                error: retry.error.cloned().map(Failure::from),
                tries: retry.tries,
                wait_ms: i64::try_from(wait_ms).unwrap(),
            });
        });
    }

    fn reset(&mut self) {
        keepsock::Reconnect::reset(self);
    }

    fn connect(&mut self) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::Reconnect::connect(self)?))
    }
}

fn got(d: &Datagram, bytes: &[u8]) -> Got {
    Got {
        bytes: bytes.to_vec(),
        original_len: d.original_len,
        truncated: d.truncated,
        from: match d.from {
            Address::Inet(from) => from,
            _ => SocketAddr::from(([0; 4], 0)),
        },
        sender: d.from.to_string(),
        to: d.to,
        local: d.local,
        interface: d.interface.unwrap_or(0),
        ttl: d.ttl,
        tos: d.tos,
        received_at: d.received_at,
        credentials: d.credentials.map(peer),
    }
}

impl Datagrams<RustApi> for DatagramSocket {
    type Info = Datagram;

    fn send(&self, bytes: &[u8]) -> Outcome<()> {
        Ok(DatagramSocket::send(self, bytes)?)
    }

    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Outcome<()> {
        Ok(DatagramSocket::send_to(self, bytes, to)?)
    }

    fn reply(&self, question: &Datagram, bytes: &[u8]) -> Outcome<()> {
        Ok(DatagramSocket::reply(self, question, bytes)?)
    }

    fn recv_info(&self, cap: usize) -> Outcome<(Got, Datagram)> {
        let mut bytes = vec![0; cap];
        let d = DatagramSocket::recv(self, &mut bytes)?;
        Ok((got(&d, &bytes[..d.len]), d))
    }

    fn send_batch(&self, batch: &[(&[u8], Option<SocketAddr>)]) -> Outcome<usize> {
        let outgoing = batch.iter().map(|(bytes, to)| match to {
            Some(to) => Outgoing::to(*bytes, *to),
            None => Outgoing::new(*bytes),
        });
        Ok(DatagramSocket::send_batch(self, &outgoing.collect::<Vec<_>>())?)
    }

    fn reply_batch(&self, answers: &[(&Datagram, &[u8])]) -> Outcome<usize> {
        let batch: Vec<_> = answers.iter().map(|(to, bytes)| Outgoing::reply(to, *bytes)).collect();
        Ok(DatagramSocket::send_batch(self, &batch)?)
    }

    fn recv_batch(&self, caps: &[usize]) -> Outcome<Vec<Got>> {
        let mut buffers: Vec<_> = caps.iter().map(|cap| vec![0; *cap]).collect();
        let mut batch: Vec<_> = buffers.iter_mut().map(|b| Incoming::new(b)).collect();
        let count = DatagramSocket::recv_batch(self, &mut batch)?;
        assert!(batch[count..].iter().all(|i| i.datagram().is_none() && i.bytes().is_empty()));
        Ok(batch[..count].iter().map(|i| got(i.datagram().unwrap(), i.bytes())).collect())
    }

    fn set_broadcast(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_broadcast(self, on)?)
    }

    fn join(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        Ok(DatagramSocket::join(self, group, interface, from)?)
    }

    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        Ok(DatagramSocket::leave(self, group, interface, from)?)
    }

    fn set_multicast_loop(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_multicast_loop(self, on)?)
    }

    fn set_multicast_ttl(&self, ttl: u8) -> Outcome<()> {
        Ok(DatagramSocket::set_multicast_ttl(self, ttl)?)
    }

    fn set_multicast_interface(&self, name: &str) -> Outcome<()> {
        Ok(DatagramSocket::set_multicast_interface(self, name)?)
    }

    fn set_report_errors(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_report_errors(self, on)?)
    }

    fn recv_error(&self) -> Outcome<Option<Reported>> {
        Ok(DatagramSocket::recv_error(self)?.map(|e| Reported {
            status: e.kind.code(),
            os_error: e.os_error.unwrap_or(0),
            to: e.to,
            from: e.from,
            path_mtu: e.path_mtu,
        }))
    }

    fn error_count(&self) -> u64 {
        DatagramSocket::error_count(self)
    }

    fn endpoint(&self) -> String {
        DatagramSocket::endpoint(self).to_string()
    }

    fn name(&self) -> String {
        DatagramSocket::five_tuple(self).to_string()
    }

    fn port(&self) -> u16 {
        DatagramSocket::port(self)
    }

    fn five_tuple(&self) -> Tuple {
        tuple(&DatagramSocket::five_tuple(self))
    }

    fn set_read_timeout(&self, t: i64) -> Outcome<()> {
        Ok(DatagramSocket::set_read_timeout(self, ms(t))?)
    }

    fn set_write_timeout(&self, t: i64) -> Outcome<()> {
        Ok(DatagramSocket::set_write_timeout(self, ms(t))?)
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_nonblocking(self, on)?)
    }

    fn set_cancel(&self, token: Option<&CancelToken>) {
        DatagramSocket::set_cancel(self, token);
    }

    fn fd(&self) -> Outcome<RawFd> {
        Ok(self.borrow()?.as_fd().as_raw_fd())
    }

    fn release(&self) -> Outcome<OwnedFd> {
        Ok(DatagramSocket::release(self)?)
    }

    fn close(&self) {
        DatagramSocket::close(self);
    }

    fn send_to_endpoint(&self, bytes: &[u8], endpoint: &str) -> Outcome<()> {
        let endpoint: Endpoint = endpoint.parse()?;
        Ok(DatagramSocket::send_to(self, bytes, Address::try_from(&endpoint)?)?)
    }

    fn set_ttl(&self, ttl: u8) -> Outcome<()> {
        Ok(DatagramSocket::set_ttl(self, ttl)?)
    }

    fn set_tos(&self, tos: u8) -> Outcome<()> {
        Ok(DatagramSocket::set_tos(self, tos)?)
    }

    fn set_dont_fragment(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_dont_fragment(self, on)?)
    }

    fn path_mtu(&self) -> Outcome<u32> {
        Ok(DatagramSocket::path_mtu(self)?)
    }

    fn set_details(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_details(self, on)?)
    }

    fn snapshot(&self) -> Outcome<DatagramStats> {
        let known = DatagramSocket::snapshot(self)?;
        assert_eq!(known.five_tuple, DatagramSocket::five_tuple(self));
        let told = |number: Option<u64>| number.map_or(-1, |n| n as i64);
        Ok(DatagramStats {
            dropped: told(known.dropped),
            unread: told(known.unread),
            receive_buffer: told(known.receive_buffer),
            unsent: told(known.unsent),
            send_buffer: told(known.send_buffer),
            denied: known.denied as i64,
            errors: known.errors as i64,
            path_mtu: known.path_mtu.map_or(-1, i64::from),
        })
    }

    fn serve(&self, threads: u32, handler: OnDatagram) -> Outcome<keepsock::DatagramService> {
        Ok(DatagramSocket::serve(self, threads, move |socket, datagram, bytes| {
            let reply = |answer: &[u8]| Ok(socket.reply(datagram, answer)?);
            handler(&reply, &got(datagram, bytes));
        })?)
    }

    fn send_fds(&self, bytes: &[u8], to: Option<&str>, fds: &[RawFd]) -> Outcome<()> {
        let fds: Vec<_> = fds.iter().map(|fd| system::borrow(*fd)).collect();
        let to = match to {
            Some(to) => Some(Address::try_from(&to.parse::<Endpoint>()?)?),
            None => None,
        };
        Ok(self.send_with_descriptors(bytes, to.as_ref(), &fds)?)
    }

    fn recv_fds(&self, cap: usize, max: usize) -> Outcome<(Got, Passed)> {
        let mut bytes = vec![0; cap];
        let (datagram, received) = self.recv_with_descriptors(&mut bytes, max)?;
        assert_eq!(datagram.len, received.len);
        bytes.truncate(received.len);
        let got = got(&datagram, &bytes);
        Ok((got, Passed { bytes, fds: received.descriptors, lost: received.lost }))
    }

    fn send_by(&self, bytes: &[u8], to: SocketAddr, interface: u32) -> Outcome<usize> {
        let mut one = Outgoing::to(bytes, to);
        one.interface = Some(interface);
        Ok(DatagramSocket::send_batch(self, &[one])?)
    }

    fn send_batch_from(
        &self,
        batch: &[&[u8]],
        to: SocketAddr,
        local: SocketAddr,
    ) -> Outcome<usize> {
        let batch: Vec<_> = batch
            .iter()
            .map(|bytes| {
                let mut one = Outgoing::to(*bytes, to);
                one.local = Some(local);
                one
            })
            .collect();
        Ok(DatagramSocket::send_batch(self, &batch)?)
    }
}

impl DatagramService for keepsock::DatagramService {
    fn received(&self) -> u64 {
        keepsock::DatagramService::received(self)
    }

    fn stop(&self) {
        keepsock::DatagramService::stop(self);
    }

    fn wait(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::DatagramService::wait(self, ms(t))?)
    }
}

impl Inherited<RustApi> for keepsock::Inherited {
    fn listen(&mut self, endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<ServerSocket> {
        Ok(keepsock::Inherited::listen(self, endpoint, &options(list)?)?)
    }

    fn server(&mut self, name: &str, list: &[Opt<'_, RustApi>]) -> Outcome<ServerSocket> {
        Ok(keepsock::Inherited::server(self, name, &options(list)?)?)
    }

    fn datagram(&mut self, name: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(keepsock::Inherited::datagram(self, name, &options(list)?)?)
    }

    fn bind(&mut self, endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(keepsock::Inherited::bind(self, endpoint, &options(list)?)?)
    }

    fn names(&self) -> Vec<String> {
        keepsock::Inherited::names(self).map(str::to_owned).collect()
    }

    fn ready(&mut self) -> Outcome<()> {
        Ok(keepsock::Inherited::ready(self)?)
    }
}
