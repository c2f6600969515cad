/**
 * @file keepsock/serving.h
 * @brief Services: the library accepts connections, and serves them by threads or events.
 *
 * keepsock_server_serve() calls a handler in a thread for each connection. The handler uses the
 * blocking functions of keepsock/client.h. keepsock_server_serve_events() calls callbacks from one
 * or more event loops, for thousands of connections. Both return a keepsock_service.
 * keepsock/conn.h has the callbacks, and the functions of a connection of an event loop.
 *
 * Contents
 *  1. Serving with threads: keepsock_server_serve
 *  2. Serving by events: keepsock_server_serve_events, keepsock_service_add,
 *     keepsock_service_connect, keepsock_service_reconnect
 *  3. Posting, timers and iteration: keepsock_service_post, keepsock_service_add_timer,
 *     keepsock_service_remove_timer, keepsock_service_for_each
 *  4. Broadcasts: keepsock_service_broadcast
 *  5. Serve options: keepsock_serve_options_new, keepsock_serve_options_free,
 *     keepsock_serve_options_set_threads, keepsock_serve_options_set_stack_size,
 *     keepsock_serve_options_set_cpus
 *  6. Limits and access: keepsock_serve_options_set_max_connections,
 *     keepsock_serve_options_set_accept_policy, keepsock_serve_options_set_max_per_address,
 *     keepsock_serve_options_add_allowed_network, keepsock_serve_options_add_denied_network
 *  7. Framing and send queues: keepsock_serve_options_set_framing,
 *     keepsock_serve_options_set_queue_limit, keepsock_serve_options_set_overflow_policy
 *  8. Pausing and stopping a service: keepsock_service_pause_accept,
 *     keepsock_service_resume_accept, keepsock_service_drain, keepsock_service_stop,
 *     keepsock_service_wait_stopped, keepsock_service_wait, keepsock_service_free
 *  9. Statistics: keepsock_service_get_stats, keepsock_service_dump
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_SERVING_H
#define KEEPSOCK_SERVING_H

#include "basics.h"
#include "options.h"
#include "client.h"
#include "connect.h"
#include "server.h"
#include "conn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Serving with threads --------------------------------------------------------------------
 */

/**
 * A service: threads of the library that accept connections and serve them.
 *
 * - The server object may be freed before the service. If serving fails, the server still listens.
 * - If a server is served twice, the kernel gives each client to one of the two services. Stopping
 *   one of them closes the server and so ends accepting in both. Open connections continue.
 * - The threads have a stack of 2 MiB (keepsock_serve_options_set_stack_size()), and the signal
 *   mask of the thread that starts the service. To receive a signal in threads of the program
 *   only, block it before the start and unblock it in those threads afterwards.
 *
 * Threads: any thread may call any function at any time, with the exceptions that keepsock_handler
 * and keepsock_callbacks list. Only keepsock_service_free() requires that no other thread uses the
 * object, except in handlers and callbacks of the service.
 */
typedef struct keepsock_service keepsock_service;

/**
 * Options of keepsock_server_serve(), keepsock_server_serve_events() and
 * keepsock_datagram_serve().
 *
 * Serving rejects an option that has no effect there with KEEPSOCK_ERR_INVALID_ARGUMENT.
 *
 * Threads: no other thread may use the object while a thread sets an option.
 */
typedef struct keepsock_serve_options keepsock_serve_options;

/**
 * Serves one connection. keepsock_server_serve() calls it in a thread of the library, once for
 * each accepted connection.
 *
 * The library owns the connection. When the handler returns, the library closes the connection as
 * keepsock_client_close() does. To keep a connection, a handler releases its descriptor
 * (keepsock_client_release_fd()): the service then neither closes it nor waits for it.
 *
 * A handler may call every function on the connection and on the service, except that
 * keepsock_service_drain() and keepsock_service_wait() return KEEPSOCK_ERR_WRONG_STATE, and
 * that it must not call keepsock_service_free().
 *
 * @param client  The connection, valid until the handler returns.
 * @param user    The pointer that the program passed with the handler.
 * @note Handlers of different connections run at the same time.
 */
typedef void (*keepsock_handler)(keepsock_client *client, void *user);

/**
 * Serves each accepted connection in a thread of its own, and returns immediately.
 *
 * A handler that changes the signal mask of its thread restores it before it returns.
 *
 * @code
 * static void hello(keepsock_client *client, void *user)
 * {
 *     keepsock_client_write_str(client, "hello\n", NULL);
 * }
 *
 * keepsock_service *service = NULL;
 * if (keepsock_server_serve(server, NULL, hello, NULL, &service, NULL) == KEEPSOCK_OK)
 *     keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, NULL);
 * keepsock_service_free(service);
 * @endcode
 *
 * @param options  Serve options, copied. NULL for the defaults.
 * @param handler  The function that serves one connection.
 * @param user     Passed to `handler`; valid until keepsock_service_free() has returned.
 * @param service  Receives the service, before the first call of `handler`. Free it with
 *                 keepsock_service_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_UNSUPPORTED: the options have CPUs, which only Linux supports
 *   - KEEPSOCK_ERR_NO_MEMORY: a thread cannot be started, or this process has no memory for the
 *     object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server`, `handler` or `service` is NULL, or an option has no
 *     effect here (framing, send queues, limits by address on Unix sockets)
 */
int32_t keepsock_server_serve(keepsock_server *server, const keepsock_serve_options *options,
                              keepsock_handler handler, void *user, keepsock_service **service,
                              keepsock_error **error);

/*
 * ---- 2. Serving by events -----------------------------------------------------------------------
 */

/**
 * Serves many connections with few threads, one by default, and returns immediately.
 *
 * Each thread runs an event loop and calls the callbacks. An idle connection uses about a hundred
 * bytes and no processor time. Any thread may send to any connection.
 *
 * The event loops apply the heartbeat, idle timeout, first-byte timeout, dead_after and close
 * timeout of the server's options to the accepted connections. Read and write timeouts have no
 * effect, because no call waits.
 *
 * @code
 * static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
 * {
 *     keepsock_conn_send(conn, buf, len, NULL);
 * }
 *
 * keepsock_callbacks callbacks = {.size = sizeof callbacks, .on_data = on_data};
 * keepsock_service *service = NULL;
 * if (keepsock_server_serve_events(server, NULL, &callbacks, NULL, &service, NULL) == KEEPSOCK_OK)
 *     keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, NULL);
 * keepsock_service_free(service);
 * @endcode
 *
 * @param options    Serve options, copied. NULL for the defaults.
 * @param callbacks  The callbacks, copied.
 * @param user       Passed to every callback; valid until keepsock_service_free() has returned.
 * @param service    Receives the service, before the first callback runs. Free it with
 *                   keepsock_service_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: this process closed the server
 *   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a callback that is set,
 *     or the options have CPUs, which only Linux supports
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: a thread cannot be started, or this process or the kernel has no
 *     memory
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `server`, `callbacks` or `service` is NULL, no version has
 *     this `callbacks->size`, or an option is out of range or has no effect here. Options of the
 *     server without effect are saved SYNs, keepsock_options_set_keep_stats(), seqpacket, and the
 *     read and write timeouts, which apply to a keepsock_client only
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_server_serve_events(keepsock_server *server, const keepsock_serve_options *options,
                                     const keepsock_callbacks *callbacks, void *user,
                                     keepsock_service **service, keepsock_error **error);

/**
 * Moves a connection into an event-driven service.
 *
 * The library then treats it as an accepted connection, and calls on_open. The client object is
 * closed and must still be freed. The connection keeps the keepalive, dead_after, heartbeat, idle
 * timeout, first-byte timeout and close timeout that it was made with; the server's settings do not
 * apply. The limit per address does not count it.
 *
 * After on_open the library delivers the buffered bytes of `client` (keepsock_client_buffered()),
 * and then the bytes that it receives. `bytes_received` of the service does not count the buffered
 * bytes. A program that accepts in its own loop can thus read the first bytes of a connection, and
 * pass it to a service with the rest. keepsock_conn_detach() takes a connection out again. A
 * service that drains still accepts connections of this function, and calls on_drain for them.
 *
 * @param service    A service of keepsock_server_serve_events().
 * @param client     A connection that was connected, accepted, adopted or detached, or that was
 *   passed to a keepsock_handler. On failure it is unchanged.
 * @param conn_user  The first value of keepsock_conn_user(). May be NULL.
 * @param conn       Receives the connection, before on_open is called. May be NULL.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or serves the
 *     maximum number of connections; or the call comes from a forked child. Or `client` is a
 *     SOCK_SEQPACKET socket, awaits a PROXY header, has sent a part of a heartbeat, has an
 *     unfinished message of keepsock_client_write_message(), or is in use by another thread
 *   - KEEPSOCK_ERR_CLOSED: the service has ended, or this process closed `client`
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection. An earlier call
 *     on `client` has observed this end, or one of the next five
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_IDLE_TIMEOUT: the idle timeout or first-byte timeout has ended the connection
 *   - KEEPSOCK_ERR_HEARTBEAT_TIMEOUT: the heartbeat timeout has ended the connection
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for another connection
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `client` is NULL, or `client` was made with
 *     keepsock_options_set_keep_stats(), which has no effect here
 * @note May be called from inside callbacks.
 */
int32_t keepsock_service_add(keepsock_service *service, keepsock_client *client, void *conn_user,
                             keepsock_conn *conn, keepsock_error **error);

/**
 * Connects without waiting, and adds the connection to an event-driven service.
 *
 * The library calls on_open when the connection is established, or on_connect_failed. `conn_user`
 * identifies the connection in both. The keepalive, dead_after, heartbeat, idle timeout,
 * first-byte timeout and close timeout of `options` apply; the server's settings do not apply. The
 * limit per address does not count the connection.
 *
 * on_connect_failed receives the error of the connect, with each attempt. That includes an error of
 * the first attempt, which this call makes: the call returns KEEPSOCK_OK, and on_connect_failed
 * receives KEEPSOCK_ERR_NO_DESCRIPTORS or KEEPSOCK_ERR_REFUSED, for example. The status is
 * KEEPSOCK_ERR_WRONG_STATE if the service has reached the maximum number of connections by then,
 * and KEEPSOCK_ERR_CLOSED if the service has ended. A drain cancels pending connects when it ends.
 *
 * @param service    A service of keepsock_server_serve_events().
 * @param endpoint   The endpoint, as for keepsock_client_connect().
 * @param options    Socket options, copied. NULL for the defaults.
 * @param conn_user  The first value of keepsock_conn_user(). May be NULL.
 * @return KEEPSOCK_OK if the connect is in progress, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: `endpoint` does not parse; no peer can have its address ("*",
 *     0.0.0.0, [::], port 0, multicast, broadcast); a link-local address has no zone; the local
 *     endpoint is a multicast or broadcast address; or the zone or interface does not exist
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or serves the
 *     maximum number of connections (keepsock_serve_options_set_max_connections()); or the call
 *     comes from a forked child
 *   - KEEPSOCK_ERR_CLOSED: the service has ended
 *   - KEEPSOCK_ERR_NOT_FOUND: the local endpoint is not of the requested family
 *   - KEEPSOCK_ERR_UNSUPPORTED: this system lacks the kind of socket or an option
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers, or no thread can be
 *     started for the lookup
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `endpoint` is NULL, an option has no effect on
 *     this kind of connection, or the local endpoint is a host name, whose lookup would wait
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 * @note May be called from inside callbacks, for example by a proxy.
 */
int32_t keepsock_service_connect(keepsock_service *service, const char *endpoint,
                                 const keepsock_options *options, void *conn_user,
                                 keepsock_error **error);

/**
 * Keeps one connection to a peer: connects, and connects again after the connection was lost.
 *
 * It returns without waiting, and needs no thread. The service adds each connection, as
 * keepsock_service_connect() does, with the same `conn_user`, and calls on_open: send the login and
 * the subscriptions there. The backoff, the timeout and the keepsock_on_retry callback are those of
 * `reconnect`.
 *
 * - After on_close with another reason than KEEPSOCK_CLOSE_LOCAL, exactly one call of on_open or
 *   on_connect_failed follows. The keepsock_on_retry callback is called before each delay, in a
 *   thread of the service.
 * - After KEEPSOCK_CLOSE_LOCAL the service does not connect again, and calls neither: the program
 *   called keepsock_conn_close() or keepsock_conn_abort(). The same holds after
 *   keepsock_conn_detach() (KEEPSOCK_CLOSE_DETACHED). A close after the peer's FIN has the
 *   reason KEEPSOCK_CLOSE_PEER_CLOSED, so the service connects again.
 * - on_connect_failed ends the reconnecting. Its status is one of keepsock_reconnect_try_connect():
 *   a permanent error, KEEPSOCK_ERR_CANCELLED by the token of the options, or the last error when
 *   the timeout of `reconnect`, which counts from each loss, has expired. The token does not end
 *   an open connection.
 * - If a connection was open for less than the longest delay, the delays become longer: a peer that
 *   accepts and immediately closes is contacted as rarely as one that refuses. While the service
 *   serves the maximum number of connections, it closes the new connection and tries again after a
 *   delay.
 * - Once accepting has stopped, the service does not connect again: after keepsock_service_stop(),
 *   keepsock_service_drain(), a close or the cancel token of the server, or an error. A delay or a
 *   try in progress ends immediately, and on_connect_failed receives KEEPSOCK_ERR_CLOSED. An open
 *   connection continues, or is drained. keepsock_service_free() does the same and resets the
 *   open connections. For a service with outgoing connections only, call
 *   keepsock_service_pause_accept().
 *
 * @code
 * static void on_open(keepsock_conn conn, void *user)
 * {
 *     keepsock_conn_send(conn, "SUBSCRIBE news\r\n", 16, NULL);
 * }
 *
 * keepsock_error *error = NULL;
 * keepsock_reconnect *reconnect = NULL;
 * if (keepsock_reconnect_new("news.example:6379", NULL, &reconnect, &error) == KEEPSOCK_OK)
 *     keepsock_service_reconnect(service, &reconnect, NULL, &error);
 * keepsock_reconnect_free(reconnect);
 * keepsock_error_print("news", &error);
 * @endcode
 *
 * @param service    A service of keepsock_server_serve_events().
 * @param reconnect  The variable of a keepsock_reconnect. On success the library takes the object
 *                   and sets the variable to NULL. A connect in progress and its watch end. On
 *                   failure both are unchanged. The `user` pointer of the keepsock_on_retry
 *                   callback stays in use until on_connect_failed, on_close with
 *                   KEEPSOCK_CLOSE_LOCAL, or the end of the service.
 * @param conn_user  The first value of keepsock_conn_user() of each connection. May be NULL.
 * @return KEEPSOCK_OK if the service connects, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(); another call on the
 *     object is in progress; or the call comes from a forked child
 *   - KEEPSOCK_ERR_CLOSED: accepting has stopped
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service`, `reconnect` or the object is NULL, or an option of
 *     the object has no effect on connections of a service
 * @note May be called from inside callbacks.
 */
int32_t keepsock_service_reconnect(keepsock_service *service, keepsock_reconnect **reconnect,
                                   void *conn_user, keepsock_error **error);

/*
 * ---- 3. Posting, timers and iteration -----------------------------------------------------------
 */

/**
 * A function that an event loop calls: keepsock_service_post().
 * @param user  The pointer that the program passed with the function.
 */
typedef void (*keepsock_service_callback)(void *user);

/**
 * Calls a function in the thread of the first event loop, and returns immediately.
 *
 * The functions of a service are called one at a time, in the order in which they were posted. With
 * one thread, the default, all callbacks run in the same thread. keepsock_conn_post() posts to the
 * loop of a connection.
 *
 * If this call returns KEEPSOCK_OK, the function is called exactly once: keepsock_service_wait(),
 * keepsock_service_drain() and keepsock_service_free() return after it. If this call fails, the
 * function is not called. The loop calls at most 64 functions before it handles other events. A
 * function may post itself again, until the service has ended.
 *
 * @param service   A service of keepsock_server_serve_events().
 * @param function  The function.
 * @param user      Passed to the function. May be NULL.
 * @return KEEPSOCK_OK if the function will be called, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the service has ended, by keepsock_service_drain() or
 *     keepsock_service_free()
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
 *     from a forked child
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the function
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL
 * @note May be called from inside callbacks and functions, and not from a signal handler.
 */
int32_t keepsock_service_post(keepsock_service *service, keepsock_service_callback function,
                              void *user, keepsock_error **error);

/**
 * The function of a timer: keepsock_service_add_timer().
 * @param timer  The id of the timer.
 * @param user   The pointer that the program passed with the function.
 */
typedef void (*keepsock_timer_callback)(uint64_t timer, void *user);

/**
 * Sets a timer: calls a function after a delay, once or repeatedly.
 *
 * The function is called in the thread of the first event loop, as those of
 * keepsock_service_post(). A timer does not expire early. If the loop is idle, it expires about
 * 1 ms late. The clock is monotonic. A repeating timer keeps its rate. Periods that pass while
 * the process is stopped or the loop is in a callback are skipped, except for one call.
 *
 * A timer does not keep the service from ending. Once keepsock_service_drain() or
 * keepsock_service_free() has ended the service, no function is called, and the timers are removed.
 *
 * @code
 * static void tick(uint64_t timer, void *user)
 * {
 *     keepsock_service_broadcast(user, NULL, "tick\n", 5, NULL, NULL, NULL, NULL, NULL);
 * }
 *
 * keepsock_service_add_timer(service, 1000, 1000, tick, service, NULL, NULL);
 * @endcode
 *
 * @param service      A service of keepsock_server_serve_events().
 * @param delay_ms     Milliseconds until the first call, from 0.
 * @param interval_ms  Milliseconds between calls. 0: the function is called once.
 * @param function     The function.
 * @param user         Passed to the function. May be NULL. It must be valid until the function was
 *                     called once, the timer was removed, or the service has ended.
 * @param timer        Receives the id of the timer, which is not used twice in a service.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the service has ended
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
 *     from a forked child
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the timer
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL, or a time is negative
 * @note May be called from inside callbacks and functions, and not from a signal handler.
 */
int32_t keepsock_service_add_timer(keepsock_service *service, int64_t delay_ms, int64_t interval_ms,
                                   keepsock_timer_callback function, void *user, uint64_t *timer,
                                   keepsock_error **error);

/**
 * Removes a timer. Its function is not called again.
 *
 * A function may remove its own timer. A call that is in progress in another thread continues. To
 * free `user` after that call, post a function (keepsock_service_post()) that frees it: both are
 * called in the same thread.
 *
 * @param service  A service of keepsock_server_serve_events().
 * @param timer    The id of the timer.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the timer has expired and does not repeat, or was removed; the
 *     service is one of keepsock_server_serve(); or the call comes from a forked child
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL
 * @note May be called from inside callbacks and functions.
 */
int32_t keepsock_service_remove_timer(keepsock_service *service, uint64_t timer,
                                      keepsock_error **error);

/**
 * Calls a function for each open connection of an event-driven service, in the calling thread.
 *
 * The list of connections is taken at the start. It contains the connections whose on_open has been
 * called, also in other event loops, and those of keepsock_service_add() and
 * keepsock_service_connect(). The function is not called for a connection that has ended before.
 * A connection may end at any time, also during the function; calls with its keepsock_conn then
 * return KEEPSOCK_ERR_WRONG_STATE or KEEPSOCK_ERR_CLOSED. The function may call every function that
 * the calling thread may call.
 *
 * @code
 * static void drop_if_slow(keepsock_conn conn, void *user)
 * {
 *     if (keepsock_conn_queued(conn) > 1000000)
 *         keepsock_conn_abort(conn, NULL);
 * }
 *
 * keepsock_service_for_each(service, drop_if_slow, NULL, NULL);
 * @endcode
 *
 * @param service   A service of keepsock_server_serve_events().
 * @param function  The function.
 * @param user      Passed to the function. May be NULL.
 * @return KEEPSOCK_OK after the last call of the function, also if there is no connection,
 *   otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the service is one of keepsock_server_serve(), or the call comes
 *     from a forked child
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the list; the function was not called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `function` is NULL
 */
int32_t keepsock_service_for_each(keepsock_service *service, keepsock_conn_callback function,
                                  void *user, keepsock_error **error);

/*
 * ---- 4. Broadcasts ------------------------------------------------------------------------------
 */

/**
 * Sends a message to all connections of a service or of a group, and waits for no slow client.
 *
 * Connections that are closing, or whose write side is shut down, are skipped.
 *
 * - keepsock_server_serve_events(): bytes that the kernel of a client does not accept immediately
 *   are queued, up to keepsock_serve_options_set_queue_limit(). The queues share one copy of the
 *   message for each framing. If this process has no memory for it, the overflow policy applies to
 *   these clients.
 * - keepsock_server_serve(): a client whose kernel does not accept the whole message immediately
 *   is reset, and calls on its connection return KEEPSOCK_ERR_CLOSED. If other threads are writing
 *   to connections, the function waits for them, 100 ms in total. Keep messages much smaller than
 *   the send buffer of the kernel (a few hundred KiB): a larger message also resets fast readers.
 *
 * @param group    The name of a group, which may have no connections. NULL sends to all
 *                 connections.
 * @param buf      The message.
 * @param len      Its length in bytes.
 * @param sent     Receives the number of connections whose kernel accepted the message, or for
 *                 which it is queued.
 * @param reset    Receives the number of connections that the service resets, because they are
 *                 slow consumers or have failed.
 * @param dropped  Receives the number of connections counted in `sent` for which the service
 *                 dropped this message or older messages (KEEPSOCK_OVERFLOW_POLICY_DROP_OLDEST).
 * @param rejected  Receives the number of connections to which the message is not sent, because it
 *                 does not fit their own framing (keepsock_conn_set_framing()), or alone exceeds
 *                 their own queue limit (keepsock_conn_set_queue_limit()).
 * @return KEEPSOCK_OK on success. Otherwise the message is sent to no connection:
 *   - KEEPSOCK_ERR_TOO_LONG: the message alone exceeds the queue limit
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the list of the group's members
 *   - KEEPSOCK_ERR_WRONG_STATE: `group` is not NULL, and the service is one of
 *     keepsock_server_serve(), which has no groups; or the call comes from a forked child; the
 *     service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL, `buf` is NULL and `len` is not 0, `group`
 *     is not UTF-8, or a peer would not receive the message unchanged (keepsock_framing)
 * @note May be called from inside handlers and callbacks.
 */
int32_t keepsock_service_broadcast(keepsock_service *service, const char *group, const void *buf,
                                   size_t len, uint32_t *sent, uint32_t *reset, uint32_t *dropped,
                                   uint32_t *rejected, keepsock_error **error);

/*
 * ---- 5. Serve options ---------------------------------------------------------------------------
 */

/**
 * Creates serve options with the default values.
 * @param options  Receives the options. Free them with keepsock_serve_options_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL
 */
int32_t keepsock_serve_options_new(keepsock_serve_options **options, keepsock_error **error);

/** Frees serve options. Services that were started with them continue. */
void keepsock_serve_options_free(keepsock_serve_options *options);

/**
 * Sets the number of threads that serve.
 *
 * - keepsock_server_serve(): a fixed pool, which starts immediately. Each thread serves one
 *   connection at a time, and the accept policy decides about further clients. Default: no pool;
 *   the service starts a thread for each connection when it is needed.
 * - keepsock_server_serve_events(): at most 256 event loops, which share the connections. Default:
 *   1, so no two callbacks run at the same time. One event loop also accepts, so a callback that
 *   blocks delays new clients. With two or more event loops another thread accepts. It gives a new
 *   connection to the event loop with the fewest connections, and avoids an event loop that has
 *   been in callbacks for 40 ms while another is free.
 * - keepsock_datagram_serve(): at most 1,024 threads, which receive. Default: 1.
 *
 * @param threads  Threads, above 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `threads` is 0
 */
int32_t keepsock_serve_options_set_threads(keepsock_serve_options *options, uint32_t threads,
                                           keepsock_error **error);

/**
 * Sets the stack size of the threads that run handlers or callbacks.
 *
 * The system rounds it up to whole pages. A handler that overflows its stack terminates the
 * process. Default: 2 MiB, also if threads of the program have more (commonly 8 MiB).
 *
 * @param bytes  Bytes, from 65,536 to 1,073,741,824.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `bytes` is out of range
 */
int32_t keepsock_serve_options_set_stack_size(keepsock_serve_options *options, size_t bytes,
                                              keepsock_error **error);

/**
 * Sets the CPUs of the threads that run handlers or callbacks (sched_setaffinity(2)).
 *
 * Thread `i` runs on the CPU `cpus[i % count]` only. The first threads are the event loops; with
 * two or more event loops the thread that accepts follows them. keepsock_server_serve() requires a
 * fixed number of threads for it (keepsock_serve_options_set_threads()). The function that serves
 * returns KEEPSOCK_ERR_INVALID_ARGUMENT for a CPU that does not exist or that the process may not
 * use, and KEEPSOCK_ERR_UNSUPPORTED on other systems than Linux. Default: any CPU.
 *
 * @param cpus   The numbers of the CPUs, from 0, copied.
 * @param count  The number of elements. 0 means any CPU.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `cpus` is NULL and `count` is not 0
 */
int32_t keepsock_serve_options_set_cpus(keepsock_serve_options *options, const uint32_t *cpus,
                                        size_t count, keepsock_error **error);

/*
 * ---- 6. Limits and access -----------------------------------------------------------------------
 *
 * The peer ends a TCP connection by FIN (KEEPSOCK_CLOSE_PEER_CLOSED) or by RST
 * (KEEPSOCK_CLOSE_PEER_RESET). An RST after its FIN is KEEPSOCK_CLOSE_PEER_RESET as well, because
 * the peer may not have received everything: on_eof runs, and on_close reports the reset.
 *
 * The service ends a TCP connection for these causes, and the peer receives FIN or RST:
 *
 *   cause                                     close reason                      the peer receives
 *   ----------------------------------------  --------------------------------  -----------------
 *   idle or first-byte timeout                KEEPSOCK_CLOSE_IDLE_TIMEOUT       FIN (1)
 *   heartbeat timeout                         KEEPSOCK_CLOSE_HEARTBEAT_TIMEOUT  RST (2)
 *   keepalive or dead_after: peer vanished    KEEPSOCK_CLOSE_DEAD or            RST, if it returns
 *                                             KEEPSOCK_CLOSE_UNREACHABLE        and sends
 *   fail_on_stall: peer does not read         KEEPSOCK_CLOSE_STALLED            RST
 *   queue limit: peer reads too slowly        KEEPSOCK_CLOSE_SLOW_CONSUMER      RST
 *   message longer than the framing permits   KEEPSOCK_CLOSE_MESSAGE_TOO_LONG   RST
 *   malformed length of a message             KEEPSOCK_CLOSE_MESSAGE_MALFORMED  RST
 *   file of keepsock_conn_send_file() fails   KEEPSOCK_CLOSE_FILE_FAILED        RST
 *   maximum of connections (REJECT) or per    none: the service counts the      RST
 *   address, denied network                   client in keepsock_server_stats
 *   keepsock_conn_close(), handler returned   KEEPSOCK_CLOSE_LOCAL              FIN (3)
 *   keepsock_conn_abort()                     KEEPSOCK_CLOSE_LOCAL              RST
 *   keepsock_conn_detach()                    KEEPSOCK_CLOSE_DETACHED           nothing
 *   broadcast to a slow client of threads (4) KEEPSOCK_CLOSE_SLOW_CONSUMER      RST
 *   drain: ended before the timeout           KEEPSOCK_CLOSE_LOCAL              FIN (3)
 *   drain: open at the end of the timeout     KEEPSOCK_CLOSE_LOCAL              RST
 *   keepsock_service_free()                   KEEPSOCK_CLOSE_LOCAL              RST
 *
 * (1) After the bytes that were sent. RST if bytes are left in the send queue.
 * (2) With keepsock_server_serve() the handler decides: its call returns the status. The peer
 *     receives FIN when the handler returns, and RST if the handler calls keepsock_client_abort().
 * (3) RST is possible if this side wrote nothing and did not read all received bytes.
 * (4) Also a client with an unfinished message of keepsock_client_write_message().
 */

/** How a service treats a client that connects while the maximum number of connections are open. */
typedef int32_t keepsock_accept_policy;
enum {
    KEEPSOCK_ACCEPT_POLICY_WAIT = 0,    /**< The client waits in the listen queue until a
                                             connection ends. */
    KEEPSOCK_ACCEPT_POLICY_REJECT = 1   /**< The service accepts the connection and resets it
                                             immediately. */
};

/**
 * Sets how many connections a service serves at the same time.
 *
 * The default of keepsock_server_serve() is 1,024, or the number of threads
 * (keepsock_serve_options_set_threads()) if that is greater. The default of
 * keepsock_server_serve_events() is 65,536, and its maximum is 16,760,832.
 *
 * @param max  Connections, above 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `max` is 0
 */
int32_t keepsock_serve_options_set_max_connections(keepsock_serve_options *options, uint32_t max,
                                                   keepsock_error **error);

/**
 * Sets how a service treats a new client while it serves the maximum number of connections.
 *
 * Default: KEEPSOCK_ACCEPT_POLICY_WAIT.
 *
 * @param accept_policy  A keepsock_accept_policy.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `accept_policy` is not a
 *     keepsock_accept_policy
 */
int32_t keepsock_serve_options_set_accept_policy(keepsock_serve_options *options,
                                                 int32_t accept_policy, keepsock_error **error);

/**
 * Limits the number of connections from one client address.
 *
 * For IPv6 the limit applies to the /64 network, which commonly belongs to one host. The service
 * accepts further connections of the address, resets them immediately and counts them
 * (`over_address_limit` of keepsock_server_stats). Unix clients have no address, so the limit does
 * not apply to them. A server that listens on Unix sockets only rejects the option.
 *
 * @param max  Connections. 0, the default: no limit.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL
 */
int32_t keepsock_serve_options_set_max_per_address(keepsock_serve_options *options, uint32_t max,
                                                   keepsock_error **error);

/**
 * Adds a network whose clients may connect.
 *
 * With one or more allowed networks, the service accepts connections from other networks, resets
 * them immediately and counts them (`denied` of keepsock_server_stats). Default: no allowed
 * network, so every client may connect.
 *
 * Networks apply to IP clients only. For Unix clients use the mode of the socket file and
 * keepsock_options_add_allowed_uid(). A server that listens on Unix sockets only rejects the
 * option.
 *
 * A network of IPv4-mapped addresses ("::ffff:192.0.2.0/120") is the IPv4 network. "::/0" is every
 * IPv6 address and no IPv4 address. Another network that contains the mapped addresses ("::/80")
 * is rejected, because its meaning for IPv4 clients is ambiguous.
 *
 * @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` or `network` is NULL, `network` does not parse, or
 *     it contains the IPv4-mapped addresses and more
 */
int32_t keepsock_serve_options_add_allowed_network(keepsock_serve_options *options,
                                                   const char *network, keepsock_error **error);

/**
 * Adds a network whose clients are rejected, also if an allowed network contains it.
 *
 * Default: no denied network. keepsock_serve_options_add_allowed_network() describes the syntax
 * and the rule for Unix clients.
 *
 * @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` or `network` is NULL, `network` does not parse, or
 *     it contains the IPv4-mapped addresses and more
 */
int32_t keepsock_serve_options_add_denied_network(keepsock_serve_options *options,
                                                  const char *network, keepsock_error **error);

/*
 * ---- 7. Framing and send queues -----------------------------------------------------------------
 */

/**
 * How a service with event loops treats a message that exceeds the
 * keepsock_serve_options_set_queue_limit() of a connection.
 */
typedef int32_t keepsock_overflow_policy;
enum {
    /** The service resets the connection. Its close reason is KEEPSOCK_CLOSE_SLOW_CONSUMER. */
    KEEPSOCK_OVERFLOW_POLICY_DISCONNECT = 0,
    /** The service drops the oldest queued messages, and counts them, until the new message
        fits. It drops whole messages only: a message that is partly sent stays in the queue. */
    KEEPSOCK_OVERFLOW_POLICY_DROP_OLDEST = 1
};

/**
 * Sets the framing of keepsock_server_serve_events().
 *
 * on_data receives one message at a time. keepsock_conn_send() and keepsock_service_broadcast()
 * send one message. A message that is too long closes its connection
 * (KEEPSOCK_CLOSE_MESSAGE_TOO_LONG), and so does a malformed one
 * (KEEPSOCK_CLOSE_MESSAGE_MALFORMED); other connections are not affected. Default:
 * KEEPSOCK_FRAMING_RAW, so on_data receives the bytes as they arrive.
 *
 * @code
 * const keepsock_framing lines = {
 *     .size = sizeof lines, .kind = KEEPSOCK_FRAMING_LINES, .max = 1024
 * };
 * keepsock_serve_options *options = NULL;
 * if (keepsock_serve_options_new(&options, NULL) == KEEPSOCK_OK)
 *     keepsock_serve_options_set_framing(options, &lines, NULL);
 * @endcode
 *
 * @param framing  The framing, copied.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, no version has this `framing->size`, or a member of
 *     `framing` is out of range or is set although its kind does not use it
 *   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member that is set
 */
int32_t keepsock_serve_options_set_framing(keepsock_serve_options *options,
                                           const keepsock_framing *framing, keepsock_error **error);

/**
 * Limits the send queue of each connection of keepsock_server_serve_events().
 *
 * The queue holds the bytes that the kernel does not accept yet. Each message counts its bytes,
 * those of its framing, and 88 bytes for the memory of its entry. Default: 1 MiB.
 *
 * The limit applies to pushed messages: broadcasts, and messages sent from a timer or drain
 * callback, from another connection's callback or from another thread. All queued bytes count.
 *
 * Replies (keepsock_conn_send()) are always queued. While more than 64 KiB of replies (a quarter
 * of the limit, if that is less) are queued, the library does not read from the connection. It
 * reads again when half of that is left. So one client uses at most the limit, that high-water
 * mark, and the replies of one callback. A queued file (keepsock_conn_send_file()) also holds a
 * descriptor; at most 16 files wait for one connection.
 *
 * @param bytes  Bytes, above 88. keepsock_server_serve_events() rejects a smaller limit.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL
 */
int32_t keepsock_serve_options_set_queue_limit(keepsock_serve_options *options, size_t bytes,
                                               keepsock_error **error);

/**
 * Sets what happens to a pushed message that exceeds the queue limit.
 *
 * Replies are not affected. Default: KEEPSOCK_OVERFLOW_POLICY_DISCONNECT.
 *
 * @param overflow_policy  A keepsock_overflow_policy.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or `overflow_policy` is not a
 *     keepsock_overflow_policy
 */
int32_t keepsock_serve_options_set_overflow_policy(keepsock_serve_options *options,
                                                   int32_t overflow_policy, keepsock_error **error);

/*
 * ---- 8. Pausing and stopping a service ----------------------------------------------------------
 */

/**
 * Pauses accepting: new clients wait in the listen queue until keepsock_service_resume_accept().
 *
 * The open connections continue. keepsock_options_set_backlog() sets the length of the queue.
 * keepsock_service_stop() and keepsock_service_drain() also end a pause. Pausing twice returns
 * KEEPSOCK_OK. With keepsock_server_serve(), each idle thread may already wait in accept(2): it
 * accepts one more client, whose handler runs after the pause. With event loops, a connection that
 * waits for its PROXY header is opened after the pause.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the service has stopped accepting
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL
 * @note May be called from inside handlers and callbacks.
 */
int32_t keepsock_service_pause_accept(keepsock_service *service, keepsock_error **error);

/**
 * Resumes accepting after keepsock_service_pause_accept().
 * @return KEEPSOCK_OK on success, also without a pause; otherwise
 *   - KEEPSOCK_ERR_CLOSED: the service has stopped accepting
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL
 * @note May be called from inside handlers and callbacks.
 */
int32_t keepsock_service_resume_accept(keepsock_service *service, keepsock_error **error);

/**
 * Drains the service: notifies the open connections, waits until they have ended, and resets the
 * rest.
 *
 * The function first stops accepting, as keepsock_service_stop() does. After the timeout it resets
 * the connections that are still open. A connection that is being closed is closed without a reset
 * if only the peer's FIN is missing.
 *
 * - keepsock_server_serve(): reads of the handlers return KEEPSOCK_ERR_DRAINING. Writes still
 *   work, so a handler can send a last message and return.
 * - keepsock_server_serve_events(): the library calls on_drain. A connection that is closed with
 *   bytes in its send queue has until the end of the timeout to send them, also if its close
 *   timeout is shorter.
 *
 * The function returns after the last callback of each connection, on_close, or after its handler
 * has returned. A handler or callback that waits, for example for a lock that the caller holds,
 * delays the function beyond the timeout.
 *
 * The kernel resets clients that were not accepted, unless another process accepts them
 * (keepsock_handover_start()). The function does not count them.
 *
 * Several threads may call the function. The earliest deadline applies. Each call, also a later
 * one, returns the counts since the first call. Neither count includes connections that
 * keepsock_conn_detach() has taken out.
 *
 * @param timeout_ms  Milliseconds. 0 resets all connections immediately. KEEPSOCK_INFINITE means
 *                    no limit.
 * @param completed   Receives the number of connections that ended in order: the peer closed its
 *                    side, or the service closed the connection after everything was sent. The
 *                    peer does not have to close its side by the deadline, if it has received
 *                    everything.
 * @param reset       Receives the number of connections that ended otherwise: a reset by either
 *                    side, a failure of the connection, a panic of the handler or callback, or
 *                    the deadline.
 * @return KEEPSOCK_OK on success, also if connections were reset, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from inside a handler or callback of the service, or
 *     from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL, or `timeout_ms` is out of range
 */
int32_t keepsock_service_drain(keepsock_service *service, int64_t timeout_ms, uint32_t *completed,
                               uint32_t *reset, keepsock_error **error);

/**
 * Stops accepting, and leaves the open connections as they are.
 *
 * The function closes the server, which cannot serve again. Stopping twice returns KEEPSOCK_OK.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL
 * @note May be called from inside handlers and callbacks.
 */
int32_t keepsock_service_stop(keepsock_service *service, keepsock_error **error);

/**
 * Waits until the service has stopped accepting. main() calls it while the service runs, and drains
 * the service afterwards.
 *
 * These events end accepting:
 *
 * - keepsock_service_stop(), keepsock_service_drain() or keepsock_server_close()
 * - the cancel token of the server is fired, which a signal handler may do
 * - accept(2) fails with a fatal error (keepsock_server_accept())
 *
 * @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
 * @return KEEPSOCK_OK if the program ended accepting, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the service still accepts
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_UNSUPPORTED: accept(2) failed with EOPNOTSUPP, which ended accepting
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_OS: accept(2) failed with another fatal error, which ended accepting
 * @note May be called from inside handlers and callbacks.
 */
int32_t keepsock_service_wait_stopped(keepsock_service *service, int64_t timeout_ms,
                                      keepsock_error **error);

/**
 * Waits until the service has ended: it has stopped accepting, its last connection has ended, and
 * all handlers and callbacks have returned.
 *
 * The function does not stop the service and does not notify connections. Requests in progress
 * complete after keepsock_service_stop(), for example while a successor process accepts new
 * connections (keepsock_handover_start()). Connections that outlive the timeout
 * continue; call keepsock_service_drain() next.
 *
 * @param timeout_ms  Milliseconds. 0 returns the present state. KEEPSOCK_INFINITE means no limit.
 * @return KEEPSOCK_OK if the service has ended, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the service has not ended; keepsock_service_get_stats() returns the
 *     number of open connections
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from inside a handler or callback of the service, or
 *     from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_UNSUPPORTED: accept(2) failed with EOPNOTSUPP, which ended accepting
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_OS: accept(2) failed with another fatal error, which ended accepting
 */
int32_t keepsock_service_wait(keepsock_service *service, int64_t timeout_ms,
                              keepsock_error **error);

/**
 * Frees a service, after every handler and callback has returned.
 *
 * The function stops accepting, resets the open connections and waits. Afterwards no handler or
 * callback runs, and the memory that `user` points to may be freed. Handlers and callbacks that run
 * until then, for example on_close, may use the service as at any other time. To end connections in
 * order, call keepsock_service_drain() first. It must not be called inside a handler or callback of
 * the service.
 *
 * @note The server is closed as well, also if a cancel token has ended this service, and if another
 *   service of the same server still accepts.
 */
void keepsock_service_free(keepsock_service *service);

/*
 * ---- 9. Statistics ------------------------------------------------------------------------------
 */

/**
 * The statistics of a service. keepsock_server_stats counts the clients that it accepted and
 * rejected.
 *
 * -1 means unknown: the handlers of keepsock_server_serve() transfer the bytes, and the service
 * does not count them.
 */
typedef struct {
    /** Milliseconds since the service was started. */
    int64_t uptime_ms;
    /** Whether the service accepts connections. */
    bool accepting;
    /** Open connections. */
    uint32_t connections;
    /** Connections opened since the start. */
    uint64_t opened;
    /** Connections closed since the start: `opened` minus `connections`. */
    uint64_t closed;
    /** Bytes received. */
    int64_t bytes_received;
    /** Bytes of the messages that the program sent. Each byte is then sent, queued or dropped. */
    int64_t bytes_written;
    /** Bytes that the kernel accepted. */
    int64_t bytes_sent;
    /** Bytes in the send queues. */
    int64_t bytes_queued;
    /** Bytes of dropped messages: a send queue was full, or the connection ended. */
    int64_t bytes_dropped;
    /** The number of dropped messages. */
    int64_t messages_dropped;
    /** Closed connections by close reason: the index is a keepsock_close_reason. Their sum is
        `closed`. With keepsock_server_serve() the service counts the reasons that calls of the
        handler or the final close observed. */
    uint64_t close_reasons[16];
} keepsock_service_stats;

/**
 * Fills in a snapshot of the service's statistics.
 * @param out  Receives the statistics.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` or `out` is NULL, or no version has this `size`
 */
int32_t keepsock_service_get_stats(const keepsock_service *service, keepsock_service_stats *out,
                                   size_t size, keepsock_error **error);

/**
 * Writes the statistics of the service and one line per connection, as text for operators.
 *
 * The format may change between versions.
 *
 * @param buf            Receives the text.
 * @param cap            The size of `buf`.
 * @param required_size  Receives the size that the text needs. The text
 *                       of a later call may need more.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is smaller than the required size; `buf` is unchanged
 *   - KEEPSOCK_ERR_WRONG_STATE: the call comes from a forked child; the service runs in the parent
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `service` is NULL, or `buf` is NULL and `cap` is not 0
 */
int32_t keepsock_service_dump(const keepsock_service *service, char *buf, size_t cap,
                              size_t *required_size, keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_SERVING_H */
