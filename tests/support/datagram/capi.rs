//! Datagram sockets of the C API.

// The purpose of this file is calls of C functions.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::{c_char, c_void};
use std::net::{IpAddr, SocketAddr};
use std::ptr::{null, null_mut};
use std::time::{Duration, SystemTime};

use keepsock::Sockopt;
use keepsock::ffi::*;

use super::super::capi::{CApi, CToken, c, call, field, options, sized_text, tuple};
use super::super::os::{AsRawFd, FromRawFd, IntoRawFd, NO_FD, OwnedFd, RawFd};
#[cfg(feature = "serve")]
use super::super::serve::{Serve, capi::serve_options};
use super::super::{Failure, Opt, Outcome, Passed, Peer, Tuple};
#[cfg(feature = "serve")]
use super::{DatagramService, OnDatagram};
use super::{DatagramStats, Datagrams, Got, Reported};

pub struct CDatagram(pub *mut keepsock_datagram);

// The header: any number of threads may be in calls on one socket.
unsafe impl Send for CDatagram {}

unsafe impl Sync for CDatagram {}

impl Drop for CDatagram {
    fn drop(&mut self) {
        unsafe { keepsock_datagram_free(self.0) };
    }
}

/// Converts a C address by its text.
fn socket_address(address: &keepsock_address) -> Option<SocketAddr> {
    // No address, or a Unix socket.
    if address.family < 4 {
        return None;
    }
    let (mut buf, mut needed) = ([0 as c_char; 64], 0);
    call(|e| unsafe {
        keepsock_address_text(address, buf.as_mut_ptr(), buf.len(), &raw mut needed, e)
    })
    .unwrap();
    let text = field(&buf);
    assert_eq!(needed, text.len() + 1);
    Some(text.parse().unwrap())
}

pub fn c_address(address: SocketAddr) -> keepsock_address {
    let mut out: keepsock_address = unsafe { std::mem::zeroed() };
    let text = c(&address.to_string());
    call(|e| unsafe { keepsock_address_parse(text.as_ptr(), &raw mut out, e) }).unwrap();
    out
}

fn sender(info: &keepsock_datagram_info) -> String {
    let name = &info.unix_name[..usize::from(info.unix_name_len)];
    match (socket_address(&info.from), name) {
        (Some(inet), []) => inet.to_string(),
        (None, []) => "unix:(unnamed)".to_owned(),
        (None, [0, name @ ..]) => format!("unix:@{}", String::from_utf8_lossy(name)),
        (None, path) => format!("unix:{}", String::from_utf8_lossy(path)),
        other => panic!("{other:?}"),
    }
}

fn got(info: &keepsock_datagram_info, bytes: &[u8]) -> Got {
    Got {
        bytes: bytes.to_vec(),
        original_len: info.original_len,
        truncated: info.truncated,
        from: socket_address(&info.from).unwrap_or(SocketAddr::from(([0; 4], 0))),
        sender: sender(info),
        to: socket_address(&info.to),
        local: socket_address(&info.local),
        interface: info.interface_index,
        ttl: u8::try_from(info.ttl).ok(),
        tos: u8::try_from(info.tos).ok(),
        received_at: u64::try_from(info.received_at_ns)
            .ok()
            .map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)),
        credentials: info.has_credentials.then(|| {
            let peer = &info.credentials;
            Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid }
        }),
    }
}

type Member = unsafe extern "C" fn(
    *mut keepsock_datagram,
    *const keepsock_address,
    *const c_char,
    *const keepsock_address,
    *mut *mut keepsock_error,
) -> i32;

impl CDatagram {
    #[track_caller]
    fn member(
        &self,
        function: Member,
        group: IpAddr,
        interface: Option<&str>,
        from: Option<IpAddr>,
    ) -> Outcome<()> {
        let group = c_address(SocketAddr::new(group, 0));
        let interface = interface.map(c);
        let interface = interface.as_ref().map_or(null(), |name| name.as_ptr());
        let from = from.map(|ip| c_address(SocketAddr::new(ip, 0)));
        let from = from.as_ref().map_or(null(), std::ptr::from_ref);
        call(|e| unsafe { function(self.0, &raw const group, interface, from, e) })
    }

    fn send_all(&self, items: &[keepsock_send_item]) -> Outcome<usize> {
        // The test uses the item size of a later header: larger items.
        #[repr(C)]
        struct Later(keepsock_send_item, u64);
        let items: Vec<_> = items.iter().map(|item| Later(*item, 7)).collect();
        let mut sent = 0;
        call(|e| unsafe {
            let (first, count, size) = (items.as_ptr().cast(), items.len(), size_of::<Later>());
            keepsock_datagram_send_batch(self.0, first, count, size, &raw mut sent, e)
        })?;
        Ok(sent)
    }
}

/// An item of a batch: a datagram without a destination.
pub fn item(bytes: &[u8]) -> keepsock_send_item {
    let (buf, len) = (bytes.as_ptr().cast(), bytes.len());
    keepsock_send_item { buf, len, ..unsafe { std::mem::zeroed() } }
}

impl Datagrams<CApi> for CDatagram {
    type Info = keepsock_datagram_info;

    fn bind(endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe { keepsock_datagram_bind(endpoint.as_ptr(), options.0, &raw mut out, e) })?;
        Ok(CDatagram(out))
    }

    fn connect(endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_datagram_connect(endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    fn adopt(fd: OwnedFd, list: &[Opt<'_, CApi>]) -> Result<CDatagram, (OwnedFd, Failure)> {
        let options = options(list).unwrap();
        let mut out = null_mut();
        let taken = call(|e| unsafe {
            keepsock_datagram_from_fd(fd.as_raw_fd(), options.0, &raw mut out, e)
        });
        if let Err(failure) = taken {
            return Err((fd, failure));
        }
        let _ = fd.into_raw_fd();
        Ok(CDatagram(out))
    }

    fn send(&self, bytes: &[u8]) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_send(self.0, bytes.as_ptr().cast(), bytes.len(), e) })
    }

    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> Outcome<()> {
        self.send_to_endpoint(bytes, &to.to_string())
    }

    fn reply(&self, reply_to: &keepsock_datagram_info, bytes: &[u8]) -> Outcome<()> {
        call(|e| unsafe {
            let (buf, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_datagram_reply(self.0, reply_to, buf, len, e)
        })
    }

    fn recv_info(&self, cap: usize) -> Outcome<(Got, keepsock_datagram_info)> {
        let mut bytes = vec![0u8; cap];
        let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            let (buf, size) = (bytes.as_mut_ptr().cast(), size_of_val(&info));
            keepsock_datagram_recv(self.0, buf, cap, &raw mut info, size, e)
        })?;
        Ok((got(&info, &bytes[..info.len]), info))
    }

    fn send_batch(&self, batch: &[(&[u8], Option<SocketAddr>)]) -> Outcome<usize> {
        let batch: Vec<_> = batch
            .iter()
            .map(|(bytes, to)| keepsock_send_item {
                to: to.map_or_else(|| unsafe { std::mem::zeroed() }, c_address),
                ..item(bytes)
            })
            .collect();
        self.send_all(&batch)
    }

    fn reply_batch(&self, answers: &[(&keepsock_datagram_info, &[u8])]) -> Outcome<usize> {
        let batch: Vec<_> = answers
            .iter()
            .map(|(reply_to, bytes)| keepsock_send_item { reply_to: *reply_to, ..item(bytes) })
            .collect();
        self.send_all(&batch)
    }

    fn recv_batch(&self, caps: &[usize]) -> Outcome<Vec<Got>> {
        // The test uses the entry size of a later header: larger entries.
        #[repr(C)]
        struct Later(keepsock_recv_item, u64);
        let mut buffers: Vec<_> = caps.iter().map(|cap| vec![0u8; *cap]).collect();
        let info = || unsafe { std::mem::zeroed() };
        let mut batch: Vec<_> = buffers
            .iter_mut()
            .map(|b| keepsock_recv_item { buf: b.as_mut_ptr().cast(), cap: b.len(), info: info() })
            .map(|incoming| Later(incoming, 7))
            .collect();
        let mut count = 0;
        call(|e| unsafe {
            let (first, n, size) = (batch.as_mut_ptr().cast(), batch.len(), size_of::<Later>());
            keepsock_datagram_recv_batch(self.0, first, n, size, &raw mut count, e)
        })?;
        assert!(batch[..count].iter().all(|later| later.1 == 0));
        assert!(batch[count..].iter().all(|later| later.1 == 7 && later.0.info.from.family == 0));
        let bytes = |i: &keepsock_recv_item| match i.info.len {
            0 => &[][..],
            len => unsafe { std::slice::from_raw_parts(i.buf.cast::<u8>(), len) },
        };
        Ok(batch[..count].iter().map(|later| got(&later.0.info, bytes(&later.0))).collect())
    }

    fn set_broadcast(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_broadcast(self.0, on, e) })
    }

    fn join(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        self.member(keepsock_datagram_join_multicast, group, interface, from)
    }

    fn leave(&self, group: IpAddr, interface: Option<&str>, from: Option<IpAddr>) -> Outcome<()> {
        self.member(keepsock_datagram_leave_multicast, group, interface, from)
    }

    fn set_multicast_loop(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_multicast_loop(self.0, on, e) })
    }

    fn set_multicast_ttl(&self, ttl: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_multicast_ttl(self.0, ttl, e) })
    }

    fn set_multicast_interface(&self, name: &str) -> Outcome<()> {
        let name = c(name);
        call(|e| unsafe { keepsock_datagram_set_multicast_interface(self.0, name.as_ptr(), e) })
    }

    fn set_recv_errors(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_recv_errors(self.0, on, e) })
    }

    fn set_fail_on_refused(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_fail_on_refused(self.0, on, e) })
    }

    fn set_peer(&self, peer: SocketAddr) -> Outcome<()> {
        let peer = c_address(peer);
        call(|e| unsafe { keepsock_datagram_set_peer(self.0, &raw const peer, e) })
    }

    fn set_peer_endpoint(&self, endpoint: &str) -> Outcome<()> {
        let endpoint = c(endpoint);
        call(|e| unsafe { keepsock_datagram_set_peer_endpoint(self.0, endpoint.as_ptr(), e) })
    }

    fn peek(&self, cap: usize) -> Outcome<Got> {
        let mut bytes = vec![0u8; cap];
        let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
        call(|e| unsafe {
            let (buf, size) = (bytes.as_mut_ptr().cast(), size_of_val(&info));
            keepsock_datagram_peek(self.0, buf, cap, &raw mut info, size, e)
        })?;
        Ok(got(&info, &bytes[..info.len]))
    }

    fn sender_of(info: &keepsock_datagram_info) -> String {
        sized_text(|buf, cap, required, e| unsafe {
            keepsock_datagram_info_sender(info, buf, cap, required, e)
        })
    }

    fn recv_error(&self) -> Outcome<Option<Reported>> {
        let mut out: keepsock_datagram_error = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        match call(|e| unsafe { keepsock_datagram_recv_error(self.0, &raw mut out, size, e) }) {
            Err(failure) if failure.is(keepsock::ErrorKind::NotFound) => return Ok(None),
            outcome => outcome?,
        }
        Ok(Some(Reported {
            status: out.status,
            os_error: out.os_error,
            to: socket_address(&out.to),
            from: socket_address(&out.from).map(|a| a.ip()),
            path_mtu: (out.path_mtu != 0).then_some(out.path_mtu),
        }))
    }

    fn error_count(&self) -> u64 {
        self.stats().unwrap().errors as u64
    }

    fn endpoint(&self) -> String {
        sized_text(|buf, cap, required, e| unsafe {
            keepsock_datagram_endpoint(self.0, buf, cap, required, e)
        })
    }

    fn port(&self) -> u16 {
        self.five_tuple().local.1
    }

    fn five_tuple(&self) -> Tuple {
        let mut out: keepsock_five_tuple = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        call(|e| unsafe { keepsock_datagram_five_tuple(self.0, &raw mut out, size, e) }).unwrap();
        tuple(&out)
    }

    fn set_read_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_read_timeout(self.0, ms, e) })
    }

    fn set_write_timeout(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_write_timeout(self.0, ms, e) })
    }

    fn set_nonblocking(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_nonblocking(self.0, on, e) })
    }

    fn set_cancel(&self, token: Option<&CToken>) -> Outcome<()> {
        let token = token.map_or(null(), |t| t.0.cast_const());
        call(|e| unsafe { keepsock_datagram_set_cancel(self.0, token, e) })
    }

    fn fd(&self) -> Outcome<RawFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_datagram_fd(self.0, &raw mut fd, e) })?;
        Ok(fd)
    }

    fn release(&self) -> Outcome<OwnedFd> {
        let mut fd = NO_FD;
        call(|e| unsafe { keepsock_datagram_release_fd(self.0, &raw mut fd, e) })?;
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn close(&self) {
        call(|e| unsafe { keepsock_datagram_close(self.0, e) }).unwrap();
    }

    fn send_to_endpoint(&self, bytes: &[u8], endpoint: &str) -> Outcome<()> {
        let endpoint = c(endpoint);
        call(|e| unsafe {
            let (buf, len) = (bytes.as_ptr().cast(), bytes.len());
            keepsock_datagram_send_to(self.0, endpoint.as_ptr(), buf, len, e)
        })
    }

    fn set_ttl(&self, ttl: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_ttl(self.0, ttl, e) })
    }

    fn set_tos(&self, tos: u8) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_tos(self.0, tos, e) })
    }

    fn set_dont_fragment(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_dont_fragment(self.0, on, e) })
    }

    fn set_recv_metadata(&self, on: bool) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_recv_metadata(self.0, on, e) })
    }

    fn set_sockopt(&self, option: Sockopt, value: u32) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_set_sockopt(self.0, option as i32, value, e) })
    }

    fn sockopt(&self, option: Sockopt) -> Outcome<u32> {
        let mut value = 0;
        call(|e| unsafe { keepsock_datagram_sockopt(self.0, option as i32, &raw mut value, e) })?;
        Ok(value)
    }

    fn stats(&self) -> Outcome<DatagramStats> {
        let mut out: keepsock_datagram_stats = unsafe { std::mem::zeroed() };
        let size = size_of_val(&out);
        call(|e| unsafe { keepsock_datagram_get_stats(self.0, &raw mut out, size, e) })?;
        Ok(DatagramStats {
            dropped: out.dropped,
            unread: out.unread,
            receive_buffer: out.receive_buffer,
            unsent: out.unsent,
            send_buffer: out.send_buffer,
            denied: out.denied,
            errors: out.errors,
            path_mtu: out.path_mtu,
            retried: out.retried,
            served: out.served,
        })
    }

    #[cfg(feature = "serve")]
    fn serve_with(&self, list: &[Serve], handler: OnDatagram) -> Outcome<CDatagramService> {
        let options = serve_options(list)?;
        serve_datagrams(handler, |user, out| {
            call(|e| unsafe {
                keepsock_datagram_serve(self.0, options.0, Some(each), user, out, e)
            })
        })
    }

    #[cfg(feature = "serve")]
    fn add_to(&self, service: &CDatagramService) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_service_add(service.service, self.0, e) })
    }

    fn send_fds(&self, bytes: &[u8], to: Option<&str>, fds: &[RawFd]) -> Outcome<()> {
        let to = to.map(c);
        let to = to.as_ref().map_or(null(), |to| to.as_ptr());
        let (buf, len) = (bytes.as_ptr().cast(), bytes.len());
        call(|e| unsafe {
            keepsock_datagram_send_fds(self.0, to, buf, len, fds.as_ptr(), fds.len(), e)
        })
    }

    fn recv_fds(&self, cap: usize, max: usize) -> Outcome<(Got, Passed)> {
        let (mut bytes, mut fds) = (vec![0u8; cap], vec![NO_FD; max]);
        let (mut count, mut truncated) = (usize::MAX, false);
        let mut info: keepsock_datagram_info = unsafe { std::mem::zeroed() };
        let (buf, first) = (bytes.as_mut_ptr().cast(), fds.as_mut_ptr());
        call(|e| unsafe {
            let (size, out) = (size_of_val(&info), &raw mut info);
            let (count, cut) = (&raw mut count, &raw mut truncated);
            keepsock_datagram_recv_fds(self.0, buf, cap, first, max, out, size, count, cut, e)
        })?;
        bytes.truncate(info.len);
        fds.truncate(count);
        let fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        Ok((got(&info, &bytes), Passed { bytes, fds, truncated }))
    }

    fn send_by(&self, bytes: &[u8], to: SocketAddr, interface: u32) -> Outcome<usize> {
        self.send_all(&[keepsock_send_item {
            to: c_address(to),
            interface_index: interface,
            ..item(bytes)
        }])
    }

    fn send_batch_from(
        &self,
        batch: &[&[u8]],
        to: SocketAddr,
        local: SocketAddr,
    ) -> Outcome<usize> {
        let (to, local) = (c_address(to), c_address(local));
        let each = |bytes: &&[u8]| keepsock_send_item { to, local, ..item(bytes) };
        self.send_all(&batch.iter().map(each).collect::<Vec<_>>())
    }
}

#[cfg(feature = "serve")]
pub struct CDatagramService {
    service: *mut keepsock_datagram_service,
    _handler: Box<OnDatagram>,
}

// The header: any thread may call any function.
#[cfg(feature = "serve")]
unsafe impl Send for CDatagramService {}

#[cfg(feature = "serve")]
unsafe impl Sync for CDatagramService {}

#[cfg(feature = "serve")]
impl Drop for CDatagramService {
    fn drop(&mut self) {
        unsafe { keepsock_datagram_service_free(self.service) };
    }
}

#[cfg(feature = "serve")]
impl DatagramService for CDatagramService {
    fn stop(&self) {
        call(|e| unsafe { keepsock_datagram_service_stop(self.service, e) }).unwrap();
    }

    fn wait(&self, ms: i64) -> Outcome<()> {
        call(|e| unsafe { keepsock_datagram_service_wait(self.service, ms, e) })
    }
}

#[cfg(feature = "serve")]
unsafe extern "C" fn each(
    datagram: *mut keepsock_datagram,
    info: *const keepsock_datagram_info,
    buf: *const c_void,
    len: usize,
    user: *mut c_void,
) {
    let (info, handler, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts(buf.cast::<u8>(), len);
        (&*info, &*user.cast::<OnDatagram>(), bytes)
    };
    let reply = |answer: &[u8]| {
        call(|e| unsafe {
            let (buf, len) = (answer.as_ptr().cast(), answer.len());
            keepsock_datagram_reply(datagram, info, buf, len, e)
        })
    };
    handler(&reply, &got(info, bytes));
}

#[cfg(feature = "serve")]
fn serve_datagrams(
    handler: OnDatagram,
    serve: impl FnOnce(*mut c_void, *mut *mut keepsock_datagram_service) -> Outcome<()>,
) -> Outcome<CDatagramService> {
    let handler = Box::new(handler);
    let user = std::ptr::from_ref(&*handler).cast_mut().cast();
    let mut service = null_mut();
    serve(user, &raw mut service)?;
    Ok(CDatagramService { service, _handler: handler })
}
