/**
 * @file keepsock/options.h
 * @brief Options for creating a socket.
 *
 * Set the options that must differ from their defaults, and pass the object to the functions that
 * connect, listen, bind or adopt a descriptor. NULL means the defaults. A setter rejects a value
 * that is out of range. The function that creates the socket returns KEEPSOCK_ERR_INVALID_ARGUMENT
 * for an option that has no effect on its kind of socket, and KEEPSOCK_ERR_UNSUPPORTED for an
 * option that the system lacks. docs/options.md lists each option for each kind of socket.
 *
 * Contents
 *  1. Creating and freeing: keepsock_options_new, keepsock_options_free
 *  2. Timeouts and cancellation: keepsock_options_set_connect_timeout,
 *     keepsock_options_set_read_timeout, keepsock_options_set_write_timeout,
 *     keepsock_options_set_close_timeout, keepsock_options_set_cancel
 *  3. Liveness: keepsock_options_set_keepalive, keepsock_options_set_middlebox_timeout,
 *     keepsock_options_set_dead_after, keepsock_options_set_fail_on_stall,
 *     keepsock_options_set_heartbeat, keepsock_options_set_heartbeat_timeout,
 *     keepsock_options_set_idle_timeout, keepsock_options_set_idle_receive_only,
 *     keepsock_options_set_first_byte_timeout
 *  4. Connecting: keepsock_options_set_family, keepsock_options_set_preferred_family,
 *     keepsock_options_add_remote_address, keepsock_options_set_local_endpoint,
 *     keepsock_options_set_interface, keepsock_options_set_attempt_delay,
 *     keepsock_options_set_proxy_header
 *  5. TCP and UDP: keepsock_options_set_nodelay, keepsock_options_set_fast_open,
 *     keepsock_options_set_mptcp, keepsock_options_set_keep_stats, keepsock_options_set_udp_gro
 *  6. Options of the operating system: keepsock_options_set_sockopt,
 *     keepsock_options_set_congestion_control, keepsock_options_set_raw_sockopt
 *  7. Listening: keepsock_options_set_backlog, keepsock_options_add_trusted_proxy,
 *     keepsock_options_set_proxy_timeout, keepsock_options_set_save_syn,
 *     keepsock_options_set_handover
 *  8. Unix sockets: keepsock_options_set_unix_mode, keepsock_options_set_unix_owner,
 *     keepsock_options_add_allowed_uid, keepsock_options_set_seqpacket
 *
 * Where a BSD call or a socket option has a counterpart here:
 *   SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL        keepsock_options_set_keepalive
 *   TCP_USER_TIMEOUT                                 keepsock_options_set_fail_on_stall
 *   TCP_NODELAY                                      keepsock_options_set_nodelay
 *   SO_SNDBUF, SO_RCVBUF, IP_TOS, SO_REUSEPORT, ...  keepsock_options_set_sockopt
 *   TCP_CONGESTION                                   keepsock_options_set_congestion_control
 *   any other socket option                          keepsock_options_set_raw_sockopt
 *   SO_RCVTIMEO, SO_SNDTIMEO                         keepsock_options_set_read_timeout,
 *                                                    keepsock_options_set_write_timeout
 *   SO_LINGER                                        keepsock_options_set_close_timeout
 *   SO_BINDTODEVICE                                  keepsock_options_set_interface
 *   SO_REUSEADDR, IPV6_V6ONLY                        always set as servers need them
 *   TCP_FASTOPEN, TCP_FASTOPEN_CONNECT               keepsock_options_set_fast_open
 *   TCP_SAVE_SYN                                     keepsock_options_set_save_syn
 *   UDP_GRO                                          keepsock_options_set_udp_gro
 *   IPPROTO_MPTCP                                    keepsock_options_set_mptcp
 *   SOCK_SEQPACKET                                   keepsock_options_set_seqpacket
 *   AF_INET, AF_INET6                                keepsock_options_set_family
 *   bind before connect                              keepsock_options_set_local_endpoint
 *   the backlog of listen                            keepsock_options_set_backlog
 *   chmod, chown of a Unix socket                    keepsock_options_set_unix_mode,
 *                                                    keepsock_options_set_unix_owner
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_OPTIONS_H
#define KEEPSOCK_OPTIONS_H

#include "basics.h"

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
 * Options for creating a socket.
 *
 * The functions that connect, listen, bind or adopt a descriptor copy the options. One object
 * serves any number of sockets and may be freed after the call.
 *
 * Threads: no other thread may use the object while a thread sets an option. Several threads may
 * pass it to functions that create sockets.
 */
typedef struct keepsock_options keepsock_options;

/**
 * Creates options with the defaults.
 * @param options  Receives the options. Free them with keepsock_options_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_new(keepsock_options **options, keepsock_error **error);

/** Frees options. */
void keepsock_options_free(keepsock_options *options);

/*
 * ---- 2. Timeouts and cancellation ---------------------------------------------------------------
 */

/**
 * Sets the connect timeout: the time for the name lookup and all attempts together.
 *
 * For listening and binding it limits the lookup of the local name. Default: 30,000 ms.
 *
 * @param timeout_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE leaves the time to the
 *                    system.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_connect_timeout(keepsock_options *options, int64_t timeout_ms,
                                             keepsock_error **error);

/**
 * Sets the read timeout: the time that each read call may take as a whole (SO_RCVTIMEO).
 *
 * Connections of event loops have no read calls: use keepsock_options_set_idle_timeout() there.
 * Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_read_timeout(keepsock_options *options, int64_t timeout_ms,
                                          keepsock_error **error);

/**
 * Sets the write timeout: the time that each write call may take as a whole (SO_SNDTIMEO).
 *
 * Connections of event loops have no write calls: use keepsock_options_set_dead_after() with
 * keepsock_options_set_fail_on_stall() there. Default: KEEPSOCK_INFINITE.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_write_timeout(keepsock_options *options, int64_t timeout_ms,
                                           keepsock_error **error);

/**
 * Sets the close timeout: the time that a graceful close may take.
 *
 * keepsock_client_close() waits for at most this time until the peer closes its side. Default:
 * 2,000 ms.
 *
 * @param timeout_ms  Milliseconds. 0 does not wait. KEEPSOCK_INFINITE is rejected: the close
 *                    might never return.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_close_timeout(keepsock_options *options, int64_t timeout_ms,
                                           keepsock_error **error);

/**
 * Sets the cancel token that ends the socket's waiting calls, including connect.
 *
 * Connections that a server accepts have no token. Default: none.
 *
 * @param cancel  A token, which the options and the socket share, so it may be freed earlier. NULL
 *                means none.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL
 */
int32_t keepsock_options_set_cancel(keepsock_options *options, const keepsock_cancel_token *cancel,
                                    keepsock_error **error);

/*
 * ---- 3. Liveness --------------------------------------------------------------------------------
 *
 * Keepalive keeps an idle connection alive in middleboxes and finds a vanished peer of an idle
 * connection. dead_after also bounds the time while data is unacknowledged. A heartbeat and the
 * idle timeout work above TCP. docs/liveness.md explains which one to use.
 */

/**
 * Sets the keepalive values of TCP connections (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL,
 * TCP_KEEPCNT).
 *
 * After `idle_ms` without traffic the kernel sends a probe, and then one every `interval_ms`.
 * After `count` unanswered probes the connection ends with KEEPSOCK_ERR_DEAD (tcp(7), RFC 9293
 * section 3.8.4). So a vanished peer of an idle connection is detected after idle + interval ×
 * count.
 *
 * TCP only. Default: 45 s, 15 s, 5. A vanished peer is detected in 120 s, and no common firewall,
 * NAT device or load balancer forgets the connection. dead_after and the middlebox timeout shorten
 * the default values. They do not change other values, and reject values that are too long.
 *
 * @param idle_ms      1 to 32,767,000 milliseconds, rounded up to whole seconds. KEEPSOCK_INFINITE
 *                     turns keepalive off; `interval_ms` and `count` are then ignored.
 * @param interval_ms  1 to 32,767,000 milliseconds, rounded up to whole seconds.
 * @param count        1 to 127.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or the values contradict dead_after or
 *     the middlebox timeout; nothing is changed
 */
int32_t keepsock_options_set_keepalive(keepsock_options *options, int64_t idle_ms,
                                       int64_t interval_ms, uint32_t count, keepsock_error **error);

/**
 * Keeps firewalls, NAT devices and load balancers on the path from forgetting an idle connection.
 *
 * Set it to the idle time after which the device forgets a connection. The kernel then sends
 * keepalive probes so often that one of them may be lost. A proxy ends TCP and does not forward
 * probes: use keepsock_options_set_heartbeat() there.
 *
 * TCP only. Default: KEEPSOCK_INFINITE. The default keepalive probes after 45 s, which suits all
 * common devices.
 *
 * @param timeout_ms  2,000 to 163,880,000 milliseconds, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or keepalive is off or has a longer
 *     idle time
 */
int32_t keepsock_options_set_middlebox_timeout(keepsock_options *options, int64_t timeout_ms,
                                               keepsock_error **error);

/**
 * Sets dead_after: the time within which a vanished peer is detected.
 *
 * The connection ends with KEEPSOCK_ERR_DEAD within this time and one second, whether it is idle,
 * has unacknowledged data, or is blocked in a write. A peer that is alive and has only stopped
 * reading is not ended, unless keepsock_options_set_fail_on_stall() is on. Without dead_after only
 * keepalive detects a vanished peer. Keepalive is silent while data is unacknowledged, and the
 * kernel then retries for about a quarter of an hour. Default: KEEPSOCK_INFINITE.
 *
 * The option adjusts keepalive to fit. While data is unacknowledged, waiting calls and event loops
 * query how long the peer has been silent (TCP_INFO), four times in this time. A program that does
 * not wait in calls calls keepsock_client_check_liveness().
 *
 * Linux 6.15 and later retransmit, and probe a peer that accepts no data, at least every eighth of
 * this time or every second (TCP_RTO_MAX_MS). Earlier kernels probe less and less often, so a peer
 * that vanishes while it accepts no data is detected later. FreeBSD probes at least every minute.
 * Its count of the silence overflows after 71 minutes, so more than an hour acts like an hour while
 * data is unacknowledged. macOS and Windows do this in the kernel, in whole seconds. NetBSD,
 * OpenBSD and illumos do not support it. The peer of a Unix socket cannot vanish, so the option is
 * accepted and has no effect there.
 *
 * @param timeout_ms  2,000 to 163,880,000 milliseconds. KEEPSOCK_INFINITE turns it off.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; keepalive is off, or detects a dead
 *     peer later; with mptcp, where silence of one path does not mean that the peer vanished;
 *     KEEPSOCK_INFINITE while fail_on_stall is on
 */
int32_t keepsock_options_set_dead_after(keepsock_options *options, int64_t timeout_ms,
                                        keepsock_error **error);

/**
 * Ends a connection whose peer is alive but accepts no data for the time of dead_after
 * (TCP_USER_TIMEOUT).
 *
 * The connection ends with KEEPSOCK_ERR_STALLED. The kernel measures the time from the first byte
 * that the peer does not accept, whether a call waits or not (tcp(7), RFC 9293 section 3.8.3;
 * FreeBSD: TCP_MAXUNACKTIME). TCP on Linux and FreeBSD only. Set dead_after first. Default: false.
 *
 * @param on  true to end stalled connections.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or dead_after is not set
 */
int32_t keepsock_options_set_fail_on_stall(keepsock_options *options, bool on,
                                           keepsock_error **error);

/**
 * Sets the heartbeat: bytes that are sent when nothing was written for an interval.
 *
 * The protocol defines the bytes, for example "PING\r\n". A heartbeat keeps a proxy from closing
 * the connection: a proxy ends TCP and answers keepalive itself. With
 * keepsock_options_set_heartbeat_timeout() it detects a peer whose kernel answers while its
 * program hangs.
 *
 * Every call that waits on the connection sends heartbeats, and so do
 * keepsock_client_check_liveness() and the event loops of a service. They are never inserted into
 * a partly written message, and not sent while the kernel accepts no data. Default: none.
 *
 * @param interval_ms  Milliseconds, greater than 0. KEEPSOCK_INFINITE removes the heartbeat.
 * @param buf          The bytes, copied. With KEEPSOCK_INFINITE it is ignored and may be NULL.
 * @param len          The number of bytes, greater than 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; no bytes; out of range; the idle timeout is not longer
 *     than the interval; KEEPSOCK_INFINITE with a heartbeat timeout
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the bytes
 */
int32_t keepsock_options_set_heartbeat(keepsock_options *options, int64_t interval_ms,
                                       const void *buf, size_t len, keepsock_error **error);

/**
 * Sets the heartbeat timeout: the time within which the peer must answer a heartbeat.
 *
 * If no byte arrives for this time after a heartbeat, the connection ends, and read calls return
 * KEEPSOCK_ERR_HEARTBEAT_TIMEOUT. Every byte that arrives after the heartbeat is an answer, also
 * if it is unread. With this option, heartbeats are also sent when nothing was received for the
 * heartbeat interval, even if this side writes steadily. Set the heartbeat first. Default:
 * KEEPSOCK_INFINITE: heartbeats need no answer.
 *
 * A connection ends only if the kernel accepted a heartbeat. The process or its event loop may stop
 * for a quarter of this time or longer (SIGSTOP, a slow callback, a program that makes no calls).
 * Then the peer receives another heartbeat and has the full time again. While nothing is
 * received, that happens once, and again only after a stop of about twice that length. The timeout
 * does not apply after the peer has closed its side.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, or no heartbeat is set
 */
int32_t keepsock_options_set_heartbeat_timeout(keepsock_options *options, int64_t timeout_ms,
                                               keepsock_error **error);

/**
 * Sets the idle timeout: the time after which a connection without traffic ends.
 *
 * Read calls then return KEEPSOCK_ERR_IDLE_TIMEOUT. The program can still write a last message
 * before it closes the connection. A read timeout limits one call, the idle timeout limits the
 * connection. Default: KEEPSOCK_INFINITE.
 *
 * Traffic in either direction counts: bytes that were read, and written bytes that the peer's
 * kernel acknowledged. Where the kernel does not report acknowledgments, as for a Unix socket,
 * bytes that the kernel accepted count. Unread bytes and the heartbeats of this side do not count;
 * answers to heartbeats do. keepsock_options_set_idle_receive_only() counts received bytes only.
 *
 * If the process or its event loop was stopped for a quarter of this time or longer, the full time
 * starts again. While the connection is idle, that happens once, and again only after a stop of
 * about twice that length. After the peer has closed its side, the timeout also ends write calls.
 * The time starts again when the end of the stream is read.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; out of range; not longer than the heartbeat interval;
 *     KEEPSOCK_INFINITE while idle_receive_only is on
 */
int32_t keepsock_options_set_idle_timeout(keepsock_options *options, int64_t timeout_ms,
                                          keepsock_error **error);

/**
 * Sets whether only received bytes count as traffic for the idle timeout.
 *
 * Use it for a peer that must send something itself. Set the idle timeout first. Default: false.
 *
 * @param on  true to count received bytes only.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no idle timeout is set
 */
int32_t keepsock_options_set_idle_receive_only(keepsock_options *options, bool on,
                                               keepsock_error **error);

/**
 * Sets the first-byte timeout: the idle timeout until the first byte has arrived.
 *
 * Use it for clients that connect and send nothing. When it expires, read calls return
 * KEEPSOCK_ERR_IDLE_TIMEOUT. Default: KEEPSOCK_INFINITE: the idle timeout applies from the start.
 *
 * @param timeout_ms  Milliseconds, greater than 0, or KEEPSOCK_INFINITE.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_first_byte_timeout(keepsock_options *options, int64_t timeout_ms,
                                                keepsock_error **error);

/*
 * ---- 4. Connecting ------------------------------------------------------------------------------
 */

/**
 * Restricts TCP and UDP sockets to IPv4 or IPv6 (AF_INET, AF_INET6). Default: KEEPSOCK_FAMILY_ANY.
 * @param family  A keepsock_family.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; `family` is not a keepsock_family;
 *     keepsock_options_set_preferred_family() is set
 */
int32_t keepsock_options_set_family(keepsock_options *options, int32_t family,
                                    keepsock_error **error);

/**
 * Sets the IP version that a connect tries first.
 *
 * The addresses of both versions alternate (RFC 8305). Listening on a name, and UDP, use the first
 * address of this version if there is one. Creating a Unix socket with this option fails with
 * KEEPSOCK_ERR_INVALID_ARGUMENT. Default: KEEPSOCK_FAMILY_ANY, the order of the system.
 *
 * @param family  A keepsock_family.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; `family` is not a keepsock_family;
 *     keepsock_options_set_family() excludes one version
 */
int32_t keepsock_options_set_preferred_family(keepsock_options *options, int32_t family,
                                              keepsock_error **error);

/**
 * Adds an address to connect to, in place of the lookup of the endpoint's name.
 *
 * TCP addresses race in the order in which they were added. keepsock_datagram_connect() uses the
 * first address that it can connect to. keepsock_lookup() returns the addresses of a name, and
 * keepsock_address_text() their text. Default: none.
 *
 * @param endpoint  A numeric endpoint: "192.0.2.1:80", "[2001:db8::1]:80".
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the text is not a numeric endpoint
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
 */
int32_t keepsock_options_add_remote_address(keepsock_options *options, const char *endpoint,
                                            keepsock_error **error);

/**
 * Sets the local endpoint to connect from (bind(2) before connect(2)).
 *
 * For TCP, and for connected datagram sockets. Connecting fails with
 * KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE if the address does not belong to this machine. It fails with
 * KEEPSOCK_ERR_INVALID_ENDPOINT for a multicast or broadcast address, and for a link-local IPv6
 * address without a zone ("[fe80::1%eth0]:0") or interface (keepsock_options_set_interface()).
 *
 * @param endpoint  For TCP and UDP an address of this machine, not a multicast or broadcast
 *                  address. Port 0 lets the kernel choose the port when the socket connects, so
 *                  that TCP connections to different destinations may share a port
 *                  (IP_BIND_ADDRESS_NO_PORT, Linux). For a Unix datagram socket a path, whose
 *                  file the library creates and removes, or an abstract name. NULL, the
 *                  default: the kernel chooses.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the text is not an endpoint
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or the text is not UTF-8
 */
int32_t keepsock_options_set_local_endpoint(keepsock_options *options, const char *endpoint,
                                            keepsock_error **error);

/**
 * Sets the network interface for the traffic of a TCP or UDP socket (SO_BINDTODEVICE).
 *
 * Linux (all users since 5.7) and macOS.
 *
 * @param interface_name  The name of the interface, 1 to 15 bytes: "eth0". NULL, the default: the
 *                        route decides.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or the name is empty or too long
 */
int32_t keepsock_options_set_interface(keepsock_options *options, const char *interface_name,
                                       keepsock_error **error);

/**
 * Sets the time between the starts of two attempts of one connect (RFC 8305 section 5).
 *
 * If an attempt fails, the next attempt starts immediately. A shorter delay connects faster if an
 * address does not answer, and puts more load on slow servers. Default: 250 ms.
 *
 * @param delay_ms  10 to 2,000 milliseconds, the range of the RFC.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_attempt_delay(keepsock_options *options, int64_t delay_ms,
                                           keepsock_error **error);

/**
 * Sets the header of the PROXY protocol that a connect sends before all other bytes.
 *
 * A relay passes the addresses of its client, so that the server learns them. An IPv4 and an IPv6
 * address are sent as two IPv6 addresses. Default: no header.
 *
 * @param version      1 (text) or 2 (binary). 0: no header.
 * @param source       The address of the client. NULL: the connection has no client (UNKNOWN in
 *                     version 1, LOCAL in version 2).
 * @param destination  The address to which the client connected. NULL as `source`.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, the version is unknown, one of the
 *     addresses is NULL or has no family, version 0 has addresses, or seqpacket is set
 */
int32_t keepsock_options_set_proxy_header(keepsock_options *options, int32_t version,
                                          const keepsock_address *source,
                                          const keepsock_address *destination,
                                          keepsock_error **error);

/*
 * ---- 5. TCP and UDP -----------------------------------------------------------------------------
 */

/**
 * Sets whether small writes are sent immediately (TCP_NODELAY).
 *
 * With false the kernel collects small writes while earlier bytes are unacknowledged (Nagle's
 * algorithm). A Unix socket always sends immediately. Default: true.
 *
 * @param on  true to send immediately.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_nodelay(keepsock_options *options, bool on, keepsock_error **error);

/**
 * Sets whether TCP Fast Open is used (TCP_FASTOPEN, RFC 7413).
 *
 * A client that has connected to the server before sends its first bytes with the SYN, which saves
 * one round trip. Linux only. Clients and servers need net.ipv4.tcp_fastopen = 3. Default: false.
 *
 * Connecting to an address with a cookie of an earlier connection succeeds immediately and sends
 * nothing. The first write performs the handshake and reports its failures. Use it for protocols
 * in which the client sends first, and for requests that may arrive twice. A name with several
 * addresses races without it.
 *
 * @param on  true to use TCP Fast Open.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_fast_open(keepsock_options *options, bool on, keepsock_error **error);

/**
 * Sets whether Multipath TCP is used (IPPROTO_MPTCP, RFC 8684).
 *
 * One connection uses several networks and survives the loss of one of them. With a peer that does
 * not support it, the connection is plain TCP. Linux with net.mptcp.enabled = 1 only. It cannot be
 * combined with dead_after: silence of one path does not mean that the peer vanished. Default:
 * false.
 *
 * @param on  true to use Multipath TCP.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or dead_after is set
 */
int32_t keepsock_options_set_mptcp(keepsock_options *options, bool on, keepsock_error **error);

/**
 * Sets whether closing takes a last snapshot of the statistics.
 *
 * keepsock_client_get_stats() returns it after close. It costs a few system calls for each
 * close. A connection that ended by an error always has a last snapshot. Default: false.
 *
 * @param on  true to take a last snapshot.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_keep_stats(keepsock_options *options, bool on, keepsock_error **error);

/**
 * Sets whether the kernel may coalesce received datagrams (UDP_GRO of udp(7), Linux 5.0; URO of
 * Windows 10 2004).
 *
 * The kernel delivers consecutive datagrams of one sender together; the library returns them one
 * by one. Use it for sockets that receive many thousand datagrams per second. It copies each
 * datagram once more, lets one thread receive at a time, and uses up to one megabyte. UDP on Linux
 * and Windows only. Default: false.
 *
 * Remaining datagrams wait in the socket object, so the descriptor may not be readable although
 * datagrams are left: after a poll, receive until KEEPSOCK_ERR_WOULD_BLOCK. The kernel counts a
 * coalesced batch that does not fit as one drop (`dropped` of keepsock_datagram_stats).
 *
 * @param on  true to coalesce.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_udp_gro(keepsock_options *options, bool on, keepsock_error **error);

/*
 * ---- 6. Options of the operating system ---------------------------------------------------------
 *
 * Buffer sizes, TOS, SO_REUSEPORT and others by keepsock_sockopt, and any other option by its
 * number. They are set before bind, connect or listen. A message names an option that fails.
 * keepsock_client_set_sockopt() changes options of an open connection.
 */

/**
 * Sets an option of the operating system (setsockopt(2)).
 *
 * It is set on the socket of each attempt and on each listener, and so on each accepted
 * connection. Creating a socket fails with KEEPSOCK_ERR_PERMISSION_DENIED if the process may not
 * set the option. Default: the values of the system; nodelay is 1.
 *
 * @param option  A keepsock_sockopt.
 * @param value   The value. An option that is off or on has 0 or 1. 0 sets an option back to its
 *   default if its values begin above 0 (buffer sizes, segment size, flow label).
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, `option` is not a keepsock_sockopt, or `value` is out
 *     of its range
 */
int32_t keepsock_options_set_sockopt(keepsock_options *options, int32_t option, uint32_t value,
                                     keepsock_error **error);

/**
 * Sets the congestion control of TCP connections by its name (TCP_CONGESTION). Linux and FreeBSD.
 *
 * Creating a socket fails with KEEPSOCK_ERR_UNSUPPORTED if the kernel does not have it, and with
 * KEEPSOCK_ERR_PERMISSION_DENIED if the process may not use it
 * (net.ipv4.tcp_allowed_congestion_control).
 *
 * @param name  "cubic" or "bbr", for example; 1 to 15 bytes. NULL, the default: that of the system.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` is NULL, or the name is empty or too long
 */
int32_t keepsock_options_set_congestion_control(keepsock_options *options, const char *name,
                                                keepsock_error **error);

/**
 * Sets an option of the operating system that keepsock_sockopt does not have (setsockopt(2)).
 *
 * It is set after all other options, also on an adopted descriptor. An accepted connection has it
 * if the kernel copies it from the listener. An option with the same level and name is replaced.
 * Creating a socket fails with the error of setsockopt(2): KEEPSOCK_ERR_UNSUPPORTED,
 * KEEPSOCK_ERR_PERMISSION_DENIED, or KEEPSOCK_ERR_OS for a value that the kernel rejects. The
 * message has the level and the name.
 *
 * @param level  SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, ...
 * @param name   The number of the option at this level.
 * @param buf    The value, copied. NULL only with `len` 0.
 * @param len    The size of the value in bytes, at most 4,096.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL; `len` is out of range; the library sets this option
 *     itself (SO_KEEPALIVE and its values, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, TCP_NODELAY), and
 *     the message names the function to use
 */
int32_t keepsock_options_set_raw_sockopt(keepsock_options *options, int32_t level, int32_t name,
                                         const void *buf, size_t len, keepsock_error **error);

/*
 * ---- 7. Listening -------------------------------------------------------------------------------
 */

/**
 * Sets the backlog: how many established connections may wait to be accepted (listen(2)).
 *
 * The kernel lowers it to its own limit (net.core.somaxconn on Linux).
 *
 * @param backlog  The number of connections. 0, the default: the limit of the kernel.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_backlog(keepsock_options *options, uint32_t backlog,
                                     keepsock_error **error);

/**
 * Adds a network whose connections begin with a header of the PROXY protocol (version 1 or 2), as
 * HAProxy sends it. The five-tuple of such a connection is that of the proxy's client.
 *
 * With one or more networks, connections from all other addresses are closed immediately and
 * counted (`proxy_rejected` of keepsock_server_stats): a client must not choose its own address.
 * Default: no network, and no connection has a header.
 *
 * keepsock_server_accept() does not wait for the header, so a slow proxy delays no other
 * connection. The first read receives the header, or keepsock_client_read_proxy_header(), which a
 * program calls first if it needs the address before it reads. keepsock_server_serve() receives the
 * header in the thread of the connection, before it calls the handler, and applies the limits by
 * address after that. keepsock_server_serve_events() does the same before on_open, without waiting:
 * without a header no callback of the connection runs. While accepting is paused, no header is
 * late. Stopping the service resets the connections that have sent no header yet.
 *
 * A connection counts for `max_connections` from accept on, also without a header.
 *
 * For listening on TCP only. A server that also listens on a Unix socket expects no header there.
 *
 * @param network  "192.0.2.0/24", "2001:db8::/32", or one address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `options` or `network` is NULL, `network` does not parse, or
 *     it contains the IPv4-mapped addresses and more
 */
int32_t keepsock_options_add_trusted_proxy(keepsock_options *options, const char *network,
                                           keepsock_error **error);

/**
 * Sets the time within which the whole PROXY header must arrive after accept.
 *
 * The connection is reset otherwise. Default: 5000. Listening without a trusted proxy rejects
 * another value.
 *
 * @param timeout_ms  Milliseconds, greater than 0.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_proxy_timeout(keepsock_options *options, int64_t timeout_ms,
                                           keepsock_error **error);

/**
 * Sets whether the kernel saves the SYN of each accepted connection (TCP_SAVE_SYN, Linux 4.2).
 *
 * keepsock_client_saved_syn() returns it. The kernel needs about 100 bytes for each connection
 * until it is read. All users may do this. For listening TCP sockets whose connections are
 * keepsock_client objects: keepsock_server_serve_events() rejects it. Default: false.
 *
 * @param on  true to save the SYN.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_save_syn(keepsock_options *options, bool on, keepsock_error **error);

/**
 * Sets whether keepsock_handover_start() can pass the socket to a successor while this process
 * uses it.
 *
 * Both processes then share a listening socket or a datagram socket, and closing it here does not
 * end the listening. An accept costs one poll(2) more, and the socket one descriptor; with
 * keepsock_server_serve_events() it costs the descriptor only. Adopted and inherited sockets
 * always have this property. Default: false.
 *
 * @param on  true to allow a handover.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_options_set_handover(keepsock_options *options, bool on, keepsock_error **error);

/*
 * ---- 8. Unix sockets ----------------------------------------------------------------------------
 */

/**
 * Sets the permissions of a Unix socket's file (chmod(2)), independent of the umask.
 *
 * Processes that may write to the file may connect. The mode is set before any process can
 * connect. For listening and binding on a path.
 *
 * @param mode  0 to 0777, for example 0660. -1, the default: the umask decides.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or out of range
 */
int32_t keepsock_options_set_unix_mode(keepsock_options *options, int64_t mode,
                                       keepsock_error **error);

/**
 * Sets the owner and the group of a Unix socket's file (chown(2)).
 *
 * They are set before any process can connect. Only root may set another owner, and only members
 * may set another group; otherwise listening fails with KEEPSOCK_ERR_PERMISSION_DENIED. For
 * listening and binding on a path.
 *
 * @param uid  The user ID. -1, the default: the system decides.
 * @param gid  The group ID. -1, the default: the system decides.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or an ID is out of range
 */
int32_t keepsock_options_set_unix_owner(keepsock_options *options, int64_t uid, int64_t gid,
                                        keepsock_error **error);

/**
 * Adds a user that may connect to a Unix socket, or send to it.
 *
 * A listening socket closes connections of other users before the program sees them, and counts
 * them (`denied` of keepsock_server_stats). A bound datagram socket (Linux) skips datagrams of
 * other users, and counts them (`denied` of keepsock_datagram_stats). Root is no exception. For
 * listening and binding. Default: all users may.
 *
 * @param uid  The user ID. (uid_t)-1 is rejected.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `uid` is (uid_t)-1
 */
int32_t keepsock_options_add_allowed_uid(keepsock_options *options, uint32_t uid,
                                         keepsock_error **error);

/**
 * Sets whether a Unix socket carries packets in order instead of a stream (SOCK_SEQPACKET).
 *
 * Each write sends one packet, and each read receives one packet. Both sides must set it, for
 * connecting and for listening. Linux and FreeBSD. Default: false.
 *
 * A packet has at least one byte, because an empty packet looks like the end of the stream. It has
 * at most as many bytes as the send buffer holds (about 200 KB by default on Linux); a longer
 * packet is KEEPSOCK_ERR_TOO_LONG. A packet that does not fit into the reader's buffer is lost:
 * the read returns KEEPSOCK_ERR_TOO_LONG, and the next read receives the next packet.
 *
 * Functions for lines, messages, exact lengths and files return KEEPSOCK_ERR_WRONG_STATE, as does
 * keepsock_service_add(). keepsock_server_serve_events() returns KEEPSOCK_ERR_INVALID_ARGUMENT.
 *
 * @param on  true for packets.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or keepsock_options_set_proxy_header() is set, which
 *     needs a stream
 */
int32_t keepsock_options_set_seqpacket(keepsock_options *options, bool on, keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_OPTIONS_H */
