//! Services of the Rust API.

use std::io::IoSlice;
use std::sync::Arc;

use keepsock::{
    AcceptPolicy, ClientSocket, CloseReason, Error, Framing, Keepalive, OverflowPolicy,
    ServeOptions, Sockopt,
};

use super::super::help::Callbacks;
use super::super::rust::{RustApi, limit, millis, ms, options, peer, snap, tuple};
use super::super::{ConnStats, Failure, Opt, Outcome, Peer, Tuple, os::RawFd, system};
use super::{
    Connection, On, OnConnection, OnTimer, Sent, Serve, Service, Stats, posted_that_may_skip,
    timer_that_may_skip,
};

pub fn serve_options(list: &[Serve]) -> ServeOptions {
    let mut o = ServeOptions::new();
    for option in list {
        o = match option {
            Serve::Max(n) => o.max_connections(*n),
            Serve::Reject => o.accept_policy(AcceptPolicy::Reject),
            Serve::PerAddress(n) => o.max_per_address(*n),
            Serve::Allow(network) => o.allowed_network(*network),
            Serve::Deny(network) => o.denied_network(*network),
            Serve::Threads(n) => o.threads(*n),
            Serve::Framing(framing) => o.framing(*framing),
            Serve::QueueLimit(bytes) => o.queue_limit(*bytes),
            Serve::DropOldest => o.overflow_policy(OverflowPolicy::DropOldest),
            Serve::Stack(bytes) => o.stack_size(*bytes),
            Serve::Cpus(cpus) => o.cpus(cpus),
        };
    }
    o
}

pub struct Program(pub On<RustApi>);

impl keepsock::Handler for Program {
    fn on_open(&self, c: &keepsock::Connection) {
        if let Some(open) = &self.0.open {
            open(c);
        }
    }

    fn on_data(&self, c: &keepsock::Connection, data: &[u8]) {
        if let Some(on_data) = &self.0.data {
            on_data(c, data);
        }
    }

    fn on_writable(&self, c: &keepsock::Connection) {
        if let Some(writable) = &self.0.writable {
            writable(c);
        }
    }

    fn on_eof(&self, c: &keepsock::Connection) {
        match &self.0.finished {
            Some(finished) => finished(c),
            None => c.close(),
        }
    }

    fn on_timer(&self, c: &keepsock::Connection) {
        if let Some(timer) = &self.0.timer {
            timer(c);
        }
    }

    fn on_drain(&self, c: &keepsock::Connection) {
        match &self.0.drain {
            Some(drain) => drain(c),
            None => c.close(),
        }
    }

    fn on_close(&self, c: &keepsock::Connection, end: CloseReason) {
        if let Some(close) = &self.0.close {
            close(c, end);
        }
    }

    fn on_connect_failed(&self, error: &Error, data: Option<keepsock::Data>) {
        if let Some(failed) = &self.0.connect_failed {
            let data = data.and_then(|data| data.downcast::<usize>().ok());
            failed(error.clone().into(), data.map_or(0, |data| *data));
        }
    }
}

impl Connection for keepsock::Connection {
    type Client = Arc<ClientSocket>;

    fn detach(&self, unread: &[u8]) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::Connection::detach(self, unread)?))
    }

    fn send(&self, message: &[u8]) -> Outcome<()> {
        Ok(keepsock::Connection::send(self, message)?)
    }

    fn send_slices(&self, slices: &[&[u8]]) -> Outcome<()> {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        Ok(keepsock::Connection::send_slices(self, &slices)?)
    }

    fn send_file(&self, fd: RawFd, offset: u64, len: u64) -> Outcome<()> {
        Ok(keepsock::Connection::send_file(self, system::borrow_file(fd), offset, len)?)
    }

    fn fd(&self) -> Outcome<RawFd> {
        #[cfg(unix)]
        return Ok(self.raw_fd()?);
        #[cfg(windows)]
        return Ok(self.raw_socket()? as RawFd);
    }

    fn close(&self) {
        keepsock::Connection::close(self);
    }

    fn post(&self, function: OnConnection<Self>) -> Outcome<()> {
        Ok(keepsock::Connection::post(self, posted_that_may_skip(function))?)
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

    fn set_framing(&self, framing: Framing) -> Outcome<()> {
        Ok(keepsock::Connection::set_framing(self, framing)?)
    }

    fn set_queue_limit(&self, bytes: usize) -> Outcome<()> {
        Ok(keepsock::Connection::set_queue_limit(self, bytes)?)
    }

    fn set_overflow_policy(&self, overflow_policy: OverflowPolicy) -> Outcome<()> {
        Ok(keepsock::Connection::set_overflow_policy(self, overflow_policy)?)
    }

    fn set_timer(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::Connection::set_timer(self, ms(t))?)
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

    fn place(&self) -> usize {
        // The entry in the table of the service, below the generation.
        (keepsock::Connection::id(self) & u64::from(u32::MAX)) as usize
    }

    fn close_reason(&self) -> Option<CloseReason> {
        keepsock::Connection::close_reason(self)
    }

    fn proxy_address(&self) -> Option<String> {
        keepsock::Connection::proxy_address(self).map(|address| address.to_string())
    }

    fn five_tuple(&self) -> Outcome<Tuple> {
        Ok(tuple(&keepsock::Connection::five_tuple(self)?))
    }

    fn stats(&self) -> Outcome<ConnStats> {
        Ok(snap(keepsock::Connection::stats(self)?))
    }

    fn keepalive(&self) -> Outcome<Option<(i64, i64, u32)>> {
        let now = keepsock::Connection::keepalive(self)?;
        Ok(now.map(|k| (millis(k.idle()), millis(k.interval()), k.count())))
    }

    fn peer_credentials(&self) -> Outcome<Peer> {
        Ok(peer(keepsock::Connection::peer_credentials(self)?))
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        Ok(keepsock::Connection::set_sockopt(self, option, value)?)
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        Ok(keepsock::Connection::sockopt(self, option)?)
    }

    fn keepalive_values(&self) -> Outcome<(i64, i64, u32)> {
        let k = keepsock::Connection::keepalive_values(self)?;
        Ok((millis(k.idle()), millis(k.interval()), k.count()))
    }

    fn set_keepalive(&self, idle: i64, interval: i64, count: u32) -> Outcome<()> {
        let keepalive = Keepalive::new(limit(idle), limit(interval), count)?;
        Ok(keepsock::Connection::set_keepalive(self, keepalive)?)
    }

    fn disable_keepalive(&self) -> Outcome<()> {
        Ok(keepsock::Connection::set_keepalive(self, None)?)
    }

    fn set_dead_after(&self, time: i64) -> Outcome<()> {
        Ok(keepsock::Connection::set_dead_after(self, ms(time))?)
    }

    fn set_idle_timeout(&self, time: i64) -> Outcome<()> {
        Ok(keepsock::Connection::set_idle_timeout(self, ms(time))?)
    }

    fn set_heartbeat(&self, bytes: &[u8], every: i64) -> Outcome<()> {
        Ok(keepsock::Connection::set_heartbeat(self, bytes, ms(every))?)
    }

    fn set_heartbeat_timeout(&self, time: i64) -> Outcome<()> {
        Ok(keepsock::Connection::set_heartbeat_timeout(self, ms(time))?)
    }
}

impl Service<RustApi> for keepsock::Service {
    fn connections(&self) -> u32 {
        keepsock::Service::stats(self).connections
    }

    fn broadcast(&self, message: &[u8]) -> (u32, u32) {
        let b = keepsock::Service::broadcast(self, message).unwrap();
        (b.sent, b.reset)
    }

    fn pause_accept(&self) -> Outcome<()> {
        Ok(keepsock::Service::pause_accept(self)?)
    }

    fn resume_accept(&self) -> Outcome<()> {
        Ok(keepsock::Service::resume_accept(self)?)
    }

    fn stop(&self) {
        keepsock::Service::stop(self);
    }

    fn wait_stopped(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::Service::wait_stopped(self, ms(t))?)
    }

    fn wait(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::Service::wait(self, ms(t))?)
    }

    fn drain(&self, limit_ms: i64) -> Outcome<(u32, u32)> {
        let d = keepsock::Service::drain(self, limit(limit_ms))?;
        Ok((d.completed, d.reset))
    }

    fn push(&self, group: Option<&str>, message: &[u8]) -> Outcome<Sent> {
        let b = match group {
            None => keepsock::Service::broadcast(self, message)?,
            Some(group) => self.broadcast_to(group, message)?,
        };
        Ok(Sent { sent: b.sent, cut: b.reset, dropped: b.dropped, rejected: b.rejected })
    }

    fn add(
        &self,
        client: Arc<ClientSocket>,
        data: usize,
    ) -> Result<keepsock::Connection, (Arc<ClientSocket>, Failure)> {
        let client = Arc::into_inner(client).expect("the only owner");
        keepsock::Service::add(self, client, Some(Arc::new(data)))
            .map_err(|(client, e)| (Arc::new(client), e.into()))
    }

    fn connect(&self, endpoint: &str, list: &[Opt<'_, RustApi>], data: usize) -> Outcome<()> {
        let (options, data) = (options(list)?, Arc::new(data));
        Ok(keepsock::Service::connect(self, endpoint, &options, Some(data))?)
    }

    fn reconnect(
        &self,
        reconnect: keepsock::Reconnect,
        data: usize,
    ) -> Result<(), (keepsock::Reconnect, Failure)> {
        keepsock::Service::reconnect(self, reconnect, Some(Arc::new(data)))
            .map_err(|(reconnect, e)| (reconnect, e.into()))
    }

    fn post(&self, function: Box<dyn FnOnce() + Send>) -> Outcome<()> {
        let callbacks = Callbacks::of_test();
        Ok(keepsock::Service::post(self, move || callbacks.run(function))?)
    }

    fn add_timer(&self, delay: i64, interval: i64, function: OnTimer) -> Outcome<u64> {
        let interval = (interval != 0).then(|| limit(interval));
        Ok(keepsock::Service::add_timer(
            self,
            limit(delay),
            interval,
            timer_that_may_skip(function),
        )?)
    }

    fn remove_timer(&self, timer: u64) -> Outcome<()> {
        Ok(keepsock::Service::remove_timer(self, timer)?)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&keepsock::Connection)) -> Outcome<()> {
        keepsock::Service::connections(self)?.iter().for_each(visit);
        Ok(())
    }

    fn stats(&self) -> Stats {
        let s = keepsock::Service::stats(self);
        let moved = |get: fn(&keepsock::TrafficStats) -> u64| {
            s.traffic.as_ref().map_or(-1, |b| i64::try_from(get(b)).unwrap_or(i64::MAX))
        };
        Stats {
            accepting: s.accepting,
            connections: s.connections,
            opened: s.opened,
            closed: s.closed,
            received: moved(|b| b.bytes_received),
            written: moved(|b| b.bytes_written),
            sent: moved(|b| b.bytes_sent),
            queued: moved(|b| b.bytes_queued),
            dropped: moved(|b| b.bytes_dropped),
            dropped_messages: moved(|b| b.messages_dropped),
            ends: s.close_reasons,
        }
    }

    fn dump(&self) -> String {
        keepsock::Service::dump(self)
    }
}
