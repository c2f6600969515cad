//! E1: numbers for programs, sentences for people. E2: calls that cannot be right get an
//! error and no more. E3: no panic crosses the boundary.
#![cfg(target_os = "linux")]
// Generic functions are tests that Clippy does not know for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Calling C functions as they must not be called is what this file is for.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

mod common;

use keepsock::ErrorKind;

/// E1: the table of numbers. A number never changes its meaning and is never used again.
const NUMBERS: [(ErrorKind, i32, &str); 27] = [
    (ErrorKind::InvalidArgument, -1, "invalid argument"),
    (ErrorKind::InvalidEndpoint, -2, "invalid endpoint"),
    (ErrorKind::WrongState, -3, "wrong state"),
    (ErrorKind::Unsupported, -4, "not supported here"),
    (ErrorKind::NoMemory, -5, "out of memory"),
    (ErrorKind::Panic, -6, "internal error"),
    (ErrorKind::Closed, -10, "closed"),
    (ErrorKind::Cancelled, -11, "cancelled"),
    (ErrorKind::TimedOut, -12, "timed out"),
    (ErrorKind::WouldBlock, -13, "would block"),
    (ErrorKind::Draining, -14, "draining"),
    (ErrorKind::EndOfStream, -15, "end of stream"),
    (ErrorKind::TooLong, -16, "longer than the maximum"),
    (ErrorKind::IdleLimit, -17, "idle limit"),
    (ErrorKind::HeartbeatMissed, -18, "heartbeat missed"),
    (ErrorKind::NotFound, -30, "not found"),
    (ErrorKind::LookupFailed, -31, "name lookup failed"),
    (ErrorKind::Refused, -40, "connection refused"),
    (ErrorKind::Unreachable, -41, "unreachable"),
    (ErrorKind::Reset, -42, "connection reset by peer"),
    (ErrorKind::Dead, -43, "peer is dead"),
    (ErrorKind::AddressInUse, -44, "address in use"),
    (ErrorKind::AddressNotAvailable, -45, "address not available"),
    (ErrorKind::PermissionDenied, -46, "permission denied"),
    (ErrorKind::NoDescriptors, -47, "out of file descriptors"),
    (ErrorKind::Stalled, -48, "peer takes no data"),
    (ErrorKind::Os, -99, "operating system error"),
];

/// E1: the numbers and the words of Rust's kinds.
#[test]
fn numbers_are_pinned() {
    for (kind, code, text) in NUMBERS {
        assert_eq!((kind.code(), kind.to_string().as_str()), (code, text));
    }
}

mod both {
    use super::common::{Api, Client, Opt, Server, Transport, fails, pair};
    use super::*;

    use crate::both_apis;

    both_apis![one_line_tells_the_story, the_system_is_quoted_where_it_says_more];

    /// E1: operation, endpoint, stage and reason, in one line.
    fn one_line_tells_the_story<A: Api>() {
        let p = pair::<A>(Transport::Tcp);
        let endpoint = p.server.endpoint();
        let listening = fails(A::listen(&endpoint, &[]), ErrorKind::AddressInUse);
        assert_eq!(listening.message, format!("listen {endpoint}: bind: address in use"));
        assert_eq!((listening.operation.as_str(), listening.endpoint), ("listen", endpoint));
        assert_eq!(&*listening.stage, "bind");
        let text = "connect to \"nonsense\": no port: write host:port";
        assert_eq!(fails(A::connect("nonsense", &[]), ErrorKind::InvalidEndpoint).message, text);
        let text = "keepalive: invalid argument: count 0 is not within 1 to 127";
        let failure = fails(p.client.set_keepalive(1000, 1000, 0), ErrorKind::InvalidArgument);
        assert_eq!(failure.message, text);
        p.client.close().unwrap();
        let failure = fails(p.client.write_all(b"x"), ErrorKind::Closed);
        assert_eq!(failure.message, format!("write {}: closed", p.client.name()));
    }

    /// E1: the system's number and words, where they say more than ours.
    fn the_system_is_quoted_where_it_says_more<A: Api>() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (_, failure) = A::adopt_client(file.into(), &[]).err().unwrap();
        assert_eq!((failure.status, failure.os_error), (-99, libc::ENOTSOCK));
        assert!(failure.message.contains("Socket operation on non-socket"), "{failure:?}");
        // A timeout is ours: no number of the system's.
        let p = pair::<A>(Transport::Tcp);
        p.server.set_accept_timeout(1).unwrap();
        assert_eq!(fails(p.server.accept(), ErrorKind::TimedOut).os_error, 0);
        let options = [Opt::Interface("nosuchiface0")];
        let failure = A::connect(&p.server.endpoint(), &options).err().unwrap();
        assert_eq!(failure.os_error, libc::ENODEV);
        assert!(failure.message.contains("No such device"), "{failure:?}");
    }
}

#[cfg(feature = "capi")]
mod c_only {
    use std::ffi::{CString, c_char, c_void};
    use std::fmt::Debug;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::ptr::{null, null_mut};

    use keepsock::ffi::*;

    use super::common::{Api, CApi, Limit, Opt, Server, Transport, pair, system};
    use super::{ErrorKind, NUMBERS};

    const INVALID: i32 = -1;
    const WRONG_STATE: i32 = -3;

    type Error = *mut *mut keepsock_error;

    fn text(pointer: *const c_char) -> String {
        assert!(!pointer.is_null());
        unsafe { std::ffi::CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
    }

    /// Makes a call with and without an error argument: both times it has the status,
    /// and the error's message contains `part`.
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
            keepsock_error_free(error);
        }
    }

    /// Gives a call somewhere to write, and sees that a failing one did not.
    #[track_caller]
    fn out<T: Copy + PartialEq + Debug>(before: T, call: impl FnOnce(*mut T) -> i32) -> i32 {
        let mut value = before;
        let status = call(&raw mut value);
        if status != KEEPSOCK_OK {
            assert_eq!(value, before, "an output was written by a call that failed");
        }
        status
    }

    /// A pointer for outputs that are handles, which nothing may write.
    fn no_handle<T>() -> *mut T {
        std::ptr::without_provenance_mut(0x5a5a_5a50)
    }

    /// E1: the numbers, names and words of C's statuses.
    #[test]
    fn statuses_have_names_and_words() {
        for (kind, code, words) in NUMBERS {
            assert_eq!(text(keepsock_status_text(code)), words);
            let name = text(keepsock_status_name(code));
            let plain = name.strip_prefix("KEEPSOCK_ERR_").unwrap().replace('_', "");
            assert_eq!(plain.to_lowercase(), format!("{kind:?}").to_lowercase());
        }
        let known = |code| code == 0 || NUMBERS.iter().any(|n| n.1 == code);
        for code in (-200..=10).chain([i32::MIN, i32::MAX]).filter(|c| !known(*c)) {
            assert_eq!(text(keepsock_status_name(code)), "KEEPSOCK_ERR_UNKNOWN");
            assert_eq!(text(keepsock_status_text(code)), "unknown status");
        }
        assert_eq!(text(keepsock_status_name(KEEPSOCK_OK)), "KEEPSOCK_OK");
        assert_eq!(text(keepsock_status_text(KEEPSOCK_OK)), "ok");
        assert_eq!(text(keepsock_version()), env!("CARGO_PKG_VERSION"));
    }

    /// E2: NULL reads as "no error", no object, nothing.
    #[test]
    fn null_reads_as_nothing() {
        unsafe {
            assert_eq!(keepsock_error_status(null()), KEEPSOCK_OK);
            assert_eq!(text(keepsock_error_message(null())), "no error");
            assert_eq!(text(keepsock_error_operation(null())), "");
            assert_eq!(text(keepsock_error_stage(null())), "");
            assert_eq!(text(keepsock_error_endpoint(null())), "");
            assert_eq!(keepsock_error_os_error(null()), 0);
            assert_eq!(keepsock_error_transferred(null()), 0);
            assert_eq!(keepsock_error_attempt_count(null()), 0);
            assert_eq!(keepsock_client_buffered(null()), 0);
            assert_eq!(text(keepsock_client_name(null())), "");
            gives(INVALID, "client is NULL", |e| {
                out(no_handle(), |c| keepsock_client_ref(null(), c, e))
            });
            assert_eq!(keepsock_client_end(null()), 0);
            assert!(!keepsock_client_is_mptcp(null()));
            assert_eq!(keepsock_server_state(null()), 7);
            assert_eq!(text(keepsock_end_text(77)), "");
            for state in [i32::MIN, -1, 0, 12, i32::MAX] {
                assert_eq!(text(keepsock_tcp_state_name(state)), "UNKNOWN");
            }
            assert_eq!(text(keepsock_server_endpoint(null())), "");
            assert_eq!(keepsock_server_endpoint_count(null()), 0);
            assert_eq!(text(keepsock_server_endpoint_at(null(), 0)), "");
            assert_eq!(keepsock_server_port(null()), 0);
            assert_eq!(keepsock_service_connections(null()), 0);
            assert_eq!(text(keepsock_handshake_lines(null())), "");
            assert_eq!(text(keepsock_handshake_diagram(null())), "");
            keepsock_cancel_fire(null());
            keepsock_cancel_reset(null());
            assert!(!keepsock_cancel_is_fired(null()));
            keepsock_error_free(null_mut());
            keepsock_cancel_free(null_mut());
            keepsock_options_free(null_mut());
            keepsock_client_free(null_mut());
            keepsock_connecting_free(null_mut());
            assert_eq!(keepsock_connecting_attempt_count(null()), 0);
            keepsock_server_free(null_mut());
            assert_eq!(text(keepsock_datagram_endpoint(null())), "");
            assert_eq!(text(keepsock_datagram_name(null())), "");
            assert_eq!(keepsock_datagram_port(null()), 0);
            assert_eq!(keepsock_datagram_error_count(null()), 0);
            keepsock_datagram_free(null_mut());
            assert_eq!(keepsock_datagram_service_received(null()), 0);
            keepsock_datagram_service_free(null_mut());
            keepsock_serve_options_free(null_mut());
            keepsock_service_free(null_mut());
            keepsock_reconnect_free(null_mut());
            keepsock_inherited_free(null_mut());
            assert_eq!(keepsock_inherited_count(null()), 0);
            assert_eq!(text(keepsock_inherited_name(null(), 0)), "");
            assert_eq!(keepsock_log_set(None, null_mut(), 0, null_mut()), KEEPSOCK_OK);
            keepsock_capture_free(null_mut());
            keepsock_handshake_free(null_mut());
        }
    }

    unsafe extern "C" fn nothing(_: *mut keepsock_client, _: *mut c_void) {}

    unsafe extern "C" fn not_told(_: *mut c_void, _: i32, _: *const c_char, _: *const c_char) {}

    fn new_options() -> *mut keepsock_options {
        let mut options = null_mut();
        assert_eq!(unsafe { keepsock_options_new(&raw mut options, null_mut()) }, KEEPSOCK_OK);
        options
    }

    fn new_cancel() -> *mut keepsock_cancel {
        let mut cancel = null_mut();
        assert_eq!(unsafe { keepsock_cancel_new(&raw mut cancel, null_mut()) }, KEEPSOCK_OK);
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

    fn new_client(server: *mut keepsock_server) -> *mut keepsock_client {
        let mut client = null_mut();
        unsafe {
            let endpoint = keepsock_server_endpoint(server);
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

    /// To where nobody listens.
    fn new_reconnect() -> *mut keepsock_reconnect {
        let endpoint = CString::new(super::common::refused_address().to_string()).unwrap();
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
        assert_eq!(status, KEEPSOCK_OK);
        Some(capture)
    }

    fn new_handshake(
        capture: *mut keepsock_capture,
        client: *mut keepsock_client,
    ) -> *mut keepsock_handshake {
        let mut handshake = null_mut();
        let status = unsafe {
            keepsock_capture_handshake(capture, client, 5000, &raw mut handshake, null_mut())
        };
        assert_eq!(status, KEEPSOCK_OK);
        handshake
    }

    type Call<T> = fn(*mut T, Error) -> i32;

    /// A descriptor that is open.
    static ZERO: keepsock_fd = 0;

    /// Each function of a connection, with arguments that would be right.
    fn client_calls() -> Vec<Call<keepsock_client>> {
        fn buf() -> *mut c_void {
            // Leaked: a call that did fill it must find memory.
            Box::leak(Box::new([0u8; 64])).as_mut_ptr().cast()
        }
        unsafe {
            vec![
                |c, e| out(77usize, |n| keepsock_client_read(c, buf(), 64, n, e)),
                |c, e| keepsock_client_read_exact(c, buf(), 64, e),
                |c, e| {
                    let buffer = keepsock_buffer { data: buf(), cap: 64 };
                    out(77usize, |n| keepsock_client_read_slices(c, &raw const buffer, 1, n, e))
                },
                |c, e| out(77usize, |n| keepsock_client_read_until(c, b';', buf(), 64, n, e)),
                |c, e| out(77usize, |n| keepsock_client_read_line(c, buf().cast(), 64, n, e)),
                |c, e| out(77usize, |n| keepsock_client_write(c, buf(), 64, n, e)),
                |c, e| keepsock_client_write_all(c, buf(), 64, e),
                |c, e| out(77usize, |n| keepsock_client_read_message(c, 2, buf(), 64, n, e)),
                |c, e| keepsock_client_write_message(c, 2, buf(), 64, e),
                |c, e| keepsock_client_write_str(c, c"x".as_ptr(), e),
                |c, e| {
                    let slice = keepsock_slice { data: buf(), len: 64 };
                    keepsock_client_write_slices(c, &raw const slice, 1, e)
                },
                |c, e| {
                    out(77usize, |n| {
                        keepsock_client_write_fds(c, buf(), 64, &raw const ZERO, 1, n, e)
                    })
                },
                |c, e| {
                    let mut fds = [-7; 2];
                    let status = out(77usize, |n| {
                        let (mut count, mut lost) = (78, false);
                        let (fds, counted) = (fds.as_mut_ptr(), &raw mut count);
                        let lost_ = &raw mut lost;
                        let s =
                            keepsock_client_read_fds(c, buf(), 64, fds, 2, n, counted, lost_, e);
                        assert_eq!((count, lost), (78, false));
                        s
                    });
                    assert_eq!(fds, [-7; 2]);
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
                |c, e| keepsock_client_set_keepalive(c, 1000, 1000, 1, e),
                |c, e| keepsock_client_disable_keepalive(c, e),
                |c, e| {
                    out([0x5au8; 64], |k| {
                        keepsock_client_keepalive(c, k.cast(), size_of::<keepsock_keepalive>(), e)
                    })
                },
                |c, e| keepsock_client_set_read_timeout(c, 1000, e),
                |c, e| keepsock_client_set_write_timeout(c, 1000, e),
                |c, e| keepsock_client_set_close_timeout(c, 1000, e),
                |c, e| keepsock_client_set_nonblocking(c, true, e),
                |c, e| keepsock_client_set_cancel(c, null(), e),
                |c, e| {
                    out([0x5au8; 512], |t| {
                        keepsock_client_five_tuple(c, t.cast(), size_of::<keepsock_five_tuple>(), e)
                    })
                },
                |c, e| out(77, |next| keepsock_client_check_alive(c, next, e)),
                |c, e| {
                    out([0x5au8; 512], |s| {
                        keepsock_client_snapshot(c, s.cast(), size_of::<keepsock_snapshot>(), e)
                    })
                },
                |c, e| out(77, |state| keepsock_client_state(c, state, e)),
                |c, e| out(77, |ms| keepsock_client_user_timeout(c, ms, e)),
                |c, e| out(77, |fd| keepsock_client_fd(c, fd, e)),
                |c, e| out(77, |fd| keepsock_client_release_fd(c, fd, e)),
                |c, e| {
                    out([0x5au8; 1024], |s| {
                        keepsock_client_syn(c, s.cast(), size_of::<keepsock_segment>(), e)
                    })
                },
            ]
        }
    }

    fn capture_calls() -> Vec<Call<keepsock_capture>> {
        unsafe {
            vec![
                |c, e| out(no_handle(), |h| keepsock_capture_handshake(c, null(), 0, h, e)),
                |c, e| {
                    let (one, other) = (c"127.0.0.1:1".as_ptr(), c"127.0.0.1:2".as_ptr());
                    out(no_handle(), |h| keepsock_capture_handshake_between(c, one, other, 0, h, e))
                },
            ]
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
                |h, e| {
                    out(77, |client| {
                        out(77, |server| keepsock_handshake_states(h, 0, client, server, e))
                    })
                },
                |h, e| out(77u32, |n| keepsock_handshake_retransmissions(h, 0, n, e)),
            ]
        }
    }

    fn server_calls() -> Vec<Call<keepsock_server>> {
        unsafe {
            vec![
                |s, e| out(no_handle(), |c| keepsock_server_accept(s, c, e)),
                |s, e| {
                    out([0x5au8; 64], |n| {
                        keepsock_server_counters_get(
                            s,
                            n.cast(),
                            size_of::<keepsock_server_counters>(),
                            e,
                        )
                    })
                },
                |s, e| keepsock_server_set_accept_timeout(s, 1000, e),
                |s, e| keepsock_server_set_nonblocking(s, true, e),
                |s, e| keepsock_server_set_cancel(s, null(), e),
                |s, e| out(77, |fd| keepsock_server_fd(s, fd, e)),
                |s, e| out(77, |fd| keepsock_server_fd_at(s, 0, fd, e)),
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

    /// An address that would be right, though nobody is there.
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

    fn outgoing(data: *const c_void, len: usize) -> keepsock_outgoing {
        let mut local = somebody();
        local.family = 0;
        keepsock_outgoing { data, len, to: somebody(), local, interface_index: 0, question: null() }
    }

    /// Each function of a datagram socket, with arguments that would be right.
    fn datagram_calls() -> Vec<Call<keepsock_datagram>> {
        unsafe {
            vec![
                |d, e| keepsock_datagram_send(d, b"x".as_ptr().cast(), 1, e),
                |d, e| {
                    let to = somebody();
                    keepsock_datagram_send_to(d, b"x".as_ptr().cast(), 1, &raw const to, e)
                },
                |d, e| keepsock_datagram_send_fds(d, null(), 0, null(), null(), 0, e),
                |d, e| {
                    out([0x5au8; 256], |i| {
                        let size = size_of::<keepsock_datagram_info>();
                        let (none, count) = (null_mut(), &mut 0);
                        let lost = null_mut();
                        keepsock_datagram_recv_fds(
                            d,
                            none,
                            0,
                            i.cast(),
                            size,
                            null_mut(),
                            0,
                            count,
                            lost,
                            e,
                        )
                    })
                },
                |d, e| {
                    let to = c"127.0.0.1:9".as_ptr();
                    keepsock_datagram_send_to_endpoint(d, b"x".as_ptr().cast(), 1, to, e)
                },
                |d, e| {
                    let mut question: keepsock_datagram_info = std::mem::zeroed();
                    question.from = somebody();
                    let question = &raw const question;
                    keepsock_datagram_reply(d, question, b"x".as_ptr().cast(), 1, e)
                },
                |d, e| {
                    out([0x5au8; 256], |i| {
                        let size = size_of::<keepsock_datagram_info>();
                        keepsock_datagram_recv(d, null_mut(), 0, i.cast(), size, e)
                    })
                },
                |d, e| {
                    let one = outgoing(b"x".as_ptr().cast(), 1);
                    let one = &raw const one;
                    out(77usize, |n| keepsock_datagram_send_batch(d, one, 1, n, e))
                },
                |d, e| {
                    out([0x5au8; 256], |b| {
                        let size = size_of::<keepsock_incoming>();
                        keepsock_datagram_recv_batch(d, b.cast(), 1, size, &mut 0, e)
                    })
                },
                |d, e| keepsock_datagram_set_broadcast(d, true, e),
                |d, e| {
                    let group = group();
                    keepsock_datagram_join(d, &raw const group, c"lo".as_ptr(), null(), e)
                },
                |d, e| {
                    let group = group();
                    keepsock_datagram_leave(d, &raw const group, c"lo".as_ptr(), null(), e)
                },
                |d, e| keepsock_datagram_set_multicast_loop(d, true, e),
                |d, e| keepsock_datagram_set_multicast_ttl(d, 1, e),
                |d, e| keepsock_datagram_set_multicast_interface(d, c"lo".as_ptr(), e),
                |d, e| keepsock_datagram_set_report_errors(d, true, e),
                |d, e| keepsock_datagram_set_ttl(d, 1, e),
                |d, e| keepsock_datagram_set_tos(d, 1, e),
                |d, e| keepsock_datagram_set_dont_fragment(d, true, e),
                |d, e| keepsock_datagram_set_details(d, true, e),
                |d, e| out(77u32, |mtu| keepsock_datagram_path_mtu(d, mtu, e)),
                |d, e| {
                    out([0x5au8; 256], |o| {
                        let size = size_of::<keepsock_datagram_stats>();
                        keepsock_datagram_snapshot(d, o.cast(), size, e)
                    })
                },
                |d, e| {
                    out(no_handle(), |s| {
                        keepsock_datagram_serve(d, 1, Some(on_datagram), null_mut(), s, e)
                    })
                },
                |d, e| {
                    out([0x5au8; 256], |o| {
                        let size = size_of::<keepsock_datagram_error>();
                        keepsock_datagram_recv_error(d, o.cast(), size, e)
                    })
                },
                |d, e| {
                    out([0x5au8; 512], |t| {
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
        // The socket is left behind: it must outlive the service.
        let mut service = null_mut();
        let status = unsafe {
            let (datagram, at) = (new_datagram(), &raw mut service);
            keepsock_datagram_serve(datagram, 1, Some(on_datagram), null_mut(), at, null_mut())
        };
        assert_eq!(status, KEEPSOCK_OK);
        service
    }

    fn datagram_service_calls() -> Vec<Call<keepsock_datagram_service>> {
        unsafe {
            vec![|s, e| keepsock_datagram_service_stop(s, e), |s, e| {
                keepsock_datagram_service_wait(s, 1000, e)
            }]
        }
    }

    /// E2: what a datagram socket's functions cannot take.
    #[test]
    fn datagrams_and_addresses() {
        let _limit = Limit::new("datagrams_and_addresses");
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
                gives(WRONG_STATE, "options was freed", |e| {
                    out(no_handle(), |d| make(endpoint, freed, d, e))
                });
            }
            gives(INVALID, "fd is negative", |e| {
                out(no_handle(), |d| keepsock_datagram_from_fd(-1, null(), d, e))
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_datagram_from_fd(0, null(), null_mut(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_datagram_send_to(datagram, null(), 1, &raw const to, e)
            });
            gives(INVALID, "out of range", |e| {
                keepsock_datagram_send_to(datagram, data, usize::MAX, &raw const to, e)
            });
            gives(INVALID, "to is NULL", |e| {
                keepsock_datagram_send_to(datagram, data, 1, null(), e)
            });
            gives(INVALID, "to has no address", |e| {
                keepsock_datagram_send_to(datagram, data, 1, &raw const none, e)
            });
            gives(INVALID, "address of family 5", |e| {
                keepsock_datagram_send_to(datagram, data, 1, &raw const odd, e)
            });
            gives(INVALID, "question is NULL", |e| {
                keepsock_datagram_reply(datagram, null(), data, 1, e)
            });
            let nobody: keepsock_datagram_info = std::mem::zeroed();
            gives(INVALID, "question has no address", |e| {
                keepsock_datagram_reply(datagram, &raw const nobody, data, 1, e)
            });
            let size = size_of::<keepsock_datagram_info>();
            gives(INVALID, "info is NULL", |e| {
                keepsock_datagram_recv(datagram, null_mut(), 0, null_mut(), size, e)
            });
            gives(INVALID, "is below", |e| {
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
            for member in [keepsock_datagram_join, keepsock_datagram_leave] {
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
            gives(INVALID, "sent is NULL", |e| {
                keepsock_datagram_send_batch(datagram, &raw const good, 1, null_mut(), e)
            });
            for (batch, count, part) in [
                (null(), 1, "batch is NULL"),
                (&raw const bad, 1, "buf is NULL"),
                (&raw const good, usize::MAX, "out of range"),
            ] {
                gives(INVALID, part, |e| {
                    out(77usize, |n| keepsock_datagram_send_batch(datagram, batch, count, n, e))
                });
            }
            let mut one: keepsock_incoming = std::mem::zeroed();
            let batch = &raw mut one;
            let size = size_of::<keepsock_incoming>();
            for (batch, count, size, part) in [
                (null_mut(), 1, size, "batch is NULL"),
                (batch, 1, size - 1, "is below"),
                (batch, 1, size + 1, "no size of an array's entry"),
                (batch, usize::MAX, size, "out of range"),
            ] {
                gives(INVALID, part, |e| {
                    out(77usize, |n| {
                        keepsock_datagram_recv_batch(datagram, batch, count, size, n, e)
                    })
                });
            }
            gives(INVALID, "received is NULL", |e| {
                keepsock_datagram_recv_batch(datagram, batch, 1, size, null_mut(), e)
            });
            (*batch).cap = 1;
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_datagram_recv_batch(datagram, batch, 1, size, n, e))
            });
            let size = size_of::<keepsock_datagram_error>();
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_recv_error(datagram, null_mut(), size, e)
            });
            gives(INVALID, "is below", |e| {
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
                keepsock_datagram_send_to_endpoint(datagram, data, 1, null(), e)
            });
            gives(-2, "not a numeric address", |e| {
                let named = c"localhost:9".as_ptr();
                keepsock_datagram_send_to_endpoint(datagram, data, 1, named, e)
            });
            let mut unix: keepsock_datagram_info = std::mem::zeroed();
            (unix.from.family, unix.unix_name_len) = (1, 109);
            gives(INVALID, "unix_name_len is above 108", |e| {
                keepsock_datagram_reply(datagram, &raw const unix, data, 1, e)
            });
            unix.unix_name_len = 5;
            gives(INVALID, "not of the socket's family", |e| {
                keepsock_datagram_reply(datagram, &raw const unix, data, 1, e)
            });
            gives(INVALID, "goes as an endpoint", |e| {
                keepsock_datagram_send_to(datagram, data, 1, &raw const unix.from, e)
            });
            gives(INVALID, "mtu is NULL", |e| keepsock_datagram_path_mtu(datagram, null_mut(), e));
            gives(INVALID, "out is NULL", |e| {
                keepsock_datagram_snapshot(datagram, null_mut(), 512, e)
            });
            gives(INVALID, "0 would reach nobody", |e| keepsock_datagram_set_ttl(datagram, 0, e));
            let serve = |threads, handler, service, e| {
                keepsock_datagram_serve(datagram, threads, handler, null_mut(), service, e)
            };
            gives(INVALID, "service is NULL", |e| serve(1, Some(on_datagram), null_mut(), e));
            gives(INVALID, "handler is NULL", |e| out(no_handle(), |s| serve(1, None, s, e)));
            gives(INVALID, "0 threads", |e| {
                out(no_handle(), |s| serve(0, Some(on_datagram), s, e))
            });
            let mut service = null_mut();
            assert_eq!(serve(1, Some(on_datagram), &raw mut service, null_mut()), KEEPSOCK_OK);
            for ms in [-2, i64::MIN] {
                gives(INVALID, "", |e| keepsock_datagram_service_wait(service, ms, e));
            }
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
            gives(ErrorKind::TooLong.code(), "12 bytes are needed", |e| {
                keepsock_address_text(&raw const to, buf, 11, at, e)
            });
            assert_eq!(needed, 12);
            keepsock_datagram_free(datagram);
        }
    }

    fn options_calls() -> Vec<Call<keepsock_options>> {
        unsafe {
            vec![
                |o, e| keepsock_options_set_keepalive(o, 1000, 1000, 1, e),
                |o, e| keepsock_options_disable_keepalive(o, e),
                |o, e| keepsock_options_set_nodelay(o, true, e),
                |o, e| keepsock_options_set_connect_timeout(o, 1000, e),
                |o, e| keepsock_options_set_read_timeout(o, 1000, e),
                |o, e| keepsock_options_set_write_timeout(o, 1000, e),
                |o, e| keepsock_options_set_close_timeout(o, 1000, e),
                |o, e| keepsock_options_set_family(o, 4, e),
                |o, e| keepsock_options_set_local(o, c"127.0.0.1:0".as_ptr(), e),
                |o, e| keepsock_options_set_interface(o, c"lo".as_ptr(), e),
                |o, e| keepsock_options_add_address(o, c"127.0.0.1:1".as_ptr(), e),
                |o, e| keepsock_options_set_backlog(o, 1, e),
                |o, e| keepsock_options_set_fast_open(o, true, e),
                |o, e| keepsock_options_set_mptcp(o, false, e),
                |o, e| keepsock_options_set_unix_mode(o, 0o600, e),
                |o, e| keepsock_options_set_unix_owner(o, -1, 0, e),
                |o, e| keepsock_options_allow_user(o, 0, e),
                |o, e| keepsock_options_set_sequenced(o, true, e),
                |o, e| keepsock_options_set_attempt_delay(o, 100, e),
                |o, e| keepsock_options_set_dead_after(o, 2000, e),
                |o, e| keepsock_options_set_end_stalled(o, false, e),
                |o, e| keepsock_options_set_survive_idle(o, 2000, e),
                |o, e| keepsock_options_set_heartbeat(o, b"x".as_ptr().cast(), 1, 1000, e),
                |o, e| keepsock_options_set_idle_limit(o, 2000, e),
                |o, e| keepsock_options_set_first_byte_limit(o, 2000, e),
                |o, e| keepsock_options_set_last_snapshot(o, true, e),
                |o, e| keepsock_options_set_save_syn(o, true, e),
                |o, e| keepsock_options_set_coalescing(o, true, e),
                |o, e| keepsock_options_set_hand_over(o, true, e),
                |o, e| {
                    let cancel = new_cancel();
                    let status = keepsock_options_set_cancel(o, cancel, e);
                    keepsock_cancel_free(cancel);
                    status
                },
            ]
        }
    }

    fn connecting_calls() -> Vec<Call<keepsock_connecting>> {
        unsafe {
            vec![
                |c, e| out(no_handle(), |client| keepsock_connecting_wait(c, client, e)),
                |c, e| out(no_handle(), |client| keepsock_connecting_finish(c, client, e)),
                |c, e| out(77, |fd| keepsock_connecting_fd(c, fd, e)),
                |c, e| out(77, |ms| keepsock_connecting_timeout(c, ms, e)),
                |c, e| {
                    out([0x5au8; 512], |a| {
                        keepsock_connecting_attempt(
                            c,
                            0,
                            a.cast(),
                            size_of::<keepsock_attempt>(),
                            e,
                        )
                    })
                },
                |c, e| {
                    out([0x5au8; 512], |a| {
                        keepsock_connecting_under_way(
                            c,
                            0,
                            a.cast(),
                            size_of::<keepsock_under_way>(),
                            e,
                        )
                    })
                },
            ]
        }
    }

    fn new_connecting() -> *mut keepsock_connecting {
        let mut connecting = null_mut();
        let endpoint = super::common::refused_address().to_string();
        let endpoint = CString::new(endpoint).unwrap();
        let started = unsafe {
            keepsock_connecting_start(endpoint.as_ptr(), null(), &raw mut connecting, null_mut())
        };
        assert_eq!(started, KEEPSOCK_OK);
        connecting
    }

    fn serve_options_calls() -> Vec<Call<keepsock_serve_options>> {
        unsafe {
            vec![
                |o, e| keepsock_serve_options_set_max_connections(o, 1, e),
                |o, e| keepsock_serve_options_set_when_full(o, 1, e),
                |o, e| keepsock_serve_options_set_max_per_address(o, 1, e),
                |o, e| keepsock_serve_options_allow(o, c"127.0.0.0/8".as_ptr(), e),
                |o, e| keepsock_serve_options_deny(o, c"::1".as_ptr(), e),
                |o, e| keepsock_serve_options_set_threads(o, 1, e),
                |o, e| keepsock_serve_options_set_lines(o, 10, e),
                |o, e| keepsock_serve_options_set_delimiter(o, 0, 10, e),
                |o, e| keepsock_serve_options_set_length_prefix(o, 1, 10, e),
                |o, e| keepsock_serve_options_set_max_queued(o, 10, e),
                |o, e| keepsock_serve_options_set_when_slow(o, 0, e),
            ]
        }
    }

    fn service_calls() -> Vec<Call<keepsock_service>> {
        unsafe {
            vec![
                |s, e| {
                    let seven = keepsock_broadcast { sent: 7, cut: 7, dropped: 7 };
                    let mut result = seven;
                    let (x, out) = (b"x".as_ptr().cast(), &raw mut result);
                    let size = size_of_val(&result);
                    let status = keepsock_service_broadcast(s, x, 1, out, size, e);
                    let g = c"group".as_ptr();
                    assert_eq!(
                        keepsock_service_broadcast_to(s, g, x, 1, out, size, null_mut()),
                        status
                    );
                    assert_eq!((result.sent, result.cut, result.dropped), (7, 7, 7));
                    status
                },
                |s, e| keepsock_service_add(s, null_mut(), null_mut(), e),
                |s, e| keepsock_service_connect(s, c"127.0.0.1:1".as_ptr(), null(), null_mut(), e),
                |s, e| {
                    let mut stats: keepsock_service_stats = std::mem::zeroed();
                    stats.opened = 7;
                    let size = size_of_val(&stats);
                    let status = keepsock_service_snapshot(s, &raw mut stats, size, e);
                    assert_eq!(stats.opened, 7);
                    status
                },
                |s, e| out(77, |needed| keepsock_service_dump(s, null_mut(), 0, needed, e)),
                |s, e| keepsock_service_stop(s, e),
                |s, e| keepsock_service_wait(s, 0, e),
                |s, e| out(77, |left| keepsock_service_finish(s, 0, left, e)),
                |s, e| {
                    out(77, |finished| {
                        out(77, |cut| keepsock_service_drain(s, 0, finished, cut, e))
                    })
                },
            ]
        }
    }

    fn reconnect_calls() -> Vec<Call<keepsock_reconnect>> {
        unsafe {
            vec![
                |r, e| keepsock_reconnect_set_back_off(r, 10, 1000, e),
                |r, e| keepsock_reconnect_set_limit(r, 1000, e),
                |r, e| keepsock_reconnect_set_on_retry(r, None, null_mut(), e),
                |r, e| keepsock_reconnect_reset(r, e),
                |r, e| out(no_handle(), |c| keepsock_reconnect_connect(r, c, e)),
            ]
        }
    }

    fn connection_calls() -> Vec<Call<keepsock_connection>> {
        unsafe {
            vec![
                |c, e| keepsock_connection_send(c, b"x".as_ptr().cast(), 1, e),
                |c, e| keepsock_connection_set_timer(c, 10, e),
                |c, e| keepsock_connection_join(c, c"group".as_ptr(), e),
                |c, e| keepsock_connection_leave(c, c"group".as_ptr(), e),
                |c, e| {
                    let mut t: keepsock_five_tuple = std::mem::zeroed();
                    let size = size_of_val(&t);
                    let status = keepsock_connection_five_tuple(c, &raw mut t, size, e);
                    assert_eq!(t.protocol, 0);
                    status
                },
                |c, e| out(77, |needed| keepsock_connection_name(c, null_mut(), 0, needed, e)),
                |c, e| {
                    let mut s: keepsock_snapshot = std::mem::zeroed();
                    s.rtt_us = 7;
                    let size = size_of_val(&s);
                    let status = keepsock_connection_snapshot(c, &raw mut s, size, e);
                    assert_eq!(s.rtt_us, 7);
                    status
                },
                |c, e| {
                    let mut k: keepsock_keepalive = std::mem::zeroed();
                    let size = size_of_val(&k);
                    let status = keepsock_connection_keepalive(c, &raw mut k, size, e);
                    assert!(!k.enabled);
                    status
                },
                |c, e| {
                    out([0x5au8; 16], |p| {
                        let size = size_of::<keepsock_credentials>();
                        keepsock_connection_peer_credentials(c, p.cast(), size, e)
                    })
                },
                |c, e| {
                    // What cannot fail does nothing, and says so by what it returns.
                    keepsock_connection_close(c);
                    keepsock_connection_abort(c);
                    keepsock_connection_shutdown_write(c);
                    keepsock_connection_pause(c);
                    keepsock_connection_resume(c);
                    keepsock_connection_set_data(c, null_mut());
                    assert!(keepsock_connection_data(c).is_null());
                    assert!(!keepsock_connection_is_open(c));
                    assert_eq!(keepsock_connection_queued(c), 0);
                    assert_eq!(keepsock_connection_id(c), 0);
                    assert_eq!(keepsock_connection_end(c), 0);
                    keepsock_connection_send(c, null(), 0, e)
                },
            ]
        }
    }

    /// A connection that is over, and its service, too.
    fn connection_that_is_over() -> *mut keepsock_connection {
        unsafe extern "C" fn close(c: *mut keepsock_connection, _: i32, user: *mut c_void) {
            let over = unsafe { &*user.cast::<std::sync::mpsc::Sender<usize>>() };
            over.send(c as usize).unwrap();
        }
        let (over, told) = std::sync::mpsc::channel::<usize>();
        let user: *const _ = &raw const over;
        let server = new_server();
        let mut service = null_mut();
        unsafe {
            let mut callbacks: keepsock_callbacks = std::mem::zeroed();
            callbacks.size = size_of_val(&callbacks);
            callbacks.close = Some(close);
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
            connection as *mut keepsock_connection
        }
    }

    /// A2: callbacks of an older header, which had fewer, and of a newer one, which has more.
    #[test]
    fn callbacks_of_any_version() {
        let _limit = Limit::new("callbacks_of_any_version");
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
            for size in [0, 7, 8, 4096, usize::MAX] {
                set_size(size);
                gives(INVALID, "write sizeof callbacks", serve);
            }
            let known = size_of::<keepsock_callbacks>();
            set_size(known + 8);
            let extra = callbacks.cast::<usize>().add(known / 8);
            extra.write(1);
            gives(ErrorKind::Unsupported.code(), "does not know", serve);
            extra.write(0);
            for size in [16, known, known + 8] {
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

    fn new_inherited() -> *mut keepsock_inherited {
        let mut inherited = null_mut();
        let taken = unsafe { keepsock_inherited_take(&raw mut inherited, null_mut()) };
        assert_eq!(taken, KEEPSOCK_OK);
        inherited
    }

    fn inherited_calls() -> Vec<Call<keepsock_inherited>> {
        unsafe {
            vec![
                |i, e| {
                    out(no_handle(), |s| {
                        keepsock_inherited_listen(i, c"127.0.0.1:0".as_ptr(), null(), s, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |s| {
                        keepsock_inherited_server(i, c"http".as_ptr(), null(), s, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |d| {
                        keepsock_inherited_datagram(i, c"dns".as_ptr(), null(), d, e)
                    })
                },
                |i, e| {
                    out(no_handle(), |d| {
                        keepsock_inherited_bind(i, c"127.0.0.1:0".as_ptr(), null(), d, e)
                    })
                },
                |i, e| keepsock_inherited_ready(i, e),
            ]
        }
    }

    /// E2, L7: what was inherited, and handing over.
    #[test]
    fn misuse_of_handing_over() {
        let _limit = Limit::new("misuse_of_handing_over");
        misuse(&inherited_calls(), "inherited", new_inherited, keepsock_inherited_free);
        let (inherited, server) = (new_inherited(), new_server());
        let (endpoint, name) = (c"127.0.0.1:0".as_ptr(), c"http".as_ptr());
        unsafe {
            gives(INVALID, "inherited is NULL", |e| keepsock_inherited_take(null_mut(), e));
            gives(INVALID, "server is NULL", |e| {
                keepsock_inherited_listen(inherited, endpoint, null(), null_mut(), e)
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |s| keepsock_inherited_listen(inherited, null(), null(), s, e))
            });
            gives(INVALID, "server is NULL", |e| {
                keepsock_inherited_server(inherited, name, null(), null_mut(), e)
            });
            gives(INVALID, "name is NULL", |e| {
                out(no_handle(), |s| keepsock_inherited_server(inherited, null(), null(), s, e))
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_inherited_datagram(inherited, name, null(), null_mut(), e)
            });
            gives(INVALID, "datagram is NULL", |e| {
                keepsock_inherited_bind(inherited, endpoint, null(), null_mut(), e)
            });
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |d| keepsock_inherited_bind(inherited, null(), null(), d, e))
            });
            gives(ErrorKind::NotFound.code(), "named \"http\"", |e| {
                out(no_handle(), |s| keepsock_inherited_server(inherited, name, null(), s, e))
            });
            assert_eq!(keepsock_inherited_count(inherited), 0);
            assert_eq!(text(keepsock_inherited_name(inherited, 0)), "");
            keepsock_inherited_free(inherited);

            let hand_over =
                |argv: *const *const c_char, handed: *const keepsock_handed, count, ms, e| {
                    out(77i64, |pid| keepsock_hand_over(argv, handed, count, ms, null(), pid, e))
                };
            let argv = [c"true".as_ptr(), null()];
            let nobody = [null()];
            let argv = argv.as_ptr();
            let one = keepsock_handed { name, server, datagram: null() };
            let neither = keepsock_handed { server: null(), ..one };
            let nameless = keepsock_handed { name: null(), ..one };
            let other = keepsock_handed { server: new_cancel().cast(), ..one };
            let datagram = keepsock_handed { server: null(), datagram: server.cast(), ..one };
            let freed = "was freed, or is something else";
            let (closed, no_limit) = (ErrorKind::WrongState.code(), KEEPSOCK_INFINITE);
            gives(INVALID, "handed is NULL", |e| hand_over(argv, null(), 1, no_limit, e));
            gives(INVALID, "nothing to hand over", |e| hand_over(argv, null(), 0, no_limit, e));
            gives(INVALID, "out of range", |e| hand_over(argv, &raw const one, usize::MAX, 1, e));
            gives(INVALID, "-2 ms", |e| hand_over(argv, &raw const one, 1, -2, e));
            gives(INVALID, "argv[0] is NULL", |e| {
                hand_over(nobody.as_ptr(), &raw const one, 1, no_limit, e)
            });
            gives(INVALID, "either", |e| hand_over(argv, &raw const neither, 1, no_limit, e));
            gives(INVALID, "name is NULL", |e| hand_over(argv, &raw const nameless, 1, 1, e));
            gives(WRONG_STATE, freed, |e| hand_over(argv, &raw const other, 1, no_limit, e));
            gives(WRONG_STATE, freed, |e| hand_over(argv, &raw const datagram, 1, no_limit, e));
            gives(closed, "without hand_over", |e| hand_over(argv, &raw const one, 1, no_limit, e));
            let cancel: *const keepsock_cancel = server.cast();
            gives(WRONG_STATE, freed, |e| {
                keepsock_hand_over(argv, &raw const one, 1, 1, cancel, null_mut(), e)
            });
            keepsock_cancel_free(other.server.cast_mut().cast());
            keepsock_server_free(server);
        }
    }

    /// Calls each function with NULL, with a handle that was freed, and with one of
    /// another type.
    fn misuse<T>(
        calls: &[Call<T>],
        name: &str,
        make: impl Fn() -> *mut T,
        free: unsafe extern "C" fn(*mut T),
    ) {
        let null_text = format!("{name} is NULL");
        let wrong_text = format!("{name} was freed, or is something else");
        for call in calls {
            gives(INVALID, &null_text, |e| call(null_mut(), e));
            let freed = make();
            unsafe { free(freed) };
            gives(WRONG_STATE, &wrong_text, |e| call(freed, e));
            // A handle of another type: what it is must not matter.
            let other = new_cancel();
            gives(WRONG_STATE, &wrong_text, |e| call(other.cast(), e));
            unsafe {
                free(other.cast());
                assert!(!keepsock_cancel_is_fired(other), "freed as something else");
                keepsock_cancel_fire(other);
                assert!(keepsock_cancel_is_fired(other), "freed as something else");
                keepsock_cancel_free(other);
                free(freed);
            }
        }
    }

    /// E2: the object of every function: NULL, freed, or of another type.
    #[test]
    fn an_object_that_is_none() {
        let _limit = Limit::new("an_object_that_is_none");
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
        misuse(&connecting_calls(), "connecting", new_connecting, keepsock_connecting_free);
        unsafe extern "C" fn is_never_freed(_: *mut keepsock_connection) {}
        misuse(&connection_calls(), "connection", connection_that_is_over, is_never_freed);
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

    /// E2: a reconnect is for one thread at a time; whoever calls it from inside a call gets an
    /// error, and neither waits for himself nor changes anything. An error that was lent is not
    /// freed.
    #[test]
    fn a_reconnect_inside_itself() {
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
                gives(WRONG_STATE, "another call is going on", |e| call(seen.reconnect, e));
            }
            unsafe {
                keepsock_error_free(error.cast_mut());
                assert_eq!(keepsock_error_status(error), ErrorKind::Refused.code());
            }
            seen.told += 1;
        }
        let _limit = Limit::new("a_reconnect_inside_itself");
        let reconnect = new_reconnect();
        let mut seen = Seen { reconnect, told: 0 };
        let user: *mut c_void = (&raw mut seen).cast();
        unsafe {
            let set = keepsock_reconnect_set_back_off(reconnect, 1, 1, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            assert_eq!(keepsock_reconnect_set_limit(reconnect, 50, null_mut()), KEEPSOCK_OK);
            let set = keepsock_reconnect_set_on_retry(reconnect, Some(inside), user, null_mut());
            assert_eq!(set, KEEPSOCK_OK);
            gives(ErrorKind::Refused.code(), "connection refused after ", |e| {
                out(no_handle(), |c| keepsock_reconnect_connect(reconnect, c, e))
            });
            assert!((*user.cast::<Seen>()).told > 2);
            // Nothing is told any more.
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

    /// E2: what a capture and a handshake are asked.
    #[test]
    fn captures_and_handshakes() {
        let _limit = Limit::new("captures_and_handshakes");
        let server = new_server();
        let (port, endpoint) =
            unsafe { (keepsock_server_port(server), keepsock_server_endpoint(server)) };
        unsafe {
            gives(INVALID, "capture is NULL", |e| keepsock_capture_new(port, null_mut(), e));
            gives(INVALID, "port is 0", |e| out(no_handle(), |c| keepsock_capture_new(0, c, e)));
        }
        let Some(capture) = new_capture(port) else {
            return;
        };
        let client = new_client(server);
        let handshake = new_handshake(capture, client);
        let size = size_of::<keepsock_segment>();
        unsafe {
            gives(INVALID, "client is NULL", |e| {
                out(no_handle(), |h| keepsock_capture_handshake(capture, null(), 0, h, e))
            });
            gives(INVALID, "handshake is NULL", |e| {
                keepsock_capture_handshake(capture, client, 0, null_mut(), e)
            });
            gives(INVALID, "out of range", |e| {
                out(no_handle(), |h| keepsock_capture_handshake(capture, client, -2, h, e))
            });
            let between = |one, other, e| {
                out(no_handle(), |h| {
                    keepsock_capture_handshake_between(capture, one, other, 0, h, e)
                })
            };
            gives(INVALID, "endpoint is NULL", |e| between(null(), endpoint, e));
            gives(INVALID, "endpoint is NULL", |e| between(endpoint, null(), e));
            gives(INVALID, "which is watched", |e| {
                between(c"127.0.0.1:1".as_ptr(), c"127.0.0.1:2".as_ptr(), e)
            });
            let invalid_endpoint = ErrorKind::InvalidEndpoint.code();
            gives(invalid_endpoint, "", |e| between(endpoint, c"name:1".as_ptr(), e));
            gives(ErrorKind::TimedOut.code(), "none of its packets was seen", |e| {
                between(endpoint, c"127.0.0.1:1".as_ptr(), e)
            });
            // Any index but 0, 1, 2; NULL where something is to be written, and where not.
            for index in [3, 4, usize::MAX] {
                let part = format!("index {index} is above 2");
                gives(INVALID, &part, |e| {
                    out([0x5au8; 1024], |s| {
                        keepsock_handshake_segment(handshake, index, s.cast(), size, e)
                    })
                });
                gives(INVALID, &part, |e| {
                    out(77, |s| keepsock_handshake_states(handshake, index, s, s, e))
                });
                gives(INVALID, &part, |e| {
                    out(77u32, |n| keepsock_handshake_retransmissions(handshake, index, n, e))
                });
            }
            gives(INVALID, "out is NULL", |e| {
                keepsock_handshake_segment(handshake, 0, null_mut(), size, e)
            });
            gives(INVALID, "out is NULL", |e| keepsock_client_syn(client, null_mut(), size, e));
            gives(INVALID, "count is NULL", |e| {
                keepsock_handshake_retransmissions(handshake, 0, null_mut(), e)
            });
            let states =
                keepsock_handshake_states(handshake, 2, null_mut(), null_mut(), null_mut());
            assert_eq!(states, KEEPSOCK_OK);
            // It does not need what it came from.
            keepsock_capture_free(capture);
            keepsock_client_free(client);
            assert!(text(keepsock_handshake_lines(handshake)).starts_with("IP 127.0.0.1."));
            assert!(text(keepsock_handshake_diagram(handshake)).starts_with("client 127.0.0.1:"));
            keepsock_handshake_free(handshake);
            assert_eq!(text(keepsock_handshake_lines(handshake)), "", "freed");
            keepsock_handshake_free(handshake);
            keepsock_server_free(server);
        }
    }

    /// S5: every state has its name, and no other number has one.
    #[test]
    fn states_have_names() {
        assert_eq!(text(keepsock_tcp_state_name(3)), "SYN-RECEIVED");
        assert_eq!(text(keepsock_tcp_state_name(10)), "LISTEN");
        for other in [0, 12, -1, i32::MIN, i32::MAX] {
            assert_eq!(text(keepsock_tcp_state_name(other)), "UNKNOWN");
        }
    }

    /// E2: every other pointer argument that must not be NULL.
    #[test]
    fn null_in_each_argument() {
        let _limit = Limit::new("null_in_each_argument");
        let (server, options, cancel) = (new_server(), new_options(), new_cancel());
        let client = new_client(server);
        let service = new_service(new_server());
        let endpoint = c"127.0.0.1:0".as_ptr();
        let mut buf = [0u8; 64];
        let space: *mut c_void = buf.as_mut_ptr().cast();
        unsafe {
            gives(INVALID, "cancel is NULL", |e| keepsock_cancel_new(null_mut(), e));
            gives(INVALID, "options is NULL", |e| keepsock_options_new(null_mut(), e));
            gives(INVALID, "options is NULL", |e| keepsock_serve_options_new(null_mut(), e));
            gives(INVALID, "endpoint is NULL", |e| {
                out(no_handle(), |c| keepsock_client_connect(null(), null(), c, e))
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_client_connect(endpoint, null(), null_mut(), e)
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
                (null(), 0, "no endpoint"),
                (one.as_ptr(), 0, "no endpoint"),
                (one.as_ptr(), 2, "endpoint is NULL"),
                (one.as_ptr(), usize::MAX, "out of range"),
            ] {
                gives(INVALID, part, |e| {
                    out(no_handle(), |s| keepsock_server_listen_all(first, count, null(), s, e))
                });
            }
            assert_eq!(keepsock_server_endpoint_count(server), 1);
            assert_eq!(
                text(keepsock_server_endpoint_at(server, 0)),
                text(keepsock_server_endpoint(server))
            );
            for index in [1, usize::MAX] {
                assert_eq!(text(keepsock_server_endpoint_at(server, index)), "");
            }
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
                out(no_handle(), |c| keepsock_connecting_start(null(), null(), c, e))
            });
            gives(INVALID, "connecting is NULL", |e| {
                keepsock_connecting_start(endpoint, null(), null_mut(), e)
            });
            let connecting = new_connecting();
            gives(INVALID, "client is NULL", |e| {
                keepsock_connecting_finish(connecting, null_mut(), e)
            });
            gives(INVALID, "client is NULL", |e| {
                keepsock_connecting_wait(connecting, null_mut(), e)
            });
            gives(INVALID, "fd is NULL", |e| keepsock_connecting_fd(connecting, null_mut(), e));
            gives(INVALID, "timeout_ms is NULL", |e| {
                keepsock_connecting_timeout(connecting, null_mut(), e)
            });
            keepsock_connecting_free(connecting);
            gives(INVALID, "client is NULL", |e| keepsock_client_from_fd(0, null(), null_mut(), e));
            gives(INVALID, "server is NULL", |e| keepsock_server_from_fd(0, null(), null_mut(), e));
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read(client, null_mut(), 64, n, e))
            });
            gives(INVALID, "len is NULL", |e| {
                keepsock_client_read(client, space, 64, null_mut(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_client_read_exact(client, null_mut(), 64, e)
            });
            gives(INVALID, "buffers is NULL", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, null(), 1, n, e))
            });
            gives(INVALID, "cap is 0", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, null(), 0, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_until(client, 0, null_mut(), 64, n, e))
            });
            gives(INVALID, "len is NULL", |e| {
                keepsock_client_read_until(client, 0, space, 64, null_mut(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_line(client, null_mut(), 64, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_write(client, null(), 64, n, e))
            });
            gives(INVALID, "written is NULL", |e| {
                keepsock_client_write(client, space, 64, null_mut(), e)
            });
            gives(INVALID, "buf is NULL", |e| keepsock_client_write_all(client, null(), 64, e));
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_message(client, 2, null_mut(), 64, n, e))
            });
            gives(INVALID, "len is NULL", |e| {
                keepsock_client_read_message(client, 2, space, 64, null_mut(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_client_write_message(client, 2, null(), 64, e)
            });
            for prefix in [i32::MIN, -1, 0, 6, i32::MAX] {
                gives(INVALID, "prefix", |e| {
                    out(77usize, |n| keepsock_client_read_message(client, prefix, space, 64, n, e))
                });
                gives(INVALID, "prefix", |e| {
                    keepsock_client_write_message(client, prefix, space, 64, e)
                });
            }
            gives(WRONG_STATE, "not the connection of a handler", |e| {
                out(no_handle(), |c| keepsock_client_ref(client, c, e))
            });
            gives(INVALID, "ref is NULL", |e| keepsock_client_ref(client, null_mut(), e));
            gives(INVALID, "text is NULL", |e| keepsock_client_write_str(client, null(), e));
            gives(INVALID, "slices is NULL", |e| {
                keepsock_client_write_slices(client, null(), 1, e)
            });
            gives(INVALID, "buf is NULL", |e| {
                let slice = keepsock_slice { data: null(), len: 1 };
                keepsock_client_write_slices(client, &raw const slice, 1, e)
            });
            gives(INVALID, "written is NULL", |e| {
                keepsock_client_write_fds(client, space, 1, &raw const ZERO, 1, null_mut(), e)
            });
            gives(INVALID, "fds is NULL", |e| {
                out(77usize, |n| keepsock_client_write_fds(client, space, 1, null(), 1, n, e))
            });
            gives(INVALID, "buf is NULL", |e| {
                let fd = &raw const ZERO;
                out(77usize, |n| keepsock_client_write_fds(client, null(), 1, fd, 1, n, e))
            });
            gives(INVALID, "a descriptor is negative", |e| {
                let fd = -1;
                out(77usize, |n| {
                    keepsock_client_write_fds(client, space, 1, &raw const fd, 1, n, e)
                })
            });
            gives(INVALID, "out of range", |e| {
                let (fd, many) = (&raw const ZERO, usize::MAX / 2);
                out(77usize, |n| keepsock_client_write_fds(client, space, 1, fd, many, n, e))
            });
            let lost = null_mut();
            gives(INVALID, "len is NULL", |e| {
                let (n, fds) = (null_mut(), null_mut());
                out(77usize, |c| keepsock_client_read_fds(client, space, 64, fds, 0, n, c, lost, e))
            });
            gives(INVALID, "count is NULL", |e| {
                let (c, fds) = (null_mut(), null_mut());
                out(77usize, |n| keepsock_client_read_fds(client, space, 64, fds, 0, n, c, lost, e))
            });
            gives(INVALID, "fds is NULL", |e| {
                let (mut c, fds) = (78, null_mut());
                let c = &raw mut c;
                out(77usize, |n| keepsock_client_read_fds(client, space, 64, fds, 1, n, c, lost, e))
            });
            gives(INVALID, "cap is 0", |e| {
                let (mut c, fds) = (78, null_mut());
                let c = &raw mut c;
                out(77usize, |n| keepsock_client_read_fds(client, space, 0, fds, 0, n, c, lost, e))
            });
            gives(INVALID, "out is NULL", |e| {
                let size = size_of::<keepsock_credentials>();
                keepsock_client_peer_credentials(client, null_mut(), size, e)
            });
            gives(INVALID, "fd is negative", |e| {
                out(77u64, |n| keepsock_client_send_file(client, -1, 0, 1, n, e))
            });
            gives(INVALID, "not open for reading", |e| {
                out(77u64, |n| keepsock_client_send_file(client, i32::MAX, 0, 1, n, e))
            });
            gives(INVALID, "end is NULL", |e| {
                keepsock_client_wait_hangup(client, 0, null_mut(), e)
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
            gives(INVALID, "out is NULL", |e| {
                keepsock_server_counters_get(server, null_mut(), 32, e)
            });
            gives(INVALID, "fd is NULL", |e| keepsock_server_fd(server, null_mut(), e));
            gives(INVALID, "fd is NULL", |e| keepsock_server_fd_at(server, 0, null_mut(), e));
            for index in [1, usize::MAX] {
                gives(INVALID, "there is no endpoint", |e| {
                    out(77, |fd| keepsock_server_fd_at(server, index, fd, e))
                });
            }
            gives(INVALID, "fd is NULL", |e| keepsock_server_release_fd(server, null_mut(), e));
            let mut buffer = keepsock_buffer { data: null_mut(), cap: 1 };
            gives(INVALID, "buf is NULL", |e| {
                out(77usize, |n| keepsock_client_read_slices(client, &raw const buffer, 1, n, e))
            });
            buffer = keepsock_buffer { data: space, cap: 64 };
            gives(INVALID, "len is NULL", |e| {
                keepsock_client_read_slices(client, &raw const buffer, 1, null_mut(), e)
            });
            buffer.cap = 0;
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
            gives(INVALID, "endpoint is NULL", |e| keepsock_options_set_local(options, null(), e));
            let serve = new_serve_options();
            gives(INVALID, "network is NULL", |e| keepsock_serve_options_allow(serve, null(), e));
            gives(INVALID, "network is NULL", |e| keepsock_serve_options_deny(serve, null(), e));
            gives(INVALID, "not a network", |e| {
                keepsock_serve_options_deny(serve, c"example.com".as_ptr(), e)
            });
            gives(INVALID, "at most zero", |e| {
                keepsock_serve_options_set_max_per_address(serve, 0, e)
            });
            keepsock_serve_options_free(serve);
            gives(INVALID, "name is NULL", |e| keepsock_options_set_interface(options, null(), e));
            gives(INVALID, "endpoint is NULL", |e| {
                keepsock_options_add_address(options, null(), e)
            });
            gives(INVALID, "buf is NULL", |e| {
                keepsock_service_broadcast(service, null(), 1, null_mut(), 0, e)
            });
            // What may be NULL.
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
                keepsock_service_broadcast(service, null(), 0, null_mut(), 0, null_mut()),
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
            keepsock_cancel_free(cancel);
        }
    }

    /// E2: numbers out of their range: sizes, times, enumerations.
    #[test]
    fn numbers_out_of_range() {
        let _limit = Limit::new("numbers_out_of_range");
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
            gives(INVALID, "out of range", |e| {
                out(77usize, |n| keepsock_client_read(client, space, huge, n, e))
            });
            gives(INVALID, "out of range", |e| keepsock_client_read_exact(client, space, huge, e));
            gives(INVALID, "out of range", |e| {
                out(77usize, |n| keepsock_client_read_until(client, 0, space, huge, n, e))
            });
            gives(INVALID, "out of range", |e| {
                out(77usize, |n| keepsock_client_read_line(client, space.cast(), huge, n, e))
            });
            gives(INVALID, "out of range", |e| {
                out(77usize, |n| keepsock_client_write(client, space, huge, n, e))
            });
            gives(INVALID, "out of range", |e| keepsock_client_write_all(client, space, huge, e));
            let slice = keepsock_slice { data: space, len: huge };
            gives(INVALID, "out of range", |e| {
                keepsock_client_write_slices(client, &raw const slice, 1, e)
            });
            gives(INVALID, "out of range", |e| {
                keepsock_client_write_slices(client, &raw const slice, huge / 2, e)
            });
            gives(INVALID, "out of range", |e| {
                keepsock_service_broadcast(service, space, huge, null_mut(), 0, e)
            });
            for level in [-1, 6, i32::MIN, i32::MAX] {
                gives(INVALID, "no such level", |e| {
                    keepsock_log_set(Some(not_told), null_mut(), level, e)
                });
                gives(INVALID, "no such level", |e| keepsock_log_set(None, null_mut(), level, e));
            }
            for ms in [-2, -1000, i64::MIN] {
                let part = "out of range";
                gives(INVALID, part, |e| keepsock_client_set_read_timeout(client, ms, e));
                gives(INVALID, part, |e| keepsock_client_set_write_timeout(client, ms, e));
                gives(INVALID, part, |e| keepsock_server_set_accept_timeout(server, ms, e));
                gives(INVALID, part, |e| {
                    out(77, |how| keepsock_client_wait_hangup(client, ms, how, e))
                });
                gives(INVALID, part, |e| keepsock_service_wait(service, ms, e));
                gives(INVALID, part, |e| {
                    out(77, |n| keepsock_service_drain(service, ms, n, null_mut(), e))
                });
                gives(INVALID, part, |e| out(77, |n| keepsock_service_finish(service, ms, n, e)));
                gives(INVALID, part, |e| keepsock_options_set_connect_timeout(options, ms, e));
                gives(INVALID, part, |e| keepsock_options_set_read_timeout(options, ms, e));
                gives(INVALID, part, |e| keepsock_options_set_write_timeout(options, ms, e));
                gives(INVALID, part, |e| keepsock_options_set_close_timeout(options, ms, e));
                gives(INVALID, part, |e| keepsock_client_set_close_timeout(client, ms, e));
                gives(INVALID, part, |e| keepsock_options_set_keepalive(options, ms, 1, 1, e));
                gives(INVALID, part, |e| keepsock_options_set_keepalive(options, 1, ms, 1, e));
                gives(INVALID, part, |e| keepsock_client_set_keepalive(client, ms, 1, 1, e));
                gives(INVALID, part, |e| keepsock_reconnect_set_back_off(reconnect, ms, 9, e));
                gives(INVALID, part, |e| keepsock_reconnect_set_back_off(reconnect, 9, ms, e));
                gives(INVALID, part, |e| keepsock_reconnect_set_limit(reconnect, ms, e));
            }
            // No limit, where there must be one.
            gives(INVALID, "KEEPSOCK_INFINITE is not allowed here", |e| {
                keepsock_options_set_close_timeout(options, KEEPSOCK_INFINITE, e)
            });
            gives(INVALID, "KEEPSOCK_INFINITE is not allowed here", |e| {
                keepsock_options_set_keepalive(options, KEEPSOCK_INFINITE, 1, 1, e)
            });
            gives(INVALID, "KEEPSOCK_INFINITE is not allowed here", |e| {
                keepsock_service_drain(service, KEEPSOCK_INFINITE, null_mut(), null_mut(), e)
            });
            gives(INVALID, "KEEPSOCK_INFINITE is not allowed here", |e| {
                keepsock_reconnect_set_back_off(reconnect, 9, KEEPSOCK_INFINITE, e)
            });
            gives(INVALID, "zero", |e| keepsock_reconnect_set_limit(reconnect, 0, e));
            gives(INVALID, "first", |e| keepsock_reconnect_set_back_off(reconnect, 0, 9, e));
            gives(INVALID, "zero", |e| keepsock_options_set_connect_timeout(options, 0, e));
            gives(INVALID, "zero", |e| keepsock_options_set_read_timeout(options, 0, e));
            gives(INVALID, "zero", |e| keepsock_options_set_write_timeout(options, 0, e));
            gives(INVALID, "zero", |e| keepsock_options_set_backlog(options, 0, e));
            gives(INVALID, "zero", |e| {
                keepsock_serve_options_set_max_connections(serve_options, 0, e)
            });
            for family in [-1, 1, 5, 7, i32::MAX, i32::MIN] {
                let part = format!("{family} is not a keepsock_family");
                gives(INVALID, &part, |e| keepsock_options_set_family(options, family, e));
            }
            for when_full in [-1, 2, i32::MAX, i32::MIN] {
                let part = format!("{when_full} is not a keepsock_when_full");
                gives(INVALID, &part, |e| {
                    keepsock_serve_options_set_when_full(serve_options, when_full, e)
                });
            }
            gives(INVALID, "interface name", |e| {
                keepsock_options_set_interface(options, c"sixteen-letters-".as_ptr(), e)
            });
            gives(INVALID, "negative", |e| {
                out(no_handle(), |c| keepsock_client_from_fd(-1, null(), c, e))
            });
            gives(INVALID, "negative", |e| {
                out(no_handle(), |s| keepsock_server_from_fd(-5, null(), s, e))
            });
            let latin1 = CString::new([0xe4, b':', b'1']).unwrap();
            gives(INVALID, "not UTF-8", |e| {
                out(no_handle(), |c| keepsock_client_connect(latin1.as_ptr(), null(), c, e))
            });
            gives(INVALID, "not UTF-8", |e| {
                keepsock_options_set_local(options, latin1.as_ptr(), e)
            });
            // The options are as they were: still good for a connection with defaults.
            let mut client = null_mut();
            let endpoint = keepsock_server_endpoint(server);
            assert_eq!(
                keepsock_client_connect(endpoint, options, &raw mut client, null_mut()),
                KEEPSOCK_OK
            );
            let mut fd = -1;
            assert_eq!(keepsock_client_fd(client, &raw mut fd, null_mut()), KEEPSOCK_OK);
            assert_eq!(system::keepalive(fd), (true, 45, 15, 5));
            keepsock_client_free(client);
            keepsock_options_free(options);
            keepsock_serve_options_free(serve_options);
            keepsock_service_free(service);
            keepsock_reconnect_free(reconnect);
        }
    }

    /// E2: options of another type, or freed, are refused wherever they are passed.
    #[test]
    fn options_that_are_none() {
        let _limit = Limit::new("options_that_are_none");
        let server = new_server();
        let (freed, token) = (new_options(), new_cancel());
        unsafe {
            keepsock_options_free(freed);
            let endpoint = keepsock_server_endpoint(server);
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
            for bad in [freed, token.cast()] {
                let part = "options was freed, or is something else";
                gives(WRONG_STATE, part, |e| {
                    out(no_handle(), |c| keepsock_client_connect(endpoint, bad, c, e))
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
            // A token that was freed, or is something else.
            keepsock_cancel_free(token);
            keepsock_cancel_free(token);
            let (client, options) = (new_client(server), new_options());
            let part = "cancel was freed, or is something else";
            for bad in [token, options.cast()] {
                gives(WRONG_STATE, part, |e| keepsock_options_set_cancel(options, bad, e));
                gives(WRONG_STATE, part, |e| keepsock_client_set_cancel(client, bad, e));
                gives(WRONG_STATE, part, |e| keepsock_server_set_cancel(server, bad, e));
                keepsock_cancel_fire(bad);
                keepsock_cancel_reset(bad);
                assert!(!keepsock_cancel_is_fired(bad));
            }
            keepsock_client_free(client);
            keepsock_client_free(client);
            keepsock_options_free(options);
            keepsock_server_free(server);
            keepsock_server_free(server);
        }
    }

    /// E2: structures that are filled in come with their size: a program built with an
    /// older header gets what it knows, one built with a newer header finds zeros.
    #[test]
    fn structures_of_other_versions() {
        const LARGER: usize = 1024;
        type Fill<'a> = (&'a str, usize, Box<dyn Fn(*mut c_void, usize, Error) -> i32 + 'a>);
        let _limit = Limit::new("structures_of_other_versions");
        let p = pair::<CApi>(Transport::Tcp);
        let (client, server) = (p.client.pointer, p.server.0);
        let refused = super::common::refused_address().to_string();
        let refused = CString::new(refused).unwrap();
        let mut failed = null_mut();
        let mut none = null_mut();
        let status = unsafe {
            keepsock_client_connect(refused.as_ptr(), null(), &raw mut none, &raw mut failed)
        };
        assert_eq!(status, ErrorKind::Refused.code());
        let saving = CApi::listen("127.0.0.1:0", &[Opt::SaveSyn(true)]).unwrap();
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
                    size_of::<keepsock_server_counters>(),
                    Box::new(|at, size, e| {
                        keepsock_server_counters_get(server, at.cast(), size, e)
                    }),
                ),
                (
                    "attempt",
                    size_of::<keepsock_attempt>(),
                    Box::new(|at, size, _| keepsock_error_attempt(failed, 0, at.cast(), size)),
                ),
                (
                    "segment",
                    size_of::<keepsock_segment>(),
                    Box::new(|at, size, e| keepsock_client_syn(saved, at.cast(), size, e)),
                ),
            ]
        };
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
            for bad in [0, 1, 8, size - 1, usize::MAX] {
                assert_eq!(fill(buf.as_mut_ptr().cast(), bad, null_mut()), INVALID, "{name}");
                assert_eq!(fill(null_mut(), size, null_mut()), INVALID, "{name}");
            }
            assert!(buf.iter().all(|b| *b == 0x5a), "{name}");
        }
        drop(stream);
        unsafe {
            let mut attempt: keepsock_attempt = std::mem::zeroed();
            let size = size_of::<keepsock_attempt>();
            assert_eq!(keepsock_error_attempt(failed, 1, &raw mut attempt, size), INVALID);
            assert_eq!(keepsock_error_attempt(null(), 0, &raw mut attempt, size), INVALID);
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

    /// E2: a connection that a handler is lent is not its to free, and using it after
    /// the handler has returned is an error.
    #[test]
    fn a_lent_connection() {
        use super::common::{Client, Service};
        let _limit = Limit::new("a_lent_connection");
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
        service.drain(10_000).unwrap();
    }

    /// V1: a callback finds the service where it was asked for, even that of a client that
    /// was there before. Many threads, so that the first one serves while others are started.
    #[test]
    fn callbacks_find_the_service() {
        use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

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
        unsafe extern "C" fn open(_: *mut keepsock_connection, user: *mut c_void) {
            look(user);
        }
        unsafe extern "C" fn handler(_: *mut keepsock_client, user: *mut c_void) {
            look(user);
        }

        let _limit = Limit::new("callbacks_find_the_service");
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
                        callbacks.open = Some(open);
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

    /// E2: nothing of the header is missing from this file.
    #[test]
    fn every_function_is_here() {
        let header = include_str!("../include/keepsock.h");
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
