//! V2, V3: the memory that hostile clients of an event loop use.

#![allow(unsafe_code)] // mallinfo2(3)

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use keepsock::{Framing, LengthFormat};

use crate::support::{Api, On, Serve, Server, Service, eventually, process};

both_apis![connection_with_partial_input_uses_the_memory_of_the_input];

/// The heap memory in use, including large blocks. A test that uses it has a process of its own.
fn allocated() -> usize {
    // SAFETY: the function takes no argument.
    let used = unsafe { libc::mallinfo2() };
    used.uordblks + used.hblkhd
}

fn clients(endpoint: &str, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let client = |_| {
        let mut client = TcpStream::connect(endpoint).unwrap();
        client.write_all(bytes).unwrap();
        client
    };
    (0..count).map(client).collect()
}

/// A message of up to 16 MiB, after a length of 4 bytes.
const FRAMING: Framing =
    Framing::LengthField { format: LengthFormat::U32Be, offset: 0, adjustment: 0, max: 16 << 20 };

/// V2: a length of 15 MiB reserves no memory, and a byte after a long message does not keep the
/// memory of the message.
fn connection_with_partial_input_uses_the_memory_of_the_input<A: Api>() {
    const COUNT: usize = 64;
    /// The loop keeps some buffers of 64 KiB.
    const SPARE: usize = 2 << 20;
    const EACH: usize = 4 << 10;
    let test = test_name!(A, "connection_with_partial_input_uses_the_memory_of_the_input");
    process::in_process(&test, Duration::from_secs(60), || {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let service = server.serve_events(&[Serve::Framing(FRAMING)], On::default()).unwrap();
        let long = [&(1u32 << 20).to_be_bytes(), &*vec![b'x'; 1 << 20], b"\0"].concat();
        for input in [b"".as_slice(), b"\0\xf0\0\0x", &long] {
            let (before, received) = (allocated(), service.stats().received);
            let clients = clients(&server.endpoint(), COUNT, input);
            eventually("the input is received", || {
                let there = service.stats().received - received;
                there == (COUNT * input.len()) as i64 && service.connections() == COUNT as u32
            });
            // The loop may still move the last bytes.
            let used = || allocated().saturating_sub(before);
            eventually("the memory is that of the input", || used() < COUNT * EACH + SPARE);
            println!("{} bytes of input: {} bytes in use for each", input.len(), used() / COUNT);
            drop(clients);
            eventually("the connections have ended", || service.connections() == 0);
        }
    });
}
