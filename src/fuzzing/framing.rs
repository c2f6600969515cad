//! Streams that are split into messages.

use super::Input;
use super::framing_model::{model, split_pieces};
use crate::types::framing::{Framing, LengthFormat};
use LengthFormat::*;

const FORMATS: [LengthFormat; 11] =
    [U8, U16Be, U16Le, U24Be, U24Le, U32Be, U32Le, U64Be, U64Le, VarintMqtt, VarintProtobuf];

/// A stream of this length, and one more message, fits in the buffer of a Unix socket.
const LONGEST: usize = 40_000;

/// A stream contains the messages, and ends as, a model says that reads the whole stream. The
/// splitter, a socket that the program reads, and a connection of an event loop agree, however the
/// stream is split. The event loop also agrees if the program pauses the connection.
pub fn framing(data: &[u8]) {
    let mut input = Input::new(data);
    let framing = choose(&mut input);
    if framing.validate("test").is_err() {
        return;
    }
    let (how, mut splits) = (input.byte(), Input::new(input.part()));
    let stream = stream(framing, &mut input);
    let expected = model(framing, &stream);
    let pieces = splits.split(&stream);
    assert_eq!(split_pieces(framing, &pieces), expected, "{framing:?} {pieces:?}");
    #[cfg(unix)]
    {
        sockets::read(framing, &pieces, &expected);
        #[cfg(feature = "serve")]
        if how % 4 == 0 {
            sockets::serve(framing, &pieces, &expected, how & 0x80 > 0);
        }
    }
    let _ = how;
}

/// A framing with any values. Most limits are small, so that streams reach them.
fn choose(input: &mut Input) -> Framing {
    let kind = input.byte();
    let format = input.one_of(&FORMATS);
    let mut limit = || match input.byte() {
        n @ 0..=239 => usize::from(n % 80),
        _ => usize::try_from(input.number()).unwrap_or(usize::MAX),
    };
    match kind % 5 {
        0 => Framing::Fixed { len: limit() },
        1 => Framing::Lines { max: limit() },
        2 => Framing::Delimited { delimiter: kind / 5 % 4, max: limit() },
        3 => Framing::Prefixed { format, max: limit() },
        _ => {
            let (offset, max) = (limit(), limit());
            let adjustment = match input.byte() {
                n @ 0..=239 => i32::from(n % 32) - 16,
                _ => i32::from_le_bytes(input.array()),
            };
            Framing::LengthField { format, offset, adjustment, max }
        }
    }
}

/// A stream of messages that are valid in the framing, and of any bytes.
fn stream(framing: Framing, input: &mut Input) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() && stream.len() < LONGEST {
        let op = input.byte();
        if op >= 0xe0 {
            stream.extend_from_slice(input.rest());
        } else if op >= 0xc0 {
            // A long message, which a read returns in several parts.
            add(framing, &vec![7; usize::from(op & 0x1f) * 1000], &mut stream);
        } else {
            add(framing, input.take(usize::from(op % 64)), &mut stream);
        }
    }
    stream
}

/// Appends a message as a sender writes it, or the plain bytes if they are no message.
fn add(framing: Framing, message: &[u8], stream: &mut Vec<u8>) {
    match framing.mark(message) {
        Some((before, after)) => {
            stream.extend_from_slice(before.as_slice());
            stream.extend_from_slice(message);
            stream.extend_from_slice(after.as_slice());
        }
        None => stream.extend_from_slice(message),
    }
}

/// The same stream through sockets.
#[cfg(unix)]
mod sockets {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::Framing;
    use crate::fuzzing::framing_model::{End, Messages};
    use crate::options::SocketOptions;
    use crate::stream::ClientSocket;
    use crate::types::error::ErrorKind;

    fn pair() -> (UnixStream, ClientSocket) {
        let (peer, own) = UnixStream::pair().unwrap();
        let own = ClientSocket::from_owned(OwnedFd::from(own), &SocketOptions::new()).unwrap();
        (peer, own)
    }

    /// A socket that the program reads after each part.
    pub(super) fn read(framing: Framing, pieces: &[&[u8]], expected: &Messages) {
        let (mut peer, socket) = pair();
        socket.set_nonblocking(true).unwrap();
        let mut messages = Vec::new();
        for number in 0..=pieces.len() {
            match pieces.get(number) {
                Some(piece) => peer.write_all(piece).unwrap(),
                None => peer.shutdown(Shutdown::Write).unwrap(),
            }
            let error = loop {
                match socket.read_message(&framing) {
                    Ok(message) => messages.push(message),
                    Err(error) => break error,
                }
            };
            let end = match error.kind() {
                ErrorKind::WouldBlock => continue,
                ErrorKind::TooLong => End::TooLong,
                ErrorKind::Malformed => End::Malformed,
                ErrorKind::EndOfStream if socket.buffered() == 0 => End::Whole,
                ErrorKind::EndOfStream => End::Partial,
                other => panic!("{other:?}: {error}"),
            };
            assert_eq!(&(messages, end), expected, "{framing:?} {pieces:?}");
            return;
        }
        panic!("a read would block after the end of the stream: {framing:?} {pieces:?}");
    }

    /// A connection of an event loop. Each part has arrived before the next one is sent.
    #[cfg(feature = "serve")]
    pub(super) fn serve(framing: Framing, pieces: &[&[u8]], expected: &Messages, pauses: bool) {
        use std::sync::{Arc, Mutex, mpsc};
        use std::time::{Duration, Instant};

        use crate::listener::ServerSocket;
        use crate::serve::{Connection, Handler, ServeOptions};
        use crate::types::close_reason::CloseReason;

        const LIMIT: Duration = Duration::from_secs(20);

        struct Collect {
            messages: Arc<Mutex<Vec<Vec<u8>>>>,
            reason: Mutex<mpsc::Sender<CloseReason>>,
            pauses: bool,
        }

        impl Handler for Collect {
            fn on_data(&self, connection: &Connection, data: &[u8]) {
                self.messages.lock().unwrap().push(data.to_vec());
                if self.pauses {
                    connection.pause();
                    let again = connection.clone();
                    let _ = connection.post(move |_| again.resume());
                }
            }

            fn on_close(&self, _: &Connection, reason: CloseReason) {
                let _ = self.reason.lock().unwrap().send(reason);
            }
        }

        // The service closes its server, so each input has its own.
        let server = ServerSocket::listen("127.0.0.1:0").unwrap();
        let (sender, reason) = mpsc::channel();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let handler =
            Collect { messages: Arc::clone(&messages), reason: Mutex::new(sender), pauses };
        let options = ServeOptions::new().framing(framing);
        let service = server.serve_events(&options, handler).unwrap();
        let (mut peer, own) = pair();
        service.add(own, None).map_err(|(_, error)| error).unwrap();
        let (mut sent, since) = (0, Instant::now());
        let mut ended = None;
        for piece in pieces {
            // The service may have ended the connection.
            if peer.write_all(piece).is_err() {
                break;
            }
            sent += piece.len() as u64;
            while ended.is_none() && service.stats().traffic.unwrap().bytes_received < sent {
                assert!(since.elapsed() < LIMIT, "{framing:?} {pieces:?}");
                ended = reason.try_recv().ok();
                std::thread::yield_now();
            }
        }
        let _ = peer.shutdown(Shutdown::Write);
        let reason = ended.unwrap_or_else(|| {
            reason.recv_timeout(LIMIT).unwrap_or_else(|_| {
                panic!("{framing:?} {pieces:?} {} {:?}", service.dump(), messages.lock())
            })
        });
        let end = match reason {
            CloseReason::MessageTooLong => End::TooLong,
            CloseReason::MessageMalformed => End::Malformed,
            // The service drops an incomplete message at the end of the stream.
            CloseReason::PeerClosed if expected.1 == End::Partial => End::Partial,
            CloseReason::PeerClosed => End::Whole,
            other => panic!("{other:?}: {framing:?} {pieces:?}"),
        };
        let messages = std::mem::take(&mut *messages.lock().unwrap());
        assert_eq!(&(messages, end), expected, "{framing:?} {pieces:?}");
    }
}
