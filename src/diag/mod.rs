//! Packet capture, and the three-way handshakes that it finds.

pub(crate) mod capture;
pub(crate) mod handshake;
