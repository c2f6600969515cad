/*
 * The sizes and offsets of the headers, which a C11 compiler of any platform checks. Generated:
 * KEEPSOCK_BLESS=1 cargo test --all-features --test abi layout::
 */
#include <stddef.h>
#include <stdint.h>

#include "keepsock.h"

/* The values on 64-bit systems, on 32-bit systems, and on 32-bit x86 except Windows. */
#if UINTPTR_MAX > UINT32_MAX
#define HERE(on_64, on_32, on_i386) (on_64)
#elif defined(__i386__) && !defined(_WIN32)
#define HERE(on_64, on_32, on_i386) (on_i386)
#else
#define HERE(on_64, on_32, on_i386) (on_32)
#endif

#define SIZE(type, on_64, on_32, on_i386) \
    _Static_assert(sizeof(type) == HERE(on_64, on_32, on_i386), "sizeof " #type)
#define OFFSET(type, member, on_64, on_32, on_i386) \
    _Static_assert(offsetof(type, member) == HERE(on_64, on_32, on_i386), #type "." #member)

/* A SOCKET on Windows. */
#if defined(_WIN32)
_Static_assert(sizeof(keepsock_fd) == sizeof(uintptr_t), "keepsock_fd");
#else
_Static_assert(sizeof(keepsock_fd) == sizeof(int), "keepsock_fd");
#endif

SIZE(keepsock_status, 4, 4, 4);
SIZE(keepsock_attempt, 168, 168, 168);
OFFSET(keepsock_attempt, status, 0, 0, 0);
OFFSET(keepsock_attempt, os_error, 4, 4, 4);
OFFSET(keepsock_attempt, elapsed_us, 8, 8, 8);
OFFSET(keepsock_attempt, tcp_state, 16, 16, 16);
OFFSET(keepsock_attempt, stage, 20, 20, 20);
OFFSET(keepsock_attempt, address, 40, 40, 40);
SIZE(keepsock_family, 4, 4, 4);
SIZE(keepsock_protocol, 4, 4, 4);
SIZE(keepsock_address, 24, 24, 24);
OFFSET(keepsock_address, ip, 0, 0, 0);
OFFSET(keepsock_address, zone, 16, 16, 16);
OFFSET(keepsock_address, port, 20, 20, 20);
OFFSET(keepsock_address, family, 22, 22, 22);
SIZE(keepsock_five_tuple, 1256, 1256, 1256);
OFFSET(keepsock_five_tuple, protocol, 0, 0, 0);
OFFSET(keepsock_five_tuple, local_port, 4, 4, 4);
OFFSET(keepsock_five_tuple, remote_port, 6, 6, 6);
OFFSET(keepsock_five_tuple, local_address, 8, 8, 8);
OFFSET(keepsock_five_tuple, remote_address, 120, 120, 120);
OFFSET(keepsock_five_tuple, text, 232, 232, 232);
SIZE(keepsock_credentials, 16, 16, 16);
OFFSET(keepsock_credentials, pid, 0, 0, 0);
OFFSET(keepsock_credentials, uid, 8, 8, 8);
OFFSET(keepsock_credentials, gid, 12, 12, 12);
SIZE(keepsock_framing_kind, 4, 4, 4);
SIZE(keepsock_length_format, 4, 4, 4);
SIZE(keepsock_framing, 48, 32, 32);
OFFSET(keepsock_framing, size, 0, 0, 0);
OFFSET(keepsock_framing, kind, 8, 4, 4);
OFFSET(keepsock_framing, length_format, 12, 8, 8);
OFFSET(keepsock_framing, max, 16, 12, 12);
OFFSET(keepsock_framing, len, 24, 16, 16);
OFFSET(keepsock_framing, length_offset, 32, 20, 20);
OFFSET(keepsock_framing, length_adjustment, 40, 24, 24);
OFFSET(keepsock_framing, delimiter, 44, 28, 28);
OFFSET(keepsock_framing, reserved, 45, 29, 29);
SIZE(keepsock_sockopt, 4, 4, 4);
SIZE(keepsock_tcp_state, 4, 4, 4);
SIZE(keepsock_close_reason, 4, 4, 4);
SIZE(keepsock_log_level, 4, 4, 4);
SIZE(keepsock_log_callback, 8, 4, 4);
SIZE(keepsock_buffer, 16, 8, 8);
OFFSET(keepsock_buffer, buf, 0, 0, 0);
OFFSET(keepsock_buffer, cap, 8, 4, 4);
SIZE(keepsock_slice, 16, 8, 8);
OFFSET(keepsock_slice, buf, 0, 0, 0);
OFFSET(keepsock_slice, len, 8, 4, 4);
SIZE(keepsock_keepalive, 24, 24, 24);
OFFSET(keepsock_keepalive, idle_ms, 0, 0, 0);
OFFSET(keepsock_keepalive, interval_ms, 8, 8, 8);
OFFSET(keepsock_keepalive, count, 16, 16, 16);
OFFSET(keepsock_keepalive, enabled, 20, 20, 20);
SIZE(keepsock_connection_stats, 168, 168, 168);
OFFSET(keepsock_connection_stats, tcp_state, 0, 0, 0);
OFFSET(keepsock_connection_stats, close_reason, 4, 4, 4);
OFFSET(keepsock_connection_stats, rtt_us, 8, 8, 8);
OFFSET(keepsock_connection_stats, rtt_variation_us, 16, 16, 16);
OFFSET(keepsock_connection_stats, min_rtt_us, 24, 24, 24);
OFFSET(keepsock_connection_stats, last_sent_us, 32, 32, 32);
OFFSET(keepsock_connection_stats, last_received_us, 40, 40, 40);
OFFSET(keepsock_connection_stats, retransmits, 48, 48, 48);
OFFSET(keepsock_connection_stats, unacknowledged, 56, 56, 56);
OFFSET(keepsock_connection_stats, unsent, 64, 64, 64);
OFFSET(keepsock_connection_stats, unread, 72, 72, 72);
OFFSET(keepsock_connection_stats, bytes_sent, 80, 80, 80);
OFFSET(keepsock_connection_stats, bytes_received, 88, 88, 88);
OFFSET(keepsock_connection_stats, segments_sent, 96, 96, 96);
OFFSET(keepsock_connection_stats, segments_received, 104, 104, 104);
OFFSET(keepsock_connection_stats, congestion_window, 112, 112, 112);
OFFSET(keepsock_connection_stats, peer_window, 120, 120, 120);
OFFSET(keepsock_connection_stats, heartbeats, 128, 128, 128);
OFFSET(keepsock_connection_stats, congestion_control, 136, 136, 136);
OFFSET(keepsock_connection_stats, user_timeout_ms, 152, 152, 152);
OFFSET(keepsock_connection_stats, mss, 160, 160, 160);
OFFSET(keepsock_connection_stats, is_mptcp, 164, 164, 164);
SIZE(keepsock_watch, 4, 4, 4);
SIZE(keepsock_on_watch, 8, 4, 4);
SIZE(keepsock_on_timeout, 8, 4, 4);
SIZE(keepsock_on_retry, 8, 4, 4);
SIZE(keepsock_server_stats, 56, 56, 56);
OFFSET(keepsock_server_stats, accepted, 0, 0, 0);
OFFSET(keepsock_server_stats, retried, 8, 8, 8);
OFFSET(keepsock_server_stats, exhausted, 16, 16, 16);
OFFSET(keepsock_server_stats, rejected, 24, 24, 24);
OFFSET(keepsock_server_stats, over_address_limit, 32, 32, 32);
OFFSET(keepsock_server_stats, denied, 40, 40, 40);
OFFSET(keepsock_server_stats, proxy_rejected, 48, 48, 48);
SIZE(keepsock_conn, 8, 8, 8);
OFFSET(keepsock_conn, id, 0, 0, 0);
SIZE(keepsock_callbacks, 72, 36, 36);
OFFSET(keepsock_callbacks, size, 0, 0, 0);
OFFSET(keepsock_callbacks, on_open, 8, 4, 4);
OFFSET(keepsock_callbacks, on_data, 16, 8, 8);
OFFSET(keepsock_callbacks, on_writable, 24, 12, 12);
OFFSET(keepsock_callbacks, on_eof, 32, 16, 16);
OFFSET(keepsock_callbacks, on_timer, 40, 20, 20);
OFFSET(keepsock_callbacks, on_drain, 48, 24, 24);
OFFSET(keepsock_callbacks, on_close, 56, 28, 28);
OFFSET(keepsock_callbacks, on_connect_failed, 64, 32, 32);
SIZE(keepsock_conn_callback, 8, 4, 4);
SIZE(keepsock_handler, 8, 4, 4);
SIZE(keepsock_service_callback, 8, 4, 4);
SIZE(keepsock_timer_callback, 8, 4, 4);
SIZE(keepsock_accept_policy, 4, 4, 4);
SIZE(keepsock_overflow_policy, 4, 4, 4);
SIZE(keepsock_service_stats, 208, 208, 208);
OFFSET(keepsock_service_stats, uptime_ms, 0, 0, 0);
OFFSET(keepsock_service_stats, accepting, 8, 8, 8);
OFFSET(keepsock_service_stats, connections, 12, 12, 12);
OFFSET(keepsock_service_stats, opened, 16, 16, 16);
OFFSET(keepsock_service_stats, closed, 24, 24, 24);
OFFSET(keepsock_service_stats, bytes_received, 32, 32, 32);
OFFSET(keepsock_service_stats, bytes_written, 40, 40, 40);
OFFSET(keepsock_service_stats, bytes_sent, 48, 48, 48);
OFFSET(keepsock_service_stats, bytes_queued, 56, 56, 56);
OFFSET(keepsock_service_stats, bytes_dropped, 64, 64, 64);
OFFSET(keepsock_service_stats, messages_dropped, 72, 72, 72);
OFFSET(keepsock_service_stats, close_reasons, 80, 80, 80);
SIZE(keepsock_datagram_info, 232, 224, 224);
OFFSET(keepsock_datagram_info, from, 0, 0, 0);
OFFSET(keepsock_datagram_info, to, 24, 24, 24);
OFFSET(keepsock_datagram_info, local, 48, 48, 48);
OFFSET(keepsock_datagram_info, received_at_ns, 72, 72, 72);
OFFSET(keepsock_datagram_info, len, 80, 80, 80);
OFFSET(keepsock_datagram_info, original_len, 88, 84, 84);
OFFSET(keepsock_datagram_info, interface_index, 96, 88, 88);
OFFSET(keepsock_datagram_info, ttl, 100, 92, 92);
OFFSET(keepsock_datagram_info, tos, 102, 94, 94);
OFFSET(keepsock_datagram_info, truncated, 104, 96, 96);
OFFSET(keepsock_datagram_info, has_credentials, 105, 97, 97);
OFFSET(keepsock_datagram_info, unix_name_len, 106, 98, 98);
OFFSET(keepsock_datagram_info, unix_name, 108, 100, 100);
OFFSET(keepsock_datagram_info, credentials, 216, 208, 208);
SIZE(keepsock_recv_item, 248, 232, 232);
OFFSET(keepsock_recv_item, buf, 0, 0, 0);
OFFSET(keepsock_recv_item, cap, 8, 4, 4);
OFFSET(keepsock_recv_item, info, 16, 8, 8);
SIZE(keepsock_send_item, 80, 68, 68);
OFFSET(keepsock_send_item, buf, 0, 0, 0);
OFFSET(keepsock_send_item, len, 8, 4, 4);
OFFSET(keepsock_send_item, reply_to, 16, 8, 8);
OFFSET(keepsock_send_item, to, 24, 12, 12);
OFFSET(keepsock_send_item, local, 48, 36, 36);
OFFSET(keepsock_send_item, interface_index, 72, 60, 60);
OFFSET(keepsock_send_item, reserved, 76, 64, 64);
SIZE(keepsock_datagram_stats, 80, 80, 80);
OFFSET(keepsock_datagram_stats, dropped, 0, 0, 0);
OFFSET(keepsock_datagram_stats, unread, 8, 8, 8);
OFFSET(keepsock_datagram_stats, receive_buffer, 16, 16, 16);
OFFSET(keepsock_datagram_stats, unsent, 24, 24, 24);
OFFSET(keepsock_datagram_stats, send_buffer, 32, 32, 32);
OFFSET(keepsock_datagram_stats, denied, 40, 40, 40);
OFFSET(keepsock_datagram_stats, errors, 48, 48, 48);
OFFSET(keepsock_datagram_stats, path_mtu, 56, 56, 56);
OFFSET(keepsock_datagram_stats, retried, 64, 64, 64);
OFFSET(keepsock_datagram_stats, served, 72, 72, 72);
SIZE(keepsock_datagram_handler, 8, 4, 4);
SIZE(keepsock_datagram_error, 60, 60, 60);
OFFSET(keepsock_datagram_error, status, 0, 0, 0);
OFFSET(keepsock_datagram_error, os_error, 4, 4, 4);
OFFSET(keepsock_datagram_error, to, 8, 8, 8);
OFFSET(keepsock_datagram_error, from, 32, 32, 32);
OFFSET(keepsock_datagram_error, path_mtu, 56, 56, 56);
SIZE(keepsock_handover_item, 24, 12, 12);
OFFSET(keepsock_handover_item, name, 0, 0, 0);
OFFSET(keepsock_handover_item, server, 8, 4, 4);
OFFSET(keepsock_handover_item, datagram, 16, 8, 8);
SIZE(keepsock_segment, 712, 712, 712);
OFFSET(keepsock_segment, captured_at_ns, 0, 0, 0);
OFFSET(keepsock_segment, seq, 8, 8, 8);
OFFSET(keepsock_segment, ack, 12, 12, 12);
OFFSET(keepsock_segment, payload_len, 16, 16, 16);
OFFSET(keepsock_segment, timestamp, 20, 20, 20);
OFFSET(keepsock_segment, timestamp_echo, 24, 24, 24);
OFFSET(keepsock_segment, retransmissions, 28, 28, 28);
OFFSET(keepsock_segment, client_state, 32, 32, 32);
OFFSET(keepsock_segment, server_state, 36, 36, 36);
OFFSET(keepsock_segment, window, 40, 40, 40);
OFFSET(keepsock_segment, urgent, 42, 42, 42);
OFFSET(keepsock_segment, mss, 44, 44, 44);
OFFSET(keepsock_segment, source_port, 46, 46, 46);
OFFSET(keepsock_segment, destination_port, 48, 48, 48);
OFFSET(keepsock_segment, window_scale, 50, 50, 50);
OFFSET(keepsock_segment, flags, 52, 52, 52);
OFFSET(keepsock_segment, ip_version, 53, 53, 53);
OFFSET(keepsock_segment, ttl, 54, 54, 54);
OFFSET(keepsock_segment, traffic_class, 55, 55, 55);
OFFSET(keepsock_segment, dont_fragment, 56, 56, 56);
OFFSET(keepsock_segment, sack_permitted, 57, 57, 57);
OFFSET(keepsock_segment, has_timestamps, 58, 58, 58);
OFFSET(keepsock_segment, options_len, 59, 59, 59);
OFFSET(keepsock_segment, options, 60, 60, 60);
OFFSET(keepsock_segment, source_address, 100, 100, 100);
OFFSET(keepsock_segment, destination_address, 148, 148, 148);
OFFSET(keepsock_segment, line, 196, 196, 196);
