/**
 * @file keepsock/connect.h
 * @brief Connecting without blocking, looking up addresses, and reconnecting.
 *
 * keepsock_client_connect() in keepsock/client.h connects in one call. The functions here are for
 * programs with their own event loop, and for clients that must reconnect.
 *
 * Contents
 *  1. Connecting without blocking: keepsock_pending_connect_start,
 *     keepsock_pending_connect_socket, keepsock_pending_connect_set_watch,
 *     keepsock_pending_connect_fd, keepsock_pending_connect_next_timeout,
 *     keepsock_pending_connect_finish, keepsock_pending_connect_wait,
 *     keepsock_pending_connect_free
 *  2. Attempts of a pending connect: keepsock_pending_connect_attempt
 *  3. Looking up addresses: keepsock_lookup, keepsock_pending_lookup_start,
 *     keepsock_pending_lookup_fd, keepsock_pending_lookup_next_timeout,
 *     keepsock_pending_lookup_finish, keepsock_pending_lookup_wait, keepsock_pending_lookup_free
 *  4. Reconnecting: keepsock_reconnect_new, keepsock_reconnect_set_backoff,
 *     keepsock_reconnect_set_timeout, keepsock_reconnect_set_on_retry, keepsock_reconnect_connect,
 *     keepsock_reconnect_try_connect, keepsock_reconnect_next_timeout,
 *     keepsock_reconnect_set_watch, keepsock_reconnect_reset, keepsock_reconnect_free
 *
 * Where a BSD call has a counterpart here:
 *   getaddrinfo                           keepsock_lookup
 *   getaddrinfo_a                         keepsock_pending_lookup_start
 *   connect with O_NONBLOCK, EINPROGRESS  keepsock_pending_connect_start
 *   getsockopt(SO_ERROR)                  keepsock_pending_connect_finish
 *   poll(POLLOUT)                         keepsock_pending_connect_socket,
 *                                         keepsock_pending_connect_fd
 *   curl_multi_socket_action              keepsock_pending_connect_set_watch
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_CONNECT_H
#define KEEPSOCK_CONNECT_H

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
 * ---- 1. Connecting without blocking -------------------------------------------------------------
 */

/**
 * A connect in progress, for programs that wait in their own event loop or for several connects.
 *
 * The lookup, the race and the deadline are those of keepsock_client_connect(). Call
 * keepsock_pending_connect_finish() as long as it returns KEEPSOCK_ERR_WOULD_BLOCK. Three functions
 * report when to call it:
 *   - keepsock_pending_connect_socket(): the socket of the connection itself, for an endpoint with
 *     one address. Call finish when the socket is writable, and after
 *     keepsock_pending_connect_next_timeout().
 *   - keepsock_pending_connect_set_watch(): for every endpoint, callbacks that report each
 *     descriptor and each timeout.
 *   - keepsock_pending_connect_fd(): for every endpoint, one descriptor (not on Windows). Call
 *     finish when it is readable.
 *
 * Threads: one thread at a time. A call during another call, also from a callback, returns
 * KEEPSOCK_ERR_WRONG_STATE. A callback must not free the object.
 */
typedef struct keepsock_pending_connect keepsock_pending_connect;

/**
 * Starts connecting, without waiting (connect(2) with O_NONBLOCK).
 *
 * The function starts the lookup, or sends the first SYN.
 *
 * @param endpoint  The endpoint, as for keepsock_client_connect().
 * @param options   Socket options, copied. NULL for the defaults.
 * @param pending   Receives the object. Free it with keepsock_pending_connect_free().
 * @return KEEPSOCK_OK if the connect is in progress. keepsock_pending_connect_finish() returns
 *   all other failures of connecting.
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
 *     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
 *     endpoint is a multicast or broadcast address; or the zone of the local endpoint does not
 *     exist
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, an option has no effect on this kind of socket, or
 *     the local endpoint is a host name, whose lookup would wait
 *   - KEEPSOCK_ERR_NOT_FOUND: the local endpoint is not of the requested family
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the lookup of a name needs a descriptor, and none is free
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_connect_start(const char *endpoint, const keepsock_options *options,
                                       keepsock_pending_connect **pending, keepsock_error **error);

/**
 * Borrows the socket of the connection, for an event loop that has one descriptor for each
 * connection. Do not close it.
 *
 * It becomes writable when the connect has completed or failed: then call
 * keepsock_pending_connect_finish(). The connection has the same descriptor. After a failure the
 * descriptor stays open until keepsock_pending_connect_free().
 *
 * An address has one socket, and so has a Unix path. A host name may have several addresses, whose
 * sockets race: use keepsock_pending_connect_set_watch().
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the endpoint may have several addresses; the connect failed before
 *     it had a socket, and finish returns the reason; finish has returned the connection or the
 *     failure (a descriptor that was borrowed before stays open); or another call is in progress
 *   - KEEPSOCK_ERR_WOULD_BLOCK: the queue of the Unix listener is full (EAGAIN of connect(2)), and
 *     no descriptor reports when it has space again. The connect continues: call finish after
 *     keepsock_pending_connect_next_timeout(), or free the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_pending_connect_socket(const keepsock_pending_connect *pending, keepsock_fd *fd,
                                        keepsock_error **error);

/** How an event loop waits for a descriptor. */
typedef int32_t keepsock_watch;
enum {
    KEEPSOCK_WATCH_REMOVE = 0,  /**< No longer: remove the descriptor from the event loop. It is
                                     still open. */
    KEEPSOCK_WATCH_READ = 1,    /**< Until the descriptor is readable (POLLIN). */
    KEEPSOCK_WATCH_WRITE = 2    /**< Until the descriptor is writable (POLLOUT). */
};

/**
 * Called for each descriptor that an event loop has to wait for. See
 * keepsock_pending_connect_set_watch() and keepsock_reconnect_set_watch().
 *
 * @param fd     The descriptor.
 * @param watch  A keepsock_watch.
 * @param user   The pointer that the program passed with the callback.
 */
typedef void (*keepsock_on_watch)(keepsock_fd fd, int32_t watch, void *user);

/**
 * Called for each change of the time that an event loop has to wait. See
 * keepsock_pending_connect_set_watch() and keepsock_reconnect_set_watch().
 *
 * @param timeout_ms  The longest time to wait, in milliseconds. It replaces the time of the call
 *                    before. 0: call keepsock_pending_connect_finish() or
 *                    keepsock_reconnect_try_connect() when the library call that called the
 *                    callback has returned. KEEPSOCK_INFINITE: no limit.
 * @param user        The pointer that the program passed with the callback.
 */
typedef void (*keepsock_on_timeout)(int64_t timeout_ms, void *user);

/**
 * Sets callbacks that report the events that an event loop has to wait for, as
 * curl_multi_socket_action() does.
 *
 * The library calls them for everything that the connect waits for now, before this function
 * returns. Later keepsock_pending_connect_finish() and keepsock_pending_connect_free() call them.
 * Call keepsock_pending_connect_finish() when a descriptor is ready or the timeout has passed.
 *
 * The library reports KEEPSOCK_WATCH_REMOVE before it closes a descriptor, and also for the
 * connection that finish returns. So an event loop never has a descriptor that was closed or used
 * again. On Windows each descriptor is a SOCKET: of a connect, or of an event of the library.
 *
 * @code
 * static struct pollfd watched[16];
 * static int due = -1;
 *
 * static void on_watch(keepsock_fd fd, int32_t watch, void *user)
 * {
 *     int i = 0;
 *     while (i < 16 && watched[i].fd != fd)
 *         i++;
 *     if (i == 16) // A new descriptor. poll(2) ignores the negative numbers of free entries.
 *         for (i = 0; i < 15 && watched[i].fd >= 0; i++) {}
 *     watched[i].fd = watch == KEEPSOCK_WATCH_REMOVE ? -1 : fd;
 *     watched[i].events = watch == KEEPSOCK_WATCH_READ ? POLLIN : POLLOUT;
 * }
 *
 * static void on_timeout(int64_t timeout_ms, void *user)
 * {
 *     due = (int)timeout_ms;
 * }
 *
 * static keepsock_client *connect_in_loop(keepsock_pending_connect *pending)
 * {
 *     keepsock_client *client = NULL;
 *     for (int i = 0; i < 16; i++)
 *         watched[i].fd = -1;
 *     keepsock_pending_connect_set_watch(pending, on_watch, on_timeout, NULL, NULL);
 *     while (keepsock_pending_connect_finish(pending, &client, NULL) == KEEPSOCK_ERR_WOULD_BLOCK)
 *         poll(watched, 16, due);
 *     return client;
 * }
 * @endcode
 *
 * @param on_watch    Called for each descriptor. NULL: only the timeout is reported.
 * @param on_timeout  Called for each timeout. NULL: use keepsock_pending_connect_next_timeout().
 * @param user        Passed to the callbacks; valid until the object is freed.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `pending` is NULL
 */
int32_t keepsock_pending_connect_set_watch(keepsock_pending_connect *pending,
                                           keepsock_on_watch on_watch,
                                           keepsock_on_timeout on_timeout, void *user,
                                           keepsock_error **error);

/**
 * Returns one descriptor that covers all attempts, timers and the deadline (epoll(7),
 * kqueue(2)).
 *
 * The descriptor is readable when keepsock_pending_connect_finish() has something to do. It stays
 * the same until the connect has finished, and is readable then: remove it from the event loop.
 * The object keeps it; do not close it. The first call uses two descriptors.
 *
 * @param pending  A connect in progress.
 * @param fd       Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished, or another call is in progress
 *   - KEEPSOCK_ERR_UNSUPPORTED: no epoll or kqueue; use keepsock_pending_connect_set_watch()
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_connect_fd(keepsock_pending_connect *pending, keepsock_fd *fd,
                                    keepsock_error **error);

/**
 * Returns the time after which keepsock_pending_connect_finish() must be called.
 *
 * A program that waits for keepsock_pending_connect_fd() does not need it: that descriptor
 * becomes readable at the deadline as well. The value can be passed to poll(2): KEEPSOCK_INFINITE
 * is -1. It is at most 25 if a cancel token is set or a lookup is in progress, unless
 * keepsock_pending_connect_set_watch() or keepsock_pending_connect_fd() was called: the socket
 * alone does not report them.
 *
 * @param pending     A connect in progress.
 * @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
 *                    is due: there is no timeout, or the connect has finished. 0 means that finish
 *                    has a result.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_pending_connect_next_timeout(keepsock_pending_connect *pending,
                                              int64_t *timeout_ms, keepsock_error **error);

/**
 * Continues the connect without waiting, and returns the connection when there is one.
 *
 * The connection is in blocking mode: an event loop calls keepsock_client_set_nonblocking().
 *
 * @param pending  A connect in progress.
 * @param client   Receives the connection. Free it with keepsock_client_free().
 * @param error    KEEPSOCK_ERR_WOULD_BLOCK also stores an error object. The message
 *                 lists every attempt.
 * @return KEEPSOCK_OK if the connection is made, otherwise
 *   - KEEPSOCK_ERR_WOULD_BLOCK: the connect is in progress
 *   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
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
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
 *     0.0.0.0, or to a link-local address without a zone; or the zone or interface does not exist
 */
int32_t keepsock_pending_connect_finish(keepsock_pending_connect *pending, keepsock_client **client,
                                        keepsock_error **error);

/**
 * Waits until the connection is made or the connect timeout expires.
 * @param pending  A connect in progress.
 * @param client   Receives the connection. Free it with keepsock_client_free().
 * @param error    Its message lists every attempt.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the connect has finished already, or another call is in progress
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
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the name resolves to an address that no peer can have, such as
 *     0.0.0.0, or to a link-local address without a zone; or the zone or interface does not exist
 */
int32_t keepsock_pending_connect_wait(keepsock_pending_connect *pending, keepsock_client **client,
                                      keepsock_error **error);

/** Frees the object and cancels a connect in progress. A connection that it returned continues. */
void keepsock_pending_connect_free(keepsock_pending_connect *pending);

/*
 * ---- 2. Attempts of a pending connect -----------------------------------------------------------
 */

/**
 * Returns one attempt. The attempts that ended without a connection come first, in the order in
 * which they ended. The attempts in progress follow.
 *
 * The status of an attempt in progress is KEEPSOCK_ERR_WOULD_BLOCK, its stage is "connect", and
 * its duration is the time since its start. When one attempt wins, the other attempts in progress
 * end with KEEPSOCK_ERR_CLOSED.
 *
 * @param pending  A connect, in progress or finished.
 * @param index    From 0.
 * @param out      Receives the attempt.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: no attempt has that index
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_pending_connect_attempt(keepsock_pending_connect *pending, size_t index,
                                         keepsock_attempt *out, size_t size,
                                         keepsock_error **error);

/*
 * ---- 3. Looking up addresses --------------------------------------------------------------------
 */

/**
 * Looks up the addresses of an endpoint (getaddrinfo(3)) with a deadline.
 *
 * The addresses have the order in which keepsock_client_connect() tries them (RFC 6724, RFC 8305):
 * the families alternate. A numeric endpoint and "localhost" need no resolver. "*" has the wildcard
 * addresses, which only keepsock_server_listen() and keepsock_datagram_bind() accept. The port of a
 * service name is that of TCP.
 *
 * The options of a later connect may be passed: the lookup uses the family, the preferred family,
 * the connect timeout and the cancel token. If they have remote addresses, a connect tries these,
 * so they are the result. If the timeout expires after a name server has answered for one family,
 * the result has that family.
 *
 * A connect by a list of addresses does no lookup:
 * @code
 * keepsock_options *options;
 * keepsock_address found[8];
 * char text[64];
 * size_t count;
 *
 * if (keepsock_options_new(&options, NULL) != KEEPSOCK_OK ||
 *     keepsock_lookup("example.com:80", options, found, 8, &count, NULL) != KEEPSOCK_OK)
 *     return;
 * for (size_t i = 0; i < count && i < 8; i++)
 *     if (keepsock_address_text(&found[i], text, sizeof text, NULL, NULL) == KEEPSOCK_OK)
 *         keepsock_options_add_remote_address(options, text, NULL);
 * keepsock_client_connect("example.com:80", options, &client, NULL);
 * @endcode
 *
 * @param endpoint   The endpoint, as for keepsock_client_connect().
 * @param options    Socket options. NULL for the defaults.
 * @param addresses  Receives the first `cap` addresses.
 * @param cap        The number of elements of `addresses`.
 * @param count      Receives the number of addresses that were found, which may exceed `cap`.
 * @param error      keepsock_error_lookup_code() returns the code of getaddrinfo(3).
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
 *     family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone, `endpoint` does not parse, or it
 *     is a Unix path, which has no addresses
 *   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_lookup(const char *endpoint, const keepsock_options *options,
                        keepsock_address *addresses, size_t cap, size_t *count,
                        keepsock_error **error);

/**
 * A lookup in progress, for programs that wait in their own event loop.
 *
 * The result is that of keepsock_lookup(). Call keepsock_pending_lookup_finish() as long as it
 * returns KEEPSOCK_ERR_WOULD_BLOCK: when keepsock_pending_lookup_fd() is readable (not on Windows),
 * and on every platform after keepsock_pending_lookup_next_timeout().
 *
 * Threads: one thread at a time. A call during another call returns KEEPSOCK_ERR_WRONG_STATE.
 */
typedef struct keepsock_pending_lookup keepsock_pending_lookup;

/**
 * Starts a lookup, without waiting.
 * @param endpoint  The endpoint, as for keepsock_client_connect().
 * @param options   Socket options, as for keepsock_lookup(). NULL for the defaults.
 * @param pending   Receives the object. Free it with keepsock_pending_lookup_free().
 * @return KEEPSOCK_OK if the lookup is in progress. keepsock_pending_lookup_finish() returns all
 *   other failures.
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, or it is a Unix path, which has no
 *     addresses
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process or the kernel has no memory
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_lookup_start(const char *endpoint, const keepsock_options *options,
                                      keepsock_pending_lookup **pending, keepsock_error **error);

/**
 * Returns one descriptor that covers the lookup, its deadline and the cancel token (epoll(7), Linux
 * only).
 *
 * The descriptor is readable when keepsock_pending_lookup_finish() has something to do. It stays
 * the same until the lookup has finished, and is readable then: remove it from the event loop.
 * The object keeps it; do not close it. The first call uses two descriptors.
 *
 * @param pending  A lookup in progress.
 * @param fd       Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished, or another call is in progress
 *   - KEEPSOCK_ERR_UNSUPPORTED: no epoll or kqueue; use keepsock_pending_lookup_next_timeout()
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_lookup_fd(keepsock_pending_lookup *pending, keepsock_fd *fd,
                                   keepsock_error **error);

/**
 * Returns the time after which keepsock_pending_lookup_finish() must be called.
 *
 * Before the first keepsock_pending_lookup_fd() the time is at most 25 ms during the lookup, so a
 * program needs no descriptor. The value can be passed to poll(2): KEEPSOCK_INFINITE is -1.
 *
 * @param pending     A lookup in progress.
 * @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
 *                    is due. 0 means that finish has a result.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_pending_lookup_next_timeout(keepsock_pending_lookup *pending, int64_t *timeout_ms,
                                             keepsock_error **error);

/**
 * Continues the lookup without waiting, and returns the addresses when there are any.
 * @param pending    A lookup in progress.
 * @param addresses  Receives the first `cap` addresses.
 * @param cap        The number of elements of `addresses`.
 * @param count      Receives the number of addresses that were found, which may exceed `cap`.
 * @param error      KEEPSOCK_ERR_WOULD_BLOCK also stores an error object.
 * @return KEEPSOCK_OK if the lookup has a result, otherwise
 *   - KEEPSOCK_ERR_WOULD_BLOCK: the lookup is in progress
 *   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished already, or another call is in progress
 *   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
 *     family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone
 *   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_lookup_finish(keepsock_pending_lookup *pending,
                                       keepsock_address *addresses, size_t cap, size_t *count,
                                       keepsock_error **error);

/**
 * Waits until the lookup has a result or the connect timeout of its options expires.
 * @param pending    A lookup in progress.
 * @param addresses  Receives the first `cap` addresses.
 * @param cap        The number of elements of `addresses`.
 * @param count      Receives the number of addresses that were found, which may exceed `cap`.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the lookup has finished already, or another call is in progress
 *   - KEEPSOCK_ERR_NOT_FOUND: the host or the service does not exist, or has no address of the
 *     family
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: this machine lacks the zone
 *   - KEEPSOCK_ERR_TIMED_OUT: the connect timeout of `options` expired
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory, or the system starts no thread
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_pending_lookup_wait(keepsock_pending_lookup *pending, keepsock_address *addresses,
                                     size_t cap, size_t *count, keepsock_error **error);

/** Frees the object and abandons a lookup in progress. */
void keepsock_pending_lookup_free(keepsock_pending_lookup *pending);

/*
 * ---- 4. Reconnecting ----------------------------------------------------------------------------
 */

/**
 * Connects, and connects again after the connection was lost, with exponential backoff.
 *
 * It works only inside keepsock_reconnect_connect(), which waits, and
 * keepsock_reconnect_try_connect(), which is for an event loop. It starts no thread. Each try works
 * like keepsock_client_connect(): it looks the name up and applies every option again. The program
 * must send the messages again that were in transit on a lost connection.
 *
 * - The delay between tries is random, from 0 to a bound. The bound is 100 ms at first, doubles
 *   after each failure, and is at most 30 s ("full jitter", AWS Architecture Blog). So clients
 *   that lose their server at the same moment do not return at the same moment.
 * - The first try starts immediately. A connection that was made at least the longest delay (30 s)
 *   before the next keepsock_reconnect_connect() counts as a success, and the delays start again
 *   at 100 ms. A connection that was lost sooner counts as a failure: a server that accepts and
 *   immediately closes is retried with increasing delays. keepsock_reconnect_reset() overrides
 *   this.
 * - These errors are permanent and end the retries:
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT (such as port 0)
 *   - KEEPSOCK_ERR_UNSUPPORTED (this machine lacks the family or the option)
 *   - KEEPSOCK_ERR_PERMISSION_DENIED (the policy of this machine)
 *   - KEEPSOCK_ERR_CANCELLED
 *   - KEEPSOCK_ERR_NOT_FOUND and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE for a numeric address that the
 *     options exclude
 * - All other errors are retried, also a firewall that rejects (KEEPSOCK_ERR_UNREACHABLE),
 *   KEEPSOCK_ERR_NOT_FOUND for a name or a Unix path, and KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE for a
 *   local address that this machine does not have yet.
 *
 * Threads: one thread at a time. A call during another call, from another thread or from the
 * keepsock_on_retry callback, returns KEEPSOCK_ERR_WRONG_STATE. To end a call, fire the cancel
 * token of the options.
 */
typedef struct keepsock_reconnect keepsock_reconnect;

/**
 * Called before each delay, in the calling thread, for logging.
 *
 * The time that it takes is part of the delay. It may fire the cancel token. It must not free the
 * keepsock_reconnect.
 *
 * @param error    Why the last try failed, valid until the callback returns. NULL means that the
 *                 last try succeeded and its connection was lost.
 * @param tries    The number of failed tries of this connect.
 * @param wait_ms  The time until the next try in milliseconds, rounded up. The timeout may end
 *                 it sooner.
 * @param user     The pointer that the program passed with the callback.
 */
typedef void (*keepsock_on_retry)(const keepsock_error *error, uint32_t tries, int64_t wait_ms,
                                  void *user);

/**
 * Creates the object. It does not connect.
 * @param endpoint   The endpoint, as for keepsock_client_connect().
 * @param options    Socket options, copied. NULL for the defaults. Their connect timeout (30 s)
 *                   limits each try. Their cancel token also ends a delay, within 50 ms.
 * @param reconnect  Receives the object. Free it with keepsock_reconnect_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, or no peer can have the address
 *     ("*", 0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; or the
 *     local endpoint of the options is a multicast or broadcast address
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
 */
int32_t keepsock_reconnect_new(const char *endpoint, const keepsock_options *options,
                               keepsock_reconnect **reconnect, keepsock_error **error);

/**
 * Sets the bounds of the delays, and starts the delays again at the first bound.
 *
 * Each delay is a random time below its bound, on average half of it. Default: 100 ms and 30 s.
 *
 * @param first_ms    The first bound: 1 millisecond or more.
 * @param longest_ms  The longest bound: from `first_ms` to 86,400,000 milliseconds (24 hours).
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 */
int32_t keepsock_reconnect_set_backoff(keepsock_reconnect *reconnect, int64_t first_ms,
                                       int64_t longest_ms, keepsock_error **error);

/**
 * Sets the time that each keepsock_reconnect_connect() may take, including all tries and delays.
 *
 * It also applies to a keepsock_reconnect_try_connect() in progress, from the start of that
 * connect. Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 */
int32_t keepsock_reconnect_set_timeout(keepsock_reconnect *reconnect, int64_t timeout_ms,
                                       keepsock_error **error);

/**
 * Sets the callback that is called before each delay.
 * @param on_retry  The callback. NULL, the default, means none.
 * @param user      Passed to the callback; valid until the callback is replaced or the object is
 *                  freed.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `reconnect` is NULL
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 */
int32_t keepsock_reconnect_set_on_retry(keepsock_reconnect *reconnect, keepsock_on_retry on_retry,
                                        void *user, keepsock_error **error);

/**
 * Tries to connect until it succeeds.
 *
 * Call it for the first connection, and again after each connection was lost. The backoff
 * continues from call to call: a call waits for its delay first, even if the delay takes all of
 * its timeout.
 *
 * When the timeout expires, the status and the error are those of the last try, with the number
 * of tries and the time: "connect to 127.0.0.1:80: connection refused after 7 tries in 10.0 s".
 * If the timeout ended the last try early, the error is that of the try before. If there was
 * none, the status is KEEPSOCK_ERR_TIMED_OUT.
 *
 * @param client  Receives the connection. Free it with keepsock_client_free().
 * @param error   Its message lists every attempt of the last try.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
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
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: no peer can have the address of the endpoint or its name ("*",
 *     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
 *     endpoint is a multicast or broadcast address; or the zone or interface does not exist
 */
int32_t keepsock_reconnect_connect(keepsock_reconnect *reconnect, keepsock_client **client,
                                   keepsock_error **error);

/**
 * Connects, and retries, without waiting, for an event loop.
 *
 * The delays, the timeout and the errors after which the object retries are those of
 * keepsock_reconnect_connect(). After KEEPSOCK_ERR_WOULD_BLOCK, call the function again when a
 * descriptor is ready or a timeout has passed that the callbacks of keepsock_reconnect_set_watch()
 * report. After every other status, the next call starts to connect again: call the
 * function after a connection was lost, and send the login and the subscriptions of the new
 * connection when it returns KEEPSOCK_OK.
 *
 * @param client  Receives the connection, in blocking mode. Free it with keepsock_client_free().
 * @param error   KEEPSOCK_ERR_WOULD_BLOCK also stores an error object. The other messages list
 *                every attempt of the last try.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WOULD_BLOCK: the connect or a delay is in progress
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_NOT_FOUND: the host, the service or the Unix socket does not exist
 *   - KEEPSOCK_ERR_LOOKUP_FAILED: the resolver did not answer; trying again may help
 *   - KEEPSOCK_ERR_REFUSED: no process listens at any of the addresses
 *   - KEEPSOCK_ERR_UNREACHABLE: no route, or a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_RESET: the peer reset the connection while it was being made
 *   - KEEPSOCK_ERR_TIMED_OUT: the timeout expired before a try had ended
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token of `options` was fired
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the local address is taken, or no local port is free
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the local address does not belong to this machine
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids the connection
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the address family or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, an option has no effect on this kind of socket, or
 *     the local endpoint is a host name, whose lookup would wait
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: no peer can have the address of the endpoint or its name ("*",
 *     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
 *     endpoint is a multicast or broadcast address; or the zone or interface does not exist
 */
int32_t keepsock_reconnect_try_connect(keepsock_reconnect *reconnect, keepsock_client **client,
                                       keepsock_error **error);

/**
 * Returns the time after which keepsock_reconnect_try_connect() must be called, even if no
 * descriptor is ready.
 *
 * @param timeout_ms  Receives milliseconds, at most INT_MAX. KEEPSOCK_INFINITE means that no call
 *                    is due: there is no limit, or no connect is in progress.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_reconnect_next_timeout(const keepsock_reconnect *reconnect, int64_t *timeout_ms,
                                        keepsock_error **error);

/**
 * Sets callbacks that report the events that an event loop has to wait for during
 * keepsock_reconnect_try_connect().
 *
 * keepsock_pending_connect_set_watch() describes them, with an example. They are called for every
 * try and every delay, by keepsock_reconnect_try_connect(), the setters of the object and
 * keepsock_reconnect_free().
 *
 * @param on_watch    Called for each descriptor. NULL: only the timeout is reported.
 * @param on_timeout  Called for each timeout. NULL: use keepsock_reconnect_next_timeout().
 * @param user        Passed to the callbacks; valid until the object is freed.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `reconnect` is NULL
 */
int32_t keepsock_reconnect_set_watch(keepsock_reconnect *reconnect, keepsock_on_watch on_watch,
                                     keepsock_on_timeout on_timeout, void *user,
                                     keepsock_error **error);

/**
 * Starts the next try immediately, and the delays again at the first bound.
 *
 * Call it if a short connection has done its work, or if the program knows that the server is
 * available again.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_WRONG_STATE: another call is in progress
 */
int32_t keepsock_reconnect_reset(keepsock_reconnect *reconnect, keepsock_error **error);

/** Frees the object, and ends a connect in progress. A connection that it made continues. */
void keepsock_reconnect_free(keepsock_reconnect *reconnect);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_CONNECT_H */
