//! Socket activation, and handover of listening sockets to a successor process.
//!
//! [`note`] is the protocol, [`handover`] its sender, [`inherited`] its receiver.

pub(crate) mod handover;
pub(crate) mod inherited;
mod item;
pub(crate) mod note;

/// The operation that errors of an [`Activation`](inherited::Activation) name.
const OPERATION: &str = "inherit";
