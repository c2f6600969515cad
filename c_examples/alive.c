/*
 * alive.c - a peer that hangs: heartbeats, the idle limit, and why a connection ended
 *
 *     alive
 *
 * Makes both sides of a connection itself, on 127.0.0.1 and any free port. The
 * accepting side says one line and then nothing more, as a program does that
 * hangs; its kernel goes on answering keepalive.
 * Exit status: 0 all as expected, 1 not.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>

static void show(const keepsock_snapshot *s)
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
    keepsock_snapshot snapshot;
    char line[64];
    int32_t status;
    int exit_status = 1;

    /* What the program, not only its kernel, has to answer: a PING after 100 ms
     * without writing. And something has to come within 350 ms. Real programs
     * take some ten seconds for each. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat(options, ping, sizeof ping - 1, 100, &error) != KEEPSOCK_OK
        || keepsock_options_set_idle_limit(options, 350, &error) != KEEPSOCK_OK
        /* A peer that vanishes, with data on its way or not, is known in 10 s. */
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_server_listen("127.0.0.1:0", NULL, &server, &error) != KEEPSOCK_OK
        || keepsock_client_connect(keepsock_server_endpoint(server), options, &client, &error) != KEEPSOCK_OK
        || keepsock_server_accept(server, &accepted, &error) != KEEPSOCK_OK
        || keepsock_client_write_str(accepted, "welcome\n", &error) != KEEPSOCK_OK)
        goto done;

    /* A call that waits sends the heartbeats, watches the peer, and ends when
     * the connection does. */
    while ((status = keepsock_client_read_line(client, line, sizeof line, NULL, &error)) == KEEPSOCK_OK)
        printf("%s\n", line);
    printf("%s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    error = NULL;
    if (status != KEEPSOCK_ERR_HEARTBEAT_MISSED)
        goto done;

    /* How it looks now, and why it ended; that stays after closing. */
    if (keepsock_client_snapshot(client, &snapshot, sizeof snapshot, &error) != KEEPSOCK_OK)
        goto done;
    show(&snapshot);
    keepsock_client_abort(client, NULL);
    printf("%s: %s\n", keepsock_client_name(client), keepsock_end_text(keepsock_client_end(client)));
    if (keepsock_client_end(client) == KEEPSOCK_END_HEARTBEAT_MISSED && snapshot.heartbeats >= 2)
        exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "alive: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_client_free(accepted);
    keepsock_client_free(client);
    keepsock_server_free(server);
    keepsock_options_free(options);
    return exit_status;
}
