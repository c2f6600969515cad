//! Inherited sockets and handovers of the C API.

// The purpose of this file is calls of C functions.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ptr::{null, null_mut};

use keepsock::ffi::*;

use super::super::capi::{
    CApi, CClient, CServer, CToken, all_until_not_found, c, call, field, options,
};
#[cfg(feature = "datagram")]
use super::super::datagram::capi::CDatagram;
use super::super::{Opt, Outcome};
use super::{Activation, Handed};

pub struct CInherited(*mut keepsock_activation);

impl Drop for CInherited {
    fn drop(&mut self) {
        unsafe { keepsock_activation_free(self.0) };
    }
}

impl Activation<CApi> for CInherited {
    fn from_env() -> Outcome<CInherited> {
        let mut out = null_mut();
        call(|e| unsafe { keepsock_activation_from_env(&raw mut out, e) })?;
        Ok(CInherited(out))
    }

    fn clear_env() {
        unsafe { keepsock_activation_clear_env() };
    }

    fn handover(
        argv: Option<&[&str]>,
        handed: &[(&str, Handed<'_, CApi>)],
        limit_ms: i64,
        token: Option<&CToken>,
    ) -> Outcome<i64> {
        let words = argv.map(|argv| argv.iter().map(|word| c(word)).collect::<Vec<_>>());
        let pointers = words.as_ref().map(|words| {
            let pointers = words.iter().map(|word| word.as_ptr());
            pointers.chain([null()]).collect::<Vec<_>>()
        });
        let names: Vec<_> = handed.iter().map(|(name, _)| c(name)).collect();
        let structures = handed.iter().zip(&names).map(|((_, what), name)| match what {
            Handed::Server(server) => {
                keepsock_handover_item { name: name.as_ptr(), server: server.0, datagram: null() }
            }
            #[cfg(feature = "datagram")]
            Handed::Datagram(socket) => {
                keepsock_handover_item { name: name.as_ptr(), server: null(), datagram: socket.0 }
            }
        });
        let structures: Vec<_> = structures.collect();
        let (first, count) = (structures.as_ptr(), structures.len());
        let argv = pointers.as_ref().map_or(null(), |pointers| pointers.as_ptr());
        let token = token.map_or(null(), |t| t.0.cast_const());
        let mut pid = 0;
        call(|e| unsafe {
            keepsock_handover_start(argv, first, count, limit_ms, token, &raw mut pid, e)
        })?;
        Ok(pid)
    }

    fn listen(&mut self, endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CServer> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_activation_listen(self.0, endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CServer(out))
    }

    fn server(&mut self, name: &str, list: &[Opt<'_, CApi>]) -> Outcome<CServer> {
        let (name, options) = (c(name), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_activation_server(self.0, name.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CServer(out))
    }

    fn client(&mut self, name: &str, list: &[Opt<'_, CApi>]) -> Outcome<CClient> {
        let (name, options) = (c(name), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_activation_client(self.0, name.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CClient::new(out))
    }

    #[cfg(feature = "datagram")]
    fn datagram(&mut self, name: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (name, options) = (c(name), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_activation_datagram(self.0, name.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    #[cfg(feature = "datagram")]
    fn bind(&mut self, endpoint: &str, list: &[Opt<'_, CApi>]) -> Outcome<CDatagram> {
        let (endpoint, options) = (c(endpoint), options(list)?);
        let mut out = null_mut();
        call(|e| unsafe {
            keepsock_activation_bind(self.0, endpoint.as_ptr(), options.0, &raw mut out, e)
        })?;
        Ok(CDatagram(out))
    }

    fn names(&self) -> Vec<String> {
        all_until_not_found(|index| {
            let mut buf = [0; KEEPSOCK_TEXT_SIZE as usize];
            call(|e| unsafe {
                let (buf, cap) = (buf.as_mut_ptr(), buf.len());
                keepsock_activation_name(self.0, index, buf, cap, null_mut(), e)
            })?;
            Ok(field(&buf))
        })
    }

    fn ready(&mut self) -> Outcome<()> {
        call(|e| unsafe { keepsock_activation_ready(self.0, e) })
    }
}
