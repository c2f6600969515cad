//! `keepsock/serving.h`: services that accept and serve connections.

mod conn;
mod service;

pub use conn::*;
pub use service::*;
