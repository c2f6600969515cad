//! The tests of behavior that Windows, Wine or the library on Windows does not have. Each is skipped with
//! the reason of its group. A test that needs one missing function is skipped by this function instead:
//! see `system.rs`.

use super::system::is_wine;

/// Where a reason holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Windows,
    Wine,
}

/// The reasons, and the tests: the module and the name of each.
const LACKS: &[(On, &str, &[&str])] = &[
    (
        On::Wine,
        "Wine has no SIO_TCP_INFO: the state and the counters of a connection are unknown",
        &[
            "liveness::idle_timeout_after_one_write_to_a_slow_reader_counts_acknowledgments",
            "serve_events::idle_timeout_of_slow_reader_counts_acknowledgments_of_one_send",
            "serve_events::reset_after_both_fins_follows_the_end_of_stream",
            "close::reset_after_fin_and_nothing_written_is_the_reason",
            "close::reset_after_fin_is_the_reason_for_each_call",
            "ends::reset_after_a_limit_does_not_replace_its_end",
            "liveness::check_liveness_after_reset_reports_it",
            "liveness::check_liveness_of_closed_socket_fails",
            "liveness::stats_after_close_are_kept",
            "liveness::stats_count_sent_and_received_bytes",
            "liveness::stats_of_stalled_peer_show_unsent_bytes",
            "liveness::tcp_states_have_names_of_rfc_9293",
            "pending_connect::pending_connect_attempts_are_in_syn_sent",
        ],
    ),
    (
        On::Wine,
        "Wine has no TCP_MAXRT, which dead_after needs",
        &[
            "liveness::fail_on_stall_sets_the_kernel_option",
            "serve_events::reset_during_pause_ends_without_resume",
            "detach::detach_keeps_the_limits_of_the_connection",
            "keepalive::settings_change_on_an_open_connection_of_a_service",
            "liveness::check_liveness_returns_time_of_next_call",
            "liveness::dead_after_is_turned_off_without_a_free_descriptor",
            "liveness::dead_after_without_keepalive_sets_fitting_keepalive",
            "liveness::keepalive_that_contradicts_dead_after_is_rejected",
            "liveness::read_with_liveness_options_uses_no_processor",
            "liveness::set_dead_after_on_open_connection_applies",
        ],
    ),
    (
        On::Wine,
        "Wine reports a FIN only when the bytes before it have been received",
        &["close::wait_hangup_consumes_no_data"],
    ),
    (
        On::Windows,
        "the library makes no calls that wait in the kernel on Windows",
        &[
            "blocking_mode::first_call_on_connection_waits",
            "blocking_mode::release_client_leaves_no_timeouts",
        ],
    ),
    (
        On::Windows,
        "Windows does not report whether a socket is non-blocking",
        &["send_file::send_file_ignores_mode_change_of_other_thread"],
    ),
    (
        On::Windows,
        "Windows has no queue of ICMP errors: a receive returns them",
        &[
            "datagram::close_with_a_pending_error_keeps_it",
            "datagram::icmp_errors_without_recv_errors_are_discarded",
            "datagram::queued_error_during_recv_uses_no_processor",
            "datagram::recv_among_icmp_errors_gets_every_datagram",
            "datagram::recv_on_bound_socket_ignores_icmp_errors",
            "datagram::send_during_icmp_errors_of_other_threads_succeeds",
            "datagram::set_peer_reports_errors_of_the_peer",
            "datagram::unread_icmp_errors_have_a_limit",
            "datagram_metadata::release_with_queued_icmp_errors_succeeds",
        ],
    ),
    (
        On::Windows,
        "on Windows each ICMP error ends one receive",
        &["datagram::refused_datagram_fails_the_receive_if_requested"],
    ),
    (
        On::Wine,
        "Wine loses ICMP errors of a UDP socket while a thread waits for it",
        &[
            "datagram::batch_to_closed_port_ignores_icmp_errors",
            "datagram::icmp_error_during_recv_does_not_end_the_wait",
            "datagram::refused_datagram_fails_the_receive_while_others_send",
        ],
    ),
    (
        On::Wine,
        "Wine neither splits nor coalesces datagrams (UDP_SEND_MSG_SIZE, UDP_RECV_MAX_COALESCED_SIZE)",
        &[
            "datagram::batch_of_equal_lengths_uses_gso",
            "datagram::batch_with_other_error_keeps_gso_enabled",
            "datagram::peek_of_coalescing_socket_is_rejected",
            "datagram::set_peer_discards_coalesced_datagrams_of_other_senders",
            "datagram_metadata::cancel_with_buffered_datagrams_loses_none",
            "datagram_metadata::coalesced_datagram_in_small_buffer_is_truncated",
            "datagram_metadata::coalesced_datagrams_are_received_singly",
            "datagram_metadata::coalesced_datagrams_reach_each_thread_once",
            "datagram_metadata::recv_behind_another_recv_wakes_rarely",
            "datagram_metadata::recv_of_coalesced_datagrams_waits_like_recv",
            "datagram_metadata::release_after_serving_succeeds",
            "datagram_metadata::release_of_coalescing_socket_disables_gro",
            "datagram_metadata::release_with_coalesced_datagrams_fails",
        ],
    ),
    (
        On::Wine,
        "WSASendMsg of Wine ignores control messages, so the source address is the system's choice",
        &[
            "datagram::batch_of_replies_leaves_from_requested_addresses",
            "datagram::reply_leaves_from_the_requested_address",
        ],
    ),
    (
        On::Wine,
        "Wine takes the interface of an IPv4 group by its address only, and Windows by its index also",
        &[
            "datagram::multicast_join_of_invalid_group_fails",
            "datagram::multicast_join_selects_groups_and_sources",
            "datagram::multicast_join_twice_or_leave_unjoined_fails",
            "datagram::multicast_with_several_sockets_reaches_each",
        ],
    ),
    (
        On::Wine,
        "Wine lets each socket send to broadcast addresses",
        &["datagram::broadcast_requires_option_and_gets_reply"],
    ),
    (
        On::Windows,
        "Windows has no option like SO_NO_CHECK, with which a run is rejected",
        &["datagram::batch_with_rejected_gso_is_sent_singly"],
    ),
    (
        On::Windows,
        "Windows has no SO_REUSEPORT",
        &["datagram::server_has_one_socket_for_each_peer"],
    ),
    (
        On::Windows,
        "Windows ignores IP_TOS, and reports the time of a datagram in ticks of a counter only",
        &[
            "datagram_metadata::recv_on_dual_stack_socket_reports_metadata",
            "datagram_metadata::recv_with_metadata_reports_ttl_tos_and_time",
        ],
    ),
    (
        On::Windows,
        "Windows reports neither the fill level of the buffers of a socket nor its dropped datagrams",
        &["datagram_metadata::dropped_datagrams_are_counted_exactly"],
    ),
    (
        On::Windows,
        "the library has no Unix sockets on Windows",
        &["endpoints::endpoint_that_is_invalid_is_named"],
    ),
    (
        On::Windows,
        "no interface has the name lo, and no socket is bound to an interface on Windows",
        &[
            "reconnect::reconnect_with_permanent_error_fails_at_once",
            "reconnect::try_connect_keeps_timeout_token_and_permanent_errors",
            "service_reconnect::service_reconnect_that_ends_reports_its_cause",
            "connect::connect_through_interface_uses_it",
            "datagram::connect_by_name_or_addresses_succeeds",
            "endpoints::connect_host_with_any_host_keeps_its_meaning",
            "endpoints::endpoint_with_zone_or_service_name_is_resolved",
            "endpoints::link_local_address_without_zone_is_rejected",
            "endpoints::local_address_of_a_group_or_network_is_rejected",
            "errors::both::error_message_quotes_the_system",
            "errors::both::error_of_connect_names_the_option",
        ],
    ),
    (
        On::Windows,
        "one local port is for one attempt at a time on Windows",
        &["connect::connect_from_fixed_port_races_addresses"],
    ),
    (
        On::Windows,
        "a pending operation has no single descriptor on Windows",
        &[
            "lookup::lookup_in_progress_finishes_in_an_event_loop",
            "pending_connect::pending_connect_by_name_finishes",
            "pending_connect::pending_connect_cancel_makes_descriptor_readable",
            "pending_connect::pending_connect_deadline_makes_descriptor_readable",
            "pending_connect::pending_connect_descriptor_reports_later_attempts",
            "pending_connect::pending_connect_finishes_with_a_client",
            "pending_connect::pending_connect_that_is_dropped_leaves_no_descriptor",
            "pending_connect::pending_connect_that_is_refused_fails_in_finish",
        ],
    ),
    (
        On::Windows,
        "the library does not choose the processors of threads on Windows",
        &[
            "accept_pause::cpus_of_threads_are_those_of_the_options",
            "accept_pause::cpus_that_do_not_exist_are_rejected",
        ],
    ),
    (
        On::Windows,
        "Windows has no /dev/zero",
        &["conn_file::send_file_of_huge_length_does_not_wrap_the_counters"],
    ),
    (
        On::Windows,
        "Windows discards unread bytes when the peer resets the connection",
        &["close::read_after_reset_returns_earlier_data"],
    ),
    (
        On::Windows,
        "Windows does not report the bytes that are sent and not acknowledged",
        &["close::close_with_timeout_zero_reports_unacknowledged_bytes"],
    ),
    (
        On::Windows,
        "SO_ERROR does not hold a reset on Windows",
        &["close::reset_taken_by_the_program_is_a_reset"],
    ),
    (
        On::Windows,
        "Windows has no filters for system calls (seccomp)",
        &[
            "keepalive::equal_settings_make_no_system_calls",
            "liveness::stats_make_only_the_needed_system_calls",
            "log::callback::accept_that_is_retried_is_logged_once",
            "log::callback::datagram_service_retries_are_logged_once",
            "log::facade::accept_that_is_retried_is_logged_once",
            "log::facade::datagram_service_retries_are_logged_once",
            "proxy::connect_sends_the_rest_of_a_proxy_header_that_was_sent_in_part",
            "datagram::recv_error_ends_when_the_queue_yields_nothing",
            "datagram::recv_of_unexplained_errors_keeps_the_processor_idle",
            "datagram::recv_with_timeout_or_token_makes_few_system_calls",
            "datagram::recv_without_memory_keeps_the_datagram",
            "datagram::serve_after_transient_error_continues",
            "datagram::serve_ends_after_a_fatal_error",
            "datagram::serve_stops_while_receiving_fails",
            "proxy::proxy_header_whose_receive_failed_is_received_by_the_next_call",
            "service::send_is_retried_when_the_kernel_lacks_memory",
        ],
    ),
    (
        On::Windows,
        "Windows has no limits of a process (setrlimit(2))",
        &[
            "log::callback::accept_without_descriptors_is_logged_once",
            "log::facade::accept_without_descriptors_is_logged_once",
            "serve_events::connect_without_free_descriptors_fails_and_the_service_continues",
            "service::serve_leaves_the_server_usable_with_too_few_threads",
        ],
    ),
    (
        On::Windows,
        "Windows has no /proc",
        &[
            "datagram::multicast_join_of_ipv6_group_is_in_kernel_list",
            "datagram_metadata::path_mtu_of_connected_socket_is_reported",
            "service::wait_stopped_is_not_woken_by_connections",
            "service_reconnect::service_reconnect_during_delay_uses_no_cpu",
            "service_reconnect::service_reconnects_leave_no_descriptor",
            "threads::waiting_accepts_sleep_although_they_have_a_token",
            "threads::waiting_calls_sleep_until_an_event",
        ],
    ),
    (
        On::Windows,
        "Windows has no signals",
        &[
            "liveness::liveness_after_sigstop_keeps_answering_peers",
            "service::threads_inherit_the_signal_mask",
            "threads::cancel_in_signal_handler_keeps_errno",
        ],
    ),
    (
        On::Windows,
        "Windows has no TCP_USER_TIMEOUT and ignores IP_TOS",
        &[
            "liveness::stats_report_the_user_timeout_of_the_program",
            "proxy::events_use_the_tcp_socket_of_a_client_of_another_family",
        ],
    ),
    (
        On::Windows,
        "Windows does not shut down a listener",
        &["serve_events::full_service_uses_no_cpu_after_foreign_shutdown"],
    ),
    (
        On::Wine,
        "Wine may report the end of the stream although a reset has arrived",
        &[
            "framing::events_of_bad_message_end_only_its_connection",
            "proxy::events_reject_wrong_and_late_proxy_headers",
            "proxy::proxy_header_that_is_wrong_resets_the_connection",
            "serve_events::abort_of_connection_resets_it",
            "service_reconnect::service_reconnects_after_each_loss",
            "service_reconnect::service_with_several_loops_reconnects_every_connection",
        ],
    ),
];

/// The reason to skip a test. The path is `module_path!()` and the name of the test.
pub fn reason_to_skip(path: &str) -> Option<&'static str> {
    let parts = path.split("::").filter(|part| !["it", "rust", "c"].contains(part));
    let name = parts.collect::<Vec<_>>().join("::");
    let found = LACKS.iter().find(|(_, _, tests)| tests.contains(&name.as_str()));
    found.filter(|(on, ..)| *on == On::Windows || is_wine()).map(|(_, reason, _)| *reason)
}
