/**
 * @file keepsock/basics.h
 * @brief Statuses, errors, addresses, cancel tokens and log events.
 *
 * Everything that the other headers share. Each of them includes this header.
 *
 * Contents
 *  1. Version: keepsock_version
 *  2. Statuses: KEEPSOCK_INFINITE, keepsock_status_name, keepsock_status_str
 *  3. Errors: keepsock_error_print, keepsock_error_message, keepsock_error_status,
 *     keepsock_status_errno, keepsock_error_operation, keepsock_error_endpoint,
 *     keepsock_error_stage, keepsock_error_os_error, keepsock_error_lookup_code,
 *     keepsock_error_transferred, keepsock_error_attempt, keepsock_error_free
 *  4. Addresses and descriptors: keepsock_address_parse, keepsock_address_text
 *  5. Framing: keepsock_framing_kind, keepsock_length_format, keepsock_framing
 *  6. Options of the operating system: keepsock_sockopt
 *  7. Connection states: keepsock_tcp_state_str, keepsock_close_reason_str
 *  8. Cancel tokens: keepsock_cancel_token_new, keepsock_cancel_token_fire,
 *     keepsock_cancel_token_is_fired, keepsock_cancel_token_reset, keepsock_cancel_token_fd,
 *     keepsock_cancel_token_free
 *  9. Log events: keepsock_log_set
 *
 * Where a BSD call or a C library function has a counterpart here:
 *   errno                                    keepsock_status, keepsock_status_errno
 *   perror                                   keepsock_error_print, keepsock_error_message
 *   gai_strerror                             keepsock_error_message, keepsock_error_lookup_code
 *   strerror                                 keepsock_status_str
 *   EAGAIN, EWOULDBLOCK                      KEEPSOCK_ERR_WOULD_BLOCK
 *   ETIMEDOUT                                KEEPSOCK_ERR_TIMED_OUT (a timeout of the caller),
 *                                            KEEPSOCK_ERR_DEAD (the peer)
 *   ECONNRESET, EPIPE                        KEEPSOCK_ERR_RESET, KEEPSOCK_CLOSE_PEER_RESET
 *   EMFILE, ENFILE                           KEEPSOCK_ERR_NO_DESCRIPTORS
 *   inet_pton, inet_ntop                     keepsock_address_parse, keepsock_address_text
 *   getaddrinfo                              the endpoint argument of keepsock_client_connect() and
 *                                            keepsock_server_listen(), or keepsock_lookup()
 *   a self-pipe or eventfd that ends a poll  keepsock_cancel_token
 *
 * @since 0.2, unless the comment of a function names a later version.
 */

#ifndef KEEPSOCK_BASICS_H
#define KEEPSOCK_BASICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ---- 1. Version ---------------------------------------------------------------------------------
 */

/** The version of this header: 0.2.0. keepsock_version() returns the version of the library. */
#define KEEPSOCK_VERSION_MAJOR 0

/** See KEEPSOCK_VERSION_MAJOR. */
#define KEEPSOCK_VERSION_MINOR 2

/** See KEEPSOCK_VERSION_MAJOR. */
#define KEEPSOCK_VERSION_PATCH 0

/**
 * Returns the version of the library: "0.2.0".
 * @return A static string.
 */
const char *keepsock_version(void);

/*
 * ---- 2. Statuses --------------------------------------------------------------------------------
 *
 * Most functions return a status: KEEPSOCK_OK, or a negative number. Numbers never change their
 * meaning, and later versions may add numbers.
 */

/** The status of a call that succeeded. All other statuses are negative. */
#define KEEPSOCK_OK 0

/** No limit, for the timeouts and limits that accept it. */
#define KEEPSOCK_INFINITE (-1)

/**
 * The kind of a failure. Its number is the status code of the C API. Numbers never change their
 * meaning. New kinds may be added.
 */
typedef int32_t keepsock_status;
enum {
    /** An argument is NULL, out of range, or not UTF-8. */
    KEEPSOCK_ERR_INVALID_ARGUMENT = -1,
    /** The endpoint has a syntax error, or names a zone or an interface that does not exist on
        this machine. */
    KEEPSOCK_ERR_INVALID_ENDPOINT = -2,
    /** The object does not permit the call in its present state. */
    KEEPSOCK_ERR_WRONG_STATE = -3,
    /** This platform, this kernel or this type of socket does not support the operation. */
    KEEPSOCK_ERR_UNSUPPORTED = -4,
    /** The process has no memory for an object or for copied bytes, the kernel has no memory or
        no socket buffers, or the system starts no more threads. */
    KEEPSOCK_ERR_NO_MEMORY = -5,
    /** A defect of keepsock. The object can only be freed. */
    KEEPSOCK_ERR_PANIC = -6,
    /** This program closed, aborted or released the object, in any thread, or a service reset
        the connection of a handler. */
    KEEPSOCK_ERR_CLOSED = -10,
    /** The cancel token of the object is fired. */
    KEEPSOCK_ERR_CANCELLED = -11,
    /** The timeout of the call expired. Received bytes stay readable. The error object has the
        number of bytes that were sent. */
    KEEPSOCK_ERR_TIMED_OUT = -12,
    /** The call would wait, and the socket is in non-blocking mode. */
    KEEPSOCK_ERR_WOULD_BLOCK = -13,
    /** The service is draining and reads no more input from this connection. The handler can
        still write, and should return. */
    KEEPSOCK_ERR_DRAINING = -14,
    /** The peer closed its side before the requested bytes arrived. */
    KEEPSOCK_ERR_END_OF_STREAM = -15,
    /** A message, a line, a packet or a text is longer than its maximum or the buffer. Bytes of
        a stream stay readable. A received packet is lost. */
    KEEPSOCK_ERR_TOO_LONG = -16,
    /** The idle timeout or the first-byte timeout expired. Reads fail from now on. The program
        may write a last message, and should close the connection. Or the PROXY header did not
        arrive in time: the connection was reset. */
    KEEPSOCK_ERR_IDLE_TIMEOUT = -17,
    /** The peer did not answer a heartbeat within the heartbeat timeout. Reads fail from now on,
        and the program should close the connection. */
    KEEPSOCK_ERR_HEARTBEAT_TIMEOUT = -18,
    /** The peer sent a message with a length that is malformed in the framing of the call: the
        bytes stay readable. Or a PROXY header or the report of a successor process is malformed. */
    KEEPSOCK_ERR_MALFORMED = -19,
    /** The host, the service or the path of the Unix socket does not exist. */
    KEEPSOCK_ERR_NOT_FOUND = -30,
    /** The resolver failed. A retry may succeed. */
    KEEPSOCK_ERR_LOOKUP_FAILED = -31,
    /** The peer refused the connection, because no socket listens at the address. */
    KEEPSOCK_ERR_REFUSED = -40,
    /** There is no route to the address, or a router or firewall reported by ICMP that the peer
        cannot be reached. Examples are host unreachable and administratively prohibited. ICMP
        port unreachable is KEEPSOCK_ERR_REFUSED while connecting, and this kind later. */
    KEEPSOCK_ERR_UNREACHABLE = -41,
    /** The peer or a device on the path reset the connection (RST), or this side wrote to a peer
        that had closed. */
    KEEPSOCK_ERR_RESET = -42,
    /** The peer did not answer keepalive probes or acknowledge data. */
    KEEPSOCK_ERR_DEAD = -43,
    /** Another socket uses the local endpoint, or no local port is free. */
    KEEPSOCK_ERR_ADDRESS_IN_USE = -44,
    /** The local address is not an address of this machine. */
    KEEPSOCK_ERR_ADDRESS_NOT_AVAILABLE = -45,
    /** This machine does not permit the operation: the process lacks a privilege, or a policy of
        the local system (firewall, route) forbids it. If a remote firewall rejects a connection,
        the kind is KEEPSOCK_ERR_UNREACHABLE. */
    KEEPSOCK_ERR_PERMISSION_DENIED = -46,
    /** The process or the system has no free file descriptor. */
    KEEPSOCK_ERR_NO_DESCRIPTORS = -47,
    /** The peer's kernel answers, but the peer accepts no data: for `dead_after` with
        `fail_on_stall`, or until a send queue exceeded its limit. */
    KEEPSOCK_ERR_STALLED = -48,
    /** Another error of the operating system. The error object has its number. */
    KEEPSOCK_ERR_OS = -99
};

/**
 * Returns the name of a status: "KEEPSOCK_ERR_TIMED_OUT".
 * @param status  Any number.
 * @return A static string: "KEEPSOCK_OK" for 0, "KEEPSOCK_ERR_UNKNOWN" for a number that this
 *   version does not have.
 */
const char *keepsock_status_name(int32_t status);

/**
 * Returns what a status means in a few words: "timed out" (strerror(3)).
 * @param status  Any number.
 * @return A static string: "ok" for 0.
 */
const char *keepsock_status_str(int32_t status);

/*
 * ---- 3. Errors ----------------------------------------------------------------------------------
 *
 * A status is enough for a program's decisions. An error object has what a person needs: the
 * operation, the endpoint, the reason and the addresses that were tried.
 */

/**
 * The reason why a call failed, for people: what failed, on what, at which stage and why.
 *
 * A function with a keepsock_error ** stores a new object there if it fails. The caller frees it
 * with keepsock_error_free(). All functions that take an error accept NULL, which reads as "no
 * error".
 *
 * Threads: an error does not change. Any number of threads may read it.
 */
typedef struct keepsock_error keepsock_error;

/** One attempt of a connect, failed or in progress. */
typedef struct {
    int32_t status;      /**< The keepsock_status. KEEPSOCK_ERR_WOULD_BLOCK: the attempt is in
                              progress. */
    int32_t os_error;    /**< The system's error number (errno), or 0. */
    int64_t elapsed_us;  /**< The duration in microseconds. While the attempt is in progress, the
                              time since its start. */
    int32_t tcp_state;   /**< While the attempt is in progress, a keepsock_tcp_state, if the
                              system reports it. Otherwise 0. */
    char stage[20];      /**< The step that failed, or that is in progress: "socket", "options",
                              "bind" or "connect". */
    char address[128];   /**< The address, as an endpoint. */
} keepsock_attempt;

/**
 * Prints an error to the standard error stream and frees it (perror(3)).
 *
 * Writes "PREFIX: MESSAGE" and a line feed in one write(2), so that lines of several threads do
 * not mix. Does nothing if there is no error, so one call at the end of a function is enough.
 *
 * @code
 * keepsock_client *client = NULL;
 * keepsock_error *error = NULL;
 * if (keepsock_client_connect("example.com:80", NULL, &client, &error) == KEEPSOCK_OK)
 *     keepsock_client_write_str(client, "hello\n", &error);
 * keepsock_error_print("hello", &error);
 * keepsock_client_free(client);
 * @endcode
 *
 * @param prefix  The name of the program, for example. NULL or "" prints the message only.
 * @param error   The address of the error variable, as a failed call gets it (&error). The function
 *                sets the variable to NULL. NULL is ignored.
 */
void keepsock_error_print(const char *prefix, keepsock_error **error);

/**
 * Returns one line of text: what failed, on what, and why.
 *
 * For example: "connect to [2001:db8::1]:80 (example.com:80): timed out after 5.0 s". The
 * message of a failed connect lists every attempt.
 *
 * @param error  An error. NULL returns "no error".
 * @return Text that is valid until the error is freed.
 */
const char *keepsock_error_message(const keepsock_error *error);

/**
 * Returns the status that the failed call returned.
 * @param error  An error. NULL returns KEEPSOCK_OK.
 * @return The status.
 */
int32_t keepsock_error_status(const keepsock_error *error);

/**
 * Returns the errno that a caller of the plain socket functions expects for a failed call.
 *
 * For programs whose own callers check errno: `errno = keepsock_status_errno(status, error);`. If
 * a system call failed, the result is its number, such as EPIPE, ENETUNREACH or EPERM. Otherwise
 * the status decides:
 * - ETIMEDOUT: every timeout, and a dead or stalled peer
 * - EAGAIN: KEEPSOCK_ERR_WOULD_BLOCK, and no other status
 * - ECONNREFUSED, ECONNRESET, EADDRINUSE, EADDRNOTAVAIL: the statuses of these names
 * - ENOENT: a name or path that does not exist; EHOSTUNREACH: a lookup that failed
 * - EPIPE: an end of stream; EBADF: a connection that this process closed
 * - ECANCELED: a cancelled call, and a service that drains
 * - EINVAL: arguments, endpoints and states
 *
 * docs/from-bsd.md has the whole table. For a failed name lookup, keepsock_error_lookup_code() has
 * the EAI_ code.
 *
 * @param status  The status that the call returned.
 * @param error   The error of the call, or NULL if the caller has none.
 * @return A value of <errno.h>, also on Windows. 0 for KEEPSOCK_OK, EIO for a number that this
 *   version does not have.
 */
int32_t keepsock_status_errno(int32_t status, const keepsock_error *error);

/**
 * Returns the operation that failed: "connect", "read", "listen".
 * @param error  An error. NULL returns "".
 * @return Text that is valid until the error is freed.
 */
const char *keepsock_error_operation(const keepsock_error *error);

/**
 * Returns the endpoint or the five-tuple that the operation failed on.
 *
 * An invalid endpoint is returned as the caller passed it, with any control characters.
 * keepsock_error_message() escapes them.
 *
 * @param error  An error. NULL returns "".
 * @return Text that is valid until the error is freed. "" if the operation has no endpoint.
 */
const char *keepsock_error_endpoint(const keepsock_error *error);

/**
 * Returns the step of connecting or listening that failed.
 * @param error  An error. NULL returns "".
 * @return A static string: "lookup", "socket", "options", "bind", "connect", or "" for other
 *   operations.
 */
const char *keepsock_error_stage(const keepsock_error *error);

/**
 * Returns the system's error number, if a system call failed.
 * @param error  An error. NULL returns 0.
 * @return errno, or a WSA code on Windows. 0 if no system call failed.
 */
int32_t keepsock_error_os_error(const keepsock_error *error);

/**
 * Returns the error code of getaddrinfo(3), if a name lookup failed.
 * @param error  An error. NULL returns 0.
 * @return EAI_NONAME, EAI_AGAIN, ..., for gai_strerror(3). 0 if no lookup failed, and on Windows.
 */
int32_t keepsock_error_lookup_code(const keepsock_error *error);

/**
 * Returns the number of bytes that the call transferred before it failed.
 *
 * Bytes that were read are kept for the next read. Bytes that were written are in the kernel.
 *
 * @param error  An error. NULL returns 0.
 * @return The number of bytes.
 */
size_t keepsock_error_transferred(const keepsock_error *error);

/**
 * Returns one attempt of a failed connect, in the order in which the attempts ended.
 * @param error  An error.
 * @param index  From 0.
 * @param out    Receives the attempt.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NOT_FOUND: no attempt has that index
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or no version has that size
 */
int32_t keepsock_error_attempt(const keepsock_error *error, size_t index, keepsock_attempt *out,
                               size_t size);

/** Frees an error. */
void keepsock_error_free(keepsock_error *error);

/*
 * ---- 4. Addresses and descriptors ---------------------------------------------------------------
 */

/**
 * A socket of the system: a file descriptor. On Windows it is a SOCKET, which has the size of a
 * pointer and is converted by a cast; INVALID_SOCKET is (keepsock_fd)-1, as -1 is no descriptor.
 */
#if defined(_WIN32)
typedef size_t keepsock_fd;
#else
typedef int keepsock_fd;
#endif

/** The IP version to use. */
typedef int32_t keepsock_family;
enum {
    KEEPSOCK_FAMILY_ANY = 0,   /**< IPv4 and IPv6, in the order that the system prefers (RFC
                                    6724). */
    KEEPSOCK_FAMILY_IPV4 = 4,  /**< IPv4 only. */
    KEEPSOCK_FAMILY_IPV6 = 6   /**< IPv6 only. */
};

/** The transport protocol of a socket. */
typedef int32_t keepsock_protocol;
enum {
    KEEPSOCK_PROTOCOL_TCP = 1,            /**< TCP over IPv4 or IPv6. */
    KEEPSOCK_PROTOCOL_UNIX = 2,           /**< A Unix stream socket. */
    KEEPSOCK_PROTOCOL_UDP = 3,            /**< UDP over IPv4 or IPv6. */
    KEEPSOCK_PROTOCOL_UNIX_DATAGRAM = 4,  /**< A Unix datagram socket. */
    KEEPSOCK_PROTOCOL_UNIX_PACKET = 5     /**< A Unix socket for packets (SOCK_SEQPACKET). */
};

/**
 * An IP address and a port (struct sockaddr_storage). Later versions add no members.
 *
 * keepsock_address_parse() and keepsock_address_text() convert it from and to text.
 */
typedef struct {
    uint8_t ip[16];   /**< In network byte order. IPv4: the first four bytes, the rest is 0. */
    uint32_t zone;    /**< The interface index of a link-local IPv6 address, or 0. */
    uint16_t port;    /**< The port, in host byte order. */
    uint16_t family;  /**< 4 or 6. 1: a Unix socket, whose name is in another member. 0: no
                           address. */
} keepsock_address;

/**
 * Converts a numeric endpoint to an address: "192.0.2.1:80", "[fe80::1%eth0]:80" (inet_pton(3)).
 * @param endpoint  The text. Host names are rejected.
 * @param address   Receives the address.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ENDPOINT: the text is not a numeric endpoint, or this machine lacks
 *     the zone
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or not UTF-8
 */
int32_t keepsock_address_parse(const char *endpoint, keepsock_address *address,
                               keepsock_error **error);

/**
 * Converts an address to an endpoint: "192.0.2.1:80", "[fe80::1%3]:80" (inet_ntop(3)).
 * @param address        An address.
 * @param buf            Receives the text.
 * @param cap            The size of `buf`: 64 for every address.
 * @param required_size  Receives the size that the text needs.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_TOO_LONG: `cap` is too small
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL, or the family is neither 4 nor 6
 */
int32_t keepsock_address_text(const keepsock_address *address, char *buf, size_t cap,
                              size_t *required_size, keepsock_error **error);

/** The protocol, the addresses and the ports of a connection. */
typedef struct {
    int32_t protocol;          /**< A keepsock_protocol. */
    uint16_t local_port;       /**< The local port, in host byte order; 0 for a Unix socket. */
    uint16_t remote_port;      /**< The peer's port, in host byte order; 0 for a Unix socket. */
    char local_address[112];   /**< The local address: "127.0.0.1", "::1", a path, or "". A text
                                    of more than 111 bytes is truncated, which `text` is not. */
    char remote_address[112];  /**< The peer's address. */
    char text[1024];           /**< The whole five-tuple as text: "tcp 127.0.0.1:3337 ->
                                    127.0.0.1:7788". */
} keepsock_five_tuple;

/**
 * The size of a buffer that holds the text of every address, endpoint and connection, with its
 * NUL.
 */
#define KEEPSOCK_TEXT_SIZE 1024

/**
 * The process at the other end of a Unix socket (SO_PEERCRED).
 *
 * It is the process that called connect(2). For the side that connected, it is the process that
 * called listen(2). The kernel recorded the credentials at that time.
 */
typedef struct {
    int64_t pid;   /**< The process ID. -1: the system does not report it, or the process is in a
                        PID namespace that this process cannot see. */
    uint32_t uid;  /**< The effective user ID. */
    uint32_t gid;  /**< The effective group ID. */
} keepsock_credentials;

/*
 * ---- 5. Framing ---------------------------------------------------------------------------------
 */

/**
 * How a stream is split into messages. The kinds with a length field differ in their messages:
 * KEEPSOCK_FRAMING_PREFIXED removes and adds the length. KEEPSOCK_FRAMING_LENGTH_FIELD delivers and
 * sends whole frames.
 */
typedef int32_t keepsock_framing_kind;
enum {
    /** No framing: a message is the bytes that have arrived. */
    KEEPSOCK_FRAMING_RAW = 0,
    /** Lines. A received line ends with LF or CRLF, which the library removes. It adds LF to a
        sent line. The last line of a stream may lack LF. Uses `max`. */
    KEEPSOCK_FRAMING_LINES = 1,
    /** Messages that end with a byte, which the library removes from received messages and adds
        to sent messages. The last message of a stream may lack it. Uses `delimiter` and `max`. */
    KEEPSOCK_FRAMING_DELIMITED = 2,
    /** Messages that follow their length, which the library removes from received messages and
        adds to sent messages. The length does not count its own bytes. Uses `length_format` and
        `max`. */
    KEEPSOCK_FRAMING_PREFIXED = 3,
    /** Frames that contain their length. A received message is the whole frame, with the bytes
        before the length field and the field itself. The program sends whole frames. Uses
        `length_format`, `length_offset`, `length_adjustment` and `max`. */
    KEEPSOCK_FRAMING_LENGTH_FIELD = 4,
    /** Messages of one length, which are sent unchanged. Uses `len`. */
    KEEPSOCK_FRAMING_FIXED = 5
};

/**
 * The format of a length: the number of its bytes and their order, or a variable-length integer
 * (LEB128). Lengths are unsigned.
 */
typedef int32_t keepsock_length_format;
enum {
    /** One byte. */
    KEEPSOCK_LENGTH_FORMAT_U8 = 1,
    /** Two bytes, big-endian (network byte order). */
    KEEPSOCK_LENGTH_FORMAT_U16_BE = 2,
    /** Two bytes, little-endian. */
    KEEPSOCK_LENGTH_FORMAT_U16_LE = 3,
    /** Four bytes, big-endian (network byte order). */
    KEEPSOCK_LENGTH_FORMAT_U32_BE = 4,
    /** Four bytes, little-endian. */
    KEEPSOCK_LENGTH_FORMAT_U32_LE = 5,
    /** Three bytes, big-endian (network byte order). */
    KEEPSOCK_LENGTH_FORMAT_U24_BE = 6,
    /** Three bytes, little-endian. */
    KEEPSOCK_LENGTH_FORMAT_U24_LE = 7,
    /** Eight bytes, big-endian (network byte order). */
    KEEPSOCK_LENGTH_FORMAT_U64_BE = 8,
    /** Eight bytes, little-endian. */
    KEEPSOCK_LENGTH_FORMAT_U64_LE = 9,
    /** The variable-length integer of MQTT: 1 to 4 bytes with 7 bits each, the lowest bits
        first. A longer form than necessary is malformed. */
    KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT = 10,
    /** The varint of Protocol Buffers: 1 to 10 bytes with 7 bits each, the lowest bits first. A
        longer form than necessary is accepted, as parsers of Protocol Buffers do. */
    KEEPSOCK_LENGTH_FORMAT_VARINT_PROTOBUF = 11
};

/**
 * How a stream is split into messages: by keepsock_client_read_message(),
 * keepsock_client_write_message() and keepsock_server_serve_events()
 * (keepsock_serve_options_set_framing()).
 *
 * Set `size` and `kind`, and the members that the kind uses. The others must be 0, as they are
 * with designated initializers:
 *
 * @code
 * // Text protocols: lines of at most 1,024 bytes.
 * const keepsock_framing lines = {
 *     .size = sizeof lines, .kind = KEEPSOCK_FRAMING_LINES, .max = 1024
 * };
 * // DNS over TCP: a length of two bytes, then the message.
 * const keepsock_framing dns = {
 *     .size = sizeof dns, .kind = KEEPSOCK_FRAMING_PREFIXED,
 *     .length_format = KEEPSOCK_LENGTH_FORMAT_U16_BE, .max = 65535
 * };
 * // Protocol Buffers, as writeDelimitedTo() writes them: a varint, then the message.
 * const keepsock_framing protobuf = {
 *     .size = sizeof protobuf, .kind = KEEPSOCK_FRAMING_PREFIXED,
 *     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_PROTOBUF, .max = 1048576
 * };
 * // MQTT: the packet type, then the remaining length. A message is a whole packet.
 * const keepsock_framing mqtt = {
 *     .size = sizeof mqtt, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
 *     .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT, .length_offset = 1, .max = 65536
 * };
 * // PostgreSQL: the message type, then a length of four bytes that includes itself.
 * const keepsock_framing postgres = {
 *     .size = sizeof postgres, .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
 *     .length_format = KEEPSOCK_LENGTH_FORMAT_U32_BE, .length_offset = 1,
 *     .length_adjustment = -4, .max = 1048576
 * };
 * @endcode
 *
 * A received message is too long if it has more than `max` bytes. It is malformed if its length is
 * not a number in its format, or is below zero with `length_adjustment`. A message that is
 * incomplete at the end of the stream is not delivered. `max` does not limit sent messages.
 *
 * Functions that send reject a message that the peer would not receive unchanged: a message that
 * contains its delimiter (LF with lines), a line that ends with CR, and a message whose length is
 * not `len` or not the one that its length field describes.
 */
typedef struct {
    /** sizeof(keepsock_framing). */
    size_t size;
    /** A keepsock_framing_kind. */
    int32_t kind;
    /** A keepsock_length_format. */
    int32_t length_format;
    /**
     * The maximum length of a received message in bytes, above 0. With KEEPSOCK_FRAMING_RAW and
     * KEEPSOCK_FRAMING_FIXED, which have no maximum, it must be 0.
     *
     * With KEEPSOCK_FRAMING_LENGTH_FIELD it counts the whole frame, and must have room for the
     * bytes before the length field and the field. With KEEPSOCK_FRAMING_LINES and
     * KEEPSOCK_FRAMING_DELIMITED it does not count the delimiter. With
     * KEEPSOCK_FRAMING_PREFIXED it does not count the length, which must be able to represent it.
     */
    size_t max;
    /** With KEEPSOCK_FRAMING_FIXED the length of each message in bytes, above 0. */
    size_t len;
    /** The number of bytes before the length field. */
    size_t length_offset;
    /** A number that is added to the length. The sum is the number of bytes after the length
        field. It is 0 if the length counts those bytes only. If the length also counts bytes
        before them, it is minus the number of the latter, at least `-(length_offset + size of
        the field)`. */
    int32_t length_adjustment;
    /** The byte that ends a message. */
    uint8_t delimiter;
    /** Must be 0. */
    uint8_t reserved[3];
} keepsock_framing;

/*
 * ---- 6. Options of the operating system ---------------------------------------------------------
 */

/**
 * An option of the operating system whose value is a number. Its number never changes its meaning.
 * New options may be added.
 *
 * An option that is off or on has the value 0 or 1. docs/options.md lists the kinds of sockets of
 * each option; other sockets reject it. Where the platform has no such option, the call that
 * applies it fails with KEEPSOCK_ERR_UNSUPPORTED.
 */
typedef int32_t keepsock_sockopt;
enum {
    /** SO_SNDBUF: the size of the send buffer in bytes. Linux doubles it, to count its own
        overhead, and limits it to `net.core.wmem_max`. A TCP buffer with a set size no longer
        grows. Unix sockets have this option as well. */
    KEEPSOCK_SOCKOPT_SEND_BUFFER = 1,
    /** SO_RCVBUF: the size of the receive buffer in bytes. Linux doubles it and limits it to
        `net.core.rmem_max`. For TCP it must be set before the handshake to permit a window above
        64 KiB. A TCP buffer with a set size no longer grows. */
    KEEPSOCK_SOCKOPT_RECV_BUFFER = 2,
    /** IP_TOS, IPV6_TCLASS: the TOS byte, 0 to 255. The DSCP is its upper six bits: 46 (EF) is
        184. For TCP the lower two bits must be 0, because they belong to the kernel (ECN). */
    KEEPSOCK_SOCKOPT_TOS = 3,
    /** SO_REUSEPORT (FreeBSD: SO_REUSEPORT_LB): 1 permits other sockets of the same user to have
        the same address and port. The kernel distributes connections and datagrams among them. A
        connect with this option needs a local endpoint. */
    KEEPSOCK_SOCKOPT_REUSE_PORT = 4,
    /** TCP_NOTSENT_LOWAT: the number of unsent bytes above which a TCP socket is not writable.
        Linux and macOS. */
    KEEPSOCK_SOCKOPT_NOTSENT_LOWAT = 5,
    /** TCP_DEFER_ACCEPT: a listener accepts a connection only when its first byte has arrived,
        for at most this time in milliseconds. The kernel counts whole seconds, rounded up.
        Linux. */
    KEEPSOCK_SOCKOPT_DEFER_ACCEPT = 6,
    /** SO_MARK: the mark of outgoing packets, for routing rules and firewalls. The process needs
        CAP_NET_ADMIN or CAP_NET_RAW. Linux. */
    KEEPSOCK_SOCKOPT_MARK = 7,
    /** SO_PRIORITY: the queueing priority of outgoing packets. Above 6 the process needs
        CAP_NET_ADMIN or CAP_NET_RAW. Linux. */
    KEEPSOCK_SOCKOPT_PRIORITY = 8,
    /** IP_TRANSPARENT: 1 permits a local address that is not one of this machine, for a
        transparent proxy. The process needs CAP_NET_ADMIN or CAP_NET_RAW. A connect with this
        option needs a local endpoint. Linux. */
    KEEPSOCK_SOCKOPT_TRANSPARENT = 9,
    /** IP_FREEBIND: 1 permits a local address that this machine does not have yet. A connect
        with this option needs a local endpoint. Linux. */
    KEEPSOCK_SOCKOPT_FREEBIND = 10,
    /** SO_OOBINLINE: 1 leaves the urgent byte of TCP in the stream. Otherwise the kernel removes
        it, and no function of this library returns it. */
    KEEPSOCK_SOCKOPT_OOB_INLINE = 11,
    /** TCP_MAXSEG: the largest segment in bytes, 88 to 32,767, which this side announces and
        sends. It has no effect after the handshake. */
    KEEPSOCK_SOCKOPT_MAX_SEGMENT = 12,
    /** IPV6_FLOWLABEL_MGR: the flow label of a TCP connection over IPv6, 1 to 1,048,575
        (0xFFFFF). Attempts to IPv4 addresses of the same name ignore it. It is set before the
        connect, and the first packet carries it. The kernel leases the label to the socket, for
        all users, and keeps the lease for 6 s after the last close. No privilege is needed. A
        connect that only permits IPv4, or Multipath TCP, is rejected. Reading it returns 0 for a
        connection without a label. Linux. */
    KEEPSOCK_SOCKOPT_FLOW_LABEL = 13,
    /** TCP_NODELAY: 1 sends small writes immediately. Default: 1. */
    KEEPSOCK_SOCKOPT_NODELAY = 14,
    /** TCP_CORK: 1 holds back incomplete segments, for at most 200 ms, until it is 0 again. For
        open connections only. Linux. */
    KEEPSOCK_SOCKOPT_CORK = 15,
    /** SO_REUSEADDR of datagram sockets: 1 permits other sockets with this option to have the
        same address and port. Each of them receives the datagrams of a multicast group (mDNS on
        port 5353), and one of them receives a unicast datagram. A connect with this option needs
        a local endpoint. TCP listeners always have it, and so has a TCP connect whose local
        endpoint has a port: the port may be in use for another peer, or be in TIME-WAIT. */
    KEEPSOCK_SOCKOPT_REUSE_ADDRESS = 16
};

/*
 * ---- 7. Connection states -----------------------------------------------------------------------
 */

/**
 * The state of a TCP socket, with its name in RFC 9293 section 3.3.2. The numbers are those of
 * Linux (include/net/tcp_states.h).
 */
typedef int32_t keepsock_tcp_state;
enum {
    KEEPSOCK_TCP_STATE_ESTABLISHED = 1,   /**< The connection is established in both directions. */
    KEEPSOCK_TCP_STATE_SYN_SENT = 2,      /**< This side has sent SYN and waits for the peer's. */
    KEEPSOCK_TCP_STATE_SYN_RECEIVED = 3,  /**< Both sides have sent SYN; this side waits for the
                                               peer's ACK. */
    KEEPSOCK_TCP_STATE_FIN_WAIT1 = 4,     /**< This side has sent FIN and waits for its ACK or
                                               for the peer's FIN. */
    KEEPSOCK_TCP_STATE_FIN_WAIT2 = 5,     /**< The peer has acknowledged this side's FIN and has
                                               not sent its own. */
    KEEPSOCK_TCP_STATE_TIME_WAIT = 6,     /**< Both sides have closed. The socket waits until old
                                               segments have left the network. */
    KEEPSOCK_TCP_STATE_CLOSED = 7,        /**< There is no connection. */
    KEEPSOCK_TCP_STATE_CLOSE_WAIT = 8,    /**< The peer has sent FIN. This side has not, and may
                                               still send. */
    KEEPSOCK_TCP_STATE_LAST_ACK = 9,      /**< Both sides have sent FIN, the peer first. This
                                               side waits for the ACK of its FIN. */
    KEEPSOCK_TCP_STATE_LISTEN = 10,       /**< The socket listens. */
    KEEPSOCK_TCP_STATE_CLOSING = 11       /**< Both sides have sent FIN at the same time. This
                                               side waits for the ACK of its FIN. */
};

/**
 * Returns the name of a TCP state in RFC 9293: "SYN-SENT".
 * @param state  A keepsock_tcp_state.
 * @return A static string: "UNKNOWN" for other numbers.
 */
const char *keepsock_tcp_state_str(int32_t state);

/**
 * Why a connection ended: the first cause that was observed. After the peer has closed its side
 * (FIN) a later failure replaces the reason, because this side may still send.
 */
typedef int32_t keepsock_close_reason;
enum {
    /** The peer closed its side (FIN). Bytes that it sent before are still readable. */
    KEEPSOCK_CLOSE_PEER_CLOSED = 1,
    /** The peer, or a device on the path, reset the connection (RST), or a write failed because
        the peer had closed its socket. It replaces the reason "closed by peer" if it follows the
        peer's FIN: the peer may not have received all written bytes. The bytes and the end of
        the stream that it sent before stay readable. */
    KEEPSOCK_CLOSE_PEER_RESET = 2,
    /** The peer did not answer keepalive probes or acknowledge data. */
    KEEPSOCK_CLOSE_DEAD = 3,
    /** The peer did not answer, and the network reported that it cannot be reached. */
    KEEPSOCK_CLOSE_UNREACHABLE = 4,
    /** The peer's kernel answers, but its program accepted no data for `dead_after`, with
        `fail_on_stall`. */
    KEEPSOCK_CLOSE_STALLED = 5,
    /** The idle timeout or the first-byte timeout expired, or the PROXY header did not arrive
        within the keepsock_options_set_proxy_timeout(). */
    KEEPSOCK_CLOSE_IDLE_TIMEOUT = 6,
    /** The peer did not answer a heartbeat within the heartbeat timeout. */
    KEEPSOCK_CLOSE_HEARTBEAT_TIMEOUT = 7,
    /** This program closed the connection while its cancel token was fired. */
    KEEPSOCK_CLOSE_CANCELLED = 8,
    /** This program closed or aborted the connection, released its descriptor, or ended its
        service. */
    KEEPSOCK_CLOSE_LOCAL = 9,
    /** The peer sent a message that is longer than the framing of the service permits. */
    KEEPSOCK_CLOSE_MESSAGE_TOO_LONG = 10,
    /** The peer read too slowly: the send queue exceeded its limit. */
    KEEPSOCK_CLOSE_SLOW_CONSUMER = 11,
    /** The peer sent a message with a length that is malformed in the framing of the service, or
        a trusted proxy sent no valid PROXY header. */
    KEEPSOCK_CLOSE_MESSAGE_MALFORMED = 12,
    /** A file that the program sends has become shorter, or cannot be read, after a part of it
        was sent. The service resets the connection. */
    KEEPSOCK_CLOSE_FILE_FAILED = 13,
    /** This program has taken the connection out of its service, and continues it. */
    KEEPSOCK_CLOSE_DETACHED = 14
};

/**
 * Returns a close reason in a few words: "reset by peer".
 * @param reason  A keepsock_close_reason.
 * @return A static string: "" for other numbers.
 */
const char *keepsock_close_reason_str(int32_t reason);

/*
 * ---- 8. Cancel tokens ---------------------------------------------------------------------------
 */

/**
 * A token that ends waiting calls.
 *
 * After the token is fired, the calls on the sockets that have it return KEEPSOCK_ERR_CANCELLED
 * within 50 ms. The token stays fired until it is reset. The sockets stay usable. A socket
 * without a token has no extra cost.
 *
 * Threads: any thread may call any function. keepsock_cancel_token_fire() may also be called
 * from a signal handler. Sockets share the token. It may be freed while sockets have it; then it
 * can no longer be fired.
 */
typedef struct keepsock_cancel_token keepsock_cancel_token;

/**
 * Creates a cancel token.
 *
 * A token holds one descriptor on Linux, and two on other Unix systems.
 *
 * @param cancel  Receives the token. Free it with keepsock_cancel_token_free().
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_NO_DESCRIPTORS: the process or the system has no free descriptor
 *   - KEEPSOCK_ERR_NO_MEMORY: this process or the kernel has no memory
 *   - KEEPSOCK_ERR_PERMISSION_DENIED: a policy of this machine, such as a seccomp filter,
 *     forbids the call
 *   - KEEPSOCK_ERR_UNSUPPORTED: the kernel lacks the system call
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 *   - KEEPSOCK_ERR_OS: another error of the system; keepsock_error_os_error() returns its number
 */
int32_t keepsock_cancel_token_new(keepsock_cancel_token **cancel, keepsock_error **error);

/**
 * Fires a token. NULL is ignored.
 *
 * The function is async-signal-safe and does not change errno. Firing a fired token has no effect.
 */
void keepsock_cancel_token_fire(keepsock_cancel_token *cancel);

/**
 * Returns whether a token is fired.
 * @param cancel  A token. NULL returns false.
 * @return true if the token was fired and not reset.
 */
bool keepsock_cancel_token_is_fired(const keepsock_cancel_token *cancel);

/**
 * Resets a fired token. NULL is ignored.
 *
 * Reset a token after the calls that it ends have returned: a call that has not observed yet that
 * the token was fired continues to wait.
 */
void keepsock_cancel_token_reset(keepsock_cancel_token *cancel);

/**
 * Borrows a descriptor that is readable while a token is fired, for poll(2) or an event loop. On
 * Windows it is a SOCKET, for select and WSAPoll.
 *
 * keepsock_cancel_token_reset() makes it unreadable again. The descriptor stays the same and is
 * open while the token, or a socket that has the token, exists. Do not read from it or close it.
 *
 * @param cancel  A token.
 * @param fd      Receives the descriptor.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_WRONG_STATE: a forked child of the process that created the token; create a
 *     token in the child
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: NULL
 */
int32_t keepsock_cancel_token_fd(const keepsock_cancel_token *cancel, keepsock_fd *fd,
                                 keepsock_error **error);

/** Frees a token. Sockets that have the token continue to use it. */
void keepsock_cancel_token_free(keepsock_cancel_token *cancel);

/*
 * ---- 9. Log events ------------------------------------------------------------------------------
 */

/** The severity of a log event. keepsock_log_set() logs a level and all more severe levels. */
typedef int32_t keepsock_log_level;
enum {
    /** No events. */
    KEEPSOCK_LOG_LEVEL_OFF = 0,
    /** Failures: a service can no longer accept or receive, or a handler panicked. */
    KEEPSOCK_LOG_LEVEL_ERROR = 1,
    /** Degraded service: no descriptor is free, or clients are rejected (each at most once in 5
        s, with a count), a slow client was reset, or the resolver does not answer. */
    KEEPSOCK_LOG_LEVEL_WARN = 2,
    /** Listening, draining, and connections that failed: reset, dead, unreachable, stalled. */
    KEEPSOCK_LOG_LEVEL_INFO = 3,
    /** Lookups and connect attempts, with result and duration. Retried accepts, at most once in
        5 s. */
    KEEPSOCK_LOG_LEVEL_DEBUG = 4,
    /** Each accepted and each closed connection. */
    KEEPSOCK_LOG_LEVEL_TRACE = 5
};

/**
 * Receives log events.
 *
 * The library calls the callback in the thread in which the event occurs, so several threads may
 * be in the callback at the same time. The library call in that thread waits until the callback
 * returns, so keep the callback short.
 *
 * The library holds no lock during the callback. The callback may call every function, except:
 * - keepsock_log_set(), which would wait for the callback;
 * - the _free function of an object that another call uses;
 * - keepsock_service_drain(), keepsock_service_wait() and keepsock_service_free(), if the event may
 *   occur in a handler of that service.
 *
 * Log events from calls inside the callback are suppressed. The callback must return: no
 * longjmp(3), no C++ exception.
 *
 * @param level    A keepsock_log_level, never KEEPSOCK_LOG_LEVEL_OFF.
 * @param target   The subject: "keepsock::lookup", "keepsock::connect", "keepsock::connection",
 *                 "keepsock::listen", "keepsock::accept" or "keepsock::serve". Valid until the
 *                 callback returns.
 * @param message  One line of UTF-8 without a line end. It never contains bytes that were read
 *                 or written. Its words may change between versions. Valid until the callback
 *                 returns.
 * @param user     The pointer that the program passed with the callback.
 */
typedef void (*keepsock_log_callback)(int32_t level, const char *target, const char *message,
                                      void *user);

/**
 * Sets the callback that receives log events, for the whole process.
 *
 * Without a callback the library logs nothing and prints nothing.
 *
 * @param level     A keepsock_log_level: the least severe level that is logged. With a NULL
 *                  callback it is ignored, but must be a valid level.
 * @param callback  Receives each event. NULL turns logging off.
 * @param user      Passed to the callback. May be NULL.
 * @return KEEPSOCK_OK on success, otherwise
 *   - KEEPSOCK_ERR_INVALID_ARGUMENT: `level` is not a keepsock_log_level
 *   - KEEPSOCK_ERR_WRONG_STATE: called from inside the callback, or a Rust program has set its
 *     own logger of the log crate
 * @note Any thread may call it at any time. It waits for callbacks in progress, which must not
 *   wait for the calling thread. After it has returned, no thread is inside the previous
 *   callback, and `user` of the previous callback may be freed.
 */
int32_t keepsock_log_set(int32_t level, keepsock_log_callback callback, void *user,
                         keepsock_error **error);

#ifdef __cplusplus
}
#endif

#endif /* KEEPSOCK_BASICS_H */
