/**
 * @file keepsock/diagnostics.h
 * @brief Diagnostics: TCP handshakes, captured from the network or saved by the kernel.
 *
 * Contents
 *  1. TCP segments: keepsock_client_saved_syn
 *  2. Capturing handshakes: keepsock_capture_new, keepsock_capture_handshake,
 *     keepsock_capture_free
 *  3. Reading a handshake: keepsock_handshake_segment, keepsock_handshake_diagram,
 *     keepsock_handshake_free
 *
 * Where a socket option or a program has a counterpart here:
 *   TCP_SAVE_SYN, TCP_SAVED_SYN  keepsock_client_saved_syn
 *   tcpdump, packet(7)           keepsock_capture_new
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_DIAGNOSTICS_H
#define KEEPSOCK_DIAGNOSTICS_H

#include "basics.h"
#include "client.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. TCP segments ----------------------------------------------------------------------------
 */

/** keepsock_segment.flags: the sender has sent all of its data. */
#define KEEPSOCK_TCP_FIN 1

/** keepsock_segment.flags: seq is the sender's initial sequence number. */
#define KEEPSOCK_TCP_SYN 2

/** keepsock_segment.flags: the sender resets the connection. */
#define KEEPSOCK_TCP_RST 4

/** keepsock_segment.flags: the receiver delivers the data to its program immediately. */
#define KEEPSOCK_TCP_PSH 8

/** keepsock_segment.flags: ack is valid. */
#define KEEPSOCK_TCP_ACK 16

/** keepsock_segment.flags: urgent is valid. */
#define KEEPSOCK_TCP_URG 32

/** keepsock_segment.flags: congestion was marked. In a SYN: the sender supports ECN. */
#define KEEPSOCK_TCP_ECE 64

/** keepsock_segment.flags: the sender has reduced its window. In a SYN: it supports ECN. */
#define KEEPSOCK_TCP_CWR 128

/** One TCP segment with its IP header (RFC 9293, RFC 791, RFC 8200). */
typedef struct {
    /** The time of the capture in nanoseconds since 1970. -1: unknown, for a SYN that the kernel
        saved and for packets in the first moments of a capture. */
    int64_t captured_at_ns;
    /** The sequence number. In a SYN: the sender's initial sequence number. */
    uint32_t seq;
    /** The acknowledgment number, valid with KEEPSOCK_TCP_ACK. */
    uint32_t ack;
    /** The number of data bytes. */
    uint32_t payload_len;
    /** The sender's timestamp (RFC 7323), with has_timestamps. */
    uint32_t timestamp;
    /** The peer's last timestamp, with has_timestamps; 0 in a SYN. */
    uint32_t timestamp_echo;
    /** For a packet of a handshake: how often it was retransmitted, because no answer arrived in
        time. 0 for the third packet. */
    uint32_t retransmissions;
    /** For a packet of a handshake: the keepsock_tcp_state of the side that connected, after the
        packet has arrived. It is derived from the packets; before the first packet it is CLOSED.
        0 for other segments. */
    int32_t client_state;
    /** The TCP state of the side that listened. Before the first packet it is LISTEN. */
    int32_t server_state;
    /** The window as in the header, not scaled. */
    uint16_t window;
    /** The urgent pointer, valid with KEEPSOCK_TCP_URG. */
    uint16_t urgent;
    /** The maximum segment size that the sender accepts; 0: not announced. */
    uint16_t mss;
    /** The sender's port, in host byte order. */
    uint16_t source_port;
    /** The receiver's port, in host byte order. */
    uint16_t destination_port;
    /** The shift of the sender's windows in bits; -1: no window scaling. */
    int16_t window_scale;
    /** A combination of KEEPSOCK_TCP_SYN and the other flags. */
    uint8_t flags;
    /** 4 or 6. */
    uint8_t ip_version;
    /** The remaining TTL (IPv4) or hop limit (IPv6). */
    uint8_t ttl;
    /** The TOS byte (IPv4) or traffic class (IPv6): DSCP, and ECN in the lowest two bits. */
    uint8_t traffic_class;
    /** Whether routers must not fragment it: DF of IPv4, always true for IPv6. */
    bool dont_fragment;
    /** Whether the sender supports selective acknowledgments (RFC 2018). */
    bool sack_permitted;
    /** Whether the segment has timestamps. */
    bool has_timestamps;
    /** The number of bytes of options. */
    uint8_t options_len;
    /** The TCP options as in the header, including padding. */
    uint8_t options[40];
    /** The sender's address without port. */
    char source_address[48];
    /** The receiver's address without port. */
    char destination_address[48];
    /** The packet as "tcpdump -n -S -t" prints it: "IP 127.0.0.1.40000 > 127.0.0.1.80: Flags
        [S], seq 1, win 65495, options [mss 65495,sackOK,TS val 1 ecr 0,nop,wscale 7], length 0". */
    char line[516];
} keepsock_segment;

/**
 * Returns the SYN of an accepted connection, as the kernel saved it (TCP_SAVED_SYN).
 * @param client  A connection that a server with keepsock_options_set_save_syn() accepted.
 * @param out     Receives the segment.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: the kernel saved no SYN: the server's option is off, or the server
 *     was so busy that it answered with a SYN cookie
 *   - KEEPSOCK_ERR_WRONG_STATE: this side connected, so it sent the SYN itself
 *   - KEEPSOCK_ERR_UNSUPPORTED: a Unix socket, or a system that saves no SYN
 *   - KEEPSOCK_ERR_CLOSED: the connection was closed before the SYN was read
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_client_saved_syn(const keepsock_client *client, keepsock_segment *out, size_t size,
                                  keepsock_error **error);

/*
 * ---- 2. Capturing handshakes --------------------------------------------------------------------
 */

/**
 * The three packets that opened one TCP connection (RFC 9293 section 3.5).
 *
 * Packet 0 is the client's SYN, packet 1 is the server's SYN-ACK, packet 2 is the client's ACK.
 *
 * Threads: a handshake does not change. Any number of threads may read it.
 */
typedef struct keepsock_handshake keepsock_handshake;

/**
 * A capture of one TCP port: it sees the handshakes of all connections from or to the port, of
 * every program of this machine.
 *
 * Linux only: it uses a packet socket (packet(7)), which needs CAP_NET_RAW. Root has it, and so
 * has a program that received it with "setcap cap_net_raw+ep PROGRAM", or that runs inside
 * "unshare -Urn", which every user may start and which has a loopback interface only.
 *
 * Packets are queued until keepsock_capture_handshake() reads them. Packets that do not fit into
 * the queue are lost: use a capture to diagnose, not permanently on a busy port.
 *
 * Threads: several threads may look for handshakes at the same time.
 */
typedef struct keepsock_capture keepsock_capture;

/**
 * Starts capturing a port.
 *
 * The capture sees packets that pass an interface of this process's network namespace after the
 * call. Start it before the connection.
 *
 * @param port     The port of a server or a client, 1 to 65535, in host byte order.
 * @param capture  Receives the capture. Free it with keepsock_capture_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: the process lacks CAP_NET_RAW
 *   - KEEPSOCK_ERR_UNSUPPORTED: not Linux, or a kernel without packet sockets
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object, or the kernel has no
 *     memory or no socket buffers
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or `port` is 0
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_capture_new(uint16_t port, keepsock_capture **capture, keepsock_error **error);

/**
 * Waits for the handshake of a connection, and returns it.
 *
 * Either side may have made the connection, and the connection may be closed. If its addresses
 * were used several times, the function returns the latest handshake. The order of the two
 * addresses does not matter. The connection may also be that of another program: set the members
 * of a keepsock_five_tuple, except `text`.
 *
 * @param capture     A capture of the port of one side.
 * @param five_tuple  The connection, from keepsock_client_five_tuple() or
 *                    keepsock_conn_five_tuple(). The member `text` is ignored.
 * @param size        sizeof *five_tuple.
 * @param timeout_ms  Milliseconds. 0 checks the packets that were seen so far. KEEPSOCK_INFINITE
 *                    means no limit.
 * @param handshake   Receives the handshake. Free it with keepsock_handshake_free().
 * @param error       With KEEPSOCK_ERR_TIMED_OUT it says which packets were seen and whether the
 *                    queue was full.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TIMED_OUT: the timeout expired before all packets were seen
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: an address is not a numeric address
 *   - KEEPSOCK_ERR_UNSUPPORTED: the protocol is not KEEPSOCK_PROTOCOL_TCP
 *   - KEEPSOCK_ERR_NO_MEMORY: this process has no memory for the object
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, out of range, neither side has the captured port, the
 *     two addresses have different families, or no version has that size
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_capture_handshake(const keepsock_capture *capture,
                                   const keepsock_five_tuple *five_tuple, size_t size,
                                   int64_t timeout_ms, keepsock_handshake **handshake,
                                   keepsock_error **error);

/** Stops capturing and frees the object. Handshakes that it returned stay valid. */
void keepsock_capture_free(keepsock_capture *capture);

/*
 * ---- 3. Reading a handshake ---------------------------------------------------------------------
 */

/**
 * Returns one packet of a handshake, with the states of both sides. If the packet was
 * retransmitted, it is the first copy.
 *
 * @param index  0: SYN, 1: SYN-ACK, 2: ACK.
 * @param out    Receives the segment.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: `index` is above 2
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_handshake_segment(const keepsock_handshake *handshake, size_t index,
                                   keepsock_segment *out, size_t size, keepsock_error **error);

/**
 * Writes a sequence diagram in at most 80 columns.
 *
 * The client is on the left, the server on the right, with their states and the sequence numbers.
 * The last line has no line end.
 *
 * @param buf            Receives the text.
 * @param cap            The size of `buf`.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small; `buf` is unchanged
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_handshake_diagram(const keepsock_handshake *handshake, char *buf, size_t cap,
                                   size_t *required_size, keepsock_error **error);

/** Frees a handshake. */
void keepsock_handshake_free(keepsock_handshake *handshake);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_DIAGNOSTICS_H */
