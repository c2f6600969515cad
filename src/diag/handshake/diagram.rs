//! A handshake as a sequence diagram: the packets, and the states of both sides.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use super::{Handshake, Segment, TcpFlags};
use crate::types::tcp_state::TcpState;

/// The number of columns between the lines of the two sides. With a state on each side, the diagram
/// has 78 columns.
const WIDTH: usize = 50;
/// The length of the longest name of a state in a handshake: SYN-RECEIVED.
const STATE_WIDTH: usize = 12;

/// Prints a handshake. See [`Handshake::diagram`].
pub(super) struct Diagram<'a>(pub(super) &'a Handshake);

impl fmt::Display for Diagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handshake = self.0;
        sides(f, handshake.client(), handshake.server())?;
        row(f, TcpState::Closed, &between(""), TcpState::Listen)?;
        let times = [handshake.syn_retransmissions, handshake.syn_ack_retransmissions, 0];
        for (step, again) in handshake.steps().iter().zip(times) {
            let forth = step.segment.source == handshake.client();
            space(f, "")?;
            for line in self.labels(step.segment, again) {
                space(f, &line)?;
            }
            row(f, step.client, &arrow(forth), step.server)?;
        }
        let (j, k) = (handshake.syn.seq, handshake.syn_ack.seq);
        write!(f, "\nj = {j}, k = {k}: the initial sequence numbers")
    }
}

impl Diagram<'_> {
    /// The lines above an arrow.
    fn labels(&self, segment: &Segment, again: u32) -> Vec<String> {
        let mut lines = Vec::new();
        let name = if segment.flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
            "SYN, ACK"
        } else if segment.flags.contains(TcpFlags::SYN) {
            "SYN"
        } else {
            "ACK"
        };
        let own = segment.source == self.0.client();
        let (j, k) = (self.0.syn.seq, self.0.syn_ack.seq);
        let (mine, peers) = if own { (('j', j), ('k', k)) } else { (('k', k), ('j', j)) };
        let mut line = format!("{name} seq={}", number(mine, segment.seq));
        if segment.flags.contains(TcpFlags::ACK) {
            let ack = format!("ack={}", number(peers, segment.ack));
            if line.len() + 1 + ack.len() < WIDTH {
                line += " ";
            } else {
                // With TCP Fast Open, the numbers have more digits.
                lines.push(std::mem::replace(&mut line, " ".repeat(name.len() + 1)));
            }
            line += &ack;
        }
        lines.push(line);
        if segment.flags.contains(TcpFlags::SYN) {
            lines.push(self.syn_options(segment));
        }
        if segment.payload_len > 0 {
            lines.push(format!("with {} bytes of data", segment.payload_len));
        }
        if again > 0 {
            lines.push(format!("sent {} times", again.saturating_add(1)));
        }
        lines
    }

    /// The window and the options of a SYN.
    fn syn_options(&self, segment: &Segment) -> String {
        let mut text = format!("win={}", segment.window);
        // Writing to a string cannot fail.
        if let Some(mss) = segment.mss() {
            let _ = write!(text, " mss={mss}");
        }
        if let Some(shift) = segment.window_scale() {
            let _ = write!(text, " wscale={shift}");
        }
        if segment.sack_permitted() {
            text += " sackOK";
        }
        if segment.timestamps().is_some() {
            text += " TS";
        }
        text
    }
}

/// `j+1 (3735928560)`.
fn number((name, base): (char, u32), value: u32) -> String {
    match value.wrapping_sub(base) {
        0 => format!("{name} ({value})"),
        more => format!("{name}+{more} ({value})"),
    }
}

/// Prints both addresses above their lines. Long addresses are on two lines.
fn sides(f: &mut fmt::Formatter<'_>, client: SocketAddr, server: SocketAddr) -> fmt::Result {
    let (client, server) = (format!("client {client}"), format!("server {server}"));
    let whole = 2 * STATE_WIDTH + 4 + WIDTH;
    if client.len() + 2 + server.len() <= whole {
        writeln!(f, "{client}{server:>rest$}", rest = whole - client.len())
    } else {
        writeln!(f, "{client}\n{server:>whole$}")
    }
}

fn between(text: &str) -> String {
    format!("|{text:<WIDTH$}|")
}

fn arrow(forth: bool) -> String {
    let line = "-".repeat(WIDTH - 1);
    if forth { format!("|{line}>|") } else { format!("|<{line}|") }
}

fn space(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let text = if text.is_empty() { String::new() } else { format!(" {text}") };
    writeln!(f, "{:STATE_WIDTH$} {}", "", between(&text))
}

fn row(
    f: &mut fmt::Formatter<'_>,
    client: TcpState,
    between: &str,
    server: TcpState,
) -> fmt::Result {
    writeln!(f, "{:>STATE_WIDTH$} {between} {server}", client.to_string())
}
