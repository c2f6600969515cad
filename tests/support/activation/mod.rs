//! Inherited sockets and handovers, in the form of either API.

use super::{Api, Opt, Outcome};

#[cfg(feature = "capi")]
pub mod capi;
pub mod rust;

/// The items of a handover.
pub enum Handed<'a, A: Api> {
    Server(&'a A::Server),
    #[cfg(feature = "datagram")]
    Datagram(&'a A::Datagram),
}

/// The sockets that were passed to this process.
pub trait Activation<A: Api>: Sized {
    fn from_env() -> Outcome<Self>;
    /// Only for a process of one test.
    fn clear_env();
    /// Starts a program with arguments, or this program again. Returns the process ID.
    fn handover(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, A>)],
        limit_ms: i64,
        token: Option<&A::Token>,
    ) -> Outcome<i64>;

    fn listen(&mut self, endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<A::Server>;
    fn server(&mut self, name: &str, options: &[Opt<'_, A>]) -> Outcome<A::Server>;
    #[cfg(feature = "datagram")]
    fn datagram(&mut self, name: &str, options: &[Opt<'_, A>]) -> Outcome<A::Datagram>;
    fn client(&mut self, name: &str, options: &[Opt<'_, A>]) -> Outcome<A::Client>;
    #[cfg(feature = "datagram")]
    fn bind(&mut self, endpoint: &str, options: &[Opt<'_, A>]) -> Outcome<A::Datagram>;
    fn names(&self) -> Vec<String>;
    fn ready(&mut self) -> Outcome<()>;
}
