//! Streams that are split into messages.

use super::Input;
use crate::types::framing::{Framing, LengthFormat, Split};
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

/// How a stream ends in a framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Partial,
    TooLong,
    Malformed,
}

pub(crate) type Messages = (Vec<Vec<u8>>, End);

/// The length at the start of `data`, by its definition. `Err(None)`: it is incomplete.
fn model_length(
    format: LengthFormat,
    data: &[u8],
) -> std::result::Result<(u128, usize), Option<End>> {
    let size = match format {
        U8 => 1,
        U16Be | U16Le => 2,
        U24Be | U24Le => 3,
        U32Be | U32Le => 4,
        U64Be | U64Le => 8,
        VarintMqtt | VarintProtobuf => {
            let most = if format == VarintMqtt { 4 } else { 10 };
            let size = data.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            if size > most {
                return Err(Some(End::Malformed));
            }
            if size > data.len() {
                return Err(None);
            }
            let bits = |n: u128, byte: &u8| n * 128 + u128::from(*byte % 128);
            let len = data[..size].iter().rev().fold(0, bits);
            let shortest = (1..=10).find(|n| len < 1 << (7 * n)).unwrap();
            let is_long = format == VarintMqtt && size > shortest;
            if is_long || len > u128::from(u64::MAX) {
                return Err(Some(End::Malformed));
            }
            return Ok((len, size));
        }
    };
    let mut bytes = data.get(..size).ok_or(None)?.to_vec();
    if matches!(format, U16Le | U24Le | U32Le | U64Le) {
        bytes.reverse();
    }
    Ok((bytes.iter().fold(0, |n, byte| n * 256 + u128::from(*byte)), size))
}

/// The messages of a whole stream, by the definition of the framing.
pub(crate) fn model(framing: Framing, mut rest: &[u8]) -> Messages {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let next = match framing {
            Framing::Raw => unreachable!(),
            Framing::Fixed { len } => {
                if len <= rest.len() {
                    Ok((&rest[..len], len))
                } else {
                    Err(End::Partial)
                }
            }
            Framing::Lines { max } | Framing::Delimited { max, .. } => {
                let delimiter = match framing {
                    Framing::Delimited { delimiter, .. } => delimiter,
                    _ => b'\n',
                };
                let at = rest.iter().position(|byte| *byte == delimiter);
                let mut message = &rest[..at.unwrap_or(rest.len())];
                if at.is_some() && matches!(framing, Framing::Lines { .. }) {
                    message = message.strip_suffix(b"\r").unwrap_or(message);
                }
                let len = at.map_or(rest.len(), |at| at + 1);
                if message.len() > max { Err(End::TooLong) } else { Ok((message, len)) }
            }
            Framing::Prefixed { format, max } => match model_length(format, rest) {
                Err(end) => Err(end.unwrap_or(End::Partial)),
                Ok((len, _)) if len > max as u128 => Err(End::TooLong),
                Ok((len, size)) => {
                    // A message may be longer than the address space.
                    let end = size.saturating_add(len as usize);
                    rest.get(size..end).map(|message| (message, end)).ok_or(End::Partial)
                }
            },
            Framing::LengthField { format, offset, adjustment, max } => {
                match model_length(format, rest.get(offset..).unwrap_or_default()) {
                    Err(end) => Err(end.unwrap_or(End::Partial)),
                    Ok((len, size)) => {
                        let body = len as i128 + i128::from(adjustment);
                        let end = (offset + size) as i128 + body;
                        match () {
                            () if body < 0 => Err(End::Malformed),
                            () if end > max as i128 => Err(End::TooLong),
                            () => {
                                let end = end as usize;
                                rest.get(..end).map(|all| (all, end)).ok_or(End::Partial)
                            }
                        }
                    }
                }
            }
        };
        match next {
            Err(end) => return (messages, end),
            Ok((message, len)) => {
                messages.push(message.to_vec());
                rest = &rest[len..];
            }
        }
    }
    (messages, End::Whole)
}

/// The messages of a stream that arrives in pieces.
pub(crate) fn split_pieces(framing: Framing, pieces: &[&[u8]]) -> Messages {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    let mut splitter = framing.splitter().unwrap();
    for number in 0..=pieces.len() {
        let ended = number == pieces.len();
        buffer.extend_from_slice(pieces.get(number).copied().unwrap_or_default());
        loop {
            match splitter.split(&buffer, ended) {
                Split::Message { range, len } => {
                    messages.push(buffer[range].to_vec());
                    buffer.drain(..len);
                    splitter = framing.splitter().unwrap();
                }
                Split::Incomplete => break,
                Split::TooLong => return (messages, End::TooLong),
                Split::Malformed(_) => return (messages, End::Malformed),
            }
        }
    }
    (messages, if buffer.is_empty() { End::Whole } else { End::Partial })
}

/// The same stream through sockets.
#[cfg(unix)]
mod sockets {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::{End, Framing, Messages};
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
        use std::sync::atomic::{AtomicU64, Ordering};
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
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("unix:@keepsock-fuzz-framing-{}-{number}", std::process::id());
        let server = ServerSocket::listen(name).unwrap();
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
