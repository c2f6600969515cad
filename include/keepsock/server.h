/**
 * @file keepsock/server.h
 * @brief Listening, and accepting connections one by one.
 *
 * keepsock_server_accept() returns each connection as a keepsock_client. To serve connections with
 * threads or events of the library, pass the server to a function of keepsock/serving.h. To listen
 * on sockets that a service manager or a predecessor passed, see keepsock/activation.h.
 *
 * Contents
 *  1. Listening and freeing: keepsock_server_listen, keepsock_server_listen_all,
 *     keepsock_server_from_fd, keepsock_server_close, keepsock_server_free
 *  2. Accepting: keepsock_server_accept, keepsock_server_set_accept_timeout,
 *     keepsock_server_set_cancel
 *  3. Event loops: keepsock_server_set_nonblocking, keepsock_server_fd,
 *     keepsock_server_release_fd
 *  4. Endpoints and statistics: keepsock_server_port, keepsock_server_endpoint,
 *     keepsock_server_get_stats
 *
 * Where a BSD call has a counterpart here:
 *   socket, bind, listen       keepsock_server_listen
 *   SO_REUSEADDR, IPV6_V6ONLY  set by keepsock_server_listen
 *   accept, accept4            keepsock_server_accept
 *   EAGAIN of accept           keepsock_server_set_nonblocking
 *   poll, select, epoll_ctl    keepsock_server_fd
 *   getsockname                keepsock_server_endpoint, keepsock_server_port
 *   close                      keepsock_server_close
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_SERVER_H
#define KEEPSOCK_SERVER_H

#include "basics.h"
#include "options.h"
#include "client.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Listening and freeing -------------------------------------------------------------------
 */

/**
 * A listening socket.
 *
 * Freeing it does not affect the connections that it accepted.
 *
 * Threads: any number of threads may call functions of one server at the same time, also
 * keepsock_server_accept(). Any thread may call keepsock_server_close() at any time. Only
 * keepsock_server_free() requires that no other thread uses the object.
 */
typedef struct keepsock_server keepsock_server;

/**
 * Listens on an endpoint: socket(2), SO_REUSEADDR, bind(2) and listen(2).
 *
 * - "*:8080" accepts IPv4 and IPv6 on one port, with every value of net.ipv6.bindv6only. On a
 *   machine without IPv6 it accepts IPv4 only.
 * - "0.0.0.0:8080" accepts IPv4 only, and "[::]:8080" accepts IPv6 only.
 * - A host name means its first address.
 * - With port 0 the kernel chooses a free port. keepsock_server_port() returns it.
 * - "unix:/path" replaces a socket file whose server was closed, and never one that a socket is
 *   bound to. The library removes the file when the server is closed.
 *
 * The options apply to the listening socket and to every accepted connection, except the cancel
 * token, which ends waiting for connections only.
 *
 * While the library replaces a socket file, a lock file PATH.lock.NUMBER is next to it. Only its
 * owner can open the lock file. In a sticky directory the lock files of other users are ignored,
 * except those of root, of the owner of the directory and of the owner of the socket file. If the
 * directory cannot be listed, the lock file is PATH.lock.
 *
 * @param endpoint  "host:port", "*:port", "unix:/path" or "unix:@abstract" (Linux).
 * @param options   Socket options, copied. NULL for the defaults.
 * @param server    Receives the server. Free it with keepsock_server_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, is a multicast or broadcast
 *     address, or is a link-local IPv6 address without a zone; or this machine has no such zone or
 *     interface
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: another socket is bound to the address, no local port is free,
 *     or another process is replacing the socket file
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind the port or the interface, write to
 *     the directory of the socket file, or set the owner of the socket file
 *   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the directory of the socket file does not
 *     exist, or the host has no address of the requested family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_TIMED_OUT: the lookup took longer than the connect timeout
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during the lookup
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers, or no thread can be started for the lookup
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `endpoint` or `server` is NULL, or an option has no effect on
 *     this kind of socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_server_listen(const char *endpoint, const keepsock_options *options,
                               keepsock_server **server, keepsock_error **error);

/**
 * Listens on several endpoints, TCP and Unix sockets together.
 *
 * The server listens on all of them or, after a failure, on none. keepsock_server_accept() and the
 * services accept the connections of all endpoints. A busy endpoint does not starve the others.
 * Each accept costs one poll(2) more than with one endpoint.
 *
 * An option that has no effect on one of the endpoints is rejected. Keepalive, dead_after, the
 * middlebox timeout and TCP_NODELAY are exceptions: they apply to the TCP endpoints only.
 *
 * @param endpoints  An array of `count` endpoints, as for keepsock_server_listen().
 * @param count      The number of endpoints, at least 1.
 * @param options    Socket options, copied. NULL for the defaults.
 * @param server     Receives the server. Free it with keepsock_server_free().
 * @param error      Its message names the endpoint that failed.
 * @return KEEPSOCK_OK on success. Otherwise the library closes all sockets again and removes their
 *   socket files:
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: an endpoint does not parse, is a multicast or broadcast
 *     address, or is a link-local IPv6 address without a zone; or this machine has no such zone or
 *     interface
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: another socket is bound to an address, no local port is free,
 *     or another process is replacing a socket file
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: an address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind a port or the interface, write to
 *     the directory of a socket file, or set the owner of a socket file
 *   - KEEPSOCK_ERR_NOT_FOUND: a host, a service or the directory of a socket file does not exist,
 *     or a host has no address of the requested family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_TIMED_OUT: the lookups took longer than the connect timeout
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired during a lookup
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers, or no thread can be started for a lookup
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks a kind of socket or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `endpoints`, one of its elements or `server` is NULL, `count`
 *     is 0, or an option has no effect on an endpoint
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_server_listen_all(const char *const *endpoints, size_t count,
                                   const keepsock_options *options, keepsock_server **server,
                                   keepsock_error **error);

/**
 * Adopts a listening descriptor: a stream socket or a SOCK_SEQPACKET socket.
 *
 * The function sets all options on the socket, including the options that are off by default. The
 * backlog stays as it is, unless keepsock_options_set_backlog() set one. For the descriptors of a
 * service manager, see keepsock_activation_from_env().
 *
 * Other processes may share the socket, and continue to accept when this process closes it. So the
 * function makes the socket non-blocking, for all of these processes, and each accept costs one
 * poll(2) more.
 *
 * @param fd       A listening TCP or Unix socket. The server owns it on success; the caller keeps
 *                 it on failure.
 * @param options  Socket options, copied. NULL for the defaults.
 * @param server   Receives the server. Free it with keepsock_server_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket does not listen, is not a stream, or is not of the kind
 *     that `options` requests (seqpacket, Multipath TCP)
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine has no interface of that name (interface option)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor; the server
 *     needs a second descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` is NULL, `fd` is negative, or an option has no
 *     effect on an existing socket of this kind
 *   - KEEPSOCK_ERR_OS: `fd` is closed or not a socket, or another error of the system
 */
int32_t keepsock_server_from_fd(keepsock_fd fd, const keepsock_options *options,
                                keepsock_server **server, keepsock_error **error);

/**
 * Stops listening and closes the socket.
 *
 * Waiting calls of other threads return KEEPSOCK_ERR_CLOSED, and a service of this server stops
 * accepting. Accepted connections stay open. The kernel resets connections that were not accepted.
 * The library removes the file of a Unix socket.
 *
 * Other processes that share the listening socket continue to accept. A copy of the descriptor in
 * a forked child does not: the kernel refuses new clients immediately.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_server_close(keepsock_server *server, keepsock_error **error);

/** Frees a server, and closes it first unless a service uses it. */
void keepsock_server_free(keepsock_server *server);

/*
 * ---- 2. Accepting -------------------------------------------------------------------------------
 */

/**
 * Accepts a connection (accept(2)), and waits until one is pending.
 *
 * On Linux the call is one system call. An accept timeout, a cancel token, non-blocking mode or
 * several endpoints add one poll(2).
 *
 * The library retries transient errors of accept(2), with backoff if they persist. If the process
 * or the system has no free descriptor, the call waits until one is free and uses almost no
 * processor time. keepsock_server_get_stats() counts both. Five errors are fatal: EBADF, EINVAL,
 * ENOTSOCK, EFAULT and EOPNOTSUPP. They mean that the descriptor is not a listening socket. EINVAL
 * also means that another process has shut the socket down. Services follow the same rules.
 *
 * The library rejects peers whose user is not allowed (keepsock_options_add_allowed_uid()) and
 * continues to wait. Rejected peers do not extend the accept timeout. In non-blocking mode a call
 * rejects at most 64 peers, and the listener stays readable. An edge-triggered event loop
 * (EPOLLET) must call accept again while the counter `denied` rises.
 *
 * @code
 * keepsock_client *client = NULL;
 * while (keepsock_server_accept(server, &client, NULL) == KEEPSOCK_OK) {
 *     keepsock_client_write_str(client, "hello\n", NULL);
 *     keepsock_client_free(client);
 * }
 * @endcode
 *
 * @param client  Receives the connection. Free it with keepsock_client_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the accept timeout expired
 *   - KEEPSOCK_ERR_WOULD_BLOCK: non-blocking mode, and no connection is pending, 64 peers were
 *     rejected, or a transient error persists
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server, before the call or during it
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: non-blocking mode, and the process or the system has no free
 *     descriptor; or RLIMIT_NOFILE is too low for poll(2)
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object; or non-blocking mode,
 *     and the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: accept(2) failed with EOPNOTSUPP, a fatal error
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` or `client` is NULL
 *   - KEEPSOCK_ERR_OS: accept(2) failed with another fatal error; keepsock_error_os_error()
 *     returns its number
 * @note Several threads may accept at the same time. Each connection is returned to one of them. A
 *   service accepts on its server in the same way: use a server in an accept loop or in a service.
 */
int32_t keepsock_server_accept(keepsock_server *server, keepsock_client **client,
                               keepsock_error **error);

/**
 * Sets the accept timeout: how long keepsock_server_accept() waits.
 *
 * Calls that already wait keep their timeout. After a timeout was set, each accept costs one
 * poll(2) more. Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds above 0. KEEPSOCK_INFINITE means no limit.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` is NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking, or another error of the system
 */
int32_t keepsock_server_set_accept_timeout(keepsock_server *server, int64_t timeout_ms,
                                           keepsock_error **error);

/**
 * Sets the cancel token of keepsock_server_accept(), or removes it.
 *
 * Calls that already wait keep their token. A service uses the token that is set when it starts:
 * set the token before keepsock_server_serve() or keepsock_server_serve_events(). With a token
 * each accept costs one poll(2) more.
 *
 * After a token has ended a service, the server still listens, and new clients wait in its
 * backlog until the program serves it again, closes it or frees it. The token can then be set
 * again.
 *
 * @param cancel  A token, which the server shares: the caller may free it. NULL removes the token.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: a service of this process uses the server
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` is NULL
 */
int32_t keepsock_server_set_cancel(keepsock_server *server, const keepsock_cancel_token *cancel,
                                   keepsock_error **error);

/*
 * ---- 3. Event loops -----------------------------------------------------------------------------
 */

/**
 * Turns non-blocking mode on or off (O_NONBLOCK).
 *
 * In non-blocking mode keepsock_server_accept() returns KEEPSOCK_ERR_WOULD_BLOCK if no connection
 * is pending. Calls that already wait continue. After this call each blocking accept costs one
 * poll(2) more.
 *
 * @param on  true for non-blocking mode.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` is NULL
 *   - KEEPSOCK_ERR_OS: the descriptor cannot become non-blocking, or another error of the system
 */
int32_t keepsock_server_set_nonblocking(keepsock_server *server, bool on, keepsock_error **error);

/**
 * Borrows the descriptor of an endpoint, for poll(2) or an event loop. Do not close it.
 *
 * When it is readable, call keepsock_server_accept() in non-blocking mode, which accepts from
 * every endpoint.
 *
 * @param index  The position of the endpoint in keepsock_server_listen_all(), from 0. A server of
 *               keepsock_server_listen() has one endpoint, 0.
 * @param fd     Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: the server has no endpoint `index`
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` or `fd` is NULL
 */
int32_t keepsock_server_fd(const keepsock_server *server, size_t index, keepsock_fd *fd,
                           keepsock_error **error);

/**
 * Releases the descriptor: it continues to listen, and the caller owns and closes it.
 *
 * The object is then closed and must still be freed. The file of a Unix socket stays. The
 * descriptor has no SO_RCVTIMEO and SO_SNDTIMEO. It is in blocking mode unless
 * keepsock_server_set_nonblocking() was last called with true. A server of
 * keepsock_server_from_fd(), or with keepsock_options_set_handover(), stays non-blocking, because
 * other processes may share the socket.
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another thread is inside a call; a service uses the server; or the
 *     server has several endpoints
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` or `fd` is NULL
 */
int32_t keepsock_server_release_fd(keepsock_server *server, keepsock_fd *fd,
                                   keepsock_error **error);

/*
 * ---- 4. Endpoints and statistics ----------------------------------------------------------------
 */

/**
 * Returns the port that the server listens on.
 * @param server  A server, or NULL.
 * @return The port of the first endpoint; 0 for a Unix socket, for NULL and for a freed server.
 */
uint16_t keepsock_server_port(const keepsock_server *server);

/**
 * Writes an endpoint that the server listens on, with the port that the kernel chose.
 *
 * The text is for example "127.0.0.1:40123".
 *
 * @param index          The position of the endpoint in keepsock_server_listen_all(), from 0. A
 *                       server of keepsock_server_listen() has one endpoint, 0.
 * @param buf            Receives the text.
 * @param cap            The size of `buf`: 64 for every TCP endpoint.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: the server has no endpoint `index`
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is smaller than the required size; `buf` is unchanged
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` is NULL, or `buf` is NULL and `cap` is not 0
 */
int32_t keepsock_server_endpoint(const keepsock_server *server, size_t index, char *buf, size_t cap,
                                 size_t *required_size, keepsock_error **error);

/** The counters of a server since it began to listen, summed over its endpoints. */
typedef struct {
    /** Connections that keepsock_server_accept() returned, or that a service passed to its
        handler or callbacks. */
    uint64_t accepted;
    /** Retries after a transient error of accept(2). */
    uint64_t retried;
    /** Retries after the process or the system ran out of descriptors, memory or threads. */
    uint64_t exhausted;
    /** Connections reset because the service was full (KEEPSOCK_ACCEPT_POLICY_REJECT). */
    uint64_t rejected;
    /** Connections reset because their address had too many connections
        (keepsock_serve_options_set_max_per_address()). */
    uint64_t over_address_limit;
    /** Connections rejected because of their network or their user
        (keepsock_serve_options_add_allowed_network(),
        keepsock_serve_options_add_denied_network(), keepsock_options_add_allowed_uid()). */
    uint64_t denied;
    /** Connections closed because their peer is not a trusted proxy, and connections that were
        reset because the PROXY header was wrong or incomplete, or arrived late
        (keepsock_options_add_trusted_proxy()). A connection that keepsock_server_accept() had
        returned is also in `accepted`. */
    uint64_t proxy_rejected;
} keepsock_server_stats;

/**
 * Fills in a snapshot of the server's counters.
 *
 * The counters stay readable after keepsock_server_close().
 *
 * @param out  Receives the counters.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server` or `out` is NULL, or no version has this `size`
 */
int32_t keepsock_server_get_stats(const keepsock_server *server, keepsock_server_stats *out,
                                  size_t size, keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_SERVER_H */
