//! Prints the lines that a server sends, until the server closes the connection.
//!
//! ```text
//! cargo run --example listen 127.0.0.1:7000
//! ```
//!
//! A firewall on the path must not forget a client that only receives, and the client must
//! detect a vanished server. Keepalive does both, and is on by default.

use std::env;
use std::process::ExitCode;

use keepsock::{ClientSocket, ErrorKind};

/// Longer lines are an error: a server must not be able to fill our memory.
const LONGEST_LINE: usize = 64 * 1024;

fn listen(endpoint: &str) -> keepsock::Result<()> {
    let client = ClientSocket::connect(endpoint)?;
    println!("{}", client.five_tuple());
    match client.keepalive()? {
        Some(keepalive) => println!("keepalive {keepalive}"),
        None => println!("no keepalive"),
    }
    loop {
        match client.read_line(LONGEST_LINE) {
            Ok(line) => println!("{line}"),
            // The end is an error only in the middle of a line.
            Err(error) if error.kind() == ErrorKind::EndOfStream && error.transferred() == 0 => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

fn main() -> ExitCode {
    let Some(endpoint) = env::args().nth(1) else {
        eprintln!("usage: listen HOST:PORT");
        return ExitCode::from(2);
    };
    match listen(&endpoint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("listen: {error}");
            ExitCode::FAILURE
        }
    }
}
