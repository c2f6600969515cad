/**
 * @file keepsock/unix.h
 * @brief Unix sockets: credentials of the peer, and descriptors passed to a process.
 *
 * Every function of keepsock/client.h, keepsock/server.h and keepsock/datagrams.h also works for
 * Unix sockets: use an endpoint "unix:/path" or "unix:@abstract". The functions here work for Unix
 * sockets only. The mode and the owner of the socket file, and the users that may connect, are
 * options (keepsock/options.h).
 *
 * Contents
 *  1. Peer credentials: keepsock_client_peer_credentials, keepsock_conn_peer_credentials
 *  2. Passing descriptors over a connection: keepsock_client_send_fds, keepsock_client_recv_fds
 *  3. Passing descriptors in a datagram: keepsock_datagram_send_fds, keepsock_datagram_recv_fds
 *
 * Where a BSD call has a counterpart here:
 *   SCM_RIGHTS, sendmsg                  keepsock_client_send_fds, keepsock_datagram_send_fds
 *   SCM_RIGHTS, recvmsg                  keepsock_client_recv_fds, keepsock_datagram_recv_fds
 *   getsockopt(SO_PEERCRED), getpeereid  keepsock_client_peer_credentials
 *   SCM_CREDENTIALS                      the member credentials of keepsock_datagram_info
 *   socket(SOCK_SEQPACKET)               keepsock_options_set_seqpacket
 *   socketpair                           keepsock_client_from_fd
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_UNIX_H
#define KEEPSOCK_UNIX_H

#include "basics.h"
#include "client.h"
#include "conn.h"
#include "datagrams.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Peer credentials ------------------------------------------------------------------------
 */

/**
 * Returns the peer's process, user and group (SO_PEERCRED). Unix sockets only.
 * @param out  Receives the credentials.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
 *   - KEEPSOCK_ERR_CLOSED: this process closed the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_peer_credentials(const keepsock_client *client, keepsock_credentials *out,
                                         size_t size, keepsock_error **error);

/**
 * Returns the process, user and group of the peer of a Unix socket (SO_PEERCRED).
 * @param out  Receives the credentials.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a TCP connection, or a system without peer credentials
 *   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_peer_credentials(keepsock_conn conn, keepsock_credentials *out, size_t size,
                                       keepsock_error **error);

/*
 * ---- 2. Passing descriptors over a connection ---------------------------------------------------
 */

/**
 * Writes at least one byte, and passes descriptors with the first byte (SCM_RIGHTS). Unix sockets
 * only.
 *
 * The descriptors may be files, pipes or sockets (keepsock_client_fd(), keepsock_server_fd()). The
 * peer receives its own copies; the caller keeps and closes the descriptors. On success the kernel
 * has accepted all descriptors, even if it accepted only a part of the bytes: write the rest with
 * keepsock_client_write_all(). After an error no descriptor was passed.
 *
 * To pass a connection, release it afterwards with keepsock_client_release_fd() and close(2):
 * keepsock_client_close() would end it for both processes.
 *
 * @param buf        The bytes.
 * @param len        The number of bytes, greater than 0.
 * @param fds        The descriptors.
 * @param fds_count  The number of descriptors, at most 253 (SCM_MAX_FD of unix(7)).
 * @param written    Receives the number of bytes that the kernel accepted.
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
 *   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: too many descriptors are in transit, or RLIMIT_NOFILE is too
 *     low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `len` is 0, `fds_count` is out of range, or a
 *     descriptor is negative
 *   - KEEPSOCK_ERR_OS: a descriptor is closed (EBADF), or another error of the system
 */
int32_t keepsock_client_send_fds(keepsock_client *client, const void *buf, size_t len,
                                 const keepsock_fd *fds, size_t fds_count, size_t *written,
                                 keepsock_error **error);

/**
 * Reads at least one byte, and receives descriptors that were passed with it (SCM_RIGHTS). Unix
 * sockets only.
 *
 * This example passes a descriptor with one byte, and receives it:
 *
 * @code
 * static int32_t pass(keepsock_client *client, keepsock_fd fd)
 * {
 *     return keepsock_client_send_fds(client, "d", 1, &fd, 1, NULL, NULL);
 * }
 *
 * static keepsock_fd receive(keepsock_client *client)
 * {
 *     char byte;
 *     keepsock_fd fd = -1;
 *     keepsock_client_recv_fds(client, &byte, 1, &fd, 1, NULL, NULL, NULL, NULL);
 *     return fd;
 * }
 * @endcode
 *
 * Received descriptors are close-on-exec, and the caller closes them. keepsock_client_from_fd()
 * and keepsock_server_from_fd() adopt them. The kernel closes descriptors that do not fit, and
 * `fds_truncated` reports it.
 *
 * Descriptors arrive with the first of the bytes that they were sent with. If another function
 * reads those bytes, the kernel closes the descriptors, so a peer cannot fill this process with
 * descriptors. Buffered bytes are returned first, without descriptors.
 *
 * @param buf            Receives at most `cap` bytes.
 * @param cap            The size of `buf`, greater than 0.
 * @param fds            Receives at most `fds_cap` descriptors.
 * @param fds_cap        The size of `fds`, at most 253.
 * @param len            Receives the number of bytes. 0 means end of stream.
 * @param fds_count      Receives the number of descriptors.
 * @param fds_truncated  Receives whether more descriptors were passed than fit into `fds` or into
 *                       this process (MSG_CTRUNC).
 * @return KEEPSOCK_OK on success, otherwise
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
 *   - KEEPSOCK_ERR_TOO_LONG: a SOCK_SEQPACKET packet was longer than the buffer and is lost
 *   - KEEPSOCK_ERR_UNSUPPORTED: TCP, or Windows
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `cap` is 0, or `fds_cap` is out of range
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_recv_fds(keepsock_client *client, void *buf, size_t cap, keepsock_fd *fds,
                                 size_t fds_cap, size_t *len, size_t *fds_count,
                                 bool *fds_truncated, keepsock_error **error);

/*
 * ---- 3. Passing descriptors in a datagram -------------------------------------------------------
 */

/**
 * Sends one datagram with descriptors (SCM_RIGHTS). Unix sockets only.
 *
 * The descriptors may be files, pipes or sockets (keepsock_client_fd(), keepsock_server_fd()).
 * The receiver gets its own copies; the caller keeps and closes the descriptors.
 *
 * @param datagram   A Unix socket.
 * @param endpoint   The destination: "unix:/run/app.sock", "unix:@name". NULL sends to the peer
 *                   of a connected socket.
 * @param buf        The bytes.
 * @param len        The number of bytes. 0 sends an empty datagram.
 * @param fds        The descriptors.
 * @param fds_count  The number of descriptors, at most 253 (SCM_MAX_FD of unix(7)).
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is connected to another address, or `endpoint` is
 *     NULL and the socket is not connected
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse
 *   - KEEPSOCK_ERR_NOT_FOUND: the Unix socket does not exist
 *   - KEEPSOCK_ERR_UNSUPPORTED: a UDP socket, or Windows
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
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: too many descriptors are in transit, or RLIMIT_NOFILE is too
 *     low for poll(2)
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `fds_count` is out of range, a descriptor is negative,
 *     or `endpoint` is not a Unix endpoint
 *   - KEEPSOCK_ERR_OS: a descriptor is closed (EBADF), or another error of the system
 */
int32_t keepsock_datagram_send_fds(keepsock_datagram *datagram, const char *endpoint,
                                   const void *buf, size_t len, const keepsock_fd *fds,
                                   size_t fds_count, keepsock_error **error);

/**
 * Receives one datagram and the descriptors that were sent with it (SCM_RIGHTS). Unix sockets
 * only.
 *
 * It works like keepsock_datagram_recv(). The descriptors are close-on-exec, and the caller closes
 * them. Descriptors that do not fit are closed, and `fds_truncated` reports it. If another
 * function receives the datagram, all of its descriptors are closed.
 *
 * @param datagram       A Unix socket.
 * @param buf            Receives the bytes.
 * @param cap            The size of `buf`.
 * @param fds            Receives at most `fds_cap` descriptors.
 * @param fds_cap        The size of `fds`, at most 253.
 * @param out            Receives the length, the sender and the metadata.
 * @param fds_count      Receives the number of descriptors.
 * @param fds_truncated  Receives whether more descriptors were sent than fit into `fds` or into
 *                       this process (MSG_CTRUNC).
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the read timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no datagram is queued, or the call has
 *     skipped 1,024 datagrams of denied senders
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket, or keepsock_datagram_service_stop()
 *     ended receiving
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory; the datagram stays queued and the socket
 *     stays usable
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
 *     forbids the call
 *   - KEEPSOCK_ERR_UNSUPPORTED: a UDP socket, Windows, or the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_recv_fds(keepsock_datagram *datagram, void *buf, size_t cap,
                                   keepsock_fd *fds, size_t fds_cap, keepsock_datagram_info *out,
                                   size_t size, size_t *fds_count, bool *fds_truncated,
                                   keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_UNIX_H */
