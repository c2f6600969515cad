//! Inherited sockets and handovers of the Rust API.

use std::sync::Arc;

#[cfg(feature = "datagram")]
use keepsock::DatagramSocket;
use keepsock::{CancelToken, ClientSocket, ServerSocket};

use super::super::rust::{RustApi, ms, options};
use super::super::{Opt, Outcome, system};
use super::{Activation, Handed};

impl Activation<RustApi> for keepsock::Activation {
    fn from_env() -> Outcome<keepsock::Activation> {
        Ok(keepsock::Activation::from_env()?)
    }

    fn clear_env() {
        keepsock::Activation::variables().into_iter().for_each(system::remove_variable);
    }

    fn handover(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, RustApi>)],
        limit_ms: i64,
        token: Option<&CancelToken>,
    ) -> Outcome<i64> {
        let mut handover = keepsock::Handover::new().cancel(token);
        if let Some([program, args @ ..]) = argv {
            handover = args.iter().fold(handover.program(program), |h, arg| h.arg(arg));
        }
        for (name, what) in handed {
            handover = match what {
                Handed::Server(server) => handover.server(*name, server),
                #[cfg(feature = "datagram")]
                Handed::Datagram(socket) => handover.datagram(*name, socket),
            };
        }
        Ok(handover.start(ms(limit_ms))?.into())
    }

    fn listen(&mut self, endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<ServerSocket> {
        Ok(keepsock::Activation::listen(self, endpoint, &options(list)?)?)
    }

    fn server(&mut self, name: &str, list: &[Opt<'_, RustApi>]) -> Outcome<ServerSocket> {
        Ok(keepsock::Activation::server(self, name, &options(list)?)?)
    }

    #[cfg(feature = "datagram")]
    fn datagram(&mut self, name: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(keepsock::Activation::datagram(self, name, &options(list)?)?)
    }

    fn client(&mut self, name: &str, list: &[Opt<'_, RustApi>]) -> Outcome<Arc<ClientSocket>> {
        Ok(Arc::new(keepsock::Activation::client(self, name, &options(list)?)?))
    }

    #[cfg(feature = "datagram")]
    fn bind(&mut self, endpoint: &str, list: &[Opt<'_, RustApi>]) -> Outcome<DatagramSocket> {
        Ok(keepsock::Activation::bind(self, endpoint, &options(list)?)?)
    }

    fn names(&self) -> Vec<String> {
        keepsock::Activation::names(self).map(str::to_owned).collect()
    }

    fn ready(&mut self) -> Outcome<()> {
        Ok(keepsock::Activation::ready(self)?)
    }
}
