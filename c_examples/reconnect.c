/*
 * reconnect.c - prints the lines of a server, and reconnects when the server restarts
 *
 *     reconnect [--sessions N] host:port
 *
 * The peer is push_server or anything that sends lines. Stop the server and
 * start it again: this client prints the events, and connects again. With
 * --sessions it ends after N connections. Exit status: 0 after N connections,
 * 1 failed, 2 wrong arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called before each delay. error is NULL if an established connection has ended. */
static void on_retry(const keepsock_error *error, uint32_t tries, int64_t wait_ms, void *user)
{
    (void)user;
    if (error == NULL)
        printf("connect in %" PRId64 " ms\n", wait_ms);
    else
        printf("try %" PRIu32 ": %s; next in %" PRId64 " ms\n", tries, keepsock_error_message(error), wait_ms);
    fflush(stdout);
}

static void session(keepsock_client *client)
{
    keepsock_error *error = NULL;
    keepsock_five_tuple connection;
    char line[1024];

    if (keepsock_client_five_tuple(client, &connection, sizeof connection, NULL) == KEEPSOCK_OK)
        printf("connected: %s\n", connection.text);
    fflush(stdout);
    /* Send the login or subscription of each new connection here. */
    while (keepsock_client_read_line(client, line, sizeof line, NULL, &error) == KEEPSOCK_OK) {
        puts(line);
        fflush(stdout);
    }
    printf("lost: %s\n", keepsock_error_message(error));
    fflush(stdout);
    keepsock_error_free(error);
}

int main(int argc, char **argv)
{
    long sessions = -1; /* no limit */
    keepsock_options *options = NULL;
    keepsock_reconnect *reconnect = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    int exit_status = 1;

    if (argc > 2 && strcmp(argv[1], "--sessions") == 0) {
        sessions = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: reconnect [--sessions N] host:port\n");
        return 2;
    }

    /* These options apply to each connection: a vanished server is detected within
     * 10 s, and a try takes at most 5 s. The delay between tries is random, below
     * 50 ms, 100 ms, 200 ms, ... 10 s, so that the clients of a server do not all
     * reconnect at once. The whole call fails after 10 minutes. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_new(argv[1], options, &reconnect, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_backoff(reconnect, 50, 10000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_timeout(reconnect, 600000, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_on_retry(reconnect, on_retry, NULL, &error) != KEEPSOCK_OK)
        goto done;

    while (sessions != 0) {
        if (keepsock_reconnect_connect(reconnect, &client, &error) != KEEPSOCK_OK)
            goto done;
        session(client);
        keepsock_client_free(client);
        client = NULL;
        if (sessions > 0)
            sessions--;
    }
    exit_status = 0;

done:
    keepsock_error_print("reconnect", &error);
    keepsock_client_free(client);
    keepsock_reconnect_free(reconnect);
    keepsock_options_free(options);
    return exit_status;
}
