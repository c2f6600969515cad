/**
 * @file keepsock/datagrams.h
 * @brief Datagram sockets, UDP and Unix: receiving, sending, serving.
 *
 * Broadcast, multicast, TTL, path MTU and the error queue are in keepsock/udp.h.
 *
 * Contents
 *  1. Creating and freeing: keepsock_datagram_bind, keepsock_datagram_connect,
 *     keepsock_datagram_set_peer, keepsock_datagram_set_peer_endpoint, keepsock_datagram_from_fd,
 *     keepsock_datagram_close, keepsock_datagram_free
 *  2. Receiving: keepsock_datagram_info_sender, keepsock_datagram_recv, keepsock_datagram_peek,
 *     keepsock_datagram_recv_batch
 *  3. Sending: keepsock_datagram_send, keepsock_datagram_send_to, keepsock_datagram_reply,
 *     keepsock_datagram_send_batch
 *  4. Waiting and event loops: keepsock_datagram_set_read_timeout,
 *     keepsock_datagram_set_write_timeout, keepsock_datagram_set_cancel,
 *     keepsock_datagram_set_nonblocking, keepsock_datagram_fd, keepsock_datagram_release_fd
 *  5. Addresses, options and statistics: keepsock_datagram_endpoint,
 *     keepsock_datagram_five_tuple, keepsock_datagram_set_sockopt, keepsock_datagram_sockopt,
 *     keepsock_datagram_get_stats
 *  6. Serving: keepsock_datagram_serve, keepsock_datagram_service_add,
 *     keepsock_datagram_service_stop, keepsock_datagram_service_wait,
 *     keepsock_datagram_service_free
 *
 * Where a BSD call has a counterpart here:
 *   socket, bind              keepsock_datagram_bind
 *   connect                   keepsock_datagram_connect, keepsock_datagram_set_peer,
 *                             keepsock_datagram_set_peer_endpoint
 *   sendto                    keepsock_datagram_send_to, keepsock_datagram_reply
 *   send                      keepsock_datagram_send
 *   recvfrom, recvmsg         keepsock_datagram_recv
 *   recvfrom(MSG_PEEK)        keepsock_datagram_peek
 *   sendmmsg, UDP_SEGMENT     keepsock_datagram_send_batch
 *   recvmmsg                  keepsock_datagram_recv_batch
 *   MSG_TRUNC                 the member truncated of keepsock_datagram_info
 *   IP_PKTINFO, IPV6_PKTINFO  the members to, local and interface_index of keepsock_datagram_info
 *   setsockopt, getsockopt    keepsock_datagram_set_sockopt, keepsock_datagram_sockopt
 *   fcntl(O_NONBLOCK)         keepsock_datagram_set_nonblocking
 *   poll, select, epoll_ctl   keepsock_datagram_fd
 *   getpeername, getsockname  keepsock_datagram_five_tuple, keepsock_datagram_endpoint
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_DATAGRAMS_H
#define KEEPSOCK_DATAGRAMS_H

#include "basics.h"
#include "options.h"
#include "serving.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Creating and freeing --------------------------------------------------------------------
 */

/**
 * A datagram socket, UDP or Unix: bound to a local address, or connected to one peer. Unix
 * sockets: not on Windows.
 *
 * Threads: several threads may call functions on one socket at the same time. Each datagram is
 * sent and received as a whole. Any thread may close the socket at any time. Only
 * keepsock_datagram_free() requires that no other thread uses the object.
 */
typedef struct keepsock_datagram keepsock_datagram;

/**
 * Creates a socket that receives datagrams from all senders (socket(2), bind(2)).
 *
 * - "*:8080" receives IPv4 and IPv6 on one port, independent of the system's bindv6only.
 *   "0.0.0.0:8080" receives IPv4 only, "[::]:8080" IPv6 only.
 * - With port 0 the kernel chooses the port, and keepsock_datagram_endpoint() returns it.
 * - "unix:/path" and "unix:@abstract" create Unix datagram sockets. The library replaces a socket
 *   file whose socket was closed, and never one that a socket is bound to (keepsock_server_listen()
 *   describes the lock file). Closing the socket removes the file.
 *
 * @param endpoint  The local endpoint.
 * @param options   Socket options, copied. NULL for the defaults. Family, interface, timeouts,
 *                  cancel token, udp_gro, handover and keep_stats apply; for a Unix socket also
 *                  mode, owner and allowed users. Options of stream sockets and of connecting
 *                  are rejected.
 * @param datagram  Receives the socket. Free it with keepsock_datagram_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, a link-local IPv6 address has no
 *     zone, or this machine has no such zone or interface
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
 *     write to the directory of the socket file
 *   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the directory does not exist, or the host
 *     has no address of the requested family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket on Windows, or this system lacks an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_bind(const char *endpoint, const keepsock_options *options,
                               keepsock_datagram **datagram, keepsock_error **error);

/**
 * Creates a socket that sends to one peer and receives from that peer only (socket(2),
 * connect(2)).
 *
 * Nothing is sent, so a UDP peer does not have to exist. A Unix peer must exist. If a name has
 * several addresses, the socket uses the first one that this machine has a route to. On Linux the
 * library gives a Unix socket a name, so that the peer can reply. On other systems set a local
 * endpoint for that.
 *
 * @param endpoint  The peer.
 * @param options   Socket options, copied. NULL for the defaults. Family, local endpoint,
 *                  interface, remote addresses, timeouts, cancel token, udp_gro, handover and
 *                  keep_stats apply; for a Unix socket with a local path also mode and owner.
 *                  Options of stream sockets, and allowed users, are rejected.
 * @param datagram  Receives the socket. Free it with keepsock_datagram_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
 *   - KEEPSOCK_ERR_REFUSED: the Unix socket of the peer was closed
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse or is no destination ("*", 0.0.0.0,
 *     [::], port 0); a link-local IPv6 address has no zone; the local endpoint is a multicast or
 *     broadcast address; or this machine has no such zone or interface
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the address is taken, or no local port is free
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine, or
 *     is of another family than the peer
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the port or the interface, or
 *     write to the Unix socket of the peer, or local policy forbids it
 *   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist, or the host
 *     has no address of the requested family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_TIMED_OUT: the lookup exceeded the connect timeout
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket on Windows, or this system lacks an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_connect(const char *endpoint, const keepsock_options *options,
                                  keepsock_datagram **datagram, keepsock_error **error);

/**
 * Connects a bound UDP socket to a peer (connect(2)): it then sends to and receives from this peer
 * only.
 *
 * A server with one socket for each peer binds another socket to its port, with
 * KEEPSOCK_SOCKOPT_REUSE_ADDRESS on all of them, and connects it to the sender of the first
 * datagram. Datagrams of other senders that are queued on the socket, or that the library has
 * received as coalesced datagrams, are discarded. The socket keeps its port, and stays connected
 * until it is closed. keepsock_datagram_set_peer_endpoint() also connects a Unix socket.
 *
 * @code
 * keepsock_options *options = NULL;
 * keepsock_datagram *listening = NULL, *of_peer = NULL;
 * keepsock_datagram_info info;
 * char buf[1500];
 * keepsock_options_new(&options, NULL);
 * keepsock_options_set_sockopt(options, KEEPSOCK_SOCKOPT_REUSE_ADDRESS, 1, NULL);
 * keepsock_datagram_bind("192.0.2.1:7788", options, &listening, NULL);
 * keepsock_datagram_recv(listening, buf, sizeof buf, &info, sizeof info, NULL);
 * keepsock_datagram_bind("192.0.2.1:7788", options, &of_peer, NULL);
 * keepsock_datagram_set_peer(of_peer, &info.from, NULL);
 * @endcode
 *
 * @param datagram  A bound UDP socket.
 * @param peer      The address and the port of the peer.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected already
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `peer` is not a destination (0.0.0.0, [::], port 0), or is a
 *     link-local address without a zone
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: this machine has no source address for the peer
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(), or a firewall or a policy forbids it
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; an address family that the socket does not have; or
 *     `peer` is the address of a Unix socket, whose name an address does not contain
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_peer(keepsock_datagram *datagram, const keepsock_address *peer,
                                   keepsock_error **error);

/**
 * Connects a bound socket, UDP or Unix, to an endpoint (connect(2)), as
 * keepsock_datagram_set_peer() connects a UDP socket to an address.
 *
 * keepsock_datagram_info_sender() returns the endpoint of the sender of a datagram. Datagrams of
 * other senders that are queued on the socket are discarded.
 *
 * @param datagram  A bound socket.
 * @param endpoint  The peer: a numeric address and port, or "unix:/path", "unix:@name".
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected already
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` is malformed, is not numeric, is not a destination
 *     (0.0.0.0, [::], port 0), is a link-local address without a zone, or is too long a path
 *   - KEEPSOCK_ERR_NOT_FOUND: the path does not exist
 *   - KEEPSOCK_ERR_REFUSED: no socket is bound to the name
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the peer
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: this machine has no source address for the peer
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(); the Unix peer is connected to another socket; or a
 *     firewall, a policy or a file mode forbids it
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; an address family that the socket does not have; or a
 *     Unix socket with keepsock_options_add_allowed_uid()
 *   - KEEPSOCK_ERR_OS: another error of the system, for example EPROTOTYPE if the Unix peer is
 *     not a datagram socket; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_peer_endpoint(keepsock_datagram *datagram, const char *endpoint,
                                            keepsock_error **error);

/**
 * Adopts a datagram socket, UDP or Unix, that is bound or connected.
 *
 * The library does not remove the file of an adopted Unix socket.
 *
 * @param fd        A datagram socket. The new object owns it on success; the caller keeps it on
 *                  failure.
 * @param options   Socket options, copied. NULL for the defaults. Timeouts, cancel token,
 *                  udp_gro, keep_stats and, for a Unix socket, allowed users apply. Addresses,
 *                  family and interface are rejected.
 * @param datagram  Receives the socket. Free it with keepsock_datagram_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: not a datagram socket, or a UDP socket that is not bound
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the library needs one more descriptor, and none is free
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks udp_gro or allowed users
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fd` is negative, or an option has no effect here
 *   - KEEPSOCK_ERR_OS: `fd` is closed or not a socket, or another error of the system
 */
int32_t keepsock_datagram_from_fd(keepsock_fd fd, const keepsock_options *options,
                                  keepsock_datagram **datagram, keepsock_error **error);

/**
 * Closes a socket (close(2)).
 *
 * Waiting calls of other threads return KEEPSOCK_ERR_CLOSED. Sent datagrams are not affected.
 * keepsock_datagram_recv_error() still returns the errors that were reported before.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_datagram_close(keepsock_datagram *datagram, keepsock_error **error);

/** Closes and frees a socket. */
void keepsock_datagram_free(keepsock_datagram *datagram);

/*
 * ---- 2. Receiving -------------------------------------------------------------------------------
 */

/**
 * A received datagram without its bytes: source, destination, length and metadata.
 *
 * Members that need keepsock_datagram_set_recv_metadata() say so.
 */
typedef struct {
    /** The sender. Family 1: a Unix socket, whose name is unix_name. */
    keepsock_address from;
    /** The destination, which may be a multicast or broadcast address. Family 0: a Unix socket,
        or the system does not report it. */
    keepsock_address to;
    /** The local address that keepsock_datagram_reply() sends from. Family 0: the kernel
        chooses. */
    keepsock_address local;
    /** When the kernel received it, in nanoseconds since 1970; -1: unknown. Needs
        keepsock_datagram_set_recv_metadata(). */
    int64_t received_at_ns;
    /** The number of bytes in the buffer. */
    size_t len;
    /** The number of bytes of the datagram. Systems other than Linux and Windows do not report
        it: there it is len. */
    size_t original_len;
    /** The index of the receiving interface; 0: unknown. Known for a socket that is bound to a
        wildcard or multicast address, and with keepsock_datagram_set_recv_metadata(). */
    uint32_t interface_index;
    /** The remaining TTL or hop limit; -1: unknown. Needs keepsock_datagram_set_recv_metadata(). */
    int16_t ttl;
    /** The TOS byte (IPv4) or traffic class (IPv6): DSCP in the upper six bits, ECN in the lower
        two; -1: unknown. Needs keepsock_datagram_set_recv_metadata(). */
    int16_t tos;
    /** Whether the buffer was too short, and the rest of the datagram is lost (MSG_TRUNC). */
    bool truncated;
    /** Whether credentials is set: for Unix sockets on Linux, with
        keepsock_datagram_set_recv_metadata() or keepsock_options_add_allowed_uid(). */
    bool has_credentials;
    /** The number of bytes of unix_name; 0: the sender has no name and cannot receive a reply. */
    uint16_t unix_name_len;
    /** The name of the sending Unix socket, as in sun_path of unix(7). An abstract name starts
        with NUL. */
    uint8_t unix_name[108];
    /** The sending process, its user and its group, as the kernel verified them. */
    keepsock_credentials credentials;
} keepsock_datagram_info;

/**
 * Writes the sender of a datagram as an endpoint: "192.0.2.1:80", "unix:/run/app.sock",
 * "unix:@name".
 *
 * keepsock_datagram_send_to() and keepsock_datagram_connect() accept the text. A Unix sender
 * without a name is "unix:(unnamed)" and cannot receive a reply.
 *
 * @param info           A received datagram.
 * @param buf            Receives the text.
 * @param cap            The size of `buf`.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `info` has no sender
 */
int32_t keepsock_datagram_info_sender(const keepsock_datagram_info *info, char *buf, size_t cap,
                                      size_t *required_size, keepsock_error **error);

/**
 * Receives one datagram (recvfrom(2), recvmsg(2)).
 *
 * Bytes that do not fit into `buf` are lost, and `truncated` of `out` reports it. Descriptors
 * that were sent with the datagram are closed; keepsock_datagram_recv_fds() receives them. ICMP
 * errors of sent datagrams do not end the call: see keepsock_datagram_recv_error().
 *
 * @param buf  Receives the bytes.
 * @param cap  The size of `buf`.
 * @param out  Receives the length, the sender and the metadata.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
 *     skipped 1,024 datagrams of denied senders
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
 *     ended receiving
 *   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
 *     keepsock_datagram_set_fail_on_refused()
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
 *     stays usable
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
 *     forbids the call
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_recv(keepsock_datagram *datagram, void *buf, size_t cap,
                               keepsock_datagram_info *out, size_t size, keepsock_error **error);

/**
 * Copies the oldest datagram and leaves it for the next receive (MSG_PEEK).
 *
 * The call waits as keepsock_datagram_recv() does. On Linux `original_len` of `out` is the length
 * of the datagram, also if `cap` is 0.
 *
 * @param buf  Receives the bytes.
 * @param cap  The size of `buf`.
 * @param out  Receives the length, the sender and the metadata.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
 *     skipped 1,024 datagrams of denied senders
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
 *     ended receiving
 *   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
 *     keepsock_datagram_set_fail_on_refused()
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
 *     stays usable
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
 *     forbids the call
 *   - KEEPSOCK_ERR_UNSUPPORTED: the socket coalesces datagrams
 *     (keepsock_options_set_udp_gro()), or the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_peek(keepsock_datagram *datagram, void *buf, size_t cap,
                               keepsock_datagram_info *out, size_t size, keepsock_error **error);

/**
 * An item of keepsock_datagram_recv_batch(): a buffer, and the datagram that was received into it.
 */
typedef struct {
    /** The buffer; may be NULL if cap is 0. On a connected socket, and on a Unix socket with
        allowed users, the call may exchange the buffers of two items. */
    void *buf;
    /** The size of the buffer in bytes. */
    size_t cap;
    /** Receives the length, the sender and the metadata. */
    keepsock_datagram_info info;
} keepsock_recv_item;

/**
 * Receives all queued datagrams that fit, at least one (recvmmsg(2)).
 *
 * The call waits for the first datagram only. It receives at most 64 datagrams; on Linux that is
 * one system call.
 *
 * @param items     An array of items, whose buffers do not overlap.
 * @param count     The number of items. 0 receives nothing.
 * @param size      sizeof *items.
 * @param received  Receives the number of datagrams, which are in the first items.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
 *     skipped 1,024 datagrams of denied senders
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
 *     ended receiving
 *   - KEEPSOCK_ERR_REFUSED: the peer refused a datagram, with
 *     keepsock_datagram_set_fail_on_refused()
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
 *     stays usable
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
 *     forbids the call
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_recv_batch(keepsock_datagram *datagram, keepsock_recv_item *items,
                                     size_t count, size_t size, size_t *received,
                                     keepsock_error **error);

/*
 * ---- 3. Sending ---------------------------------------------------------------------------------
 */

/**
 * Sends one datagram to the peer of a connected socket (send(2)).
 *
 * The call waits only while the send buffer or a Unix peer's queue is full. ICMP errors of earlier
 * datagrams do not fail the call: see keepsock_datagram_recv_error(). A datagram has at most
 * 65,507 bytes over IPv4 and 65,527 bytes over IPv6.
 *
 * @param datagram  A connected socket.
 * @param buf       The bytes.
 * @param len       The number of bytes. 0 sends an empty datagram.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
 *   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
 *   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the destination
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `len` is out of range
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_send(keepsock_datagram *datagram, const void *buf, size_t len,
                               keepsock_error **error);

/**
 * Sends one datagram to an endpoint: a numeric address or a Unix socket (sendto(2)).
 *
 * To send to a keepsock_address, use keepsock_datagram_send_batch(), or keepsock_datagram_reply()
 * if the address is that of a received datagram. To send to a host name, use
 * keepsock_datagram_connect(): the name is then looked up once.
 *
 * @code
 * keepsock_datagram_send_to(datagram, "192.0.2.1:514", "hello", 5, NULL);
 * @endcode
 *
 * @param endpoint  The destination: "192.0.2.1:80", "unix:/run/app.sock", "unix:@name".
 * @param buf       The bytes.
 * @param len       The number of bytes. 0 sends an empty datagram.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, is a host name, is no destination
 *     ("*", 0.0.0.0, [::], port 0), or is a link-local address without a zone
 *   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
 *   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
 *   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route to the destination
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or an address family that the socket does
 *     not have
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_send_to(keepsock_datagram *datagram, const char *endpoint,
                                  const void *buf, size_t len, keepsock_error **error);

/**
 * Replies to a datagram: sends to its sender, from the address that the datagram was sent to.
 *
 * On a machine with several addresses the sender expects the reply from that address.
 *
 * @code
 * char buf[1500];
 * keepsock_datagram_info info;
 * while (keepsock_datagram_recv(datagram, buf, sizeof buf, &info, sizeof info, NULL)
 *        == KEEPSOCK_OK)
 *     keepsock_datagram_reply(datagram, &info, buf, info.len, NULL);
 * @endcode
 *
 * @param datagram  The socket that received the datagram.
 * @param reply_to  The received datagram, from keepsock_datagram_recv() or a handler.
 * @param buf       The bytes.
 * @param len       The number of bytes. 0 sends an empty datagram.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the sender has port 0 or a link-local address without a zone
 *   - KEEPSOCK_ERR_NOT_FOUND: the sender's Unix socket does not exist
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
 *   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
 *   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route, or the local address is not of this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, an address family that the socket does not
 *     have, a sender without a name, or a source address or interface that the socket cannot use
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_reply(keepsock_datagram *datagram, const keepsock_datagram_info *reply_to,
                                const void *buf, size_t len, keepsock_error **error);

/** An item of keepsock_datagram_send_batch(): a datagram. Set unused members to 0. */
typedef struct {
    /** The bytes; may be NULL if len is 0. */
    const void *buf;
    /** The number of bytes. 0 sends an empty datagram. */
    size_t len;
    /** The received datagram that this datagram replies to. The library then ignores `to`,
        `local` and `interface_index`. NULL: not a reply. */
    const keepsock_datagram_info *reply_to;
    /** The destination. Family 0: the peer of a connected socket. */
    keepsock_address to;
    /** The source address, if the socket is bound to a wildcard address. A socket with an
        address of its own accepts only that address. Family 0: the kernel chooses the source
        address. The port has no effect. */
    keepsock_address local;
    /** The index of an existing interface, if the addresses need one. Otherwise 0. */
    uint32_t interface_index;
    /** Must be 0. */
    uint32_t reserved;
} keepsock_send_item;

/**
 * Sends several datagrams in order (sendmmsg(2), UDP_SEGMENT).
 *
 * On Linux one system call sends up to 64 datagrams, and the kernel handles consecutive datagrams
 * of equal length to one address as one (GSO), as Windows 10 2004 does. Otherwise the library sends
 * them one by one.
 * One write timeout covers the whole call.
 *
 * @code
 * keepsock_send_item items[2] = {{.buf = "one", .len = 3}, {.buf = "two", .len = 3}};
 * size_t sent = 0;
 * for (int i = 0; i < 2; i++)
 *     keepsock_address_parse("192.0.2.1:514", &items[i].to, NULL);
 * if (keepsock_datagram_send_batch(datagram, items, 2, sizeof items[0], &sent, NULL)
 *     == KEEPSOCK_OK)
 *     printf("%d datagrams were sent\n", (int)sent);
 * @endcode
 *
 * @param items  An array of datagrams.
 * @param count  The number of datagrams.
 * @param size   sizeof *items.
 * @param sent   Receives the number of sent datagrams. If it is less than `count`, send the rest
 *               again: that call returns the error.
 * @return KEEPSOCK_OK if at least one datagram was sent or `count` is 0, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address, or is not connected
 *     and the datagram has no destination
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: no destination (0.0.0.0, [::], port 0), a link-local address
 *     without a zone, or the interface of its zone does not exist
 *   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode; the send buffer or a Unix peer's queue is full
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_TOO_LONG: longer than the protocol or the path MTU allows
 *   - KEEPSOCK_ERR_REFUSED: the Unix peer no longer exists, or has shut down receiving
 *   - KEEPSOCK_ERR_RESET: this socket or the Unix peer was shut down
 *   - KEEPSOCK_ERR_UNREACHABLE: there is no route, or the local address is not of this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a broadcast address without
 *     keepsock_datagram_set_broadcast(), or a firewall, a policy or a file mode forbids it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, an address family that the socket does not
 *     have, a sender without a name, or a source address or interface that the socket cannot use.
 *     The message has the index of the datagram
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_send_batch(keepsock_datagram *datagram, const keepsock_send_item *items,
                                     size_t count, size_t size, size_t *sent,
                                     keepsock_error **error);

/*
 * ---- 4. Waiting and event loops -----------------------------------------------------------------
 */

/**
 * Sets the read timeout: the time that each receiving call may take as a whole (SO_RCVTIMEO).
 *
 * Calls in progress keep their timeout. On Linux a receive with a timeout of 50 ms or more is one
 * system call if a datagram arrives in seven eighths of the time; a receive that times out polls
 * as well. A receive with a cancel token is two system calls. A socket that was adopted or that
 * may be handed over is as one with a token. Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_read_timeout(keepsock_datagram *datagram, int64_t timeout_ms,
                                           keepsock_error **error);

/**
 * Sets the write timeout: the time that each sending call may take as a whole (SO_SNDTIMEO).
 *
 * Calls in progress keep their timeout. Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 */
int32_t keepsock_datagram_set_write_timeout(keepsock_datagram *datagram, int64_t timeout_ms,
                                            keepsock_error **error);

/**
 * Sets the cancel token of a socket. Calls in progress keep the previous token. Set the token
 * before keepsock_datagram_serve(), or after the service has ended.
 *
 * @param cancel  A token, which the socket shares from now on. NULL removes the token.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: a service of this process uses the socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `datagram` is NULL
 */
int32_t keepsock_datagram_set_cancel(keepsock_datagram *datagram,
                                     const keepsock_cancel_token *cancel, keepsock_error **error);

/**
 * Turns non-blocking mode on or off (O_NONBLOCK).
 *
 * In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK. Calls that already
 * wait continue.
 *
 * @param on  true for non-blocking mode.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking
 */
int32_t keepsock_datagram_set_nonblocking(keepsock_datagram *datagram, bool on,
                                          keepsock_error **error);

/**
 * Borrows the descriptor, for poll(2), epoll(7) or setsockopt(2). Do not close it.
 *
 * Do not set options that add control messages (SO_PASSSEC, SO_TIMESTAMP) on a Unix socket with
 * allowed users: they use the buffer of the credentials, and the library rejects datagrams without
 * credentials.
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_datagram_fd(const keepsock_datagram *datagram, keepsock_fd *fd,
                             keepsock_error **error);

/**
 * Releases the descriptor: the caller owns and closes it.
 *
 * The object is then closed and must still be freed. A Unix socket's file stays. The descriptor
 * is in blocking mode unless keepsock_datagram_set_nonblocking() was last called with true. It
 * has no SO_RCVTIMEO and SO_SNDTIMEO. Other options stay as they are: SO_PASSCRED and
 * SO_TIMESTAMPNS after keepsock_datagram_set_recv_metadata() or
 * keepsock_options_add_allowed_uid(), and IP_RECVERR and IP_PKTINFO of UDP.
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another thread is inside a call; a service uses the socket; or
 *     coalesced datagrams are left (keepsock_options_set_udp_gro()); receive them first
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_datagram_release_fd(keepsock_datagram *datagram, keepsock_fd *fd,
                                     keepsock_error **error);

/*
 * ---- 5. Addresses, options and statistics -------------------------------------------------------
 */

/**
 * Returns the local endpoint, with the port that the kernel chose: "127.0.0.1:40123", or "*:40123"
 * for a socket that is bound to "*".
 *
 * @param buf            Receives the text.
 * @param cap            The size of `buf`.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_datagram_endpoint(const keepsock_datagram *datagram, char *buf, size_t cap,
                                   size_t *required_size, keepsock_error **error);

/**
 * Returns the protocol, the addresses and the ports (getsockname(2), getpeername(2)).
 *
 * They stay readable after close. The remote address of a socket that is not connected is the
 * wildcard address with port 0, or no name for a Unix socket.
 *
 * @param out  Receives the five-tuple.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_datagram_five_tuple(const keepsock_datagram *datagram, keepsock_five_tuple *out,
                                     size_t size, keepsock_error **error);

/**
 * Sets an option of the operating system on an open socket (setsockopt(2)).
 *
 * For the sizes of the buffers, tos, mark and priority; on a Unix socket for send_buffer. If the
 * call fails, the socket is unchanged.
 *
 * @param option  A keepsock_sockopt.
 * @param value   The value. An option that is off or on has 0 or 1.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `option` is not a keepsock_sockopt, `value` is out of
 *     its range, or the option has no effect on an open socket
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_sockopt(keepsock_datagram *datagram, int32_t option, uint32_t value,
                                      keepsock_error **error);

/**
 * Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
 * @param option  A keepsock_sockopt.
 * @param value   Receives the value. Linux returns twice the size of a buffer that was set.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `option` is not a keepsock_sockopt
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_sockopt(const keepsock_datagram *datagram, int32_t option,
                                  uint32_t *value, keepsock_error **error);

/**
 * A snapshot of a datagram socket's statistics.
 *
 * A member is -1 if the system does not report it. Memory is kernel memory, which for small
 * datagrams is several times their length.
 */
typedef struct {
    /** Received datagrams that were lost because the receive buffer was full. */
    int64_t dropped;
    /** Memory of datagrams that wait to be received, in bytes. */
    int64_t unread;
    /** The size of the receive buffer in bytes (SO_RCVBUF). */
    int64_t receive_buffer;
    /** Memory of datagrams that wait to be sent, in bytes. */
    int64_t unsent;
    /** The size of the send buffer in bytes (SO_SNDBUF). */
    int64_t send_buffer;
    /** Datagrams that were skipped because their sender is not an allowed user. */
    int64_t denied;
    /** Errors that the network reported: keepsock_datagram_recv_error(). */
    int64_t errors;
    /** The path MTU to the peer of a connected UDP socket, in bytes with headers, as far as the
        kernel knows it (IP_MTU). A datagram that is 28 bytes shorter (IPv4) or 48 bytes shorter
        (IPv6) needs no fragments. -1: unknown, or the socket is not connected. Linux and
        Windows. */
    int64_t path_mtu;
    /** Pauses of keepsock_datagram_serve() after a temporary error. */
    int64_t retried;
    /** Datagrams that keepsock_datagram_serve() passed to handlers. */
    int64_t served;
} keepsock_datagram_stats;

/**
 * Returns a snapshot of the socket's statistics.
 *
 * After close with keepsock_options_set_keep_stats(), it is the snapshot of the time of close.
 *
 * @param out  Receives the statistics.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the socket is closed and has no last snapshot
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_datagram_get_stats(const keepsock_datagram *datagram, keepsock_datagram_stats *out,
                                    size_t size, keepsock_error **error);

/*
 * ---- 6. Serving ---------------------------------------------------------------------------------
 */

/**
 * A service that receives datagrams in threads of the library.
 *
 * It has no connections, and so nothing to drain or to list. To end it in order, call
 * keepsock_datagram_service_stop() and then keepsock_datagram_service_wait(), which returns when
 * the received datagrams are handled. keepsock_datagram_get_stats() has the counters of each
 * socket. For a restart without losing datagrams that wait in the kernel, pass the socket to the
 * successor (keepsock_handover_start()).
 *
 * Threads: any thread may call any function, also from inside a handler, except as
 * keepsock_datagram_handler says. Only keepsock_datagram_service_free() requires that no other
 * thread uses the object, except in handlers of the service.
 */
typedef struct keepsock_datagram_service keepsock_datagram_service;

/**
 * Called for each datagram, in a thread of the library.
 *
 * With more than one thread, several calls run at the same time. The handler may call every
 * function except keepsock_datagram_service_wait(), which would wait for the handler, and the
 * _free functions of the socket and the service. The last call has returned when
 * keepsock_datagram_service_wait() returns KEEPSOCK_OK, or keepsock_datagram_service_free()
 * returns.
 *
 * @param datagram  The socket that received the datagram. Reply with keepsock_datagram_reply().
 * @param info      The sender, the length and the metadata, valid until the handler returns.
 *                  Later versions may add members at the end.
 * @param buf       The bytes, valid until the handler returns.
 * @param len       The number of bytes.
 * @param user      The pointer that the program passed with the callback.
 */
typedef void (*keepsock_datagram_handler)(keepsock_datagram *datagram,
                                          const keepsock_datagram_info *info, const void *buf,
                                          size_t len, void *user);

/**
 * Receives datagrams in threads of the library, and calls a handler for each.
 *
 * The function returns after the threads have started. While it serves, any thread may send with
 * the socket. A thread receives up to 16 datagrams at a time, and 4 from a Unix socket, whose
 * datagrams are truncated after 256 KiB. With several threads, datagrams of one sender may be
 * handled at the same time and out of order. The socket's timeouts and non-blocking mode do not
 * apply to the threads; its cancel token ends the service. If a socket is served twice, stopping
 * one service ends both. The threads inherit the signal mask of the calling thread and have a
 * stack of 2 MiB (keepsock_serve_options_set_stack_size()).
 *
 * After a temporary error such as ENOMEM or ENOBUFS, a thread pauses for 5 to 50 ms and retries.
 * The service counts these errors (`retried` of keepsock_datagram_stats) and logs at most one
 * event in 5 s. Errors of the socket itself (EBADF, ENOTSOCK, EINVAL, EFAULT) end the thread.
 * The service logs the error, and keepsock_datagram_service_wait() returns it.
 *
 * @param datagram  A socket. Free it after the service.
 * @param options   Serve options, copied. NULL for the defaults. The number of threads (default 1,
 *                  at most 1,024) and the stack size apply; options of connections are rejected.
 * @param handler   The handler.
 * @param user      Passed to the handler; valid until keepsock_datagram_service_free() returns.
 * @param service   Receives the service, before the first call of the handler. Free it with
 *                  keepsock_datagram_service_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the socket is closed, or keepsock_datagram_service_stop() ended
 *     receiving
 *   - KEEPSOCK_ERR_UNSUPPORTED: the options have CPUs, which only Linux supports
 *   - KEEPSOCK_ERR_NO_MEMORY: the system starts no more threads, or there is no memory for their
 *     buffers or for the object
 *   - KEEPSOCK_ERR_WRONG_STATE: `datagram` or `options` was freed
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, the number of threads or the stack size is out of
 *     range, or an option has no effect on datagrams
 */
int32_t keepsock_datagram_serve(keepsock_datagram *datagram, const keepsock_serve_options *options,
                                keepsock_datagram_handler handler, void *user,
                                keepsock_datagram_service **service, keepsock_error **error);

/**
 * Receives datagrams of another socket with the handler of a service.
 *
 * Use it for another port, a Unix socket, or a multicast group. Each socket has its own threads: as
 * many as keepsock_serve_options_set_threads() set for the service. The handler receives the socket
 * of each datagram, so its replies leave from that socket. keepsock_datagram_service_stop() ends
 * receiving on all sockets. Closing one socket, or firing its cancel token, ends receiving on that
 * socket only. keepsock_datagram_get_stats() has the counters of each socket.
 *
 * @param service   A service of keepsock_datagram_serve().
 * @param datagram  A socket that no service uses. Free it after the service.
 * @return KEEPSOCK_OK on success. Otherwise the service continues without the socket:
 *   - KEEPSOCK_ERR_WRONG_STATE: a service uses the socket already; or the call comes from a forked
 *     child; the service runs in the parent
 *   - KEEPSOCK_ERR_CLOSED: the service was stopped or has ended, the socket is closed, or
 *     keepsock_datagram_service_stop() ended receiving on the socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the system starts no more threads, or there is no memory for their
 *     buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 * @note May be called from inside a handler.
 */
int32_t keepsock_datagram_service_add(keepsock_datagram_service *service,
                                      keepsock_datagram *datagram, keepsock_error **error);

/**
 * Stops receiving on all sockets of the service, permanently.
 *
 * From then on, receiving calls on the sockets return KEEPSOCK_ERR_CLOSED; the sockets can still
 * send. Datagrams that a thread has already received are handled, datagrams in the kernel are
 * not. The function may be called from inside a handler. Stopping twice has no effect, and neither
 * has a call in a forked child.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_datagram_service_stop(keepsock_datagram_service *service, keepsock_error **error);

/**
 * Waits until the service has ended: its threads have ended, and all handlers have returned.
 *
 * keepsock_datagram_service_stop() ends the service. Closing the socket and firing its cancel token
 * end it as well, if it has no other socket.
 *
 * @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
 * @return KEEPSOCK_OK if the service has ended, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the service has not ended within the timeout
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from inside a handler of the service, or from a
 *     forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 *   - KEEPSOCK_ERR_OS: an error of a socket ended receiving on it: EBADF, ENOTSOCK, EINVAL or
 *     EFAULT
 */
int32_t keepsock_datagram_service_wait(keepsock_datagram_service *service, int64_t timeout_ms,
                                       keepsock_error **error);

/**
 * Stops a service, waits until its handlers have returned, and frees it. The handlers may use the
 * service until then.
 *
 * Do not call it from inside a handler. The sockets stay open and can send.
 */
void keepsock_datagram_service_free(keepsock_datagram_service *service);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_DATAGRAMS_H */
