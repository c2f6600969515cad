/**
 * @file keepsock/activation.h
 * @brief Socket activation and restarts: sockets that another process passed to this one.
 *
 * A service manager such as systemd passes listening sockets to a process that it starts. A server
 * that restarts passes its listening sockets to its successor. keepsock_activation_listen() covers
 * three ways to start: from a shell, from a service manager, and as a successor.
 *
 * Contents
 *  1. Inherited sockets: keepsock_activation_from_env, keepsock_activation_clear_env,
 *     keepsock_activation_listen, keepsock_activation_bind, keepsock_activation_ready,
 *     keepsock_activation_free
 *  2. Inherited sockets by number: keepsock_activation_name, keepsock_activation_server,
 *     keepsock_activation_client, keepsock_activation_datagram
 *  3. Handover to a successor: keepsock_handover_start
 *
 * Where a call of systemd's library has a counterpart here:
 *   sd_listen_fds, sd_listen_fds_with_names  keepsock_activation_from_env
 *   unsetenv("LISTEN_FDS")                   keepsock_activation_clear_env
 *   sd_notify("READY=1") to a predecessor    keepsock_activation_ready
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_ACTIVATION_H
#define KEEPSOCK_ACTIVATION_H

#include "basics.h"
#include "options.h"
#include "client.h"
#include "server.h"
#include "datagrams.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Inherited sockets -----------------------------------------------------------------------
 */

/**
 * The sockets that another process passed to this one when it started it.
 *
 * The other process is a service manager such as systemd (LISTEN_FDS, sd_listen_fds(3)), or a
 * predecessor that this process replaces (keepsock_handover_start()). The same calls of
 * keepsock_activation_listen() and keepsock_activation_bind() start a server from a shell, by
 * socket activation, and as a successor.
 *
 * Threads: one thread at a time.
 */
typedef struct keepsock_activation keepsock_activation;

/**
 * Inherits the sockets that the environment variables announce, once (sd_listen_fds(3)).
 *
 * The descriptors become close-on-exec. A second call inherits nothing. The environment is
 * unchanged (keepsock_activation_clear_env()). Descriptors that are not sockets stay as they are.
 * A connection, as systemd passes it with Accept=yes, is inherited only by
 * keepsock_activation_client(); the program may pass its number to keepsock_client_from_fd()
 * instead.
 *
 * The function inherits nothing if LISTEN_PID or LISTEN_PIDFDID names another process. It also
 * inherits nothing, and logs why, if no announced descriptor was passed: each is closed or
 * close-on-exec, so this program opened it. The variables are then left over from before the
 * program executed itself again. On Windows nothing is inherited.
 *
 * Call it early, and before sd_listen_fds(3), which makes the descriptors close-on-exec. A socket
 * that the program opened without close-on-exec looks like a passed socket.
 *
 * @param activation  Receives the object. Free it with keepsock_activation_free().
 * @return KEEPSOCK_OK on success, also if nothing was passed, otherwise
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; a variable is not a number; the numbers of names and
 *     of descriptors differ; or only some of the descriptors were passed
 *   - KEEPSOCK_ERR_OS: the system failed to report the kind of a descriptor
 */
int32_t keepsock_activation_from_env(keepsock_activation **activation, keepsock_error **error);

/**
 * Removes the environment variables that keepsock_activation_from_env() reads (unsetenv(3)).
 *
 * These are LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES and the variable of
 * keepsock_handover_start(). Call it before the program executes itself again: the process ID
 * stays the same, so the variables would still name this process.
 *
 * @note Do not call it while another thread reads or changes the environment.
 */
void keepsock_activation_clear_env(void);

/**
 * Returns the inherited listening socket of an endpoint, or listens on the endpoint.
 *
 * If no inherited socket is bound to the endpoint, the function works like
 * keepsock_server_listen() with keepsock_options_set_handover(). "*:80" matches a socket that
 * accepts IPv4 and IPv6, "[::]:80" a socket that accepts IPv6 only. Port 0 matches a listener
 * whose port the kernel assigned in the first process of the chain, and never a socket of a
 * service manager. A Unix socket is not matched if its path now names a different file.
 *
 * The options apply in both cases. A listener of a predecessor gets them in
 * keepsock_activation_ready(), because the predecessor still uses it: if this process fails,
 * nothing has changed. Connections accepted earlier keep the predecessor's options. An inherited
 * socket keeps its backlog, unless the options set one, and the mode and the owner of its Unix
 * socket file.
 *
 * @param endpoint  The endpoint to listen on.
 * @param options   Socket options, copied. NULL for the defaults.
 * @param server    Receives the server. Free it with keepsock_server_free().
 * @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
 *   - KEEPSOCK_ERR_WRONG_STATE: the inherited socket is a stream socket and `options` request
 *     SOCK_SEQPACKET, or the reverse; or `options` request Multipath TCP and the socket lacks it
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse, is a multicast or broadcast
 *     address, or is a link-local IPv6 address without a zone; or this machine has no such zone or
 *     interface
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
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_listen(keepsock_activation *activation, const char *endpoint,
                                   const keepsock_options *options, keepsock_server **server,
                                   keepsock_error **error);

/**
 * Returns the inherited datagram socket of an endpoint, or binds to the endpoint.
 *
 * If no inherited UDP or Unix socket is bound to the endpoint and not connected, the function
 * works like keepsock_datagram_bind() with keepsock_options_set_handover(). Endpoints match as in
 * keepsock_activation_listen(), and options apply as in keepsock_activation_datagram(). An
 * inherited UDP socket stays bound to its interface.
 *
 * @param endpoint  The local endpoint.
 * @param options   Socket options, copied. NULL for the defaults.
 * @param datagram  Receives the socket. Free it with keepsock_datagram_free().
 * @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
 *   - KEEPSOCK_ERR_WRONG_STATE: the inherited socket is not a datagram socket
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
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_bind(keepsock_activation *activation, const char *endpoint,
                                 const keepsock_options *options, keepsock_datagram **datagram,
                                 keepsock_error **error);

/**
 * Notifies the predecessor that this process serves, so that the predecessor drains and exits.
 *
 * Call it after everything that may fail has succeeded. Until then, if this process exits or frees
 * the object, the predecessor continues as before. A second call, and a call without a
 * predecessor, do nothing.
 *
 * Before it notifies, the function sets the options of servers from the predecessor, and
 * keepsock_options_set_udp_gro() of datagram sockets. From then on this process removes the files
 * of Unix sockets. The library closes listening sockets and datagram sockets that the program did
 * not request: clients would connect to them and never be accepted.
 *
 * @return KEEPSOCK_OK on success, also if the predecessor has exited. If the kernel rejects an
 *   option, the predecessor is not notified:
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set the option
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the option
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: the predecessor does not read its socket, which is full, or another error of
 *     the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_ready(keepsock_activation *activation, keepsock_error **error);

/**
 * Closes the inherited sockets that the program did not request, and frees the object.
 *
 * An inherited connection (Accept=yes of systemd) stays open, because the standard input and
 * output of this process may be that connection.
 */
void keepsock_activation_free(keepsock_activation *activation);

/*
 * ---- 2. Inherited sockets by number -------------------------------------------------------------
 */

/**
 * Writes the name of an inherited socket that no call has adopted yet, in the order of the
 * descriptors.
 *
 * A call that adopts a socket, and keepsock_activation_ready(), change the list.
 *
 * @param index          From 0.
 * @param buf            Receives the text.
 * @param cap            The size of `buf`.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: no socket has that index
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_activation_name(const keepsock_activation *activation, size_t index, char *buf,
                                 size_t cap, size_t *required_size, keepsock_error **error);

/**
 * Returns all inherited listening sockets of a name as one server.
 *
 * The name is FileDescriptorName= of systemd, or the name that the predecessor gave; without one
 * it is "unknown". The options apply as in keepsock_activation_listen(). Datagram sockets of that
 * name stay for keepsock_activation_datagram(): systemd gives all sockets of a unit the same name.
 *
 * @param name     The name.
 * @param options  Socket options, copied. NULL for the defaults.
 * @param server   Receives the server. Free it with keepsock_server_free().
 * @return KEEPSOCK_OK on success. After a failure the sockets stay in `activation`:
 *   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
 *   - KEEPSOCK_ERR_WRONG_STATE: no descriptor is a listening socket, or one is neither that nor a
 *     datagram socket; stream and SOCK_SEQPACKET sockets are mixed; or a socket lacks the
 *     SOCK_SEQPACKET or Multipath TCP of `options`. The error says which
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface of `options` does not exist
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_server(keepsock_activation *activation, const char *name,
                                   const keepsock_options *options, keepsock_server **server,
                                   keepsock_error **error);

/**
 * Returns the first inherited connection of a name, as systemd passes it with Accept=yes.
 *
 * systemd names the descriptor "connection". Other sockets of that name stay.
 *
 * @param name     The name.
 * @param options  Socket options, copied. NULL for the defaults.
 * @param client   Receives the connection. Free it with keepsock_client_free().
 * @return KEEPSOCK_OK on success. After a failure the connection stays in `activation`:
 *   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
 *   - KEEPSOCK_ERR_WRONG_STATE: no socket of that name is a connection, or the program closed
 *     the descriptor
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface of `options` does not exist
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not bind to the interface
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_client(keepsock_activation *activation, const char *name,
                                   const keepsock_options *options, keepsock_client **client,
                                   keepsock_error **error);

/**
 * Returns the first inherited datagram socket of a name, UDP or Unix. Other sockets of that name
 * stay.
 *
 * The function sets the options immediately: a predecessor, which shares the socket, receives with
 * them from then on. Only keepsock_options_set_udp_gro() is set in keepsock_activation_ready(): a
 * predecessor without that option takes several coalesced datagrams for one. Set it in both
 * processes, or stop receiving in the predecessor before the successor starts.
 *
 * @param name      The name.
 * @param options   Socket options, copied. NULL for the defaults.
 * @param datagram  Receives the socket. Free it with keepsock_datagram_free().
 * @return KEEPSOCK_OK on success. After a failure the socket stays in `activation`:
 *   - KEEPSOCK_ERR_NOT_FOUND: no socket has that name
 *   - KEEPSOCK_ERR_WRONG_STATE: no socket of that name is a datagram socket
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks an option
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an option is out of range or has no effect here
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_activation_datagram(keepsock_activation *activation, const char *name,
                                     const keepsock_options *options, keepsock_datagram **datagram,
                                     keepsock_error **error);

/*
 * ---- 3. Handover to a successor -----------------------------------------------------------------
 */

/**
 * A socket for the successor, and the name under which it requests the socket. Later versions
 * add no members.
 */
typedef struct {
    const char *name;                   /**< 1 to 255 bytes of printable ASCII without ':'. */
    const keepsock_server *server;      /**< A server with all of its endpoints, or NULL. */
    const keepsock_datagram *datagram;  /**< A datagram socket, or NULL. One of the two is set. */
} keepsock_handover_item;

/**
 * Starts a successor of this process, passes listening sockets to it, and waits until it is ready.
 *
 * The socket listens without interruption, so no client is refused. After
 * keepsock_activation_ready() in the successor, both processes accept. This process should then
 * drain its connections and exit; the successor accepts the connections that are in the listen
 * queue.
 *
 * @code
 * keepsock_activation *activation = NULL;
 * keepsock_server *server = NULL;
 * keepsock_service *service = NULL;
 * int started = keepsock_activation_from_env(&activation, NULL) == KEEPSOCK_OK
 *     && keepsock_activation_listen(activation, "*:8080", NULL, &server, NULL) == KEEPSOCK_OK
 *     && keepsock_server_serve(server, NULL, handler, NULL, &service, NULL) == KEEPSOCK_OK
 *     && keepsock_activation_ready(activation, NULL) == KEEPSOCK_OK;
 * // When a new version takes over, for example on SIGHUP:
 * keepsock_handover_item item = {"http", server, NULL};
 * if (started && keepsock_handover_start(NULL, &item, 1, 10000, NULL, NULL, NULL) == KEEPSOCK_OK) {
 *     keepsock_service_stop(service, NULL);
 *     keepsock_service_wait(service, 5000, NULL);
 *     keepsock_service_drain(service, 30000, NULL, NULL, NULL);
 * }
 * @endcode
 *
 * The sockets must have keepsock_options_set_handover(), or be adopted or inherited. If this
 * process owns the file of a Unix socket, the successor owns it from then on. If the successor
 * exits or is not ready in time, the library kills it, the error says why, and this process
 * continues as before. Connections that a killed successor accepted are reset. A successor that
 * runs as another user cannot be killed, and continues; the error says so.
 *
 * The successor is exactly the started process. A script that prepares something must end with
 * exec. A program that forks into the background counts as exited. Other processes that the
 * successor starts are not killed with it. If they inherit the sockets, the sockets listen until
 * these processes exit, although they may not accept.
 *
 * In the successor no signal is blocked, and all signals that this process does not ignore, and
 * SIGPIPE, have their default disposition. The environment is inherited except WATCHDOG_PID of
 * systemd, which names this process. Notify systemd of the new process (MAINPID= of sd_notify(3)).
 *
 * @param argv        The program, a path or a name to search in PATH, and its arguments; the last
 *                    pointer is NULL. NULL starts this program again with its original arguments,
 *                    also if it has overwritten them (setproctitle); this needs glibc, and no
 *                    dlopen(3) after they were overwritten. It starts the file that now has the
 *                    program's name. If the program was started by a symbolic link, that is the
 *                    file that the link named: pass the link here if it may name another file now.
 * @param items       The sockets.
 * @param count       The number of sockets, at least 1.
 * @param timeout_ms  The time for the successor to be ready: milliseconds, greater than 0, or
 *                    KEEPSOCK_INFINITE. It does not cover fork(2).
 * @param cancel      A token that ends the wait and the successor. NULL for none.
 * @param pid         Receives the process ID of the successor, a child of this process.
 * @param error       If the successor exited, the message has its exit status.
 * @return KEEPSOCK_OK if the successor is ready, otherwise
 *   - KEEPSOCK_ERR_END_OF_STREAM: the successor exited, or freed its activation, before it was
 *     ready
 *   - KEEPSOCK_ERR_MALFORMED: the successor, or a process that it started, wrote other bytes to
 *     the socket of the handover than keepsock_activation_ready() does
 *   - KEEPSOCK_ERR_TIMED_OUT: the successor was not ready in time
 *   - KEEPSOCK_ERR_CANCELLED: the cancel token was fired
 *   - KEEPSOCK_ERR_NOT_FOUND: the program does not exist
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the program cannot be executed
 *   - KEEPSOCK_ERR_WRONG_STATE: a socket lacks keepsock_options_set_handover(), or its handover
 *     is in progress
 *   - KEEPSOCK_ERR_CLOSED: a socket is closed
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory, or cannot create a process
 *   - KEEPSOCK_ERR_UNSUPPORTED: Windows
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, a name is not valid, or an item does not
 *     have exactly one socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_handover_start(const char *const *argv, const keepsock_handover_item *items,
                                size_t count, int64_t timeout_ms,
                                const keepsock_cancel_token *cancel, int64_t *pid,
                                keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_ACTIVATION_H */
