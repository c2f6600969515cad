/**
 * @file keepsock/udp.h
 * @brief UDP sockets: broadcast, multicast, IP header fields and network errors.
 *
 * Contents
 *  1. Broadcast and multicast: keepsock_datagram_set_broadcast,
 *     keepsock_datagram_join_multicast, keepsock_datagram_leave_multicast,
 *     keepsock_datagram_set_multicast_loop, keepsock_datagram_set_multicast_ttl,
 *     keepsock_datagram_set_multicast_interface
 *  2. IP header fields: keepsock_datagram_set_ttl, keepsock_datagram_set_tos,
 *     keepsock_datagram_set_recv_metadata, keepsock_datagram_set_dont_fragment
 *  3. Network errors: keepsock_datagram_set_recv_errors, keepsock_datagram_set_fail_on_refused,
 *     keepsock_datagram_recv_error
 *
 * Where a socket option has a counterpart here:
 *   SO_BROADCAST                            keepsock_datagram_set_broadcast
 *   IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP      keepsock_datagram_join_multicast
 *   IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP    keepsock_datagram_leave_multicast
 *   IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP  keepsock_datagram_set_multicast_loop
 *   IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS   keepsock_datagram_set_multicast_ttl
 *   IP_MULTICAST_IF, IPV6_MULTICAST_IF      keepsock_datagram_set_multicast_interface
 *   IP_TTL, IPV6_UNICAST_HOPS               keepsock_datagram_set_ttl
 *   IP_TOS, IPV6_TCLASS                     keepsock_datagram_set_tos
 *   IP_RECVTTL, IP_RECVTOS, SO_TIMESTAMPNS  keepsock_datagram_set_recv_metadata
 *   IP_MTU_DISCOVER                         keepsock_datagram_set_dont_fragment
 *   IP_MTU, IPV6_MTU                        the member path_mtu of keepsock_datagram_stats
 *   ECONNREFUSED from recv                  keepsock_datagram_set_fail_on_refused
 *   IP_RECVERR, MSG_ERRQUEUE                keepsock_datagram_set_recv_errors,
 *                                           keepsock_datagram_recv_error
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_UDP_H
#define KEEPSOCK_UDP_H

#include "basics.h"
#include "datagrams.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Broadcast and multicast -----------------------------------------------------------------
 */

/**
 * Sets whether datagrams may be sent to broadcast addresses (SO_BROADCAST).
 *
 * With false, sending to a broadcast address returns KEEPSOCK_ERR_PERMISSION_DENIED. To receive
 * broadcasts, bind the socket to a wildcard address. Default: false.
 *
 * @param datagram  A UDP socket.
 * @param on        true to allow broadcasts.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_broadcast(keepsock_datagram *datagram, bool on,
                                        keepsock_error **error);

/**
 * Joins a multicast group (IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP, IPV6_JOIN_GROUP).
 *
 * The socket receives the datagrams that are sent to the group and to its port, and not those of
 * groups that only other sockets of this machine have joined. A second call with another `source`
 * adds that source. Bind the socket to a wildcard address or to the group. Linux, macOS and
 * FreeBSD.
 *
 * @param datagram        A UDP socket.
 * @param group           The group. The port is ignored.
 * @param interface_name  The name or the index of the interface. NULL uses the route to the group.
 * @param source          The only sender to receive from. NULL receives from all senders.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_ADDRESS_IN_USE: the socket has already joined the group
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist, or there is no route to the
 *     group
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, not a multicast address, or the address families differ
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_join_multicast(keepsock_datagram *datagram, const keepsock_address *group,
                                         const char *interface_name, const keepsock_address *source,
                                         keepsock_error **error);

/**
 * Leaves a multicast group (IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP).
 *
 * Pass the arguments of keepsock_datagram_join_multicast(). Closing the socket leaves all groups.
 *
 * @param datagram        A UDP socket.
 * @param group           The group. The port is ignored.
 * @param interface_name  The interface that was passed when joining.
 * @param source          The sender that was passed when joining.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE: the socket has not joined the group
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist, or there is no route to the
 *     group
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, not a multicast address, or the address families differ
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_leave_multicast(keepsock_datagram *datagram,
                                          const keepsock_address *group, const char *interface_name,
                                          const keepsock_address *source, keepsock_error **error);

/**
 * Sets whether this machine receives the multicast datagrams that the socket sends
 * (IP_MULTICAST_LOOP).
 *
 * Default: true. Linux, macOS and FreeBSD.
 *
 * @param datagram  A UDP socket.
 * @param on        true to receive them.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_multicast_loop(keepsock_datagram *datagram, bool on,
                                             keepsock_error **error);

/**
 * Sets the TTL of multicast datagrams (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS).
 *
 * Default: 1, the local network. Linux, macOS and FreeBSD.
 *
 * @param datagram  A UDP socket.
 * @param ttl       0 to 255. 0 does not leave this machine.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_multicast_ttl(keepsock_datagram *datagram, uint8_t ttl,
                                            keepsock_error **error);

/**
 * Sets the interface for sending multicast datagrams (IP_MULTICAST_IF, IPV6_MULTICAST_IF).
 *
 * Default: the route to the group decides. Linux, macOS and FreeBSD.
 *
 * @param datagram        A UDP socket.
 * @param interface_name  The name or the index of the interface.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the interface does not exist
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that does not support it
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_multicast_interface(keepsock_datagram *datagram,
                                                  const char *interface_name,
                                                  keepsock_error **error);

/*
 * ---- 2. IP header fields ------------------------------------------------------------------------
 */

/**
 * Sets the TTL (IPv4) or the hop limit (IPv6) for unicast datagrams (IP_TTL, IPV6_UNICAST_HOPS).
 *
 * Default: that of the system, usually 64.
 *
 * @param datagram  A UDP socket.
 * @param ttl       1 to 255.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `ttl` is 0
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_ttl(keepsock_datagram *datagram, uint8_t ttl, keepsock_error **error);

/**
 * Sets the TOS byte (IPv4) or the traffic class (IPv6) for datagrams (IP_TOS, IPV6_TCLASS).
 *
 * The upper six bits are the DSCP (RFC 2474), the lower two are ECN (RFC 3168). Default: 0.
 *
 * @param datagram  A UDP socket.
 * @param tos       The byte.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process may not set this priority
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_tos(keepsock_datagram *datagram, uint8_t tos, keepsock_error **error);

/**
 * Sets whether received datagrams have additional metadata (IP_RECVTTL, IP_RECVTOS,
 * SO_TIMESTAMPNS).
 *
 * UDP: the members ttl, tos and received_at_ns of keepsock_datagram_info, and interface_index for
 * every kind of local address. Unix sockets: received_at_ns and credentials. It adds a small cost
 * for each datagram. Default: false. macOS and FreeBSD: UDP only, ttl and tos of IPv4 only on a
 * socket for IPv4. Windows: UDP only, without the time.
 *
 * @param on  true to receive metadata.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: not Linux, macOS, FreeBSD or Windows; a Unix socket and not
 *     Linux
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_recv_metadata(keepsock_datagram *datagram, bool on,
                                            keepsock_error **error);

/**
 * Sets whether routers and this machine must not fragment datagrams (IP_MTU_DISCOVER,
 * IP_DONTFRAG).
 *
 * Sending a datagram that is longer than the path MTU returns KEEPSOCK_ERR_TOO_LONG: immediately,
 * or for the next datagram if a router reports it later. keepsock_datagram_recv_error() returns
 * the path MTU. Default: false. Linux, Windows, macOS and FreeBSD; on the last two not for a socket
 * that has both IP versions.
 *
 * @param datagram  A UDP socket.
 * @param on        true to forbid fragments.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or not Linux, macOS, FreeBSD or Windows
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_dont_fragment(keepsock_datagram *datagram, bool on,
                                            keepsock_error **error);

/*
 * ---- 3. Network errors --------------------------------------------------------------------------
 */

/** An error that the network reported for a datagram that the socket sent. */
typedef struct {
    /** KEEPSOCK_ERR_REFUSED: no socket has the port. KEEPSOCK_ERR_UNREACHABLE: a router or
        firewall reported that the peer cannot be reached. KEEPSOCK_ERR_TOO_LONG: longer than the
        path MTU. KEEPSOCK_ERR_OS: another error. */
    int32_t status;
    /** The system's error number (errno), or 0. */
    int32_t os_error;
    /** The destination of the datagram. Family 0: unknown. */
    keepsock_address to;
    /** The host or router that reported the error, with port 0. Family 0: unknown. */
    keepsock_address from;
    /** With KEEPSOCK_ERR_TOO_LONG: the path MTU in bytes, including headers. 0: unknown. */
    uint32_t path_mtu;
} keepsock_datagram_error;

/**
 * Sets whether the error queue keeps ICMP errors (IP_RECVERR of ip(7), MSG_ERRQUEUE).
 *
 * keepsock_datagram_recv_error() returns them. Default: true for a connected socket, false for a
 * bound socket, for which the kernel does not report such errors otherwise. Linux, and
 * Windows, where a receive finds the errors.
 *
 * @param datagram  A UDP socket.
 * @param on        true to keep errors.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or not Linux or Windows
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_recv_errors(keepsock_datagram *datagram, bool on,
                                          keepsock_error **error);

/**
 * Sets whether a receive fails when the peer refuses a datagram (ECONNREFUSED).
 *
 * With true, a receive on a connected UDP socket returns KEEPSOCK_ERR_REFUSED as soon as the peer's
 * host reports that no socket has the peer's port (ICMP port unreachable), as plain connected
 * sockets do. A receive that waits ends immediately. Reports that arrive before a receive end it
 * together; on Windows each report ends one receive. Sending and keepsock_datagram_serve()
 * continue. A receive that waits then makes two system calls. Default: false.
 *
 * @param datagram  A connected UDP socket.
 * @param on        true to fail.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: the socket is not connected
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_NO_MEMORY: the kernel has no memory or no socket buffers
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_datagram_set_fail_on_refused(keepsock_datagram *datagram, bool on,
                                              keepsock_error **error);

/**
 * Returns the oldest error of the error queue, and removes it from the queue.
 *
 * It never waits. The queue has at most 64 errors; the library discards older ones.
 *
 * @param out  Receives the error.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: the queue is empty
 *   - KEEPSOCK_ERR_CLOSED: this process closed the socket, and the queue is empty
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_datagram_recv_error(keepsock_datagram *datagram, keepsock_datagram_error *out,
                                     size_t size, keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_UDP_H */
