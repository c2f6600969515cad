/**
 * @file keepsock/conn.h
 * @brief Connections of event loops: callbacks, sending, closing, groups, state.
 *
 * A service of keepsock_server_serve_events() (keepsock/serving.h) accepts connections and calls
 * the callbacks of the program. Each connection is a keepsock_conn. Any thread may send to it and
 * close it.
 *
 * Contents
 *  1. Callbacks: keepsock_conn, keepsock_callbacks
 *  2. Sending and queueing: keepsock_conn_send, keepsock_conn_send_slices,
 *     keepsock_conn_send_file, keepsock_conn_queued, keepsock_conn_set_queue_limit,
 *     keepsock_conn_set_overflow_policy
 *  3. Reading and back-pressure: keepsock_conn_set_framing, keepsock_conn_pause,
 *     keepsock_conn_resume
 *  4. Closing: keepsock_conn_shutdown_write, keepsock_conn_close, keepsock_conn_abort,
 *     keepsock_conn_is_open, keepsock_conn_close_reason
 *  5. Leaving the service: keepsock_conn_detach
 *  6. Timer and program data: keepsock_conn_set_timer, keepsock_conn_set_user,
 *     keepsock_conn_user
 *  7. Posting to the event loop: keepsock_conn_post
 *  8. Groups: keepsock_conn_join, keepsock_conn_leave
 *  9. Liveness: keepsock_conn_keepalive, keepsock_conn_set_keepalive,
 *     keepsock_conn_set_dead_after, keepsock_conn_set_idle_timeout, keepsock_conn_set_heartbeat,
 *     keepsock_conn_set_heartbeat_timeout
 * 10. Addresses, statistics and descriptor: keepsock_conn_five_tuple,
 *     keepsock_conn_proxy_address, keepsock_conn_fd, keepsock_conn_get_stats,
 *     keepsock_conn_set_sockopt, keepsock_conn_sockopt
 *
 * Where a function of another event library has a counterpart here:
 *   bufferevent_write, uv_write                          keepsock_conn_send
 *   writev, evbuffer_add_iovec                           keepsock_conn_send_slices
 *   sendfile, evbuffer_add_file, uv_fs_sendfile          keepsock_conn_send_file
 *   bufferevent_free, uv_close                           keepsock_conn_close, keepsock_conn_abort
 *   bufferevent_disable(EV_READ), uv_read_stop           keepsock_conn_pause
 *   bufferevent_enable(EV_READ), uv_read_start           keepsock_conn_resume
 *   uv_shutdown, shutdown(SHUT_WR)                       keepsock_conn_shutdown_write
 *   evbuffer_get_length, uv_stream_get_write_queue_size  keepsock_conn_queued
 *   bufferevent_setwatermark(EV_WRITE)                   keepsock_conn_set_queue_limit
 *   bufferevent_set_timeouts                             keepsock_conn_set_timer,
 *                                                        keepsock_conn_set_idle_timeout
 *   the data member of a uv_handle_t                     keepsock_conn_set_user
 *   bufferevent_setfd(bev, -1)                           keepsock_conn_detach
 *   event_base_once, uv_async_send                       keepsock_conn_post
 *   getpeername, getsockname                             keepsock_conn_five_tuple
 *   bufferevent_getfd, uv_fileno                         keepsock_conn_fd
 *   getsockopt(TCP_INFO)                                 keepsock_conn_get_stats
 *   setsockopt, getsockopt                               keepsock_conn_set_sockopt,
 *                                                        keepsock_conn_sockopt
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_CONN_H
#define KEEPSOCK_CONN_H

#include "basics.h"
#include "client.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Callbacks -------------------------------------------------------------------------------
 */

/**
 * A connection of an event-driven service (keepsock_server_serve_events()).
 *
 * It is a value: copy it, store it, and compare two of them by their id. It needs no free. The
 * library creates it before on_open and ends it when on_close returns. From then on every call
 * with it returns KEEPSOCK_ERR_WRONG_STATE, also after the service was freed. No two connections
 * have the same id.
 *
 * In a forked child, functions that only read the connection return its state at the time of the
 * fork. If a thread of the parent was using the connection at that time, they return the same as
 * for a connection that ended during the call.
 *
 * Threads: any thread may call any function at any time, also inside callbacks. No function waits.
 */
typedef struct {
    uint64_t id;  /**< Unique in the process. 0 refers to no connection. */
} keepsock_conn;

/**
 * The callbacks of an event-driven service (keepsock_server_serve_events()).
 *
 * The library does not call a NULL member. The description of a member states the default action.
 * Set `size`, and set the members that you do not use to NULL, as the example of
 * keepsock_server_serve_events() does.
 *
 * The callbacks of one connection run one at a time: on_open first, on_close last. With more than
 * one thread (keepsock_serve_options_set_threads()), callbacks of different connections run at the
 * same time. A callback that waits delays every connection of its thread.
 *
 * The library holds no lock during a callback. A callback may call every function, on any
 * connection and on the service, except that keepsock_service_drain() and
 * keepsock_service_wait() return KEEPSOCK_ERR_WRONG_STATE, and that it must not call
 * keepsock_service_free().
 */
typedef struct {
    /** sizeof(keepsock_callbacks). */
    size_t size;
    /** The first callback of a connection. The service accepted the connection, or it was added
        by keepsock_service_add(), keepsock_service_connect() or keepsock_service_reconnect().
        Default: no action. */
    void (*on_open)(keepsock_conn conn, void *user);
    /** A message arrived; without framing, some bytes arrived. The `len` bytes at `buf` are
        valid until the callback returns. Default: the library discards the data. */
    void (*on_data)(keepsock_conn conn, const void *buf, size_t len, void *user);
    /** The send queue has become empty: the kernel has accepted all queued bytes. Default: no
        action. */
    void (*on_writable)(keepsock_conn conn, void *user);
    /** End of stream: the peer has shut down its write side (FIN). The peer may still read. The
        connection ends when this side is shut down as well (keepsock_conn_shutdown_write()) and
        the send queue is empty. Default: the library closes the connection. */
    void (*on_eof)(keepsock_conn conn, void *user);
    /** The timer set by keepsock_conn_set_timer() has expired. Default: no action. */
    void (*on_timer)(keepsock_conn conn, void *user);
    /** keepsock_service_drain() was called. Send the last message and close the connection.
        Default: the library closes the connection. */
    void (*on_drain)(keepsock_conn conn, void *user);
    /** The last callback of a connection. `reason` is a keepsock_close_reason. The statistics
        and the addresses of the connection are available until the callback returns. After
        keepsock_conn_detach() the client has the statistics. keepsock_conn_send() returns
        KEEPSOCK_ERR_CLOSED. Default: no action. */
    void (*on_close)(keepsock_conn conn, int32_t reason, void *user);
    /** A keepsock_service_connect() failed, and the library does not call on_open for it. Or a
        keepsock_service_reconnect() has ended, and the library connects no more. `conn_user` is
        the pointer that was passed to that call. `error` is valid until the callback returns; do
        not free it. Default: no action. */
    void (*on_connect_failed)(const keepsock_error *error, void *conn_user, void *user);
} keepsock_callbacks;

/*
 * ---- 2. Sending and queueing --------------------------------------------------------------------
 */

/**
 * Sends a message, in the framing of the connection.
 *
 * Bytes that the kernel does not accept immediately are queued. Messages are delivered in the
 * order in which they were sent. keepsock_serve_options_set_queue_limit() limits the queue, except
 * for replies: messages that the on_open, on_data, on_writable and on_eof callbacks of a
 * connection send to that same connection. With KEEPSOCK_OVERFLOW_POLICY_DROP_OLDEST the library
 * drops and counts messages that exceed the limit, and returns KEEPSOCK_OK.
 *
 * @param buf  The message.
 * @param len  Its length in bytes.
 * @return KEEPSOCK_OK if the kernel accepted the message or it is queued, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
 *     down or freed the service, or a timeout or limit ended it
 *   - KEEPSOCK_ERR_STALLED: the message exceeds the queue limit, or the kernel accepted a part of
 *     the message and this process has no memory to queue the rest; the library resets the
 *     connection. Or the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel accepts no byte now, and this process has no memory to
 *     queue the message. Nothing was sent, and the connection stays open
 *   - KEEPSOCK_ERR_TOO_LONG: the message alone exceeds the queue limit, and nothing was sent
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `buf` is NULL and `len` is not 0, the message
 *     contains the delimiter of the framing (LF with lines), is a line that ends with CR, or has a
 *     length that the framing does not permit (keepsock_framing)
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
 *     the service runs in the parent
 */
int32_t keepsock_conn_send(keepsock_conn conn, const void *buf, size_t len, keepsock_error **error);

/**
 * Sends one message whose bytes are in several buffers, as keepsock_conn_send() does.
 *
 * A header and a body become one message. The bytes are copied only if they must be queued.
 *
 * @param slices  The buffers.
 * @param count   The number of buffers.
 * @return KEEPSOCK_OK if the kernel accepted the message or it is queued, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
 *     down or freed the service, or a timeout or limit ended it
 *   - KEEPSOCK_ERR_STALLED: the message exceeds the queue limit, or the kernel accepted a part of
 *     the message and this process has no memory to queue the rest; the library resets the
 *     connection. Or the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for a list of that many buffers; or the
 *     kernel accepts no byte now, and this process has no memory to queue the message. Nothing was
 *     sent, and the connection stays open
 *   - KEEPSOCK_ERR_TOO_LONG: the message alone exceeds the queue limit, and nothing was sent
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `slices` or a buffer is NULL and its size is
 *     not 0, or the peer would not receive the message unchanged (keepsock_framing)
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
 *     the service runs in the parent
 */
int32_t keepsock_conn_send_slices(keepsock_conn conn, const keepsock_slice *slices, size_t count,
                                  keepsock_error **error);

/**
 * Sends a part of a file after the queued messages (sendfile(2)), and returns immediately.
 *
 * On Linux, macOS and FreeBSD the bytes do not pass through this process. On other systems, and if
 * sendfile(2) rejects the file, the library reads the file in pieces and sends them. After 1 MiB
 * the loop serves other connections. The kernel may wait for the disk.
 *
 * The library duplicates `fd`, so the caller may close it when the function has returned. The call
 * does not use the file's own position, and changes it on Windows only. The bytes are sent as they
 * are, without the marks of the framing, and no heartbeat is sent between them.
 *
 * A queued file holds a descriptor until it is sent, so at most 16 files wait for one connection.
 * RLIMIT_NOFILE must cover them for as many clients as the service has. A queued file counts 88
 * bytes for the queue limit, regardless of its length, because its bytes need no memory.
 * keepsock_conn_queued() includes its bytes.
 *
 * A file that a callback sends to its own connection is a reply: the library does not read from the
 * connection while the file is queued. So with a framing a client that does not read has one queued
 * file. If one on_data answers several requests, continue in on_writable after
 * KEEPSOCK_ERR_NO_DESCRIPTORS.
 *
 * keepsock_conn_close() and keepsock_conn_shutdown_write() send the file first. If the close
 * timeout expires before that, the connection is reset. If the file becomes shorter or cannot be
 * read after a part of the file was sent, the library resets the connection
 * (KEEPSOCK_CLOSE_FILE_FAILED), because the peer expects the rest. Bytes that are appended to the
 * file after the call are not sent.
 *
 * Linux does not know the size of a file of /proc or /sys. The library rejects UINT64_MAX for such
 * a file, and a `len` above its content.
 *
 * @code
 * static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
 * {
 *     const int *file = user;
 *     keepsock_conn_send_file(conn, *file, 0, UINT64_MAX, NULL);
 *     keepsock_conn_close(conn, NULL);
 * }
 * @endcode
 *
 * @param fd      A file that is open for reading, not a pipe or a socket. The caller keeps it. On
 *                Windows it is a HANDLE, and the call moves the position of the file.
 * @param offset  Where to start, in bytes from the beginning of the file.
 * @param len     The number of bytes. UINT64_MAX means up to the present end of the file.
 * @return KEEPSOCK_OK if the kernel accepted the bytes or they are queued, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing: this program closed it, shut its write side
 *     down or freed the service, or a timeout or limit ended it. Or the file became shorter or
 *     could not be read after its first bytes were sent: keepsock_error_transferred() returns the
 *     number of sent bytes
 *   - KEEPSOCK_ERR_STALLED: the file exceeds the queue limit; the library resets the connection. Or
 *     the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory to queue the file; nothing was sent
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor; or 16 files,
 *     or files of 2^63 bytes, wait for this connection; nothing was sent
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; `fd` is negative, closed, a directory, a pipe,
 *     a socket or not open for reading; the file does not have `len` bytes from `offset`; or `len`
 *     is UINT64_MAX, and the size of the file is not known
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
 *     the service runs in the parent
 *   - KEEPSOCK_ERR_OS: the file cannot be read, or another error of the system
 */
int32_t keepsock_conn_send_file(keepsock_conn conn, keepsock_fd fd, uint64_t offset, uint64_t len,
                                keepsock_error **error);

/**
 * Returns the number of bytes in the send queue of the connection, with the unsent bytes of files.
 * @return A number of bytes; 0 if the connection has ended.
 */
size_t keepsock_conn_queued(keepsock_conn conn);

/**
 * Sets the queue limit of an open connection, and with it the high-water mark of replies.
 *
 * keepsock_serve_options_set_queue_limit() describes both and sets them for all connections.
 *
 * The limit applies at once. If the queued messages exceed it, the overflow policy of the
 * connection applies: the library resets the connection, or drops and counts the oldest messages.
 * It drops no reply and no message that is partly sent. Replies alone are no reason for a reset.
 *
 * @param bytes  Bytes, above 88.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_STALLED: the queued messages exceed the limit, and the library resets the
 *     connection (KEEPSOCK_OVERFLOW_POLICY_DISCONNECT)
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `bytes` is not above 88
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_queue_limit(keepsock_conn conn, size_t bytes, keepsock_error **error);

/**
 * Sets what happens to a pushed message that exceeds the queue limit of an open connection.
 *
 * It applies to messages that are sent after the call.
 * keepsock_serve_options_set_overflow_policy() sets it for all connections.
 *
 * @param overflow_policy  A keepsock_overflow_policy.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `overflow_policy` is not a
 *     keepsock_overflow_policy
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_overflow_policy(keepsock_conn conn, int32_t overflow_policy,
                                          keepsock_error **error);

/*
 * ---- 3. Reading and back-pressure ---------------------------------------------------------------
 */

/**
 * Sets the framing of an open connection, for received and for sent messages.
 *
 * For protocols that change their framing: an upgrade, or a header in lines that is followed by
 * messages with a length. keepsock_serve_options_set_framing() sets the framing of all
 * connections.
 *
 * In a callback of the connection and in a function of keepsock_conn_post(), the new framing
 * applies to the bytes after the message that the callback received, including the bytes that the
 * library has buffered. The library delivers these before it reads more. With KEEPSOCK_FRAMING_RAW
 * it delivers them as one message. From another thread, the new framing applies from the next byte
 * that the library has not begun to deliver: the bytes of an incomplete message also get the new
 * framing.
 *
 * Messages that are sent after the call have the new framing. Queued messages stay as they are. If
 * the call fails, the connection is unchanged.
 *
 * @code
 * static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
 * {
 *     const keepsock_framing binary = {
 *         .size = sizeof binary, .kind = KEEPSOCK_FRAMING_PREFIXED,
 *         .length_format = KEEPSOCK_LENGTH_FORMAT_U32_BE, .max = 65536
 *     };
 *     if (len == 6 && memcmp(buf, "BINARY", 6) == 0) {
 *         keepsock_conn_send(conn, "OK", 2, NULL);
 *         keepsock_conn_set_framing(conn, &binary, NULL);
 *     }
 * }
 * @endcode
 *
 * @param framing  The framing, copied.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `framing` is NULL, no version has this
 *     `framing->size`, or a member of `framing` is out of range or is set although its kind does
 *     not use it
 *   - KEEPSOCK_ERR_UNSUPPORTED: this version of the library does not know a member that is set
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_framing(keepsock_conn conn, const keepsock_framing *framing,
                                  keepsock_error **error);

/**
 * Stops reading until keepsock_conn_resume() is called.
 *
 * Input stays in the kernel, whose flow control then slows the sender down. The idle timeout does
 * not apply while the connection is paused. Use it for back-pressure, for example in a proxy whose
 * other side is slow. The library itself stops reading while too many replies are queued
 * (keepsock_serve_options_set_queue_limit()).
 *
 * If the connection fails during the pause, for example because the peer resets it,
 * keepsock_conn_send() returns its error (KEEPSOCK_ERR_RESET), and keepsock_conn_close_reason()
 * the reason. After keepsock_conn_resume() the event loop delivers the bytes that arrived before,
 * and then calls on_close. Without it, on_close follows after keepsock_conn_close() or
 * keepsock_conn_abort(), at the deadline of a drain, or once the idle timeout or dead_after has
 * passed since the failure.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_pause(keepsock_conn conn, keepsock_error **error);

/**
 * Starts reading again after keepsock_conn_pause().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_resume(keepsock_conn conn, keepsock_error **error);

/*
 * ---- 4. Closing ---------------------------------------------------------------------------------
 */

/**
 * Shuts down the write side (FIN, shutdown(2) with SHUT_WR) once the send queue is sent.
 *
 * The peer can still send. Later calls of keepsock_conn_send() return KEEPSOCK_ERR_CLOSED.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_shutdown_write(keepsock_conn conn, keepsock_error **error);

/**
 * Closes the connection gracefully, and returns immediately. on_close follows.
 *
 * The library sends the send queue and FIN, then discards input until the peer closes its side. If
 * nothing was sent, or the peer has already closed its side, the connection ends as soon as its
 * send queue is empty. All of this takes at most the close timeout: that of the server for an
 * accepted connection, and its own for a connection of keepsock_service_connect() or
 * keepsock_service_add(). During keepsock_service_drain() the limit is the deadline of the drain.
 * Closing a connection that is closing has no effect and returns KEEPSOCK_OK.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_close(keepsock_conn conn, keepsock_error **error);

/**
 * Resets the connection (RST), and returns immediately. on_close follows.
 *
 * Data that the peer has not received is lost.
 *
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_abort(keepsock_conn conn, keepsock_error **error);

/**
 * Returns whether the connection is open: false once it is closing or closed.
 * @return Whether the connection is open; false if it has ended.
 */
bool keepsock_conn_is_open(keepsock_conn conn);

/**
 * Returns why the connection ends: the first cause that was observed.
 * @return A keepsock_close_reason, from the cause on: KEEPSOCK_CLOSE_PEER_CLOSED already in
 *   on_eof, although the connection may still send. A later failure, such as a reset, replaces
 *   that reason. 0 before the cause, and after on_close.
 */
int32_t keepsock_conn_close_reason(keepsock_conn conn);

/*
 * ---- 5. Leaving the service ---------------------------------------------------------------------
 */

/**
 * Takes a connection out of its service, and returns it as a keepsock_client.
 *
 * Nothing is sent to the peer. The program continues the connection in its own way, or adds it to
 * another service (keepsock_service_add()). Only the thread of the connection's event loop may call
 * this function: in a callback of any connection of the loop, in a timer of the service that the
 * loop calls, or in a function that is posted to the loop. The last callback, on_close with
 * KEEPSOCK_CLOSE_DETACHED, follows after the present callback.
 *
 * - No received byte is lost. Reads of `client` return first the bytes at `buf`, and then the bytes
 *   that the event loop has received and not delivered: the messages after the one of the present
 *   on_data, and the beginning of a message. Bytes that a callback has received count as read. To
 *   return the end of them to the stream, pass it in `buf`, as the example does. Before
 *   on_eof the library drops an incomplete message at the end of the stream.
 * - `client` is open, in blocking mode, and has no close reason. It keeps the five-tuple, the
 *   options of the kernel, the keepalive, dead_after, heartbeat, idle timeout, first-byte timeout
 *   and close timeout. Their times begin again. It has no read timeout, write timeout or cancel
 *   token.
 * - The connection leaves its groups and no longer counts for the limits of the service.
 *   keepsock_service_drain() counts it neither as completed nor as reset. A connection of
 *   keepsock_service_reconnect() is not connected again.
 * - In on_close, keepsock_conn_five_tuple() still works, and `client` has the statistics.
 *
 * @code
 * static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
 * {
 *     keepsock_client **worker = user; // Another thread continues with calls, and frees it.
 *     if (len >= 8 && memcmp(buf, "UPGRADE\n", 8) == 0)
 *         keepsock_conn_detach(conn, (const char *)buf + 8, len - 8, worker, NULL);
 * }
 * @endcode
 *
 * @param buf     Bytes that `client` returns first, copied. May be NULL if `len` is 0.
 * @param len     Their number.
 * @param client  Receives the connection. Free it with keepsock_client_free().
 * @return KEEPSOCK_OK on success. Otherwise the connection is unchanged:
 *   - KEEPSOCK_ERR_WOULD_BLOCK: the send queue is not empty; call the function in on_writable,
 *     which is called when the queue is empty
 *   - KEEPSOCK_ERR_WRONG_STATE: called in another thread than that of the connection's event loop,
 *     before on_open, or in a forked child; or the connection has ended
 *   - KEEPSOCK_ERR_CLOSED: the connection is closed or closing
 *   - KEEPSOCK_ERR_RESET: the peer, or a device on the path, reset the connection
 *   - KEEPSOCK_ERR_DEAD: the peer did not answer keepalive probes or data
 *   - KEEPSOCK_ERR_UNREACHABLE: a router or firewall reported the peer unreachable
 *   - KEEPSOCK_ERR_STALLED: the peer accepted no data for dead_after, with fail_on_stall
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object or the unread bytes
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `client` is NULL, or `buf` is NULL and `len`
 *     is not 0
 *   - KEEPSOCK_ERR_OS: the kernel failed to change the mode of the descriptor
 */
int32_t keepsock_conn_detach(keepsock_conn conn, const void *buf, size_t len,
                             keepsock_client **client, keepsock_error **error);

/*
 * ---- 6. Timer and program data ------------------------------------------------------------------
 */

/**
 * Sets the timer of the connection: on_timer is called once, after `timeout_ms`.
 *
 * on_timer is not called early. If the event loop is idle, it is called about 1 ms late. A new
 * timeout replaces the previous one. A connection that is closing has no timer:
 * keepsock_conn_close() stops it. The close timeout limits the time until on_close.
 *
 * @param timeout_ms  Milliseconds from now. KEEPSOCK_INFINITE stops the timer.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `timeout_ms` is out of range
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_timer(keepsock_conn conn, int64_t timeout_ms, keepsock_error **error);

/**
 * Stores a pointer of the program with the connection. keepsock_conn_user() returns it.
 *
 * The pointer is NULL at first, unless keepsock_service_add() or keepsock_service_connect() set
 * it.
 *
 * @param user  Any pointer. The library does not use the memory that it points to.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 */
int32_t keepsock_conn_set_user(keepsock_conn conn, void *user, keepsock_error **error);

/**
 * Returns the pointer that was stored last.
 * @return The pointer; NULL if none was stored, or the connection has ended.
 */
void *keepsock_conn_user(keepsock_conn conn);

/*
 * ---- 7. Posting to the event loop ---------------------------------------------------------------
 */

/**
 * A function that is called with a connection: keepsock_conn_post(), keepsock_service_for_each().
 * @param conn  The connection.
 * @param user  The pointer that the program passed with the function.
 */
typedef void (*keepsock_conn_callback)(keepsock_conn conn, void *user);

/**
 * Calls a function in the thread of the connection's event loop, and returns immediately.
 *
 * The callbacks of the connection run in the same thread, so the function needs no lock for data
 * that they share. The functions of a connection are called in the order in which they were posted,
 * after on_open and not during a callback of the connection.
 *
 * If this call returns KEEPSOCK_OK, the function is called exactly once, also if the connection
 * ends or the service is freed. Then it is called before on_close, and keepsock_conn_send() returns
 * KEEPSOCK_ERR_CLOSED. If this call fails, the function is not called. So either the function or
 * the caller frees what `user` points to.
 *
 * The loop calls at most 64 functions of a connection before it handles other events. A function
 * may post itself again. The queue limit applies to messages that the function sends.
 *
 * @code
 * static void deliver(keepsock_conn conn, void *user)   // in the thread of the event loop
 * {
 *     keepsock_conn_send(conn, user, strlen(user), NULL);
 *     free(user);
 * }
 *
 * static void finished(keepsock_conn conn, char *answer)   // in a thread of the program
 * {
 *     if (keepsock_conn_post(conn, deliver, answer, NULL) != KEEPSOCK_OK)
 *         free(answer);
 * }
 * @endcode
 *
 * @param function  The function.
 * @param user      Passed to the function. May be NULL.
 * @return KEEPSOCK_OK if the function will be called, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: `conn` is not an open connection, or the call comes from a forked
 *     child; the service runs in the parent
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the function
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `function` is NULL
 */
int32_t keepsock_conn_post(keepsock_conn conn, keepsock_conn_callback function, void *user,
                           keepsock_error **error);

/*
 * ---- 8. Groups ----------------------------------------------------------------------------------
 */

/**
 * Joins a group, to which keepsock_service_broadcast() can send.
 *
 * A connection may be in any number of groups. It leaves them when it ends.
 *
 * @param group  The name of the group: any text.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `group` is NULL or not UTF-8
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for another member
 */
int32_t keepsock_conn_join(keepsock_conn conn, const char *group, keepsock_error **error);

/**
 * Leaves a group, if the connection is in it.
 * @param group  The name of the group.
 * @return KEEPSOCK_OK on success, also if the connection is not in the group; otherwise
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `group` is NULL or not UTF-8
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_leave(keepsock_conn conn, const char *group, keepsock_error **error);

/*
 * ---- 9. Liveness --------------------------------------------------------------------------------
 */

/**
 * Returns the keepalive settings in effect (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL,
 * TCP_KEEPCNT).
 *
 * @param out  Receives the settings.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_keepalive(keepsock_conn conn, keepsock_keepalive *out, size_t size,
                                keepsock_error **error);

/**
 * Sets the keepalive values of an open connection (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
 *
 * keepsock_options_set_keepalive() describes the values. If the call fails, the connection is
 * unchanged.
 *
 * @param conn         The connection.
 * @param idle_ms      1 to 32,767,000 milliseconds, rounded up to whole seconds. KEEPSOCK_INFINITE
 *                     turns keepalive off; `interval_ms` and `count` are then ignored.
 * @param interval_ms  1 to 32,767,000 milliseconds, rounded up to whole seconds.
 * @param count        1 to 127.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, out of range, or the values contradict
 *     dead_after or the middlebox timeout
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
 *     the service runs in the parent
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_set_keepalive(keepsock_conn conn, int64_t idle_ms, int64_t interval_ms,
                                    uint32_t count, keepsock_error **error);

/**
 * Sets dead_after of an open connection: the time within which a vanished peer is detected.
 *
 * keepsock_options_set_dead_after() describes it. The function adjusts keepalive to fit, unless
 * the program set keepalive itself. The peer of a Unix socket cannot vanish. If the call fails,
 * the connection is unchanged.
 *
 * @param conn        The connection.
 * @param timeout_ms  2,000 to 163,880,000 milliseconds. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; out of range; keepalive is off, or detects a
 *     dead peer later; KEEPSOCK_INFINITE with fail_on_stall; Multipath TCP
 *   - KEEPSOCK_ERR_UNSUPPORTED: NetBSD, OpenBSD and illumos
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: KEEPSOCK_INFINITE needs a free descriptor for a moment
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the policy of this machine forbids a TCP socket
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_set_dead_after(keepsock_conn conn, int64_t timeout_ms,
                                     keepsock_error **error);

/**
 * Sets the idle timeout of an open connection.
 *
 * keepsock_options_set_idle_timeout() describes it. If the call fails, the connection is
 * unchanged.
 *
 * @param conn        The connection.
 * @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; out of range; not above the heartbeat
 *     interval; KEEPSOCK_INFINITE with idle_receive_only
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_idle_timeout(keepsock_conn conn, int64_t timeout_ms,
                                       keepsock_error **error);

/**
 * Sets the heartbeat of an open connection, which keepsock_options_set_heartbeat() describes.
 * @param conn         The connection.
 * @param interval_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns the heartbeat off.
 * @param buf          The bytes of a heartbeat, copied. With KEEPSOCK_INFINITE it is ignored and
 *                     may be NULL.
 * @param len          The number of bytes, greater than 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0; NULL; no bytes; out of range; not below the
 *     idle timeout; KEEPSOCK_INFINITE with a heartbeat timeout
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the bytes
 */
int32_t keepsock_conn_set_heartbeat(keepsock_conn conn, int64_t interval_ms, const void *buf,
                                    size_t len, keepsock_error **error);

/**
 * Sets the heartbeat timeout of an open connection.
 *
 * keepsock_options_set_heartbeat_timeout() describes it. If the call fails, the connection is
 * unchanged.
 *
 * @param conn        The connection.
 * @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, out of range, or the connection has no
 *     heartbeat
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: on_close has returned, or the call comes from a forked child; the
 *     service runs in the parent
 */
int32_t keepsock_conn_set_heartbeat_timeout(keepsock_conn conn, int64_t timeout_ms,
                                            keepsock_error **error);

/*
 * ---- 10. Addresses, statistics and descriptor ---------------------------------------------------
 */

/**
 * Returns the protocol and the addresses (getsockname(2), getpeername(2)). It also works in
 * on_close.
 *
 * @param out  Receives the five-tuple.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 */
int32_t keepsock_conn_five_tuple(keepsock_conn conn, keepsock_five_tuple *out, size_t size,
                                 keepsock_error **error);

/**
 * Returns the address of the proxy through which the peer has connected
 * (keepsock_options_add_trusted_proxy()). It also works in on_close.
 *
 * keepsock_conn_five_tuple() returns the addresses of the client.
 *
 * @param address  Receives the address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: no PROXY header with the addresses of a client was received
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `address` is NULL
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 */
int32_t keepsock_conn_proxy_address(keepsock_conn conn, keepsock_address *address,
                                    keepsock_error **error);

/**
 * Returns the descriptor of the connection, for getsockopt(2), setsockopt(2) and ioctl(2). It also
 * works in on_close. On Windows it is a SOCKET.
 *
 * Use the descriptor inside the callbacks of this connection only. The library closes it after
 * on_close, and another thread might then use the descriptor of another file.
 *
 * Do not read from it, write to it, call shutdown(2) or close(2), change O_NONBLOCK, or wait for
 * it: the event loop does these things itself. Do not read SO_ERROR of a Unix socket, because the
 * kernel reports a reset once.
 *
 * @param fd  Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, or `fd` is NULL
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 */
int32_t keepsock_conn_fd(keepsock_conn conn, keepsock_fd *fd, keepsock_error **error);

/**
 * Fills in a snapshot of the connection's statistics. It also works in on_close.
 * @param out  Receives the statistics.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_CLOSED: the connection ended during the call
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `out` is NULL, or no version has this `size`
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_get_stats(keepsock_conn conn, keepsock_connection_stats *out, size_t size,
                                keepsock_error **error);

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
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `option` is not a keepsock_sockopt, `value`
 *     is out of its range, or the option has no effect on an open connection
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set it
 *   - KEEPSOCK_ERR_CLOSED: the connection is closing, or on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended, or the call comes from a forked child;
 *     the service runs in the parent
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_set_sockopt(keepsock_conn conn, int32_t option, uint32_t value,
                                  keepsock_error **error);

/**
 * Returns the value of an option of the operating system that the kernel uses (getsockopt(2)).
 * @param option  A keepsock_sockopt.
 * @param value   Receives the value. Linux returns twice the size of a buffer that was set.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `conn.id` is 0, `option` is not a keepsock_sockopt, or
 *     `value` is NULL
 *   - KEEPSOCK_ERR_UNSUPPORTED: the platform or this kind of socket does not have the option
 *   - KEEPSOCK_ERR_CLOSED: on_close has been called
 *   - KEEPSOCK_ERR_WRONG_STATE: the connection has ended
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_conn_sockopt(keepsock_conn conn, int32_t option, uint32_t *value,
                              keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_CONN_H */
