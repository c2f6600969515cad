/**
 * @file keepsock/client.h
 * @brief One connection, connected or accepted: reading, writing, closing, liveness.
 *
 * Contents
 *  1. Connecting and freeing: keepsock_client_connect, keepsock_client_connect_host,
 *     keepsock_client_from_fd, keepsock_client_ref, keepsock_client_free
 *  2. Reading: keepsock_client_read, keepsock_client_read_exact, keepsock_client_read_until,
 *     keepsock_client_read_line, keepsock_client_read_message, keepsock_client_read_slices,
 *     keepsock_client_peek, keepsock_client_buffered
 *  3. Writing: keepsock_client_write_all, keepsock_client_write, keepsock_client_write_str,
 *     keepsock_client_write_message, keepsock_client_write_slices, keepsock_client_send_file
 *  4. Timeouts and cancellation: keepsock_client_set_read_timeout,
 *     keepsock_client_set_write_timeout, keepsock_client_set_close_timeout,
 *     keepsock_client_set_cancel
 *  5. Options of the operating system: keepsock_client_set_sockopt, keepsock_client_sockopt
 *  6. Closing: keepsock_client_shutdown_write, keepsock_client_close, keepsock_client_abort,
 *     keepsock_client_wait_hangup, keepsock_client_close_reason
 *  7. Liveness: keepsock_client_set_keepalive, keepsock_client_keepalive,
 *     keepsock_client_set_dead_after, keepsock_client_set_heartbeat,
 *     keepsock_client_set_heartbeat_timeout, keepsock_client_set_idle_timeout
 *  8. Event loops: keepsock_client_set_nonblocking, keepsock_client_fd,
 *     keepsock_client_check_liveness, keepsock_client_release_fd
 *  9. Addresses and statistics: keepsock_client_five_tuple, keepsock_client_read_proxy_header,
 *     keepsock_client_proxy_address, keepsock_client_get_stats
 *
 * Other headers: connecting without blocking and reconnecting (connect.h), serving many connections
 * with one thread (serving.h), peer credentials and passing descriptors (unix.h).
 *
 * Where a BSD call has a counterpart here:
 *   socket, connect           keepsock_client_connect
 *   recv, read                keepsock_client_read
 *   recv(MSG_PEEK)            keepsock_client_peek
 *   readv, recvmsg            keepsock_client_read_slices
 *   fgets, getline            keepsock_client_read_line
 *   send, write               keepsock_client_write_all, keepsock_client_write
 *   writev, sendmsg           keepsock_client_write_slices
 *   sendfile                  keepsock_client_send_file
 *   shutdown(SHUT_WR)         keepsock_client_shutdown_write
 *   close, SO_LINGER          keepsock_client_close, keepsock_client_abort
 *   poll(POLLRDHUP)           keepsock_client_wait_hangup
 *   fcntl(O_NONBLOCK)         keepsock_client_set_nonblocking
 *   poll, select, epoll_ctl   keepsock_client_fd
 *   dup                       keepsock_client_ref
 *   getpeername, getsockname  keepsock_client_five_tuple
 *   getsockopt(TCP_INFO)      keepsock_client_get_stats
 *   setsockopt, getsockopt    keepsock_client_set_sockopt, keepsock_client_sockopt
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_CLIENT_H
#define KEEPSOCK_CLIENT_H

#include "basics.h"
#include "options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Connecting and freeing ------------------------------------------------------------------
 */

/**
 * One connection: made by keepsock_client_connect() or keepsock_server_accept(), or passed to a
 * keepsock_handler.
 *
 * Threads: several threads may call functions on one connection at the same time. Usually one
 * thread reads while another writes. The bytes of one write call are not interleaved with those of
 * another. If two threads read lines, a waiting thread sees bytes that the other thread left in
 * the buffer only after more bytes have arrived. Any thread may close or abort the connection at
 * any time. Only keepsock_client_free() requires that no other thread uses the object.
 */
typedef struct keepsock_client keepsock_client;

/**
 * Connects to an endpoint.
 *
 * The library looks the name up, and its addresses race (RFC 8305). IPv6 and IPv4 alternate. A new
 * attempt starts 250 ms after the previous one, or as soon as that fails. The first attempt that
 * connects wins. The connect timeout (keepsock_options_set_connect_timeout(), 30 s by default)
 * covers the lookup and all attempts. The call returns in time even if the resolver hangs.
 *
 * "localhost" and names that end in ".localhost" are ::1 and 127.0.0.1 without a lookup (RFC 6761
 * section 6.3), in every function that takes an endpoint. A listener binds them to ::1, or to
 * 127.0.0.1 on a machine without IPv6. At most 64 threads call getaddrinfo(3); further lookups
 * wait in a queue. A lookup whose caller stopped waiting keeps its thread until the resolver
 * answers. The library starts at most 256 threads for lookups.
 *
 * @code
 * keepsock_client *client = NULL;
 * keepsock_error *error = NULL;
 * if (keepsock_client_connect("example.com:80", NULL, &client, &error) != KEEPSOCK_OK)
 *     fprintf(stderr, "%s\n", keepsock_error_message(error));
 * keepsock_error_free(error);
 * @endcode
 *
 * @param endpoint  "host:port", "192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80",
 *                  "unix:/path" or "unix:@abstract". A service name may replace the port:
 *                  "example.com:http".
 * @param options   Socket options, copied. NULL for the defaults.
 * @param client    Receives the connection. Free it with keepsock_client_free().
 * @param error     Its message lists every attempt.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
 *     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
 *     endpoint is a multicast or broadcast address; or the zone or interface does not exist
 *   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
 *   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
 *   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_connect(const char *endpoint, const keepsock_options *options,
                                keepsock_client **client, keepsock_error **error);

/**
 * Connects to a host and a port that are separate arguments.
 *
 * It works like keepsock_client_connect() for TCP. The host never changes its meaning: "unix" is
 * a host name.
 *
 * @param host     A host name, an IPv4 address, or an IPv6 address with or without brackets and
 *                 zone: "::1", "[fe80::1%eth0]".
 * @param port     The TCP port, 1 to 65535, in host byte order.
 * @param options  Socket options, copied. NULL for the defaults.
 * @param client   Receives the connection. Free it with keepsock_client_free().
 * @param error    Its message lists every attempt.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `host` is neither a host name nor an address; `port` is 0; no
 *     peer can have the address ("*", 0.0.0.0, [::], multicast, broadcast); a link-local address
 *     has no zone; the local endpoint is a multicast or broadcast address; or the zone or interface
 *     does not exist
 *   - KEEPSOCK_ERR_NOT_FOUND: the host does not exist, or has no address of the requested family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
 *   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
 *   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout expired
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option has no effect on this kind of socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_connect_host(const char *host, uint16_t port,
                                     const keepsock_options *options, keepsock_client **client,
                                     keepsock_error **error);

/**
 * Adopts a connected stream socket.
 *
 * The function sets keepalive, TCP_NODELAY, the timeouts and the cancel token from `options`,
 * and puts the socket into blocking mode. It turns SO_LINGER, SO_RCVTIMEO and SO_SNDTIMEO off.
 *
 * @param fd       A connected TCP or Unix stream or SOCK_SEQPACKET socket. The new connection
 *                 owns it on success; the caller keeps it on failure.
 * @param options  Socket options, copied. NULL for the defaults.
 * @param client   Receives the connection. Free it with keepsock_client_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected, is listening, or is a datagram socket
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine has no interface of that name (interface option)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fd` is negative, or an option has no effect here
 *   - KEEPSOCK_ERR_OS: `fd` is closed or not a socket, or another error of the system
 */
int32_t keepsock_client_from_fd(keepsock_fd fd, const keepsock_options *options,
                                keepsock_client **client, keepsock_error **error);

/**
 * Creates a second object for a connection, for a part of the program with a lifetime of its own.
 *
 * Both objects refer to the same connection: timeouts, buffered bytes and the close reason are
 * shared, and closing either object closes the connection. The library closes it when the last of
 * its objects is freed.
 *
 * The library closes a handler's connection when the handler returns. Calls on the
 * second object then return KEEPSOCK_ERR_CLOSED, and its five-tuple and close reason stay readable.
 * Use it to push to this client from another thread.
 *
 * @code
 * static void serve(keepsock_client *client, void *user)
 * {
 *     keepsock_client **subscriber = user; // Another thread writes to it, and frees it.
 *     char byte;
 *     size_t len = 1;
 *     if (keepsock_client_ref(client, subscriber, NULL) != KEEPSOCK_OK)
 *         return;
 *     while (len > 0 && keepsock_client_read(client, &byte, 1, &len, NULL) == KEEPSOCK_OK) {}
 * }
 * @endcode
 *
 * @param client  The connection, or another object for it.
 * @param ref     Receives the object. Free it with keepsock_client_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_client_ref(const keepsock_client *client, keepsock_client **ref,
                            keepsock_error **error);

/**
 * Frees an object for a connection, without waiting. An object that was passed to a
 * keepsock_handler is ignored.
 *
 * The last object of an open connection closes the connection gracefully. A thread of the library
 * continues the close as keepsock_client_close() does, for at most the close timeout (2 s by
 * default). If the process exits earlier, the kernel still sends the written bytes. If unread input
 * is left, the kernel sends RST, and bytes that the peer has not received by then are lost.
 *
 * The library closes the descriptor immediately after the FIN if it cannot start the thread, or if
 * the program may need the descriptor:
 *   - the oldest connection, if an eighth of the process's descriptors (RLIMIT_NOFILE) or 1,024
 *     are being closed
 *   - every connection whose descriptor is in the last quarter of RLIMIT_NOFILE
 *   - every connection, if RLIMIT_NOFILE is below 64
 *
 * Other connections keep their descriptors until their close ends, even if an accept or a connect
 * finds no free descriptor in that time, because an early end could lose data. With a close timeout
 * of 0 the library closes the descriptor immediately.
 */
void keepsock_client_free(keepsock_client *client);

/*
 * ---- 2. Reading ---------------------------------------------------------------------------------
 */

/** One of several buffers of keepsock_client_read_slices(): struct iovec for reading. */
typedef struct {
    void *buf;   /**< The buffer; may be NULL if cap is 0. */
    size_t cap;  /**< Its size in bytes. */
} keepsock_buffer;

/**
 * Reads at least one byte.
 *
 * The call waits until data arrives, the peer closes its side, or the read timeout expires.
 * Buffered bytes that an earlier call read and did not return come first.
 *
 * @param buf    Receives at most `cap` bytes.
 * @param cap    The size of `buf`, greater than 0.
 * @param len    Receives the number of bytes read. 0 means end of stream: the peer closed its
 *               side.
 * @param error  A read that would block allocates nothing if it is NULL.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 * @note Several threads may read. Each byte is delivered to exactly one of them.
 */
int32_t keepsock_client_read(keepsock_client *client, void *buf, size_t cap, size_t *len,
                             keepsock_error **error);

/**
 * Reads exactly `len` bytes.
 *
 * One read timeout covers the whole call. If the call fails, the contents of `buf` are undefined.
 * The bytes that have arrived are kept for the next read, and keepsock_error_transferred() returns
 * their number. A call that has received many MiB and cannot receive the rest in time returns
 * earlier by the time it needs to keep the bytes, about 2 ms per MiB. If this process has no memory
 * to keep the bytes, they are in `buf` only.
 *
 * @param buf  Receives `len` bytes.
 * @param len  The number of bytes.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side before `len` bytes had arrived
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers, or this process has
 *     no memory to keep the bytes that have arrived
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_exact(keepsock_client *client, void *buf, size_t len,
                                   keepsock_error **error);

/**
 * Reads up to and including a delimiter.
 *
 * If the stream ends without a delimiter, the last piece is returned without one. If the call
 * fails, the bytes that have arrived are kept for the next read.
 *
 * @param delimiter  The byte that ends a piece.
 * @param buf        Receives the piece with its delimiter. No NUL is added.
 * @param cap        The size of `buf` in bytes, greater than 0: the longest piece.
 * @param len        Receives the length of the piece.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side, and no bytes are left
 *   - KEEPSOCK_ERR_TOO_LONG: no delimiter within `cap` bytes; the bytes stay readable with
 *     keepsock_client_read() or a larger buffer
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
 *   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
 *     bytes, which are kept
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_until(keepsock_client *client, uint8_t delimiter, void *buf,
                                   size_t cap, size_t *len, keepsock_error **error);

/**
 * Reads one line and removes its line ending.
 *
 * A line ends with LF or CRLF, which the function removes. The last line of a stream may lack
 * its end. If the call fails, the bytes that have arrived are kept for the next read.
 *
 * @param buf  Receives the line and a NUL.
 * @param cap  The size of `buf` in bytes; the line may have `cap` - 1 bytes.
 * @param len  Receives the length without the NUL. The line may contain NUL bytes.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side, and no bytes are left
 *   - KEEPSOCK_ERR_TOO_LONG: no line end within `cap` bytes; the bytes stay readable with
 *     keepsock_client_read() or a larger buffer
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
 *   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
 *     bytes, which are kept
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_line(keepsock_client *client, char *buf, size_t cap, size_t *len,
                                  keepsock_error **error);

/**
 * Reads one message.
 *
 * keepsock_framing describes which bytes of the stream are the message. A message may have no
 * bytes. With KEEPSOCK_FRAMING_RAW the call returns the bytes that have arrived, at least one. One
 * read timeout covers the whole call. If the call fails, the bytes that have arrived are kept for
 * the next read.
 *
 * @code
 * const keepsock_framing mqtt = {
 *     .size = sizeof mqtt, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
 *     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT, .length_offset = 1, .max = 65536
 * };
 * static unsigned char packet[65536];
 * size_t len = 0;
 * if (keepsock_client_read_message(client, &mqtt, packet, sizeof packet, &len, NULL)
 *     == KEEPSOCK_OK)
 *     printf("packet type %d, %zu bytes\n", packet[0] >> 4, len);
 * @endcode
 *
 * @param framing  The framing.
 * @param buf      Receives the message. No NUL is added.
 * @param cap      The size of `buf` in bytes.
 * @param len      Receives the length of the message.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_END_OF_STREAM: the peer closed its side before a whole message had arrived
 *   - KEEPSOCK_ERR_TOO_LONG: the message is longer than `framing->max` or `cap`
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; or the length is not a
 *     number in its format, or is below zero with `length_adjustment`
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_WRONG_STATE: a SOCK_SEQPACKET socket, which is read in whole packets
 *   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for the buffered
 *     bytes, which are kept
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, no version has this `framing->size`, a member of
 *     `framing` is out of range or is set although its kind does not use it, or `cap` is 0 with
 *     KEEPSOCK_FRAMING_RAW
 *   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member of `framing`
 *     that is set
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_message(keepsock_client *client, const keepsock_framing *framing,
                                     void *buf, size_t cap, size_t *len, keepsock_error **error);

/**
 * Reads at least one byte into several buffers, and fills them one after the other (readv(2)).
 *
 * The call waits as keepsock_client_read() does.
 *
 * @param buffers  The buffers.
 * @param count    The number of buffers.
 * @param len      Receives the number of bytes in all buffers. 0 means end of stream.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
 *   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for a list of that many
 *     buffers or for a packet in several buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or the buffers have no room
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_slices(keepsock_client *client, const keepsock_buffer *buffers,
                                    size_t count, size_t *len, keepsock_error **error);

/**
 * Copies the next bytes and leaves them for the next read (recv(2) with MSG_PEEK).
 *
 * The call waits as keepsock_client_read() does. Buffered bytes and bytes in the kernel are copied
 * together. A further call does not wait: it returns the same bytes, and bytes that arrived in
 * the meantime. A copy does not count as traffic for the idle timeout.
 *
 * @param buf    Receives at most `cap` bytes.
 * @param cap    The size of `buf`, greater than 0.
 * @param len    Receives the number of bytes. 0 means end of stream.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_MALFORMED: the connection has no valid PROXY header; it was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the call would wait
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired, or the PROXY
 *     header did not arrive in time
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is SOCK_SEQPACKET, which has whole packets only
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `cap` is 0
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_peek(keepsock_client *client, void *buf, size_t cap, size_t *len,
                             keepsock_error **error);

/**
 * Returns the number of buffered bytes: bytes that the library has read and not yet returned.
 *
 * An event loop must read these before it polls the descriptor: the kernel no longer has them.
 *
 * @param client  A connection. NULL returns 0.
 * @return The number of bytes.
 */
size_t keepsock_client_buffered(const keepsock_client *client);

/*
 * ---- 3. Writing ---------------------------------------------------------------------------------
 */

/** One of several buffers of keepsock_client_write_slices(): struct iovec for writing. */
typedef struct {
    const void *buf;  /**< The bytes; may be NULL if len is 0. */
    size_t len;       /**< The number of bytes. */
} keepsock_slice;

/**
 * Writes all bytes of a buffer.
 *
 * One write timeout covers the whole call. If the call fails, keepsock_error_transferred()
 * returns the number of bytes that the kernel accepted.
 *
 * @param buf  The bytes.
 * @param len  The number of bytes.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
 *     keepsock_client_write_message() is unfinished
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_write_all(keepsock_client *client, const void *buf, size_t len,
                                  keepsock_error **error);

/**
 * Writes at least one byte: waits until the kernel accepts some. With `len` 0 it writes nothing and
 * does not wait.
 *
 * Most programs call keepsock_client_write_all().
 *
 * @param buf      The bytes.
 * @param len      The number of bytes.
 * @param written  Receives the number of bytes that the kernel accepted.
 * @param error    A write that would block allocates nothing if it is NULL.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
 *     keepsock_client_write_message() is unfinished
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_write(keepsock_client *client, const void *buf, size_t len, size_t *written,
                              keepsock_error **error);

/**
 * Writes all of a string, without its NUL, as keepsock_client_write_all() does.
 * @param text  A NUL-terminated string in any encoding.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
 *     keepsock_client_write_message() is unfinished
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_write_str(keepsock_client *client, const char *text,
                                  keepsock_error **error);

/**
 * Writes one message with the length or the delimiter of its framing, in one system call.
 *
 * keepsock_framing describes the bytes that the function adds to a message. One write timeout
 * covers the whole call. If the call fails, keepsock_error_transferred() returns the number of
 * bytes of the message that the kernel has accepted in all calls, including those of the length
 * and the delimiter.
 *
 * If a call fails after the kernel has accepted a part of the message, the message is unfinished,
 * whatever the status is. Call the function again with the same framing and the same buffer, which
 * means the same address, length and bytes: the call sends the rest, and returns KEEPSOCK_OK when
 * the message is complete. Until then every other write returns KEEPSOCK_ERR_WRONG_STATE, because
 * the peer would take its bytes for the rest of the message, and the library sends no heartbeat. A
 * call that started before the message became unfinished does not continue it.
 * keepsock_client_shutdown_write(), keepsock_client_close() and keepsock_client_abort() are
 * permitted. A connection that has ended returns its end. If no byte was accepted, the message is
 * not unfinished.
 *
 * @param framing  The framing.
 * @param buf      The message. Keep it unchanged and at its address while it is unfinished.
 * @param len      The number of bytes.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), a SOCK_SEQPACKET socket,
 *     or the unfinished message has another framing or buffer
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, no version has this `framing->size`, a member of
 *     `framing` is out of range or is set although its kind does not use it, or the peer
 *     would not receive the message unchanged
 *   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member of `framing`
 *     that is set
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_write_message(keepsock_client *client, const keepsock_framing *framing,
                                      const void *buf, size_t len, keepsock_error **error);

/**
 * Writes all bytes of several buffers, without copying them together.
 *
 * A header and a body are sent with one system call. One write timeout covers the whole call. If
 * the call fails, keepsock_error_transferred() returns the number of bytes that the kernel
 * accepted.
 *
 * @param slices  The buffers.
 * @param count   The number of buffers.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), or a message of
 *     keepsock_client_write_message() is unfinished
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet is longer than the kernel sends
 *   - KEEPSOCK_ERR_NO_MEMORY: no memory in the kernel, or in this process for a list of that many
 *     buffers or for a packet in several buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an empty SOCK_SEQPACKET packet
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_write_slices(keepsock_client *client, const keepsock_slice *slices,
                                     size_t count, keepsock_error **error);

/**
 * Writes a part of a file (sendfile(2)).
 *
 * The function writes `len` bytes from `offset`, or fewer, if the file ends earlier or becomes
 * shorter during the call: compare `written`. With UINT64_MAX the function also writes what another
 * program appends during the call.
 *
 * One write timeout covers the whole call. If the call fails, keepsock_error_transferred() returns
 * the number of bytes that the kernel accepted. Bytes that other threads write come before or after
 * the part. The call does not use the file's own position, and changes it on Windows only.
 *
 * On Linux, macOS and FreeBSD the bytes do not pass through this process. On Windows they do not
 * if the connection has no write timeout, cancel token or liveness timers (TransmitFile). Windows
 * may then reset the connection if another thread closes it during the call. On other systems, and
 * if the system rejects the file, the library reads the file in pieces and sends them.
 *
 * After success the kernel may still refer to the pages of the file. If a program overwrites or
 * truncates the file before the peer's kernel has acknowledged the bytes, the peer may receive the
 * new content.
 *
 * @param fd       A file that is open for reading, not a pipe or a socket. The caller keeps it.
 *                 On Windows it is a HANDLE, and the call moves the position of the file.
 * @param offset   Where to start, in bytes from the beginning of the file.
 * @param len      The number of bytes. UINT64_MAX means up to the end of the file.
 * @param written  Receives the number of bytes that the kernel accepted.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the write timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the kernel accepts no more bytes
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired, and the call would wait
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall or policy of this machine rejects the packet
 *   - KEEPSOCK_ERR_WRONG_STATE: after keepsock_client_shutdown_write(), a SOCK_SEQPACKET socket,
 *     or a message of keepsock_client_write_message() is unfinished
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; `fd` is negative, closed, a directory, a pipe, a
 *     socket or not open for reading; or `len` is UINT64_MAX, and `fd` is a character device
 *   - KEEPSOCK_ERR_OS: the file cannot be read, or another error of the system
 */
int32_t keepsock_client_send_file(keepsock_client *client, keepsock_fd fd, uint64_t offset,
                                  uint64_t len, uint64_t *written, keepsock_error **error);

/*
 * ---- 4. Timeouts and cancellation ---------------------------------------------------------------
 *
 * A timeout limits each call as a whole. For one deadline over several calls, set the remaining
 * time before each call. This example sends a request and reads the reply within 2 s:
 *
 * @code
 * static int64_t now_ms(void)
 * {
 *     struct timespec t;
 *     clock_gettime(CLOCK_MONOTONIC, &t);
 *     return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
 * }
 *
 * static int32_t exchange(keepsock_client *client, const char *request, char *reply, size_t cap)
 * {
 *     int64_t deadline = now_ms() + 2000;
 *     int64_t left = 2000;
 *     int32_t status = keepsock_client_set_write_timeout(client, left, NULL);
 *     if (status == KEEPSOCK_OK)
 *         status = keepsock_client_write_str(client, request, NULL);
 *     left = deadline - now_ms();
 *     if (status == KEEPSOCK_OK)
 *         status = keepsock_client_set_read_timeout(client, left > 0 ? left : 1, NULL);
 *     if (status == KEEPSOCK_OK)
 *         status = keepsock_client_read_line(client, reply, cap, NULL, NULL);
 *     return status;
 * }
 * @endcode
 *
 * After KEEPSOCK_ERR_TIMED_OUT the reply may still arrive, and the next read would return it. Close
 * the connection, or match replies to requests.
 */

/**
 * Sets the read timeout: the time that each read call may take as a whole.
 *
 * Calls in progress keep their timeout. A timeout below 400 ms is accurate to 2 ms. On Linux the
 * kernel measures timeouts of 400 ms and more (SO_RCVTIMEO), and a call may return up to 5 % late.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_read_timeout(keepsock_client *client, int64_t timeout_ms,
                                         keepsock_error **error);

/**
 * Sets the write timeout: the time that each write call may take as a whole.
 *
 * Calls in progress keep their timeout. A timeout below 400 ms is accurate to 2 ms. On Linux the
 * kernel measures timeouts of 400 ms and more (SO_SNDTIMEO), and a call may return up to 5 % late.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel has no such timeout for this kind of socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_write_timeout(keepsock_client *client, int64_t timeout_ms,
                                          keepsock_error **error);

/**
 * Sets the close timeout: the time that a graceful close may take.
 *
 * keepsock_client_close() waits for at most this time. After keepsock_client_free() the library
 * continues the close for at most this time. Default: 2,000 ms.
 *
 * @param timeout_ms  Milliseconds. 0 sends FIN and closes the descriptor immediately.
 *                    KEEPSOCK_INFINITE is rejected: a peer that keeps the connection open would
 *                    block the close forever.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
 */
int32_t keepsock_client_set_close_timeout(keepsock_client *client, int64_t timeout_ms,
                                          keepsock_error **error);

/**
 * Sets the cancel token of a connection.
 *
 * Firing the token ends the waiting calls that started after this call. With a token, a read costs
 * one poll(2) more.
 *
 * @param cancel  A token, which the connection shares from now on. NULL removes the token.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `client` is NULL
 */
int32_t keepsock_client_set_cancel(keepsock_client *client, const keepsock_cancel_token *cancel,
                                   keepsock_error **error);

/*
 * ---- 5. Options of the operating system ---------------------------------------------------------
 */

/**
 * Sets an option of the operating system on an open connection (setsockopt(2)).
 *
 * For the options that may change after the handshake: the sizes of the buffers, tos,
 * notsent_lowat, mark, priority, oob_inline, nodelay and cork. If the call fails, the connection
 * is unchanged.
 *
 * @param option  A keepsock_sockopt.
 * @param value   The value. An option that is off or on has 0 or 1.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `option` is not a keepsock_sockopt, `value` is out of
 *     its range, or the option has no effect on an open connection
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_sockopt(keepsock_client *client, int32_t option, uint32_t value,
                                    keepsock_error **error);

/**
 * Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
 * @param option  A keepsock_sockopt.
 * @param value   Receives the value. Linux returns twice the size of a buffer that was set.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `option` is not a keepsock_sockopt
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_sockopt(const keepsock_client *client, int32_t option, uint32_t *value,
                                keepsock_error **error);

/*
 * ---- 6. Closing ---------------------------------------------------------------------------------
 *
 * The status of a failed call says why this call failed. keepsock_client_close_reason() says why
 * the connection ended; 0 means that it is open, as after KEEPSOCK_ERR_TIMED_OUT or
 * KEEPSOCK_ERR_CANCELLED. This example prints why a connection ended:
 *
 * @code
 * static void print_end(const keepsock_client *client)
 * {
 *     keepsock_five_tuple connection = {0};
 *     keepsock_connection_stats stats;
 *     int32_t reason = keepsock_client_close_reason(client);
 *     keepsock_client_five_tuple(client, &connection, sizeof connection, NULL);
 *     printf("%s: %s", connection.text, reason == 0 ? "open" : keepsock_close_reason_str(reason));
 *     if (keepsock_client_get_stats(client, &stats, sizeof stats, NULL) == KEEPSOCK_OK
 *         && stats.last_received_us >= 0)
 *         printf(", nothing received for %" PRId64 " ms, %" PRId64 " bytes unacknowledged",
 *                stats.last_received_us / 1000, stats.unacknowledged);
 *     printf("\n");
 * }
 * @endcode
 */

/**
 * Shuts the sending side down: sends FIN (shutdown(2) with SHUT_WR).
 *
 * The peer reads up to the end of the stream and can still send.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported that the peer cannot be reached
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the heartbeat timeout had ended the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_shutdown_write(keepsock_client *client, keepsock_error **error);

/**
 * Closes a connection gracefully.
 *
 * The peer receives every byte that was written, even if it is still sending. The function sends
 * FIN, reads and discards input until the peer closes its side, and then closes the descriptor.
 * That takes at most the close timeout (keepsock_client_set_close_timeout(), 2 s by default). The
 * function returns immediately if the peer has closed its side already or if nothing was written;
 * unread input is then answered with RST. Waiting calls of other threads return
 * KEEPSOCK_ERR_CLOSED; then the function waits only until the peer's kernel has acknowledged
 * everything. Closing twice returns KEEPSOCK_OK. The object must still be freed.
 *
 * In non-blocking mode the function sends FIN and returns, and a thread of the library continues
 * the close, as it does for keepsock_client_free(). With a close timeout of 0 the function sends
 * FIN and closes the descriptor, also in non-blocking mode. The peer receives the end of the
 * stream although a forked child holds a copy of the descriptor.
 *
 * @return KEEPSOCK_OK on success. The connection is closed in any case, and these statuses
 *   report that the peer may not have received everything:
 *   - KEEPSOCK_ERR_TIMED_OUT: the peer did not close its side within the close timeout, another
 *     thread was writing, or the close timeout is 0 and the peer's kernel has not acknowledged
 *     everything
 *   - KEEPSOCK_ERR_RESET: the connection was reset, now or in an earlier call, after a write
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data, after a write
 *   - KEEPSOCK_ERR_UNREACHABLE: the network reported that the peer cannot be reached, after a
 *     write
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time, after a write
 *   - KEEPSOCK_ERR_CLOSED: another thread aborted the connection while this call waited
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_close(keepsock_client *client, keepsock_error **error);

/**
 * Aborts a connection: sends RST over TCP.
 *
 * Bytes that the peer has not received yet are lost. The object must still be freed.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_client_abort(keepsock_client *client, keepsock_error **error);

/**
 * Waits, without reading, until the connection ends (poll(2) with POLLRDHUP).
 *
 * Use it to notice that the peer hung up while the program prepares an answer. Bytes that arrived
 * before the end stay readable. If the peer sent FIN and then RST, the reason is
 * KEEPSOCK_CLOSE_PEER_RESET. The call sends heartbeats and detects a dead peer
 * (keepsock_options_set_dead_after()). Because it does not read, it does not check the heartbeat
 * timeout or the idle timeout. A connection from a trusted proxy whose header is incomplete after
 * keepsock_options_set_proxy_timeout() is reset, and the reason is KEEPSOCK_CLOSE_IDLE_TIMEOUT.
 *
 * @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
 * @param reason      Receives the keepsock_close_reason.
 * @return KEEPSOCK_OK if the connection has ended, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the connection is open
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_DRAINING: the service is draining; finish the current request and return
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_UNSUPPORTED: a system other than Linux, Windows, macOS, a BSD or illumos
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_wait_hangup(keepsock_client *client, int64_t timeout_ms, int32_t *reason,
                                    keepsock_error **error);

/**
 * Returns why the connection ended: the first cause that a call observed. It stays readable after
 * close.
 *
 * While a close of an open connection waits for the peer, the reason is already
 * KEEPSOCK_CLOSE_LOCAL or KEEPSOCK_CLOSE_CANCELLED. A failure that the close then observes replaces
 * this reason. A reset after the peer's FIN replaces KEEPSOCK_CLOSE_PEER_CLOSED. This function
 * checks for such a reset, and keepsock_client_close() does not, because the check is a system
 * call: call this function before the close if the difference matters.
 *
 * @param client  A connection. NULL returns 0.
 * @return A keepsock_close_reason. 0 means that no call has observed a cause: the connection is
 *   open, or it has ended since the last call.
 */
int32_t keepsock_client_close_reason(const keepsock_client *client);

/*
 * ---- 7. Liveness --------------------------------------------------------------------------------
 *
 * The setters change an open connection. If one fails, the connection is unchanged. A waiting call
 * keeps the times that it started with.
 *
 * After the idle timeout, the first-byte timeout, the heartbeat timeout or dead_after has ended a
 * connection, the calls on the connection behave as follows:
 * - Reads first return the buffered bytes. Then they return KEEPSOCK_ERR_IDLE_TIMEOUT (also for the
 *   first-byte timeout), KEEPSOCK_ERR_HEARTBEAT_TIMEOUT, or for dead_after KEEPSOCK_ERR_DEAD,
 *   KEEPSOCK_ERR_UNREACHABLE or KEEPSOCK_ERR_STALLED. keepsock_client_check_liveness() returns the
 *   same.
 * - Writes and keepsock_client_shutdown_write() return the same status. After the idle timeout or
 *   the first-byte timeout they still work, for a last message, but do not wait: a write returns
 *   KEEPSOCK_ERR_IDLE_TIMEOUT if the kernel does not accept its bytes.
 * - The results of keepsock_client_wait_hangup() and keepsock_client_close_reason() are the reason.
 * - After the idle timeout or the first-byte timeout keepsock_client_close() closes gracefully.
 *   After the others it returns their status if data was written.
 * If the PROXY header did not arrive in time, the call that detects it resets the connection and
 * returns KEEPSOCK_ERR_IDLE_TIMEOUT. Later calls return KEEPSOCK_ERR_CLOSED, and the close reason
 * is KEEPSOCK_CLOSE_IDLE_TIMEOUT.
 * A write or keepsock_client_wait_hangup() that is waiting when another thread ends the connection
 * notices the end within a quarter of the timeout.
 */

/** The keepalive values of a connection. */
typedef struct {
    int64_t idle_ms;      /**< The idle time before the first probe, in milliseconds. */
    int64_t interval_ms;  /**< The time between probes, in milliseconds. */
    uint32_t count;       /**< The number of unanswered probes after which the peer is dead. */
    bool enabled;         /**< Whether keepalive is on. If it is off, the other members have no
                               effect. */
} keepsock_keepalive;

/**
 * Sets the keepalive values of an open connection, which keepsock_options_set_keepalive()
 * describes.
 *
 * @param idle_ms      1 to 32,767,000 milliseconds, rounded up to whole seconds. KEEPSOCK_INFINITE
 *                     turns keepalive off; `interval_ms` and `count` are then ignored.
 * @param interval_ms  1 to 32,767,000 milliseconds, rounded up to whole seconds.
 * @param count        1 to 127.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or the values contradict dead_after or
 *     the middlebox timeout
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_keepalive(keepsock_client *client, int64_t idle_ms, int64_t interval_ms,
                                      uint32_t count, keepsock_error **error);

/**
 * Returns the keepalive values that the kernel uses now.
 * @param out  Receives the values.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_keepalive(const keepsock_client *client, keepsock_keepalive *out,
                                  size_t size, keepsock_error **error);

/**
 * Sets dead_after of an open connection, which keepsock_options_set_dead_after() describes.
 *
 * The function adjusts keepalive to fit, unless the program set keepalive itself.
 *
 * @param timeout_ms  2,000 to 163,880,000 milliseconds. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; keepalive is off, or detects a dead
 *     peer later; KEEPSOCK_INFINITE with fail_on_stall; Multipath TCP
 *   - KEEPSOCK_ERR_UNSUPPORTED: NetBSD, OpenBSD and illumos
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: KEEPSOCK_INFINITE needs a free descriptor for a moment
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids a TCP socket
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_dead_after(keepsock_client *client, int64_t timeout_ms,
                                       keepsock_error **error);

/**
 * Sets the heartbeat of an open connection, which keepsock_options_set_heartbeat() describes.
 * @param interval_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns the heartbeat off.
 * @param buf          The bytes of a heartbeat, copied. With KEEPSOCK_INFINITE it is ignored and
 *                     may be NULL.
 * @param len          The number of bytes, greater than 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; no bytes; out of range; not below the idle timeout;
 *     KEEPSOCK_INFINITE with a heartbeat timeout
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the bytes
 */
int32_t keepsock_client_set_heartbeat(keepsock_client *client, int64_t interval_ms, const void *buf,
                                      size_t len, keepsock_error **error);

/**
 * Sets the heartbeat timeout of an open connection.
 *
 * keepsock_options_set_heartbeat_timeout() describes it.
 *
 * @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or the connection has no heartbeat
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 */
int32_t keepsock_client_set_heartbeat_timeout(keepsock_client *client, int64_t timeout_ms,
                                              keepsock_error **error);

/**
 * Sets the idle timeout of an open connection, which keepsock_options_set_idle_timeout()
 * describes.
 *
 * @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; not above the heartbeat interval;
 *     KEEPSOCK_INFINITE with idle_receive_only
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 */
int32_t keepsock_client_set_idle_timeout(keepsock_client *client, int64_t timeout_ms,
                                         keepsock_error **error);

/*
 * ---- 8. Event loops -----------------------------------------------------------------------------
 *
 * A client in the program's own event loop: make it non-blocking, register its descriptor, read
 * until KEEPSOCK_ERR_WOULD_BLOCK when the descriptor is readable, and call
 * keepsock_client_check_liveness() when the time that it returned has passed. Call it again after
 * each event, because traffic changes the time. This example sends `left` bytes and reads to the
 * end of the stream:
 *
 * @code
 * static int32_t run(keepsock_client *client, const char *out, size_t left)
 * {
 *     char in[4096];
 *     size_t n = 0;
 *     int64_t timeout_ms;
 *     keepsock_fd fd;
 *     int32_t status = keepsock_client_set_nonblocking(client, true, NULL);
 *     if (status == KEEPSOCK_OK)
 *         status = keepsock_client_fd(client, &fd, NULL);
 *     while (status == KEEPSOCK_OK || status == KEEPSOCK_ERR_WOULD_BLOCK) {
 *         if ((status = keepsock_client_check_liveness(client, &timeout_ms, NULL)) != KEEPSOCK_OK)
 *             return status;
 *         // POLLOUT only while bytes are left: the socket is writable most of the time.
 *         struct pollfd wait = {fd, POLLIN, 0};
 *         if (left > 0)
 *             wait.events |= POLLOUT;
 *         // Buffered bytes of keepsock_client_read_line() and others make nothing readable.
 *         poll(&wait, 1, keepsock_client_buffered(client) > 0 ? 0 : (int)timeout_ms);
 *         if (left > 0) {
 *             status = keepsock_client_write(client, out, left, &n, NULL);
 *             if (status == KEEPSOCK_OK) {
 *                 out += n;
 *                 left -= n;
 *             } else if (status != KEEPSOCK_ERR_WOULD_BLOCK) {
 *                 return status;
 *             }
 *         }
 *         while ((status = keepsock_client_read(client, in, sizeof in, &n, NULL)) == KEEPSOCK_OK)
 *             if (n == 0)
 *                 return KEEPSOCK_OK; // the end of the stream
 *     }
 *     return status;
 * }
 * @endcode
 */

/**
 * Turns non-blocking mode on or off (O_NONBLOCK).
 *
 * In non-blocking mode, calls that would wait return KEEPSOCK_ERR_WOULD_BLOCK. Calls that already
 * wait continue.
 *
 * @param on  true for non-blocking mode.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_set_nonblocking(keepsock_client *client, bool on, keepsock_error **error);

/**
 * Borrows the descriptor, for poll(2), epoll(7) or setsockopt(2). Do not close it.
 *
 * The kernel reports a reset once. On Linux the library still detects a reset of a TCP connection
 * after the program has read SO_ERROR, or after a forked child has observed the reset. If the peer
 * sent FIN before the reset, the close reason then stays KEEPSOCK_CLOSE_PEER_CLOSED. A Unix socket
 * keeps no trace of a reset, and reads then report the end of the stream: do not read its SO_ERROR.
 *
 * On Linux the descriptor is in blocking mode unless keepsock_client_set_nonblocking() was last
 * called with true. On other systems it stays non-blocking until it is released.
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking, or another error of the system
 */
int32_t keepsock_client_fd(const keepsock_client *client, keepsock_fd *fd, keepsock_error **error);

/**
 * Sends a heartbeat that is due, checks that the connection is alive, and returns when to call
 * again.
 *
 * For programs with their own event loop. Calls of the library that wait do this by themselves.
 *
 * The function sends a heartbeat if one is due and no other thread writes. It fails if the peer
 * is dead (keepsock_options_set_dead_after()), if the heartbeat timeout expired without an
 * answer, or if the connection was idle for the idle timeout. It resets a connection from a
 * trusted proxy whose header is incomplete after keepsock_options_set_proxy_timeout(), also if
 * another timeout has ended the connection before. Unread bytes that arrived after a heartbeat
 * answer it. They do not count as traffic for the idle timeout. If bytes are unread when it
 * expires, the program has up to 50 ms, and at most a quarter of the timeout, to read them.
 *
 * @param timeout_ms  Receives the milliseconds until the next call is due, at most INT_MAX, for
 *                    poll(2). KEEPSOCK_INFINITE means that no call is needed.
 * @return KEEPSOCK_OK if the connection is alive, otherwise
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or the first-byte timeout expired; or the PROXY
 *     header did not arrive in time, and the connection was reset
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the peer did not answer a heartbeat in time
 *   - KEEPSOCK_ERR_MALFORMED: the PROXY header is not valid; the connection was reset
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory for a heartbeat; call again
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a firewall of this machine rejects the heartbeat
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_check_liveness(keepsock_client *client, int64_t *timeout_ms,
                                       keepsock_error **error);

/**
 * Releases the descriptor: the connection stays open, and the caller owns and closes it.
 *
 * The object is then closed and must still be freed. The descriptor has no SO_RCVTIMEO and
 * SO_SNDTIMEO. It is in blocking mode unless keepsock_client_set_nonblocking() was last called
 * with true. Other options stay as they are. A handler may release the connection that it was
 * lent: it then continues outside the service.
 *
 * To leave a connection to a forked child, the parent releases the descriptor and calls close(2).
 * The child releases its copy and adopts it with keepsock_client_from_fd(). The child can do so
 * although the parent's threads were inside calls at the time of fork(2).
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another thread is inside a call; buffered bytes are left
 *     (keepsock_client_buffered()): read them first; the PROXY header was not received; or a
 *     message of keepsock_client_write_message() is unfinished and the write side is open
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_client_release_fd(keepsock_client *client, keepsock_fd *fd,
                                   keepsock_error **error);

/*
 * ---- 9. Addresses and statistics ----------------------------------------------------------------
 */

/**
 * Returns the protocol, the addresses and the ports (getsockname(2), getpeername(2)).
 *
 * They stay readable after an error and after close. Names that do not fit are truncated.
 *
 * @param out  Receives the five-tuple. Longer names are truncated.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_client_five_tuple(const keepsock_client *client, keepsock_five_tuple *out,
                                   size_t size, keepsock_error **error);

/**
 * Waits for the PROXY header of a connection from a trusted proxy, and receives it.
 *
 * keepsock_client_five_tuple() returns the addresses of the proxy's client from then on. A read
 * does the same first, so only a program that needs the address before it reads calls this
 * function. Without a header to receive it returns immediately. No byte after the header is lost.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_MALFORMED: the first bytes are not a header, or the proxy closed its side within
 *     it; the connection was reset
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and the header is incomplete
 *   - KEEPSOCK_ERR_RESET: the proxy reset the connection
 *   - KEEPSOCK_ERR_DEAD: the proxy vanished
 *   - KEEPSOCK_ERR_STALLED: the proxy takes no data
 *   - KEEPSOCK_ERR_UNREACHABLE: the network reported the proxy unreachable
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle or first-byte timeout expired; or the header did not
 *     arrive within keepsock_options_set_proxy_timeout(), and the connection was reset
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: nothing was received after a heartbeat
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_DRAINING: the service is draining
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `client` is NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_read_proxy_header(keepsock_client *client, keepsock_error **error);

/**
 * Returns the address of the proxy through which the client has connected.
 *
 * keepsock_client_five_tuple() returns the addresses of the client.
 *
 * @param address  Receives the address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: no PROXY header with the addresses of a client was received
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_client_proxy_address(const keepsock_client *client, keepsock_address *address,
                                      keepsock_error **error);

/**
 * A snapshot of a connection's statistics (struct tcp_info of tcp(7)).
 *
 * A member is -1, or "", if the system or this kind of socket does not report it. For Unix
 * sockets these are all members that describe TCP. Linux reports everything, other systems a
 * part. Times are in microseconds.
 */
typedef struct {
    /** A keepsock_tcp_state, or 0. */
    int32_t tcp_state;
    /** The keepsock_close_reason; 0: no call has observed a cause. */
    int32_t close_reason;
    /** The smoothed round-trip time (RFC 6298). */
    int64_t rtt_us;
    /** The mean deviation of the round-trip time. */
    int64_t rtt_variation_us;
    /** The shortest round-trip time of the last minutes. */
    int64_t min_rtt_us;
    /** The time since data was last sent. */
    int64_t last_sent_us;
    /** The time since a segment, data or ACK, last arrived. On FreeBSD it overflows to zero
        after 71 minutes. */
    int64_t last_received_us;
    /** Segments retransmitted since the connection was made. */
    int64_t retransmits;
    /** Bytes sent and not acknowledged. */
    int64_t unacknowledged;
    /** Bytes written and not yet sent. */
    int64_t unsent;
    /** Bytes received and not yet read. */
    int64_t unread;
    /** Data bytes sent, including retransmitted bytes. */
    int64_t bytes_sent;
    /** Data bytes received. Linux counts the FIN as one byte. */
    int64_t bytes_received;
    /** Segments sent, including pure ACKs. */
    int64_t segments_sent;
    /** Segments received, including pure ACKs. */
    int64_t segments_received;
    /** The congestion window, in segments. */
    int64_t congestion_window;
    /** The peer's receive window, in bytes; 0: its program does not read. */
    int64_t peer_window;
    /** Heartbeats that this side sent. -1 for a keepsock_conn: event loops do not count them. */
    int64_t heartbeats;
    /** The congestion control algorithm: "cubic", "bbr". */
    char congestion_control[16];
    /** The TCP user timeout (TCP_USER_TIMEOUT) in milliseconds; -1: none. It is the time that
        data may stay unacknowledged, and keepsock_options_set_fail_on_stall() sets it. */
    int64_t user_timeout_ms;
    /** The maximum segment size for sending, in bytes. */
    int32_t mss;
    /** Whether the connection uses Multipath TCP. Linux 5.16 and later report it, other systems
        and closed connections return false. */
    bool is_mptcp;
} keepsock_connection_stats;

/**
 * Returns a snapshot of the connection's statistics.
 *
 * After an error, and after close with keepsock_options_set_keep_stats(), it is the last snapshot.
 * Otherwise a closed connection has only the close reason and the state KEEPSOCK_TCP_STATE_CLOSED.
 *
 * @param client  A connection, which may be closed.
 * @param out     Receives the statistics.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_get_stats(const keepsock_client *client, keepsock_connection_stats *out,
                                  size_t size, keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_CLIENT_H */
