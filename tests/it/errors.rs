//! E1: numbers for programs, sentences for people. E2: an invalid call returns an error and has no
//! other effect. E3: no panic crosses the C boundary.
// The purpose of this file is invalid calls of C functions.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use keepsock::ErrorKind;

/// The pinned numbers (E1), and the errno. A number never changes its meaning and is never reused.
const NUMBERS: [(ErrorKind, i32, &str, i32); 28] = [
    (ErrorKind::InvalidArgument, -1, "invalid argument", ::libc::EINVAL),
    (ErrorKind::InvalidEndpoint, -2, "invalid endpoint", ::libc::EINVAL),
    (ErrorKind::WrongState, -3, "wrong state", ::libc::EINVAL),
    (ErrorKind::Unsupported, -4, "not supported", ::libc::EOPNOTSUPP),
    (ErrorKind::NoMemory, -5, "out of memory", ::libc::ENOMEM),
    (ErrorKind::Panic, -6, "internal error", ::libc::EIO),
    (ErrorKind::Closed, -10, "closed", ::libc::EBADF),
    (ErrorKind::Cancelled, -11, "cancelled", ::libc::ECANCELED),
    (ErrorKind::TimedOut, -12, "timed out", ::libc::ETIMEDOUT),
    (ErrorKind::WouldBlock, -13, "would block", ::libc::EAGAIN),
    (ErrorKind::Draining, -14, "draining", ::libc::ECANCELED),
    (ErrorKind::EndOfStream, -15, "end of stream", ::libc::EPIPE),
    (ErrorKind::TooLong, -16, "longer than the maximum", ::libc::EMSGSIZE),
    (ErrorKind::IdleTimeout, -17, "idle timeout", ::libc::ETIMEDOUT),
    (ErrorKind::HeartbeatTimeout, -18, "heartbeat timeout", ::libc::ETIMEDOUT),
    (ErrorKind::Malformed, -19, "malformed message", ::libc::EBADMSG),
    (ErrorKind::NotFound, -30, "not found", ::libc::ENOENT),
    (ErrorKind::LookupFailed, -31, "name lookup failed", ::libc::EHOSTUNREACH),
    (ErrorKind::Refused, -40, "connection refused", ::libc::ECONNREFUSED),
    (ErrorKind::Unreachable, -41, "unreachable", ::libc::EHOSTUNREACH),
    (ErrorKind::Reset, -42, "connection reset by peer", ::libc::ECONNRESET),
    (ErrorKind::Dead, -43, "peer is dead", ::libc::ETIMEDOUT),
    (ErrorKind::AddressInUse, -44, "address in use", ::libc::EADDRINUSE),
    (ErrorKind::AddressNotAvailable, -45, "address not available", ::libc::EADDRNOTAVAIL),
    (ErrorKind::PermissionDenied, -46, "permission denied", ::libc::EACCES),
    (ErrorKind::NoDescriptors, -47, "out of file descriptors", ::libc::EMFILE),
    (ErrorKind::Stalled, -48, "peer takes no data", ::libc::ETIMEDOUT),
    (ErrorKind::Os, -99, "operating system error", ::libc::EIO),
];

/// E1: the error kinds of Rust have the pinned numbers and texts.
#[test]
fn error_kinds_have_the_pinned_numbers() {
    for (kind, code, text, errno) in NUMBERS {
        assert_eq!((kind.code(), kind.to_string().as_str()), (code, text));
        assert_eq!(kind.errno(), errno, "{kind:?}");
    }
}

mod both {
    use super::*;
    use crate::support::libc;
    use crate::support::{
        Api, Client, Opt, Outcome, Server, TempDir, Token, Transport, fails, pair, refused_address,
    };

    both_apis![
        error_message_is_one_complete_line,
        error_message_quotes_the_system,
        errno_is_that_of_plain_socket_calls,
        error_of_empty_host_depends_on_the_operation,
        error_of_connect_names_the_option,
        error_of_write_after_shutdown_states_the_cause,
        error_of_descriptor_names_the_operation,
    ];

    /// E1: the message has operation, endpoint, stage and reason, on one line.
    fn error_message_is_one_complete_line<A: Api>() {
        let p = pair::<A>(Transport::Tcp);
        let endpoint = p.server.endpoint();
        let listening = fails(A::listen(&endpoint, &[]), ErrorKind::AddressInUse);
        let text = format!(
            "listen {endpoint}: bind: address in use: another socket is bound to it: choose another \
             port, or end the other program"
        );
        assert_eq!(*listening.message, *text);
        assert_eq!((&*listening.operation, listening.endpoint), ("listen", endpoint));
        assert_eq!(&*listening.stage, "bind");
        let text = "connect to \"nonsense\": no port: write host:port";
        let failure = fails(A::connect("nonsense", &[]), ErrorKind::InvalidEndpoint);
        assert_eq!(&*failure.message, text);
        let text = "keepalive: invalid argument: count 0 is not within 1 to 127";
        let failure = fails(p.client.set_keepalive(1000, 1000, 0), ErrorKind::InvalidArgument);
        assert_eq!(&*failure.message, text);
        p.client.close().unwrap();
        let failure = fails(p.client.write_all(b"x"), ErrorKind::Closed);
        assert_eq!(*failure.message, *format!("write {}: closed", p.client.name()));
    }

    /// S4: what to write instead of an empty host depends on the operation.
    fn error_of_empty_host_depends_on_the_operation<A: Api>() {
        let text = "connect to \":80\": empty host: write the name or the address of the peer";
        let failure = fails(A::connect(":80", &[]), ErrorKind::InvalidEndpoint);
        assert_eq!(&*failure.message, text);
        let text = "listen \":80\": empty host: write \"*\" to listen on every address";
        let failure = fails(A::listen(":80", &[]), ErrorKind::InvalidEndpoint);
        assert_eq!(&*failure.message, text);
        #[cfg(feature = "datagram")]
        {
            use crate::support::Datagrams;
            let text = "bind \":80\": empty host: write \"*\" to receive on every address";
            let failure = fails(A::Datagram::bind(":80", &[]), ErrorKind::InvalidEndpoint);
            assert_eq!(&*failure.message, text);
        }
        let failure = fails(A::connect("*:80", &[]), ErrorKind::InvalidEndpoint);
        assert!(
            failure.message.contains("write the name or the address of the peer"),
            "{failure:?}"
        );
    }

    /// C5, E1: the error of a connect contains the option that made it fail, and its value.
    fn error_of_connect_names_the_option<A: Api>() {
        let server = A::listen("127.0.0.1:0", &[]).unwrap();
        let to = server.endpoint();
        let failure = A::connect(&to, &[Opt::Interface("nosuchiface0")]).err().unwrap();
        let part = "(os error 19): interface \"nosuchiface0\"";
        assert!(failure.message.contains(part), "{failure:?}");
        let failure = A::listen("127.0.0.1:0", &[Opt::Interface("nosuchiface0")]).err().unwrap();
        let text =
            "listen 127.0.0.1:0: options: No such device (os error 19): interface \"nosuchiface0\"";
        assert_eq!(&*failure.message, text);
        // A local address that another socket uses, and one that this machine does not have.
        for (local, kind) in
            [(&*to, ErrorKind::AddressInUse), ("192.0.2.1:0", ErrorKind::AddressNotAvailable)]
        {
            let failure = fails(A::connect(&to, &[Opt::Local(local)]), kind);
            let part = format!("connect to {to}: local address \"{local}\": bind: ");
            assert!(failure.message.starts_with(&part), "{failure:?}");
        }
        // The network of 192.0.2.1 cannot be reached from the loopback interface, or the answer
        // does not arrive.
        let options = [Opt::Interface("lo"), Opt::ConnectTimeout(50)];
        let failure = A::connect("192.0.2.1:9", &options).err().unwrap();
        assert!(
            failure.message.starts_with("connect to 192.0.2.1:9: interface \"lo\": "),
            "{failure:?}"
        );
    }

    /// I3, E1: the error of a write after the shutdown says which call caused it.
    fn error_of_write_after_shutdown_states_the_cause<A: Api>() {
        let p = pair::<A>(Transport::Tcp);
        p.client.shutdown_write().unwrap();
        let failure = fails(p.client.write_all(b"x"), ErrorKind::WrongState);
        let cause = "wrong state: shutdown_write was called earlier: write all data before it";
        assert_eq!(*failure.message, *format!("write {}: {cause}", p.client.name()));
    }

    /// E1: the operation of an error is that of the function in both APIs.
    fn error_of_descriptor_names_the_operation<A: Api>() {
        let p = pair::<A>(Transport::Tcp);
        p.server
            .set_accept_timeout(0)
            .err()
            .map(|failure| {
                assert_eq!(&*failure.operation, "accept timeout");
            })
            .unwrap();
        p.server.close();
        p.client.close().unwrap();
        let failure = fails(p.server.fd(), ErrorKind::Closed);
        assert_eq!(*failure.message, *format!("descriptor {}: closed", p.server.endpoint()));
        assert_eq!(&*fails(p.client.fd(), ErrorKind::Closed).operation, "descriptor");
    }

    /// E1: errno is the number that the plain socket call returns, or the one that means the same.
    fn errno_is_that_of_plain_socket_calls<A: Api>() {
        fn errno<T>(outcome: Outcome<T>) -> (i32, i32) {
            let failure = outcome.err().unwrap();
            (failure.errno, failure.lookup_code)
        }
        let p = pair::<A>(Transport::Tcp);
        let refused = refused_address().to_string();
        assert_eq!(errno(A::connect(&refused, &[])), (::libc::ECONNREFUSED, 0));
        assert_eq!(errno(A::listen(&p.server.endpoint(), &[])), (::libc::EADDRINUSE, 0));
        assert_eq!(errno(A::listen("192.0.2.1:0", &[])), (::libc::EADDRNOTAVAIL, 0));
        assert_eq!(errno(A::connect("nonsense", &[])), (::libc::EINVAL, 0));
        let dir = TempDir::new();
        assert_eq!(errno(A::connect(&dir.endpoint("s"), &[])), (::libc::ENOENT, 0));
        let (_, unknown) = errno(A::connect("127.0.0.1:no-such-service", &[]));
        assert_eq!(unknown, libc::EAI_SERVICE);
        assert_ne!(errno(A::listen("127.0.0.1:no-such-service", &[])).1, 0);

        let read = || errno(p.client.read(&mut [0]));
        p.client.set_read_timeout(1).unwrap();
        assert_eq!(read(), (::libc::ETIMEDOUT, 0));
        p.client.set_nonblocking(true).unwrap();
        assert_eq!(read(), (::libc::EAGAIN, 0));
        p.client.set_nonblocking(false).unwrap();
        let token = A::token();
        token.fire();
        p.client.set_cancel(Some(&token));
        assert_eq!(read(), (::libc::ECANCELED, 0));
        p.client.set_cancel(None);
        p.client.shutdown_write().unwrap();
        assert_eq!(errno(p.client.write_all(b"x")), (::libc::EPIPE, 0));
        p.accepted.abort();
        assert_eq!(read(), (::libc::ECONNRESET, 0));
        let _ = p.client.close();
        assert_eq!(read(), (::libc::EBADF, 0));
    }

    /// E1: the error has the system's number and text if they add information.
    fn error_message_quotes_the_system<A: Api>() {
        // On Windows the type of a socket in Rust excludes a file.
        #[cfg(unix)]
        {
            let file = std::fs::File::open("/dev/null").unwrap();
            let (_, failure) = A::adopt_client(file.into(), &[]).err().unwrap();
            assert_eq!((failure.status, failure.os_error), (-99, libc::ENOTSOCK));
            assert!(
                failure.message.contains(&crate::support::system_text(libc::ENOTSOCK)),
                "{failure:?}"
            );
        }
        // A timeout belongs to the library: it has no number of the system.
        let p = pair::<A>(Transport::Tcp);
        p.server.set_accept_timeout(1).unwrap();
        assert_eq!(fails(p.server.accept(), ErrorKind::TimedOut).os_error, 0);
        let options = [Opt::Interface("nosuchiface0")];
        let failure = A::connect(&p.server.endpoint(), &options).err().unwrap();
        assert_eq!(failure.os_error, libc::ENODEV);
        assert!(failure.message.contains("No such device"), "{failure:?}");
    }
}

#[cfg(all(
    feature = "capi",
    feature = "serve",
    feature = "datagram",
    feature = "activation",
    feature = "diag"
))]
mod c_only {
    use crate::support::os::AsRawFd;
    use std::ffi::{CString, c_char, c_void};
    use std::fmt::Debug;
    use std::net::{TcpListener, TcpStream};
    use std::ptr::{null, null_mut};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
    use std::time::Duration;

    use keepsock::ffi::*;
    use keepsock::{Framing, LengthFormat};

    use super::{ErrorKind, NUMBERS};
    use crate::support::capi::framing_to_c;
    use crate::support::libc;
    use crate::support::os::{NO_FD, RawFd};
    use crate::support::{
        Api, CApi, Limit, Opt, Server, TempDir, Transport, pair, process, system,
    };

    const INVALID: i32 = -1;
    const NO_DESCRIPTOR: &str = if cfg!(windows) { "INVALID_SOCKET" } else { "negative" };
    const WRONG_STATE: i32 = -3;
    const TOO_LONG: i32 = -16;
    const NOT_FOUND: i32 = -30;

    type Error = *mut *mut keepsock_error;

    fn text(pointer: *const c_char) -> String {
        assert!(!pointer.is_null());
        unsafe { std::ffi::CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
    }

    /// Makes a call with and without an error argument: both times it returns the status, and the
    /// error's message contains `part`.
    #[track_caller]
    fn gives(status: i32, part: &str, call: impl Fn(Error) -> i32) {
        assert_eq!(call(null_mut()), status, "without an error argument: {part}");
        let mut error = null_mut();
        assert_eq!(call(&raw mut error), status, "{part}");
        assert!(!error.is_null());
        unsafe {
            assert_eq!(keepsock_error_status(error), status);
            let message = text(keepsock_error_message(error));
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
            crate::support::statuses::check(status, &message, std::panic::Location::caller());
            keepsock_error_free(error);
        }
    }

    /// Gives a call a place for its output, and checks that a failing call did not write it.
    #[track_caller]
    fn out<T: Copy + PartialEq + Debug>(before: T, call: impl FnOnce(*mut T) -> i32) -> i32 {
        let mut value = before;
        let status = call(&raw mut value);
        if status != KEEPSOCK_OK {
            assert_eq!(value, before, "an output was written by a call that failed");
        }
        status
    }

    /// A pointer for output handles, which no call may write.
    fn no_handle<T>() -> *mut T {
        std::ptr::without_provenance_mut(0x5a5a_5a50)
    }

    /// E1: C's statuses have the pinned numbers, names and texts.
    #[test]
    fn statuses_have_pinned_names_and_texts() {
        for (kind, code, words, errno) in NUMBERS {
            assert_eq!(text(keepsock_status_str(code)), words);
            assert_eq!(unsafe { keepsock_status_errno(code, null()) }, errno);
            let name = text(keepsock_status_name(code));
            let plain = name.strip_prefix("KEEPSOCK_ERR_").unwrap().replace('_', "");
            assert_eq!(plain.to_lowercase(), format!("{kind:?}").to_lowercase());
        }
        let known = |code| code == 0 || NUMBERS.iter().any(|n| n.1 == code);
        for code in (-200..=10).chain([i32::MIN, i32::MAX]).filter(|c| !known(*c)) {
            assert_eq!(text(keepsock_status_name(code)), "KEEPSOCK_ERR_UNKNOWN");
            assert_eq!(text(keepsock_status_str(code)), "unknown status");
            assert_eq!(unsafe { keepsock_status_errno(code, null()) }, ::libc::EIO);
        }
        assert_eq!(text(keepsock_status_name(KEEPSOCK_OK)), "KEEPSOCK_OK");
        assert_eq!(text(keepsock_status_str(KEEPSOCK_OK)), "ok");
        assert_eq!(unsafe { keepsock_status_errno(KEEPSOCK_OK, null()) }, 0);
        assert_eq!(text(keepsock_version()), env!("CARGO_PKG_VERSION"));
    }

    /// E1: one call prints an error and frees it.
    #[cfg(unix)]
    #[test]
    fn error_print_writes_one_line_and_frees_the_error() {
        use std::io::Read;
        process::in_process(
            &test_name!("error_print_writes_one_line_and_frees_the_error"),
            std::time::Duration::from_secs(20),
            || {
                let dir = TempDir::new();
                let file = std::fs::File::create_new(dir.path("stderr")).unwrap();
                let make = || unsafe {
                    let mut error = null_mut();
                    let status =
                        keepsock_client_connect(c"x".as_ptr(), null(), &mut null_mut(), &mut error);
                    assert_eq!(status, -2);
                    error
                };
                let message = unsafe { text(keepsock_error_message(make())) };
                let before = unsafe { libc::dup(2) };
                assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 2) }, 2);
                let printed = [Some(c"test"), None, Some(c"")].map(|prefix| unsafe {
                    let mut error = make();
                    let freed = error;
                    let prefix = prefix.map_or(null(), |prefix| prefix.as_ptr());
                    keepsock_error_print(prefix, &raw mut error);
                    (error.is_null(), keepsock_error_status(freed))
                });
                unsafe { libc::dup2(before, 2) };
                assert_eq!(printed, [(true, KEEPSOCK_OK); 3]);
                let mut written = String::new();
                std::fs::File::open(dir.path("stderr"))
                    .unwrap()
                    .read_to_string(&mut written)
                    .unwrap();
                assert_eq!(written, format!("test: {message}\n{message}\n{message}\n"));
            },
        );
    }

    /// E2: NULL means no error or no object.
    #[test]
    fn null_object_reads_as_no_value() {
        unsafe {
            assert_eq!(keepsock_error_status(null()), KEEPSOCK_OK);
            assert_eq!(text(keepsock_error_message(null())), "no error");
            assert_eq!(text(keepsock_error_operation(null())), "");
            assert_eq!(text(keepsock_error_stage(null())), "");
            assert_eq!(text(keepsock_error_endpoint(null())), "");
            assert_eq!(keepsock_error_os_error(null()), 0);
            assert_eq!(keepsock_error_lookup_code(null()), 0);
            keepsock_error_print(null(), null_mut());
            let mut none = null_mut();
            keepsock_error_print(c"test".as_ptr(), &raw mut none);
            assert_eq!(keepsock_error_transferred(null()), 0);
            assert_eq!(keepsock_client_buffered(null()), 0);
            gives(INVALID, "client is NULL", |e| {
                out(no_handle(), |c| keepsock_client_ref(null(), c, e))
            });
            assert_eq!(keepsock_client_close_reason(null()), 0);
            assert_eq!(text(keepsock_close_reason_str(77)), "");
            for state in [i32::MIN, -1, 0, 12, i32::MAX] {
                assert_eq!(text(keepsock_tcp_state_str(state)), "UNKNOWN");
            }
            assert_eq!(keepsock_server_port(null()), 0);
            keepsock_cancel_token_fire(null_mut());
            keepsock_cancel_token_reset(null_mut());
            assert!(!keepsock_cancel_token_is_fired(null()));
            keepsock_error_free(null_mut());
            keepsock_cancel_token_free(null_mut());
            keepsock_options_free(null_mut());
            keepsock_client_free(null_mut());
            keepsock_pending_connect_free(null_mut());
            keepsock_server_free(null_mut());
            keepsock_datagram_free(null_mut());
            keepsock_datagram_service_free(null_mut());
            keepsock_serve_options_free(null_mut());
            keepsock_service_free(null_mut());
            keepsock_reconnect_free(null_mut());
            keepsock_activation_free(null_mut());
            assert_eq!(keepsock_log_set(0, None, null_mut(), null_mut()), KEEPSOCK_OK);
            keepsock_capture_free(null_mut());
            keepsock_handshake_free(null_mut());
        }
    }

    unsafe extern "C" fn nothing(_: *mut keepsock_client, _: *mut c_void) {}

    unsafe extern "C" fn not_told(_: i32, _: *const c_char, _: *const c_char, _: *mut c_void) {}

    fn new_options() -> *mut keepsock_options {
        let mut options = null_mut();
        assert_eq!(unsafe { keepsock_options_new(&raw mut options, null_mut()) }, KEEPSOCK_OK);
        options
    }

    fn new_cancel() -> *mut keepsock_cancel_token {
        let mut cancel = null_mut();
        assert_eq!(unsafe { keepsock_cancel_token_new(&raw mut cancel, null_mut()) }, KEEPSOCK_OK);
        cancel
    }

    fn new_serve_options() -> *mut keepsock_serve_options {
        let mut options = null_mut();
        assert_eq!(
            unsafe { keepsock_serve_options_new(&raw mut options, null_mut()) },
            KEEPSOCK_OK
        );
        options
    }

    fn new_server() -> *mut keepsock_server {
        let mut server = null_mut();
        let listen = unsafe {
            keepsock_server_listen(c"127.0.0.1:0".as_ptr(), null(), &raw mut server, null_mut())
        };
        assert_eq!(listen, KEEPSOCK_OK);
        server
    }

    fn endpoint_of(server: *const keepsock_server) -> CString {
        let mut buf = [0; KEEPSOCK_TEXT_SIZE as usize];
        let (at, cap) = (buf.as_mut_ptr(), buf.len());
        let written =
            unsafe { keepsock_server_endpoint(server, 0, at, cap, null_mut(), null_mut()) };
        assert_eq!(written, KEEPSOCK_OK);
        unsafe { std::ffi::CStr::from_ptr(at) }.to_owned()
    }

    fn new_client(server: *mut keepsock_server) -> *mut keepsock_client {
        let mut client = null_mut();
        let endpoint = endpoint_of(server);
        let endpoint = endpoint.as_ptr();
        unsafe {
            assert_eq!(
                keepsock_client_connect(endpoint, null(), &raw mut client, null_mut()),
                KEEPSOCK_OK
            );
        }
        client
    }

    fn new_service(server: *mut keepsock_server) -> *mut keepsock_service {
        let mut service = null_mut();
        let serve = unsafe {
            keepsock_server_serve(
                server,
                null(),
                Some(nothing),
                null_mut(),
                &raw mut service,
                null_mut(),
            )
        };
        assert_eq!(serve, KEEPSOCK_OK);
        service
    }

    /// An address without a listener.
    /// A call that leaves the variable of the object as it is.
    fn reconnect_fails(
        service: *mut keepsock_service,
        reconnect: *mut keepsock_reconnect,
        e: Error,
    ) -> i32 {
        let mut variable = reconnect;
        let status =
            unsafe { keepsock_service_reconnect(service, &raw mut variable, null_mut(), e) };
        assert_eq!(variable, reconnect);
        status
    }

    fn new_reconnect() -> *mut keepsock_reconnect {
        let endpoint = CString::new(crate::support::refused_address().to_string()).unwrap();
        let mut reconnect = null_mut();
        let made = unsafe {
            keepsock_reconnect_new(endpoint.as_ptr(), null(), &raw mut reconnect, null_mut())
        };
        assert_eq!(made, KEEPSOCK_OK);
        reconnect
    }

    /// `None`: this process may not capture.
    fn new_capture(port: u16) -> Option<*mut keepsock_capture> {
        let mut capture = null_mut();
        let status = unsafe { keepsock_capture_new(port, &raw mut capture, null_mut()) };
        if status == ErrorKind::PermissionDenied.code() {
            println!("skipped in part: no CAP_NET_RAW");
            return None;
        }
        if status == ErrorKind::Unsupported.code() && !cfg!(keepsock_linux) {
            println!("skipped in part: captures on Linux only");
            return None;
        }
        assert_eq!(status, KEEPSOCK_OK);
        Some(capture)
    }

    fn new_handshake(
        capture: *mut keepsock_capture,
        client: *mut keepsock_client,
    ) -> *mut keepsock_handshake {
        let mut handshake = null_mut();
        let status = unsafe {
            let mut of: keepsock_five_tuple = std::mem::zeroed();
            let (at, size) = (&raw mut of, size_of_val(&of));
            assert_eq!(keepsock_client_five_tuple(client, at, size, null_mut()), KEEPSOCK_OK);
            keepsock_capture_handshake(capture, at, size, 5000, &raw mut handshake, null_mut())
        };
        assert_eq!(status, KEEPSOCK_OK);
        handshake
    }

    type Call<T> = fn(*mut T, Error) -> i32;

    /// An open descriptor.
    static ZERO: keepsock_fd = 0;

    /// Messages with a length of one and of two bytes.
    static U8: keepsock_framing =
        framing_to_c(&Framing::Prefixed { format: LengthFormat::U8, max: 64 });
    static U16: keepsock_framing =
        framing_to_c(&Framing::Prefixed { format: LengthFormat::U16Be, max: 64 });

    /// Each function of a connection, with otherwise valid arguments.
    fn client_calls() -> Vec<Call<keepsock_client>> {
        fn buf() -> *mut c_void {
            // A call that writes it must find memory, in each thread of its own.
            thread_local!(static BUF: std::cell::UnsafeCell<[u8; 64]> = const { std::cell::UnsafeCell::new([0; 64]) });
            BUF.with(|buf| buf.get().cast())
        }
        unsafe {
            vec![
                |c, e| out(77usize, |n| keepsock_client_read(c, buf(), 64, n, e)),
                |c, e| out(77usize, |n| keepsock_client_peek(c, buf(), 64, n, e)),
                |c, e| keepsock_client_read_exact(c, buf(), 64, e),
                |c, e| {
                    let buffer = keepsock_buffer { buf: buf(), cap: 64 };
                    out(77usize, |n| keepsock_client_read_slices(c, &raw const buffer, 1, n, e))
                },
                |c, e| out(77usize, |n| keepsock_client_read_until(c, b';', buf(), 64, n, e)),
                |c, e| out(77usize, |n| keepsock_client_read_line(c, buf().cast(), 64, n, e)),
                |c, e| out(77usize, |n| keepsock_client_write(c, buf(), 64, n, e)),
                |c, e| keepsock_client_write_all(c, buf(), 64, e),
                |c, e| {
                    out(77usize, |n| {
                        keepsock_client_read_message(c, &raw const U16, buf(), 64, n, e)
                    })
                },
                |c, e| keepsock_client_write_message(c, &raw const U16, buf(), 64, e),
                |c, e| keepsock_client_write_str(c, c"x".as_ptr(), e),
                |c, e| {
                    let slice = keepsock_slice { buf: buf(), len: 64 };
                    keepsock_client_write_slices(c, &raw const slice, 1, e)
                },
                |c, e| {
                    out(77usize, |n| {
                        keepsock_client_send_fds(c, buf(), 64, &raw const ZERO, 1, n, e)
                    })
                },
                |c, e| {
                    let mut fds = [NO_FD; 2];
                    let status = out(77usize, |n| {
                        let (mut count, mut lost) = (78, false);
                        let (fds, counted) = (fds.as_mut_ptr(), &raw mut count);
                        let lost_ = &raw mut lost;
                        let s =
                            keepsock_client_recv_fds(c, buf(), 64, fds, 2, n, counted, lost_, e);
                        assert_eq!((count, lost), (78, false));
                        s
                    });
                    assert_eq!(fds, [NO_FD; 2]);
                    status
                },
                |c, e| out(77u64, |n| keepsock_client_send_file(c, 0, 0, 1, n, e)),
                |c, e| {
                    out([0x5au8; 16], |p| {
                        let size = size_of::<keepsock_credentials>();
                        keepsock_client_peer_credentials(c, p.cast(), size, e)
                    })
                },
                |c, e| out(77, |how| keepsock_client_wait_hangup(c, 0, how, e)),
                |c, e| keepsock_client_shutdown_write(c, e),
                |c, e| keepsock_client_close(c, e),
                |c, e| keepsock_client_abort(c, e),
                |c, e| keepsock_client_set_sockopt(c, 14, 0, e),
                |c, e| out(77, |value| keepsock_client_sockopt(c, 14, value, e)),
                |c, e| keepsock_client_set_keepalive(c, 1000, 1000, 1, e),
                |c, e| keepsock_client_set_keepalive(c, KEEPSOCK_INFINITE, 0, 0, e),
                |c, e| {
                    out([0x5au8; 64], |k| {
                        keepsock_client_keepalive(c, k.cast(), size_of::<keepsock_keepalive>(), e)
                    })
                },
                |c, e| keepsock_client_set_read_timeout(c, 1000, e),
                |c, e| keepsock_client_set_write_timeout(c, 1000, e),
                |c, e| keepsock_client_set_close_timeout(c, 1000, e),
                |c, e| keepsock_client_set_dead_after(c, 2000, e),
                |c, e| keepsock_client_set_idle_timeout(c, 2000, e),
                |c, e| keepsock_client_set_heartbeat(c, 2000, c"?".as_ptr().cast(), 1, e),
                |c, e| keepsock_client_set_heartbeat_timeout(c, KEEPSOCK_INFINITE, e),
                |c, e| keepsock_client_set_nonblocking(c, true, e),
                |c, e| keepsock_client_set_cancel(c, null(), e),
                |c, e| {
                    out([0x5au8; 2048], |t| {
                        keepsock_client_five_tuple(c, t.cast(), size_of::<keepsock_five_tuple>(), e)
                    })
                },
                |c, e| out(77, |next| keepsock_client_check_liveness(c, next, e)),
                |c, e| keepsock_client_read_proxy_header(c, e),
                |c, e| {
                    out([0x5au8; 512], |s| {
                        keepsock_client_get_stats(
                            c,
                            s.cast(),
                            size_of::<keepsock_connection_stats>(),
                            e,
                        )
                    })
                },
                |c, e| out(77, |fd| keepsock_client_fd(c, fd, e)),
                |c, e| out(77, |fd| keepsock_client_release_fd(c, fd, e)),
                |c, e| {
                    out([0x5au8; 1024], |s| {
                        keepsock_client_saved_syn(c, s.cast(), size_of::<keepsock_segment>(), e)
                    })
                },
            ]
        }
    }

    fn capture_calls() -> Vec<Call<keepsock_capture>> {
        unsafe {
            vec![|c, e| {
                let of: keepsock_five_tuple = std::mem::zeroed();
                let size = size_of_val(&of);
                out(no_handle(), |h| keepsock_capture_handshake(c, &raw const of, size, 0, h, e))
            }]
        }
    }

    fn handshake_calls() -> Vec<Call<keepsock_handshake>> {
        unsafe {
            vec![
                |h, e| {
                    out([0x5au8; 1024], |s| {
                        let size = size_of::<keepsock_segment>();
                        keepsock_handshake_segment(h, 0, s.cast(), size, e)
                    })
                },
                |h, e| out(77, |size| keepsock_handshake_diagram(h, null_mut(), 0, size, e)),
            ]
        }
    }

    fn server_calls() -> Vec<Call<keepsock_server>> {
        unsafe {
            vec![
                |s, e| out(no_handle(), |c| keepsock_server_accept(s, c, e)),
                |s, e| {
                    out([0x5au8; 64], |n| {
                        keepsock_server_get_stats(
                            s,
                            n.cast(),
                            size_of::<keepsock_server_stats>(),
                            e,
                        )
                    })
                },
                |s, e| keepsock_server_set_accept_timeout(s, 1000, e),
                |s, e| keepsock_server_set_nonblocking(s, true, e),
                |s, e| keepsock_server_set_cancel(s, null(), e),
                |s, e| out(77, |fd| keepsock_server_fd(s, 0, fd, e)),
                |s, e| out(77, |size| keepsock_server_endpoint(s, 0, null_mut(), 0, size, e)),
                |s, e| out(77, |fd| keepsock_server_release_fd(s, fd, e)),
                |s, e| keepsock_server_close(s, e),
                |s, e| {
                    out(no_handle(), |service| {
                        keepsock_server_serve(s, null(), Some(nothing), null_mut(), service, e)
                    })
                },
            ]
        }
    }

    fn new_datagram() -> *mut keepsock_datagram {
        let mut datagram = null_mut();
        let bound = unsafe {
            keepsock_datagram_bind(c"127.0.0.1:0".as_ptr(), null(), &raw mut datagram, null_mut())
        };
        assert_eq!(bound, KEEPSOCK_OK);
        datagram
    }

    /// A valid address without a peer.
    fn somebody() -> keepsock_address {
        let mut address: keepsock_address = unsafe { std::mem::zeroed() };
        (address.family, address.port, address.ip[0], address.ip[3]) = (4, 9, 127, 1);
        address
    }

    fn group() -> keepsock_address {
        let mut group = somebody();
        (group.ip[0], group.ip[1]) = (239, 83);
        group
    }

    fn outgoing(buf: *const c_void, len: usize) -> keepsock_send_item {
        keepsock_send_item { buf, len, to: somebody(), ..unsafe { std::mem::zeroed() } }
    }

    /// Each function of a datagram socket, with otherwise valid arguments.
    fn datagram_calls() -> Vec<Call<keepsock_datagram>> {
        unsafe {
            vec![
                |d, e| keepsock_datagram_send(d, b"x".as_ptr().cast(), 1, e),
                |d, e| keepsock_datagram_send_fds(d, null(), null(), 0, null(), 0, e),
                |d, e| {
                    out([0x5au8; 256], |i| {
                        let size = size_of::<keepsock_datagram_info>();
                        let (none, no_fds, cut) = (null_mut(), null_mut(), null_mut());
                        let count = &mut 0;
                        keepsock_datagram_recv_fds(
                            d,
                            none,
                            0,
                            no_fds,
                            0,
                            i.cast(),
                            size,
                            count,
                            cut,
                            e,
                        )
                    })
                },
                |d, e| {
                    let to = c"127.0.0.1:9".as_ptr();
                    keepsock_datagram_send_to(d, to, b"x".as_ptr().cast(), 1, e)
                },
                |d, e| {
                    let mut reply_to: keepsock_datagram_info = std::mem::zeroed();
                    reply_to.from = somebody();
                    let reply_to = &raw const reply_to;
                    keepsock_datagram_reply(d, reply_to, b"x".as_ptr().cast(), 1, e)
                },
                |d, e| {
                    out([0x5au8; 256], |i| {
                        let size = size_of::<keepsock_datagram_info>();
                        keepsock_datagram_recv(d, null_mut(), 0, i.cast(), size, e)
                    })
                },
                |d, e| {
                    out([0x5au8; 256], |i| {
                        let size = size_of::<keepsock_datagram_info>();
                        keepsock_datagram_peek(d, null_mut(), 0, i.cast(), size, e)
                    })
                },
                |d, e| {
                    let one = outgoing(b"x".as_ptr().cast(), 1);
                    let (one, size) = (&raw const one, size_of_val(&one));
                    out(77usize, |n| keepsock_datagram_send_batch(d, one, 1, size, n, e))
                },
                |d, e| {
                    out([0x5au8; 256], |b| {
                        let size = size_of::<keepsock_recv_item>();
                        keepsock_datagram_recv_batch(d, b.cast(), 1, size, &mut 0, e)
                    })
                },
                |d, e| keepsock_datagram_set_broadcast(d, true, e),
                |d, e| {
                    let group = group();
                    keepsock_datagram_join_multicast(d, &raw const group, c"lo".as_ptr(), null(), e)
                },
                |d, e| {
                    let group = group();
                    keepsock_datagram_leave_multicast(
                        d,
                        &raw const group,
                        c"lo".as_ptr(),
                        null(),
                        e,
                    )
                },
                |d, e| keepsock_datagram_set_multicast_loop(d, true, e),
                |d, e| keepsock_datagram_set_multicast_ttl(d, 1, e),
                |d, e| keepsock_datagram_set_multicast_interface(d, c"lo".as_ptr(), e),
                |d, e| keepsock_datagram_set_recv_errors(d, true, e),
                |d, e| keepsock_datagram_set_fail_on_refused(d, true, e),
                |d, e| {
                    let peer = group();
                    keepsock_datagram_set_peer(d, &raw const peer, e)
                },
                |d, e| keepsock_datagram_set_peer_endpoint(d, c"127.0.0.1:1".as_ptr(), e),
                |d, e| keepsock_datagram_set_ttl(d, 1, e),
                |d, e| keepsock_datagram_set_tos(d, 1, e),
                |d, e| keepsock_datagram_set_dont_fragment(d, true, e),
                |d, e| keepsock_datagram_set_sockopt(d, 2, 4096, e),
                |d, e| out(77, |value| keepsock_datagram_sockopt(d, 2, value, e)),
                |d, e| keepsock_datagram_set_recv_metadata(d, true, e),
                |d, e| {
                    out([0x5au8; 256], |o| {
                        let size = size_of::<keepsock_datagram_stats>();
                        keepsock_datagram_get_stats(d, o.cast(), size, e)
                    })
                },
                |d, e| {
                    out(no_handle(), |s| {
                        let handler = Some(on_datagram as _);
                        keepsock_datagram_serve(d, null(), handler, null_mut(), s, e)
                    })
                },
                |d, e| out(77, |size| keepsock_datagram_endpoint(d, null_mut(), 0, size, e)),
                |d, e| {
                    out([0x5au8; 256], |o| {
                        let size = size_of::<keepsock_datagram_error>();
                        keepsock_datagram_recv_error(d, o.cast(), size, e)
                    })
                },
                |d, e| {
                    out([0x5au8; 2048], |t| {
                        let size = size_of::<keepsock_five_tuple>();
                        keepsock_datagram_five_tuple(d, t.cast(), size, e)
                    })
                },
                |d, e| keepsock_datagram_set_read_timeout(d, 1000, e),
                |d, e| keepsock_datagram_set_write_timeout(d, 1000, e),
                |d, e| keepsock_datagram_set_nonblocking(d, true, e),
                |d, e| keepsock_datagram_set_cancel(d, null(), e),
                |d, e| out(77, |fd| keepsock_datagram_fd(d, fd, e)),
                |d, e| out(77, |fd| keepsock_datagram_release_fd(d, fd, e)),
                |d, e| keepsock_datagram_close(d, e),
            ]
        }
    }

    unsafe extern "C" fn on_datagram(
        _: *mut keepsock_datagram,
        _: *const keepsock_datagram_info,
        _: *const c_void,
        _: usize,
        _: *mut c_void,
    ) {
    }

    fn new_datagram_service() -> *mut keepsock_datagram_service {
        // The socket is leaked, because it must outlive the service.
        let mut service = null_mut();
        let status = unsafe {
            let (datagram, at) = (new_datagram(), &raw mut service);
            keepsock_datagram_serve(datagram, null(), Some(on_datagram), null_mut(), at, null_mut())
        };
        assert_eq!(status, KEEPSOCK_OK);
        service
    }

    fn datagram_service_calls() -> Vec<Call<keepsock_datagram_service>> {
        unsafe {
            vec![
                |s, e| keepsock_datagram_service_stop(s, e),
                |s, e| keepsock_datagram_service_wait(s, 1000, e),
                |s, e| keepsock_datagram_service_add(s, null_mut(), e),
            ]
        }
    }

    /// E2: invalid arguments of a datagram socket's functions.
    #[test]
    fn datagram_calls_with_invalid_arguments_fail() {
        let _limit = Limit::new("datagram_calls_with_invalid_arguments_fail");
        let datagram = new_datagram();
        let endpoint = c"127.0.0.1:0".as_ptr();
        let data: *const c_void = b"x".as_ptr().cast();
        let (to, mut none, mut odd) = (somebody(), somebody(), somebody());
        (none.family, odd.family) = (0, 5);
        unsafe {
            for make in [keepsock_datagram_bind, keepsock_datagram_connect] {
                gives(INVALID, "endpoint is NULL", |e| {
                    out(no_handle(), |d| make(null(), null(), d, e))
                });
                gives(INVALID, "datagram is NULL", |e| make(endpoint, null(), null_mut(), e));
                let freed = new_options();
                keepsock_options_free(freed);
                gives(WRONG_STATE, "options is a freed object", |e| {
                    out(no_handle(), |d| make(endpoint, freed, d, e))
                });
            }
            gives(INVALID, &format!("fd is {NO_DESCRIPTOR}"), |e| {
                out(no_handle(), |d| keepsock_datagram_from_fd(NO_FD, null(), d, e))
            });
            gives(INVALID, &format!("a descriptor of the array is {NO_DESCRIPTOR}"), |e| {
                let (fd, byte) = (NO_FD, 0u8);
                let bytes = (&raw const byte).cast();
                keepsock_datagram_send_fds(datagram, null(), bytes, 1, &raw const fd, 1, e)
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_datagram_from_fd(0, null(), null_mut(), e)
            });
            let there = c"127.0.0.1:9".as_ptr();
            gives(INVALID, "buf is NULL", |e| {
                keepsock_datagram_send_to(datagram, there, null(), 1, e)
            });
            gives(INVALID, "longer than any buffer", |e| {
                keepsock_datagram_send_to(datagram, there, data, usize::MAX, e)
            });
            gives(INVALID, "reply_to is NULL", |e| {
                keepsock_datagram_reply(datagram, null(), data, 1, e)
            });
            let nobody: keepsock_datagram_info = std::mem::zeroed();
            gives(INVALID, "reply_to has no address", |e| {
                keepsock_datagram_reply(datagram, &raw const nobody, data, 1, e)
            });
            let size = size_of::<keepsock_datagram_info>();
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_recv(datagram, null_mut(), 0, null_mut(), size, e)
            });
            gives(INVALID, "but the structure has", |e| {
                out([0x5au8; 256], |i| {
                    keepsock_datagram_recv(datagram, null_mut(), 0, i.cast(), size - 1, e)
                })
            });
            gives(INVALID, "buf is NULL", |e| {
                out([0x5au8; 256], |i| {
                    keepsock_datagram_recv(datagram, null_mut(), 1, i.cast(), size, e)
                })
            });
            let group = group();
            let (at, lo) = (&raw const group, c"lo".as_ptr());
            for member in [keepsock_datagram_join_multicast, keepsock_datagram_leave_multicast] {
                gives(INVALID, "group is NULL", |e| member(datagram, null(), lo, null(), e));
                gives(INVALID, "group has no address", |e| {
                    member(datagram, &raw const none, lo, null(), e)
                });
                gives(INVALID, "source has no address", |e| {
                    member(datagram, at, lo, &raw const none, e)
                });
                gives(INVALID, "is not UTF-8", |e| {
                    member(datagram, at, c"\xff".as_ptr(), null(), e)
                });
            }
            gives(INVALID, "interface_name is NULL", |e| {
                keepsock_datagram_set_multicast_interface(datagram, null(), e)
            });
            let (good, bad) = (outgoing(data, 1), outgoing(null(), 1));
            let [unknown, unix, reserved] = [5, 1, 0].map(|family| {
                let mut item = good;
                item.to.family = family;
                item.reserved = u32::from(family == 0);
                item
            });
            let size = size_of::<keepsock_send_item>();
            for (items, count, size, part) in [
                (null(), 1, size, "items is NULL"),
                (&raw const bad, 1, size, "buf is NULL"),
                (&raw const good, usize::MAX, size, "items cannot have"),
                (&raw const good, 1, size - 1, "but the structure has"),
                (&raw const good, 1, size + 1, "but the structure has"),
                (&raw const unknown, 1, size, "the address has family 5"),
                (&raw const unix, 1, size, "pass it as an endpoint"),
                (&raw const reserved, 1, size, "reserved is not 0"),
            ] {
                gives(INVALID, part, |e| {
                    out(77usize, |n| {
                        keepsock_datagram_send_batch(datagram, items, count, size, n, e)
                    })
                });
            }
            let mut one: keepsock_recv_item = std::mem::zeroed();
            let items = &raw mut one;
            let size = size_of::<keepsock_recv_item>();
            for (items, count, size, part) in [
                (null_mut(), 1, size, "items is NULL"),
                (items, 1, size - 1, "but the structure has"),
                (items, 1, size + 1, "but the structure has"),
                (items, usize::MAX, size, "items cannot have"),
            ] {
                gives(INVALID, part, |e| {
                    out(77usize, |n| {
                        keepsock_datagram_recv_batch(datagram, items, count, size, n, e)
                    })
                });
            }
            (*items).cap = 1;
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_datagram_recv_batch(datagram, items, 1, size, n, e))
            });
            let size = size_of::<keepsock_datagram_error>();
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_recv_error(datagram, null_mut(), size, e)
            });
            gives(INVALID, "but the structure has", |e| {
                out([0x5au8; 256], |o| {
                    keepsock_datagram_recv_error(datagram, o.cast(), size - 1, e)
                })
            });
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_five_tuple(datagram, null_mut(), 512, e)
            });
            gives(INVALID, "fd is NULL", |e| keepsock_datagram_fd(datagram, null_mut(), e));
            gives(INVALID, "fd is NULL", |e| keepsock_datagram_release_fd(datagram, null_mut(), e));
            for ms in [0, -2, i64::MIN] {
                gives(INVALID, "", |e| keepsock_datagram_set_read_timeout(datagram, ms, e));
                gives(INVALID, "", |e| keepsock_datagram_set_write_timeout(datagram, ms, e));
            }
            gives(INVALID, "endpoint is NULL", |e| {
                out([0x5au8; 24], |a| keepsock_address_parse(null(), a.cast(), e))
            });
            gives(INVALID, "address is NULL", |e| keepsock_address_parse(endpoint, null_mut(), e));
            gives(-2, "not a numeric address", |e| {
                out([0x5au8; 24], |a| keepsock_address_parse(c"localhost:80".as_ptr(), a.cast(), e))
            });
            gives(INVALID, "endpoint is NULL", |e| {
                keepsock_datagram_send_to(datagram, null(), data, 1, e)
            });
            gives(-2, "not a numeric address", |e| {
                let named = c"localhost:9".as_ptr();
                keepsock_datagram_send_to(datagram, named, data, 1, e)
            });
            let mut unix: keepsock_datagram_info = std::mem::zeroed();
            (unix.from.family, unix.unix_name_len) = (1, 109);
            gives(INVALID, "unix_name_len is above 108", |e| {
                keepsock_datagram_reply(datagram, &raw const unix, data, 1, e)
            });
            unix.unix_name_len = 5;
            gives(INVALID, "the socket is of another address family", |e| {
                keepsock_datagram_reply(datagram, &raw const unix, data, 1, e)
            });
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_get_stats(datagram, null_mut(), 512, e)
            });
            gives(INVALID, "TTL must be greater than zero", |e| {
                keepsock_datagram_set_ttl(datagram, 0, e)
            });
            let serve_options = new_serve_options();
            let serve = |handler, service, e| {
                keepsock_datagram_serve(datagram, serve_options, handler, null_mut(), service, e)
            };
            gives(INVALID, "service is NULL", |e| serve(Some(on_datagram), null_mut(), e));
            gives(INVALID, "handler is NULL", |e| out(no_handle(), |s| serve(None, s, e)));
            let set = keepsock_serve_options_set_threads(serve_options, 1025, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            gives(INVALID, "threads 1,025 is not within 1 to 1,024", |e| {
                out(no_handle(), |s| serve(Some(on_datagram), s, e))
            });
            let set = keepsock_serve_options_set_threads(serve_options, 1, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            let mut service = null_mut();
            assert_eq!(serve(Some(on_datagram), &raw mut service, null_mut()), KEEPSOCK_OK);
            keepsock_serve_options_free(serve_options);
            for ms in [-2, i64::MIN] {
                gives(INVALID, "", |e| keepsock_datagram_service_wait(service, ms, e));
            }
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_datagram_service_add(service, null_mut(), e)
            });
            keepsock_datagram_service_free(service);
            let mut text = [0 as c_char; 64];
            let (buf, cap) = (text.as_mut_ptr(), text.len());
            gives(INVALID, "address is NULL", |e| {
                keepsock_address_text(null(), buf, cap, null_mut(), e)
            });
            gives(INVALID, "no address", |e| {
                keepsock_address_text(&raw const none, buf, cap, null_mut(), e)
            });
            gives(INVALID, "family 5", |e| {
                keepsock_address_text(&raw const odd, buf, cap, null_mut(), e)
            });
            let mut needed = 0;
            let at = &raw mut needed;
            gives(ErrorKind::TooLong.code(), "the text needs 12 bytes, and cap is 11", |e| {
                keepsock_address_text(&raw const to, buf, 11, at, e)
            });
            assert_eq!(needed, 12);
            let mut info: keepsock_datagram_info = std::mem::zeroed();
            gives(INVALID, "info is NULL", |e| {
                keepsock_datagram_info_sender(null(), buf, cap, null_mut(), e)
            });
            gives(INVALID, "info has no address", |e| {
                keepsock_datagram_info_sender(&raw const info, buf, cap, null_mut(), e)
            });
            info.from = to;
            gives(ErrorKind::TooLong.code(), "the text needs 12 bytes, and cap is 11", |e| {
                keepsock_datagram_info_sender(&raw const info, buf, 11, at, e)
            });
            (info.from.family, info.unix_name_len) = (1, 109);
            gives(INVALID, "unix_name_len is above 108", |e| {
                keepsock_datagram_info_sender(&raw const info, buf, cap, null_mut(), e)
            });
            keepsock_datagram_free(datagram);
        }
    }

    fn options_calls() -> Vec<Call<keepsock_options>> {
        unsafe {
            vec![
                |o, e| keepsock_options_set_keepalive(o, 1000, 1000, 1, e),
                |o, e| keepsock_options_set_keepalive(o, KEEPSOCK_INFINITE, 0, 0, e),
                |o, e| keepsock_options_set_nodelay(o, true, e),
                |o, e| keepsock_options_set_connect_timeout(o, 1000, e),
                |o, e| keepsock_options_set_read_timeout(o, 1000, e),
                |o, e| keepsock_options_set_write_timeout(o, 1000, e),
                |o, e| keepsock_options_set_close_timeout(o, 1000, e),
                |o, e| keepsock_options_set_family(o, 4, e),
                |o, e| keepsock_options_set_preferred_family(o, 0, e),
                |o, e| keepsock_options_set_sockopt(o, 1, 30_000, e),
                |o, e| keepsock_options_set_congestion_control(o, c"reno".as_ptr(), e),
                |o, e| keepsock_options_set_raw_sockopt(o, 1, 47, [0u8; 4].as_ptr().cast(), 4, e),
                |o, e| keepsock_options_set_local_endpoint(o, c"127.0.0.1:0".as_ptr(), e),
                |o, e| keepsock_options_set_interface(o, c"lo".as_ptr(), e),
                |o, e| keepsock_options_add_remote_address(o, c"127.0.0.1:1".as_ptr(), e),
                |o, e| keepsock_options_set_backlog(o, 1, e),
                |o, e| keepsock_options_set_fast_open(o, true, e),
                |o, e| keepsock_options_set_mptcp(o, false, e),
                |o, e| keepsock_options_set_unix_mode(o, 0o600, e),
                |o, e| keepsock_options_set_unix_owner(o, -1, 0, e),
                |o, e| keepsock_options_add_allowed_uid(o, 0, e),
                |o, e| keepsock_options_set_seqpacket(o, true, e),
                |o, e| keepsock_options_set_attempt_delay(o, 100, e),
                |o, e| keepsock_options_set_dead_after(o, 2000, e),
                |o, e| keepsock_options_set_fail_on_stall(o, false, e),
                |o, e| keepsock_options_set_middlebox_timeout(o, 2000, e),
                |o, e| keepsock_options_set_heartbeat(o, 1000, b"x".as_ptr().cast(), 1, e),
                |o, e| keepsock_options_set_heartbeat_timeout(o, 2000, e),
                |o, e| keepsock_options_set_idle_timeout(o, 2000, e),
                |o, e| keepsock_options_set_idle_receive_only(o, false, e),
                |o, e| keepsock_options_set_first_byte_timeout(o, 2000, e),
                |o, e| keepsock_options_set_keep_stats(o, true, e),
                |o, e| keepsock_options_set_save_syn(o, true, e),
                |o, e| keepsock_options_set_udp_gro(o, true, e),
                |o, e| keepsock_options_set_handover(o, true, e),
                |o, e| keepsock_options_set_proxy_header(o, 1, null(), null(), e),
                |o, e| keepsock_options_add_trusted_proxy(o, c"127.0.0.1".as_ptr(), e),
                |o, e| keepsock_options_set_proxy_timeout(o, 1000, e),
                |o, e| {
                    let cancel = new_cancel();
                    let status = keepsock_options_set_cancel(o, cancel, e);
                    keepsock_cancel_token_free(cancel);
                    status
                },
            ]
        }
    }

    fn connecting_calls() -> Vec<Call<keepsock_pending_connect>> {
        unsafe {
            vec![
                |c, e| out(no_handle(), |client| keepsock_pending_connect_wait(c, client, e)),
                |c, e| out(no_handle(), |client| keepsock_pending_connect_finish(c, client, e)),
                |c, e| out(77, |fd| keepsock_pending_connect_fd(c, fd, e)),
                |c, e| out(77, |fd| keepsock_pending_connect_socket(c, fd, e)),
                |c, e| keepsock_pending_connect_set_watch(c, None, None, null_mut(), e),
                |c, e| out(77, |ms| keepsock_pending_connect_next_timeout(c, ms, e)),
                |c, e| {
                    out([0x5au8; 512], |a| {
                        keepsock_pending_connect_attempt(
                            c,
                            0,
                            a.cast(),
                            size_of::<keepsock_attempt>(),
                            e,
                        )
                    })
                },
            ]
        }
    }

    fn new_connecting() -> *mut keepsock_pending_connect {
        let mut connecting = null_mut();
        let endpoint = crate::support::refused_address().to_string();
        let endpoint = CString::new(endpoint).unwrap();
        let started = unsafe {
            keepsock_pending_connect_start(
                endpoint.as_ptr(),
                null(),
                &raw mut connecting,
                null_mut(),
            )
        };
        assert_eq!(started, KEEPSOCK_OK);
        connecting
    }

    fn serve_options_calls() -> Vec<Call<keepsock_serve_options>> {
        unsafe {
            vec![
                |o, e| keepsock_serve_options_set_max_connections(o, 1, e),
                |o, e| keepsock_serve_options_set_accept_policy(o, 1, e),
                |o, e| keepsock_serve_options_set_max_per_address(o, 1, e),
                |o, e| keepsock_serve_options_add_allowed_network(o, c"127.0.0.0/8".as_ptr(), e),
                |o, e| keepsock_serve_options_add_denied_network(o, c"::1".as_ptr(), e),
                |o, e| keepsock_serve_options_set_threads(o, 1, e),
                |o, e| keepsock_serve_options_set_stack_size(o, 1 << 20, e),
                |o, e| keepsock_serve_options_set_cpus(o, null(), 0, e),
                |o, e| keepsock_serve_options_set_framing(o, &raw const U16, e),
                |o, e| keepsock_serve_options_set_queue_limit(o, 10, e),
                |o, e| keepsock_serve_options_set_overflow_policy(o, 0, e),
                |o, e| keepsock_serve_options_set_stack_size(o, 1 << 20, e),
            ]
        }
    }

    fn service_calls() -> Vec<Call<keepsock_service>> {
        unsafe {
            vec![
                |s, e| {
                    let (mut sent, mut reset, mut dropped) = (7, 7, 7);
                    let (n, r, d) = (&raw mut sent, &raw mut reset, &raw mut dropped);
                    let x = b"x".as_ptr().cast();
                    let status =
                        keepsock_service_broadcast(s, null(), x, 1, n, r, d, null_mut(), e);
                    let g = c"group".as_ptr();
                    let to_group =
                        keepsock_service_broadcast(s, g, x, 1, n, r, d, null_mut(), null_mut());
                    assert_eq!(to_group, status);
                    assert_eq!((sent, reset, dropped), (7, 7, 7));
                    status
                },
                |s, e| {
                    let none = keepsock_conn { id: 77 };
                    out(none, |conn| keepsock_service_add(s, null_mut(), null_mut(), conn, e))
                },
                |s, e| keepsock_service_reconnect(s, null_mut(), null_mut(), e),
                |s, e| keepsock_service_post(s, None, null_mut(), e),
                |s, e| keepsock_service_for_each(s, None, null_mut(), e),
                |s, e| keepsock_service_add_timer(s, 0, 0, None, null_mut(), null_mut(), e),
                |s, e| keepsock_service_remove_timer(s, 1, e),
                |s, e| keepsock_service_connect(s, c"127.0.0.1:1".as_ptr(), null(), null_mut(), e),
                |s, e| {
                    let mut stats: keepsock_service_stats = std::mem::zeroed();
                    stats.opened = 7;
                    let size = size_of_val(&stats);
                    let status = keepsock_service_get_stats(s, &raw mut stats, size, e);
                    assert_eq!(stats.opened, 7);
                    status
                },
                |s, e| out(77, |needed| keepsock_service_dump(s, null_mut(), 0, needed, e)),
                |s, e| keepsock_service_pause_accept(s, e),
                |s, e| keepsock_service_resume_accept(s, e),
                |s, e| keepsock_service_stop(s, e),
                |s, e| keepsock_service_wait(s, 0, e),
                |s, e| keepsock_service_wait_stopped(s, 0, e),
                |s, e| {
                    out(77, |completed| {
                        out(77, |reset| keepsock_service_drain(s, 0, completed, reset, e))
                    })
                },
            ]
        }
    }

    fn reconnect_calls() -> Vec<Call<keepsock_reconnect>> {
        unsafe {
            vec![
                |r, e| keepsock_reconnect_set_backoff(r, 10, 1000, e),
                |r, e| keepsock_reconnect_set_timeout(r, 1000, e),
                |r, e| keepsock_reconnect_set_on_retry(r, None, null_mut(), e),
                |r, e| keepsock_reconnect_reset(r, e),
                |r, e| out(no_handle(), |c| keepsock_reconnect_connect(r, c, e)),
                |r, e| out(no_handle(), |c| keepsock_reconnect_try_connect(r, c, e)),
                |r, e| out(77, |ms| keepsock_reconnect_next_timeout(r, ms, e)),
                |r, e| keepsock_reconnect_set_watch(r, None, None, null_mut(), e),
            ]
        }
    }

    fn conn_calls() -> Vec<fn(keepsock_conn, Error) -> i32> {
        unsafe {
            vec![
                |c, e| keepsock_conn_send(c, b"x".as_ptr().cast(), 1, e),
                |c, e| {
                    let slice = keepsock_slice { buf: b"x".as_ptr().cast(), len: 1 };
                    keepsock_conn_send_slices(c, &raw const slice, 1, e)
                },
                |c, e| keepsock_conn_send_file(c, 0, 0, 1, e),
                |c, e| out(no_handle(), |client| keepsock_conn_detach(c, null(), 0, client, e)),
                |c, e| out(NO_FD, |fd| keepsock_conn_fd(c, fd, e)),
                |c, e| {
                    let mut address: keepsock_address = std::mem::zeroed();
                    keepsock_conn_proxy_address(c, &raw mut address, e)
                },
                |c, e| keepsock_conn_set_timer(c, 10, e),
                |c, e| keepsock_conn_set_framing(c, &raw const U16, e),
                |c, e| keepsock_conn_set_queue_limit(c, 1000, e),
                |c, e| keepsock_conn_set_overflow_policy(c, 1, e),
                |c, e| keepsock_conn_join(c, c"group".as_ptr(), e),
                |c, e| keepsock_conn_leave(c, c"group".as_ptr(), e),
                |c, e| {
                    let mut t: keepsock_five_tuple = std::mem::zeroed();
                    let size = size_of_val(&t);
                    let status = keepsock_conn_five_tuple(c, &raw mut t, size, e);
                    assert_eq!(t.protocol, 0);
                    status
                },
                |c, e| {
                    let mut s: keepsock_connection_stats = std::mem::zeroed();
                    s.rtt_us = 7;
                    let size = size_of_val(&s);
                    let status = keepsock_conn_get_stats(c, &raw mut s, size, e);
                    assert_eq!(s.rtt_us, 7);
                    status
                },
                |c, e| {
                    let mut k: keepsock_keepalive = std::mem::zeroed();
                    let size = size_of_val(&k);
                    let status = keepsock_conn_keepalive(c, &raw mut k, size, e);
                    assert!(!k.enabled);
                    status
                },
                |c, e| keepsock_conn_set_sockopt(c, 14, 0, e),
                |c, e| keepsock_conn_set_keepalive(c, 1000, 1000, 1, e),
                |c, e| keepsock_conn_set_dead_after(c, 2000, e),
                |c, e| keepsock_conn_set_idle_timeout(c, 2000, e),
                |c, e| keepsock_conn_set_heartbeat(c, 1000, b"x".as_ptr().cast(), 1, e),
                |c, e| keepsock_conn_set_heartbeat_timeout(c, KEEPSOCK_INFINITE, e),
                |c, e| out(77, |value| keepsock_conn_sockopt(c, 14, value, e)),
                |c, e| {
                    out([0x5au8; 16], |p| {
                        let size = size_of::<keepsock_credentials>();
                        keepsock_conn_peer_credentials(c, p.cast(), size, e)
                    })
                },
                |c, e| keepsock_conn_close(c, e),
                |c, e| keepsock_conn_abort(c, e),
                |c, e| keepsock_conn_shutdown_write(c, e),
                |c, e| keepsock_conn_pause(c, e),
                |c, e| keepsock_conn_resume(c, e),
                |c, e| keepsock_conn_set_user(c, null_mut(), e),
                |c, e| {
                    // A function without a status returns the value for a closed connection.
                    assert!(keepsock_conn_user(c).is_null());
                    assert!(!keepsock_conn_is_open(c));
                    assert_eq!(keepsock_conn_queued(c), 0);
                    assert_eq!(keepsock_conn_close_reason(c), 0);
                    keepsock_conn_send(c, null(), 0, e)
                },
            ]
        }
    }

    /// A closed connection of a freed service.
    fn ended_conn() -> keepsock_conn {
        unsafe extern "C" fn close(c: keepsock_conn, _: i32, user: *mut c_void) {
            let over = unsafe { &*user.cast::<std::sync::mpsc::Sender<keepsock_conn>>() };
            over.send(c).unwrap();
        }
        let (over, told) = std::sync::mpsc::channel::<keepsock_conn>();
        let user: *const _ = &raw const over;
        let server = new_server();
        let mut service = null_mut();
        unsafe {
            let mut callbacks: keepsock_callbacks = std::mem::zeroed();
            callbacks.size = size_of_val(&callbacks);
            callbacks.on_close = Some(close);
            let user = user.cast_mut().cast();
            let (callbacks, service_out) = (&raw const callbacks, &raw mut service);
            let served = keepsock_server_serve_events(
                server,
                null(),
                callbacks,
                user,
                service_out,
                null_mut(),
            );
            assert_eq!(served, KEEPSOCK_OK);
            keepsock_client_free(new_client(server));
            let connection = told.recv().unwrap();
            keepsock_service_free(service);
            keepsock_server_free(server);
            connection
        }
    }

    /// A function that changes a connection in a way that its event loop must carry out.
    type Change = (&'static str, fn(keepsock_conn, Error) -> i32);

    unsafe extern "C" fn no_action(_: keepsock_conn, _: *mut c_void) {}

    fn changes_of_conn() -> Vec<Change> {
        unsafe {
            vec![
                ("close", |c, e| keepsock_conn_close(c, e)),
                ("abort", |c, e| keepsock_conn_abort(c, e)),
                ("shutdown_write", |c, e| keepsock_conn_shutdown_write(c, e)),
                ("pause", |c, e| keepsock_conn_pause(c, e)),
                ("resume", |c, e| keepsock_conn_resume(c, e)),
                ("set_timer", |c, e| keepsock_conn_set_timer(c, 1, e)),
                ("set_framing", |c, e| keepsock_conn_set_framing(c, &raw const U16, e)),
                ("set_queue_limit", |c, e| keepsock_conn_set_queue_limit(c, 1000, e)),
                ("set_overflow_policy", |c, e| keepsock_conn_set_overflow_policy(c, 1, e)),
                ("post", |c, e| keepsock_conn_post(c, Some(no_action), null_mut(), e)),
                ("detach", |c, e| {
                    out(no_handle(), |client| keepsock_conn_detach(c, null(), 0, client, e))
                }),
                ("join", |c, e| keepsock_conn_join(c, c"group".as_ptr(), e)),
                ("leave", |c, e| keepsock_conn_leave(c, c"group".as_ptr(), e)),
                ("set_dead_after", |c, e| keepsock_conn_set_dead_after(c, 2000, e)),
                ("set_idle_timeout", |c, e| keepsock_conn_set_idle_timeout(c, 2000, e)),
                ("set_heartbeat", |c, e| {
                    keepsock_conn_set_heartbeat(c, 1000, b"x".as_ptr().cast(), 1, e)
                }),
                ("set_heartbeat_timeout", |c, e| {
                    keepsock_conn_set_heartbeat_timeout(c, KEEPSOCK_INFINITE, e)
                }),
            ]
        }
    }

    /// Serves with callbacks, whose `user` is a channel of results.
    unsafe fn serve_events<T>(
        server: *mut keepsock_server,
        set: impl FnOnce(&mut keepsock_callbacks),
        results: &std::sync::mpsc::Sender<T>,
    ) -> *mut keepsock_service {
        let mut service = null_mut();
        unsafe {
            let mut callbacks: keepsock_callbacks = std::mem::zeroed();
            callbacks.size = size_of_val(&callbacks);
            set(&mut callbacks);
            let (callbacks, out) = (&raw const callbacks, &raw mut service);
            let user = std::ptr::from_ref(results).cast_mut().cast();
            let status =
                keepsock_server_serve_events(server, null(), callbacks, user, out, null_mut());
            assert_eq!(status, KEEPSOCK_OK);
        }
        service
    }

    /// E2, V7: in on_close every function that changes the connection returns CLOSED, because the
    /// change can have no effect. Functions that read the connection work.
    #[test]
    fn conn_changes_in_on_close_return_closed() {
        const CLOSED: i32 = -10;
        type Results = Vec<(&'static str, i32)>;
        unsafe extern "C" fn close(c: keepsock_conn, _: i32, user: *mut c_void) {
            let results = unsafe { &*user.cast::<std::sync::mpsc::Sender<Results>>() };
            let mut all: Results = vec![];
            for (name, change) in changes_of_conn() {
                all.push((name, change(c, null_mut())));
            }
            unsafe {
                all.push(("send", keepsock_conn_send(c, b"x".as_ptr().cast(), 1, null_mut())));
                all.push(("set_sockopt", keepsock_conn_set_sockopt(c, 14, 0, null_mut())));
                let keepalive = keepsock_conn_set_keepalive(c, 1000, 1000, 1, null_mut());
                all.push(("set_keepalive", keepalive));
                let mut tuple: keepsock_five_tuple = std::mem::zeroed();
                let size = size_of_val(&tuple);
                let status = keepsock_conn_five_tuple(c, &raw mut tuple, size, null_mut());
                assert_eq!(status, KEEPSOCK_OK);
            }
            results.send(all).unwrap();
        }
        let _limit = Limit::new("conn_changes_in_on_close_return_closed");
        let (sender, results) = std::sync::mpsc::channel::<Results>();
        let server = new_server();
        unsafe {
            let service = serve_events(server, |on| on.on_close = Some(close), &sender);
            keepsock_client_free(new_client(server));
            for (name, status) in results.recv().unwrap() {
                assert_eq!(status, CLOSED, "keepsock_conn_{name}");
            }
            keepsock_service_free(service);
            keepsock_server_free(server);
        }
    }

    /// E5, E2: in a forked child no event loop runs, so functions that need one fail.
    #[test]
    #[cfg_attr(windows, ignore = "Windows has no fork(2)")]
    fn event_calls_in_a_forked_child_fail() {
        unsafe extern "C" fn open(c: keepsock_conn, user: *mut c_void) {
            let opened = unsafe { &*user.cast::<std::sync::mpsc::Sender<keepsock_conn>>() };
            opened.send(c).unwrap();
        }
        let test = test_name!("event_calls_in_a_forked_child_fail");
        process::in_process(&test, std::time::Duration::from_secs(30), || {
            let (sender, opened) = std::sync::mpsc::channel::<keepsock_conn>();
            let server = new_server();
            unsafe {
                let service = serve_events(server, |on| on.on_open = Some(open), &sender);
                let client = new_client(server);
                let conn = opened.recv().unwrap();
                let port = keepsock_server_port(server);
                let endpoint = CString::new(format!("127.0.0.1:{port}")).unwrap();
                let in_parent = "the service runs in the parent process";
                assert!(system::Forked::run(|| {
                    for (_, change) in changes_of_conn() {
                        gives(WRONG_STATE, in_parent, |e| change(conn, e));
                    }
                    let none = || null_mut();
                    gives(WRONG_STATE, in_parent, |e| {
                        let mut stats: keepsock_service_stats = std::mem::zeroed();
                        let size = size_of_val(&stats);
                        keepsock_service_get_stats(service, &raw mut stats, size, e)
                    });
                    gives(WRONG_STATE, in_parent, |e| {
                        keepsock_service_dump(service, null_mut(), 0, null_mut(), e)
                    });
                    gives(WRONG_STATE, in_parent, |e| keepsock_service_stop(service, e));
                    gives(WRONG_STATE, in_parent, |e| keepsock_service_pause_accept(service, e));
                    gives(WRONG_STATE, in_parent, |e| keepsock_service_resume_accept(service, e));
                    gives(WRONG_STATE, in_parent, |e| {
                        keepsock_service_connect(service, endpoint.as_ptr(), null(), none(), e)
                    });
                    gives(WRONG_STATE, in_parent, |e| {
                        keepsock_service_add(service, client, none(), null_mut(), e)
                    });
                    let reconnect = new_reconnect();
                    gives(WRONG_STATE, in_parent, |e| reconnect_fails(service, reconnect, e));
                    keepsock_reconnect_free(reconnect);
                    for group in [null(), c"group".as_ptr()] {
                        gives(WRONG_STATE, in_parent, |e| {
                            let (x, n) = (b"x".as_ptr().cast(), null_mut());
                            keepsock_service_broadcast(service, group, x, 1, n, n, n, null_mut(), e)
                        });
                    }
                }));
                // The parent's connection is unchanged.
                assert!(keepsock_conn_is_open(conn));
                keepsock_service_free(service);
                keepsock_client_free(client);
                keepsock_server_free(server);
            }
        });
    }

    /// A1: callbacks of this header and of a newer, larger one are accepted. A size that ends
    /// inside a member is rejected.
    #[test]
    fn callbacks_of_any_version_are_accepted() {
        let _limit = Limit::new("callbacks_of_any_version_are_accepted");
        let server = new_server();
        unsafe {
            let mut space = [0usize; 70];
            let callbacks: *mut keepsock_callbacks = space.as_mut_ptr().cast();
            let set_size = |size: usize| (&raw mut (*callbacks).size).write(size);
            let serve = |e| {
                let mut service = null_mut();
                let out = &raw mut service;
                let status =
                    keepsock_server_serve_events(server, null(), callbacks, null_mut(), out, e);
                assert_eq!(service.is_null(), status != KEEPSOCK_OK);
                keepsock_service_free(service);
                status
            };
            let known = size_of::<keepsock_callbacks>();
            // The size of a member.
            let one = size_of::<usize>();
            let half = one / 2;
            let torn =
                [2 * one + half, known - one, known - half, known - 1, known + 1, known + half];
            for size in [0, one - 1, one, 2 * one, 4096, usize::MAX].into_iter().chain(torn) {
                set_size(size);
                gives(INVALID, "callbacks.size is", serve);
            }
            set_size(known + one);
            let extra = callbacks.cast::<usize>().add(known / one);
            extra.write(1);
            gives(ErrorKind::Unsupported.code(), "does not know", serve);
            extra.write(0);
            for size in [known, known + one] {
                set_size(size);
                let (server, mut service) = (new_server(), null_mut());
                let (user, out) = (null_mut(), &raw mut service);
                let status =
                    keepsock_server_serve_events(server, null(), callbacks, user, out, null_mut());
                assert_eq!(status, KEEPSOCK_OK, "{size}");
                keepsock_service_free(service);
                keepsock_server_free(server);
            }
            gives(INVALID, "callbacks is NULL", |e| {
                let mut out = null_mut();
                let out = &raw mut out;
                keepsock_server_serve_events(server, null(), null(), null_mut(), out, e)
            });
            keepsock_server_free(server);
        }
    }

    /// V6, A1, E2: a framing of this header and of a newer, larger one is accepted. Another size, a
    /// number that is not in its enumeration, and a member that the kind does not use are rejected.
    #[test]
    fn framing_with_unknown_or_unused_members_is_rejected() {
        let _limit = Limit::new("framing_with_unknown_or_unused_members_is_rejected");
        let p = pair::<CApi>(Transport::Tcp);
        let (client, mut options) = (p.client.pointer, null_mut());
        let mut buf = [0u8; 8];
        let buf = buf.as_mut_ptr().cast();
        unsafe {
            assert_eq!(keepsock_serve_options_new(&raw mut options, null_mut()), KEEPSOCK_OK);
            let rejected = |status, part: &str, framing: *const keepsock_framing| {
                gives(status, part, |e| keepsock_serve_options_set_framing(options, framing, e));
                gives(status, part, |e| {
                    out(77usize, |n| keepsock_client_read_message(client, framing, buf, 8, n, e))
                });
                gives(status, part, |e| keepsock_client_write_message(client, framing, buf, 1, e));
            };
            rejected(INVALID, "framing is NULL", null());
            let known = size_of::<keepsock_framing>();
            let mut space = [0u64; 128];
            let space: *mut keepsock_framing = space.as_mut_ptr().cast();
            space.write(U8);
            for size in [0, 7, 8, 20, known - 8, known - 1, known + 1, 4096, usize::MAX] {
                (&raw mut (*space).size).write(size);
                rejected(INVALID, "framing.size is", space);
            }
            (&raw mut (*space).size).write(known + 8);
            let extra = space.cast::<u8>().add(known + 3);
            extra.write(1);
            rejected(ErrorKind::Unsupported.code(), "does not know", space);
            extra.write(0);
            let set = keepsock_serve_options_set_framing(options, space, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            for kind in [i32::MIN, -1, 6, i32::MAX] {
                let framing = keepsock_framing { kind, ..U8 };
                rejected(INVALID, "not a keepsock_framing_kind", &raw const framing);
            }
            for length_format in [i32::MIN, -1, 0, 12, i32::MAX] {
                let framing = keepsock_framing { length_format, ..U8 };
                rejected(INVALID, "not a keepsock_length_format", &raw const framing);
            }
            let of = |framing| framing_to_c(&framing);
            let lines = of(Framing::Lines { max: 8 });
            let delimited = of(Framing::Delimited { delimiter: 7, max: 8 });
            let fixed = of(Framing::Fixed { len: 8 });
            let raw = of(Framing::Raw);
            for (framing, member) in [
                (keepsock_framing { max: 1, ..raw }, "max"),
                (keepsock_framing { len: 1, ..raw }, "len"),
                (keepsock_framing { max: 8, ..fixed }, "max"),
                (keepsock_framing { len: 1, ..lines }, "len"),
                (keepsock_framing { delimiter: b'\n', ..lines }, "delimiter"),
                (keepsock_framing { length_format: 1, ..delimited }, "length_format"),
                (keepsock_framing { length_offset: 1, ..U8 }, "length_offset"),
                (keepsock_framing { length_adjustment: 1, ..U8 }, "length_adjustment"),
                (keepsock_framing { reserved: [0, 0, 1], ..U8 }, "reserved"),
            ] {
                let part = format!("framing.{member} must be 0");
                rejected(INVALID, &part, &raw const framing);
            }
            keepsock_serve_options_free(options);
        }
    }

    /// V6: a message that is longer than the caller's buffer stays readable, whatever the maximum of
    /// its framing. Without framing the buffer limits the bytes of a call.
    #[test]
    fn read_message_beyond_the_buffer_keeps_the_bytes() {
        let _limit = Limit::new("read_message_beyond_the_buffer_keeps_the_bytes");
        let p = pair::<CApi>(Transport::Tcp);
        let (client, peer) = (p.accepted.pointer, p.client.pointer);
        let mut space = [0u8; 64];
        let buf: *mut c_void = space.as_mut_ptr().cast();
        let write = |bytes: &[u8]| unsafe {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            assert_eq!(keepsock_client_write_all(peer, data, len, null_mut()), KEEPSOCK_OK);
        };
        let read = |framing: &keepsock_framing, cap| unsafe {
            let mut len = 77;
            let status =
                keepsock_client_read_message(client, framing, buf, cap, &raw mut len, null_mut());
            (status, len)
        };
        let format = LengthFormat::U16Be;
        for (framing, bytes, len) in [
            (Framing::Lines { max: 64 }, &b"four\n"[..], 4),
            (Framing::Delimited { delimiter: 0, max: 64 }, b"four\0", 4),
            (Framing::Prefixed { format, max: 64 }, b"\0\x04four", 4),
            (Framing::LengthField { format, offset: 0, adjustment: 0, max: 64 }, b"\0\x02ab", 4),
            (Framing::Fixed { len: 4 }, b"four", 4),
        ] {
            let framing_in_c = framing_to_c(&framing);
            write(bytes);
            for cap in 0..len {
                assert_eq!(read(&framing_in_c, cap), (TOO_LONG, 77), "{framing:?} {cap}");
            }
            assert_eq!(read(&framing_in_c, len), (KEEPSOCK_OK, len), "{framing:?}");
        }
        let raw = framing_to_c(&Framing::Raw);
        write(b"12345");
        assert_eq!(read(&raw, 0), (INVALID, 77));
        assert_eq!(read(&raw, 2), (KEEPSOCK_OK, 2));
        assert_eq!(read(&raw, 64), (KEEPSOCK_OK, 3));
        // The length of an empty message needs no buffer.
        write(&[0, 0]);
        assert_eq!(read(&U16, 0), (KEEPSOCK_OK, 0));
    }

    fn new_inherited() -> *mut keepsock_activation {
        let mut inherited = null_mut();
        let taken = unsafe { keepsock_activation_from_env(&raw mut inherited, null_mut()) };
        assert_eq!(taken, KEEPSOCK_OK);
        inherited
    }

    fn inherited_calls() -> Vec<Call<keepsock_activation>> {
        unsafe {
            vec![
                |i, e| {
                    out(no_handle(), |s| {
                        keepsock_activation_listen(i, c"127.0.0.1:0".as_ptr(), null(), s, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |s| {
                        keepsock_activation_server(i, c"http".as_ptr(), null(), s, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |c| {
                        keepsock_activation_client(i, c"http".as_ptr(), null(), c, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |d| {
                        keepsock_activation_datagram(i, c"dns".as_ptr(), null(), d, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |d| {
                        keepsock_activation_bind(i, c"127.0.0.1:0".as_ptr(), null(), d, e)
                    })
                },
                |i, e| keepsock_activation_ready(i, e),
            ]
        }
    }

    /// E2, L7: invalid arguments of the activation and handover functions.
    #[test]
    #[cfg_attr(windows, ignore = "the library hands over no sockets on Windows")]
    fn handover_calls_with_invalid_arguments_fail() {
        let _limit = Limit::new("handover_calls_with_invalid_arguments_fail");
        misuse(&inherited_calls(), "activation", new_inherited, keepsock_activation_free);
        let (inherited, server) = (new_inherited(), new_server());
        let (endpoint, name) = (c"127.0.0.1:0".as_ptr(), c"http".as_ptr());
        unsafe {
            gives(INVALID, "activation is NULL", |e| keepsock_activation_from_env(null_mut(), e));
            gives(INVALID, "server is NULL", |e| {
                keepsock_activation_listen(inherited, endpoint, null(), null_mut(), e)
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |s| keepsock_activation_listen(inherited, null(), null(), s, e))
            });
            gives(INVALID, "server is NULL", |e| {
                keepsock_activation_server(inherited, name, null(), null_mut(), e)
            });
            gives(INVALID, "name is NULL", |e| {
                out(no_handle(), |s| keepsock_activation_server(inherited, null(), null(), s, e))
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_activation_client(inherited, name, null(), null_mut(), e)
            });
            gives(ErrorKind::NotFound.code(), "named \"http\"", |e| {
                out(no_handle(), |c| keepsock_activation_client(inherited, name, null(), c, e))
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_activation_datagram(inherited, name, null(), null_mut(), e)
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_activation_bind(inherited, endpoint, null(), null_mut(), e)
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |d| keepsock_activation_bind(inherited, null(), null(), d, e))
            });
            gives(ErrorKind::NotFound.code(), "named \"http\"", |e| {
                out(no_handle(), |s| keepsock_activation_server(inherited, name, null(), s, e))
            });
            gives(NOT_FOUND, "there is no socket", |e| {
                out(77, |size| keepsock_activation_name(inherited, 0, null_mut(), 0, size, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77, |size| keepsock_activation_name(inherited, 0, null_mut(), 8, size, e))
            });
            gives(INVALID, "activation is NULL", |e| {
                out(77, |size| keepsock_activation_name(null(), 0, null_mut(), 0, size, e))
            });
            // keepsock_activation_clear_env() has no arguments and returns no value.
            keepsock_activation_free(inherited);

            let handover = |argv: *const *const c_char,
                            handed: *const keepsock_handover_item,
                            count,
                            ms,
                            e| {
                out(77i64, |pid| keepsock_handover_start(argv, handed, count, ms, null(), pid, e))
            };
            let argv = [c"true".as_ptr(), null()];
            let nobody = [null()];
            let argv = argv.as_ptr();
            let one = keepsock_handover_item { name, server, datagram: null() };
            let neither = keepsock_handover_item { server: null(), ..one };
            let nameless = keepsock_handover_item { name: null(), ..one };
            let other = keepsock_handover_item { server: new_cancel().cast(), ..one };
            let datagram =
                keepsock_handover_item { server: null(), datagram: server.cast(), ..one };
            let freed = "is a freed object, or an object of another type";
            let (closed, no_limit) = (ErrorKind::WrongState.code(), KEEPSOCK_INFINITE);
            gives(INVALID, "items is NULL", |e| handover(argv, null(), 1, no_limit, e));
            gives(INVALID, "there is no socket to hand over", |e| {
                handover(argv, null(), 0, no_limit, e)
            });
            gives(INVALID, "items cannot have", |e| {
                handover(argv, &raw const one, usize::MAX, 1, e)
            });
            gives(INVALID, "-2 ms", |e| handover(argv, &raw const one, 1, -2, e));
            gives(INVALID, "argv[0] is NULL", |e| {
                handover(nobody.as_ptr(), &raw const one, 1, no_limit, e)
            });
            gives(INVALID, "either", |e| handover(argv, &raw const neither, 1, no_limit, e));
            gives(INVALID, "name is NULL", |e| handover(argv, &raw const nameless, 1, 1, e));
            gives(WRONG_STATE, freed, |e| handover(argv, &raw const other, 1, no_limit, e));
            gives(WRONG_STATE, freed, |e| handover(argv, &raw const datagram, 1, no_limit, e));
            gives(closed, "without the option handover", |e| {
                handover(argv, &raw const one, 1, no_limit, e)
            });
            let cancel: *const keepsock_cancel_token = server.cast();
            gives(WRONG_STATE, freed, |e| {
                keepsock_handover_start(argv, &raw const one, 1, 1, cancel, null_mut(), e)
            });
            keepsock_cancel_token_free(other.server.cast_mut().cast());
            keepsock_server_free(server);
        }
    }

    /// Calls each function with NULL, with a freed handle, and with a handle of another type.
    fn misuse<T>(
        calls: &[Call<T>],
        name: &str,
        make: impl Fn() -> *mut T,
        free: unsafe extern "C" fn(*mut T),
    ) {
        let null_text = format!("{name} is NULL");
        let wrong_text = format!("{name} is a freed object, or an object of another type");
        for call in calls {
            gives(INVALID, &null_text, |e| call(null_mut(), e));
            let freed = make();
            unsafe { free(freed) };
            gives(WRONG_STATE, &wrong_text, |e| call(freed, e));
            // A handle of another type. Its type must not matter.
            let other = new_cancel();
            gives(WRONG_STATE, &wrong_text, |e| call(other.cast(), e));
            unsafe {
                free(other.cast());
                assert!(!keepsock_cancel_token_is_fired(other), "freed as another type");
                keepsock_cancel_token_fire(other);
                assert!(keepsock_cancel_token_is_fired(other), "freed as another type");
                keepsock_cancel_token_free(other);
                free(freed);
            }
        }
    }

    /// E1: "would block" of a connect names the endpoint.
    #[test]
    fn would_block_of_a_connect_names_the_endpoint() {
        let endpoint =
            std::ffi::CString::new(crate::support::refused_address().to_string()).unwrap();
        let part = format!("connect to {}: would block", endpoint.to_str().unwrap());
        let mut reconnect = null_mut();
        unsafe {
            keepsock_reconnect_new(endpoint.as_ptr(), null(), &raw mut reconnect, null_mut());
            keepsock_reconnect_set_backoff(reconnect, 60_000, 60_000, null_mut());
            gives(ErrorKind::WouldBlock.code(), &part, |e| {
                out(no_handle(), |client| keepsock_reconnect_try_connect(reconnect, client, e))
            });
            keepsock_reconnect_free(reconnect);
        }
    }

    /// E2: each function rejects an object that is NULL, freed, or of another type.
    #[test]
    fn object_of_wrong_type_is_rejected() {
        let _limit = Limit::new("object_of_wrong_type_is_rejected");
        let server = new_server();
        misuse(&client_calls(), "client", || new_client(server), keepsock_client_free);
        misuse(&server_calls(), "server", new_server, keepsock_server_free);
        misuse(&datagram_calls(), "datagram", new_datagram, keepsock_datagram_free);
        let calls = datagram_service_calls();
        misuse(&calls, "service", new_datagram_service, keepsock_datagram_service_free);
        misuse(&options_calls(), "options", new_options, keepsock_options_free);
        misuse(&serve_options_calls(), "options", new_serve_options, keepsock_serve_options_free);
        misuse(&service_calls(), "service", || new_service(new_server()), keepsock_service_free);
        misuse(&reconnect_calls(), "reconnect", new_reconnect, keepsock_reconnect_free);
        misuse(&connecting_calls(), "pending", new_connecting, keepsock_pending_connect_free);
        let ended = ended_conn();
        let of_another_type = keepsock_conn { id: server as usize as u64 };
        for call in conn_calls() {
            gives(INVALID, "conn.id is 0", |e| call(keepsock_conn { id: 0 }, e));
            gives(WRONG_STATE, "is not an open connection", |e| call(ended, e));
            gives(WRONG_STATE, "is not an open connection", |e| call(of_another_type, e));
            gives(WRONG_STATE, "is not an open connection", |e| call(keepsock_conn { id: 7 }, e));
        }
        let port = unsafe { keepsock_server_port(server) };
        if let Some(capture) = new_capture(port) {
            let capture_again = || new_capture(port).unwrap();
            misuse(&capture_calls(), "capture", capture_again, keepsock_capture_free);
            let client = new_client(server);
            let handshake = || new_handshake(capture, client);
            misuse(&handshake_calls(), "handshake", handshake, keepsock_handshake_free);
            unsafe {
                keepsock_client_free(client);
                keepsock_capture_free(capture);
            }
        }
        unsafe { keepsock_server_free(server) };
    }

    /// E2: only one thread at a time may use a reconnect object. A call inside another call returns
    /// an error, does not wait for itself, and changes nothing. A borrowed error is not freed.
    #[test]
    fn reconnect_inside_its_callback_fails() {
        struct Seen {
            reconnect: *mut keepsock_reconnect,
            told: u32,
        }
        unsafe extern "C" fn inside(
            error: *const keepsock_error,
            _: u32,
            _: i64,
            user: *mut c_void,
        ) {
            let seen = unsafe { &mut *user.cast::<Seen>() };
            for call in reconnect_calls() {
                gives(WRONG_STATE, "another call on the object is in progress", |e| {
                    call(seen.reconnect, e)
                });
            }
            unsafe {
                keepsock_error_free(error.cast_mut());
                assert_eq!(keepsock_error_status(error), ErrorKind::Refused.code());
            }
            seen.told += 1;
        }
        let _limit = Limit::new("reconnect_inside_its_callback_fails");
        let reconnect = new_reconnect();
        let mut seen = Seen { reconnect, told: 0 };
        let user: *mut c_void = (&raw mut seen).cast();
        unsafe {
            let set = keepsock_reconnect_set_backoff(reconnect, 1, 1, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            assert_eq!(keepsock_reconnect_set_timeout(reconnect, 300, null_mut()), KEEPSOCK_OK);
            let set = keepsock_reconnect_set_on_retry(reconnect, Some(inside), user, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            // A delay of this thread may take the whole timeout.
            while (*user.cast::<Seen>()).told <= 2 {
                gives(ErrorKind::Refused.code(), "connection refused after ", |e| {
                    out(no_handle(), |c| keepsock_reconnect_connect(reconnect, c, e))
                });
            }
            // The callback is removed.
            let set = keepsock_reconnect_set_on_retry(reconnect, None, null_mut(), null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            let told = (*user.cast::<Seen>()).told;
            gives(ErrorKind::Refused.code(), "connection refused after ", |e| {
                out(no_handle(), |c| keepsock_reconnect_connect(reconnect, c, e))
            });
            assert_eq!((*user.cast::<Seen>()).told, told);
            keepsock_reconnect_free(reconnect);
        }
    }

    /// E2, C7: the watch callback of a pending connect cannot call functions of the object.
    #[test]
    fn pending_connect_inside_its_callback_fails() {
        struct Seen {
            connecting: *mut keepsock_pending_connect,
            told: u32,
        }
        unsafe extern "C" fn inside(_: i64, user: *mut c_void) {
            let seen = unsafe { &mut *user.cast::<Seen>() };
            for call in connecting_calls() {
                let words = "another call on the object is in progress";
                gives(WRONG_STATE, words, |e| call(seen.connecting, e));
            }
            seen.told += 1;
        }
        let _limit = Limit::new("pending_connect_inside_its_callback_fails");
        let connecting = new_connecting();
        let mut seen = Seen { connecting, told: 0 };
        let user: *mut c_void = (&raw mut seen).cast();
        unsafe {
            let set = keepsock_pending_connect_set_watch(
                connecting,
                None,
                Some(inside),
                user,
                null_mut(),
            );
            assert_eq!(set, KEEPSOCK_OK);
            assert_eq!((*user.cast::<Seen>()).told, 1);
            // The callbacks are removed.
            let none = null_mut();
            let removed =
                keepsock_pending_connect_set_watch(connecting, None, None, none, none.cast());
            assert_eq!(removed, KEEPSOCK_OK);
            keepsock_pending_connect_free(connecting);
        }
    }

    /// E2: invalid arguments of capture and handshake functions.
    #[test]
    #[cfg_attr(windows, ignore = "the library has no captures on Windows")]
    fn capture_calls_with_invalid_arguments_fail() {
        let _limit = Limit::new("capture_calls_with_invalid_arguments_fail");
        let server = new_server();
        let port = unsafe { keepsock_server_port(server) };
        unsafe {
            gives(INVALID, "capture is NULL", |e| keepsock_capture_new(port, null_mut(), e));
            gives(INVALID, "port must be greater than zero", |e| {
                out(no_handle(), |c| keepsock_capture_new(0, c, e))
            });
        }
        let Some(capture) = new_capture(port) else {
            return;
        };
        let client = new_client(server);
        let handshake = new_handshake(capture, client);
        let size = size_of::<keepsock_segment>();
        unsafe {
            let mut of: keepsock_five_tuple = std::mem::zeroed();
            let whole = size_of_val(&of);
            let own = keepsock_client_five_tuple(client, &raw mut of, whole, null_mut());
            assert_eq!(own, KEEPSOCK_OK);
            let look = |of: *const _, size, ms, e| {
                out(no_handle(), |h| keepsock_capture_handshake(capture, of, size, ms, h, e))
            };
            gives(INVALID, "five_tuple is NULL", |e| look(null(), whole, 0, e));
            gives(INVALID, "but the structure has", |e| look(&raw const of, whole - 1, 0, e));
            gives(INVALID, "handshake is NULL", |e| {
                keepsock_capture_handshake(capture, &raw const of, whole, 0, null_mut(), e)
            });
            gives(INVALID, "timeout_ms is -2 ms", |e| look(&raw const of, whole, -2, e));
            let unix = keepsock_five_tuple { protocol: 2, ..of };
            let unsupported = ErrorKind::Unsupported.code();
            gives(unsupported, "not that of a TCP", |e| look(&raw const unix, whole, 0, e));
            let elsewhere = keepsock_five_tuple { local_port: 1, remote_port: 2, ..of };
            gives(INVALID, "neither side has the captured port", |e| {
                look(&raw const elsewhere, whole, 0, e)
            });
            let mut named = of;
            (named.local_address[0], named.local_address[1]) = (b'n' as c_char, 0);
            gives(ErrorKind::InvalidEndpoint.code(), "not a numeric address", |e| {
                look(&raw const named, whole, 0, e)
            });
            let mut endless = of;
            endless.local_address = [b'1' as c_char; 112];
            gives(ErrorKind::InvalidEndpoint.code(), "", |e| look(&raw const endless, whole, 0, e));
            let mut bytes = of;
            bytes.local_address[0] = -1i8 as c_char;
            gives(INVALID, "is not UTF-8", |e| look(&raw const bytes, whole, 0, e));
            let nobody = keepsock_five_tuple { local_port: 1, remote_port: port, ..of };
            gives(ErrorKind::TimedOut.code(), "no packet of the handshake was captured", |e| {
                look(&raw const nobody, whole, 0, e)
            });
            // Any index except 0, 1 and 2, and NULL for required and optional outputs.
            for index in [3, 4, usize::MAX] {
                let part = format!("there is no packet with index {index}");
                gives(NOT_FOUND, &part, |e| {
                    out([0x5au8; 1024], |s| {
                        keepsock_handshake_segment(handshake, index, s.cast(), size, e)
                    })
                });
            }
            gives(INVALID, "out is NULL", |e| {
                keepsock_handshake_segment(handshake, 0, null_mut(), size, e)
            });
            gives(INVALID, "out is NULL", |e| {
                keepsock_client_saved_syn(client, null_mut(), size, e)
            });
            // The handshake does not depend on its capture.
            keepsock_capture_free(capture);
            keepsock_client_free(client);
            gives(TOO_LONG, "the text needs", |e| {
                keepsock_handshake_diagram(handshake, null_mut(), 0, null_mut(), e)
            });
            let mut required = 0;
            let size = &raw mut required;
            let asked = keepsock_handshake_diagram(handshake, null_mut(), 0, size, null_mut());
            assert_eq!(asked, TOO_LONG);
            let mut diagram = vec![0u8; required];
            let (buf, none) = (diagram.as_mut_ptr().cast(), null_mut());
            let filled = keepsock_handshake_diagram(handshake, buf, required, null_mut(), none);
            assert_eq!(filled, KEEPSOCK_OK);
            assert!(diagram.starts_with(b"client 127.0.0.1:"));
            keepsock_handshake_free(handshake);
            keepsock_handshake_free(handshake);
            keepsock_server_free(server);
        }
    }

    /// S5: each state has its name, and no other number has one.
    #[test]
    fn tcp_states_have_their_names() {
        assert_eq!(text(keepsock_tcp_state_str(3)), "SYN-RECEIVED");
        assert_eq!(text(keepsock_tcp_state_str(10)), "LISTEN");
        for other in [0, 12, -1, i32::MIN, i32::MAX] {
            assert_eq!(text(keepsock_tcp_state_str(other)), "UNKNOWN");
        }
    }

    /// E2: NULL is accepted for each output that is a number or a flag.
    #[test]
    #[cfg_attr(windows, ignore = "the library has no Unix sockets on Windows")]
    fn null_for_number_or_flag_is_accepted() {
        let _limit = Limit::new("null_for_number_or_flag_is_accepted");
        let dir = TempDir::new();
        let endpoint = CString::new(dir.endpoint("null")).unwrap();
        let (mut server, e) = (null_mut(), null_mut());
        let ok = |status| assert_eq!(status, KEEPSOCK_OK);
        unsafe {
            ok(keepsock_server_listen(endpoint.as_ptr(), null(), &raw mut server, e));
            let (client, mut peer) = (new_client(server), null_mut());
            ok(keepsock_server_accept(server, &raw mut peer, e));
            let mut space = [0u8; 64];
            let buf: *mut c_void = space.as_mut_ptr().cast();
            let (text, fd) = (c"12\n\x012345".as_ptr().cast(), &raw const ZERO);
            ok(keepsock_client_write_all(client, text, 8, e));
            ok(keepsock_client_read(peer, buf, 1, null_mut(), e));
            ok(keepsock_client_read_line(peer, buf.cast(), 64, null_mut(), e));
            ok(keepsock_client_read_message(peer, &raw const U8, buf, 64, null_mut(), e));
            ok(keepsock_client_read_until(peer, b'3', buf, 64, null_mut(), e));
            let buffer = keepsock_buffer { buf, cap: 1 };
            ok(keepsock_client_read_slices(peer, &raw const buffer, 1, null_mut(), e));
            ok(keepsock_client_write(client, text, 1, null_mut(), e));
            ok(keepsock_client_send_fds(client, text, 1, fd, 1, null_mut(), e));
            let (n, cut) = (null_mut(), null_mut());
            ok(keepsock_client_recv_fds(peer, buf, 64, null_mut(), 0, null_mut(), n, cut, e));
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            ok(keepsock_client_send_file(client, file.as_raw_fd(), 0, 1, null_mut(), e));
            ok(keepsock_client_check_liveness(client, null_mut(), e));
            keepsock_client_free(client);
            ok(keepsock_client_wait_hangup(peer, 5000, null_mut(), e));
            keepsock_client_free(peer);
            let options = null();
            ok(keepsock_lookup(c"127.0.0.1:1".as_ptr(), options, null_mut(), 0, null_mut(), e));
            let connecting = new_connecting();
            ok(keepsock_pending_connect_next_timeout(connecting, null_mut(), e));
            keepsock_pending_connect_free(connecting);
            let datagram = new_datagram();
            let mut name = [0; KEEPSOCK_TEXT_SIZE as usize];
            let at = name.as_mut_ptr();
            ok(keepsock_datagram_endpoint(datagram, at, name.len(), null_mut(), e));
            let mut item: keepsock_send_item = std::mem::zeroed();
            ok(keepsock_address_parse(at, &raw mut item.to, e));
            let size = size_of_val(&item);
            ok(keepsock_datagram_send_batch(datagram, &raw const item, 1, size, null_mut(), e));
            let mut item: keepsock_recv_item = std::mem::zeroed();
            let size = size_of_val(&item);
            ok(keepsock_datagram_recv_batch(datagram, &raw mut item, 1, size, null_mut(), e));
            keepsock_datagram_free(datagram);
            let service = new_service(new_server());
            ok(keepsock_service_drain(service, 0, null_mut(), null_mut(), e));
            keepsock_service_free(service);
            keepsock_server_free(server);
        }
    }

    /// E2: each other pointer argument that must not be NULL.
    #[test]
    fn null_in_each_argument_is_rejected() {
        let _limit = Limit::new("null_in_each_argument_is_rejected");
        let (server, options, cancel) = (new_server(), new_options(), new_cancel());
        let client = new_client(server);
        let service = new_service(new_server());
        let endpoint = c"127.0.0.1:0".as_ptr();
        let mut buf = [0u8; 64];
        let space: *mut c_void = buf.as_mut_ptr().cast();
        unsafe {
            gives(INVALID, "cancel is NULL", |e| keepsock_cancel_token_new(null_mut(), e));
            gives(INVALID, "reconnect is NULL", |e| {
                keepsock_service_reconnect(service, null_mut(), null_mut(), e)
            });
            gives(INVALID, "reconnect is NULL", |e| reconnect_fails(service, null_mut(), e));
            gives(WRONG_STATE, "reconnect is a freed object", |e| {
                reconnect_fails(service, client.cast(), e)
            });
            gives(INVALID, "cancel is NULL", |e| {
                out(NO_FD, |fd| keepsock_cancel_token_fd(null(), fd, e))
            });
            gives(INVALID, "fd is NULL", |e| keepsock_cancel_token_fd(cancel, null_mut(), e));
            gives(INVALID, "options is NULL", |e| keepsock_options_new(null_mut(), e));
            gives(INVALID, "options is NULL", |e| keepsock_serve_options_new(null_mut(), e));
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |c| keepsock_client_connect(null(), null(), c, e))
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_client_connect(endpoint, null(), null_mut(), e)
            });
            gives(INVALID, "network is NULL", |e| {
                keepsock_options_add_trusted_proxy(options, null(), e)
            });
            let address: keepsock_address = std::mem::zeroed();
            let (at, version) = (&raw const address, 1);
            gives(INVALID, "one of the two addresses is NULL", |e| {
                keepsock_options_set_proxy_header(options, version, at, null(), e)
            });
            gives(INVALID, "source has no address", |e| {
                keepsock_options_set_proxy_header(options, version, at, at, e)
            });
            gives(INVALID, "version 3", |e| {
                keepsock_options_set_proxy_header(options, 3, null(), null(), e)
            });
            gives(INVALID, "proxy_timeout", |e| keepsock_options_set_proxy_timeout(options, 0, e));
            gives(INVALID, "proxy_timeout", |e| keepsock_options_set_proxy_timeout(options, -1, e));
            gives(INVALID, "client is NULL", |e| keepsock_client_read_proxy_header(null_mut(), e));
            gives(INVALID, "client is NULL", |e| {
                keepsock_client_proxy_address(null(), (&raw const address).cast_mut(), e)
            });
            gives(INVALID, "address is NULL", |e| {
                keepsock_client_proxy_address(client, null_mut(), e)
            });
            let mut looking = null_mut();
            gives(INVALID, "endpoint is NULL", |e| {
                keepsock_lookup(null(), null(), null_mut(), 0, null_mut(), e)
            });
            gives(INVALID, "addresses is NULL", |e| {
                out(77, |n| keepsock_lookup(endpoint, null(), null_mut(), 1, n, e))
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |p| keepsock_pending_lookup_start(null(), null(), p, e))
            });
            gives(INVALID, "pending is NULL", |e| {
                keepsock_pending_lookup_start(endpoint, null(), null_mut(), e)
            });
            let started =
                keepsock_pending_lookup_start(endpoint, null(), &raw mut looking, null_mut());
            assert_eq!(started, KEEPSOCK_OK);
            for pending in [null_mut(), looking] {
                let name = if pending.is_null() { "pending is NULL" } else { "addresses is NULL" };
                gives(INVALID, name, |e| {
                    out(77, |n| keepsock_pending_lookup_finish(pending, null_mut(), 1, n, e))
                });
                gives(INVALID, name, |e| {
                    out(77, |n| keepsock_pending_lookup_wait(pending, null_mut(), 1, n, e))
                });
            }
            gives(INVALID, "pending is NULL", |e| {
                out(77, |ms| keepsock_pending_lookup_next_timeout(null_mut(), ms, e))
            });
            gives(INVALID, "fd is NULL", |e| keepsock_pending_lookup_fd(looking, null_mut(), e));
            keepsock_pending_lookup_free(looking);
            gives(INVALID, "host is NULL", |e| {
                out(no_handle(), |c| keepsock_client_connect_host(null(), 80, null(), c, e))
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_client_connect_host(c"127.0.0.1".as_ptr(), 80, null(), null_mut(), e)
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |s| keepsock_server_listen(null(), null(), s, e))
            });
            gives(INVALID, "server is NULL", |e| {
                keepsock_server_listen(endpoint, null(), null_mut(), e)
            });
            let one = [endpoint, null()];
            gives(INVALID, "server is NULL", |e| {
                keepsock_server_listen_all(one.as_ptr(), 1, null(), null_mut(), e)
            });
            for (first, count, part) in [
                (null(), 1, "endpoints is NULL"),
                (null(), 0, "the list of endpoints is empty"),
                (one.as_ptr(), 0, "the list of endpoints is empty"),
                (one.as_ptr(), 2, "endpoint is NULL"),
                (one.as_ptr(), usize::MAX, "endpoints cannot have"),
            ] {
                gives(INVALID, part, |e| {
                    out(no_handle(), |s| keepsock_server_listen_all(first, count, null(), s, e))
                });
            }
            for index in [1, usize::MAX] {
                gives(NOT_FOUND, "there is no endpoint", |e| {
                    out(77, |size| keepsock_server_endpoint(server, index, null_mut(), 0, size, e))
                });
                gives(INVALID, "buf is NULL", |e| {
                    out(77, |size| keepsock_server_endpoint(server, index, null_mut(), 8, size, e))
                });
            }
            let required = endpoint_of(server).as_bytes_with_nul().len();
            gives(TOO_LONG, "the text needs", |e| {
                let mut size = 0;
                let status = keepsock_server_endpoint(server, 0, null_mut(), 0, &raw mut size, e);
                assert_eq!(size, required);
                status
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |r| keepsock_reconnect_new(null(), null(), r, e))
            });
            gives(INVALID, "reconnect is NULL", |e| {
                keepsock_reconnect_new(endpoint, null(), null_mut(), e)
            });
            let reconnect = new_reconnect();
            gives(INVALID, "client is NULL", |e| {
                keepsock_reconnect_connect(reconnect, null_mut(), e)
            });
            keepsock_reconnect_free(reconnect);
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |c| keepsock_pending_connect_start(null(), null(), c, e))
            });
            gives(INVALID, "pending is NULL", |e| {
                keepsock_pending_connect_start(endpoint, null(), null_mut(), e)
            });
            let connecting = new_connecting();
            gives(INVALID, "client is NULL", |e| {
                keepsock_pending_connect_finish(connecting, null_mut(), e)
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_pending_connect_wait(connecting, null_mut(), e)
            });
            gives(INVALID, "fd is NULL", |e| {
                keepsock_pending_connect_fd(connecting, null_mut(), e)
            });
            gives(INVALID, "fd is NULL", |e| {
                keepsock_pending_connect_socket(connecting, null_mut(), e)
            });
            // Wrong outputs are found before a wrong index.
            let attempt = |index, out: *mut [u8; 512], size, e| {
                keepsock_pending_connect_attempt(connecting, index, out.cast(), size, e)
            };
            let all = size_of::<keepsock_attempt>();
            for index in [0, 1, usize::MAX] {
                gives(INVALID, "out is NULL", |e| attempt(index, null_mut(), all, e));
                gives(INVALID, "size is 3", |e| out([0x5au8; 512], |a| attempt(index, a, 3, e)));
            }
            let part =
                format!("there is no attempt with index {}; the last has index ", usize::MAX);
            gives(NOT_FOUND, &part, |e| out([0x5au8; 512], |a| attempt(usize::MAX, a, all, e)));
            keepsock_pending_connect_free(connecting);
            // A connect that succeeded has no attempts.
            let mut connecting = null_mut();
            let mut connected = null_mut();
            let mut started = keepsock_pending_connect_start(
                endpoint_of(server).as_ptr(),
                null(),
                &raw mut connecting,
                null_mut(),
            );
            assert_eq!(started, 0);
            started = keepsock_pending_connect_wait(connecting, &raw mut connected, null_mut());
            assert_eq!(started, 0);
            gives(NOT_FOUND, "there is no attempt", |e| {
                let status = out([0x5au8; 512], |a| {
                    keepsock_pending_connect_attempt(connecting, 0, a.cast(), all, e)
                });
                if !e.is_null() {
                    assert!(!text(keepsock_error_message(*e)).contains("index"));
                }
                status
            });
            keepsock_client_free(connected);
            keepsock_pending_connect_free(connecting);
            gives(INVALID, "client is NULL", |e| keepsock_client_from_fd(0, null(), null_mut(), e));
            gives(INVALID, "server is NULL", |e| keepsock_server_from_fd(0, null(), null_mut(), e));
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read(client, null_mut(), 64, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_client_read_exact(client, null_mut(), 64, e)
            });
            gives(INVALID, "buffers is NULL", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, null(), 1, n, e))
            });
            gives(INVALID, "the buffers are empty", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, null(), 0, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_until(client, 0, null_mut(), 64, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_line(client, null_mut(), 64, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_write(client, null(), 64, n, e))
            });
            gives(INVALID, "buf is NULL", |e| keepsock_client_write_all(client, null(), 64, e));
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| {
                    keepsock_client_read_message(client, &raw const U16, null_mut(), 64, n, e)
                })
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_client_write_message(client, &raw const U16, null(), 64, e)
            });
            gives(INVALID, "ref is NULL", |e| keepsock_client_ref(client, null_mut(), e));
            gives(INVALID, "text is NULL", |e| keepsock_client_write_str(client, null(), e));
            gives(INVALID, "slices is NULL", |e| {
                keepsock_client_write_slices(client, null(), 1, e)
            });
            gives(INVALID, "buf is NULL", |e| {
                let slice = keepsock_slice { buf: null(), len: 1 };
                keepsock_client_write_slices(client, &raw const slice, 1, e)
            });
            gives(INVALID, "fds is NULL", |e| {
                out(77usize, |n| keepsock_client_send_fds(client, space, 1, null(), 1, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                let fd = &raw const ZERO;
                out(77usize, |n| keepsock_client_send_fds(client, null(), 1, fd, 1, n, e))
            });
            gives(INVALID, &format!("a descriptor of the array is {NO_DESCRIPTOR}"), |e| {
                let fd = NO_FD;
                out(77usize, |n| keepsock_client_send_fds(client, space, 1, &raw const fd, 1, n, e))
            });
            gives(INVALID, "fds cannot have", |e| {
                let (fd, many) = (&raw const ZERO, usize::MAX / 2);
                out(77usize, |n| keepsock_client_send_fds(client, space, 1, fd, many, n, e))
            });
            for (cap, fds_cap, part) in [(64, 1, "fds is NULL"), (0, 0, "cap is 0")] {
                let (mut count, no_fds, cut) = (78, null_mut(), null_mut());
                let c = &raw mut count;
                gives(INVALID, part, |e| {
                    out(77usize, |n| {
                        keepsock_client_recv_fds(client, space, cap, no_fds, fds_cap, n, c, cut, e)
                    })
                });
                assert_eq!(count, 78);
            }
            gives(INVALID, "out is NULL", |e| {
                let size = size_of::<keepsock_credentials>();
                keepsock_client_peer_credentials(client, null_mut(), size, e)
            });
            gives(
                INVALID,
                if cfg!(windows) { "fd is NULL or INVALID_HANDLE_VALUE" } else { "fd is negative" },
                |e| out(77u64, |n| keepsock_client_send_file(client, NO_FD, 0, 1, n, e)),
            );
            gives(INVALID, "not open for reading", |e| {
                out(77u64, |n| keepsock_client_send_file(client, i32::MAX as RawFd, 0, 1, n, e))
            });
            gives(INVALID, "out is NULL", |e| {
                keepsock_client_keepalive(client, null_mut(), size_of::<keepsock_keepalive>(), e)
            });
            gives(INVALID, "out is NULL", |e| {
                keepsock_client_five_tuple(client, null_mut(), size_of::<keepsock_five_tuple>(), e)
            });
            gives(INVALID, "fd is NULL", |e| keepsock_client_fd(client, null_mut(), e));
            gives(INVALID, "fd is NULL", |e| keepsock_client_release_fd(client, null_mut(), e));
            gives(INVALID, "client is NULL", |e| keepsock_server_accept(server, null_mut(), e));
            gives(INVALID, "out is NULL", |e| keepsock_server_get_stats(server, null_mut(), 32, e));
            gives(INVALID, "fd is NULL", |e| keepsock_server_fd(server, 0, null_mut(), e));
            for index in [1, usize::MAX] {
                gives(NOT_FOUND, "there is no endpoint", |e| {
                    out(77, |fd| keepsock_server_fd(server, index, fd, e))
                });
            }
            gives(INVALID, "fd is NULL", |e| keepsock_server_release_fd(server, null_mut(), e));
            let mut buffer = keepsock_buffer { buf: null_mut(), cap: 1 };
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, &raw const buffer, 1, n, e))
            });
            buffer = keepsock_buffer { buf: space, cap: 0 };
            gives(INVALID, "", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, &raw const buffer, 1, n, e))
            });
            gives(INVALID, "fd is NULL", |e| keepsock_server_release_fd(server, null_mut(), e));
            gives(INVALID, "handler is NULL", |e| {
                out(no_handle(), |s| keepsock_server_serve(server, null(), None, null_mut(), s, e))
            });
            gives(INVALID, "service is NULL", |e| {
                keepsock_server_serve(server, null(), Some(nothing), null_mut(), null_mut(), e)
            });
            let serve = new_serve_options();
            gives(INVALID, "network is NULL", |e| {
                keepsock_serve_options_add_allowed_network(serve, null(), e)
            });
            gives(INVALID, "network is NULL", |e| {
                keepsock_serve_options_add_denied_network(serve, null(), e)
            });
            gives(INVALID, "not a network", |e| {
                keepsock_serve_options_add_denied_network(serve, c"example.com".as_ptr(), e)
            });
            keepsock_serve_options_free(serve);
            gives(INVALID, "is NULL", |e| {
                keepsock_options_set_raw_sockopt(options, 1, 47, null(), 4, e)
            });
            gives(INVALID, "value is NULL", |e| keepsock_client_sockopt(client, 1, null_mut(), e));
            gives(INVALID, "endpoint is NULL", |e| {
                keepsock_options_add_remote_address(options, null(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_service_broadcast(
                    service,
                    null(),
                    null(),
                    1,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    e,
                )
            });
            // Arguments that may be NULL.
            assert_eq!(keepsock_options_set_cancel(options, null(), null_mut()), KEEPSOCK_OK);
            assert_eq!(
                keepsock_client_write_str(client, c"line\n".as_ptr(), null_mut()),
                KEEPSOCK_OK
            );
            let mut accepted = null_mut();
            assert_eq!(keepsock_server_accept(server, &raw mut accepted, null_mut()), KEEPSOCK_OK);
            let read =
                keepsock_client_read_line(accepted, space.cast(), 64, null_mut(), null_mut());
            assert_eq!((read, text(space.cast())), (KEEPSOCK_OK, "line".to_owned()));
            assert_eq!(
                keepsock_client_read_exact(accepted, null_mut(), 0, null_mut()),
                KEEPSOCK_OK
            );
            assert_eq!(keepsock_client_write_all(client, null(), 0, null_mut()), KEEPSOCK_OK);
            assert_eq!(keepsock_client_write_slices(client, null(), 0, null_mut()), KEEPSOCK_OK);
            assert_eq!(
                keepsock_service_broadcast(
                    service,
                    null(),
                    null(),
                    0,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut()
                ),
                KEEPSOCK_OK
            );
            assert_eq!(
                keepsock_service_drain(service, 0, null_mut(), null_mut(), null_mut()),
                KEEPSOCK_OK
            );
            keepsock_client_abort(client, null_mut());
            keepsock_client_free(client);
            keepsock_client_free(accepted);
            keepsock_service_free(service);
            keepsock_server_free(server);
            keepsock_options_free(options);
            keepsock_cancel_token_free(cancel);
        }
    }

    /// E2: in each function with a buffer and its size, NULL with the size 0 is an empty buffer, and
    /// NULL with another size is rejected.
    #[test]
    fn null_with_size_zero_is_an_empty_buffer() {
        type Sender = std::sync::mpsc::Sender<keepsock_conn>;
        /// A call with NULL as its buffer, and this size.
        type WithSize<'a> = &'a dyn Fn(usize, Error) -> i32;
        unsafe extern "C" fn open(c: keepsock_conn, user: *mut c_void) {
            unsafe { &*user.cast::<Sender>() }.send(c).unwrap();
        }
        let _limit = Limit::new("null_with_size_zero_is_an_empty_buffer");
        let (none, server, datagram) = (null::<c_void>(), new_server(), new_datagram());
        let client = new_client(server);
        let (opened, connections) = std::sync::mpsc::channel::<keepsock_conn>();
        let mut service = null_mut();
        let event_server = new_server();
        unsafe {
            let mut callbacks: keepsock_callbacks = std::mem::zeroed();
            callbacks.size = size_of_val(&callbacks);
            callbacks.on_open = Some(open);
            let (user, callbacks) = (&raw const opened, &raw const callbacks);
            let (user, at) = (user.cast_mut().cast(), &raw mut service);
            let options = null();
            assert_eq!(
                keepsock_server_serve_events(
                    event_server,
                    options,
                    callbacks,
                    user,
                    at,
                    null_mut()
                ),
                KEEPSOCK_OK
            );
            let event_client = new_client(event_server);
            let conn = connections.recv().unwrap();
            gives(INVALID, "framing is NULL", |e| keepsock_conn_set_framing(conn, null(), e));
            let calls: [(&str, WithSize<'_>); 11] = [
                ("client_write", &|len, e| {
                    let mut written = 0;
                    keepsock_client_write(client, none, len, &raw mut written, e)
                }),
                ("client_write_all", &|len, e| keepsock_client_write_all(client, none, len, e)),
                ("client_write_message", &|len, e| {
                    keepsock_client_write_message(client, &raw const U16, none, len, e)
                }),
                ("client_write_slices", &|len, e| {
                    let slice = keepsock_slice { buf: none, len };
                    keepsock_client_write_slices(client, &raw const slice, 1, e)
                }),
                ("client_read_exact", &|len, e| {
                    keepsock_client_read_exact(client, null_mut(), len, e)
                }),
                ("conn_send", &|len, e| keepsock_conn_send(conn, none, len, e)),
                ("conn_send_slices", &|len, e| {
                    let slice = keepsock_slice { buf: none, len };
                    keepsock_conn_send_slices(conn, &raw const slice, 1, e)
                }),
                ("service_broadcast", &|len, e| {
                    keepsock_service_broadcast(
                        service,
                        null(),
                        none,
                        len,
                        null_mut(),
                        null_mut(),
                        null_mut(),
                        null_mut(),
                        e,
                    )
                }),
                ("service_broadcast to a group", &|len, e| {
                    let group = c"group".as_ptr();
                    keepsock_service_broadcast(
                        service,
                        group,
                        none,
                        len,
                        null_mut(),
                        null_mut(),
                        null_mut(),
                        null_mut(),
                        e,
                    )
                }),
                ("datagram_send_to", &|len, e| {
                    keepsock_datagram_send_to(datagram, c"127.0.0.1:9".as_ptr(), none, len, e)
                }),
                ("datagram_send_batch", &|len, e| {
                    let (one, mut sent) = (outgoing(none, len), 0);
                    let (one, size) = (&raw const one, size_of_val(&one));
                    keepsock_datagram_send_batch(datagram, one, 1, size, &raw mut sent, e)
                }),
            ];
            for (name, call) in calls {
                assert_eq!(call(0, null_mut()), KEEPSOCK_OK, "{name}");
                gives(INVALID, "buf is NULL", |e| call(1, e));
            }
            gives(INVALID, "buf is NULL", |e| {
                out(no_handle(), |client| keepsock_conn_detach(conn, none, 1, client, e))
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_conn_detach(conn, none, 0, null_mut(), e)
            });
            keepsock_client_free(event_client);
            keepsock_service_free(service);
            keepsock_server_free(event_server);
            keepsock_client_free(client);
            keepsock_server_free(server);
            keepsock_datagram_free(datagram);
        }
    }

    /// E2: numbers out of range: sizes, times, enumerations.
    #[test]
    fn numbers_out_of_range_are_rejected() {
        let _limit = Limit::new("numbers_out_of_range_are_rejected");
        let p = pair::<CApi>(Transport::Tcp);
        let (client, server) = (p.client.pointer, p.server.0);
        let (options, serve_options) = (new_options(), new_serve_options());
        let (service, reconnect) = (new_service(new_server()), new_reconnect());
        let mut buf = [0u8; 64];
        let space: *mut c_void = buf.as_mut_ptr().cast();
        let huge = usize::MAX;
        unsafe {
            gives(INVALID, "cap is 0", |e| {
                out(77usize, |n| keepsock_client_read(client, space, 0, n, e))
            });
            gives(INVALID, "cap is 0", |e| {
                out(77usize, |n| keepsock_client_read_line(client, space.cast(), 0, n, e))
            });
            gives(INVALID, "longer than any buffer", |e| {
                out(77usize, |n| keepsock_client_read(client, space, huge, n, e))
            });
            gives(INVALID, "longer than any buffer", |e| {
                keepsock_client_read_exact(client, space, huge, e)
            });
            gives(INVALID, "longer than any buffer", |e| {
                out(77usize, |n| keepsock_client_read_until(client, 0, space, huge, n, e))
            });
            gives(INVALID, "longer than any buffer", |e| {
                out(77usize, |n| keepsock_client_read_line(client, space.cast(), huge, n, e))
            });
            gives(INVALID, "longer than any buffer", |e| {
                out(77usize, |n| keepsock_client_write(client, space, huge, n, e))
            });
            gives(INVALID, "longer than any buffer", |e| {
                keepsock_client_write_all(client, space, huge, e)
            });
            let slice = keepsock_slice { buf: space, len: huge };
            gives(INVALID, "longer than any buffer", |e| {
                keepsock_client_write_slices(client, &raw const slice, 1, e)
            });
            gives(INVALID, "slices cannot have", |e| {
                keepsock_client_write_slices(client, &raw const slice, huge / 2, e)
            });
            gives(INVALID, "longer than any buffer", |e| {
                keepsock_service_broadcast(
                    service,
                    null(),
                    space,
                    huge,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    e,
                )
            });
            for level in [-1, 6, i32::MIN, i32::MAX] {
                gives(INVALID, "is not a keepsock_log_level", |e| {
                    keepsock_log_set(level, Some(not_told), null_mut(), e)
                });
                gives(INVALID, "is not a keepsock_log_level", |e| {
                    keepsock_log_set(level, None, null_mut(), e)
                });
            }
            for ms in [-2, -1000, i64::MIN] {
                let timeout = &*format!("timeout_ms is {ms} ms: it must");
                gives(INVALID, timeout, |e| keepsock_client_set_read_timeout(client, ms, e));
                gives(INVALID, timeout, |e| keepsock_client_set_write_timeout(client, ms, e));
                gives(INVALID, timeout, |e| keepsock_server_set_accept_timeout(server, ms, e));
                gives(INVALID, timeout, |e| {
                    out(77, |how| keepsock_client_wait_hangup(client, ms, how, e))
                });
                gives(INVALID, timeout, |e| keepsock_service_wait(service, ms, e));
                gives(INVALID, timeout, |e| keepsock_service_wait_stopped(service, ms, e));
                gives(INVALID, timeout, |e| {
                    out(77, |n| keepsock_service_drain(service, ms, n, null_mut(), e))
                });
                gives(INVALID, &format!("connect_timeout is {ms} ms: it must"), |e| {
                    keepsock_options_set_connect_timeout(options, ms, e)
                });
                gives(INVALID, &format!("read_timeout is {ms} ms: it must"), |e| {
                    keepsock_options_set_read_timeout(options, ms, e)
                });
                gives(INVALID, &format!("write_timeout is {ms} ms: it must"), |e| {
                    keepsock_options_set_write_timeout(options, ms, e)
                });
                gives(INVALID, &format!("close_timeout is {ms} ms: it must"), |e| {
                    keepsock_options_set_close_timeout(options, ms, e)
                });
                gives(INVALID, timeout, |e| keepsock_client_set_close_timeout(client, ms, e));
                gives(INVALID, &format!("idle_ms is {ms} ms: it must"), |e| {
                    keepsock_options_set_keepalive(options, ms, 1, 1, e)
                });
                gives(INVALID, &format!("interval_ms is {ms} ms: it must"), |e| {
                    keepsock_options_set_keepalive(options, 1, ms, 1, e)
                });
                gives(INVALID, &format!("idle_ms is {ms} ms: it must"), |e| {
                    keepsock_client_set_keepalive(client, ms, 1, 1, e)
                });
                gives(INVALID, &format!("first_ms is {ms} ms: it must"), |e| {
                    keepsock_reconnect_set_backoff(reconnect, ms, 9, e)
                });
                gives(INVALID, &format!("longest_ms is {ms} ms: it must"), |e| {
                    keepsock_reconnect_set_backoff(reconnect, 9, ms, e)
                });
                gives(INVALID, timeout, |e| keepsock_reconnect_set_timeout(reconnect, ms, e));
            }
            // KEEPSOCK_INFINITE where a timeout is required.
            gives(INVALID, "close_timeout is KEEPSOCK_INFINITE: it must", |e| {
                keepsock_options_set_close_timeout(options, KEEPSOCK_INFINITE, e)
            });
            gives(INVALID, "interval_ms is KEEPSOCK_INFINITE: it must", |e| {
                keepsock_options_set_keepalive(options, 1, KEEPSOCK_INFINITE, 1, e)
            });
            gives(INVALID, "timeout_ms is KEEPSOCK_INFINITE: it must", |e| {
                keepsock_client_set_close_timeout(client, KEEPSOCK_INFINITE, e)
            });
            gives(INVALID, "longest_ms is KEEPSOCK_INFINITE: it must", |e| {
                keepsock_reconnect_set_backoff(reconnect, 9, KEEPSOCK_INFINITE, e)
            });
            gives(INVALID, "zero", |e| keepsock_reconnect_set_timeout(reconnect, 0, e));
            gives(INVALID, "first", |e| keepsock_reconnect_set_backoff(reconnect, 0, 9, e));
            gives(INVALID, "zero", |e| keepsock_options_set_connect_timeout(options, 0, e));
            gives(INVALID, "zero", |e| keepsock_options_set_read_timeout(options, 0, e));
            gives(INVALID, "zero", |e| keepsock_options_set_write_timeout(options, 0, e));
            gives(INVALID, "and not -1", |e| keepsock_options_set_unix_mode(options, -2, e));
            gives(INVALID, "zero", |e| {
                keepsock_serve_options_set_max_connections(serve_options, 0, e)
            });
            for family in [-1, 1, 5, 7, i32::MAX, i32::MIN] {
                let part = format!("{family} is not a keepsock_family");
                gives(INVALID, &part, |e| keepsock_options_set_family(options, family, e));
                gives(INVALID, &part, |e| {
                    keepsock_options_set_preferred_family(options, family, e)
                });
            }
            for option in [-1, 0, 99, i32::MAX, i32::MIN] {
                let part = format!("{option} is not a keepsock_sockopt");
                gives(INVALID, &part, |e| keepsock_options_set_sockopt(options, option, 1, e));
            }
            gives(INVALID, "reuse_port 2 is not within 0 to 1", |e| {
                keepsock_options_set_sockopt(options, 4, 2, e)
            });
            gives(INVALID, "congestion_control", |e| {
                keepsock_options_set_congestion_control(options, c"".as_ptr(), e)
            });
            gives(INVALID, "use keepsock_options_set_close_timeout() or", |e| {
                let linger = [0u8; 8];
                let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
                keepsock_options_set_raw_sockopt(options, level, name, linger.as_ptr().cast(), 8, e)
            });
            for accept_policy in [-1, 2, i32::MAX, i32::MIN] {
                let part = format!("{accept_policy} is not a keepsock_accept_policy");
                gives(INVALID, &part, |e| {
                    keepsock_serve_options_set_accept_policy(serve_options, accept_policy, e)
                });
            }
            gives(INVALID, "interface name", |e| {
                keepsock_options_set_interface(options, c"sixteen-letters-".as_ptr(), e)
            });
            gives(INVALID, NO_DESCRIPTOR, |e| {
                out(no_handle(), |c| keepsock_client_from_fd(NO_FD, null(), c, e))
            });
            gives(INVALID, NO_DESCRIPTOR, |e| {
                out(no_handle(), |s| keepsock_server_from_fd(NO_FD, null(), s, e))
            });
            let latin1 = CString::new([0xe4, b':', b'1']).unwrap();
            gives(INVALID, "not UTF-8", |e| {
                out(no_handle(), |c| keepsock_client_connect(latin1.as_ptr(), null(), c, e))
            });
            gives(INVALID, "not UTF-8", |e| {
                keepsock_options_set_local_endpoint(options, latin1.as_ptr(), e)
            });
            let bare = "local_endpoint \"/tmp/x\": for a Unix socket write unix:/tmp/x";
            gives(keepsock::ErrorKind::InvalidEndpoint.code(), bare, |e| {
                keepsock_options_set_local_endpoint(options, c"/tmp/x".as_ptr(), e)
            });
            let bare = "remote_address \"/tmp/x\": for a Unix socket write unix:/tmp/x";
            gives(keepsock::ErrorKind::InvalidEndpoint.code(), bare, |e| {
                keepsock_options_add_remote_address(options, c"/tmp/x".as_ptr(), e)
            });
            // The options are unchanged, and still usable for a connection with defaults.
            let mut client = null_mut();
            let endpoint = endpoint_of(server);
            let endpoint = endpoint.as_ptr();
            assert_eq!(
                keepsock_client_connect(endpoint, options, &raw mut client, null_mut()),
                KEEPSOCK_OK
            );
            let mut fd = NO_FD;
            assert_eq!(keepsock_client_fd(client, &raw mut fd, null_mut()), KEEPSOCK_OK);
            assert_eq!(system::keepalive(fd), (true, 45, 15, 5));
            keepsock_client_free(client);
            keepsock_options_free(options);
            keepsock_serve_options_free(serve_options);
            keepsock_service_free(service);
            keepsock_reconnect_free(reconnect);
        }
    }

    /// E2: each function rejects options that are freed or of another type.
    #[test]
    fn options_of_wrong_type_are_rejected() {
        let _limit = Limit::new("options_of_wrong_type_are_rejected");
        let server = new_server();
        let (freed, token) = (new_options(), new_cancel());
        unsafe {
            keepsock_options_free(freed);
            let endpoint = endpoint_of(server);
            let endpoint = endpoint.as_ptr();
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
            for bad in [freed, token.cast()] {
                let part = "options is a freed object, or an object of another type";
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |c| keepsock_client_connect(endpoint, bad, c, e))
                });
                gives(WRONG_STATE, part, |e| {
                    let host = c"127.0.0.1".as_ptr();
                    out(no_handle(), |c| keepsock_client_connect_host(host, 80, bad, c, e))
                });
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |r| keepsock_reconnect_new(endpoint, bad, r, e))
                });
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |s| keepsock_server_listen(c"127.0.0.1:0".as_ptr(), bad, s, e))
                });
                gives(WRONG_STATE, part, |e| {
                    let one = c"127.0.0.1:0".as_ptr();
                    out(no_handle(), |s| keepsock_server_listen_all(&raw const one, 1, bad, s, e))
                });
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |c| keepsock_client_from_fd(stream.as_raw_fd(), bad, c, e))
                });
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |s| keepsock_server_from_fd(socket.as_raw_fd(), bad, s, e))
                });
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |s| {
                        let options = bad.cast();
                        keepsock_server_serve(server, options, Some(nothing), null_mut(), s, e)
                    })
                });
            }
            // A token that is a freed object, or an object of another type.
            keepsock_cancel_token_free(token);
            keepsock_cancel_token_free(token);
            let (client, options) = (new_client(server), new_options());
            let part = "cancel is a freed object, or an object of another type";
            for bad in [token, options.cast()] {
                gives(WRONG_STATE, part, |e| keepsock_options_set_cancel(options, bad, e));
                gives(WRONG_STATE, part, |e| keepsock_client_set_cancel(client, bad, e));
                gives(WRONG_STATE, part, |e| keepsock_server_set_cancel(server, bad, e));
                keepsock_cancel_token_fire(bad);
                keepsock_cancel_token_reset(bad);
                assert!(!keepsock_cancel_token_is_fired(bad));
            }
            keepsock_client_free(client);
            keepsock_client_free(client);
            keepsock_options_free(options);
            keepsock_server_free(server);
            keepsock_server_free(server);
        }
    }

    /// E2: output structures have a size argument: a program with an older header gets the members
    /// it knows, and one with a newer header finds zeros.
    #[test]
    #[cfg_attr(windows, ignore = "the library has no saved SYNs on Windows")]
    fn structures_of_other_versions_are_accepted() {
        const LARGER: usize = 2048;
        type Fill<'a> = (&'a str, usize, Box<dyn Fn(*mut c_void, usize, Error) -> i32 + 'a>);
        let _limit = Limit::new("structures_of_other_versions_are_accepted");
        let p = pair::<CApi>(Transport::Tcp);
        let (client, server) = (p.client.pointer, p.server.0);
        let refused = crate::support::refused_address().to_string();
        let refused = CString::new(refused).unwrap();
        let mut failed = null_mut();
        let mut none = null_mut();
        let status = unsafe {
            keepsock_client_connect(refused.as_ptr(), null(), &raw mut none, &raw mut failed)
        };
        assert_eq!(status, ErrorKind::Refused.code());
        let saves = cfg!(keepsock_linux);
        let saving = CApi::listen("127.0.0.1:0", &[Opt::SaveSyn(saves)]).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", saving.port())).unwrap();
        let accepted = saving.accept().unwrap();
        let saved = accepted.pointer;
        let fills: [Fill<'_>; 5] = unsafe {
            [
                (
                    "keepalive",
                    size_of::<keepsock_keepalive>(),
                    Box::new(|at, size, e| keepsock_client_keepalive(client, at.cast(), size, e)),
                ),
                (
                    "five-tuple",
                    size_of::<keepsock_five_tuple>(),
                    Box::new(|at, size, e| keepsock_client_five_tuple(client, at.cast(), size, e)),
                ),
                (
                    "counters",
                    size_of::<keepsock_server_stats>(),
                    Box::new(|at, size, e| keepsock_server_get_stats(server, at.cast(), size, e)),
                ),
                (
                    "attempt",
                    size_of::<keepsock_attempt>(),
                    Box::new(|at, size, _| keepsock_error_attempt(failed, 0, at.cast(), size)),
                ),
                (
                    "segment",
                    size_of::<keepsock_segment>(),
                    Box::new(|at, size, e| keepsock_client_saved_syn(saved, at.cast(), size, e)),
                ),
            ]
        };
        let fills = fills.into_iter().filter(|(name, _, _)| saves || *name != "segment");
        for (name, size, fill) in fills {
            let filled = |size: usize| {
                let mut buf = [0x5au8; LARGER + 8];
                assert_eq!(fill(buf.as_mut_ptr().cast(), size, null_mut()), KEEPSOCK_OK, "{name}");
                assert!(buf[size..].iter().all(|b| *b == 0x5a), "{name}: beyond its size");
                buf
            };
            let whole = filled(size);
            let larger = filled(LARGER);
            assert_eq!(larger[..size], whole[..size], "{name}");
            assert!(larger[size..LARGER].iter().all(|b| *b == 0), "{name}: not zeroed");
            let mut buf = [0x5au8; LARGER];
            for bad in [0, 1, 8, 20, size - 8, size - 4, size - 1, size + 1, usize::MAX] {
                assert_eq!(fill(buf.as_mut_ptr().cast(), bad, null_mut()), INVALID, "{name}");
                assert_eq!(fill(null_mut(), size, null_mut()), INVALID, "{name}");
            }
            assert!(buf.iter().all(|b| *b == 0x5a), "{name}");
        }
        drop(stream);
        unsafe {
            let mut attempt: keepsock_attempt = std::mem::zeroed();
            let size = size_of::<keepsock_attempt>();
            assert_eq!(keepsock_error_attempt(failed, 1, &raw mut attempt, size), NOT_FOUND);
            assert_eq!(keepsock_error_attempt(null(), 0, &raw mut attempt, size), INVALID);
            assert_eq!(keepsock_error_attempt(failed, 1, null_mut(), size), INVALID);
            assert_eq!(keepsock_error_attempt(failed, 1, &raw mut attempt, 3), INVALID);
            assert_eq!(attempt.status, 0);
            keepsock_error_free(failed);
            assert_eq!(
                keepsock_error_attempt(failed, 0, &raw mut attempt, size),
                WRONG_STATE,
                "freed"
            );
            keepsock_error_free(failed);
        }
    }

    /// E2: a handler must not free its borrowed connection, and using it after the handler has
    /// returned is an error.
    #[test]
    fn borrowed_connection_cannot_be_freed() {
        use crate::support::{Client, Service};
        let _limit = Limit::new("borrowed_connection_cannot_be_freed");
        let server = CApi::listen("127.0.0.1:0", &[]).unwrap();
        let handler = |client: &<CApi as Api>::Client| {
            unsafe { keepsock_client_free(client.pointer) };
            client.write_all(b"alive\n").unwrap();
        };
        let service = server.serve(&[], Box::new(handler)).unwrap();
        for _ in 0..3 {
            let client = CApi::connect(&server.endpoint(), &[Opt::CloseTimeout(0)]).unwrap();
            assert_eq!(client.read_line(64).unwrap(), "alive");
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        service.drain(60_000).unwrap();
    }

    /// V1: a callback finds the service in its output argument, even the callback of an earlier
    /// client. Many threads, so that the first one serves while others are started.
    #[test]
    fn callbacks_find_their_service() {
        use std::sync::atomic::AtomicU32;

        #[derive(Default)]
        struct Kept {
            service: AtomicPtr<keepsock_service>,
            found: AtomicU32,
            missed: AtomicU32,
        }
        fn look(user: *mut c_void) {
            let kept = unsafe { &*user.cast::<Kept>() };
            let service = kept.service.load(Ordering::Relaxed);
            let count = if service.is_null() { &kept.missed } else { &kept.found };
            count.fetch_add(1, Ordering::SeqCst);
        }
        unsafe extern "C" fn open(_: keepsock_conn, user: *mut c_void) {
            look(user);
        }
        unsafe extern "C" fn handler(_: *mut keepsock_client, user: *mut c_void) {
            look(user);
        }

        let _limit = Limit::new("callbacks_find_their_service");
        let options = new_serve_options();
        unsafe { keepsock_serve_options_set_threads(options, 50, null_mut()) };
        for by_events in [true, false] {
            for _ in 0..10 {
                let server = new_server();
                let client = new_client(server);
                let kept = Kept::default();
                let user = (&raw const kept).cast_mut().cast();
                let (service, e) = (kept.service.as_ptr(), null_mut());
                let served = unsafe {
                    if by_events {
                        let mut callbacks: keepsock_callbacks = std::mem::zeroed();
                        callbacks.size = size_of::<keepsock_callbacks>();
                        callbacks.on_open = Some(open);
                        let callbacks = &raw const callbacks;
                        keepsock_server_serve_events(server, options, callbacks, user, service, e)
                    } else {
                        keepsock_server_serve(server, options, Some(handler), user, service, e)
                    }
                };
                assert_eq!(served, KEEPSOCK_OK);
                while kept.found.load(Ordering::SeqCst) == 0 {
                    assert_eq!(kept.missed.load(Ordering::SeqCst), 0, "by events: {by_events}");
                    std::thread::yield_now();
                }
                unsafe {
                    keepsock_client_free(client);
                    keepsock_service_free(kept.service.load(Ordering::Relaxed));
                    keepsock_server_free(server);
                }
            }
        }
        unsafe { keepsock_serve_options_free(options) };
    }

    /// A service, and the statuses that its callbacks received from it.
    #[derive(Default)]
    struct Freed {
        service: AtomicPtr<keepsock_service>,
        statuses: Mutex<Vec<(&'static str, i32)>>,
        has_begun: AtomicBool,
    }

    impl Freed {
        fn call(&self) {
            let service = self.service.load(Ordering::SeqCst);
            let status = |name, status| self.statuses.lock().unwrap().push((name, status));
            let mut stats: keepsock_service_stats = unsafe { std::mem::zeroed() };
            let (out, size, nothing) =
                (&raw mut stats, size_of::<keepsock_service_stats>(), null_mut());
            unsafe {
                status("statistics", keepsock_service_get_stats(service, out, size, nothing));
                let (bytes, none) = (c"x".as_ptr().cast(), null_mut());
                let sent = keepsock_service_broadcast(
                    service,
                    null(),
                    bytes,
                    1,
                    none,
                    none,
                    none,
                    none,
                    nothing,
                );
                status("broadcast", sent);
                let visit = Some(ignore_connection as _);
                status("for_each", keepsock_service_for_each(service, visit, null_mut(), nothing));
                status("stop", keepsock_service_stop(service, nothing));
            }
        }

        /// Frees the service, and checks that each function succeeded in `callbacks` callbacks.
        fn free(&self, callbacks: usize) {
            let service = self.service.load(Ordering::SeqCst);
            unsafe { keepsock_service_free(service) };
            let statuses = self.statuses.lock().unwrap();
            assert_eq!(statuses.len(), 4 * callbacks, "{statuses:?}");
            assert!(statuses.iter().all(|(_, status)| *status == KEEPSOCK_OK), "{statuses:?}");
            drop(statuses);
            gives(WRONG_STATE, "freed", |e| unsafe { keepsock_service_stop(service, e) });
        }
    }

    unsafe extern "C" fn ignore_connection(_: keepsock_conn, _: *mut c_void) {}

    unsafe extern "C" fn note_open(_: keepsock_conn, user: *mut c_void) {
        unsafe { &*user.cast::<Freed>() }.has_begun.store(true, Ordering::SeqCst);
    }

    unsafe extern "C" fn call_at_close(_: keepsock_conn, _: i32, user: *mut c_void) {
        unsafe { &*user.cast::<Freed>() }.call();
    }

    unsafe extern "C" fn call_late(user: *mut c_void) {
        // The program frees the service in this time.
        std::thread::sleep(Duration::from_millis(100));
        unsafe { &*user.cast::<Freed>() }.call();
    }

    unsafe extern "C" fn read_and_call(client: *mut keepsock_client, user: *mut c_void) {
        let freed = unsafe { &*user.cast::<Freed>() };
        freed.has_begun.store(true, Ordering::SeqCst);
        let (mut buf, mut n) = ([0u8; 1], 0);
        unsafe {
            let buf = buf.as_mut_ptr().cast();
            keepsock_client_read(client, buf, 1, &raw mut n, null_mut());
            let mut stats: keepsock_service_stats = std::mem::zeroed();
            let (out, size) = (&raw mut stats, size_of::<keepsock_service_stats>());
            let service = freed.service.load(Ordering::SeqCst);
            for name in ["one", "other"] {
                let status = keepsock_service_get_stats(service, out, size, null_mut());
                let stopped = keepsock_service_stop(service, null_mut());
                freed.statuses.lock().unwrap().extend([(name, status), (name, stopped)]);
            }
        }
    }

    /// E2, V5: a service that the program frees answers its callbacks until the last one has returned.
    #[test]
    fn service_that_is_freed_answers_its_callbacks() {
        let _limit = Limit::new("service_that_is_freed_answers_its_callbacks");
        for by_events in [true, false] {
            let freed = Freed::default();
            let user = (&raw const freed).cast_mut().cast::<c_void>();
            let (mut server, mut service, mut client) = (null_mut(), null_mut(), null_mut());
            let any = c"127.0.0.1:0".as_ptr();
            unsafe {
                assert_eq!(keepsock_server_listen(any, null(), &raw mut server, null_mut()), 0);
                let out = &raw mut service;
                let served = if by_events {
                    let mut callbacks: keepsock_callbacks = std::mem::zeroed();
                    callbacks.size = size_of_val(&callbacks);
                    callbacks.on_open = Some(note_open);
                    callbacks.on_close = Some(call_at_close);
                    let callbacks = &raw const callbacks;
                    keepsock_server_serve_events(server, null(), callbacks, user, out, null_mut())
                } else {
                    let handler = Some(read_and_call as _);
                    keepsock_server_serve(server, null(), handler, user, out, null_mut())
                };
                assert_eq!(served, KEEPSOCK_OK);
                freed.service.store(service, Ordering::SeqCst);
                let port = keepsock_server_port(server);
                let endpoint = CString::new(format!("127.0.0.1:{port}")).unwrap();
                let connected =
                    keepsock_client_connect(endpoint.as_ptr(), null(), &raw mut client, null_mut());
                assert_eq!(connected, KEEPSOCK_OK);
                while !freed.has_begun.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                if by_events {
                    let posted = keepsock_service_post(service, Some(call_late), user, null_mut());
                    assert_eq!(posted, KEEPSOCK_OK);
                }
                freed.free(if by_events { 2 } else { 1 });
                keepsock_client_free(client);
                keepsock_server_free(server);
            }
        }
    }

    /// A service of datagrams, and the statuses of its handler.
    #[derive(Default)]
    struct FreedDatagrams {
        service: AtomicPtr<keepsock_datagram_service>,
        has_begun: AtomicBool,
        statuses: Mutex<Vec<i32>>,
    }

    unsafe extern "C" fn stop_late(
        _: *mut keepsock_datagram,
        _: *const keepsock_datagram_info,
        _: *const c_void,
        _: usize,
        user: *mut c_void,
    ) {
        let freed = unsafe { &*user.cast::<FreedDatagrams>() };
        freed.has_begun.store(true, Ordering::SeqCst);
        // The program frees the service in this time.
        std::thread::sleep(Duration::from_millis(100));
        let service = freed.service.load(Ordering::SeqCst);
        let status = unsafe { keepsock_datagram_service_stop(service, null_mut()) };
        freed.statuses.lock().unwrap().push(status);
    }

    /// E2, V5: the same for a service of datagrams.
    #[test]
    fn datagram_service_that_is_freed_answers_its_handler() {
        let _limit = Limit::new("datagram_service_that_is_freed_answers_its_handler");
        let freed = FreedDatagrams::default();
        let user = (&raw const freed).cast_mut().cast::<c_void>();
        let (mut socket, mut service) = (null_mut(), null_mut());
        unsafe {
            let any = c"127.0.0.1:0".as_ptr();
            assert_eq!(keepsock_datagram_bind(any, null(), &raw mut socket, null_mut()), 0);
            let (handler, out) = (Some(stop_late as _), &raw mut service);
            let served = keepsock_datagram_serve(socket, null(), handler, user, out, null_mut());
            assert_eq!(served, KEEPSOCK_OK);
            freed.service.store(service, Ordering::SeqCst);
            let mut name = [0u8; 64];
            let (buf, none) = (name.as_mut_ptr().cast(), null_mut());
            assert_eq!(keepsock_datagram_endpoint(socket, buf, 64, none, null_mut()), KEEPSOCK_OK);
            let name = text(name.as_ptr().cast());
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", name.trim_start_matches("udp:")).unwrap();
            while !freed.has_begun.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            keepsock_datagram_service_free(service);
            assert_eq!(*freed.statuses.lock().unwrap(), [KEEPSOCK_OK]);
            keepsock_datagram_free(socket);
        }
    }

    /// E2: this file calls each function of the headers.
    #[test]
    fn each_function_of_the_headers_is_called() {
        let header = crate::support::header::text();
        let here = include_str!("errors.rs");
        let code: String = header
            .lines()
            .filter(|line| !line.trim_start().starts_with('*') && !line.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        let mut count = 0;
        for (at, _) in code.match_indices("keepsock_") {
            let name = code[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            let name = name.unwrap();
            if code[at + name.len()..].starts_with('(') {
                count += 1;
                assert!(here.matches(name).count() > 0, "{name} is not called here");
            }
        }
        assert!(count > 80, "only {count} functions were found in the header");
    }
}
