/*
 * alive.c - a peer that hangs: heartbeats, and why a connection ended
 *
 *     alive
 *
 * Makes both sides of a connection itself, on 127.0.0.1 and any free port. The
 * accepting side sends one line and then nothing more, like a program that
 * hangs; its kernel continues to answer keepalive probes.
 * Exit status: 0 as expected, 1 not.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>

static void show(const keepsock_connection_stats *s)
{
    printf("round trip %" PRId64 " us, last received %" PRId64 " ms ago\n", s->rtt_us, s->last_received_us / 1000);
    printf("sent %" PRId64 " bytes in %" PRId64 " heartbeats, received %" PRId64 ", retransmits %" PRId64 "\n",
           s->bytes_sent, s->heartbeats, s->bytes_received, s->retransmits);
}

int main(void)
{
    static const char ping[] = "PING\n";
    keepsock_options *options = NULL;
    keepsock_server *server = NULL;
    keepsock_client *client = NULL, *accepted = NULL;
    keepsock_error *error = NULL;
    keepsock_five_tuple connection;
    char where[KEEPSOCK_TEXT_SIZE];
    keepsock_connection_stats snapshot;
    char line[64];
    int32_t status;
    int exit_status = 1;

    /* The peer's program, not only its kernel, must answer: this side sends a
     * PING after 100 ms without writing, and expects data within 250 ms. Real
     * programs use about ten seconds for each. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat(options, 100, ping, sizeof ping - 1, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat_timeout(options, 250, &error) != KEEPSOCK_OK
        /* A vanished peer is detected within 10 s, also with data in flight. */
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_server_listen("127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error) != KEEPSOCK_OK
        || keepsock_client_connect(where, options, &client, &error) != KEEPSOCK_OK
        || keepsock_server_accept(server, &accepted, &error) != KEEPSOCK_OK
        || keepsock_client_write_str(accepted, "welcome\n", &error) != KEEPSOCK_OK)
        goto done;

    /* A waiting call sends the heartbeats, watches the peer, and returns when
     * the connection has ended. */
    while ((status = keepsock_client_read_line(client, line, sizeof line, NULL, &error)) == KEEPSOCK_OK)
        printf("%s\n", line);
    printf("%s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    error = NULL;
    if (status != KEEPSOCK_ERR_HEARTBEAT_TIMEOUT)
        goto done;

    /* The statistics, and the close reason, which stays readable after close. */
    if (keepsock_client_get_stats(client, &snapshot, sizeof snapshot, &error) != KEEPSOCK_OK
        || keepsock_client_five_tuple(client, &connection, sizeof connection, &error) != KEEPSOCK_OK)
        goto done;
    show(&snapshot);
    keepsock_client_abort(client, NULL);
    printf("%s: %s\n", connection.text, keepsock_close_reason_str(keepsock_client_close_reason(client)));
    if (keepsock_client_close_reason(client) == KEEPSOCK_CLOSE_HEARTBEAT_TIMEOUT && snapshot.heartbeats >= 1)
        exit_status = 0;

done:
    keepsock_error_print("alive", &error);
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return exit_status;
}
