//! Datagram sockets of the Rust API.

use std::net::{IpAddr, SocketAddr};

use keepsock::{
    Address, CancelToken, Datagram, DatagramSocket, Endpoint, Incoming, Outgoing, Sockopt,
};

use super::super::os::{AsFd, AsRawFd, OwnedFd, RawFd};
use super::super::rust::{RustApi, ms, options, peer, tuple};
#[cfg(feature = "serve")]
use super::super::serve::{Serve, rust::serve_options};
use super::super::{Failure, Opt, Outcome, Passed, Tuple, system};
#[cfg(feature = "serve")]
use super::{DatagramService, OnDatagram};
use super::{DatagramStats, Datagrams, Got, Reported};

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

    fn bind(endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(DatagramSocket::bind_with(endpoint, &options(list)?)?)
    }

    fn connect(endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(DatagramSocket::connect_with(endpoint, &options(list)?)?)
    }

    fn adopt(fd: OwnedFd, list: &[Opt<'_, RustApi>]) -> Result<DatagramSocket, (OwnedFd, Failure)> {
        DatagramSocket::from_owned(fd, &options(list).unwrap()).map_err(|(fd, e)| (fd, e.into()))
    }

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
        Ok(DatagramSocket::join_multicast(self, group, interface, from)?)
    }

    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        Ok(DatagramSocket::leave_multicast(self, group, interface, from)?)
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

    fn set_recv_errors(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_recv_errors(self, on)?)
    }

    fn set_fail_on_refused(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_fail_on_refused(self, on)?)
    }

    fn set_peer(&self, peer: SocketAddr) -> Outcome<()> {
        Ok(DatagramSocket::set_peer(self, peer)?)
    }

    fn set_peer_endpoint(&self, endpoint: &str) -> Outcome<()> {
        let endpoint: keepsock::Endpoint = endpoint.parse()?;
        Ok(DatagramSocket::set_peer(self, keepsock::Address::try_from(&endpoint)?)?)
    }

    fn peek(&self, cap: usize) -> Outcome<Got> {
        let mut bytes = vec![0; cap];
        let d = DatagramSocket::peek(self, &mut bytes)?;
        Ok(got(&d, &bytes[..d.len]))
    }

    fn sender_of(info: &Datagram) -> String {
        info.from.to_string()
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
        DatagramSocket::stats(self).unwrap().errors
    }

    fn endpoint(&self) -> String {
        DatagramSocket::endpoint(self).to_string()
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

    fn set_cancel(&self, token: Option<&CancelToken>) -> Outcome<()> {
        Ok(DatagramSocket::set_cancel(self, token)?)
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

    fn set_recv_metadata(&self, on: bool) -> Outcome<()> {
        Ok(DatagramSocket::set_recv_metadata(self, on)?)
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        Ok(DatagramSocket::set_sockopt(self, option, value)?)
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        Ok(DatagramSocket::sockopt(self, option)?)
    }

    fn stats(&self) -> Outcome<DatagramStats> {
        let known = DatagramSocket::stats(self)?;
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
            served: known.served as i64,
            retried: known.retried as i64,
        })
    }

    #[cfg(feature = "serve")]
    fn serve_with(
        &self,
        list: &[Serve],
        handler: OnDatagram,
    ) -> Outcome<keepsock::DatagramService> {
        Ok(DatagramSocket::serve(self, &serve_options(list), each(handler))?)
    }

    #[cfg(feature = "serve")]
    fn add_to(&self, service: &keepsock::DatagramService) -> Outcome<()> {
        Ok(service.add(self)?)
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
        Ok((
            got,
            Passed { bytes, fds: received.descriptors, truncated: received.descriptors_truncated },
        ))
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

#[cfg(feature = "serve")]
impl DatagramService for keepsock::DatagramService {
    fn stop(&self) {
        keepsock::DatagramService::stop(self);
    }

    fn wait(&self, t: i64) -> Outcome<()> {
        Ok(keepsock::DatagramService::wait(self, ms(t))?)
    }
}

#[cfg(feature = "serve")]
fn each(handler: OnDatagram) -> impl Fn(&DatagramSocket, &keepsock::Datagram, &[u8]) + Send + Sync {
    move |socket, datagram, bytes| {
        let reply = |answer: &[u8]| Ok(socket.reply(datagram, answer)?);
        handler(&reply, &got(datagram, bytes));
    }
}
