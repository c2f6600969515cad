/**
 * @file keepsock.h
 * @brief Sockets that stay alive, with deadlines and clear errors.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A keepsock_client is one connection and a keepsock_server is a listening socket, over TCP or Unix
 * sockets. A keepsock_datagram is a UDP or Unix datagram socket. A connection in five lines:
 *
 * @code
 * keepsock_client *c = NULL;
 * char line[256];
 * if (keepsock_client_connect("localhost:7788", NULL, &c, NULL) == KEEPSOCK_OK
 *     && keepsock_client_write_str(c, "hello\n", NULL) == KEEPSOCK_OK
 *     && keepsock_client_read_line(c, line, sizeof line, NULL, NULL) == KEEPSOCK_OK)
 *     puts(line);
 * keepsock_client_free(c);
 * @endcode
 *
 * To compile and link: `cc program.c $(pkg-config --cflags --libs keepsock)`
 *
 * This header includes the headers of all topics. Each of them can also be included alone:
 *
 *   basics.h       Statuses, errors, addresses, cancel tokens and log events.
 *   options.h      Options for creating a socket.
 *   client.h       One connection, connected or accepted: reading, writing, closing, liveness.
 *   connect.h      Connecting without blocking, looking up addresses, and reconnecting.
 *   server.h       Listening, and accepting connections one by one.
 *   conn.h         Connections of event loops: callbacks, sending, closing, groups, state.
 *   serving.h      Services: the library accepts connections, and serves them by threads or events.
 *   datagrams.h    Datagram sockets, UDP and Unix: receiving, sending, serving.
 *   udp.h          UDP sockets: broadcast, multicast, IP header fields and network errors.
 *   unix.h         Unix sockets: credentials of the peer, and descriptors passed to a process.
 *   activation.h   Socket activation and restarts: sockets that another process passed to this one.
 *   diagnostics.h  Diagnostics: TCP handshakes, captured from the network or saved by the kernel.
 *
 * Conventions, for every function
 *
 * - Arguments: the object, inputs, buffers with their size, outputs, and last `error`. The comment
 *   of a function omits the object and `error` unless there is more to say about them.
 * - `error`: pass NULL if the status is enough. A failed call stores a new error object there,
 *   which the caller frees with keepsock_error_free(). A successful call stores nothing, so start
 *   with NULL.
 * - Status: KEEPSOCK_OK (0), or a negative KEEPSOCK_ERR_ number. Each function lists its statuses
 *   with their causes. The lists omit KEEPSOCK_ERR_PANIC, a defect of keepsock, after which the
 *   object can only be freed. They also omit KEEPSOCK_ERR_WRONG_STATE for an object that was freed
 *   or has another type. "NULL" in a list means that a required argument is NULL.
 * - KEEPSOCK_ERR_CLOSED: this process closed, aborted or released the object, in any thread. A
 *   handler of a service also receives it after the service reset the connection: at the end of a
 *   drain, for a broadcast to a slow client, or because the service was freed.
 * - Outputs are written on success only, unless the function says otherwise. An output that is a
 *   number or a flag may be NULL, if the program does not need it. An object, a descriptor and a
 *   structure must not be NULL.
 * - Buffers: `buf` with `len` bytes to read, or with room for `cap` bytes to write. The pointer may
 *   be NULL if the size is 0.
 * - Text is written into `buf` with its NUL. `required_size` receives the size that the text needs
 *   with its NUL, also if `cap` is too small. A buffer of KEEPSOCK_TEXT_SIZE is large enough, if
 *   the function does not state another size.
 * - Times are int64_t milliseconds. KEEPSOCK_INFINITE means no limit, where the function accepts
 *   it. Periods (attempt delay, backoff) and the close timeout must be finite. The functions of
 *   open connections accept it also to turn keepalive or the heartbeat off.
 * - Options: a setter replaces the value that was set before. The value that the comment of an
 *   option names as the default restores it: NULL for a text, false, KEEPSOCK_INFINITE, 0, -1 or a
 *   number. For an option without such a value, and for lists (`_add_` functions), create new
 *   options.
 * - Strings are UTF-8 and end with NUL. The library owns the text that it returns.
 * - Closing twice returns KEEPSOCK_OK. A closed object must still be freed.
 * - Freeing: every _free function ignores NULL, and requires that no other thread uses the object.
 *   A freed object, or an object of another type, is rejected with KEEPSOCK_ERR_WRONG_STATE, and
 *   freeing it again does nothing. With 32-bit pointers this holds until the program has created
 *   256 later objects of the type. Then an old pointer may refer to a new object, because a 32-bit
 *   pointer contains only a short generation number. A keepsock_conn has 64 bits and is always
 *   rejected. Leak checkers report the memory of freed objects as still reachable.
 * - Structures that the library fills in, and those of keepsock_datagram_send_batch() and
 *   keepsock_capture_handshake(), are passed with `size`, which is sizeof *out. Later versions add
 *   members at the end only. The library uses the members that the caller's version has, and sets
 *   members that it does not know to 0. A size that no version can have is
 *   KEEPSOCK_ERR_INVALID_ARGUMENT: smaller than the first, or not a multiple of the alignment.
 * - Structures that the library reads have their `size` as the first member (keepsock_callbacks,
 *   keepsock_framing). A member that is set and that the library does not know is
 *   KEEPSOCK_ERR_UNSUPPORTED.
 * - Lists: to list all elements, count `index` up from 0 until the status is
 *   KEEPSOCK_ERR_NOT_FOUND.
 * - Callbacks: the last argument, `user`, is the pointer that the program passed with the callback.
 *   It may be NULL. A callback must return: longjmp(3) and C++ exceptions must not leave it. If a
 *   callback calls pthread_exit(3), the process ends.
 * - Memory: KEEPSOCK_ERR_NO_MEMORY means that the kernel lacks memory or socket buffers (ENOMEM,
 *   ENOBUFS) or cannot start a thread. It also means that the process has no memory for a new
 *   object or for bytes that the library copies or receives: messages, heartbeats, options, read
 *   buffers. A failed allocation of a small object inside the library, such as the text of an
 *   error, aborts the process.
 * - Signals: the library never raises SIGPIPE and changes no signal disposition. A signal handler
 *   that interrupts a call does not end the call.
 * - pthread_cancel(3) does not act inside a function. It acts at the program's next cancellation
 *   point after the function has returned. A callback that runs in the caller's thread (a log
 *   callback, keepsock_on_retry, keepsock_on_watch, the function of keepsock_service_for_each())
 *   starts with cancellation disabled. A thread with PTHREAD_CANCEL_ASYNCHRONOUS must not call the
 *   library. pthread_cancel(3) has no effect on the threads that the library starts, which run
 *   handlers, callbacks, name lookups and closes: cancellation is disabled in them.
 * - fork(2): a forked child that closes or frees an object closes its own descriptors only. The
 *   parent's connections, listeners and services continue, and services do not run in the child.
 *   If a callback or handler of a service forks, the child has only that thread. When the child
 *   returns from the callback, the library ends it, as _exit(2) with status 0 does.
 *   This holds for fork(), and with Linux 4.14 and later for _Fork() and for clone(2) without
 *   CLONE_VM. The parent does not detect a child of _Fork() or clone(2): after the parent has
 *   closed a connection, the peer receives the end of the stream only when the child has closed its
 *   copy. A child that shares the parent's memory (vfork(2), CLONE_VM) must not call the library. A
 *   cancel token that is fired or reset in the child changes in the child only. It cancels the
 *   calls of the child, but not services and pending connects that the child starts: create another
 *   token for these.
 *
 * Index by task: the header, the number of the section, and the functions
 *
 * Connecting
 *   Connect to a host and port, a Unix socket or an address
 *     client.h 1: keepsock_client_connect, keepsock_client_connect_host
 *     options.h 2: keepsock_options_set_connect_timeout
 *   Connect from my own poll or epoll loop
 *     connect.h 1: keepsock_pending_connect_start, keepsock_pending_connect_socket,
 *         keepsock_pending_connect_set_watch, keepsock_pending_connect_finish
 *   Look up the addresses of a name with a deadline, and connect to them
 *     connect.h 3: keepsock_lookup, keepsock_pending_lookup_start
 *     options.h 4: keepsock_options_add_remote_address
 *   Reconnect with backoff after a connection was lost
 *     connect.h 4: keepsock_reconnect_new, keepsock_reconnect_connect
 *   Reconnect inside my own event loop, without waiting
 *     connect.h 4: keepsock_reconnect_set_watch, keepsock_reconnect_try_connect
 *   Reconnect inside a service, with re-subscription in on_open
 *     serving.h 2: keepsock_service_reconnect
 *   Choose the local address, the interface or the IP version
 *     options.h 4: keepsock_options_set_local_endpoint, keepsock_options_set_interface,
 *         keepsock_options_set_family
 *   Print why connecting failed, address by address
 *     basics.h 3: keepsock_error_print, keepsock_error_message, keepsock_error_attempt
 *   Set buffer sizes, TOS or an option that the library lacks before connecting or listening
 *     options.h 6: keepsock_options_set_sockopt, keepsock_options_set_raw_sockopt
 *   Set buffer sizes, TOS or other options of an open connection
 *     client.h 5: keepsock_client_set_sockopt
 *     conn.h 10: keepsock_conn_set_sockopt, keepsock_conn_fd
 *     client.h 8: keepsock_client_fd
 *   Send small messages without delay, or turn that off (TCP_NODELAY)
 *     options.h 5: keepsock_options_set_nodelay
 *   Print the addresses of both ends (getpeername, getsockname)
 *     client.h 9: keepsock_client_five_tuple
 *     conn.h 10: keepsock_conn_five_tuple
 *     datagrams.h 5: keepsock_datagram_five_tuple
 *   Set the IPv6 flow label of a connection (IPV6_FLOWLABEL_MGR)
 *     options.h 6: keepsock_options_set_sockopt
 *   Use a descriptor that another library created
 *     client.h 1: keepsock_client_from_fd
 *     server.h 1: keepsock_server_from_fd
 *     datagrams.h 1: keepsock_datagram_from_fd
 *   Give the descriptor to other code for good
 *     client.h 8: keepsock_client_release_fd
 *
 * Reading and writing
 *   Read some bytes, an exact number of bytes, or a line
 *     client.h 2: keepsock_client_read, keepsock_client_read_exact, keepsock_client_read_line
 *   Exchange messages, by length, delimiter or line
 *     basics.h 5: keepsock_framing
 *     client.h 2: keepsock_client_read_message
 *     client.h 3: keepsock_client_write_message
 *   Look at the next bytes without reading them (MSG_PEEK)
 *     client.h 2: keepsock_client_peek
 *   Read into several buffers (readv)
 *     client.h 2: keepsock_client_read_slices
 *   Write everything, or from several buffers
 *     client.h 3: keepsock_client_write_all, keepsock_client_write_slices
 *   Send a file
 *     client.h 3: keepsock_client_send_file
 *     conn.h 2: keepsock_conn_send_file
 *   Pass a descriptor to another process
 *     unix.h 2: keepsock_client_send_fds, keepsock_client_recv_fds
 *     unix.h 3: keepsock_datagram_send_fds, keepsock_datagram_recv_fds
 *   Limit the time of a read or write, or of a request and its reply
 *     client.h 4: keepsock_client_set_read_timeout, keepsock_client_set_write_timeout
 *   Cancel a call from another thread or from a signal handler
 *     basics.h 8: keepsock_cancel_token_new, keepsock_cancel_token_fire
 *     client.h 4: keepsock_client_set_cancel
 *     server.h 2: keepsock_server_set_cancel
 *   End my own poll or event loop from another thread or a signal handler
 *     basics.h 8: keepsock_cancel_token_fd
 *   Put a client into my event loop
 *     client.h 8: keepsock_client_set_nonblocking, keepsock_client_fd,
 *         keepsock_client_check_liveness
 *     client.h 2: keepsock_client_buffered
 *   Write to a connection from another thread that outlives its handler
 *     client.h 1: keepsock_client_ref
 *
 * Liveness and closing
 *   Detect a dead peer
 *     options.h 3: keepsock_options_set_dead_after
 *     client.h 7: keepsock_client_set_dead_after
 *     client.h 8: keepsock_client_check_liveness
 *   Keep an idle connection open in firewalls and NAT devices
 *     options.h 3: keepsock_options_set_keepalive, keepsock_options_set_middlebox_timeout
 *     client.h 7: keepsock_client_set_keepalive
 *   Send heartbeats, and close idle connections
 *     options.h 3: keepsock_options_set_heartbeat, keepsock_options_set_idle_timeout
 *     client.h 7: keepsock_client_set_heartbeat, keepsock_client_set_idle_timeout
 *   Close connections that send nothing after they were accepted
 *     options.h 3: keepsock_options_set_first_byte_timeout
 *   Close a connection without losing sent data
 *     client.h 6: keepsock_client_shutdown_write, keepsock_client_close
 *     options.h 2: keepsock_options_set_close_timeout
 *   Send the end of the stream and continue to read (shutdown)
 *     client.h 6: keepsock_client_shutdown_write
 *     conn.h 4: keepsock_conn_shutdown_write
 *   Reset a connection (RST, SO_LINGER 0)
 *     client.h 6: keepsock_client_abort
 *     conn.h 4: keepsock_conn_abort
 *   Find out why a connection ended
 *     client.h 6: keepsock_client_close_reason
 *     conn.h 4: keepsock_conn_close_reason
 *     basics.h 7: keepsock_close_reason, keepsock_close_reason_str
 *   Know whether a peer receives FIN or RST
 *     serving.h 6: keepsock_serve_options_set_max_connections
 *   Notice that the peer hung up while the program does other work
 *     client.h 6: keepsock_client_wait_hangup
 *   Read round-trip times, retransmissions and queues (TCP_INFO)
 *     client.h 9: keepsock_client_get_stats
 *     conn.h 10: keepsock_conn_get_stats
 *
 * Servers
 *   Accept connections in a loop of my own
 *     server.h 1: keepsock_server_listen
 *     server.h 2: keepsock_server_accept
 *   Listen on a free port (port 0), and learn its number
 *     server.h 4: keepsock_server_port, keepsock_server_endpoint
 *   Limit the time of an accept
 *     server.h 2: keepsock_server_set_accept_timeout
 *   Stop listening, and end the accept of another thread
 *     server.h 1: keepsock_server_close
 *   Set the mode and the owner of a Unix socket file
 *     options.h 8: keepsock_options_set_unix_mode, keepsock_options_set_unix_owner
 *   Learn the client's address behind HAProxy (PROXY protocol), or pass it on
 *     options.h 7: keepsock_options_add_trusted_proxy
 *     client.h 9: keepsock_client_proxy_address
 *     conn.h 10: keepsock_conn_proxy_address
 *     options.h 4: keepsock_options_set_proxy_header
 *   Accept from my own poll or epoll loop
 *     server.h 3: keepsock_server_set_nonblocking, keepsock_server_fd
 *     server.h 2: keepsock_server_accept
 *   Listen on several ports or sockets at once
 *     server.h 1: keepsock_server_listen_all
 *   Serve each connection with a thread
 *     serving.h 1: keepsock_server_serve
 *     serving.h 5: keepsock_serve_options_set_threads
 *   Serve thousands of connections by events
 *     serving.h 2: keepsock_server_serve_events
 *     conn.h 1: keepsock_callbacks
 *     conn.h 2: keepsock_conn_send
 *   Send a header and a body as one message from a callback
 *     conn.h 2: keepsock_conn_send_slices
 *   Push to many clients
 *     serving.h 4: keepsock_service_broadcast
 *     conn.h 8: keepsock_conn_join
 *     serving.h 7: keepsock_serve_options_set_overflow_policy
 *   Pass work to the thread of an event loop (uv_async_send)
 *     conn.h 7: keepsock_conn_post
 *     serving.h 3: keepsock_service_post
 *   Call a function after a time, or regularly, in an event loop (uv_timer_start)
 *     serving.h 3: keepsock_service_add_timer, keepsock_service_remove_timer
 *   Call a function once for one connection after a time
 *     conn.h 6: keepsock_conn_set_timer
 *   Attach data of the program to a connection
 *     conn.h 6: keepsock_conn_set_user, keepsock_conn_user
 *   Do something with every connection of a service
 *     serving.h 3: keepsock_service_for_each
 *   Slow down a fast sender (back-pressure)
 *     conn.h 3: keepsock_conn_pause, keepsock_conn_resume
 *     conn.h 2: keepsock_conn_queued
 *   Receive lines or messages instead of bytes
 *     basics.h 5: keepsock_framing
 *     serving.h 7: keepsock_serve_options_set_framing
 *   Change the framing of one connection (an upgrade of its protocol)
 *     conn.h 3: keepsock_conn_set_framing
 *   Limit the number of clients, in total or per address
 *     serving.h 6: keepsock_serve_options_set_max_connections,
 *         keepsock_serve_options_set_max_per_address
 *     server.h 4: keepsock_server_get_stats
 *   Allow or deny networks and users
 *     serving.h 6: keepsock_serve_options_add_allowed_network,
 *         keepsock_serve_options_add_denied_network
 *     options.h 8: keepsock_options_add_allowed_uid
 *   Find the process behind a Unix socket
 *     unix.h 1: keepsock_client_peer_credentials, keepsock_conn_peer_credentials
 *   Connect to other servers from a service (a proxy)
 *     serving.h 2: keepsock_service_connect, keepsock_service_add
 *   Accept in my own loop and serve there; take a connection out of a service again
 *     serving.h 2: keepsock_service_add
 *     conn.h 5: keepsock_conn_detach
 *   Pause accepting for a while
 *     serving.h 8: keepsock_service_pause_accept, keepsock_service_resume_accept
 *   Run the threads of a service on certain CPUs
 *     serving.h 5: keepsock_serve_options_set_cpus
 *   Stop a service after its connections have finished
 *     serving.h 8: keepsock_service_drain, keepsock_service_stop,
 *         keepsock_service_wait_stopped, keepsock_service_wait
 *   Restart without losing connections
 *     activation.h 3: keepsock_handover_start
 *     activation.h 1: keepsock_activation_listen, keepsock_activation_ready,
 *         keepsock_activation_free
 *   Start by socket activation (systemd)
 *     activation.h 1: keepsock_activation_from_env, keepsock_activation_listen,
 *         keepsock_activation_free
 *
 * Datagrams
 *   Send and receive UDP datagrams
 *     datagrams.h 1: keepsock_datagram_bind, keepsock_datagram_connect
 *     datagrams.h 3: keepsock_datagram_send_to, keepsock_datagram_reply
 *     datagrams.h 2: keepsock_datagram_recv
 *   Send or receive many datagrams with one system call
 *     datagrams.h 3: keepsock_datagram_send_batch
 *     datagrams.h 2: keepsock_datagram_recv_batch
 *   Share a UDP port between sockets, as mDNS does
 *     options.h 6: keepsock_options_set_sockopt
 *   Use one UDP socket for each peer of a server
 *     options.h 6: keepsock_options_set_sockopt
 *     datagrams.h 1: keepsock_datagram_set_peer
 *   Put a datagram socket into my event loop
 *     datagrams.h 4: keepsock_datagram_fd, keepsock_datagram_set_nonblocking
 *   Serve datagrams with threads of the library
 *     datagrams.h 6: keepsock_datagram_serve
 *   Serve several UDP ports or datagram sockets at once
 *     datagrams.h 6: keepsock_datagram_service_add
 *   Join a multicast group, or send a broadcast
 *     udp.h 1: keepsock_datagram_join_multicast, keepsock_datagram_set_broadcast
 *   Learn that a datagram did not arrive (ICMP)
 *     udp.h 3: keepsock_datagram_set_fail_on_refused, keepsock_datagram_set_recv_errors,
 *         keepsock_datagram_recv_error
 *
 * Diagnostics
 *   Turn a status into text
 *     basics.h 2: keepsock_status_str, keepsock_status_name
 *     basics.h 3: keepsock_error_message
 *   Set errno after a failed call
 *     basics.h 3: keepsock_status_errno
 *   Log what the library does
 *     basics.h 9: keepsock_log_set
 *   Print the state of every connection of a service
 *     serving.h 9: keepsock_service_dump, keepsock_service_get_stats
 *   See the SYN of a client, or a whole handshake
 *     options.h 7: keepsock_options_set_save_syn
 *     diagnostics.h 1: keepsock_client_saved_syn
 *     diagnostics.h 2: keepsock_capture_new, keepsock_capture_handshake
 */

#ifndef KEEPSOCK_H
#define KEEPSOCK_H

#include "keepsock/basics.h"
#include "keepsock/options.h"
#include "keepsock/client.h"
#include "keepsock/connect.h"
#include "keepsock/server.h"
#include "keepsock/conn.h"
#include "keepsock/serving.h"
#include "keepsock/datagrams.h"
#include "keepsock/udp.h"
#include "keepsock/unix.h"
#include "keepsock/activation.h"
#include "keepsock/diagnostics.h"

#endif /* KEEPSOCK_H */
