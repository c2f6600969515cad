//! Not supported on systems other than Unix: no socket can be created, so no other function runs.

use std::io;
use std::net::IpAddr;

use super::{Buffers, Memory, Reported, Run, Sending, ToGroups};
use crate::sys::{Borrowed, Families, Received, Wait};

pub(crate) const UDP_CONTROL: usize = 0;
pub(crate) const UNIX_CONTROL: usize = 0;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn has_interface(_: Borrowed<'_>, _index: u32) -> bool {
    false
}

pub(crate) fn want_destination(_: Borrowed<'_>, _ipv6: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn want_details(_: Borrowed<'_>, _families: Families, _on: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn want_sender(_: Borrowed<'_>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn coalesces(_: Borrowed<'_>) -> bool {
    false
}

pub(crate) fn coalesce(_: Borrowed<'_>, _on: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn set_sending(
    _: Borrowed<'_>,
    _families: Families,
    setting: Sending,
) -> io::Result<()> {
    let _ = match setting {
        Sending::Ttl(value) | Sending::Tos(value) => value,
        Sending::Whole(on) => u8::from(on),
    };
    unsupported()
}

pub(crate) fn path_mtu(_: Borrowed<'_>, _ipv6: bool) -> io::Result<u32> {
    unsupported()
}

pub(crate) fn memory(_: Borrowed<'_>) -> Memory {
    Memory::default()
}

pub(crate) fn report_errors(_: Borrowed<'_>, _ipv6: bool, _on: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn recv_datagram(
    _: Borrowed<'_>,
    _: &mut [u8],
    _control: usize,
    _peek: bool,
    _: Wait,
    _: &mut Received,
) -> io::Result<()> {
    unsupported()
}

pub(crate) fn send_datagram(
    _: Borrowed<'_>,
    _ipv6: bool,
    run: &Run<'_>,
    _: Wait,
) -> io::Result<()> {
    let _ = (run.pieces, &run.to, run.source);
    unsupported()
}

pub(crate) fn send_datagrams(
    _: Borrowed<'_>,
    _ipv6: bool,
    _: &[Run<'_>],
    _: Wait,
) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn recv_datagrams<B: Buffers + ?Sized>(
    _: Borrowed<'_>,
    _: &mut B,
    _control: usize,
    _: Wait,
    _: impl FnMut(&mut B, usize, &mut Received),
) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn set_member(
    _: Borrowed<'_>,
    _group: IpAddr,
    _interface: u32,
    _source: Option<IpAddr>,
    _join: bool,
) -> io::Result<()> {
    unsupported()
}

pub(crate) fn to_groups(_: Borrowed<'_>, _families: Families, setting: ToGroups) -> io::Result<()> {
    let _ = match setting {
        ToGroups::Loop(on) => u32::from(on),
        ToGroups::Ttl(ttl) => u32::from(ttl),
        ToGroups::Interface(index) => index,
    };
    unsupported()
}

pub(crate) fn is_empty(_: Borrowed<'_>) -> bool {
    false
}

pub(crate) fn next_reported(_: Borrowed<'_>) -> io::Result<Option<Reported>> {
    unsupported()
}

pub(crate) fn ends_receiving(_: &io::Error) -> bool {
    true
}

pub(crate) fn is_reported(_: &io::Error) -> bool {
    false
}

pub(crate) fn may_refuse_segments(_: &io::Error) -> bool {
    false
}
