/**
 * @file keepsock.h
 *
 * keepsock: sockets that stay alive. SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A keepsock_client is one connection, a keepsock_server is a listening socket; both over TCP and
 * Unix sockets. A keepsock_datagram is a socket for datagrams, UDP or Unix. A connection in five lines:
 *
 *     keepsock_client *c = NULL;
 *     char line[256];
 *     if (keepsock_client_connect("localhost:7788", NULL, &c, NULL) == KEEPSOCK_OK
 *         && keepsock_client_write_str(c, "hello\n", NULL) == KEEPSOCK_OK
 *         && keepsock_client_read_line(c, line, sizeof line, NULL, NULL) == KEEPSOCK_OK)
 *         puts(line);
 *     keepsock_client_free(c);
 *
 * Conventions, for every function:
 *
 * - Arguments come in this order: the object, inputs, buffers with their size, outputs, and last a
 *   keepsock_error **, which may be NULL.
 * - The result is a status: KEEPSOCK_OK, or a negative number of enum keepsock_err. Numbers never
 *   change their meaning; new ones may come. KEEPSOCK_ERR_PANIC, a defect of keepsock, may come from
 *   any function; the object is then only good for freeing.
 * - Outputs are written on success only.
 * - Times are milliseconds in int64_t; KEEPSOCK_INFINITE is no limit.
 * - Strings are UTF-8 and end with NUL. Text that is returned is not the caller's to free.
 * - _free accepts NULL. Until the memory of a freed object serves a new one, freeing it again does
 *   nothing, and using it, or an object of another type, returns KEEPSOCK_ERR_WRONG_STATE. (Memory is
 *   kept for that: leak checkers show it as still reachable.)
 * - Structures that are filled in come with their size and may grow at their end in later versions; a
 *   size that is smaller than the structure was ever is KEEPSOCK_ERR_INVALID_ARGUMENT.
 * - A forked child must not use the objects of its parent.
 */

#ifndef KEEPSOCK_H
#define KEEPSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this header: 0.1.0. Compare with keepsock_version(), which is
 * the library's.
 */
#define KEEPSOCK_VERSION_MAJOR 0

/**
 * See KEEPSOCK_VERSION_MAJOR.
 */
#define KEEPSOCK_VERSION_MINOR 1

/**
 * See KEEPSOCK_VERSION_MAJOR.
 */
#define KEEPSOCK_VERSION_PATCH 0

/**
 * The status of a call that succeeded. Every other status is negative:
 * enum keepsock_err.
 */
#define KEEPSOCK_OK 0

/**
 * For any argument in milliseconds: no limit.
 */
#define KEEPSOCK_INFINITE -1

/**
 * For keepsock_segment.flags: the sender has no more to send.
 */
#define KEEPSOCK_TCP_FIN 1

/**
 * For keepsock_segment.flags: seq is the sender's initial sequence number.
 */
#define KEEPSOCK_TCP_SYN 2

/**
 * For keepsock_segment.flags: the connection is reset.
 */
#define KEEPSOCK_TCP_RST 4

/**
 * For keepsock_segment.flags: what was sent so far is to be handed to the program.
 */
#define KEEPSOCK_TCP_PSH 8

/**
 * For keepsock_segment.flags: ack means something.
 */
#define KEEPSOCK_TCP_ACK 16

/**
 * For keepsock_segment.flags: urgent means something.
 */
#define KEEPSOCK_TCP_URG 32

/**
 * For keepsock_segment.flags: congestion was marked; in a SYN: the sender knows ECN.
 */
#define KEEPSOCK_TCP_ECE 64

/**
 * For keepsock_segment.flags: the sender has slowed down; in a SYN: it knows ECN.
 */
#define KEEPSOCK_TCP_CWR 128

/**
 * What kind of failure it was. The numbers are the status codes of the C API
 * and never change their meaning; new ones may be added.
 */
enum keepsock_err
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * An argument was NULL, out of range, or text that is not UTF-8.
     */
    KEEPSOCK_ERR_INVALID_ARGUMENT = -1,
    /**
     * The endpoint does not parse, or names a zone or interface that this
     * machine does not have.
     */
    KEEPSOCK_ERR_INVALID_ENDPOINT = -2,
    /**
     * The call does not fit the state the socket is in.
     */
    KEEPSOCK_ERR_WRONG_STATE = -3,
    /**
     * This platform, kernel or kind of socket cannot do it.
     */
    KEEPSOCK_ERR_UNSUPPORTED = -4,
    /**
     * The system had no memory or no socket buffers left.
     */
    KEEPSOCK_ERR_NO_MEMORY = -5,
    /**
     * A defect inside keepsock was caught. The handle is only good for freeing.
     */
    KEEPSOCK_ERR_PANIC = -6,
    /**
     * The socket was closed by this program, perhaps by another thread.
     */
    KEEPSOCK_ERR_CLOSED = -10,
    /**
     * The cancel token of the call was fired.
     */
    KEEPSOCK_ERR_CANCELLED = -11,
    /**
     * A deadline of the caller's passed. What had been read is kept and comes
     * with the next read; what had been written is reported.
     */
    KEEPSOCK_ERR_TIMED_OUT = -12,
    /**
     * Non-blocking mode only: the call would have had to wait.
     */
    KEEPSOCK_ERR_WOULD_BLOCK = -13,
    /**
     * The server is draining: no more input will be read from this
     * connection. Writing still works; the handler should end.
     */
    KEEPSOCK_ERR_DRAINING = -14,
    /**
     * The peer closed its side before all that was asked for had come.
     */
    KEEPSOCK_ERR_END_OF_STREAM = -15,
    /**
     * No delimiter within the maximum, or a message that is longer. The bytes stay
     * readable. A packet that is longer than the buffer, and then is lost, or than the system
     * sends.
     */
    KEEPSOCK_ERR_TOO_LONG = -16,
    /**
     * Nothing was received for the idle limit; the connection is over.
     */
    KEEPSOCK_ERR_IDLE_LIMIT = -17,
    /**
     * Heartbeats were sent and nothing was received for the idle limit; the
     * connection is over.
     */
    KEEPSOCK_ERR_HEARTBEAT_MISSED = -18,
    /**
     * There is no such host, service or Unix socket path.
     */
    KEEPSOCK_ERR_NOT_FOUND = -30,
    /**
     * The resolver could not answer; trying again may help.
     */
    KEEPSOCK_ERR_LOOKUP_FAILED = -31,
    /**
     * The peer refused: nothing listens there.
     */
    KEEPSOCK_ERR_REFUSED = -40,
    /**
     * No route to the address, or a router said so.
     */
    KEEPSOCK_ERR_UNREACHABLE = -41,
    /**
     * The connection was reset: by RST, or by writing to a peer that had closed.
     */
    KEEPSOCK_ERR_RESET = -42,
    /**
     * The peer gave no answer to keepalive or to data.
     */
    KEEPSOCK_ERR_DEAD = -43,
    /**
     * The local endpoint is taken by another socket.
     */
    KEEPSOCK_ERR_ADDRESS_IN_USE = -44,
    /**
     * The local address does not belong to this machine.
     */
    KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE = -45,
    /**
     * The system did not permit it.
     */
    KEEPSOCK_ERR_PERMISSION_DENIED = -46,
    /**
     * The process or the system has no file descriptor left.
     */
    KEEPSOCK_ERR_NO_DESCRIPTORS = -47,
    /**
     * The peer lives but takes no data, and was not to be waited for.
     */
    KEEPSOCK_ERR_STALLED = -48,
    /**
     * Any other error of the operating system; its number is in the error.
     */
    KEEPSOCK_ERR_OS = -99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_err keepsock_err;
#else
typedef int32_t keepsock_err;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which IP version to use.
 */
enum keepsock_family
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Both, in the order the system prefers (RFC 6724).
     */
    KEEPSOCK_FAMILY_ANY = 0,
    /**
     * IPv4 only.
     */
    KEEPSOCK_FAMILY_IPV4 = 4,
    /**
     * IPv6 only.
     */
    KEEPSOCK_FAMILY_IPV6 = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_family keepsock_family;
#else
typedef int32_t keepsock_family;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The transport protocol of a socket.
 */
enum keepsock_protocol
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * TCP over IPv4 or IPv6.
     */
    KEEPSOCK_PROTOCOL_TCP = 1,
    /**
     * A Unix stream socket.
     */
    KEEPSOCK_PROTOCOL_UNIX = 2,
    /**
     * UDP over IPv4 or IPv6.
     */
    KEEPSOCK_PROTOCOL_UDP = 3,
    /**
     * A Unix datagram socket.
     */
    KEEPSOCK_PROTOCOL_UNIX_DATAGRAM = 4,
    /**
     * A Unix socket for packets in order.
     */
    KEEPSOCK_PROTOCOL_UNIX_PACKET = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_protocol keepsock_protocol;
#else
typedef int32_t keepsock_protocol;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a connection ended: the first cause that was met.
 */
enum keepsock_end
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The peer closed its side (FIN). What it sent before is still readable.
     */
    KEEPSOCK_END_CLOSED_BY_PEER = 1,
    /**
     * The peer, or something on the way, reset it (RST).
     */
    KEEPSOCK_END_RESET_BY_PEER = 2,
    /**
     * The peer gave no answer: to keepalive, or to data.
     */
    KEEPSOCK_END_DEAD = 3,
    /**
     * The peer gave no answer, and a router said that there is no way to it.
     */
    KEEPSOCK_END_UNREACHABLE = 4,
    /**
     * The peer's kernel answers, but its program has not taken data for the time
     * that `dead_after` with `end_stalled` gave it.
     */
    KEEPSOCK_END_STALLED = 5,
    /**
     * Nothing was received for the idle limit.
     */
    KEEPSOCK_END_IDLE_LIMIT = 6,
    /**
     * Heartbeats were sent, and nothing was received for the idle limit.
     */
    KEEPSOCK_END_HEARTBEAT_MISSED = 7,
    /**
     * It was closed here while its cancel token was fired.
     */
    KEEPSOCK_END_CANCELLED = 8,
    /**
     * It was closed here, or its descriptor was given up.
     */
    KEEPSOCK_END_CLOSED_HERE = 9,
    /**
     * The peer sent a message that is longer than the server's framing allows.
     */
    KEEPSOCK_END_TOO_LONG = 10,
    /**
     * The peer did not keep up with what it was sent: more waited for it than may.
     */
    KEEPSOCK_END_OVERRUN = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_end keepsock_end;
#else
typedef int32_t keepsock_end;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The state of a TCP socket, by its name in RFC 9293 section 3.3.2. The numbers
 * are Linux's (include/net/tcp_states.h).
 */
enum keepsock_tcp_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Both sides are connected; data flows.
     */
    KEEPSOCK_TCP_STATE_ESTABLISHED = 1,
    /**
     * This side's SYN is out, the answer is awaited.
     */
    KEEPSOCK_TCP_STATE_SYN_SENT = 2,
    /**
     * The peer's SYN came and was answered; its ACK is awaited.
     */
    KEEPSOCK_TCP_STATE_SYN_RECEIVED = 3,
    /**
     * This side's FIN is out, its ACK or the peer's FIN is awaited.
     */
    KEEPSOCK_TCP_STATE_FIN_WAIT1 = 4,
    /**
     * This side's FIN was acknowledged, the peer's is awaited.
     */
    KEEPSOCK_TCP_STATE_FIN_WAIT2 = 5,
    /**
     * Both FINs came; old segments may still be on their way.
     */
    KEEPSOCK_TCP_STATE_TIME_WAIT = 6,
    /**
     * There is no connection.
     */
    KEEPSOCK_TCP_STATE_CLOSED = 7,
    /**
     * The peer's FIN came, this side still sends.
     */
    KEEPSOCK_TCP_STATE_CLOSE_WAIT = 8,
    /**
     * The peer's FIN came, this side's is out, its ACK is awaited.
     */
    KEEPSOCK_TCP_STATE_LAST_ACK = 9,
    /**
     * Connections are waited for.
     */
    KEEPSOCK_TCP_STATE_LISTEN = 10,
    /**
     * Both FINs crossed; the ACK of this side's is awaited.
     */
    KEEPSOCK_TCP_STATE_CLOSING = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_tcp_state keepsock_tcp_state;
#else
typedef int32_t keepsock_tcp_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The length that comes before each message, and does not count itself.
 */
enum keepsock_length_prefix
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * One byte.
     */
    KEEPSOCK_LENGTH_PREFIX_U8 = 1,
    /**
     * Two bytes, the higher one first, as protocols of the internet have it.
     */
    KEEPSOCK_LENGTH_PREFIX_U16_BE = 2,
    /**
     * Two bytes, the lower one first.
     */
    KEEPSOCK_LENGTH_PREFIX_U16_LE = 3,
    /**
     * Four bytes, the highest one first.
     */
    KEEPSOCK_LENGTH_PREFIX_U32_BE = 4,
    /**
     * Four bytes, the lowest one first.
     */
    KEEPSOCK_LENGTH_PREFIX_U32_LE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_length_prefix keepsock_length_prefix;
#else
typedef int32_t keepsock_length_prefix;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a server does with a client that comes when every place is taken.
 */
enum keepsock_when_full
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It waits in the listen queue until a connection ends.
     */
    KEEPSOCK_WHEN_FULL_WAIT = 0,
    /**
     * It is accepted and reset at once.
     */
    KEEPSOCK_WHEN_FULL_REFUSE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_when_full keepsock_when_full;
#else
typedef int32_t keepsock_when_full;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What event-driven serving does with a message for which a client's queue has no room.
 */
enum keepsock_when_slow
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The client has not kept up: it is reset, and that is the reason of its end.
     */
    KEEPSOCK_WHEN_SLOW_DISCONNECT = 0,
    /**
     * The oldest messages that wait are dropped, whole ones, and counted, until there is room.
     * One that is on its way is finished first.
     */
    KEEPSOCK_WHEN_SLOW_DROP_OLDEST = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_when_slow keepsock_when_slow;
#else
typedef int32_t keepsock_when_slow;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much keepsock_log_set() is to tell: the level's own events and all above it.
 */
enum keepsock_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    KEEPSOCK_LOG_LEVEL_OFF = 0,
    /**
     * Something is broken: a service cannot accept, or receive, any more, a handler panicked.
     */
    KEEPSOCK_LOG_LEVEL_ERROR = 1,
    /**
     * The service suffers: descriptors are used up or clients refused (each at most
     * once in 5 s, with the count), a broadcast cut a client, the resolver hangs.
     */
    KEEPSOCK_LOG_LEVEL_WARN = 2,
    /**
     * Listening, draining, connections that broke off: reset, dead, unreachable, stalled.
     */
    KEEPSOCK_LOG_LEVEL_INFO = 3,
    /**
     * Connecting: lookups and attempts, how they ended and after how long. Accepts
     * that are tried again (at most once in 5 s).
     */
    KEEPSOCK_LOG_LEVEL_DEBUG = 4,
    /**
     * Each connection that is accepted and each that is closed.
     */
    KEEPSOCK_LOG_LEVEL_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum keepsock_log_level keepsock_log_level;
#else
typedef int32_t keepsock_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A token that ends calls: those of the sockets that carry it return
 * KEEPSOCK_ERR_CANCELLED within 50 ms after it is fired. It stays fired until it
 * is reset; the sockets stay usable. A socket without a token pays nothing.
 *
 * Threads: any thread may call any function; keepsock_cancel_fire() may also
 * be called from a signal handler. Sockets share the token: it may be freed
 * while they carry it, but then there is no way left to fire it.
 */
typedef struct keepsock_cancel keepsock_cancel;

/**
 * A watch on one TCP port, which shows the handshakes of the connections that are made from or
 * to it, whichever program makes them.
 *
 * Linux only: a packet socket (packet(7)), which needs CAP_NET_RAW. Root has that; so has a
 * program that it was given to ("setcap cap_net_raw+ep PROGRAM"), and whatever runs
 * inside of "unshare -Urn", which any user may start and where only a loopback interface is.
 *
 * Packets are queued until keepsock_capture_handshake() reads them, and what no longer
 * fits is lost: a capture is for having a look, not for keeping by a busy port.
 *
 * Threads: any number of threads may look for handshakes at once. Only keepsock_capture_free()
 * needs the object for itself.
 */
typedef struct keepsock_capture keepsock_capture;

/**
 * A connection: made by keepsock_client_connect(), accepted by
 * keepsock_server_accept(), or lent to a keepsock_handler.
 *
 * Threads: any number of threads may be in calls on one connection. One reading
 * while another writes is the normal case; what one call writes is not cut by
 * another's bytes. Of two threads that both read lines, one that waits does not
 * see what the other has left over until more comes. keepsock_client_close() and
 * keepsock_client_abort() may come from any thread at any time and end the calls of the others
 * with KEEPSOCK_ERR_CLOSED. Only keepsock_client_free() needs the object for itself.
 *
 * Signals: no call dies of SIGPIPE, no signal disposition is changed, and a
 * signal handler that interrupts a call does not end it.
 */
typedef struct keepsock_client keepsock_client;

/**
 * A connect under way, for programs that wait elsewhere: in an event loop, for several connects
 * at once, or between other work. Lookup, race and deadline are those of
 * keepsock_client_connect(). Call keepsock_connecting_finish() when the descriptor
 * (keepsock_connecting_fd()) is readable, until it does not say KEEPSOCK_ERR_WOULD_BLOCK. It also
 * tells what a finished connect does not: which attempts failed on the way, and which are under
 * way.
 *
 * Threads: one at a time.
 */
typedef struct keepsock_connecting keepsock_connecting;

/**
 * A connection that is served by events: keepsock_server_serve_events(). It is the library's, and
 * valid from its open callback until its close callback returns; it is never freed. After that
 * every call says KEEPSOCK_ERR_WRONG_STATE, until its memory is used for another connection of the
 * service: do not keep it longer.
 *
 * Threads: any thread may call any function at any time, callbacks included; none waits.
 */
typedef struct keepsock_connection keepsock_connection;

/**
 * A datagram socket, UDP or Unix: bound to a local address, for datagrams from anybody, or
 * connected to one peer. Unix systems only so far.
 *
 * Threads: any number of threads may be in calls on one socket; a datagram is sent, and
 * received, as a whole. keepsock_datagram_close() may come from any thread at any time. Only
 * keepsock_datagram_free() needs the object for itself.
 */
typedef struct keepsock_datagram keepsock_datagram;

/**
 * A datagram socket that is being served, made by keepsock_datagram_serve().
 *
 * Threads: any thread may call any function, handlers included (but see
 * keepsock_datagram_handler). Only keepsock_datagram_service_free() needs the object for itself.
 */
typedef struct keepsock_datagram_service keepsock_datagram_service;

/**
 * Why a call failed, for people: its message is one line that tells what was
 * done, to which endpoint, at which stage and why.
 *
 * Every call takes a keepsock_error ** as its last argument. Pass NULL if the
 * status is enough. Otherwise a failed call stores a new error there, which is
 * yours to free; a successful call leaves it alone, so start with NULL.
 *
 * Threads: an error does not change; any number of threads may read it.
 * All functions on it accept NULL, which reads as "no error".
 */
typedef struct keepsock_error keepsock_error;

/**
 * The three packets that opened one TCP connection: 0 is the client's SYN, 1 the server's
 * SYN and ACK, 2 the client's ACK (RFC 9293 section 3.5).
 *
 * Threads: a handshake does not change; any number of threads may read it.
 */
typedef struct keepsock_handshake keepsock_handshake;

/**
 * The sockets that a process was started with: by systemd, or another service manager that
 * speaks the same (LISTEN_FDS, sd_listen_fds(3)), or by a predecessor that it replaces
 * (keepsock_hand_over()). keepsock_inherited_listen(), for datagrams keepsock_inherited_bind(), is
 * all that a server needs for three ways to be started: by itself, by socket activation, and as a
 * successor.
 *
 * Threads: one at a time.
 */
typedef struct keepsock_inherited keepsock_inherited;

/**
 * How a socket is to be, set before there is one. Made by
 * keepsock_options_new() with the defaults; connect, listen and the from_fd
 * functions copy what they need, so one object serves any number of sockets and
 * may be freed at once. NULL in its place means the defaults.
 *
 * Threads: setting needs the object for itself; passing it to connect or listen
 * only reads it.
 */
typedef struct keepsock_options keepsock_options;

/**
 * Connects, and connects again after the connection was lost: tries until it succeeds, and
 * waits between the tries. Nothing is hidden: it works only inside
 * keepsock_reconnect_connect(), and what a lost connection had in flight is for the program to
 * send again.
 *
 * - Each try is a keepsock_client_connect() of its own: the name is looked up again, and every
 *   option is applied again.
 * - Between tries passes a random time from zero to 100 ms; after each failure twice as much, at
 *   most 30 s ("exponential backoff" with "full jitter", as in the article of that name in the
 *   AWS Architecture Blog). A thousand clients that lost their server at the same moment then do
 *   not come back at the same moment.
 * - Only the very first try is made at once. A connection counts as a success if it was made at
 *   least the longest wait (30 s) before the next keepsock_reconnect_connect(); the waits then
 *   begin anew at 100 ms. One that was lost sooner counts as a failure: a server that accepts
 *   and closes is not asked more and more often but less. If the program knows better, it calls
 *   keepsock_reconnect_reset().
 * - Errors that cannot pass end it at once: KEEPSOCK_ERR_INVALID_ARGUMENT, _INVALID_ENDPOINT,
 *   _UNSUPPORTED, _PERMISSION_DENIED, and a literal address that the options exclude
 *   (_NOT_FOUND, _ADDRESS_NOT_AVAILABLE). All others are tried again, a name that is not found
 *   and a Unix path that is not there included.
 *
 * Threads: one at a time. A call while another one is going on, in another thread or from the
 * keepsock_on_retry that it called, returns KEEPSOCK_ERR_WRONG_STATE. To end it, fire the cancel
 * token of the options, from any thread or from a signal handler.
 */
typedef struct keepsock_reconnect keepsock_reconnect;

/**
 * How keepsock_server_serve() and keepsock_server_serve_events() serve.
 *
 * Threads: setting needs the object for itself.
 */
typedef struct keepsock_serve_options keepsock_serve_options;

/**
 * A listening socket. It goes on listening while any number of connections that
 * it accepted are in use.
 *
 * Threads: any number of threads may be in calls on one server, accept among
 * them. keepsock_server_close() may come from any thread at any time. Only
 * keepsock_server_free() needs the object for itself.
 */
typedef struct keepsock_server keepsock_server;

/**
 * A server at work, made by keepsock_server_serve() or keepsock_server_serve_events().
 *
 * Threads: any thread may call any function, handlers included (but see
 * keepsock_handler and keepsock_callbacks). Only keepsock_service_free() needs the object for
 * itself.
 */
typedef struct keepsock_service keepsock_service;

/**
 * An IP address and a port. keepsock_address_parse() makes one of text,
 * keepsock_address_text() text of one. It never grows.
 */
typedef struct {
    /**
     * In network order; of an IPv4 address the first four bytes, the rest is 0.
     */
    uint8_t ip[16];
    /**
     * The interface's index of a link-local IPv6 address, or 0.
     */
    uint32_t zone;
    /**
     * The port, in the machine's order.
     */
    uint16_t port;
    /**
     * 4 or 6; 1: a Unix socket, whose name is elsewhere; 0: there is no address.
     */
    uint16_t family;
} keepsock_address;

/**
 * What is known of a connection at one moment. -1, or "", is what the system, or this
 * kind of socket, does not tell: for Unix sockets all that is TCP's. Linux tells everything
 * (tcp(7), TCP_INFO), others a part. Times are microseconds.
 */
typedef struct {
    /**
     * A value of enum keepsock_tcp_state, or 0.
     */
    int32_t state;
    /**
     * Why the connection ended, a value of enum keepsock_end; 0: it lives.
     */
    int32_t end;
    /**
     * The smoothed round-trip time (RFC 6298).
     */
    int64_t rtt_us;
    /**
     * Its mean deviation.
     */
    int64_t rtt_variation_us;
    /**
     * The shortest round trip that was seen lately.
     */
    int64_t min_rtt_us;
    /**
     * How long ago data was sent last.
     */
    int64_t last_sent_us;
    /**
     * How long ago the last segment came, be it data or an ACK.
     */
    int64_t last_received_us;
    /**
     * Segments that were sent again, in the connection's life.
     */
    int64_t retransmits;
    /**
     * Bytes on their way: sent and not acknowledged.
     */
    int64_t unacknowledged;
    /**
     * Bytes that were written and wait to be sent.
     */
    int64_t unsent;
    /**
     * Bytes that came and wait to be read.
     */
    int64_t unread;
    /**
     * Data bytes sent, repeated ones included.
     */
    int64_t bytes_sent;
    /**
     * Data bytes received; Linux counts the FIN as one.
     */
    int64_t bytes_received;
    /**
     * Segments sent, with those that only acknowledge.
     */
    int64_t segments_sent;
    /**
     * Segments received, with those that only acknowledge.
     */
    int64_t segments_received;
    /**
     * The largest segment that is sent, in bytes.
     */
    int64_t mss;
    /**
     * How many segments may be on their way.
     */
    int64_t congestion_window;
    /**
     * How many bytes the peer takes; 0: its program does not read.
     */
    int64_t peer_window;
    /**
     * Heartbeats that this side sent.
     */
    int64_t heartbeats;
    /**
     * The algorithm that minds congestion: "cubic", "bbr".
     */
    char congestion_control[16];
} keepsock_snapshot;

#if defined(_WIN32)
/**
 * A socket as the system knows it: a descriptor, or a SOCKET on Windows.
 */
typedef size_t keepsock_fd;
#endif

#if !defined(_WIN32)
/**
 * A socket as the system knows it: a descriptor, or a SOCKET on Windows.
 */
typedef int keepsock_fd;
#endif

/**
 * One of several buffers of keepsock_client_read_slices().
 */
typedef struct {
    /**
     * Where bytes are put; may be NULL if cap is 0.
     */
    void *data;
    /**
     * How many fit.
     */
    size_t cap;
} keepsock_buffer;

/**
 * One of several buffers of keepsock_client_write_slices().
 */
typedef struct {
    /**
     * Its bytes; may be NULL if len is 0.
     */
    const void *data;
    /**
     * How many.
     */
    size_t len;
} keepsock_slice;

/**
 * The keepalive values that the kernel uses.
 */
typedef struct {
    /**
     * Whether keepalive is on; if not, the rest is 0.
     */
    bool enabled;
    /**
     * Time without traffic before the first probe, in milliseconds.
     */
    int64_t idle_ms;
    /**
     * Time between probes, in milliseconds.
     */
    int64_t interval_ms;
    /**
     * Unanswered probes after which the peer is dead.
     */
    uint32_t count;
} keepsock_keepalive;

/**
 * What identifies a connection.
 */
typedef struct {
    /**
     * A value of enum keepsock_protocol.
     */
    int32_t protocol;
    /**
     * This side's port; 0 for a Unix socket.
     */
    uint16_t local_port;
    /**
     * The peer's port; 0 for a Unix socket.
     */
    uint16_t remote_port;
    /**
     * This side's address without port: "127.0.0.1", "::1", a path, or "".
     */
    char local_address[112];
    /**
     * The peer's address without port.
     */
    char remote_address[112];
} keepsock_five_tuple;

/**
 * One failed attempt of a connect: which address, how far, why, how long.
 */
typedef struct {
    /**
     * Why it failed: a value of enum keepsock_err.
     */
    int32_t status;
    /**
     * The system's error number (errno), or 0.
     */
    int32_t os_error;
    /**
     * Its duration in microseconds.
     */
    int64_t elapsed_us;
    /**
     * The address that was tried, as an endpoint.
     */
    char address[128];
    /**
     * The step that failed: "socket", "options", "bind" or "connect".
     */
    char stage[16];
} keepsock_attempt;

/**
 * An attempt that is under way.
 */
typedef struct {
    /**
     * A value of enum keepsock_tcp_state; 0 where the system does not tell.
     */
    int32_t state;
    /**
     * The address that is tried: "[::1]:80".
     */
    char address[128];
} keepsock_under_way;

/**
 * What a program does about the connections of keepsock_server_serve_events(). A member that is
 * NULL is not called; what the library does then is said there. Set all that you do not use to 0,
 * as `keepsock_callbacks callbacks = {.size = sizeof callbacks, .data = on_data};` does.
 *
 * For one connection the calls come one at a time, open first and close last. With more than one
 * thread (keepsock_serve_options_set_threads()) those for different connections come at once. A
 * call that waits holds up all connections of its thread.
 *
 * No lock is held meanwhile: from inside any of them every function may be called, on any
 * connection and on the service, except for keepsock_service_drain(), which says
 * KEEPSOCK_ERR_WRONG_STATE, and keepsock_service_free().
 */
typedef struct {
    /**
     * sizeof(keepsock_callbacks).
     */
    size_t size;
    /**
     * A connection was accepted, or added by keepsock_service_add() or keepsock_service_connect().
     */
    void (*open)(keepsock_connection *connection, void *user);
    /**
     * A message came, of len bytes at data, which are valid until the call returns; without
     * framing some bytes. NULL: what comes is thrown away.
     */
    void (*data)(keepsock_connection *connection, const void *data, size_t len, void *user);
    /**
     * All that waited for the peer has been taken by the kernel.
     */
    void (*writable)(keepsock_connection *connection, void *user);
    /**
     * The peer has ended its side (FIN): nothing more comes, but it may still read. NULL: the
     * connection is closed. It is over when this side has ended, too
     * (keepsock_connection_shutdown_write()), and everything was sent.
     */
    void (*finished)(keepsock_connection *connection, void *user);
    /**
     * The time has come that keepsock_connection_set_timer() was given.
     */
    void (*timer)(keepsock_connection *connection, void *user);
    /**
     * The service drains: say goodbye, and close. NULL: the connection is closed.
     */
    void (*drain)(keepsock_connection *connection, void *user);
    /**
     * The connection is over, and why: a value of enum keepsock_end. Its addresses can still be
     * asked for, nothing can be sent.
     */
    void (*close)(keepsock_connection *connection, int32_t end, void *user);
    /**
     * A keepsock_service_connect() has come to nothing: no connection was opened for this data.
     * The error is valid until the call returns, and not to be freed.
     */
    void (*connect_failed)(const keepsock_error *error, void *data, void *user);
} keepsock_callbacks;

/**
 * Who is at the other end of a Unix socket: the process that called connect(), or, for the
 * connecting side, the one that called listen(), as it was then.
 */
typedef struct {
    /**
     * The process; -1 where the system does not tell, and for one of a PID namespace that this
     * process does not see into.
     */
    int64_t pid;
    /**
     * Its effective user.
     */
    uint32_t uid;
    /**
     * Its effective group.
     */
    uint32_t gid;
} keepsock_credentials;

/**
 * What was received, but for the bytes.
 */
typedef struct {
    /**
     * Who sent it; of a Unix socket (family 1) the name is in unix_name.
     */
    keepsock_address from;
    /**
     * The address that it was sent to, which may be a group's or a broadcast address; family 0
     * where the system does not tell, and for Unix sockets.
     */
    keepsock_address to;
    /**
     * The address of this machine that keepsock_datagram_reply() answers from; family 0: the
     * system chooses.
     */
    keepsock_address local;
    /**
     * The index of the interface by which it came; 0: not told. It is told for a socket that is
     * bound to a wildcard or a group, and with keepsock_datagram_set_details().
     */
    uint32_t interface_index;
    /**
     * Whether the buffer was too short, so that the rest is lost.
     */
    bool truncated;
    /**
     * How many routers it might still have passed (TTL, hop limit); -1: not told, as without
     * keepsock_datagram_set_details().
     */
    int16_t ttl;
    /**
     * Its TOS byte (IPv4), or traffic class (IPv6): DSCP in the upper six bits, ECN in the lower
     * two; -1: not told, as without keepsock_datagram_set_details().
     */
    int16_t tos;
    /**
     * How many bytes were put into the buffer.
     */
    size_t len;
    /**
     * How many bytes the datagram had; systems other than Linux do not tell: there it is len.
     */
    size_t original_len;
    /**
     * When the kernel took it, in nanoseconds since 1970; -1: not told, as without
     * keepsock_datagram_set_details().
     */
    int64_t received_at_ns;
    /**
     * The name of the Unix socket that sent it, as in sun_path of unix(7): an abstract name begins
     * with a NUL.
     */
    uint8_t unix_name[108];
    /**
     * How many bytes it has; 0: it has none, and cannot be answered.
     */
    uint16_t unix_name_len;
    /**
     * Whether credentials are told: Unix sockets on Linux, with keepsock_datagram_set_details() or
     * keepsock_options_allow_user().
     */
    bool has_credentials;
    /**
     * The process that sent it, its user and its group, by what the kernel knows.
     */
    keepsock_credentials credentials;
} keepsock_datagram_info;

/**
 * One datagram of keepsock_datagram_send_batch(). It never grows. What is not needed is 0.
 */
typedef struct {
    /**
     * Its bytes; may be NULL if len is 0.
     */
    const void *data;
    /**
     * How many; 0 is a datagram, too.
     */
    size_t len;
    /**
     * To whom; family 0: to the peer of a connected socket.
     */
    keepsock_address to;
    /**
     * The address of this machine that it leaves from, if the socket is bound to all of them;
     * family 0: the system chooses. A socket that is bound to one sends from that.
     */
    keepsock_address local;
    /**
     * The index of the interface, where the addresses need one; else 0.
     */
    uint32_t interface_index;
    /**
     * What was told of a datagram, to answer it as keepsock_datagram_reply() does, in place of the
     * three above; of a Unix socket, too. NULL: this is no answer.
     */
    const keepsock_datagram_info *question;
} keepsock_outgoing;

/**
 * A buffer of keepsock_datagram_recv_batch(), and what was received into it.
 */
typedef struct {
    /**
     * Where the bytes are put; may be NULL if cap is 0. On a connected socket, and on a Unix
     * socket to which only some users may send, two entries may have exchanged their buffers
     * afterwards.
     */
    void *data;
    /**
     * How many fit.
     */
    size_t cap;
    /**
     * Filled in on success.
     */
    keepsock_datagram_info info;
} keepsock_incoming;

/**
 * Called for each datagram, in a thread of the library's. Every function may be called inside but
 * for keepsock_datagram_service_wait(), which would wait for the handler itself, and the _free
 * functions of socket and service.
 *
 * @param datagram  The socket that is served: answer with keepsock_datagram_reply().
 * @param info      What is told of the datagram; valid until the handler returns. Later versions
 *                  may have more at its end.
 * @param data      Its bytes; valid until the handler returns.
 * @param len       How many.
 * @param user      What was passed to keepsock_datagram_serve(). It must live until
 *                  keepsock_datagram_service_free() returns.
 */
typedef void (*keepsock_datagram_handler)(keepsock_datagram *datagram,
                                          const keepsock_datagram_info *info,
                                          const void *data,
                                          size_t len,
                                          void *user);

/**
 * What is known of a datagram socket at one moment. -1 is what the system does not tell. Memory is
 * the kernel's, which for small datagrams is several times their bytes.
 */
typedef struct {
    /**
     * How many datagrams were lost here, since there was no room for them.
     */
    int64_t dropped;
    /**
     * Bytes of memory that datagrams take which wait to be received.
     */
    int64_t unread;
    /**
     * How many they may take.
     */
    int64_t receive_buffer;
    /**
     * Bytes of memory that datagrams take which wait to be sent.
     */
    int64_t unsent;
    /**
     * How many they may take.
     */
    int64_t send_buffer;
    /**
     * How many datagrams were passed over since their sender is not one of the users that may
     * send: keepsock_options_allow_user().
     */
    int64_t denied;
    /**
     * How many errors were reported: keepsock_datagram_recv_error().
     */
    int64_t errors;
    /**
     * As keepsock_datagram_path_mtu() tells it; -1 for a socket that is not connected, too.
     */
    int64_t path_mtu;
} keepsock_datagram_stats;

/**
 * An error that was reported for a datagram that the socket sent.
 */
typedef struct {
    /**
     * KEEPSOCK_OK: there is none. Else KEEPSOCK_ERR_REFUSED (nobody has the port, or the protocol,
     * there), _UNREACHABLE, _TOO_LONG (for the way), _PERMISSION_DENIED (by a firewall), _OS.
     */
    int32_t status;
    /**
     * The system's error number (errno), or 0.
     */
    int32_t os_error;
    /**
     * Where the datagram had been sent to; family 0: not told.
     */
    keepsock_address to;
    /**
     * The machine, or the router on the way, that reported it, with port 0; family 0: not told.
     */
    keepsock_address from;
    /**
     * With KEEPSOCK_ERR_TOO_LONG: how long a packet on that way may be, its headers included; 0:
     * not told.
     */
    uint32_t path_mtu;
} keepsock_datagram_error;

/**
 * One TCP segment with what its IP header says (RFC 9293, RFC 791, RFC 8200).
 */
typedef struct {
    /**
     * When it passed, in microseconds since 1970 (UTC); 0 if that is not known, as of a SYN that
     * the kernel kept, and of packets in the first moments of a capture.
     */
    int64_t captured_us;
    /**
     * The sequence number; in a SYN the sender's initial one.
     */
    uint32_t seq;
    /**
     * The acknowledgment number; means something if flags has KEEPSOCK_TCP_ACK.
     */
    uint32_t ack;
    /**
     * How many bytes of data it carries.
     */
    uint32_t payload_len;
    /**
     * The sender's clock (RFC 7323), if has_timestamps.
     */
    uint32_t timestamp;
    /**
     * The peer's clock as the sender heard it last, if has_timestamps; 0 in a SYN.
     */
    uint32_t timestamp_echo;
    /**
     * The window as it stands in the header, not scaled.
     */
    uint16_t window;
    /**
     * The urgent pointer; means something if flags has KEEPSOCK_TCP_URG.
     */
    uint16_t urgent;
    /**
     * The largest segment that the sender takes; 0: it does not say.
     */
    uint16_t mss;
    /**
     * The sender's port.
     */
    uint16_t source_port;
    /**
     * The receiver's port.
     */
    uint16_t destination_port;
    /**
     * By how many bits the sender's windows are to be shifted; -1: it does not scale them.
     */
    int16_t window_scale;
    /**
     * KEEPSOCK_TCP_SYN and the like, as in the header.
     */
    uint8_t flags;
    /**
     * 4 or 6.
     */
    uint8_t ip_version;
    /**
     * IPv4's time to live, IPv6's hop limit: what was left of it.
     */
    uint8_t ttl;
    /**
     * IPv4's type of service, IPv6's traffic class: DSCP, and in the lowest two bits ECN.
     */
    uint8_t traffic_class;
    /**
     * Whether routers may not cut it to pieces: IPv4's DF; always in IPv6.
     */
    bool dont_fragment;
    /**
     * Whether the sender knows selective acknowledgments (RFC 2018).
     */
    bool sack_permitted;
    /**
     * Whether it has timestamps.
     */
    bool has_timestamps;
    /**
     * How many bytes of options are used.
     */
    uint8_t options_len;
    /**
     * The options as they stand in the header, in their order, padding included.
     */
    uint8_t options[40];
    /**
     * The sender's address without port.
     */
    char source_address[48];
    /**
     * The receiver's address without port.
     */
    char destination_address[48];
    /**
     * All of it as "tcpdump -n -S -t" prints it: "IP 127.0.0.1.40000 > 127.0.0.1.80:
     * Flags [S], seq 1, win 65495, options [mss 65495,sackOK,TS val 1 ecr 0,nop,wscale 7],
     * length 0".
     */
    char line[512];
} keepsock_segment;

/**
 * What is handed over, and what the successor may ask for it by. It never grows.
 */
typedef struct {
    /**
     * Printable ASCII but ':', at most 255 bytes.
     */
    const char *name;
    /**
     * A listening socket, all of its endpoints; or NULL.
     */
    const keepsock_server *server;
    /**
     * A datagram socket, UDP or Unix; or NULL. One of the two is given.
     */
    const keepsock_datagram *datagram;
} keepsock_handed;

/**
 * Called for each log event, in whichever thread it happens, and by several
 * threads at once. The call that made the event waits for it, so it should be
 * quick.
 *
 * No lock of the library is held: inside, functions may be called on any
 * object. Not keepsock_log_set(), which would wait for the callback itself; not
 * the _free function of an object that a call is at work on, as always; and not
 * keepsock_service_drain() or keepsock_service_free(), if a handler might be the
 * one that is waiting. What functions that are called inside have to tell is
 * not told. It must return: no longjmp(), no C++ exception.
 *
 * @param user     What was passed to keepsock_log_set().
 * @param level    A value of enum keepsock_log_level, never KEEPSOCK_LOG_LEVEL_OFF.
 * @param target   What it is about: "keepsock::lookup", "keepsock::connect",
 *                 "keepsock::connection", "keepsock::listen", "keepsock::accept"
 *                 or "keepsock::serve". Lives until the callback returns.
 * @param message  One line without its end, UTF-8; never a byte of what is read
 *                 or written. Its words may change. Lives until the callback
 *                 returns.
 */
typedef void (*keepsock_log_callback)(void *user,
                                      int32_t level,
                                      const char *target,
                                      const char *message);

/**
 * Told before each wait of keepsock_reconnect_connect(), in the thread that called it: for a log.
 * The time it takes is part of the wait. It may fire the cancel token; it must not free the
 * keepsock_reconnect.
 *
 * @param error    Why the last try failed; it is lent until the function returns. NULL: the last
 *                 try succeeded, and that connection is the one that was lost.
 * @param tries    How many tries have failed since the last success.
 * @param wait_ms  The time to the next try in milliseconds, rounded up. The limit may end it
 *                 sooner.
 * @param user     What was passed to keepsock_reconnect_set_on_retry().
 */
typedef void (*keepsock_on_retry)(const keepsock_error *error,
                                  uint32_t tries,
                                  int64_t wait_ms,
                                  void *user);

/**
 * What a server socket has counted since it began to listen.
 */
typedef struct {
    /**
     * Connections handed to the program.
     */
    uint64_t accepted;
    /**
     * Accepts tried again after an error that concerned one connection.
     */
    uint64_t retried;
    /**
     * Accepts tried again because descriptors, memory or threads were used up.
     */
    uint64_t exhausted;
    /**
     * Connections reset because serve was full and told to refuse.
     */
    uint64_t refused;
    /**
     * Connections reset at once because their address had as many as it may.
     */
    uint64_t crowded;
    /**
     * Connections ended at once because their address, or their user, may not connect.
     */
    uint64_t denied;
} keepsock_server_counters;

/**
 * Called once for each confirmed connection, in a thread of its own.
 *
 * The connection is the library's: it is valid until the handler returns, then
 * closed as keepsock_client_close() does, and must not be freed. Inside, every
 * function may be called on it and on the service, but for
 * keepsock_service_drain(), which would wait for the handler itself.
 *
 * @param client  The connection.
 * @param user    What was passed to keepsock_server_serve(). It must live until
 *                keepsock_service_free() returns.
 */
typedef void (*keepsock_handler)(keepsock_client *client, void *user);

/**
 * What a broadcast came to.
 */
typedef struct {
    /**
     * Clients whose kernel took the message, or for which it waits.
     */
    uint32_t sent;
    /**
     * Clients that did not keep up, or were gone, and were reset.
     */
    uint32_t cut;
    /**
     * Clients among those above for which messages were dropped: older ones, or this one
     * (KEEPSOCK_WHEN_SLOW_DROP_OLDEST).
     */
    uint32_t dropped;
} keepsock_broadcast;

/**
 * A service at one moment. -1 is what is not known: with a thread for each connection its handlers
 * move the bytes.
 */
typedef struct {
    /**
     * Milliseconds since it was started.
     */
    int64_t uptime_ms;
    /**
     * Whether it still accepts.
     */
    bool accepting;
    /**
     * Connections that are served now.
     */
    uint32_t connections;
    /**
     * Connections that were ever served.
     */
    uint64_t opened;
    /**
     * Connections that have ended: opened - connections.
     */
    uint64_t closed;
    /**
     * Bytes that came.
     */
    int64_t received;
    /**
     * Bytes of messages that the program sent: they are sent, dropped, or still queued.
     */
    int64_t written;
    /**
     * Bytes that kernels took.
     */
    int64_t sent;
    /**
     * Bytes that wait in this program.
     */
    int64_t queued;
    /**
     * Bytes of messages that were dropped: for want of room, or since their connection was over.
     */
    int64_t dropped;
    /**
     * How many messages those were.
     */
    int64_t dropped_messages;
    /**
     * How connections have ended: how many by each value of enum keepsock_end. With a thread for
     * each its handler is asked, which has not always met the end.
     */
    uint64_t ends[16];
} keepsock_service_stats;

















#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, as "0.1.0".
 *
 * @return A static string. Since 0.1.
 */
const char *keepsock_version(void);

/**
 * Makes an address of a numeric endpoint: "192.0.2.1:80", "[fe80::1%eth0]:80".
 *
 * @param endpoint  Its text; names are not addresses.
 * @param address   Receives it.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_address_parse(const char *endpoint,
                               keepsock_address *address,
                               keepsock_error **error);

/**
 * Prints an address as an endpoint: "192.0.2.1:80", "[fe80::1%3]:80".
 *
 * @param address  An address.
 * @param buf      Receives the text, with its NUL.
 * @param cap      Its size; 64 is enough for all.
 * @param needed   Receives the size that is needed, also when cap is too small; may be NULL.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TOO_LONG, _INVALID_ARGUMENT (family 0, too). Since 0.1.
 */
int32_t keepsock_address_text(const keepsock_address *address,
                              char *buf,
                              size_t cap,
                              size_t *needed,
                              keepsock_error **error);

/**
 * Does what is due to keep the connection alive, and says in what time to call again at
 * the latest. For programs that do not wait in keepsock's calls, in non-blocking mode or with
 * the connection idle: calls that wait do all of this by themselves. A heartbeat is sent, if
 * its time has come and nobody is writing; a peer that is dead by
 * keepsock_options_set_dead_after(), and one that was silent for
 * keepsock_options_set_idle_limit(), is reported.
 *
 * @param client   A connection.
 * @param next_ms  Receives milliseconds; KEEPSOCK_INFINITE: nothing ever is due.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_DEAD, _UNREACHABLE, _IDLE_LIMIT,
 *         _HEARTBEAT_MISSED, _STALLED, _RESET: it is over; _CLOSED, _INVALID_ARGUMENT, _OS.
 *         Since 0.1.
 */
int32_t keepsock_client_check_alive(keepsock_client *client,
                                    int64_t *next_ms,
                                    keepsock_error **error);

/**
 * Why the connection ended, as far as calls on it have met it. Stays after close.
 *
 * @param client  A connection, or NULL: 0.
 * @return A value of enum keepsock_end; 0: it lives. Since 0.1.
 */
int32_t keepsock_client_end(const keepsock_client *client);

/**
 * The words for why a connection ended: "reset by peer".
 *
 * @param end  A value of enum keepsock_end.
 * @return A static string; "" for other numbers. Since 0.1.
 */
const char *keepsock_end_text(int32_t end);

/**
 * What is known of the connection now: state, times, bytes on their way, counters. After it
 * ended by an error, and after close if keepsock_options_set_last_snapshot() asked for it, it
 * is the last copy; otherwise what is known without the kernel: end, and the state CLOSED.
 *
 * @param client  A connection; closed ones too.
 * @param out     Filled in on success.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _UNSUPPORTED or _OS if the
 *         system does not tell. Since 0.1.
 */
int32_t keepsock_client_snapshot(const keepsock_client *client,
                                 keepsock_snapshot *out,
                                 size_t size,
                                 keepsock_error **error);

/**
 * The TCP state, by its name in RFC 9293: keepsock_tcp_state_name(). CLOSED after close.
 *
 * @param client  A connection.
 * @param state   Receives a value of enum keepsock_tcp_state.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _UNSUPPORTED for a Unix socket,
 *         and where the system does not tell; _OS. Since 0.1.
 */
int32_t keepsock_client_state(const keepsock_client *client,
                              int32_t *state,
                              keepsock_error **error);

/**
 * The user timeout that the kernel keeps (RFC 9293 section 3.8.3): for how long data may
 * stay unacknowledged, or not be taken. Set by keepsock_options_set_end_stalled().
 *
 * @param client      A connection.
 * @param timeout_ms  Receives milliseconds; KEEPSOCK_INFINITE: none is set.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _UNSUPPORTED for a Unix
 *         socket, and on macOS; _OS. Since 0.1.
 */
int32_t keepsock_client_user_timeout(const keepsock_client *client,
                                     int64_t *timeout_ms,
                                     keepsock_error **error);

/**
 * Whether it is a Multipath TCP connection: both sides knew it, and so did everything on the way.
 * Linux 5.16 and later can tell; elsewhere no.
 *
 * @param client  A connection, or NULL: no.
 * @return Whether it is; closed ones are not. Since 0.1.
 */
bool keepsock_client_is_mptcp(const keepsock_client *client);

/**
 * Makes a token.
 *
 * @param cancel  Receives it; free it with keepsock_cancel_free().
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_NO_DESCRIPTORS (it holds one on Linux, two
 *         on other Unix systems), KEEPSOCK_ERR_NO_MEMORY,
 *         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_cancel_new(keepsock_cancel **cancel, keepsock_error **error);

/**
 * Fires a token. Async-signal-safe, errno is left alone; firing twice is as
 * good as once.
 *
 * @param cancel  A token, or NULL. Since 0.1.
 */
void keepsock_cancel_fire(const keepsock_cancel *cancel);

/**
 * Makes a fired token as new. A call that has not noticed yet that it was fired
 * goes on waiting: reset it when the calls to be ended have returned.
 *
 * @param cancel  A token, or NULL. Since 0.1.
 */
void keepsock_cancel_reset(const keepsock_cancel *cancel);

/**
 * Whether a token was fired and not reset since.
 *
 * @param cancel  A token, or NULL: false.
 * @return true if it is fired. Since 0.1.
 */
bool keepsock_cancel_is_fired(const keepsock_cancel *cancel);

/**
 * Frees a token. Sockets that carry it keep their share. Freeing NULL does nothing.
 *
 * @param cancel  A token, or NULL. Since 0.1.
 */
void keepsock_cancel_free(keepsock_cancel *cancel);

/**
 * Connects: to "host:port", "192.0.2.1:80", "[2001:db8::1]:80",
 * "[fe80::1%eth0]:80", "unix:/path" or "unix:@abstract"; a service name may stand for
 * the port ("example.com:http"). The addresses of a name race (RFC 8305): IPv6 and
 * IPv4 in turns, the next one 250 ms after the one before or as soon as one has
 * failed; the first that connects wins. One deadline holds for the lookup and
 * all of them (keepsock_options_set_connect_timeout(), 30 s by default); the call
 * is back by then even if the resolver hangs. A lookup that was given up keeps a
 * thread until the resolver answers; at most 64, then KEEPSOCK_ERR_LOOKUP_FAILED.
 *
 * @param endpoint  Where to connect.
 * @param options   Options, copied; NULL for the defaults.
 * @param client    Receives the connection; free it with keepsock_client_free().
 * @param error     See keepsock_error; may be NULL. It lists every attempt.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _NOT_FOUND,
 *         _LOOKUP_FAILED, _REFUSED, _UNREACHABLE, _TIMED_OUT, _CANCELLED, _RESET,
 *         _ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE, _PERMISSION_DENIED,
 *         _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED, _INVALID_ARGUMENT, _OS.
 *         Since 0.1.
 */
int32_t keepsock_client_connect(const char *endpoint,
                                const keepsock_options *options,
                                keepsock_client **client,
                                keepsock_error **error);

/**
 * Takes over a connected stream socket: keepalive, TCP_NODELAY, timeouts and
 * token are set as the options say, and it is put into blocking mode.
 *
 * @param fd       A connected TCP or Unix socket, not for datagrams. It belongs to the new
 *                 connection on success and stays the caller's on failure.
 * @param options  Options, copied; NULL for the defaults.
 * @param client   Receives the connection; free it with keepsock_client_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected, listening, or
 *         not a stream), _OS (not a socket at all); for the interface option
 *         _INVALID_ENDPOINT, _PERMISSION_DENIED, _UNSUPPORTED; _INVALID_ARGUMENT.
 *         Since 0.1.
 */
int32_t keepsock_client_from_fd(keepsock_fd fd,
                                const keepsock_options *options,
                                keepsock_client **client,
                                keepsock_error **error);

/**
 * Reads some bytes: waits until there is at least one, and takes what is there.
 *
 * @param client  A connection.
 * @param buf     Filled with at most cap bytes.
 * @param cap     Its size; above 0.
 * @param len     Receives the number of bytes; 0: the peer closed its side.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _RESET,
 *         _DEAD, _UNREACHABLE, _STALLED, _IDLE_LIMIT, _HEARTBEAT_MISSED (it is over),
 *         _WOULD_BLOCK (non-blocking mode), _DRAINING (in a keepsock_handler),
 *         _TOO_LONG (keepsock_options_set_sequenced() only), _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_client_read(keepsock_client *client,
                             void *buf,
                             size_t cap,
                             size_t *len,
                             keepsock_error **error);

/**
 * Reads exactly len bytes, within one read timeout for all. If it fails, the
 * bytes that had come are kept for the next read (keepsock_error_transferred()
 * counts them) and the contents of buf are undefined.
 *
 * @param client  A connection.
 * @param buf     Filled with len bytes.
 * @param len     How many.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read(), and KEEPSOCK_ERR_END_OF_STREAM: the
 *         peer closed its side before all had come. Since 0.1.
 */
int32_t keepsock_client_read_exact(keepsock_client *client,
                                   void *buf,
                                   size_t len,
                                   keepsock_error **error);

/**
 * Reads up to and with the first delimiter. The last piece of a stream that
 * ends without one comes without. If it fails, the bytes that had come are kept
 * for the next read.
 *
 * @param client     A connection.
 * @param delimiter  The byte that ends a piece.
 * @param buf        Filled with the piece, its delimiter included; no NUL is added.
 * @param cap        The maximum: the size of buf; above 0.
 * @param len        Receives the length of the piece.
 * @param error      See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read(); KEEPSOCK_ERR_END_OF_STREAM: the peer
 *         had closed its side before the first byte; KEEPSOCK_ERR_TOO_LONG: no
 *         delimiter within cap bytes: read them with keepsock_client_read(), or
 *         call again with a larger buffer. Since 0.1.
 */
int32_t keepsock_client_read_until(keepsock_client *client,
                                   uint8_t delimiter,
                                   void *buf,
                                   size_t cap,
                                   size_t *len,
                                   keepsock_error **error);

/**
 * Reads one message that has its length before it; the prefix is taken off. A message of no bytes
 * is one. If it fails, the bytes that had come are kept for the next read.
 *
 * @param client  A connection.
 * @param prefix  A value of enum keepsock_length_prefix.
 * @param buf     Filled with the message; may be NULL if cap is 0.
 * @param cap     Its size, and the longest message that is taken.
 * @param len     Receives the message's length.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read(); KEEPSOCK_ERR_TOO_LONG: the prefix says more than cap;
 *         KEEPSOCK_ERR_END_OF_STREAM: the peer closed before all had come. Since 0.1.
 */
int32_t keepsock_client_read_message(keepsock_client *client,
                                     int32_t prefix,
                                     void *buf,
                                     size_t cap,
                                     size_t *len,
                                     keepsock_error **error);

/**
 * Writes one message with its length before it, in one system call.
 *
 * @param client  A connection.
 * @param prefix  A value of enum keepsock_length_prefix.
 * @param buf     The message; may be NULL if len is 0.
 * @param len     How many bytes; no more than the prefix can say.
 * @param error   See keepsock_error; may be NULL. keepsock_error_transferred() counts the prefix.
 * @return Those of keepsock_client_write_all(). Since 0.1.
 */
int32_t keepsock_client_write_message(keepsock_client *client,
                                      int32_t prefix,
                                      const void *buf,
                                      size_t len,
                                      keepsock_error **error);

/**
 * Reads one line. Its end (LF or CRLF) is taken off and a NUL is added. The
 * last line of a stream may lack its end. If it fails, the bytes that had come are
 * kept for the next read.
 *
 * @param client  A connection.
 * @param buf     Filled with the line and a NUL.
 * @param cap     Its size: the line may have cap - 1 bytes.
 * @param len     Receives the length without NUL; may be NULL. The line may hold
 *                NUL bytes of its own.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read_until(). Since 0.1.
 */
int32_t keepsock_client_read_line(keepsock_client *client,
                                  char *buf,
                                  size_t cap,
                                  size_t *len,
                                  keepsock_error **error);

/**
 * How many bytes were read ahead and wait in the library. An event loop that
 * polls the descriptor must read these first: the kernel no longer has them.
 *
 * @param client  A connection, or NULL: 0.
 * @return A number of bytes. Since 0.1.
 */
size_t keepsock_client_buffered(const keepsock_client *client);

/**
 * Reads some bytes into several buffers, one after another: waits until there
 * is at least one byte, and takes what is there.
 *
 * @param client   A connection.
 * @param buffers  The buffers.
 * @param count    How many.
 * @param len      Receives the number of bytes in all; 0: the peer closed its side.
 * @param error    See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read(). Since 0.1.
 */
int32_t keepsock_client_read_slices(keepsock_client *client,
                                    const keepsock_buffer *buffers,
                                    size_t count,
                                    size_t *len,
                                    keepsock_error **error);

/**
 * Writes some bytes: waits until the kernel takes at least one.
 * keepsock_client_write_all() is what most programs want.
 *
 * @param client   A connection.
 * @param buf      The bytes.
 * @param len      How many.
 * @param written  Receives the number that the kernel took.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _RESET,
 *         _DEAD, _UNREACHABLE, _STALLED, _IDLE_LIMIT, _HEARTBEAT_MISSED (it is over),
 *         _WRONG_STATE (after
 *         keepsock_client_shutdown_write()), _WOULD_BLOCK (non-blocking mode),
 *         _TOO_LONG (keepsock_options_set_sequenced() only), _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_client_write(keepsock_client *client,
                              const void *buf,
                              size_t len,
                              size_t *written,
                              keepsock_error **error);

/**
 * Writes all of a buffer, within one write timeout for all. If it fails,
 * keepsock_error_transferred() says how many bytes the kernel had taken.
 *
 * @param client  A connection.
 * @param buf     The bytes.
 * @param len     How many.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_write(). Since 0.1.
 */
int32_t keepsock_client_write_all(keepsock_client *client,
                                  const void *buf,
                                  size_t len,
                                  keepsock_error **error);

/**
 * Writes all of a string, without its NUL.
 *
 * @param client  A connection.
 * @param text    A NUL-terminated string of any encoding.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_write_all(). Since 0.1.
 */
int32_t keepsock_client_write_str(keepsock_client *client,
                                  const char *text,
                                  keepsock_error **error);

/**
 * Writes all of several buffers as if they were one, without copying them
 * together: a header and its body leave in one system call.
 *
 * @param client  A connection.
 * @param slices  The buffers.
 * @param count   How many.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_write_all(). Since 0.1.
 */
int32_t keepsock_client_write_slices(keepsock_client *client,
                                     const keepsock_slice *slices,
                                     size_t count,
                                     keepsock_error **error);

/**
 * Waits, without reading, until the connection ends. Data that came before the
 * end stays readable.
 *
 * @param client      A connection.
 * @param timeout_ms  Milliseconds; 0: only look; KEEPSOCK_INFINITE.
 * @param end         Receives how it ended, a value of enum keepsock_end.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: it lives; _CANCELLED, _CLOSED,
 *         _DRAINING, _INVALID_ARGUMENT; _UNSUPPORTED on macOS and Windows. Since 0.1.
 */
int32_t keepsock_client_wait_hangup(keepsock_client *client,
                                    int64_t timeout_ms,
                                    int32_t *end,
                                    keepsock_error **error);

/**
 * Ends this side's stream (FIN): the peer reads to the end, and can still send.
 *
 * @param client  A connection.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _RESET, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_client_shutdown_write(keepsock_client *client, keepsock_error **error);

/**
 * Closes gracefully: the peer receives every byte that was written, even if it
 * is still sending. This side's stream is ended (FIN), what comes in is thrown
 * away until the peer ends its side too, then the descriptor is closed. That
 * takes at most the close timeout (2 s by default), and no time if the peer
 * ended its side before, if nothing was written, or in non-blocking mode. Calls
 * of other threads that wait end with KEEPSOCK_ERR_CLOSED; closing then waits
 * only until the peer's kernel has acknowledged everything. Closing twice is
 * fine. The object is still to be freed.
 *
 * @param client  A connection.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: the peer did not end its side in
 *         time, or another thread's write was cut, so whether it has everything
 *         isn't known; _RESET, _DEAD, _UNREACHABLE, _STALLED, _OS: it broke off;
 *         _CANCELLED: its token was fired. The connection is closed all the same.
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_client_close(keepsock_client *client, keepsock_error **error);

/**
 * Breaks the connection off: RST for TCP. What the peer has not received yet is
 * lost. The object is still to be freed.
 *
 * @param client  A connection.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_client_abort(keepsock_client *client, keepsock_error **error);

/**
 * Sets keepalive on the open connection; see keepsock_options_set_keepalive()
 * for the values. Values that would break what the connection was made with
 * (keepsock_options_set_dead_after(), _set_survive_idle()) are refused. If it fails,
 * the connection is left as it was.
 *
 * @param client       A connection.
 * @param idle_ms      1 ms to 32,767 s; rounded up to whole seconds.
 * @param interval_ms  Likewise.
 * @param count        1 to 127.
 * @param error        See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
 *         socket), _CLOSED, _OS. Since 0.1.
 */
int32_t keepsock_client_set_keepalive(keepsock_client *client,
                                      int64_t idle_ms,
                                      int64_t interval_ms,
                                      uint32_t count,
                                      keepsock_error **error);

/**
 * Turns keepalive of the open connection off.
 *
 * @param client  A connection.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
 *         socket), _CLOSED, _OS. Since 0.1.
 */
int32_t keepsock_client_disable_keepalive(keepsock_client *client,
                                          keepsock_error **error);

/**
 * Reads the keepalive values that the kernel uses now.
 *
 * @param client  A connection.
 * @param out     Filled in on success.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _UNSUPPORTED (a Unix
 *         socket), _CLOSED, _OS. Since 0.1.
 */
int32_t keepsock_client_keepalive(const keepsock_client *client,
                                  keepsock_keepalive *out,
                                  size_t size,
                                  keepsock_error **error);

/**
 * Sets the time for each reading call as a whole. Calls under way keep theirs. On
 * Linux the kernel keeps it (SO_RCVTIMEO), whose timers get coarser with their
 * length: a call may end up to a twentieth late. So it is for writing.
 *
 * @param client  A connection.
 * @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_client_set_read_timeout(keepsock_client *client,
                                         int64_t ms,
                                         keepsock_error **error);

/**
 * Sets the time for each writing call as a whole. Calls under way keep theirs.
 *
 * @param client  A connection.
 * @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_client_set_write_timeout(keepsock_client *client,
                                          int64_t ms,
                                          keepsock_error **error);

/**
 * Sets how long keepsock_client_close() and keepsock_client_free() may wait for
 * the peer: what a program with a deadline for all that it does sets to what is
 * left of it.
 *
 * @param client  A connection.
 * @param ms      Milliseconds; 0: not at all.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_client_set_close_timeout(keepsock_client *client,
                                          int64_t ms,
                                          keepsock_error **error);

/**
 * In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK,
 * and the descriptor has O_NONBLOCK. Calls that wait already go on.
 *
 * @param client  A connection.
 * @param on      true: non-blocking.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED, _OS. Since 0.1.
 */
int32_t keepsock_client_set_nonblocking(keepsock_client *client,
                                        bool on,
                                        keepsock_error **error);

/**
 * Gives the connection a token that ends its calls, or takes it off. Calls under
 * way are not affected. A read then costs one poll more.
 *
 * @param client  A connection.
 * @param cancel  A token, shared from then on; NULL takes it off.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_client_set_cancel(keepsock_client *client,
                                   const keepsock_cancel *cancel,
                                   keepsock_error **error);

/**
 * The connection's protocol, addresses and ports; also after an error and
 * after close.
 *
 * @param client  A connection.
 * @param out     Filled in on success. Longer names are cut.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_client_five_tuple(const keepsock_client *client,
                                   keepsock_five_tuple *out,
                                   size_t size,
                                   keepsock_error **error);

/**
 * The five-tuple as text: "tcp 127.0.0.1:3337 -> 127.0.0.1:7788".
 *
 * @param client  A connection, or NULL: "".
 * @return Text that lives as long as the object. Since 0.1.
 */
const char *keepsock_client_name(const keepsock_client *client);

/**
 * Borrows the descriptor, for an event loop or an option that keepsock does not
 * know. It is open until the connection is closed; do not close it.
 *
 * @param client  A connection.
 * @param fd      Receives it.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_client_fd(const keepsock_client *client,
                           keepsock_fd *fd,
                           keepsock_error **error);

/**
 * Gives the descriptor up: the connection lives on and is the caller's to
 * close. The object is then closed, and still to be freed.
 *
 * @param client  A connection.
 * @param fd      Receives the descriptor.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while
 *         another thread is in a call, or while bytes that were read ahead wait
 *         (keepsock_client_buffered()): read them first. Since 0.1.
 */
int32_t keepsock_client_release_fd(keepsock_client *client,
                                   keepsock_fd *fd,
                                   keepsock_error **error);

/**
 * Makes another object for the connection of a keepsock_handler, that outlives the handler's: to
 * push to this client from elsewhere, at any moment. The connection itself ends with its handler;
 * calls on the object are KEEPSOCK_ERR_CLOSED then, and its five-tuple and end stay readable.
 *
 * @param client  The connection that a handler was lent, or another object for it.
 * @param ref     Receives the object; free it with keepsock_client_free(), which does not close
 *                the connection while its handler runs.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; _WRONG_STATE: a connection that was not
 *         lent has one owner, who can share the pointer. Since 0.1.
 */
int32_t keepsock_client_ref(const keepsock_client *client,
                            keepsock_client **ref,
                            keepsock_error **error);

/**
 * Frees a connection; one that is still open is closed first, as
 * keepsock_client_close() does, which may take the close timeout (2 s by
 * default): keepsock_client_set_close_timeout() changes that, and
 * keepsock_client_abort() before breaks off at once. No other thread may be using
 * it. Freeing NULL, or the connection of a keepsock_handler (which is the
 * library's), does nothing.
 *
 * @param client  A connection, or NULL. Since 0.1.
 */
void keepsock_client_free(keepsock_client *client);

/**
 * Starts connecting: asks the resolver, or sends the first SYN. Never waits.
 *
 * @param endpoint    Where to connect, as for keepsock_client_connect().
 * @param options     Options, copied; NULL for the defaults.
 * @param connecting  Receives the connect; free it with keepsock_connecting_free().
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT; _INVALID_ARGUMENT for options out of range,
 *         and for a local address that is a name, which would have to be waited for;
 *         _LOOKUP_FAILED if 64 lookups are under way; _NOT_FOUND for a local address that is not
 *         of the family asked for; _NO_MEMORY, _NO_DESCRIPTORS, _UNSUPPORTED, _OS. What else can
 *         go wrong keepsock_connecting_finish() tells. Since 0.1.
 */
int32_t keepsock_connecting_start(const char *endpoint,
                                  const keepsock_options *options,
                                  keepsock_connecting **connecting,
                                  keepsock_error **error);

/**
 * Does what is to be done now, without waiting. The connection's calls wait, closing and freeing
 * included; an event loop wants keepsock_client_set_nonblocking().
 *
 * @param connecting  A connect.
 * @param client      Receives the connection; free it with keepsock_client_free().
 * @param error       See keepsock_error; may be NULL: there is one to be freed for
 *                    KEEPSOCK_ERR_WOULD_BLOCK, too. It lists every attempt.
 * @return KEEPSOCK_OK: connected; KEEPSOCK_ERR_WOULD_BLOCK: not yet; those of
 *         keepsock_client_connect() once everything has failed, the deadline has passed, or the
 *         token was fired; _WRONG_STATE after the end. Since 0.1.
 */
int32_t keepsock_connecting_finish(keepsock_connecting *connecting,
                                   keepsock_client **client,
                                   keepsock_error **error);

/**
 * Waits until it is connected; until the deadline, at the latest.
 *
 * @param connecting  A connect.
 * @param client      Receives the connection; free it with keepsock_client_free().
 * @param error       See keepsock_error; may be NULL. It lists every attempt.
 * @return Those of keepsock_client_connect(); KEEPSOCK_ERR_WRONG_STATE after the end. Since 0.1.
 */
int32_t keepsock_connecting_wait(keepsock_connecting *connecting,
                                 keepsock_client **client,
                                 keepsock_error **error);

/**
 * Borrows one descriptor for all that is under way: it is readable when
 * keepsock_connecting_finish() has something to do, the next attempt and the deadline included.
 * It stays the same until the end, and readable then, so take it off your loop; do not close it.
 * Linux only (epoll); it takes two.
 *
 * @param connecting  A connect.
 * @param fd          Receives it.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _NO_DESCRIPTORS, _OS; _WRONG_STATE after the
 *         end; _UNSUPPORTED elsewhere than on Linux: use keepsock_connecting_timeout(). Since 0.1.
 */
int32_t keepsock_connecting_fd(keepsock_connecting *connecting,
                               keepsock_fd *fd,
                               keepsock_error **error);

/**
 * In what time keepsock_connecting_finish() is to be called even if the descriptor is not
 * readable.
 *
 * @param connecting  A connect.
 * @param timeout_ms  Receives milliseconds; KEEPSOCK_INFINITE: that does not happen.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_connecting_timeout(keepsock_connecting *connecting,
                                    int64_t *timeout_ms,
                                    keepsock_error **error);

/**
 * How many attempts ended without a connection so far; also when another one has won. Those that
 * were still under way then are KEEPSOCK_ERR_CLOSED.
 *
 * @param connecting  A connect, or NULL: 0.
 * @return The number. Since 0.1.
 */
size_t keepsock_connecting_attempt_count(const keepsock_connecting *connecting);

/**
 * One of them, in the order in which they ended.
 *
 * @param connecting  A connect.
 * @param index       Below keepsock_connecting_attempt_count().
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_connecting_attempt(keepsock_connecting *connecting,
                                    size_t index,
                                    keepsock_attempt *out,
                                    size_t size,
                                    keepsock_error **error);

/**
 * One of the attempts that are under way now: where to, and its TCP state, SYN-SENT for most.
 *
 * @param connecting  A connect.
 * @param index       From 0.
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (index beyond the last, too). Since 0.1.
 */
int32_t keepsock_connecting_under_way(keepsock_connecting *connecting,
                                      size_t index,
                                      keepsock_under_way *out,
                                      size_t size,
                                      keepsock_error **error);

/**
 * Frees a connect and ends what is under way. A connection that it gave lives on. Freeing NULL
 * does nothing.
 *
 * @param connecting  A connect, or NULL. Since 0.1.
 */
void keepsock_connecting_free(keepsock_connecting *connecting);

/**
 * Serves many connections on few threads, one by default: the callbacks are called when something
 * occurs. Returns at once. The server object may be freed before the service.
 *
 * A connection that is idle costs about a hundred bytes and no time. Each may be sent to from any
 * thread; what a slow client does not take waits within
 * keepsock_serve_options_set_max_queued() bytes. The options that the server listens with hold for
 * connections: heartbeat, idle limit, first-byte limit, dead_after and close timeout are kept by
 * the library's threads; read and write timeouts are for calls that wait, which there are none of,
 * and saved SYNs and last snapshots for a keepsock_client.
 *
 * @param server     A listening socket.
 * @param options    Serve options, copied; NULL for the defaults.
 * @param callbacks  Copied.
 * @param user       Passed to the callbacks; may be NULL. It must live until
 *                   keepsock_service_free() returns.
 * @param service    Receives the service, before the first callback, so that user may be where it
 *                   is kept; free it with keepsock_service_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY and _NO_DESCRIPTORS (a thread or its poller
 *         cannot be made), _INVALID_ARGUMENT, _OS; _UNSUPPORTED on Windows. Since 0.1.
 */
int32_t keepsock_server_serve_events(keepsock_server *server,
                                     const keepsock_serve_options *options,
                                     const keepsock_callbacks *callbacks,
                                     void *user,
                                     keepsock_service **service,
                                     keepsock_error **error);

/**
 * Sends a message, in the service's framing. What the kernel does not take now waits in this
 * program; what is sent later comes later.
 *
 * @param connection  A connection.
 * @param buf         The message.
 * @param len         Its length.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK: the kernel has it, or it waits its turn (or messages were dropped and
 *         counted, if that is the policy); KEEPSOCK_ERR_CLOSED: the connection is over, or
 *         closing; _STALLED: more would wait than may, and it is being reset; _RESET and others:
 *         it has broken off; _TOO_LONG: the message alone is more than may wait, and nothing was
 *         sent; _INVALID_ARGUMENT (the prefix cannot say its length, too), _WRONG_STATE.
 *         Since 0.1.
 */
int32_t keepsock_connection_send(keepsock_connection *connection,
                                 const void *buf,
                                 size_t len,
                                 keepsock_error **error);

/**
 * Closes: what was sent is delivered, then this side is ended (FIN), and what comes in is thrown
 * away until the peer has ended its side, too; for at most the close timeout that the server
 * listens with, in all. The close callback follows. Returns at once; closing twice is fine.
 *
 * @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
 */
void keepsock_connection_close(keepsock_connection *connection);

/**
 * Breaks the connection off (RST). What the peer has not received yet is lost. The close callback
 * follows.
 *
 * @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
 */
void keepsock_connection_abort(keepsock_connection *connection);

/**
 * Ends this side's stream (FIN) once what waits was sent; the peer can still send.
 *
 * @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
 */
void keepsock_connection_shutdown_write(keepsock_connection *connection);

/**
 * Reads no more until keepsock_connection_resume(): what comes waits in the kernel, and then at
 * the sender. For those who pass on what they read, when it is not taken fast enough. Limits on
 * idle time do not count meanwhile.
 *
 * @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
 */
void keepsock_connection_pause(keepsock_connection *connection);

/**
 * Reads on after keepsock_connection_pause().
 *
 * @param connection  A connection; NULL and those that are over are left alone. Since 0.1.
 */
void keepsock_connection_resume(keepsock_connection *connection);

/**
 * How many bytes wait in this program for the peer.
 *
 * @param connection  A connection; 0 for NULL and those that are over.
 * @return A number of bytes. Since 0.1.
 */
size_t keepsock_connection_queued(const keepsock_connection *connection);

/**
 * Whether it can still be sent to.
 *
 * @param connection  A connection; false for NULL and those that are over.
 * @return Whether it is open. Since 0.1.
 */
bool keepsock_connection_is_open(const keepsock_connection *connection);

/**
 * Has the timer callback called once, some tens of milliseconds late at most. One timer for each
 * connection: a new time replaces the old one.
 *
 * @param connection  A connection.
 * @param time_ms     Milliseconds from now; KEEPSOCK_INFINITE takes the timer back.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
 */
int32_t keepsock_connection_set_timer(keepsock_connection *connection,
                                      int64_t time_ms,
                                      keepsock_error **error);

/**
 * Joins a group, which keepsock_service_broadcast_to() sends to. There is no limit to how many a
 * connection is in; it leaves them when it is over.
 *
 * @param connection  A connection.
 * @param group       Any name.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
 */
int32_t keepsock_connection_join(keepsock_connection *connection,
                                 const char *group,
                                 keepsock_error **error);

/**
 * Leaves a group, if it is in it.
 *
 * @param connection  A connection.
 * @param group       Its name.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
 */
int32_t keepsock_connection_leave(keepsock_connection *connection,
                                  const char *group,
                                  keepsock_error **error);

/**
 * Keeps a pointer of the program's with the connection.
 *
 * @param connection  A connection; NULL and those that are over are left alone.
 * @param data        The program's; NULL is what there is at first. Since 0.1.
 */
void keepsock_connection_set_data(keepsock_connection *connection, void *data);

/**
 * The pointer that was kept last: by keepsock_connection_set_data(), or with
 * keepsock_service_add() or keepsock_service_connect(), from the beginning.
 *
 * @param connection  A connection; NULL for NULL and those that are over.
 * @return The pointer. Since 0.1.
 */
void *keepsock_connection_data(const keepsock_connection *connection);

/**
 * A number that no other connection of the service has while this one lives, nor for long after.
 *
 * @param connection  A connection; 0 for NULL and those that are over.
 * @return The number. Since 0.1.
 */
uint64_t keepsock_connection_id(const keepsock_connection *connection);

/**
 * Why it ended, as far as that is known.
 *
 * @param connection  A connection; 0 for NULL and those that are over.
 * @return A value of enum keepsock_end; 0: it lives. Since 0.1.
 */
int32_t keepsock_connection_end(const keepsock_connection *connection);

/**
 * Protocol, local and remote address; in the close callback, too.
 *
 * @param connection  A connection.
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
 */
int32_t keepsock_connection_five_tuple(const keepsock_connection *connection,
                                       keepsock_five_tuple *out,
                                       size_t size,
                                       keepsock_error **error);

/**
 * The five-tuple as text: "tcp 127.0.0.1:7788 -> 127.0.0.1:3337".
 *
 * @param connection  A connection.
 * @param buf         Receives the text with its final NUL; may be NULL if cap is 0.
 * @param cap         Its size; 256 is enough.
 * @param needed      Receives the size that is needed, also if cap is below; may be NULL.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TOO_LONG: cap is too small, and buf was left alone;
 *         _INVALID_ARGUMENT, _WRONG_STATE. Since 0.1.
 */
int32_t keepsock_connection_name(const keepsock_connection *connection,
                                 char *buf,
                                 size_t cap,
                                 size_t *needed,
                                 keepsock_error **error);

/**
 * What is known of the connection now: state, times, bytes on their way, counters.
 *
 * @param connection  A connection.
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE; _UNSUPPORTED or _OS if the
 *         system does not tell. Since 0.1.
 */
int32_t keepsock_connection_snapshot(const keepsock_connection *connection,
                                     keepsock_snapshot *out,
                                     size_t size,
                                     keepsock_error **error);

/**
 * Who the peer is, on a Unix socket.
 *
 * @param connection  A connection.
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (TCP), _CLOSED (after the close callback),
 *         _INVALID_ARGUMENT, _WRONG_STATE, _OS. Since 0.1.
 */
int32_t keepsock_connection_peer_credentials(const keepsock_connection *connection,
                                             keepsock_credentials *out,
                                             size_t size,
                                             keepsock_error **error);

/**
 * The keepalive values that the kernel uses.
 *
 * @param connection  A connection.
 * @param out         Filled in on success.
 * @param size        sizeof *out.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE, _OS. Since 0.1.
 */
int32_t keepsock_connection_keepalive(const keepsock_connection *connection,
                                      keepsock_keepalive *out,
                                      size_t size,
                                      keepsock_error **error);

/**
 * Makes a socket that takes datagrams from anybody. "*:8080" takes IPv4 and IPv6 on one port,
 * whatever the system's bindv6only says; "0.0.0.0:8080" takes IPv4 and "[::]:8080" IPv6 only.
 * With port 0 the system chooses: keepsock_datagram_port(). "unix:/run/app.sock" and "unix:@name"
 * are Unix datagram sockets: a path whose socket is gone is taken over, one with a live socket
 * never is; the file is removed when this one is closed.
 *
 * @param endpoint  Where to bind.
 * @param options   Options, copied; NULL for the defaults. Family, interface, timeouts, token,
 *                  coalescing, hand_over, last snapshot; of a Unix socket the file's mode and
 *                  owner, and the users who may send. What only streams, or only connecting, have
 *                  is refused.
 * @param datagram  Receives the socket; free it with keepsock_datagram_free().
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE,
 *         _PERMISSION_DENIED, _INVALID_ENDPOINT, _NOT_FOUND, _LOOKUP_FAILED, _TIMED_OUT,
 *         _CANCELLED (the lookup), _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED (Windows),
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_bind(const char *endpoint,
                               const keepsock_options *options,
                               keepsock_datagram **datagram,
                               keepsock_error **error);

/**
 * Makes a socket that sends to one peer only, and receives from it only. Nothing is sent for
 * that, so whether somebody is there is not known yet; but a Unix socket must be there. Of a
 * name's addresses it is the first one that this machine has a way to. On Linux a Unix socket gets
 * a name of its own, so that it can be answered; elsewhere give it one as the local address.
 *
 * @param endpoint  The peer.
 * @param options   Options, copied; NULL for the defaults. Family, local address, interface,
 *                  addresses, timeouts, token, coalescing, hand_over, last snapshot; of a Unix
 *                  socket whose local address is a path the file's mode and owner. What only
 *                  streams have, and allow_user, is refused.
 * @param datagram  Receives the socket; free it with keepsock_datagram_free().
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNREACHABLE, _INVALID_ENDPOINT, _NOT_FOUND, _REFUSED (a Unix
 *         socket that is gone), _LOOKUP_FAILED, _TIMED_OUT, _CANCELLED (the lookup),
 *         _ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE (the local one), _PERMISSION_DENIED,
 *         _NO_DESCRIPTORS, _NO_MEMORY, _UNSUPPORTED (Windows), _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_connect(const char *endpoint,
                                  const keepsock_options *options,
                                  keepsock_datagram **datagram,
                                  keepsock_error **error);

/**
 * Takes over a datagram socket, UDP or Unix, that is bound, connected or not. The file of a Unix
 * socket stays the business of whoever made it.
 *
 * @param fd        A datagram socket. It belongs to the new object on success and stays the
 *                  caller's on failure.
 * @param options   Options, copied; NULL for the defaults. Timeouts, token, coalescing, last
 *                  snapshot, and the users who may send, on Unix sockets; addresses, family and
 *                  interface must not be set.
 * @param datagram  Receives the socket; free it with keepsock_datagram_free().
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not a datagram socket, or one of UDP that is not
 *         bound), _OS (not a socket at all), _NO_DESCRIPTORS (it needs one more), _NO_MEMORY,
 *         _UNSUPPORTED (Windows; coalescing or allow_user where the system has none),
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_from_fd(keepsock_fd fd,
                                  const keepsock_options *options,
                                  keepsock_datagram **datagram,
                                  keepsock_error **error);

/**
 * Sends one datagram to the peer of a connected socket. It waits only while the system's
 * buffer, or a Unix peer's queue, is full. What ICMP said of an earlier datagram fails no call:
 * see keepsock_datagram_recv_error(). At most 65,507 bytes go into a datagram over IPv4, 65,527
 * over IPv6.
 *
 * @param datagram  A connected socket.
 * @param data      The bytes; may be NULL if len is 0.
 * @param len       How many; 0 is a datagram, too.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected), _TOO_LONG (for the protocol,
 *         or for the way), _REFUSED (a Unix peer that is gone, or receives no more), _TIMED_OUT,
 *         _CANCELLED, _CLOSED, _UNREACHABLE, _PERMISSION_DENIED, _WOULD_BLOCK (non-blocking mode),
 *         _NO_MEMORY, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_send(keepsock_datagram *datagram,
                               const void *data,
                               size_t len,
                               keepsock_error **error);

/**
 * Sends one datagram to an address.
 *
 * @param datagram  A socket.
 * @param data      The bytes; may be NULL if len is 0.
 * @param len       How many; 0 is a datagram, too.
 * @param to        The address.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_send(); KEEPSOCK_ERR_WRONG_STATE if the socket is
 *         connected to another address, KEEPSOCK_ERR_INVALID_ARGUMENT for port 0, too, and for
 *         an address of a family that the socket does not have. Since 0.1.
 */
int32_t keepsock_datagram_send_to(keepsock_datagram *datagram,
                                  const void *data,
                                  size_t len,
                                  const keepsock_address *to,
                                  keepsock_error **error);

/**
 * Sends one datagram to a numeric endpoint ("192.0.2.1:80"), or to a Unix socket
 * ("unix:/run/app.sock", "unix:@name"). keepsock_datagram_send_to() is for those who send often to
 * one address.
 *
 * @param datagram  A socket.
 * @param data      The bytes; may be NULL if len is 0.
 * @param len       How many; 0 is a datagram, too.
 * @param endpoint  To whom; names are not looked up.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_send_to(), and KEEPSOCK_ERR_INVALID_ENDPOINT, _REFUSED and
 *         _NOT_FOUND for a Unix socket that is not there. Since 0.1.
 */
int32_t keepsock_datagram_send_to_endpoint(keepsock_datagram *datagram,
                                           const void *data,
                                           size_t len,
                                           const char *endpoint,
                                           keepsock_error **error);

/**
 * Answers a datagram: to whom it came from, and from the address that it was sent to, as its
 * sender expects it, though this machine have several.
 *
 * @param datagram  The socket that received it.
 * @param question  What keepsock_datagram_recv() told of it.
 * @param data      The bytes; may be NULL if len is 0.
 * @param len       How many; 0 is a datagram, too.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_send_to_endpoint(). Since 0.1.
 */
int32_t keepsock_datagram_reply(keepsock_datagram *datagram,
                                const keepsock_datagram_info *question,
                                const void *data,
                                size_t len,
                                keepsock_error **error);

/**
 * Receives one datagram. What does not fit is lost, and told. What ICMP said of datagrams that
 * were sent ends no receiving: see keepsock_datagram_recv_error().
 *
 * @param datagram  A socket.
 * @param buf       Filled with the datagram's bytes; may be NULL if cap is 0.
 * @param cap       Its size.
 * @param info      Filled in on success.
 * @param size      sizeof *info.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED, _WOULD_BLOCK (non-blocking
 *         mode), _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_recv(keepsock_datagram *datagram,
                               void *buf,
                               size_t cap,
                               keepsock_datagram_info *info,
                               size_t size,
                               keepsock_error **error);

/**
 * Sends one datagram, and with it descriptors: files, sockets (keepsock_client_fd(),
 * keepsock_server_fd()), pipes. The receiver gets descriptors of its own for them; those that were
 * given stay the caller's to close. Unix sockets only.
 *
 * @param datagram  A Unix socket.
 * @param data      The bytes; may be NULL if len is 0.
 * @param len       How many; 0 is a datagram, too.
 * @param endpoint  To whom ("unix:/run/app.sock", "unix:@name"); NULL: to the peer of a connected
 *                  socket.
 * @param fds       The descriptors; may be NULL if count is 0.
 * @param count     How many; at most 253 (SCM_MAX_FD of unix(7)).
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_send_to_endpoint(); KEEPSOCK_ERR_NO_DESCRIPTORS: too many are
 *         on their way already; KEEPSOCK_ERR_UNSUPPORTED for UDP. Since 0.1.
 */
int32_t keepsock_datagram_send_fds(keepsock_datagram *datagram,
                                   const void *data,
                                   size_t len,
                                   const char *endpoint,
                                   const keepsock_fd *fds,
                                   size_t count,
                                   keepsock_error **error);

/**
 * Receives one datagram, as keepsock_datagram_recv() does, and at most max of the descriptors that
 * came with it. They are close-on-exec and the caller's to close. Others are closed, which lost
 * tells; so are all of those that come to whoever receives by another function. Unix sockets only.
 *
 * @param datagram  A Unix socket.
 * @param buf       Filled with the datagram's bytes; may be NULL if cap is 0.
 * @param cap       Its size.
 * @param info      Filled in on success.
 * @param size      sizeof *info.
 * @param fds       Filled with at most max descriptors; may be NULL if max is 0.
 * @param max       How many are wanted; at most 253.
 * @param count     Receives the number of descriptors.
 * @param lost      Receives whether more came than were wanted, or than this process may have; may
 *                  be NULL.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_recv(), and KEEPSOCK_ERR_UNSUPPORTED for UDP. Since 0.1.
 */
int32_t keepsock_datagram_recv_fds(keepsock_datagram *datagram,
                                   void *buf,
                                   size_t cap,
                                   keepsock_datagram_info *info,
                                   size_t size,
                                   keepsock_fd *fds,
                                   size_t max,
                                   size_t *count,
                                   bool *lost,
                                   keepsock_error **error);

/**
 * Sends datagrams in their order. On Linux one system call takes up to 64 of them, and the kernel
 * takes those that follow each other to one address with one length as one (UDP_SEGMENT), which
 * is where most is saved; elsewhere they are sent one by one. The write timeout is for all
 * together.
 *
 * @param datagram  A socket.
 * @param batch     The datagrams: an array.
 * @param count     How many there are.
 * @param sent      Receives how many were sent: all, unless something prevents it; sending the
 *                  rest then tells what.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_send_to(), if not even the first was sent;
 *         KEEPSOCK_ERR_UNREACHABLE also for a local that is none of this machine, and
 *         KEEPSOCK_ERR_INVALID_ENDPOINT for an interface that there is not. Since 0.1.
 */
int32_t keepsock_datagram_send_batch(keepsock_datagram *datagram,
                                     const keepsock_outgoing *batch,
                                     size_t count,
                                     size_t *sent,
                                     keepsock_error **error);

/**
 * Receives as many datagrams as there are, and at least one, one into each buffer. It waits for
 * the first only. On Linux that is one system call for up to 64 of them, which is the most for one
 * call everywhere.
 *
 * @param datagram  A socket.
 * @param batch     The buffers: an array, none of which overlap.
 * @param count     How many there are; 0 receives nothing.
 * @param size      sizeof *batch.
 * @param received  Receives how many entries of batch were filled in.
 * @param error     See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_recv(). Since 0.1.
 */
int32_t keepsock_datagram_recv_batch(keepsock_datagram *datagram,
                                     keepsock_incoming *batch,
                                     size_t count,
                                     size_t size,
                                     size_t *received,
                                     keepsock_error **error);

/**
 * Closes. Calls of other threads return KEEPSOCK_ERR_CLOSED; what was sent is on its way.
 * Closing twice is fine. The object is still to be freed.
 *
 * @param datagram  A socket.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_datagram_close(keepsock_datagram *datagram, keepsock_error **error);

/**
 * Closes and frees a socket. No other thread may be using the object. Freeing NULL does
 * nothing.
 *
 * @param datagram  A socket, or NULL. Since 0.1.
 */
void keepsock_datagram_free(keepsock_datagram *datagram);

/**
 * Serves: receives in threads of the library's, and calls handler for each datagram. Returns at
 * once. Meanwhile any thread may send with the socket. A thread takes up to 16 datagrams at once
 * (4 of a Unix socket, whose datagrams are cut after 256 KiB); with several threads those of one
 * sender may be handled at the same time, and out of their order. Timeouts and non-blocking mode
 * of the socket do not hold for the threads; its token ends the service. If the socket is served
 * twice, stopping either service ends both. The threads have the signal mask of the thread that
 * makes this call, and a stack of 2 MiB. One whose receiving fails ends, with a log event;
 * keepsock_datagram_service_wait() tells why.
 *
 * @param datagram  A socket. Free it after the service.
 * @param threads   How many threads; from 1 to 1,024.
 * @param handler   See keepsock_datagram_handler.
 * @param user      Passed to handler; may be NULL.
 * @param service   Receives the service, before the first call of handler, so that user may be
 *                  where it is kept; free it with keepsock_datagram_service_free().
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY (for it, or no thread can be started),
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_serve(keepsock_datagram *datagram,
                                uint32_t threads,
                                keepsock_datagram_handler handler,
                                void *user,
                                keepsock_datagram_service **service,
                                keepsock_error **error);

/**
 * How many datagrams were received so far.
 *
 * @param service  A service, or NULL: 0.
 * @return Their number. Since 0.1.
 */
uint64_t keepsock_datagram_service_received(const keepsock_datagram_service *service);

/**
 * Ends receiving, for the socket as a whole and for good: its receiving calls return
 * KEEPSOCK_ERR_CLOSED from then on, but it can still send. What a thread has taken already is
 * handled; what waits in the kernel is not. May be called from inside a handler; stopping twice is
 * fine.
 *
 * @param service  A service.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_datagram_service_stop(keepsock_datagram_service *service,
                                       keepsock_error **error);

/**
 * Waits until all threads have ended, and so all handlers returned: after
 * keepsock_datagram_service_stop(), the socket's close, or its token.
 *
 * @param service  A service.
 * @param ms       Milliseconds, 0 only asks; or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT (it still receives), _WRONG_STATE (from inside a
 *         handler), _INVALID_ARGUMENT, or the error of a receiving call that failed for good.
 *         Since 0.1.
 */
int32_t keepsock_datagram_service_wait(keepsock_datagram_service *service,
                                       int64_t ms,
                                       keepsock_error **error);

/**
 * Stops, waits for the handlers to return, and frees a service. Not from inside a handler. The
 * socket stays, and can send. Freeing NULL does nothing.
 *
 * @param service  A service, or NULL. Since 0.1.
 */
void keepsock_datagram_service_free(keepsock_datagram_service *service);

/**
 * Whether datagrams may be sent to broadcast addresses; sending to one is
 * KEEPSOCK_ERR_PERMISSION_DENIED otherwise. Receiving needs nothing but a socket that is bound to
 * a wildcard. Default: no.
 *
 * @param datagram  A socket.
 * @param on        Whether.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _CLOSED, _INVALID_ARGUMENT, _OS.
 *         Since 0.1.
 */
int32_t keepsock_datagram_set_broadcast(keepsock_datagram *datagram,
                                        bool on,
                                        keepsock_error **error);

/**
 * Joins a multicast group, to receive what is sent to it and to this socket's port. A second call
 * with another sender adds that one. The socket gets what it has joined, and not what others on
 * this machine have. Bind it to a wildcard, or to the group. Linux and FreeBSD.
 *
 * @param datagram        A socket.
 * @param group           The group; its port does not count.
 * @param interface_name  The interface's name or index; NULL: by which there is a way to the
 *                        group.
 * @param source          The only sender to receive from; NULL: all.
 * @param error           See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE (joined before), _INVALID_ENDPOINT (no such
 *         interface, or no way to the group), _INVALID_ARGUMENT (no group, or families that do not
 *         fit), _UNSUPPORTED, _CLOSED, _NO_MEMORY, _OS. Since 0.1.
 */
int32_t keepsock_datagram_join(keepsock_datagram *datagram,
                               const keepsock_address *group,
                               const char *interface_name,
                               const keepsock_address *source,
                               keepsock_error **error);

/**
 * Leaves a group that was joined with the same arguments. Closing leaves all.
 *
 * @param datagram        A socket.
 * @param group           The group.
 * @param interface_name  As it was joined.
 * @param source          As it was joined.
 * @param error           See keepsock_error; may be NULL.
 * @return Those of keepsock_datagram_join(), and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE if it was not
 *         joined. Since 0.1.
 */
int32_t keepsock_datagram_leave(keepsock_datagram *datagram,
                                const keepsock_address *group,
                                const char *interface_name,
                                const keepsock_address *source,
                                keepsock_error **error);

/**
 * Whether what the socket sends to a group is received on this machine, too. Default: yes. Linux
 * and FreeBSD.
 *
 * @param datagram  A socket.
 * @param on        Whether.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_multicast_loop(keepsock_datagram *datagram,
                                             bool on,
                                             keepsock_error **error);

/**
 * How many networks what the socket sends to a group passes. Default: 1, the local network. Linux
 * and FreeBSD.
 *
 * @param datagram  A socket.
 * @param ttl       0: none but this machine.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_multicast_ttl(keepsock_datagram *datagram,
                                            uint8_t ttl,
                                            keepsock_error **error);

/**
 * The interface that what the socket sends to a group leaves by. Default: as routed. Linux and
 * FreeBSD.
 *
 * @param datagram        A socket.
 * @param interface_name  Its name or index.
 * @param error           See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT (there is none), _UNSUPPORTED, _CLOSED,
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_multicast_interface(keepsock_datagram *datagram,
                                                  const char *interface_name,
                                                  keepsock_error **error);

/**
 * How many routers what the socket sends may pass: TTL, or hop limit. Groups have their own.
 * Default: the system's, mostly 64.
 *
 * @param datagram  A UDP socket.
 * @param ttl       Above 0.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _CLOSED, _INVALID_ARGUMENT, _OS.
 *         Since 0.1.
 */
int32_t keepsock_datagram_set_ttl(keepsock_datagram *datagram,
                                  uint8_t ttl,
                                  keepsock_error **error);

/**
 * The TOS byte (IPv4), or traffic class (IPv6), of what the socket sends: DSCP in the upper six
 * bits (RFC 2474), ECN in the lower two (RFC 3168). Default: 0.
 *
 * @param datagram  A UDP socket.
 * @param tos       The byte.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (Unix sockets), _PERMISSION_DENIED, _CLOSED,
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_tos(keepsock_datagram *datagram,
                                  uint8_t tos,
                                  keepsock_error **error);

/**
 * Whether what the socket sends may not be cut into fragments on its way, not by this machine
 * either: what is longer than the way takes fails with KEEPSOCK_ERR_TOO_LONG, at once or, if a
 * router tells of it later, for the next one; keepsock_datagram_recv_error() tells how long it may
 * be. Default: no. Linux only.
 *
 * @param datagram  A UDP socket.
 * @param on        Whether.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_dont_fragment(keepsock_datagram *datagram,
                                            bool on,
                                            keepsock_error **error);

/**
 * How long a packet to the peer of a connected socket may be, as far as the system knows: a
 * datagram that is 28 bytes shorter (IPv4), or 48 (IPv6), needs not be cut. Linux only.
 *
 * @param datagram  A connected UDP socket.
 * @param mtu       Receives it, in bytes.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not connected), _UNSUPPORTED, _CLOSED,
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_path_mtu(keepsock_datagram *datagram,
                                   uint32_t *mtu,
                                   keepsock_error **error);

/**
 * Whether ttl, tos and received_at_ns of each datagram are told, and interface_index whatever the
 * socket is bound to; of Unix sockets received_at_ns and credentials. It costs a little for each.
 * Default: no. Linux only.
 *
 * @param datagram  A socket.
 * @param on        Whether.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_details(keepsock_datagram *datagram,
                                      bool on,
                                      keepsock_error **error);

/**
 * What is known of the socket now; after close, what was known then, if
 * keepsock_options_set_last_snapshot() was set.
 *
 * @param datagram  A socket.
 * @param out       Filled in on success.
 * @param size      sizeof *out.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_snapshot(const keepsock_datagram *datagram,
                                   keepsock_datagram_stats *out,
                                   size_t size,
                                   keepsock_error **error);

/**
 * Whether what ICMP says of datagrams that were sent is kept for
 * keepsock_datagram_recv_error(). A connected socket has it on, a bound one off: there the
 * kernel keeps such errors to itself unless it is asked (IP_RECVERR of ip(7)). Linux only.
 *
 * @param datagram  A socket.
 * @param on        Whether.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED, _CLOSED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_datagram_set_report_errors(keepsock_datagram *datagram,
                                            bool on,
                                            keepsock_error **error);

/**
 * The oldest error that was reported for a datagram that the socket sent, and was not told yet.
 * It never waits. At most 64 are kept, then the oldest go.
 *
 * @param datagram  A socket.
 * @param out       Filled in on success; its status is KEEPSOCK_OK if there is none.
 * @param size      sizeof *out.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED (and none is left of those that came before),
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_recv_error(keepsock_datagram *datagram,
                                     keepsock_datagram_error *out,
                                     size_t size,
                                     keepsock_error **error);

/**
 * How many errors were reported so far for datagrams that the socket sent, as far as calls have
 * met them.
 *
 * @param datagram  A socket, or NULL: 0.
 * @return Their number. Since 0.1.
 */
uint64_t keepsock_datagram_error_count(const keepsock_datagram *datagram);

/**
 * The local endpoint, with the port that the system chose: "127.0.0.1:40123". What was bound to
 * "*" is "*".
 *
 * @param datagram  A socket, or NULL: "".
 * @return Text that lives as long as the object. Since 0.1.
 */
const char *keepsock_datagram_endpoint(const keepsock_datagram *datagram);

/**
 * The five-tuple as text: "udp 127.0.0.1:3337 -> 127.0.0.1:7788".
 *
 * @param datagram  A socket, or NULL: "".
 * @return Text that lives as long as the object. Since 0.1.
 */
const char *keepsock_datagram_name(const keepsock_datagram *datagram);

/**
 * The local port; 0 for a Unix socket.
 *
 * @param datagram  A socket, or NULL: 0.
 * @return The port. Since 0.1.
 */
uint16_t keepsock_datagram_port(const keepsock_datagram *datagram);

/**
 * Protocol, local and remote address; after close, too. The remote address of a socket that is
 * not connected is the wildcard with port 0, of a Unix one unnamed.
 *
 * @param datagram  A socket.
 * @param out       Filled in on success.
 * @param size      sizeof *out.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_five_tuple(const keepsock_datagram *datagram,
                                     keepsock_five_tuple *out,
                                     size_t size,
                                     keepsock_error **error);

/**
 * Sets the time for each receiving call as a whole. Calls under way keep theirs.
 *
 * @param datagram  A socket.
 * @param ms        Milliseconds above 0, or KEEPSOCK_INFINITE, which is the default.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_datagram_set_read_timeout(keepsock_datagram *datagram,
                                           int64_t ms,
                                           keepsock_error **error);

/**
 * Sets the time for each sending call as a whole.
 *
 * @param datagram  A socket.
 * @param ms        Milliseconds above 0, or KEEPSOCK_INFINITE, which is the default.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_datagram_set_write_timeout(keepsock_datagram *datagram,
                                            int64_t ms,
                                            keepsock_error **error);

/**
 * In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK instead. Calls
 * that wait already go on.
 *
 * @param datagram  A socket.
 * @param on        true: non-blocking.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_datagram_set_nonblocking(keepsock_datagram *datagram,
                                          bool on,
                                          keepsock_error **error);

/**
 * Gives the socket a token that ends its calls, or takes it off. Calls under way are not
 * affected.
 *
 * @param datagram  A socket.
 * @param cancel    A token, shared from then on; NULL takes it off.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_datagram_set_cancel(keepsock_datagram *datagram,
                                     const keepsock_cancel *cancel,
                                     keepsock_error **error);

/**
 * Borrows the descriptor, for an event loop or an option that keepsock does not know. It is
 * open until the socket is closed; do not close it.
 *
 * @param datagram  A socket.
 * @param fd        Receives it.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_datagram_fd(const keepsock_datagram *datagram,
                             keepsock_fd *fd,
                             keepsock_error **error);

/**
 * Gives the descriptor up: it is the caller's to close. The object is then closed, and still to
 * be freed. A Unix socket's file stays.
 *
 * @param datagram  A socket.
 * @param fd        Receives the descriptor.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while another
 *         thread is in a call, and while datagrams wait in it that may have come as one
 *         (keepsock_options_set_coalescing()): receive them first. Since 0.1.
 */
int32_t keepsock_datagram_release_fd(keepsock_datagram *datagram,
                                     keepsock_fd *fd,
                                     keepsock_error **error);

/**
 * The name of a status: "KEEPSOCK_ERR_TIMED_OUT".
 *
 * @param status  Any number; "KEEPSOCK_OK" for 0, "KEEPSOCK_ERR_UNKNOWN" for
 *                one that this version does not have.
 * @return A static string. Since 0.1.
 */
const char *keepsock_status_name(int32_t status);

/**
 * What a status means in a few words: "timed out".
 *
 * @param status  Any number; "ok" for 0.
 * @return A static string. Since 0.1.
 */
const char *keepsock_status_text(int32_t status);

/**
 * The status that the failed call returned.
 *
 * @param error  An error, or NULL: KEEPSOCK_OK.
 * @return A status. Since 0.1.
 */
int32_t keepsock_error_status(const keepsock_error *error);

/**
 * The whole story in one line:
 * "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s".
 *
 * @param error  An error, or NULL: "no error".
 * @return Text that lives as long as the error. Since 0.1.
 */
const char *keepsock_error_message(const keepsock_error *error);

/**
 * The call that failed: "connect", "read", "listen".
 *
 * @param error  An error, or NULL: "".
 * @return Text that lives as long as the error. Since 0.1.
 */
const char *keepsock_error_operation(const keepsock_error *error);

/**
 * The endpoint or five-tuple that it failed on, "" if there is none.
 *
 * @param error  An error, or NULL: "".
 * @return Text that lives as long as the error. Since 0.1.
 */
const char *keepsock_error_endpoint(const keepsock_error *error);

/**
 * For connect and listen: the step that failed.
 *
 * @param error  An error, or NULL: "".
 * @return "lookup", "socket", "options", "bind", "connect", or "" for other
 *         calls; a static string. Since 0.1.
 */
const char *keepsock_error_stage(const keepsock_error *error);

/**
 * The system's error number, if it was the system that failed the call.
 *
 * @param error  An error, or NULL.
 * @return errno (a WSA code on Windows), or 0. Since 0.1.
 */
int32_t keepsock_error_os_error(const keepsock_error *error);

/**
 * How many bytes the call had moved before it failed. Bytes that were read are
 * kept for the next read; bytes that were written are on their way.
 *
 * @param error  An error, or NULL: 0.
 * @return A number of bytes. Since 0.1.
 */
size_t keepsock_error_transferred(const keepsock_error *error);

/**
 * How many attempts a failed connect made.
 *
 * @param error  An error, or NULL: 0.
 * @return A number for keepsock_error_attempt(). Since 0.1.
 */
size_t keepsock_error_attempt_count(const keepsock_error *error);

/**
 * One attempt of a failed connect, in the order they were made.
 *
 * @param error  An error.
 * @param index  Below keepsock_error_attempt_count().
 * @param out    Filled in on success.
 * @param size   sizeof *out.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for an index beyond the
 *         last, NULL or size 0. Since 0.1.
 */
int32_t keepsock_error_attempt(const keepsock_error *error,
                               size_t index,
                               keepsock_attempt *out,
                               size_t size);

/**
 * Frees an error. Freeing NULL does nothing.
 *
 * @param error  An error, or NULL. Since 0.1.
 */
void keepsock_error_free(keepsock_error *error);

/**
 * The name of a TCP state in RFC 9293 (section 3.3.2): "SYN-SENT".
 *
 * @param state  A value of enum keepsock_tcp_state; "UNKNOWN" for any other number.
 * @return A static string. Since 0.1.
 */
const char *keepsock_tcp_state_name(int32_t state);

/**
 * The SYN that opened an accepted connection: the peer's initial sequence number, MSS, window
 * scale and other options, TTL. The server must have been made with
 * keepsock_options_set_save_syn(). No privilege is needed (Linux: TCP_SAVED_SYN).
 *
 * The kernel gives it once and forgets it; the connection keeps its copy. Asked once, it can
 * be had again at any time, also after close. Whoever does not ask pays nothing.
 *
 * @param client  A connection that a server accepted.
 * @param out     Filled in on success.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_NOT_FOUND: the kernel has not kept it, for the server
 *         did not ask, or was so busy that it answered with a SYN cookie and kept nothing;
 *         _WRONG_STATE: made by keepsock_client_connect(), so it was this side that sent the
 *         SYN; _UNSUPPORTED: a Unix socket, which has none, or a platform that keeps none (the
 *         error says which); _CLOSED: not asked for before it was closed; _INVALID_ARGUMENT,
 *         _OS. Since 0.1.
 */
int32_t keepsock_client_syn(const keepsock_client *client,
                            keepsock_segment *out,
                            size_t size,
                            keepsock_error **error);

/**
 * Begins to watch a port, be it that of a server or the one that a client was given. What
 * passes the interfaces of this process's network is seen from now on: begin before the
 * connection does.
 *
 * @param port     Above 0.
 * @param capture  Receives the watch; free it with keepsock_capture_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_PERMISSION_DENIED: no CAP_NET_RAW; _UNSUPPORTED: not Linux,
 *         or a kernel without packet sockets; _NO_DESCRIPTORS, _NO_MEMORY,
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_capture_new(uint16_t port,
                             keepsock_capture **capture,
                             keepsock_error **error);

/**
 * The handshake of a connection of this program, made by either side; waits until it
 * is complete. If its addresses were used several times, it is the latest handshake.
 *
 * @param capture     The watch on a port of one of the sides.
 * @param client      The connection; it may be closed already.
 * @param timeout_ms  The time to wait; 0: only look at what was seen so far;
 *                    KEEPSOCK_INFINITE: as long as it takes.
 * @param handshake   Receives it; free it with keepsock_handshake_free().
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: not all of its packets were seen (the error tells
 *         which were, and whether the queue was full); _UNSUPPORTED: a Unix socket has no
 *         handshake; _INVALID_ARGUMENT: also if neither side has the port; _OS. Since 0.1.
 */
int32_t keepsock_capture_handshake(const keepsock_capture *capture,
                                   const keepsock_client *client,
                                   int64_t timeout_ms,
                                   keepsock_handshake **handshake,
                                   keepsock_error **error);

/**
 * The handshake of any connection, another program's for instance, by the addresses of its
 * sides: "192.0.2.1:40000", "[2001:db8::1]:80". Which of them is the client does not matter.
 *
 * @param capture     The watch on a port of one of the sides.
 * @param one         The address of one side, a number with its port.
 * @param other       That of the other.
 * @param timeout_ms  The time to wait; 0: only look at what was seen so far;
 *                    KEEPSOCK_INFINITE: as long as it takes.
 * @param handshake   Receives it; free it with keepsock_handshake_free().
 * @param error       See keepsock_error; may be NULL.
 * @return Those of keepsock_capture_handshake(), and KEEPSOCK_ERR_INVALID_ENDPOINT. Since 0.1.
 */
int32_t keepsock_capture_handshake_between(const keepsock_capture *capture,
                                           const char *one,
                                           const char *other,
                                           int64_t timeout_ms,
                                           keepsock_handshake **handshake,
                                           keepsock_error **error);

/**
 * Ends a watch. Handshakes that it gave live on. No other thread may be using it. Freeing NULL
 * does nothing.
 *
 * @param capture  A watch, or NULL. Since 0.1.
 */
void keepsock_capture_free(keepsock_capture *capture);

/**
 * One of the packets. Of one that was sent several times it is the first copy.
 *
 * @param handshake  A handshake.
 * @param index      0: SYN, 1: SYN and ACK, 2: ACK.
 * @param out        Filled in on success.
 * @param size       sizeof *out.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_handshake_segment(const keepsock_handshake *handshake,
                                   size_t index,
                                   keepsock_segment *out,
                                   size_t size,
                                   keepsock_error **error);

/**
 * The state of each side after one of the packets has come; before the first they are CLOSED
 * and LISTEN. They are worked out from the packets (RFC 9293 section 3.3.2), not asked of
 * anybody.
 *
 * @param handshake  A handshake.
 * @param index      0: SYN, 1: SYN and ACK, 2: ACK.
 * @param client     Receives a value of enum keepsock_tcp_state: the side that asked for the
 *                   connection; may be NULL.
 * @param server     Receives one, too: the side that listened; may be NULL.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_handshake_states(const keepsock_handshake *handshake,
                                  size_t index,
                                  int32_t *client,
                                  int32_t *server,
                                  keepsock_error **error);

/**
 * How often one of the packets was sent again, because no answer came in time.
 *
 * @param handshake  A handshake.
 * @param index      0: SYN, 1: SYN and ACK; of 2, the ACK, it is not known: 0.
 * @param count      Receives the number, without the first time.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_handshake_retransmissions(const keepsock_handshake *handshake,
                                           size_t index,
                                           uint32_t *count,
                                           keepsock_error **error);

/**
 * The three packets as "tcpdump -n -S -t" prints them, each on a line of its own.
 *
 * @param handshake  A handshake, or NULL: "".
 * @return Text that lives as long as the object; its last line does not end. Since 0.1.
 */
const char *keepsock_handshake_lines(const keepsock_handshake *handshake);

/**
 * A sequence diagram in at most 80 columns: the client at the left, the server at the right,
 * their states beside their lines, and the numbers above the arrows.
 *
 * @param handshake  A handshake, or NULL: "".
 * @return Text that lives as long as the object; its last line does not end. Since 0.1.
 */
const char *keepsock_handshake_diagram(const keepsock_handshake *handshake);

/**
 * Frees a handshake. Freeing NULL does nothing.
 *
 * @param handshake  A handshake, or NULL. Since 0.1.
 */
void keepsock_handshake_free(keepsock_handshake *handshake);

/**
 * Takes the descriptors that the process was started with, once: whoever calls it again gets
 * none. There are none, either, if LISTEN_PID or LISTEN_PIDFDID names another process. The
 * environment stays as it is; the descriptors are kept from programs that this one starts. Call it
 * early: what else was opened meanwhile cannot be told from what was promised. On Windows nothing
 * is inherited.
 *
 * @param inherited  Receives them; free it with keepsock_inherited_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, also if there are none; KEEPSOCK_ERR_INVALID_ARGUMENT: the variables hold
 *         something else than numbers, or not as many names as there are descriptors, or one of
 *         those is not open. Since 0.1.
 */
int32_t keepsock_inherited_take(keepsock_inherited **inherited,
                                keepsock_error **error);

/**
 * The inherited listening stream socket that is bound to the endpoint, if there is one; else it
 * listens itself, with keepsock_options_set_hand_over(). The options hold for either. "*:80" is
 * a socket that takes IPv4 and IPv6, "[::]:80" one for IPv6 only. Port 0 stands for the port
 * that the system chose for the one who listened first with port 0; of a service manager's sockets
 * none is meant by it. Nor is a Unix socket whose path is another file's now.
 *
 * What a predecessor has handed over gets its options in keepsock_inherited_ready(): the listener
 * is the predecessor's, too, and if this process fails, nothing of it has changed. Who connected
 * before has the predecessor's options. A backlog that is not given stays as it was, and so do the
 * mode and the owner of a Unix socket's file, given or not.
 *
 * @param inherited  What was inherited.
 * @param endpoint   Where to listen.
 * @param options    Options, copied; NULL for the defaults.
 * @param server     Receives the socket; free it with keepsock_server_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or those of keepsock_server_listen() and keepsock_server_from_fd();
 *         KEEPSOCK_ERR_WRONG_STATE also if what was inherited there is for packets, and a stream
 *         is asked for, or the other way round. What was inherited stays where it is then.
 *         Since 0.1.
 */
int32_t keepsock_inherited_listen(keepsock_inherited *inherited,
                                  const char *endpoint,
                                  const keepsock_options *options,
                                  keepsock_server **server,
                                  keepsock_error **error);

/**
 * All inherited listening sockets of a name, as one server: systemd's FileDescriptorName=, or
 * what the predecessor called them. Without a name it is "unknown". Options are set as by
 * keepsock_inherited_listen(). Datagram sockets of that name are passed over and stay, for
 * keepsock_inherited_datagram(): systemd calls all sockets of a unit the same.
 *
 * @param inherited  What was inherited.
 * @param name       The name.
 * @param options    Options, copied; NULL for the defaults.
 * @param server     Receives the socket; free it with keepsock_server_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_NOT_FOUND (nothing of that name), _WRONG_STATE (one is neither
 *         a listening stream socket nor a datagram socket, or all are datagram sockets; the error
 *         says what it is), or those of keepsock_server_from_fd(); all stay where they are then.
 *         Since 0.1.
 */
int32_t keepsock_inherited_server(keepsock_inherited *inherited,
                                  const char *name,
                                  const keepsock_options *options,
                                  keepsock_server **server,
                                  keepsock_error **error);

/**
 * The first inherited datagram socket of a name, UDP or Unix; what else has that name is passed
 * over. Its options are set at once: a predecessor, whose socket it is, too, receives with them
 * from now on.
 *
 * But what a predecessor has handed over gets keepsock_options_set_coalescing() in
 * keepsock_inherited_ready(): a predecessor that has not asked for it would take several datagrams
 * for one. From then on it does; so ask for it in either process, or have the predecessor stop
 * receiving at once.
 *
 * @param inherited  What was inherited.
 * @param name       The name.
 * @param options    Options, copied; NULL for the defaults.
 * @param datagram   Receives the socket; free it with keepsock_datagram_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_NOT_FOUND (nothing of that name), _WRONG_STATE (none is a
 *         datagram socket; the error says what the first one is), or those of
 *         keepsock_datagram_from_fd(); it stays where it is then. Since 0.1.
 */
int32_t keepsock_inherited_datagram(keepsock_inherited *inherited,
                                    const char *name,
                                    const keepsock_options *options,
                                    keepsock_datagram **datagram,
                                    keepsock_error **error);

/**
 * The inherited datagram socket, UDP or Unix, that is bound to the endpoint and not connected, if
 * there is one; else it binds one itself, with keepsock_options_set_hand_over(). Which endpoint
 * means which socket is as in keepsock_inherited_listen().
 *
 * The options hold for either, as those of keepsock_inherited_datagram() do; a UDP socket that was
 * inherited stays on the interface that it was bound to.
 *
 * @param inherited  What was inherited.
 * @param endpoint   Where to receive.
 * @param options    Options, copied; NULL for the defaults.
 * @param datagram   Receives the socket; free it with keepsock_datagram_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or those of keepsock_datagram_bind() and keepsock_datagram_from_fd(); what
 *         was inherited stays where it is then. Since 0.1.
 */
int32_t keepsock_inherited_bind(keepsock_inherited *inherited,
                                const char *endpoint,
                                const keepsock_options *options,
                                keepsock_datagram **datagram,
                                keepsock_error **error);

/**
 * How many descriptors nobody took yet.
 *
 * @param inherited  What was inherited, or NULL: 0.
 * @return Their number. Since 0.1.
 */
size_t keepsock_inherited_count(const keepsock_inherited *inherited);

/**
 * The name of one that nobody took yet, in the order of their descriptors.
 *
 * @param inherited  What was inherited, or NULL: "".
 * @param index      From 0. "" beyond the last.
 * @return Text that lives until one of them is taken, keepsock_inherited_ready() is called, or the
 *         object is freed. Since 0.1.
 */
const char *keepsock_inherited_name(const keepsock_inherited *inherited,
                                    size_t index);

/**
 * Tells the predecessor, if there is one, that this process serves, so that it ends; the second
 * time it does nothing. Call it when everything that may fail has succeeded: before, the
 * predecessor goes on as if nothing had been when this process ends, or frees the object.
 *
 * Just before that, servers that were taken from a predecessor get their options, and datagram
 * sockets keepsock_options_set_coalescing(). From now on the files of Unix sockets are this
 * process's to remove. What nobody took is closed: clients would
 * connect to it and never be accepted.
 *
 * @param inherited  What was inherited.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, also if the predecessor is gone; KEEPSOCK_ERR_INVALID_ARGUMENT, _OS, and
 *         those of options that the system refuses: the predecessor has heard nothing then.
 *         Since 0.1.
 */
int32_t keepsock_inherited_ready(keepsock_inherited *inherited,
                                 keepsock_error **error);

/**
 * Closes those that nobody took, and frees the object. Freeing NULL does nothing.
 *
 * @param inherited  What was inherited, or NULL. Since 0.1.
 */
void keepsock_inherited_free(keepsock_inherited *inherited);

/**
 * Starts a successor of this process, which has the same listening sockets, and waits until it
 * has said keepsock_inherited_ready(). At no moment does nobody listen, so no client is refused.
 * Afterwards both accept; this process is to have its connections finish and to end, and what
 * waits to be accepted the new one takes:
 * @code
 * keepsock_inherited_take(&inherited, &error);
 * keepsock_inherited_listen(inherited, "*:8080", NULL, &server, &error);
 * keepsock_server_serve(server, NULL, handler, NULL, &service, &error);
 * keepsock_inherited_ready(inherited, &error);
 * ... on SIGHUP:
 * keepsock_handed handed = { "http", server, NULL };
 * if (keepsock_hand_over(NULL, &handed, 1, 10000, NULL, NULL, &error) == KEEPSOCK_OK
 *   && keepsock_service_finish(service, 5000, &left, &error) == KEEPSOCK_OK)
 *   keepsock_service_drain(service, 30000, &finished, &cut, &error);
 * @endcode
 *
 * If the new process ends, or is not ready in time, it is killed, the error says why, and this
 * one goes on as if nothing had been. One that has become another user's process cannot be ended,
 * and goes on. Sockets must have been made with
 * keepsock_options_set_hand_over(), or taken over, or come from a keepsock_inherited. Of
 * a Unix socket in the file system the new process owns the file from then on, if this one did.
 *
 * The new one is the process that is started, and no other. A script that prepares something has
 * to end with exec, so that the server is that process; a program that goes into the background
 * has ended. What else it starts is not ended with it, and has the sockets as long as it lives if
 * it inherited them: it keeps them listening, though nobody may accept. No signal is blocked in
 * the new one; those that are not ignored, and SIGPIPE, are as by default. Variables are passed
 * on, but systemd's WATCHDOG_PID, which names this process; systemd has to be told (MAINPID= of
 * sd_notify(3)).
 *
 * @param argv        The program, a path or a name to be looked for in PATH, and its arguments;
 *                    the last pointer is NULL. NULL: this program again, with its arguments; the
 *                    file that has its name now, if it was replaced. Of a program that was started
 *                    by a symbolic link, that is what the link led to: give the link here if it
 *                    may lead elsewhere.
 * @param handed      What is handed over.
 * @param count       How many; at least 1.
 * @param timeout_ms  Milliseconds above 0 for the successor to be ready, or KEEPSOCK_INFINITE. It
 *                    and the token hold for all of it, but the system's fork(2).
 * @param cancel      A token that ends the wait, and the successor; or NULL.
 * @param pid         Receives the number of the successor's process, a child of this one; may be
 *                    NULL.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_END_OF_STREAM (the successor ended, or gave up what it
 *         inherited, before it was ready; the error has its exit status, if it has ended),
 *         _TIMED_OUT, _CANCELLED, _NOT_FOUND, _PERMISSION_DENIED (the program cannot be started),
 *         _WRONG_STATE (made without keepsock_options_set_hand_over(), or being handed over
 *         already), _CLOSED, _INVALID_ARGUMENT, _NO_DESCRIPTORS, _NO_MEMORY, _OS, _UNSUPPORTED
 *         (Windows). Since 0.1.
 */
int32_t keepsock_hand_over(const char *const *argv,
                           const keepsock_handed *handed,
                           size_t count,
                           int64_t timeout_ms,
                           const keepsock_cancel *cancel,
                           int64_t *pid,
                           keepsock_error **error);

/**
 * Sets whom to tell of log events, for the whole process. Until this is called,
 * and after it was called with NULL, nothing is told and nothing is printed.
 *
 * Threads: any thread may call it at any time. When it has returned, no thread
 * is inside a callback that was set before, and none will be: what its `user`
 * points to may be freed. So it waits for callbacks that are under way; they
 * must not wait for the thread that calls this.
 *
 * @param callback  Called for each event; NULL ends it. Any thread may call it.
 * @param user      Passed to the callback.
 * @param level     A value of enum keepsock_log_level: this much is told. Not used
 *                  with NULL, but must be one.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_INVALID_ARGUMENT: no such level; _WRONG_STATE:
 *         called from inside the callback, or this is a Rust program whose own
 *         logger of the log crate has the events already. Since 0.1.
 */
int32_t keepsock_log_set(keepsock_log_callback callback,
                         void *user,
                         int32_t level,
                         keepsock_error **error);

/**
 * Makes options with the defaults.
 *
 * @param options  Receives them; free them with keepsock_options_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_new(keepsock_options **options, keepsock_error **error);

/**
 * Keepalive of TCP connections (tcp(7), RFC 9293 section 3.8.4): after idle_ms
 * without traffic the kernel sends a probe, then one each interval_ms; after
 * count unanswered ones the connection ends with KEEPSOCK_ERR_DEAD. An idle
 * peer that vanished is known after idle + interval * count.
 * Default: 45 s, 15 s, 5: known in 120 s, and no common firewall, NAT or load
 * balancer forgets the connection. Unix sockets have no network to keep alive.
 *
 * @param options      The options to change.
 * @param idle_ms      1 ms to 32,767 s; rounded up to whole seconds.
 * @param interval_ms  Likewise.
 * @param count        1 to 127.
 * @param error        See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT, which changes nothing.
 *         Since 0.1.
 */
int32_t keepsock_options_set_keepalive(keepsock_options *options,
                                       int64_t idle_ms,
                                       int64_t interval_ms,
                                       uint32_t count,
                                       keepsock_error **error);

/**
 * Turns keepalive off.
 *
 * @param options  The options to change.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_disable_keepalive(keepsock_options *options,
                                           keepsock_error **error);

/**
 * Reports a peer that vanished as KEEPSOCK_ERR_DEAD within ms and a second: whether the
 * connection is idle, has data that is not acknowledged, or a write waits for room. A peer
 * that lives and has merely stopped reading is waited for, unless
 * keepsock_options_set_end_stalled() says otherwise. Without it there is keepalive alone,
 * which says nothing while data is unacknowledged; then the system may try for a quarter of
 * an hour. Default: KEEPSOCK_INFINITE.
 *
 * Sets keepalive to fit. While data is on its way the calls that wait look at how long the
 * peer was silent (tcp(7), TCP_INFO), four times in ms; a program that does not wait in calls
 * asks keepsock_client_check_alive(). Linux 6.15 and later are told to send again, and to ask
 * a peer that takes no data, at least each eighth of ms, or each second (TCP_RTO_MAX_MS);
 * earlier kernels ask less and less often, so that a peer which vanishes while it takes no
 * data is found later. macOS and Windows do this in the kernel, in whole seconds; FreeBSD has
 * it with end_stalled only, and connecting and listening are KEEPSOCK_ERR_UNSUPPORTED without.
 * The peer of a Unix socket cannot vanish.
 *
 * @param options  The options to change.
 * @param ms       2,000 to 163,880,000 milliseconds, or KEEPSOCK_INFINITE: not.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: out of range; keepalive is off, or
 *         was set to values that find a dead peer later; with mptcp, for one path's silence
 *         is not the peer's; KEEPSOCK_INFINITE while end_stalled is on. Since 0.1.
 */
int32_t keepsock_options_set_dead_after(keepsock_options *options,
                                        int64_t ms,
                                        keepsock_error **error);

/**
 * After keepsock_options_set_dead_after(): gives up a peer that lives but takes no data for
 * that time, too, with KEEPSOCK_ERR_STALLED. The kernel does it by itself (TCP_USER_TIMEOUT of
 * tcp(7), RFC 9293 section 3.8.3; FreeBSD: TCP_MAXUNACKTIME), whether a call waits or not; it
 * counts from the first byte that is not taken.
 * Elsewhere connecting and listening are KEEPSOCK_ERR_UNSUPPORTED. TCP only. Default: false.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: no dead_after was set. Since 0.1.
 */
int32_t keepsock_options_set_end_stalled(keepsock_options *options,
                                         bool on,
                                         keepsock_error **error);

/**
 * Keeps firewalls, NATs and load balancers from forgetting the connection, which they do
 * after it was idle for ms: keepalive probes pass at least that often, and one of them may get
 * lost. Default: KEEPSOCK_INFINITE, the default keepalive probes after 45 s, in time for all
 * that are common. Use keepsock_options_set_heartbeat() where something on the way does not
 * pass probes on, such as a proxy.
 *
 * @param options  The options to change.
 * @param ms       2,000 to 163,880,000 milliseconds, or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: out of range, keepalive is off, or
 *         was set to a longer idle time. Since 0.1.
 */
int32_t keepsock_options_set_survive_idle(keepsock_options *options,
                                          int64_t ms,
                                          keepsock_error **error);

/**
 * Sends bytes whenever nothing was written for a time: "PING\r\n", MQTT's C0 00, what the
 * protocol has for that. For proxies, which end TCP and so answer keepalive themselves, and,
 * with keepsock_options_set_idle_limit(), for peers whose kernel answers while the program
 * hangs. Never in the middle of a write. Sent by any call that waits on the connection, and
 * by keepsock_client_check_alive(). A peer that takes no data gets none. Default: none.
 *
 * @param options   The options to change.
 * @param buf       The bytes, copied.
 * @param len       How many; above 0.
 * @param every_ms  Milliseconds above 0.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (an idle limit that is not longer
 *         than every_ms, too). Since 0.1.
 */
int32_t keepsock_options_set_heartbeat(keepsock_options *options,
                                       const void *buf,
                                       size_t len,
                                       int64_t every_ms,
                                       keepsock_error **error);

/**
 * Ends the connection for those who wait to read if nothing came for ms: their calls are
 * KEEPSOCK_ERR_IDLE_LIMIT, or KEEPSOCK_ERR_HEARTBEAT_MISSED if there is a heartbeat, which
 * the peer's program should have answered. A last word can still be written; then close, which
 * waits for the peer as always, but not for one that missed heartbeats. A read timeout is for one
 * call, this is for the connection. Default: KEEPSOCK_INFINITE.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (not longer than the heartbeat's
 *         time, too). Since 0.1.
 */
int32_t keepsock_options_set_idle_limit(keepsock_options *options,
                                        int64_t ms,
                                        keepsock_error **error);

/**
 * As keepsock_options_set_idle_limit(), until the first byte has come: for clients that connect
 * and say nothing. Default: KEEPSOCK_INFINITE, the idle limit holds from the beginning.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_first_byte_limit(keepsock_options *options,
                                              int64_t ms,
                                              keepsock_error **error);

/**
 * Whether closing takes a last copy of what the kernel knows of the connection, for
 * keepsock_client_snapshot() afterwards; it costs a few system calls. A connection that
 * ended by an error has it in any case. Default: false.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_last_snapshot(keepsock_options *options,
                                           bool on,
                                           keepsock_error **error);

/**
 * Whether small writes leave at once (TCP_NODELAY), or are gathered while
 * earlier ones are unacknowledged (Nagle's algorithm). Default: at once.
 *
 * @param options  The options to change.
 * @param on       true: at once.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_nodelay(keepsock_options *options,
                                     bool on,
                                     keepsock_error **error);

/**
 * The time for a connect: name lookup and every attempt together. For listen:
 * the time for looking its name up. Default: 30,000.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE: as long as the
 *                 system takes.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_connect_timeout(keepsock_options *options,
                                             int64_t ms,
                                             keepsock_error **error);

/**
 * The time between the starts of two attempts of a connect, to the addresses of one name
 * (RFC 8305 section 5, Connection Attempt Delay); the next one starts at once when one has failed.
 * Shorter is quicker where an address does not answer, and a burden on servers that are merely
 * slow. Default: 250.
 *
 * @param options  The options to change.
 * @param ms       10 to 2,000 milliseconds, as the RFC demands.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_attempt_delay(keepsock_options *options,
                                           int64_t ms,
                                           keepsock_error **error);

/**
 * The time for each reading call as a whole. Default: KEEPSOCK_INFINITE.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_read_timeout(keepsock_options *options,
                                          int64_t ms,
                                          keepsock_error **error);

/**
 * The time for each writing call as a whole. Default: KEEPSOCK_INFINITE.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_write_timeout(keepsock_options *options,
                                           int64_t ms,
                                           keepsock_error **error);

/**
 * How long keepsock_client_close() may wait for the peer to end its side.
 * Default: 2,000.
 *
 * @param options  The options to change.
 * @param ms       Milliseconds; 0: not at all.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT (a close without limit
 *         might hang). Since 0.1.
 */
int32_t keepsock_options_set_close_timeout(keepsock_options *options,
                                           int64_t ms,
                                           keepsock_error **error);

/**
 * IPv4 only, IPv6 only, or any (the default). TCP only: connecting or listening on
 * a Unix socket with it is KEEPSOCK_ERR_INVALID_ARGUMENT.
 *
 * @param options  The options to change.
 * @param family   A value of enum keepsock_family.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_family(keepsock_options *options,
                                    int32_t family,
                                    keepsock_error **error);

/**
 * The local address and port that a client connects from. TCP connects only:
 * elsewhere it is KEEPSOCK_ERR_INVALID_ARGUMENT. Default: the system chooses both.
 *
 * @param options  The options to change.
 * @param local    An endpoint; port 0 lets the system choose the port.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT,
 *         KEEPSOCK_ERR_INVALID_ARGUMENT. Whether the address is this machine's is
 *         seen at connect: KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE. Since 0.1.
 */
int32_t keepsock_options_set_local(keepsock_options *options,
                                   const char *local,
                                   keepsock_error **error);

/**
 * The network interface that the socket's traffic uses; TCP only. Linux (every user
 * since 5.7) and macOS; elsewhere connect and listen return
 * KEEPSOCK_ERR_UNSUPPORTED. Default: as routed.
 *
 * @param options  The options to change.
 * @param name     Its name, at most 15 bytes: "eth0".
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_interface(keepsock_options *options,
                                       const char *name,
                                       keepsock_error **error);

/**
 * Adds an address to connect to in place of looking the endpoint's name up.
 * They race in the order they were added. TCP connects only. Default: none.
 *
 * @param options  The options to change.
 * @param address  A numeric endpoint: "192.0.2.1:80", "[2001:db8::1]:80".
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT (names are not
 *         addresses), KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_add_address(keepsock_options *options,
                                     const char *address,
                                     keepsock_error **error);

/**
 * How many confirmed connections may wait to be accepted. The system lowers
 * it to its own limit (Linux: net.core.somaxconn). Default: that limit.
 *
 * @param options  The options to change.
 * @param backlog  Above 0.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_backlog(keepsock_options *options,
                                     uint32_t backlog,
                                     keepsock_error **error);

/**
 * TCP Fast Open (RFC 7413): a client that was here before sends its first bytes with the SYN, and
 * saves a round trip. Linux only; elsewhere connecting and listening are
 * KEEPSOCK_ERR_UNSUPPORTED. The system must allow it, for servers too (net.ipv4.tcp_fastopen = 3).
 * Default: false.
 *
 * Connecting to an address with a cookie of an earlier connection succeeds at once and sends
 * nothing: the handshake comes with the first write, and its failures too. So it is for protocols
 * in which the client speaks first, and for what may arrive twice. A name with several addresses
 * races without it.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_fast_open(keepsock_options *options,
                                       bool on,
                                       keepsock_error **error);

/**
 * Multipath TCP (RFC 8684): one connection over several networks, that outlives the loss of one of
 * them. Linux only; elsewhere, and where net.mptcp.enabled is 0, connecting and listening are
 * KEEPSOCK_ERR_UNSUPPORTED. With a peer that does not know it the connection is plain TCP:
 * keepsock_client_is_mptcp(). Not together with keepsock_options_set_dead_after(), for the silence
 * of one path is not that of the peer. Default: false.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: dead_after was set. Since 0.1.
 */
int32_t keepsock_options_set_mptcp(keepsock_options *options,
                                   bool on,
                                   keepsock_error **error);

/**
 * Whether the kernel may hand over the datagrams of one sender that follow each other as one
 * (UDP_GRO of udp(7), Linux 5.0); they are told one by one as always. For those who receive many
 * thousand in a second: each is copied once more, one thread receives at a time, and it takes up
 * to a megabyte. What is left over waits in the socket, so that its descriptor may not be readable
 * though there is something to receive: whoever polls it goes on until KEEPSOCK_ERR_WOULD_BLOCK.
 * Several that came as one and found no room are one in keepsock_datagram_stats.dropped, for the
 * kernel counts so. UDP only; elsewhere binding is KEEPSOCK_ERR_UNSUPPORTED, and for other sockets
 * KEEPSOCK_ERR_INVALID_ARGUMENT. Default: no.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_coalescing(keepsock_options *options,
                                        bool on,
                                        keepsock_error **error);

/**
 * Whether a server keeps the SYN of each connection, for keepsock_client_syn(): TCP on
 * Linux (TCP_SAVE_SYN, 4.2 and later), for every user. For servers only. Listening or taking
 * over with it returns KEEPSOCK_ERR_UNSUPPORTED where the system cannot, connecting with it
 * KEEPSOCK_ERR_INVALID_ARGUMENT. Default: no. The kernel keeps about 100 bytes for each
 * connection until they are asked for.
 *
 * @param options  The options to change.
 * @param on       true: keep them.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_save_syn(keepsock_options *options,
                                      bool on,
                                      keepsock_error **error);

/**
 * The permissions of a Unix socket's file, whatever the umask: who may write to it may connect.
 * In force before anybody can. For servers and datagram sockets on a path; others have no file and
 * are KEEPSOCK_ERR_INVALID_ARGUMENT when they are made. Default: as the umask has it.
 *
 * @param options  The options to change.
 * @param mode     At most 0777: 0660.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_unix_mode(keepsock_options *options,
                                       uint32_t mode,
                                       keepsock_error **error);

/**
 * The owner and the group of a Unix socket's file, in force before anybody can connect. Another
 * owner is for root, another group for its members; else listening is
 * KEEPSOCK_ERR_PERMISSION_DENIED. For sockets on a path, as keepsock_options_set_unix_mode().
 * Default: what the system gives it.
 *
 * @param options  The options to change.
 * @param uid      The number of a user; -1 leaves it.
 * @param gid      The number of a group; -1 leaves it.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_set_unix_owner(keepsock_options *options,
                                        int64_t uid,
                                        int64_t gid,
                                        keepsock_error **error);

/**
 * Adds a user who may connect to a listening Unix socket. Connections of others are closed at
 * once, before the program sees them, and counted (keepsock_server_counters, denied). Root is no
 * exception. Of a bound Unix datagram socket (Linux) the users who may send: datagrams of others
 * are passed over, and counted (keepsock_datagram_stats, denied). For listening and binding on
 * Unix sockets only; others are KEEPSOCK_ERR_INVALID_ARGUMENT when they are made. Default: none,
 * everybody may.
 *
 * @param options  The options to change.
 * @param uid      The number of a user; not (uid_t)-1, which is nobody's.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_options_allow_user(keepsock_options *options,
                                    uint32_t uid,
                                    keepsock_error **error);

/**
 * A Unix socket for packets in order (SOCK_SEQPACKET) and not for a stream: each write is one
 * packet, and each read receives one, whole. For connecting and for listening, on both sides;
 * KEEPSOCK_ERR_INVALID_ARGUMENT for TCP. Linux and FreeBSD; macOS has none
 * (KEEPSOCK_ERR_UNSUPPORTED). Default: false.
 *
 * A packet has at least one byte, for an empty one would look like the end, and at most what the
 * socket's send buffer holds (Linux: about 200 KB by default; KEEPSOCK_ERR_TOO_LONG). One that
 * does not fit into the reader's buffer is lost, with KEEPSOCK_ERR_TOO_LONG; the next one is not.
 * Lines, messages, keepsock_client_read_exact() and files are for streams:
 * KEEPSOCK_ERR_WRONG_STATE. Serving by events is, too: KEEPSOCK_ERR_INVALID_ARGUMENT, or
 * _WRONG_STATE for a connection that is added (keepsock_service_add()).
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_sequenced(keepsock_options *options,
                                       bool on,
                                       keepsock_error **error);

/**
 * Whether the listening socket, or the datagram socket, can be handed over to another process
 * while this one goes on with it: keepsock_hand_over(). Both have the same socket then, so closing
 * it here does not end the listening. An accept costs one poll more, and the socket one
 * descriptor; served by events, it costs the descriptor only, but must be set, too. What was taken
 * over by a from_fd function or inherited is so in any case. Connecting a stream with it is
 * KEEPSOCK_ERR_INVALID_ARGUMENT. Default: false.
 *
 * @param options  The options to change.
 * @param on       Whether.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_options_set_hand_over(keepsock_options *options,
                                       bool on,
                                       keepsock_error **error);

/**
 * The token that ends the socket's calls, connect included. Connections that a
 * server accepts start without one. Default: none.
 *
 * @param options  The options to change.
 * @param cancel   A token; NULL for none. It is shared: it may be freed before the
 *                 options.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for options that are NULL.
 *         Since 0.1.
 */
int32_t keepsock_options_set_cancel(keepsock_options *options,
                                    const keepsock_cancel *cancel,
                                    keepsock_error **error);

/**
 * Frees options. Freeing NULL does nothing.
 *
 * @param options  Options, or NULL. Since 0.1.
 */
void keepsock_options_free(keepsock_options *options);

/**
 * Makes the object; nothing is connected yet.
 *
 * @param endpoint   Where to connect, as for keepsock_client_connect().
 * @param options    Options, copied; NULL for the defaults. Their connect timeout (30 s) is for
 *                   each try. Their cancel token ends a wait between tries within 50 ms, too.
 * @param reconnect  Receives the object; free it with keepsock_reconnect_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ENDPOINT, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_reconnect_new(const char *endpoint,
                               const keepsock_options *options,
                               keepsock_reconnect **reconnect,
                               keepsock_error **error);

/**
 * The bound of the first wait, and of the longest; the waits begin anew. Each wait is a random
 * time below its bound, half of it in the mean. Default: 100 ms and 30 s.
 *
 * @param reconnect   The object to change.
 * @param first_ms    From 1 ms.
 * @param longest_ms  From first_ms to 24 hours.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
 *         Since 0.1.
 */
int32_t keepsock_reconnect_set_back_off(keepsock_reconnect *reconnect,
                                        int64_t first_ms,
                                        int64_t longest_ms,
                                        keepsock_error **error);

/**
 * The time for each keepsock_reconnect_connect(), all its tries and waits together.
 *
 * @param reconnect  The object to change.
 * @param limit_ms   Milliseconds above 0, or KEEPSOCK_INFINITE, the default.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
 *         Since 0.1.
 */
int32_t keepsock_reconnect_set_limit(keepsock_reconnect *reconnect,
                                     int64_t limit_ms,
                                     keepsock_error **error);

/**
 * Sets what is told before each wait.
 *
 * @param reconnect  The object to change.
 * @param on_retry   See keepsock_on_retry; NULL: nothing is told, the default.
 * @param user       Passed to on_retry; may be NULL. It must live until another one is set or
 *                   the object is freed.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
 *         Since 0.1.
 */
int32_t keepsock_reconnect_set_on_retry(keepsock_reconnect *reconnect,
                                        keepsock_on_retry on_retry,
                                        void *user,
                                        keepsock_error **error);

/**
 * The next try is made at once, and the waits begin anew. For a connection that has done its
 * work though it was short, or when something tells that the server is back.
 *
 * @param reconnect  The object.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _WRONG_STATE (another call is going on).
 *         Since 0.1.
 */
int32_t keepsock_reconnect_reset(keepsock_reconnect *reconnect,
                                 keepsock_error **error);

/**
 * Tries until it is connected; for the first time, or again after the connection was lost. The
 * back-off goes on from call to call: one that follows another waits for its turn, also if it has
 * to spend all its limit on that.
 *
 * When the limit is over, the status and the error are those of the last try, the real cause,
 * with how many tries there were in how much time: "connect to 127.0.0.1:80: connection refused
 * after 7 tries in 10.0 s". A try that the limit cut short has nothing to say if there was one
 * before it. If there was none, or the limit left no time for one: KEEPSOCK_ERR_TIMED_OUT.
 *
 * @param reconnect  The object.
 * @param client     Receives the connection; free it with keepsock_client_free().
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CANCELLED; errors that cannot pass (see keepsock_reconnect);
 *         when the limit is over any status of keepsock_client_connect(); _WRONG_STATE (another
 *         call is going on). Since 0.1.
 */
int32_t keepsock_reconnect_connect(keepsock_reconnect *reconnect,
                                   keepsock_client **client,
                                   keepsock_error **error);

/**
 * Frees the object; a connection that it made lives on. Freeing NULL does nothing.
 *
 * @param reconnect  The object, or NULL. Since 0.1.
 */
void keepsock_reconnect_free(keepsock_reconnect *reconnect);

/**
 * Who the peer is, by what the kernel knows. Unix sockets only.
 *
 * @param client  A connection.
 * @param out     Filled in on success.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_UNSUPPORTED (TCP, which knows addresses only), _CLOSED,
 *         _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_client_peer_credentials(const keepsock_client *client,
                                         keepsock_credentials *out,
                                         size_t size,
                                         keepsock_error **error);

/**
 * Writes some bytes, as keepsock_client_write() does, and with the first of them descriptors:
 * files, sockets (keepsock_client_fd(), keepsock_server_fd()), pipes. The peer gets descriptors of
 * its own for them; those that were given stay the caller's to close. Unix sockets only.
 *
 * Succeeding, the kernel has all of the descriptors, whatever it took of the bytes: write the rest
 * with keepsock_client_write_all(). A connection that is passed is one and the same in both
 * processes: give it up here with keepsock_client_release_fd() and close(), for
 * keepsock_client_close() would end it for both.
 *
 * @param client   A connection.
 * @param buf      The bytes.
 * @param len      How many; above 0.
 * @param fds      The descriptors.
 * @param count    How many; at most 253 (SCM_MAX_FD of unix(7)).
 * @param written  Receives the number of bytes that the kernel took.
 * @param error    See keepsock_error; may be NULL.
 * @return Those of keepsock_client_write(), and then no descriptor was sent;
 *         KEEPSOCK_ERR_NO_DESCRIPTORS: too many are on their way already;
 *         KEEPSOCK_ERR_UNSUPPORTED for TCP, and on Windows. Since 0.1.
 */
int32_t keepsock_client_write_fds(keepsock_client *client,
                                  const void *buf,
                                  size_t len,
                                  const keepsock_fd *fds,
                                  size_t count,
                                  size_t *written,
                                  keepsock_error **error);

/**
 * Reads some bytes, as keepsock_client_read() does, and at most max of the descriptors that came
 * with them. They are close-on-exec and the caller's to close; keepsock_client_from_fd() and
 * keepsock_server_from_fd() take them. Others are closed, which lost tells. Unix sockets only.
 *
 * Descriptors come with the first of the bytes that they were sent with, and whoever reads those
 * by another function has the kernel close them. So a peer cannot fill this process with
 * descriptors that it does not want. Bytes that were read ahead are given first; none came with
 * them.
 *
 * @param client  A connection.
 * @param buf     Filled with at most cap bytes.
 * @param cap     Its size; above 0.
 * @param fds     Filled with at most max descriptors; may be NULL if max is 0.
 * @param max     How many are wanted; at most 253.
 * @param len     Receives the number of bytes; 0: the peer closed its side.
 * @param count   Receives the number of descriptors.
 * @param lost    Receives whether more came than were wanted, or than this process may have; may
 *                be NULL.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_read(); KEEPSOCK_ERR_UNSUPPORTED for TCP, and on Windows.
 *         KEEPSOCK_ERR_TOO_LONG on a socket for packets. Since 0.1.
 */
int32_t keepsock_client_read_fds(keepsock_client *client,
                                 void *buf,
                                 size_t cap,
                                 keepsock_fd *fds,
                                 size_t max,
                                 size_t *len,
                                 size_t *count,
                                 bool *lost,
                                 keepsock_error **error);

/**
 * Writes len bytes of a file from offset on, or what there is up to its end. All within one write
 * timeout, in one turn: what other threads write comes before or after. The file's own position is
 * not used and not moved. On Linux the bytes do not pass through this process (sendfile());
 * elsewhere, and where sendfile() refuses the file, it is read in pieces and sent. If it fails,
 * keepsock_error_transferred() says how many bytes the kernel had taken.
 *
 * @param client  A connection.
 * @param fd      A file that is open for reading; not a pipe. It stays the caller's.
 * @param offset  Where to begin.
 * @param len     How many bytes; UINT64_MAX for all that there are.
 * @param sent    Receives how many were sent; may be NULL.
 * @param error   See keepsock_error; may be NULL.
 * @return Those of keepsock_client_write(); KEEPSOCK_ERR_INVALID_ARGUMENT for a directory, a pipe
 *         or a socket, and for a file that is not open for reading; _OS: it cannot be read;
 *         _WRONG_STATE for a socket for packets; _UNSUPPORTED on Windows. Since 0.1.
 */
int32_t keepsock_client_send_file(keepsock_client *client,
                                  int fd,
                                  uint64_t offset,
                                  uint64_t len,
                                  uint64_t *sent,
                                  keepsock_error **error);

/**
 * Listens. "*:8080" takes IPv4 and IPv6 on one port, whatever the system's
 * bindv6only says; "0.0.0.0:8080" takes IPv4 and "[::]:8080" IPv6 only;
 * "unix:/path" takes a stale path over but never that of a live server. With
 * port 0 the system chooses: keepsock_server_port(). The options hold for every
 * connection that is accepted.
 *
 * @param endpoint  Where to listen.
 * @param options   Options, copied; NULL for the defaults.
 * @param server    Receives the socket; free it with keepsock_server_free().
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_ADDRESS_IN_USE, _ADDRESS_NOT_AVAILABLE,
 *         _PERMISSION_DENIED, _INVALID_ENDPOINT, _NOT_FOUND, _LOOKUP_FAILED,
 *         _TIMED_OUT, _CANCELLED (the lookup), _NO_DESCRIPTORS, _NO_MEMORY,
 *         _UNSUPPORTED, _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_server_listen(const char *endpoint,
                               const keepsock_options *options,
                               keepsock_server **server,
                               keepsock_error **error);

/**
 * Listens on several endpoints at once, TCP and Unix sockets alike: all of them or
 * none. One accept, and one keepsock_server_serve(), takes the connections of
 * all; none of them has to wait for another one's to be fewer. The options hold
 * for the connections of each; one that an endpoint cannot have is refused, as
 * are those of TCP for a Unix socket. Accepting costs one poll more.
 *
 * @param endpoints  Where to listen: an array of strings.
 * @param count      How many there are; at least 1.
 * @param options    Options, copied; NULL for the defaults.
 * @param server     Receives the socket; free it with keepsock_server_free().
 * @param error      See keepsock_error; may be NULL. It names the endpoint that
 *                   cannot be had; the others are then closed again, and the
 *                   files of Unix sockets removed.
 * @return KEEPSOCK_OK, or those of keepsock_server_listen(); _INVALID_ARGUMENT
 *         for no endpoint at all. Since 0.1.
 */
int32_t keepsock_server_listen_all(const char *const *endpoints,
                                   size_t count,
                                   const keepsock_options *options,
                                   keepsock_server **server,
                                   keepsock_error **error);

/**
 * Takes over a listening stream socket, or one for packets, as a service manager may pass it. The
 * options are set on it, also to what is off by default; only a backlog that is not given stays as
 * it was. Those that the process was started with keepsock_inherited_take() has. Other processes
 * may have it, too, and go on accepting when it is closed here; so it is non-blocking from now on,
 * in all of them, and accepting costs one poll more.
 *
 * @param fd       A listening TCP or Unix socket. It belongs to the new
 *                 server on success and stays the caller's on failure.
 * @param options  Options, copied; NULL for the defaults.
 * @param server   Receives the socket; free it with keepsock_server_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (not listening, not a
 *         stream, or not for packets or Multipath TCP as the options ask), _OS (not a socket at
 *         all); for the interface option _INVALID_ENDPOINT, _PERMISSION_DENIED, _UNSUPPORTED;
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_server_from_fd(keepsock_fd fd,
                                const keepsock_options *options,
                                keepsock_server **server,
                                keepsock_error **error);

/**
 * Waits for the next confirmed connection. On Linux that costs one system
 * call. Errors of single connections are passed over; when descriptors run out,
 * accept waits until there are some again, without using the processor.
 * keepsock_server_counters_get() tells of both.
 *
 * @param server  A listening socket.
 * @param client  Receives the connection; free it with keepsock_client_free().
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_TIMED_OUT, _CANCELLED, _CLOSED,
 *         _INVALID_ARGUMENT, _OS; in non-blocking mode also _WOULD_BLOCK,
 *         _NO_DESCRIPTORS and _NO_MEMORY. Since 0.1.
 */
int32_t keepsock_server_accept(keepsock_server *server,
                               keepsock_client **client,
                               keepsock_error **error);

/**
 * The state, by its name in RFC 9293: LISTEN, or CLOSED after keepsock_server_close().
 *
 * @param server  A listening socket, or NULL: CLOSED.
 * @return A value of enum keepsock_tcp_state. Since 0.1.
 */
int32_t keepsock_server_state(const keepsock_server *server);

/**
 * The endpoint that it listens on, with the port that the system chose:
 * "127.0.0.1:40123". The first one if there are several.
 *
 * @param server  A listening socket, or NULL: "".
 * @return Text that lives as long as the object. Since 0.1.
 */
const char *keepsock_server_endpoint(const keepsock_server *server);

/**
 * How many endpoints it listens on: keepsock_server_listen_all().
 *
 * @param server  A listening socket, or NULL: 0.
 * @return The number of endpoints. Since 0.1.
 */
size_t keepsock_server_endpoint_count(const keepsock_server *server);

/**
 * One of the endpoints that it listens on, as keepsock_server_endpoint() has the
 * first one.
 *
 * @param server  A listening socket, or NULL: "".
 * @param index   From 0, in the order in which they were given. "" beyond the last.
 * @return Text that lives as long as the object. Since 0.1.
 */
const char *keepsock_server_endpoint_at(const keepsock_server *server, size_t index);

/**
 * The port that it listens on; the first one's if there are several endpoints.
 *
 * @param server  A listening socket, or NULL: 0.
 * @return The port; 0 for a Unix socket. Since 0.1.
 */
uint16_t keepsock_server_port(const keepsock_server *server);

/**
 * Reads what it has counted so far, on all of its endpoints.
 *
 * @param server  A listening socket; closed ones keep their counters.
 * @param out     Filled in on success.
 * @param size    sizeof *out.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_server_counters_get(const keepsock_server *server,
                                     keepsock_server_counters *out,
                                     size_t size,
                                     keepsock_error **error);

/**
 * The time that an accept may wait. Default: KEEPSOCK_INFINITE. A server with a
 * limit, a token or non-blocking mode pays one poll more for each accept.
 *
 * @param server  A listening socket.
 * @param ms      Milliseconds above 0, or KEEPSOCK_INFINITE.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_server_set_accept_timeout(keepsock_server *server,
                                           int64_t ms,
                                           keepsock_error **error);

/**
 * In non-blocking mode, accept returns KEEPSOCK_ERR_WOULD_BLOCK when nobody
 * waits to be accepted.
 *
 * @param server  A listening socket.
 * @param on      true: non-blocking.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_INVALID_ARGUMENT, _CLOSED. Since 0.1.
 */
int32_t keepsock_server_set_nonblocking(keepsock_server *server,
                                        bool on,
                                        keepsock_error **error);

/**
 * Gives accept a token that ends it, or takes it off. Accepts under way are not
 * affected.
 *
 * @param server  A listening socket.
 * @param cancel  A token, shared from then on; NULL takes it off.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_server_set_cancel(keepsock_server *server,
                                   const keepsock_cancel *cancel,
                                   keepsock_error **error);

/**
 * Borrows the descriptor, for an event loop. It is open until the server is
 * closed; do not close it. With several endpoints it is the first one's.
 *
 * @param server  A listening socket.
 * @param fd      Receives it.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_server_fd(const keepsock_server *server,
                           keepsock_fd *fd,
                           keepsock_error **error);

/**
 * Borrows the descriptor of one of several endpoints, for an event loop.
 * Whichever of them is readable, it is keepsock_server_accept() in non-blocking
 * mode that takes the connection. It is open until the server is closed; do not
 * close it.
 *
 * @param server  A listening socket.
 * @param index   From 0 to keepsock_server_endpoint_count() - 1.
 * @param fd      Receives it.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_server_fd_at(const keepsock_server *server,
                              size_t index,
                              keepsock_fd *fd,
                              keepsock_error **error);

/**
 * Gives the descriptor up: it listens on and is the caller's to close. The
 * object is then closed, and still to be freed. A Unix socket's file stays.
 *
 * @param server  A listening socket.
 * @param fd      Receives the descriptor.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _INVALID_ARGUMENT; _WRONG_STATE while
 *         another thread is in a call, and if it listens on several endpoints.
 *         Since 0.1.
 */
int32_t keepsock_server_release_fd(keepsock_server *server,
                                   keepsock_fd *fd,
                                   keepsock_error **error);

/**
 * Stops listening. Accepts of other threads return KEEPSOCK_ERR_CLOSED; a
 * service that accepts from it stops; connections that were accepted live on; other processes
 * that have the listening socket, too, go on. A Unix socket's file is removed. Closing twice is
 * fine. The object is still to be freed.
 *
 * @param server  A listening socket.
 * @param error   See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_server_close(keepsock_server *server,
                              keepsock_error **error);

/**
 * Frees a server; it is closed unless a service still uses it. No other thread
 * may be using the object. Freeing NULL does nothing.
 *
 * @param server  A listening socket, or NULL. Since 0.1.
 */
void keepsock_server_free(keepsock_server *server);

/**
 * Makes serve options with the defaults.
 *
 * @param options  Receives them; free them with keepsock_serve_options_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_serve_options_new(keepsock_serve_options **options,
                                   keepsock_error **error);

/**
 * How many connections are served at once. With a thread for each that is how many threads there
 * are at most (one more if it is to refuse). Default: 1024 for keepsock_server_serve(), 65,536 for
 * keepsock_server_serve_events(), where it may be up to 16,777,216.
 *
 * @param options  The options to change.
 * @param max      Above 0.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_max_connections(keepsock_serve_options *options,
                                                   uint32_t max,
                                                   keepsock_error **error);

/**
 * What happens to a client that comes when every place is taken. Default:
 * KEEPSOCK_WHEN_FULL_WAIT.
 *
 * @param options    The options to change.
 * @param when_full  A value of enum keepsock_when_full.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_when_full(keepsock_serve_options *options,
                                             int32_t when_full,
                                             keepsock_error **error);

/**
 * How many connections of one address are served at once; of an IPv6 /64 network, which is what
 * one host commonly has. More are accepted and reset at once, and counted
 * (keepsock_server_counters). Not for Unix sockets, whose peers have no address. Default: no
 * limit.
 *
 * @param options  The options to change.
 * @param max      At least 1.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_max_per_address(keepsock_serve_options *options,
                                                   uint32_t max,
                                                   keepsock_error **error);

/**
 * Adds a network whose clients may connect. With one or more, all others are accepted and reset at
 * once, and counted (keepsock_server_counters). Default: none, so all may.
 *
 * @param options  The options to change.
 * @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: not a network. Since 0.1.
 */
int32_t keepsock_serve_options_allow(keepsock_serve_options *options,
                                     const char *network,
                                     keepsock_error **error);

/**
 * Adds a network whose clients may not connect, even if another one allows them.
 *
 * @param options  The options to change.
 * @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT: not a network. Since 0.1.
 */
int32_t keepsock_serve_options_deny(keepsock_serve_options *options,
                                    const char *network,
                                    keepsock_error **error);

/**
 * How many threads serve, fixed. For keepsock_server_serve() a pool that is started at once and
 * stays, each thread with one connection at a time; clients beyond that wait or are refused as
 * when it is full. Default there: as many as there are connections, started when they come. For
 * keepsock_server_serve_events() each has its share of the connections, at most 256 threads.
 * Default there: one, so no two callbacks run at once.
 *
 * @param options  The options to change.
 * @param threads  Above 0.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_threads(keepsock_serve_options *options,
                                           uint32_t threads,
                                           keepsock_error **error);

/**
 * For keepsock_server_serve_events(): the data callback gets lines, without the LF or CRLF at
 * their end, and LF is added to what is sent. The last line of a stream may come without. A longer
 * line ends its connection, and nobody else's (KEEPSOCK_END_TOO_LONG). Default: bytes as they
 * come.
 *
 * @param options  The options to change.
 * @param max      Bytes in a line, above 0.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_lines(keepsock_serve_options *options,
                                         size_t max,
                                         keepsock_error **error);

/**
 * As keepsock_serve_options_set_lines(), with a delimiter of the protocol's own.
 *
 * @param options    The options to change.
 * @param delimiter  What ends a message.
 * @param max        Bytes in a message, above 0; the delimiter does not count.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_delimiter(keepsock_serve_options *options,
                                             uint8_t delimiter,
                                             size_t max,
                                             keepsock_error **error);

/**
 * As keepsock_serve_options_set_lines(), for messages that have their length before them: it is
 * taken off for the data callback, and added to what is sent. A message that the stream ends
 * within is dropped.
 *
 * @param options  The options to change.
 * @param prefix   A value of enum keepsock_length_prefix.
 * @param max      Bytes in a message, above 0; the prefix does not count.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_length_prefix(keepsock_serve_options *options,
                                                 int32_t prefix,
                                                 size_t max,
                                                 keepsock_error **error);

/**
 * For keepsock_server_serve_events(): how many bytes may wait in this program for one client whose
 * kernel takes no more, so that all clients take at most that many bytes each. Each message counts
 * 88 bytes more than it has, which is what it takes up. Default: 1 MiB.
 *
 * @param options  The options to change.
 * @param bytes    Above 88; less is refused when it is to serve.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_max_queued(keepsock_serve_options *options,
                                              size_t bytes,
                                              keepsock_error **error);

/**
 * For keepsock_server_serve_events(): what happens when a message finds no room. Default:
 * KEEPSOCK_WHEN_SLOW_DISCONNECT.
 *
 * @param options    The options to change.
 * @param when_slow  A value of enum keepsock_when_slow.
 * @param error      See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_serve_options_set_when_slow(keepsock_serve_options *options,
                                             int32_t when_slow,
                                             keepsock_error **error);

/**
 * Frees serve options. Freeing NULL does nothing.
 *
 * @param options  Serve options, or NULL. Since 0.1.
 */
void keepsock_serve_options_free(keepsock_serve_options *options);

/**
 * Serves: handler is called for each confirmed connection, in a thread of its
 * own. Returns at once. The server object may be freed before the service.
 *
 * @param server   A listening socket.
 * @param options  Serve options, copied; NULL for the defaults.
 * @param handler  See keepsock_handler.
 * @param user     Passed to handler; may be NULL.
 * @param service  Receives the service, before the first call of handler, so that user may be
 *                 where it is kept; free it with keepsock_service_free().
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_CLOSED, _NO_MEMORY (no thread can be
 *         started), _INVALID_ARGUMENT, _OS. Since 0.1.
 */
int32_t keepsock_server_serve(keepsock_server *server,
                              const keepsock_serve_options *options,
                              keepsock_handler handler,
                              void *user,
                              keepsock_service **service,
                              keepsock_error **error);

/**
 * How many connections are being served.
 *
 * @param service  A service, or NULL: 0.
 * @return A number of connections. Since 0.1.
 */
uint32_t keepsock_service_connections(const keepsock_service *service);

/**
 * Sends a message to every live connection (but not to those that are being closed or that this
 * side has shut down), and waits for none that is slow.
 *
 * With a thread for each connection, a client whose kernel buffer does not take the whole message
 * at once has not kept up and is reset, so it delays nobody and costs no memory; its calls return
 * KEEPSOCK_ERR_CLOSED in its handler. Clients that another thread is writing to get their turn
 * within 100 ms for all. Keep messages well below the size of the kernel's send buffer (a few
 * hundred KiB): one that is larger resets even fast readers.
 *
 * By events, what a client's kernel does not take waits for it within
 * keepsock_serve_options_set_max_queued() bytes; one buffer serves all of them.
 *
 * @param service  A service.
 * @param buf      The message.
 * @param len      Its length.
 * @param out      Filled in on success; may be NULL.
 * @param size     sizeof *out; 0 if out is NULL.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT; by events only: _TOO_LONG for a message
 *         that alone is more than may wait. Since 0.1.
 */
int32_t keepsock_service_broadcast(keepsock_service *service,
                                   const void *buf,
                                   size_t len,
                                   keepsock_broadcast *out,
                                   size_t size,
                                   keepsock_error **error);

/**
 * As keepsock_service_broadcast(), by events only, to those connections that have joined a group:
 * keepsock_connection_join(). A group that nobody is in is no error.
 *
 * @param service  A service.
 * @param group    The group's name.
 * @param buf      The message.
 * @param len      Its length.
 * @param out      Filled in on success; may be NULL.
 * @param size     sizeof *out; 0 if out is NULL.
 * @param error    See keepsock_error; may be NULL.
 * @return As keepsock_service_broadcast(); KEEPSOCK_ERR_WRONG_STATE: a thread serves each
 *         connection, and there are no groups. Since 0.1.
 */
int32_t keepsock_service_broadcast_to(keepsock_service *service,
                                      const char *group,
                                      const void *buf,
                                      size_t len,
                                      keepsock_broadcast *out,
                                      size_t size,
                                      keepsock_error **error);

/**
 * Takes a connection into serving by events that was made elsewhere: by connecting, or handed
 * over. From then on it is as if it had been accepted: its open callback comes. No limit for
 * addresses counts it. It keeps its keepalive, and has the limits that the server listens with.
 * The object is then closed, and still to be freed.
 *
 * @param service  A service of keepsock_server_serve_events().
 * @param client   A connection.
 * @param data     What keepsock_connection_data() is from the beginning; may be NULL.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; and with the connection left as it was: KEEPSOCK_ERR_WRONG_STATE (a thread
 *         serves each connection here; every place is taken; another thread is in a call on it;
 *         bytes were read ahead; it was lent to a handler), _CLOSED, _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_add(keepsock_service *service,
                             keepsock_client *client,
                             void *data,
                             keepsock_error **error);

/**
 * Connects, without waiting, and takes the connection in as keepsock_service_add() does: the open
 * callback is called once there is one, or connect_failed. Both have data, by which they tell
 * which it is. May be called from inside callbacks: for proxies, and whoever asks others.
 *
 * @param service   A service of keepsock_server_serve_events().
 * @param endpoint  Where to connect, as for keepsock_client_connect().
 * @param options   Options, copied; NULL for the defaults.
 * @param data      What keepsock_connection_data() is from the beginning; may be NULL.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; those of keepsock_connecting_start(); KEEPSOCK_ERR_WRONG_STATE: a thread
 *         serves each connection here; _CLOSED: the service has ended. Since 0.1.
 */
int32_t keepsock_service_connect(keepsock_service *service,
                                 const char *endpoint,
                                 const keepsock_options *options,
                                 void *data,
                                 keepsock_error **error);

/**
 * What a service has done so far, and what is going on.
 *
 * @param service  A service.
 * @param out      Filled in on success.
 * @param size     sizeof *out.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_snapshot(const keepsock_service *service,
                                  keepsock_service_stats *out,
                                  size_t size,
                                  keepsock_error **error);

/**
 * What a service has done so far, and a line for each connection, as text for operators. Its words
 * may change.
 *
 * @param service  A service.
 * @param buf      Receives the text with its final NUL; may be NULL if cap is 0.
 * @param cap      Its size.
 * @param needed   Receives the size that is needed now, also if cap is below; may be NULL.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TOO_LONG: cap is too small, and buf was left alone;
 *         _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_dump(const keepsock_service *service,
                              char *buf,
                              size_t cap,
                              size_t *needed,
                              keepsock_error **error);

/**
 * Stops accepting: closes the server socket, which cannot serve again. Live
 * connections go on. Stopping twice is fine.
 *
 * @param service  A service.
 * @param error    See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, or KEEPSOCK_ERR_INVALID_ARGUMENT for NULL. Since 0.1.
 */
int32_t keepsock_service_stop(keepsock_service *service, keepsock_error **error);

/**
 * Waits until accepting has ended: by keepsock_service_stop() or
 * keepsock_server_close() elsewhere, or by firing the server's cancel token, as a
 * signal handler may. What main() does while the service works.
 *
 * @param service     A service.
 * @param timeout_ms  Milliseconds, or KEEPSOCK_INFINITE.
 * @param error       See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK; KEEPSOCK_ERR_TIMED_OUT: it still accepts; the status of an
 *         accept that failed for good; _INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_wait(keepsock_service *service,
                              int64_t timeout_ms,
                              keepsock_error **error);

/**
 * Stops accepting (keepsock_service_stop()), and waits until all connections have ended by
 * themselves; they are not told. Those that still were there at the deadline go on, and are
 * drained next: keepsock_service_drain(). So a request that is on its way while the server is
 * replaced (keepsock_hand_over()) is still answered.
 *
 * @param service   A service.
 * @param limit_ms  Milliseconds from now; 0: do not wait.
 * @param left      Receives how many connections there still are; may be NULL.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (from inside a handler or callback),
 *         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_finish(keepsock_service *service,
                                int64_t limit_ms,
                                uint32_t *left,
                                keepsock_error **error);

/**
 * Ends the service in order: stops accepting (keepsock_service_stop()); tells
 * each live connection, whose reads then return KEEPSOCK_ERR_DRAINING while its
 * writes still work, so that the handler can say goodbye (by events: the drain callback); waits
 * until all have ended; and at the deadline resets the connections that are left. Clients that
 * still waited to be accepted are reset by the system and not counted, unless another process
 * accepts them (keepsock_hand_over()).
 *
 * @param service   A service.
 * @param limit_ms  Milliseconds from now; 0: reset all at once.
 * @param finished  Receives how many handlers ended by themselves; may be NULL.
 * @param cut       Receives how many connections were reset; may be NULL.
 * @param error     See keepsock_error; may be NULL.
 * @return KEEPSOCK_OK, KEEPSOCK_ERR_WRONG_STATE (from inside a handler or callback),
 *         KEEPSOCK_ERR_INVALID_ARGUMENT. Since 0.1.
 */
int32_t keepsock_service_drain(keepsock_service *service,
                               int64_t limit_ms,
                               uint32_t *finished,
                               uint32_t *cut,
                               keepsock_error **error);

/**
 * Frees a service: stops it, resets the live connections, whose calls end at
 * once, and waits until every handler and callback has returned; drain it first to end in
 * order. After that none runs and user may go. Not from inside one. Freeing NULL does nothing.
 *
 * @param service  A service, or NULL. Since 0.1.
 */
void keepsock_service_free(keepsock_service *service);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KEEPSOCK_H */


